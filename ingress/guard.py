"""The outermost check: the form of a request's head, the size of its body, and how many are let in at once.

What is refused here has cost almost nothing yet. The server has parsed HTTP itself; what it lets through and no client
of ours sends (several `Host`, encoded slashes, compressed bodies) is refused, because two programs may read it in two
ways, and the difference is how requests are smuggled past a proxy.
"""

import asyncio
import re
from urllib.parse import parse_qs

from starlette.types import Scope

from tollgate.control import OFFSET_HEADER
from tollgate.errors import Refusal
from tollgate.ingress.auth import Headers
from tollgate.ingress.form import boundary_of
from tollgate.ingress.http import ClientGone, Incoming

MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 << 10
MAX_URL_BYTES = 8 << 10
BODY_DEADLINE_S = 60.0
MAX_BODY_BYTES_HELD = 256 << 20  # bodies in memory, of all requests together
MAX_OFFSET_DIGITS = 19  # of a 64-bit integer
LINGER_S = 5.0  # how long what a refused client is still sending is read and thrown away
RETRY_AFTER = {"retry-after": "1"}

# Headers of which a second one would leave open which is meant.
_SINGLE = frozenset(
    {b"host", b"content-length", b"content-type", b"content-encoding", b"x-request-id"}
    | {b"authorization", b"x-api-key", b"x-goog-api-key"}
)
_PATH = re.compile(rb"(?:/[A-Za-z0-9_.:@~%+=,!$&'()*-]+)+|/")
_ENCODED_SEPARATOR = re.compile(rb"%(?:2f|5c|00)", re.IGNORECASE)
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_JSON_TYPE = re.compile(rb'application/json\s*(?:;\s*charset\s*=\s*"?utf-?8"?\s*)?', re.IGNORECASE)


def check_head(scope: Scope, headers: Headers) -> None:
    """Raise `Refusal` for a head that no client of good will sends. `headers` are those of the scope, by name."""
    pairs = scope["headers"]
    if len(pairs) > MAX_HEADERS:
        raise _header_refusal(f"There are {len(pairs)} headers; at most {MAX_HEADERS} are taken.")
    size = sum([len(name) + len(value) for name, value in pairs])
    if size > MAX_HEADER_BYTES:
        raise _header_refusal(f"The headers have {size} bytes; at most {MAX_HEADER_BYTES} are taken.")
    if len(headers) < len(pairs):
        _check_single([name for name, _ in pairs])
    if b"host" not in headers and scope["http_version"] != "1.0":  # probes of balancers speak 1.0, without one
        raise Refusal(400, "invalid_header", "The header 'Host' is missing.", param="host")
    if headers.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
        raise Refusal(
            501,
            "unsupported_transfer_encoding",
            f"The body is transferred as {_shown(headers[b'transfer-encoding'])}; 'chunked' is all that is read.",
            param="transfer-encoding",
        )
    _check_path(scope)


def check_no_key_in_url(scope: Scope) -> None:
    """Google's API takes `?key=`. Raise `Refusal` for it, whatever else was sent: URLs are written into logs."""
    if b"key" in parse_qs(scope["query_string"], keep_blank_values=True):
        raise Refusal(
            400,
            "key_in_url",
            "There is a key in the URL, which others may have read in a log: send a new one as the header "
            "'x-goog-api-key'.",
            param="key",
        )


def announces_body(headers: Headers) -> bool:
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


def check_body_head(headers: Headers, max_bytes: int, *, form: bool = False) -> bytes | None:
    """Is the body that is announced one to read? Returns the boundary of a form. Raises `Refusal` where it is not."""
    encoding = headers.get(b"content-encoding", b"identity").lower()
    if encoding != b"identity":
        raise Refusal(
            415,
            "unsupported_content_encoding",
            f"The body is encoded as {_shown(encoding)}; send it as it is.",
            param="content-encoding",
        )
    content_type = headers.get(b"content-type", b"")
    boundary = boundary_of(content_type) if form else None
    if boundary is None and (form or _JSON_TYPE.fullmatch(content_type) is None):
        said = f"is {_shown(content_type)}" if content_type else "is missing"
        wanted = "multipart/form-data', with a boundary" if form else "application/json', in UTF-8"
        raise Refusal(
            415,
            "unsupported_content_type",
            f"The header 'Content-Type' {said}; send 'Content-Type: {wanted}.",
            param="content-type",
        )
    if int(headers.get(b"content-length", b"0")) > max_bytes:
        raise _too_large(max_bytes)
    return boundary


def client_request_id(headers: Headers) -> bytes | None:
    """The client's own id for its request, to be given back to it; None when it sent none that is fit for that."""
    given = headers.get(b"x-request-id")
    return given if given is not None and _REQUEST_ID.fullmatch(given) else None


