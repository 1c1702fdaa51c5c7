"""The address that a process listens on, had before anything else is done: a start in vain leaves nothing behind."""

import errno
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from tollgate.errors import ConfigError

WAY_OUT = "choose another with --port, TOLLGATE_PORT or 'server.port' of gateway.yaml"


@contextmanager
def bind(host: str, port: int) -> Iterator[Sequence[socket.socket]]:
    """Sockets bound to every address of `host`, at which nobody is heard until the server listens.

    Port 0 takes a free one. Raises `ConfigError` that names the address, what is wrong with it and the way out.
    """
    shown = f"[{host}]" if ":" in host else host
    with ExitStack() as stack:
        try:
            found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except OSError as error:
            raise ConfigError(f"cannot listen on {shown}: {error.strerror}; see --host, 'server.host'") from None
        sockets = []
        for family, _, _, _, address in dict.fromkeys(found):
            bound = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what an earlier process left in TIME_WAIT
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                bound.bind(address)
            except OSError as error:
                raise ConfigError(_refused(shown, port, error)) from None
            sockets.append(bound)
        yield sockets


def _refused(host: str, port: int, error: OSError) -> str:
    why = os.strerror(error.errno) if error.errno else str(error)
    match error.errno:
        case errno.EADDRINUSE:
            return f"port {port} of {host} is in use by another program, perhaps another gateway; {WAY_OUT}"
        case errno.EACCES:
            return f"port {port} of {host} is not for this user ({why}); {WAY_OUT}"
        case _:
            return f"cannot listen on {host}:{port}: {why}; see --host, 'server.host'"
