"""Providers over HTTP, by aiohttp: the client that costs least per call and closes a cancelled one at once."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError, RawResponseMessage, StreamWriter
from multidict import CIMultiDict
from yarl import URL

from tollgate.config import Provider
from tollgate.errors import ProviderError
from tollgate.processors.upstream import MAX_ANSWER_BYTES, Answer
from tollgate.processors.upstream.credentials import Credential
from tollgate.wire import UpstreamRequest, upstream_url
from tollgate.wire.rate_limits import Window, windows

MAX_CONNECTIONS = 4_000  # of all providers together; more calls than this wait for one
KEEP_ALIVE_S = 60.0
READ_BYTES = 1 << 16  # of an answer, ahead of whoever reads it; twice as much, and the provider has to wait
UNAUTHORIZED = 401
FINAL = 200  # and above: before it, a server says that it is at work
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
    """One account of one provider. Its credential may be replaced at any time: the next call takes the new one.

    Of aiohttp it takes the connections and what reads and writes HTTP on them. All else that a session does for a
    request (redirects, cookies, proxies, a task that writes the body) is not needed, and costs twice as much.
    """

    def __init__(self, session: aiohttp.ClientSession, provider: Provider, credential: Credential) -> None:
        assert session.connector is not None
        self._connector = session.connector
        self._base_url = provider.base_url
        self._host = urlsplit(provider.base_url).netloc
        self._place = aiohttp.ClientRequest("POST", URL(provider.base_url), headers=_HEADERS)  # as the connector asks
        self.credential = credential
        self.limits: tuple[Window, ...] = ()
        self._timeout_s = provider.timeout_seconds
        self._connecting = aiohttp.ClientTimeout(sock_connect=provider.connect_timeout_seconds)

    @asynccontextmanager
    async def send(self, request: UpstreamRequest, *, request_id: str) -> AsyncIterator[Answer]:
        answer: _HttpAnswer | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                url = upstream_url(self._base_url, request.path)
                credential = self.credential
                authorised = await credential.headers(request.method, url, request.headers, request.body)
                headers = self._place.headers.copy()
                headers.update(request.headers)
                headers.update(authorised)
                headers["x-request-id"] = request_id
                headers["content-length"] = str(len(request.body))
                connection = await self._connect()
                try:
                    target = URL(url, encoded=True).raw_path_qs  # as it was signed
                    head, content = await self._exchange(connection, f"{request.method} {target}", headers, request)
                    answer = _HttpAnswer(head, content, self._host, authorised)
                    if answer.status == UNAUTHORIZED:
                        credential.rejected()
                    self.limits = windows(answer.headers) or self.limits
                    yield answer
                finally:
                    _let_go(connection, answer)
        except TimeoutError as error:
            late = "no answer" if answer is None else "no end of its answer"
            status = None if answer is None else answer.status
            raise ProviderError("timeout", f"{late} from {self._host} in time", status=status) from error

    async def _connect(self) -> Connection:
        try:
            return await self._connector.connect(self._place, traces=[], timeout=self._connecting)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ProviderError("connection", f"no connection to {self._host}: {type(error).__name__}") from error

    async def _exchange(
        self, connection: Connection, line: str, headers: CIMultiDict[str], request: UpstreamRequest
    ) -> tuple[RawResponseMessage, aiohttp.StreamReader]:
        """Send the request, and return what the answer begins with."""
        protocol = connection.protocol
        assert protocol is not None
        protocol.set_response_params(read_until_eof=True, auto_decompress=False, read_bufsize=READ_BYTES)
        try:
            writer = StreamWriter(protocol, asyncio.get_running_loop())
            await writer.write_headers(f"{line} HTTP/1.1", headers)
            await writer.write(request.body, drain=False)  # an answer may come before all of it has left
            while True:
                head, content = await protocol.read()
                if head.code >= FINAL:
                    return head, content
        except (aiohttp.ClientError, HttpProcessingError) as error:
            raise ProviderError("cut", f"{self._host} ended the connection before its answer") from error

    async def close(self) -> None:
        """The session is shared, and closed by whoever made it."""


def _let_go(connection: Connection, answer: "_HttpAnswer | None") -> None:
    """Keep the connection for another call where this one is over; or else end it, so that the provider notices."""
    transport = connection.transport
    sent = transport is not None and not transport.get_write_buffer_size()
    connection.release() if sent and answer is not None and answer.is_over else connection.close()


def _without_secrets(body: bytes, authorised: Mapping[str, str]) -> bytes:
    """A failure must not repeat the values of the credential's headers, or the token behind a word (`Bearer`)."""
    values = [part.encode() for value in authorised.values() for part in (value, value.rpartition(" ")[2])]
    for value in values:
        if len(value) >= MIN_SECRET_BYTES:
            body = body.replace(value, b"[removed]")
    return body


class _HttpAnswer:
    """Of a failure the credential is taken out, for its text may go to the client."""

    def __init__(
        self, head: RawResponseMessage, content: aiohttp.StreamReader, host: str, authorised: Mapping[str, str]
    ) -> None:
        self._content = content
        self._host = host
        self._authorised = authorised
        self.status = head.code
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in head.headers.items()}

    @property
    def is_over(self) -> bool:
        """Has all of it come, and been read?"""
        return self._content.at_eof()

    async def read(self) -> bytes:
        body = await self._read()
        return body if self.status < FAILED else _without_secrets(body, self._authorised)

    async def _read(self) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while piece := await self._piece():
            pieces.append(piece)
            size += len(piece)
            if size > MAX_ANSWER_BYTES:
                raise ProviderError("server_error", f"{self._host} sent more than {MAX_ANSWER_BYTES} bytes")
        return b"".join(pieces)

    async def pieces(self) -> AsyncIterator[bytes]:
        while piece := await self._piece():
            yield piece

    async def _piece(self) -> bytes:
        """What has come, or comes next; empty at the end."""
        try:
            return await self._content.readany()
        except aiohttp.ClientError as error:
            message = f"{self._host} ended the connection in its answer"
            raise ProviderError("cut", message, status=self.status) from error
