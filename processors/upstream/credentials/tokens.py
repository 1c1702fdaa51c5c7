"""Bearer tokens that expire: OAuth 2.0 client credentials and refresh tokens (RFC 6749), Google's service accounts
(RFC 7523).

A token is renewed when most of its life is over, beside the calls; a call waits only for the first one, and after the
provider has refused one.
"""

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import jwt
import orjson

from tollgate.accounts import GoogleAccount, OAuth
from tollgate.errors import ConfigError, ProviderError

FETCH_TIMEOUT_S = 10.0
DEFAULT_LIFETIME_S = 300.0  # where the server does not say
RENEW_AFTER = 0.8  # of the lifetime
LEAST_LEFT_S = 5.0  # a token with less is not used any more
FIRST_RETRY_S, LAST_RETRY_S = 1.0, 60.0
MAX_ANSWER_BYTES = 64 << 10
JWT_LIFETIME_S = 3600  # the longest that Google takes
GOOGLE_TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address

log = logging.getLogger(__name__)

_ERROR_CODE = re.compile(r"[a-z_]{1,40}")


class Form(NamedTuple):
    """A question for a token."""

    url: str
    fields: Mapping[str, str]


Grant = Callable[[float, str | None], Form]
"""From the present time (Unix seconds), and the newest refresh token if the server gave one, to the question."""


class Token:
    """A bearer token and its renewal."""

    def __init__(
        self,
        name: str,
        session: aiohttp.ClientSession,
        grant: Grant,
        *,
        clock_s: Callable[[], float] = time.monotonic,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self._name = name
        self._session = session
        self._grant = grant
        self._clock_s = clock_s
        self._wall_s = wall_s
        self._headers: Mapping[str, str] = {}
        self._expires_s = 0.0
        self._renew_s = 0.0
        self._refresh_token: str | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()

    async def headers(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Mapping[str, str]:
        if self._clock_s() > self._expires_s - LEAST_LEFT_S:
            await self._fetched()
        return self._headers

    def rejected(self) -> None:
        self._expires_s = self._renew_s = 0.0
        self._wanted.set()

    async def keep_fresh(self) -> None:
        retry_s = FIRST_RETRY_S
        while True:
            try:
                await self._fetched()
                retry_s = FIRST_RETRY_S
                wait_s = max(FIRST_RETRY_S, self._renew_s - self._clock_s())
            except ProviderError as error:
                log.error("%s", error.message)
                wait_s, retry_s = retry_s, min(LAST_RETRY_S, 2 * retry_s)
            self._wanted.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wanted.wait()

    async def _fetched(self) -> None:
        """Return when a new token is here; all who wait share one question."""
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch())
            self._fetching.add_done_callback(self._was_fetched)
        await asyncio.shield(self._fetching)

    def _was_fetched(self, task: asyncio.Task[None]) -> None:
        self._fetching = None
        if not task.cancelled():
            task.exception()  # whoever waits is told; nobody may be waiting any more

    async def _fetch(self) -> None:
        form = self._grant(self._wall_s(), self._refresh_token)
        try:
            async with self._session.post(
                form.url,
                data=form.fields,
                headers={"accept": "application/json", "content-type": "application/x-www-form-urlencoded"},
                timeout=aiohttp.ClientTimeout(total=FETCH_TIMEOUT_S),
                allow_redirects=False,
            ) as response:
                answer = _object(await response.content.read(MAX_ANSWER_BYTES))
                status = response.status
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ProviderError(
                "auth", f"the token of {self._name} could not be renewed: {type(error).__name__}"
            ) from None
        token = answer.get("access_token")
        if status != 200 or not isinstance(token, str) or not token.isprintable():
            code = answer.get("error")
            said = code if isinstance(code, str) and _ERROR_CODE.fullmatch(code) else "no token"
            raise ProviderError("auth", f"the token of {self._name} could not be renewed: HTTP {status}, {said}")
        lifetime_s = answer.get("expires_in")
        if not isinstance(lifetime_s, int | float) or not 0 < lifetime_s < 10**9:
            lifetime_s = DEFAULT_LIFETIME_S
        now_s = self._clock_s()
        self._headers = {"authorization": f"Bearer {token}"}
        self._expires_s, self._renew_s = now_s + lifetime_s, now_s + RENEW_AFTER * lifetime_s
        if isinstance(answer.get("refresh_token"), str):
            self._refresh_token = answer["refresh_token"]


def client_grant(oauth: OAuth) -> Grant:
    """Client credentials, or a refresh token where there is one."""

    def grant(now_s: float, refresh_token: str | None) -> Form:
        fields = {"client_id": oauth.client_id}
        if oauth.client_secret is not None:
            fields["client_secret"] = oauth.client_secret.reveal()
        if oauth.refresh_token is not None:
            fields |= {"grant_type": "refresh_token", "refresh_token": refresh_token or oauth.refresh_token.reveal()}
        else:
            fields["grant_type"] = "client_credentials"
        optional = {"scope": oauth.scope, "audience": oauth.audience}
        return Form(oauth.token_url, fields | {name: value for name, value in optional.items() if value is not None})

    return grant


class _ServiceAccount(NamedTuple):
    email: str
    key: str
    key_id: str | None
    token_url: str


def service_account_grant(name: str, google: GoogleAccount) -> Grant:
    """A service account's signed claim, by its file as it is when a token is asked for.

    Raises `ConfigError` when the file is not one of a service account now; later on, the last that was one counts.
    """
    kept = _service_account(name, google)

    def grant(now_s: float, refresh_token: str | None) -> Form:
        nonlocal kept
        try:
            kept = _service_account(name, google)
        except ConfigError as error:
            log.error("%s", error)
        claim = {
            "iss": kept.email,
            "scope": google.scope,
            "aud": kept.token_url,
            "iat": int(now_s),
            "exp": int(now_s) + JWT_LIFETIME_S,
        }
        signed = jwt.encode(claim, kept.key, algorithm="RS256", headers={"kid": kept.key_id})
        return Form(kept.token_url, {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": signed})

    return grant


def _service_account(name: str, google: GoogleAccount) -> _ServiceAccount:
    where = google.service_account_file or "service_account"
    try:
        inline = google.service_account
        account = _object(Path(where).read_bytes() if inline is None else inline.reveal().encode())
        email, key = account["client_email"], account["private_key"]
        jwt.encode({}, key, algorithm="RS256")
        return _ServiceAccount(email, key, account.get("private_key_id"), account.get("token_uri") or GOOGLE_TOKEN_URL)
    except (OSError, KeyError, ValueError, TypeError, jwt.PyJWTError) as error:
        raise ConfigError(
            f"providers: {name}: {where} is not the key file of a service account "
            f"({type(error).__name__}); make one in Google Cloud's console under IAM, service accounts, keys"
        ) from None


def _object(text: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
