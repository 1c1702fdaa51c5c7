"""The sandbox provider over HTTP, as a process of its own."""

import argparse
import asyncio
import contextlib
import logging
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tollgate.sandbox.app import create_app
from tollgate.sandbox.delivery import Cut
from tollgate.sandbox.ledger import Ledger

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 9999
KEEP_ALIVE_S = 75  # longer than callers keep idle connections, so that none is closed under a request
DRAIN_S = 1  # a call that hangs must not keep the process from ending


def serve(host: str = DEFAULT_HOST, port: int = DEFAULT_PORT, ledger_path: Path | None = None) -> None:
    """Serve until SIGINT or SIGTERM. Port 0 picks a free one; one line with the URL goes to standard output.

    Raises `OSError` when the address or the file cannot be had, `ValueError` when the file is not a ledger.
    """
    ledger = Ledger(ledger_path)
    config = uvicorn.Config(
        create_app(ledger),
        loop="uvloop",
        http=_Connection,
        lifespan="off",
        access_log=False,
        proxy_headers=False,  # nobody asks where a call came from
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
    )
    logging.getLogger("uvicorn.error").addFilter(_is_not_a_cut)
    with socket.create_server((host, port), family=_family(host), backlog=config.backlog) as listener:
        shown = f"[{host}]" if ":" in host else host
        print(f"sandbox provider on http://{shown}:{listener.getsockname()[1]}", flush=True)
        try:
            # uvicorn ends in order and then raises again the signal that ended it
            with contextlib.suppress(KeyboardInterrupt):
                uvicorn.Server(config).run(sockets=[listener])
        finally:
            ledger.close()


class _Connection(HttpToolsProtocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = _HeadWithBody(transport, self.loop)  # type: ignore[assignment]


class _HeadWithBody:
    """A transport that sends the head of an answer with the first piece of its body, which follows within the turn.

    uvicorn writes them apart and uvloop sends at every write: a quarter of what a call costs here, and of what it costs
    a caller to read. The gateway's ingress does the same, in code of its own.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""

    def write(self, data: bytes) -> None:
        if data.startswith(b"HTTP/1.1 ") and not self._head:
            self._head = data
            self._loop.call_soon(self._flush)
        else:
            head, self._head = self._head, b""
            self._transport.write(head + data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def _flush(self) -> None:
        head, self._head = self._head, b""
        if head:
            self._transport.write(head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of `python -m tollgate.sandbox`."""
    parser = argparse.ArgumentParser(prog="tollgate sandbox", description=__doc__)
    parser.add_argument("--host", default=DEFAULT_HOST)
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 picks a free one")
    parser.add_argument("--ledger", type=Path, metavar="FILE", help="keep the provider's books on this file")
    arguments = parser.parse_args(argv)
    serve(arguments.host, arguments.port, arguments.ledger)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _is_not_a_cut(record: logging.LogRecord) -> bool:
    """A cut is what the caller asked for; its traceback would only hide real ones."""
    return record.exc_info is None or not isinstance(record.exc_info[1], Cut)
