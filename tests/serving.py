"""An application behind the sockets and the server that the gateway uses, or behind none, for a client that stays."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from tollgate.ingress.http import CONNECTION
from tollgate.ingress.server import server_config


class _Staying:
    """The connection of a client that reads all that it is sent."""

    is_behind = False

    def whole_body(self, scope: Any) -> bytes | None:
        return None

    def watch(self, on_gone: Callable[[], None] | None) -> None:
        """It never goes."""

    def abort(self) -> None:
        raise AssertionError("there was no reason to drop this client")


STAYING: dict[str, Any] = {CONNECTION: _Staying()}  # what the ingress wants to find in `scope["extensions"]`


@asynccontextmanager
async def serve(application: Any) -> AsyncIterator[str]:
    """Its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(server_config(application, host="127.0.0.1", port=0))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving
