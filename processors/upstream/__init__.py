"""Calling providers: the port. Transports move bytes; they know nothing of prompts, prices or plans."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from tollgate.wire import UpstreamRequest
from tollgate.wire.rate_limits import Window

MAX_ANSWER_BYTES = 64 << 20  # of a unary answer or an error; a longer one is a provider's fault


class Answer(Protocol):
    """A provider's answer whose head has come. Reading fails with `ProviderError`: `cut`, `timeout`, `server_error`."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in lower case."""
        ...

    async def read(self) -> bytes:
        """The whole body, at most `MAX_ANSWER_BYTES`."""
        ...

    def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes, cut anywhere; ends when it is complete."""
        ...


class Transport(Protocol):
    """One way to reach one account of one provider. `limits` is what its newest answer said of its rate limits."""

    limits: tuple[Window, ...]

    def send(self, request: UpstreamRequest, *, request_id: str) -> AbstractAsyncContextManager[Answer]:
        """Send it and yield the answer's head. Leaving the context before the body's end closes the call at once.

        `request_id` is given to the provider as its request id. Raises `ProviderError` (`connection`, `timeout`).
        """
        ...

    async def close(self) -> None: ...
