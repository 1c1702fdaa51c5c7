"""Accounts with providers, and the kinds of credential that one may have."""

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from tollgate.secret import Secret


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the file, or of a body: every key is known."""


RoleArn: TypeAlias = Annotated[str, Meta(pattern=r"^arn:[^:\s]+:iam::\d{12}:role/\S+$")]


class OAuth(_Section, frozen=True, kw_only=True):
    """Tokens by OAuth 2.0: with the client's own credentials, or with a refresh token."""

    token_url: Annotated[
        str,
        Meta(
            description="Where tokens are asked for; for Microsoft Entra "
            "`https://login.microsoftonline.com/TENANT/oauth2/v2.0/token`."
        ),
    ]
    client_id: Annotated[str, Meta(min_length=1, description="The client's id.")]
    client_secret: Annotated[Secret | None, Meta(description="The client's secret.")] = None
    refresh_token: Annotated[
        Secret | None, Meta(description="A refresh token; without one the client's own credentials are used.")
    ] = None
    scope: Annotated[
        str | None,
        Meta(description="What is asked for; for Azure OpenAI `https://cognitiveservices.azure.com/.default`."),
    ] = None
    audience: Annotated[str | None, Meta(description="For whom the token is, where the server wants to know.")] = None


class GoogleAccount(_Section, frozen=True, kw_only=True):
    """A service account of Google Cloud."""

    service_account_file: Annotated[str | None, Meta(description="Its key file (JSON), read again for each token.")] = (
        None
    )
    service_account: Annotated[
        Secret | None, Meta(description="What is in that file, in one line, best as `${NAME}`. Instead of the file.")
    ] = None
    scope: Annotated[str, Meta(description="What is asked for.")] = "https://www.googleapis.com/auth/cloud-platform"


class AwsAccount(_Section, frozen=True, kw_only=True):
    """AWS credentials. Without keys they are found as AWS's own tools find them: environment, profile, role."""

    region: Annotated[
        str | None, Meta(description="The region to sign for. Default: the one in the provider's address.")
    ] = None
    access_key_id: Annotated[str | None, Meta(description="The id of a key.")] = None
    secret_access_key: Annotated[Secret | None, Meta(description="The key.")] = None
    session_token: Annotated[Secret | None, Meta(description="With keys that are for a session only.")] = None
    profile: Annotated[
        str | None, Meta(description="A profile of `~/.aws/config`; it may name a role that is assumed.")
    ] = None
    role_arn: Annotated[
        RoleArn | None, Meta(description="A role to assume with these credentials, renewed before its session ends.")
    ] = None
    external_id: Annotated[str | None, Meta(description="What the role's owner asks for beside.")] = None
    session_name: Annotated[
        str, Meta(pattern=r"^[\w+=,.@-]{2,64}$", description="How the role's sessions are called in AWS's own logs.")
    ] = "tollgate"


class Account(_Section, frozen=True, kw_only=True):
    """Credentials with a provider, of one kind."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$", description="How the account appears in the books.")]
    api_key: Annotated[
        Secret | None, Meta(description="The key, best as `${NAME}`. None is sent when it is left out.")
    ] = None
    api_key_file: Annotated[
        str | None, Meta(description="A file that holds the key; it is read again whenever it changes.")
    ] = None
    oauth: Annotated[OAuth | None, Meta(description="Tokens by OAuth 2.0, renewed before they expire.")] = None
    google: Annotated[GoogleAccount | None, Meta(description="A service account of Google Cloud.")] = None
    aws: Annotated[AwsAccount | None, Meta(description="AWS credentials; requests are signed with them.")] = None
    managed: Annotated[
        bool,
        Meta(
            description="Its credential is set through the management API (`tollgate credentials set`), so that none "
            "need stand here. One that is set there goes before one that stands here, in any account."
        ),
    ] = False
    weight: Annotated[
        int, Meta(ge=1, le=1000, description="Its share of the calls, relative to the provider's other accounts.")
    ] = 1

    @property
    def credentials(self) -> tuple[str, ...]:
        """The kinds of credential that are given; one at the most is meant."""
        return tuple(
            kind for kind in ("api_key", "api_key_file", "oauth", "google", "aws") if getattr(self, kind) is not None
        )

    def contradiction(self) -> str | None:
        """What in the credential contradicts itself, and the way out; None where nothing does."""
        aws, google = self.aws, self.google
        if aws is not None and (aws.access_key_id is None) != (aws.secret_access_key is None):
            return "access_key_id and secret_access_key go together"
        if google is not None and (google.service_account_file is None) == (google.service_account is None):
            return "google takes either service_account_file or service_account"
        return None


# What the management API takes ----------------------------------------------------------------------------------------


class GivenServiceAccount(_Section, frozen=True, kw_only=True):
    """A service account by the content of its key file: no file of the gateway's machine can be named."""

    service_account: Secret
    scope: str = GoogleAccount(service_account_file="-").scope


class GivenAws(_Section, frozen=True, kw_only=True):
    """Keys, perhaps with a role to assume: nothing of the gateway's machine can be named."""

    access_key_id: Annotated[str, Meta(pattern=r"^\w{4,128}$")]
    secret_access_key: Secret
    session_token: Secret | None = None
    region: str | None = None
    role_arn: RoleArn | None = None
    external_id: str | None = None


class Given(_Section, frozen=True, kw_only=True):
    """A credential that is set through the management API: one of these."""

    api_key: Secret | None = None
    oauth: OAuth | None = None
    google: GivenServiceAccount | None = None
    aws: GivenAws | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(kind for kind in self.__struct_fields__ if getattr(self, kind) is not None)

    def of(self, account: Account) -> Account:
        """The account with this credential, in the place of any other."""
        google, aws = self.google, self.aws
        return replace(
            account,
            api_key=self.api_key,
            api_key_file=None,
            oauth=self.oauth,
            google=google and GoogleAccount(service_account=google.service_account, scope=google.scope),
            aws=aws and AwsAccount(**{name: getattr(aws, name) for name in aws.__struct_fields__}),
        )
