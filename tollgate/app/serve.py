"""One process that is the whole gateway: it puts the stages beside each other, starts them, and stops them in order.

    start:  log → control → processors (take-over) → sink → ready
    stop:   not ready → no new connections, requests under way end → processors → sink → log

The stages meet only in the log and in the replies; nothing but this module knows all three.
"""

import asyncio
import logging
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from prometheus_client import CollectorRegistry

from tollgate.app.open_log import open_log
from tollgate.config import Config
from tollgate.control import Control, catch_up, follow_control
from tollgate.errors import ConfigError, LogError, TollgateError
from tollgate.failpoints import reached
from tollgate.ids import new_request_id
from tollgate.ingress.app import create_ingress
from tollgate.ingress.door import Door, wall_clock_ms
from tollgate.ingress.server import server_config
from tollgate.log import Log
from tollgate.prices.book import PriceBook
from tollgate.processors.app import processors, transports
from tollgate.processors.owner import World
from tollgate.replies import LocalReplies
from tollgate.sealed import FolderSeals, Sealer
from tollgate.secret import ADMIN_KEY_FILE, Secrets
from tollgate.sinks.sink import Sink

RESTART = 75  # EX_TEMPFAIL of sysexits.h: what is true stands in the log, so read it again
MAINTAIN_S = 5.0
PRICES = "pricing.yaml"
SINK_DRAIN_S = 10.0

log = logging.getLogger("tollgate")


def run(config: Config, *, data: Path, role: str, host: str, port: int, instance: str, secrets: Secrets) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code. `role` is `all`: every stage in this process."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    (data / "instances" / instance).mkdir(parents=True, exist_ok=True)
    try:
        return uvloop.run(_serve(config, data=data, host=host, port=port, instance=instance, secrets=secrets))
    except LogError as error:
        log.error("%s", error)
        raise ConfigError(str(error)) from error


async def _serve(config: Config, *, data: Path, host: str, port: int, instance: str, secrets: Secrets) -> int:
    state = data / "instances" / instance
    waiting_for: list[str] = ["the log", "the processors"]
    replies = LocalReplies(f"{instance}/{new_request_id()}")
    registry = CollectorRegistry()
    control = Control()
    async with AsyncExitStack() as stack:
        source = await open_log(config, data, client_id=instance)
        stack.push_async_callback(source.close)
        sealer = Sealer(secrets.secret, FolderSeals(data / "seals"))
        world = World(
            log=source,
            replies=replies,
            control=control,
            sealer=sealer,
            config=config,
            book=_load_prices(),
            transports=await stack.enter_async_context(transports(config)),
            instance=instance,
            address=replies.address,
            fatal=_die,
            draw=random.random,
            now_ms=wall_clock_ms,
        )
        sink = Sink(source, data, failpoint=reached)
        door = Door(
            config=config,
            log=source,
            replies=replies,
            control=control,
            sealer=sealer,
            secrets=secrets,
            registry=registry,
            not_ready=lambda: waiting_for,
        )
        server = _Server(server_config(create_ingress(door), host=host, port=port), config.server.drain_s)

        def stop() -> None:
            waiting_for.append("the end: this process is stopping")
            server.should_exit = True

        with _on_signal(stop):
            serving = asyncio.create_task(server.serve())
            await server.listening(serving)
            await catch_up(source, control)
            waiting_for.remove("the log")
            await stack.enter_async_context(_always(follow_control(source, control), "the fold of control"))
            await stack.enter_async_context(_sinking(sink))
            await stack.enter_async_context(_always(_maintain(source, sealer, config), "maintenance"))
            await stack.enter_async_context(
                processors(
                    world,
                    data=state,
                    instance=instance,
                    bootstrap_servers=config.log.bootstrap_servers,
                    on_crash=_die,
                )
            )
            waiting_for.remove("the processors")
            _greet(server.url, config, data)
            await serving
    return 0


class _Server(uvicorn.Server):
    """uvicorn inside a process that has more to do: signals are not its business, and its start can be waited for."""

    def __init__(self, config: uvicorn.Config, drain_s: float) -> None:
        config.timeout_graceful_shutdown = int(drain_s) or 1
        super().__init__(config)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def listening(self, serving: asyncio.Task[None]) -> None:
        """Return when connections are accepted. Raises `ConfigError` when the address cannot be had."""
        while not self.started:
            if serving.done():
                raise ConfigError(f"cannot listen on {self.config.host}:{self.config.port}; choose another with --port")
            await asyncio.sleep(0.005)

    @property
    def url(self) -> str:
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _load_prices() -> PriceBook:
    """The catalogue, and above it `pricing.yaml` of the working directory if there is one."""
    overrides = Path(PRICES)
    return PriceBook.load(overrides if overrides.exists() else None)


def _greet(url: str, config: Config, data: Path) -> None:
    """What somebody needs who has just started it: its address, its key, and a call that works as printed."""
    key_file = data / ADMIN_KEY_FILE
    key = "$TOLLGATE_ADMIN_KEY" if os.environ.get("TOLLGATE_ADMIN_KEY") else f"$(cat {key_file})"
    where = "the environment (TOLLGATE_ADMIN_KEY)" if "ADMIN_KEY" in key else str(key_file)
    model = "sandbox" if "sandbox" in config.providers else next(iter(config.providers.values())).models[0]
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


def _die(reason: str) -> None:
    """End the process now, with every effect that is not yet durable. The restart reads what is true from the log."""
    log.critical("%s; the process ends and must be started again", reason)
    sys.stderr.flush()
    os._exit(RESTART)


@contextmanager
def _on_signal(stop: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


@asynccontextmanager
async def _always(work: Awaitable[Any], name: str) -> AsyncIterator[None]:
    """Have `work` done beside everything else; that it ends by itself is the end of the process."""

    async def watched() -> None:
        try:
            await work
            _die(f"{name} ended")
        except Exception as error:
            _die(f"{name} failed: {type(error).__name__}: {error}")

    task = asyncio.create_task(watched())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def _sinking(sink: Sink) -> AsyncIterator[None]:
    """Run the sink; on leaving, it writes what the log holds by then."""
    stopping = False

    async def watched() -> None:
        try:
            await sink.run()
        except (TollgateError, OSError) as error:
            _die(f"the sink failed: {error}")
        if not stopping:
            _die("the sink ended")

    task = asyncio.create_task(watched())
    try:
        yield
    finally:
        stopping = True
        await sink.drain(SINK_DRAIN_S)
        await task


async def _maintain(source: Log, sealer: Sealer, config: Config) -> None:
    """Retention, compaction, and the deletion of data keys that no request needs any more."""
    maintain: Callable[[int], Awaitable[None]] | None = getattr(source, "maintain", None)
    keep_ms = int(config.server.request_deadline_s * 1000)
    while True:
        await asyncio.sleep(MAINTAIN_S)
        now_ms = wall_clock_ms()
        if maintain is not None:
            await maintain(now_ms)
        sealer.expire(now_ms, keep_ms=keep_ms)
