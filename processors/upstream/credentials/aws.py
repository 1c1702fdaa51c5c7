"""AWS: every request is signed (Signature Version 4), with keys from the configuration or found as AWS's tools do.

The chain of botocore (environment, web identity, profile, SSO, container and instance roles, a profile's role) may read
files and ask servers, so it runs in a thread, beside the calls; and so does the assumption of a role that the account
names (https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html).
"""

import asyncio
import logging
import math
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tollgate.accounts import AwsAccount
from tollgate.errors import ProviderError

SERVICE = "bedrock"
LOOK_EVERY_S = 30.0  # botocore renews what its chain has found when less than fifteen minutes are left
RENEW_LEFT_S = 15 * 60.0  # of a session of a role that is assumed here, which lasts an hour
LEAST_LEFT_S = 5.0  # keys with less are not used any more
STS_TIMEOUT_S = 5.0
DEFAULT_REGION = "us-east-1"

log = logging.getLogger(__name__)

_REGION_IN_HOST = re.compile(r"//[a-z0-9-]+\.([a-z]{2}(-[a-z]+)+-\d)\.")


class Keys(NamedTuple):
    """What a signature is made of, under the names that botocore reads."""

    access_key: str
    secret_key: str
    token: str | None


class AwsCredential:
    """Signs with the newest keys of an account."""

    def __init__(self, name: str, account: AwsAccount, *, wall_s: Callable[[], float] = time.time) -> None:
        self._name = name
        self._account = account
        self._wall_s = wall_s
        self._source: Any = None  # botocore's credentials, as its chain has found them
        self._keys: Keys | None = None
        self._expires_s = math.inf  # of the keys, where this assumes a role itself
        self._looking: asyncio.Task[None] | None = None
        configured = _configured(account)
        self._static = configured is not None and account.role_arn is None
        if self._static:
            self._keys = configured

    async def headers(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Mapping[str, str]:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        if self._keys is None or self._wall_s() > self._expires_s - LEAST_LEFT_S:
            await self._looked()
        if self._keys is None:
            raise ProviderError("auth", f"no AWS credentials were found for {self._name}")
        region = self._account.region or _region(url)
        request = AWSRequest(method=method, url=url, headers=dict(headers), data=body)
        SigV4Auth(self._keys, SERVICE, region).add_auth(request)
        return {name.lower(): value for name, value in request.headers.items()}

    def rejected(self) -> None:
        """Go through the whole chain again: a file or a role may have changed."""
        if not self._static:
            self._keys = self._source = None
            self._expires_s = math.inf

    async def keep_fresh(self) -> None:
        while not self._static:
            if self._keys is None or self._account.role_arn is None or self._wall_s() > self._expires_s - RENEW_LEFT_S:
                await self._looked()
            await asyncio.sleep(LOOK_EVERY_S)

    async def _looked(self) -> None:
        """Return when it was looked for keys; all who wait share one look."""
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        await asyncio.shield(self._looking)

    async def _look(self) -> None:
        try:
            self._keys, self._expires_s = await asyncio.to_thread(self._found)
        except Exception as error:  # whatever the chain meets: files, networks, other people's plug-ins
            log.error("the AWS credentials of %s could not be renewed: %s", self._name, type(error).__name__)
            if self._wall_s() > self._expires_s - LEAST_LEFT_S:
                self._keys = None
        finally:
            self._looking = None

    def _found(self) -> tuple[Keys | None, float]:
        """The keys and when they expire, as far as that is not the chain's business. Runs in a thread."""
        from botocore.session import Session

        session = Session(profile=self._account.profile)
        keys = _configured(self._account)
        if keys is None:
            if self._source is None:
                self._source = session.get_credentials()
            if self._source is None:
                return None, math.inf
            frozen = self._source.get_frozen_credentials()
            keys = Keys(frozen.access_key, frozen.secret_key, frozen.token)
        return (keys, math.inf) if self._account.role_arn is None else self._assumed(session, keys)

    def _assumed(self, session: Any, keys: Keys) -> tuple[Keys, float]:
        """Keys of a session of the role, which the keys may assume."""
        from botocore.config import Config

        sts = session.create_client(
            "sts",
            region_name=self._account.region or session.get_config_variable("region") or DEFAULT_REGION,
            aws_access_key_id=keys.access_key,
            aws_secret_access_key=keys.secret_key,
            aws_session_token=keys.token,
            config=Config(connect_timeout=STS_TIMEOUT_S, read_timeout=STS_TIMEOUT_S, retries={"max_attempts": 1}),
        )
        beside = {} if self._account.external_id is None else {"ExternalId": self._account.external_id}
        answer = sts.assume_role(RoleArn=self._account.role_arn, RoleSessionName=self._account.session_name, **beside)[
            "Credentials"
        ]
        made = Keys(answer["AccessKeyId"], answer["SecretAccessKey"], answer["SessionToken"])
        return made, answer["Expiration"].timestamp()


def _configured(account: AwsAccount) -> Keys | None:
    if account.access_key_id is None or account.secret_access_key is None:
        return None
    token = account.session_token.reveal() if account.session_token else None
    return Keys(account.access_key_id, account.secret_access_key.reveal(), token)


def _region(url: str) -> str:
    found = _REGION_IN_HOST.search(url)
    return found[1] if found else DEFAULT_REGION