def control_offset(headers: Headers) -> int:
    """What the client has seen of the control state, as the answer to a change has told it. Raises `Refusal` (400)."""
    given = headers.get(OFFSET_HEADER.encode(), b"0")
    if not given.isdigit() or len(given) > MAX_OFFSET_DIGITS:
        raise Refusal(
            400,
            "invalid_header",
            f"The header '{OFFSET_HEADER}' must be the number that the answer to a change gave.",
            param=OFFSET_HEADER,
        )
    return int(given)


class Load:
    """How much is under way. What does not fit is refused at once, so that what is in gets its answer."""

    def __init__(self, *, max_requests: int, max_body_bytes: int) -> None:
        self.requests = 0
        self.body_bytes = 0
        self._max_requests = max_requests
        self._max_body_bytes = max_body_bytes

    def enter(self) -> None:
        """Count a request in. Raises `Refusal` (503) when there are as many as there may be."""
        if self.requests >= self._max_requests:
            raise Refusal(
                503,
                "overloaded",
                f"{self.requests} requests are under way, as many as this gateway takes at once. Try again.",
                type="api_error",
                headers=RETRY_AFTER,
            )
        self.requests += 1

    def leave(self) -> None:
        self.requests -= 1

    async def read_body(self, incoming: Incoming, *, max_bytes: int, deadline_s: float = BODY_DEADLINE_S) -> bytes:
        """The whole body. Raises `Refusal` when it grows too large (413), or does not come in time (408)."""
        whole = incoming.whole_body()
        if whole is not None:
            self._hold(incoming, len(whole), max_bytes)
            return whole
        pieces = []
        try:
            async with asyncio.timeout(deadline_s):
                while not incoming.body_ended:
                    piece = (await incoming.receive()).get("body", b"")
                    self._hold(incoming, len(piece), max_bytes)
                    pieces.append(piece)
        except TimeoutError:
            raise Refusal(
                408,
                "request_timeout",
                f"The body did not come within {deadline_s:g} s; {incoming.held_bytes} bytes of it did.",
            ) from None
        return b"".join(pieces)

    def release_body(self, incoming: Incoming) -> None:
        """The body is not in memory any more."""
        self.body_bytes -= incoming.held_bytes
        incoming.held_bytes = 0

    def _hold(self, incoming: Incoming, size: int, max_bytes: int) -> None:
        if incoming.held_bytes + size > max_bytes:
            raise _too_large(max_bytes)
        if self.body_bytes + size > self._max_body_bytes:
            raise Refusal(
                503,
                "overloaded",
                "The bodies of other requests fill the memory set aside for them. Try again.",
                type="api_error",
                headers=RETRY_AFTER,
            )
        self.body_bytes += size
        incoming.held_bytes += size


async def linger(incoming: Incoming) -> None:
    """Read what a refused client is still sending, and throw it away.

    Closing at once would reset the connection, and the client would see that instead of its refusal.
    """
    try:
        async with asyncio.timeout(LINGER_S):
            while not incoming.body_ended:
                await incoming.receive()
    except (TimeoutError, ClientGone):
        return


def _check_single(names: list[bytes]) -> None:
    for name in _SINGLE.intersection(names):
        if names.count(name) > 1:
            text = name.decode()
            raise Refusal(400, "invalid_header", f"The header '{text}' is there more than once.", param=text)


def _check_path(scope: Scope) -> None:
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    if len(raw) + len(scope["query_string"]) > MAX_URL_BYTES:
        raise Refusal(414, "uri_too_long", f"The URL is longer than {MAX_URL_BYTES} bytes.")
    if _PATH.fullmatch(raw) is None or (b"%" in raw and _ENCODED_SEPARATOR.search(raw)) or "/." in scope["path"]:
        raise unknown_path()


def unknown_path() -> Refusal:
    """Which dialect is meant is not known where the path is wrong, so the base URL of every one is told."""
    return Refusal(
        404,
        "not_found",
        "There is nothing at this URL. The base URL of OpenAI's clients is this gateway's address with /v1 at its end; "
        "that of Anthropic's, Google's and Ollama's clients is the address alone, without a path.",
    )


def _too_large(max_bytes: int) -> Refusal:
    return Refusal(
        413, "request_too_large", f"The body is larger than {max_bytes} bytes ({max_bytes >> 20} MiB), the most taken."
    )


def _header_refusal(message: str) -> Refusal:
    return Refusal(431, "headers_too_large", message)


def _shown(value: bytes) -> str:
    """A header's value, fit for an error message: short, and printable whatever was sent."""
    return ascii(value[:64].decode("latin-1"))
