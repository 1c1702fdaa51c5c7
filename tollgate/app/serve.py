"""One process of the gateway: the HTTP server around it, signals, what is printed at the start, and the exit code."""

import asyncio
import gc
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvicorn
import uvloop

from tollgate.app.gateway import open_gateway
from tollgate.app.logs import log_to_stderr
from tollgate.app.reload import Seen, Source
from tollgate.app.settings import Role
from tollgate.config import Config
from tollgate.errors import LogUnavailable
from tollgate.ingress.server import server_config
from tollgate.secret import ADMIN_KEY_FILE, Secrets

GRACE_S = 5
STOPPING = "the end: this process is stopping"
LAST_S = 30.0  # beyond the drain: for the sink to write, the log to acknowledge, and Faust to end
RESTART = 75  # EX_TEMPFAIL of sysexits.h: what is true stands in the log, so read it again

# How many more objects there must be than at the last collection of the youngest for the next one; how many of those
# make one of the middle generation, and how many of these one of the oldest. Python's own: 700, 10 and 10.
COLLECT_AFTER = (10_000, 20, 10)

log = logging.getLogger("tollgate")


def run(
    config: Config,
    *,
    data: Path,
    role: Role,
    sockets: Sequence[socket.socket],
    instance: str,
    secrets: Secrets,
    source: Source,
    seen: Seen,
) -> int:
    """Serve on `sockets`, until SIGTERM or SIGINT; return the exit code. SIGHUP reads the file again."""
    log_to_stderr()
    return uvloop.run(
        _serve(
            config,
            role=role,
            data=data,
            sockets=sockets,
            instance=instance,
            secrets=secrets,
            source=source,
            seen=seen,
        )
    )


async def _serve(
    config: Config,
    *,
    role: Role,
    data: Path,
    sockets: Sequence[socket.socket],
    instance: str,
    secrets: Secrets,
    source: Source | None = None,
    seen: Seen = (),
) -> int:
    async with open_gateway(
        config, role=role, data=data, instance=instance, secrets=secrets, fatal=_die, source=source, seen=seen
    ) as gateway:
        server = _Server(server_config(gateway.application), config.server.drain_s)

        loop = asyncio.get_running_loop()
        leaving: asyncio.TimerHandle | None = None
        starting = asyncio.current_task()  # until everything runs

        def stop() -> None:
            gateway.refuse_new(STOPPING)
            server.should_exit = True
            if under_way := gateway.requests_under_way:
                print(_patience(under_way, config.server.drain_s), file=sys.stderr, flush=True)
            if starting is not None:
                starting.cancel()
            loop.call_later(config.server.drain_s, gateway.interrupt)
            # what is not written by then waits for a log that does not answer
            last_s = config.server.drain_s + LAST_S
            loop.call_later(last_s, _die, f"the process has not come to its end in {last_s:.0f} s")

        def leave() -> None:
            """At the first signal; at once at a second one, or while nobody was let in yet. The next ends the calls."""
            nonlocal leaving
            if server.should_exit:
                gateway.interrupt()
            elif starting is not None:
                stop()
            elif leaving is not None:
                leaving.cancel()
                stop()
            else:
                gateway.discourage_new(STOPPING)
                leaving = loop.call_later(config.server.leave_s if role in ("all", "ingress") else 0, stop)

        with _on_signal(leave, reload=gateway.reload):
            serving = asyncio.create_task(server.serve(list(sockets)))
            await server.listening(serving)
            try:
                async with gateway.started():
                    starting = None
                    with _little_garbage():
                        if role in ("all", "ingress"):
                            _greet(server.url, config, data)
                        else:
                            print(f"tollgate {role} is ready; probes at {server.url}/readyz", flush=True)
                        await serving
            except LogUnavailable as error:
                _die(f"the log was lost: {error}")
            except asyncio.CancelledError:
                if not server.should_exit:
                    raise
            finally:
                server.should_exit = True
                await serving
    return 0


class _Server(uvicorn.Server):
    """uvicorn inside a process that has more to do: signals are not its business, and its start can be waited for."""

    def __init__(self, config: uvicorn.Config, drain_s: float) -> None:
        # what is still under way after `drain_s` is ended by the gateway; this is for what even then does not end
        config.timeout_graceful_shutdown = math.ceil(drain_s) + GRACE_S
        super().__init__(config)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def listening(self, serving: asyncio.Task[None]) -> None:
        """Return when connections are accepted."""
        while not self.started:
            if serving.done():
                await serving  # raises why
            await asyncio.sleep(0.005)

    @property
    def url(self) -> str:
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _greet(url: str, config: Config, data: Path) -> None:
    """What somebody needs who has just started it: its address, its key, and a call that works as printed."""
    key_file = data / ADMIN_KEY_FILE
    from_environment = bool(os.environ.get("TOLLGATE_ADMIN_KEY"))
    key = "$TOLLGATE_ADMIN_KEY" if from_environment else f"$(cat {key_file})"
    where = "TOLLGATE_ADMIN_KEY of the environment" if from_environment else str(key_file)
    model = _example_model(config)
    print(
        f"tollgate is ready at {url}\n"
        f"  log        {config.log.broker}\n"
        f"  data       {data}\n"
        f"  admin key  {where}\n"
        f"\n"
        f"Try it:\n"
        f"  curl {url}/v1/chat/completions \\\n"
        f'    -H "Authorization: Bearer {key}" \\\n'
        f'    -H "Content-Type: application/json" \\\n'
        f"""    -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'""",
        flush=True,
    )


def _patience(under_way: int, drain_s: float) -> str:
    """What somebody needs who has just stopped it, and sees nothing happen."""
    requests, them = ("request", "it") if under_way == 1 else ("requests", "them")
    return f"waiting for {under_way} {requests} under way, up to {drain_s:g} s; press Ctrl-C again to end {them} now"


def _example_model(config: Config) -> str:
    """One that is served for certain, if there is one: a name rather than a pattern."""
    if "sandbox" in config.providers:
        return "sandbox"
    listed = [model for provider in config.providers.values() for model in provider.models]
    return next((model for model in listed if not set(model) & set("*?[")), listed[0])


def _die(reason: str) -> None:
    """End the process now, with every effect that is not yet durable. The restart reads what is true from the log."""
    log.critical("%s; the process ends and must be started again", reason)
    sys.stderr.flush()
    os._exit(RESTART)


@contextmanager
def _little_garbage() -> Iterator[None]:
    """Have the garbage collector leave alone what the start has made, and look for the rest seldom.

    A request leaves no cycles behind, only a failure does; reference counts free everything else. With the defaults the
    collector took a fifth of the CPU, and walking over all that was imported stopped the process for 50 ms and more.
    """
    defaults = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    try:
        yield
    finally:
        gc.set_threshold(*defaults)
        gc.unfreeze()


@contextmanager
def _on_signal(stop: Callable[[], None], *, reload: Callable[[], None]) -> Iterator[None]:
    """SIGHUP means two things: the configuration was changed, and the terminal was closed."""
    loop = asyncio.get_running_loop()
    at_a_terminal = _has_terminal()
    handlers = {
        signal.SIGTERM: stop,
        signal.SIGINT: stop,
        signal.SIGHUP: lambda: stop() if at_a_terminal and not _has_terminal() else reload(),
    }
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)


def _has_terminal() -> bool:
    """Is there one that this process was started from, and not closed yet?"""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
