"""Providers over HTTP, by aiohttp: the client that costs least per call and closes a cancelled one at once."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from tollgate.config import Provider
from tollgate.errors import ProviderError
from tollgate.processors.upstream import MAX_ANSWER_BYTES, Answer
from tollgate.processors.upstream.credentials import Credential
from tollgate.wire import UpstreamRequest, upstream_url
from tollgate.wire.rate_limits import Window, windows

MAX_CONNECTIONS = 4_000  # of all providers together; more calls than this wait for one
KEEP_ALIVE_S = 60.0
UNAUTHORIZED = 401
FAILED = 300  # and above
MIN_SECRET_BYTES = 8  # what is shorter is a word that an error may well hold

# Where all that aiohttp would add is set, it need not be told for each call what to leave out.
_HEADERS = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "tollgate"}


def new_session() -> aiohttp.ClientSession:
    """The sockets to all providers. No proxy or credential is taken from the environment, no cookie is kept."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=KEEP_ALIVE_S, ttl_dns_cache=60),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        headers=_HEADERS,
    )


class HttpTransport:
    """One account of one provider. Its credential may be replaced at any time: the next call takes the new one."""

    def __init__(self, session: aiohttp.ClientSession, provider: Provider, credential: Credential) -> None:
        self._session = session
        self._base_url = provider.base_url
        self._host = urlsplit(provider.base_url).netloc
        self.credential = credential
        self.limits: tuple[Window, ...] = ()
        self._timeout_s = provider.timeout_seconds
        # The whole call has one timer of asyncio's: aiohttp's own is entered three times for each.
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=provider.connect_timeout_seconds)

    @asynccontextmanager
    async def send(self, request: UpstreamRequest, *, request_id: str) -> AsyncIterator[Answer]:
        status: int | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                response, authorised = await self._head(request, request_id)
                status = response.status
                answer = _HttpAnswer(response, self._host, authorised)
                self.limits = windows(answer.headers) or self.limits
                try:
                    yield answer
                finally:
                    response.close() if not response.content.at_eof() else response.release()
        except TimeoutError as error:
            late = "no answer" if status is None else "no end of its answer"
            raise ProviderError("timeout", f"{late} from {self._host} in time", status=status) from error

    async def _head(
        self, request: UpstreamRequest, request_id: str
    ) -> tuple[aiohttp.ClientResponse, Mapping[str, str]]:
        """The answer as far as its head, and what of the request must not be repeated."""
        url = upstream_url(self._base_url, request.path)
        credential = self.credential
        authorised = await credential.headers(request.method, url, request.headers, request.body)
        try:
            response = await self._session.request(
                request.method,
                URL(url, encoded=True),  # as it was signed
                data=request.body,
                headers={**request.headers, **authorised, "x-request-id": request_id},
                timeout=self._timeout,
                allow_redirects=False,
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise ProviderError("connection", f"no connection to {self._host}: {type(error).__name__}") from error
        except aiohttp.ClientError as error:
            raise ProviderError("cut", f"{self._host} ended the connection before its answer") from error
        if response.status == UNAUTHORIZED:
            credential.rejected()
        return response, authorised

    async def close(self) -> None:
        """The session is shared, and closed by whoever made it."""


def _without_secrets(body: bytes, authorised: Mapping[str, str]) -> bytes:
    """A failure must not repeat the values of the credential's headers, or the token behind a word (`Bearer`)."""
    values = [part.encode() for value in authorised.values() for part in (value, value.rpartition(" ")[2])]
    for value in values:
        if len(value) >= MIN_SECRET_BYTES:
            body = body.replace(value, b"[removed]")
    return body


class _HttpAnswer:
    """Of a failure the credential is taken out, for its text may go to the client."""

    def __init__(self, response: aiohttp.ClientResponse, host: str, authorised: Mapping[str, str]) -> None:
        self._response = response
        self._host = host
        self._authorised = authorised
        self.status = response.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}

    async def read(self) -> bytes:
        body = await self._read()
        return body if self.status < FAILED else _without_secrets(body, self._authorised)

    async def _read(self) -> bytes:
        length = self._response.content_length
        if length is not None and length <= MAX_ANSWER_BYTES:
            try:
                return await self._response.read()
            except aiohttp.ClientError as error:
                raise self._broken() from error
        body = bytearray()
        async for piece in self.pieces():
            body += piece
            if len(body) > MAX_ANSWER_BYTES:
                raise ProviderError("server_error", f"{self._host} sent more than {MAX_ANSWER_BYTES} bytes")
        return bytes(body)

    async def pieces(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._response.content.iter_any():
                yield piece
        except aiohttp.ClientError as error:
            raise self._broken() from error

    def _broken(self) -> ProviderError:
        return ProviderError("cut", f"{self._host} ended the connection in its answer", status=self.status)
