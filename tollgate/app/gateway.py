"""The stages of one process, put beside each other: what each is given, in which order they start and stop.

    start:  log → control → sink → processors (take-over) → ready
    stop:   processors (calls under way end) → sink (writes what is there) → log

The stages meet only in the log and in the replies; nothing but this module knows all three.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from tollgate.app.open_log import open_log
from tollgate.config import Config
from tollgate.control import Control, catch_up, follow_control
from tollgate.errors import TollgateError
from tollgate.failpoints import reached
from tollgate.ids import new_request_id
from tollgate.ingress.app import create_ingress
from tollgate.ingress.door import Door, wall_clock_ms
from tollgate.log import Log
from tollgate.prices.book import PriceBook
from tollgate.processors.app import processors, transports
from tollgate.processors.owner import World
from tollgate.replies import LocalReplies
from tollgate.sealed import FolderSeals, Sealer
from tollgate.secret import Secrets
from tollgate.sinks.sink import Sink

MAINTAIN_S = 5.0
SINK_DRAIN_S = 10.0
PRICES = "pricing.yaml"

Fatal = Callable[[str], None]


class Gateway:
    """All stages in this process. `application` answers probes at once, and requests while `started` is entered."""

    def __init__(
        self, config: Config, log: Log, *, data: Path, instance: str, secrets: Secrets, book: PriceBook, fatal: Fatal
    ) -> None:
        self.log = log
        self._config = config
        self._data = data
        self._instance = instance
        self._book = book
        self._fatal = fatal
        self._waiting_for = ["the log", "the processors"]
        self._control = Control()
        self._replies = LocalReplies(f"{instance}/{new_request_id()}")
        self._sealer = Sealer(secrets.secret, FolderSeals(data / "seals"))
        self.sink = Sink(log, data, failpoint=reached)
        self.application: ASGIApp = create_ingress(
            Door(
                config=config,
                log=log,
                replies=self._replies,
                control=self._control,
                sealer=self._sealer,
                secrets=secrets,
                registry=CollectorRegistry(),
                not_ready=self.not_ready,
            )
        )

    def not_ready(self) -> Sequence[str]:
        """What a new request would wait for; nothing when it may come."""
        return self._waiting_for

    def refuse_new(self, reason: str) -> None:
        """Be no longer ready: a balancer sends new requests elsewhere, those under way go on."""
        self._waiting_for.append(reason)

    @asynccontextmanager
    async def started(self) -> AsyncIterator[None]:
        """Run the stages; on leaving, requests under way are ended and the books written."""
        async with AsyncExitStack() as stack:
            await catch_up(self.log, self._control)
            self._waiting_for.remove("the log")
            follow = follow_control(self.log, self._control)
            await stack.enter_async_context(self._always(follow, "the fold of the control topic"))
            await stack.enter_async_context(self._always(self._maintain(), "maintenance"))
            await stack.enter_async_context(self._sinking())
            await stack.enter_async_context(
                processors(
                    await self._world(stack),
                    data=self._data / "instances" / self._instance,
                    instance=self._instance,
                    bootstrap_servers=self._config.log.bootstrap_servers,
                    on_crash=self._fatal,
                )
            )
            self._waiting_for.remove("the processors")
            yield

    async def _world(self, stack: AsyncExitStack) -> World:
        return World(
            log=self.log,
            replies=self._replies,
            control=self._control,
            sealer=self._sealer,
            config=self._config,
            book=self._book,
            transports=await stack.enter_async_context(transports(self._config)),
            instance=self._instance,
            address=self._replies.address,
            fatal=self._fatal,
            draw=random.random,
            now_ms=wall_clock_ms,
        )

    @asynccontextmanager
    async def _always(self, work: Awaitable[Any], name: str) -> AsyncIterator[None]:
        """Have `work` done beside everything else; that it ends by itself is the end of the process."""

        async def watched() -> None:
            try:
                await work
                self._fatal(f"{name} ended")
            except (TollgateError, OSError) as error:
                self._fatal(f"{name} failed: {type(error).__name__}: {error}")

        task = asyncio.create_task(watched())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    @asynccontextmanager
    async def _sinking(self) -> AsyncIterator[None]:
        """Run the sink; on leaving, it writes what the log holds by then."""
        stopping = False

        async def watched() -> None:
            try:
                await self.sink.run()
            except (TollgateError, OSError) as error:
                self._fatal(f"the sink failed: {error}")
            if not stopping:
                self._fatal("the sink ended")

        task = asyncio.create_task(watched())
        try:
            yield
        finally:
            stopping = True
            await self.sink.drain(SINK_DRAIN_S)
            await task

    async def _maintain(self) -> None:
        """Retention, compaction, and the deletion of data keys that no request needs any more; for ever."""
        maintain: Callable[[int], Awaitable[None]] | None = getattr(self.log, "maintain", None)
        keep_ms = int(self._config.server.request_deadline_s * 1000)
        while True:
            await asyncio.sleep(MAINTAIN_S)
            now_ms = wall_clock_ms()
            if maintain is not None:
                await maintain(now_ms)
            self._sealer.expire(now_ms, keep_ms=keep_ms)


@asynccontextmanager
async def open_gateway(
    config: Config, *, data: Path, instance: str, secrets: Secrets, fatal: Fatal
) -> AsyncIterator[Gateway]:
    """Open the log and make the stages; nothing runs before `started` is entered.

    `fatal` is called with the reason when something happened whose outcome only a restart can find out.
    """
    (data / "instances" / instance).mkdir(parents=True, exist_ok=True)
    book = _load_prices()
    log = await open_log(config, data, client_id=instance)
    try:
        yield Gateway(config, log, data=data, instance=instance, secrets=secrets, book=book, fatal=fatal)
    finally:
        await log.close()


def _load_prices() -> PriceBook:
    """The catalogue, and above it `pricing.yaml` of the working directory if there is one."""
    overrides = Path(PRICES)
    return PriceBook.load(overrides if overrides.exists() else None)
