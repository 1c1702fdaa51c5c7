"""AWS: every request is signed (Signature Version 4), with keys from the configuration or found as AWS's tools do.

The chain of botocore (environment, profile, SSO, container and instance roles, `assume_role` of a profile) may read
files and ask servers, so it runs in a thread, beside the calls.
"""

import asyncio
import logging
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from tollgate.config import AwsAccount
from tollgate.errors import ProviderError

SERVICE = "bedrock"
LOOK_EVERY_S = 30.0  # botocore renews a role's credentials when less than fifteen minutes are left

log = logging.getLogger(__name__)

_REGION_IN_HOST = re.compile(r"//[a-z0-9-]+\.([a-z]{2}(-[a-z]+)+-\d)\.")


class Keys(NamedTuple):
    """What a signature is made of, under the names that botocore reads."""

    access_key: str
    secret_key: str
    token: str | None


class AwsCredential:
    """Signs with the newest keys of an account."""

    def __init__(self, name: str, account: AwsAccount) -> None:
        self._name = name
        self._account = account
        self._source: Any = None
        self._keys: Keys | None = None
        if account.access_key_id is not None and account.secret_access_key is not None:
            token = account.session_token.reveal() if account.session_token else None
            self._keys = Keys(account.access_key_id, account.secret_access_key.reveal(), token)
            self._static = True
        else:
            self._static = False

    async def headers(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Mapping[str, str]:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        if self._keys is None:
            await self._look()
        if self._keys is None:
            raise ProviderError("auth", f"no AWS credentials were found for {self._name}")
        region = self._account.region or _region(url)
        request = AWSRequest(method=method, url=url, headers=dict(headers), data=body)
        SigV4Auth(self._keys, SERVICE, region).add_auth(request)
        return {name.lower(): value for name, value in request.headers.items()}

    def rejected(self) -> None:
        if not self._static:
            self._keys = None

    async def keep_fresh(self) -> None:
        while not self._static:
            await self._look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self) -> None:
        try:
            self._keys = await asyncio.to_thread(self._found)
        except Exception as error:  # whatever the chain meets: files, networks, other people's plug-ins
            log.error("the AWS credentials of %s could not be renewed: %s", self._name, type(error).__name__)

    def _found(self) -> Keys | None:
        from botocore.session import Session

        if self._source is None:
            self._source = Session(profile=self._account.profile).get_credentials()
        if self._source is None:
            return None
        frozen = self._source.get_frozen_credentials()
        return Keys(frozen.access_key, frozen.secret_key, frozen.token)


def _region(url: str) -> str:
    found = _REGION_IN_HOST.search(url)
    return found[1] if found else "us-east-1"
