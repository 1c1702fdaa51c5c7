"""The stages of one process, put beside each other: what each is given, in which order they start and stop.

    start:  log → seals, control, replies → sink → processors (take-over) → ready
    stop:   processors (calls under way end) → sink (writes what is there) → log

The stages meet only in the log and in the replies; nothing but this module knows all three. A role is a choice among
them; `all` is every stage in one process, the only one on the embedded log.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from tollgate.accounts import Given
from tollgate.app.open_log import open_log
from tollgate.app.reload import Reading, Reloading, ReloadMetrics, Seen, Source
from tollgate.app.settings import Role, check_role
from tollgate.app.sinking import GROUP as SINKS
from tollgate.app.sinking import sinking, sinking_if_elected
from tollgate.app.watch import Watch
from tollgate.config import Config
from tollgate.control import Control, catch_up, follow_control
from tollgate.credentials import CredentialError, unseal
from tollgate.environment import PRICING_FILE
from tollgate.events import CredentialSet
from tollgate.freshness import Freshness, beat
from tollgate.ingress.app import Ingress, create_ingress
from tollgate.ingress.door import Door, wall_clock_ms
from tollgate.ingress.probes import create_probe_app
from tollgate.log import WritableLog
from tollgate.log.kafka import KafkaLog
from tollgate.prices.book import PriceBook
from tollgate.processors.app import processors
from tollgate.processors.setup import Setup, setup_of
from tollgate.processors.upstream.accounts import Upstreams, upstreams
from tollgate.processors.world import World
from tollgate.replies import LocalReplies, gateway_stopping
from tollgate.reply_topic import ReplyReader, TopicMailbox, new_address
from tollgate.seal_topic import TopicSeals
from tollgate.sealed import FolderSeals, Sealer
from tollgate.secret import Secrets
from tollgate.tokenizer.counter import Counter

MAINTAIN_S = 5.0

Fatal = Callable[[str], None]


class Gateway:
    """The stages of one role in this process.

    `application` answers probes at once, and an ingress's requests while `started` is entered.
    """

    def __init__(
        self,
        config: Config,
        log: WritableLog,
        *,
        role: Role,
        data: Path,
        instance: str,
        secrets: Secrets,
        book: PriceBook,
        fatal: Fatal,
        source: Source | None = None,
        seen: Seen = (),
    ) -> None:
        self.log = log
        self._role = role
        self._config = config
        self._data = data
        self._instance = instance
        self._book = book
        self._setup: Setup | None = None  # of a worker
        self._upstreams: Upstreams | None = None
        self._ingress: Ingress | None = None
        self._fatal = fatal
        self._secret = secrets.secret
        self._control = Control()
        self._seals: TopicSeals | None = None if config.log.embedded else TopicSeals(log)
        self._sealer = Sealer(secrets.secret, self._seals or FolderSeals(data / "seals"))
        self._replies = LocalReplies(new_address(log, instance))
        self._freshness = Freshness.always() if config.log.embedded else Freshness()
        registry = CollectorRegistry()
        self._reloading = None if source is None else Reloading(source, seen, self._put_in_force)
        self._watch = Watch(
            log, registry, role=role, control=self._control, replies=self._replies, reloading=self._reloading
        )
        if self._reloading is not None:
            registry.register(ReloadMetrics(self._reloading))
        if self._is("ingress"):
            door = Door(
                config=config,
                log=log,
                replies=self._replies,
                control=self._control,
                sealer=self._sealer,
                secrets=secrets,
                registry=registry,
                freshness=self._freshness,
                not_ready=self.not_ready,
                readiness=self._watch.readiness,
            )
            self.application: ASGIApp = create_ingress(door)
            self._ingress = self.application
        else:
            self.application = create_probe_app(registry, self._watch.readiness)

    def _is(self, role: Role) -> bool:
        return self._role in ("all", role)

    def not_ready(self) -> Sequence[str]:
        """What a new request would wait for; nothing when it may come."""
        return self._watch.not_ready()

    def discourage_new(self, reason: str) -> None:
        """Be no longer ready, and take what is sent here all the same: a balancer has not noticed yet."""
        self._watch.leaving.append(reason)

    def refuse_new(self, reason: str) -> None:
        """Take no new requests; those under way go on."""
        self._watch.waiting_for.append(reason)

    @property
    def requests_under_way(self) -> int:
        """Those whose clients wait at this process."""
        return self._replies.waiting

    def reload(self) -> None:
        """Read the configuration again now."""
        if self._reloading is not None:
            self._reloading.now()

    def interrupt(self) -> None:
        """End the requests under way in this process: the time to let them end by themselves is over.

        Clients whose calls other processes make are told that this one stops; their calls end when its beats do.
        """
        if self._role == "ingress":
            self._replies.give_up(gateway_stopping())
        if self._watch.processors is not None:
            self._watch.processors.partitions.interrupt()

    @asynccontextmanager
    async def started(self) -> AsyncIterator[None]:
        """Run the stages; on leaving, requests under way are ended and the books written."""
        async with AsyncExitStack() as stack:
            beside = stack.enter_async_context
            await self.log.until_open()
            await beside(self._always(self._log_failed(), "the log"))
            await beside(self._always(self._maintain(), "maintenance"))
            if self._seals is not None:
                await self._seals.catch_up()
                await beside(self._always(self._seals.run(), "the fold of the data keys"))
            if self._role != "sink":
                await catch_up(self.log, self._control)
                await beside(self._always(follow_control(self.log, self._control), "the fold of the control topic"))
            if self._is("ingress") and not self._config.log.embedded:
                reader = ReplyReader(self.log, self._sealer, self._replies)
                await beside(self._always(reader.run(await reader.start()), "the reading of replies"))
                await beside(self._always(reader.beat(), "the beat of the ingress"))
                self._watch.reader = reader
                await beside(self._always(self._freshness.keep(self.log, self._control), "the watch over control"))
            if self._is("sink"):
                await self._start_sink(stack)
            if self._is("worker") and not self._config.log.embedded:
                beats = beat(self.log, self._control, draw=random.random, now_ms=wall_clock_ms)
                await beside(self._always(beats, "the beat of the control topic"))
            if self._is("worker"):
                running = await beside(
                    processors(
                        await self._world(stack),
                        data=self._data / "instances" / self._instance,
                        instance=self._instance,
                        bootstrap_servers=self._config.log.bootstrap_servers,
                        security=self._config.log.security,
                        ends=self._watch.ends,
                        on_crash=self._fatal,
                    )
                )
                self._watch.worker_runs(running)
            self._watch.has_started()
            if self._reloading is not None:
                await beside(self._always(self._reloading.run(), "the watch over the configuration"))
            yield

    async def _start_sink(self, stack: AsyncExitStack) -> None:
        """At once on the embedded log; on Kafka whenever this process is elected."""
        at_work = partial(setattr, self._watch, "sink")
        if isinstance(self.log, KafkaLog):
            election = await stack.enter_async_context(self.log.standing(SINKS))
            await stack.enter_async_context(self._always(election.hold(), "the election of the sink"))
            sink = sinking_if_elected(self.log, self._data, election, self._fatal, at_work)
        else:
            sink = sinking(self.log, self._data, self._fatal, at_work)
        await stack.enter_async_context(sink)
        self._watch.sink_runs()

    async def _log_failed(self) -> None:
        """Raise what made the log refuse every further append; until then, for ever."""
        raise await self.log.failed

    def _put_in_force(self, reading: Reading) -> Sequence[str]:
        """Have requests to come go by what the files say now; return the keys that need a restart.

        Raises `ConfigError` for a credential that cannot be right; then everything is as before.
        """
        before = self._config
        config = replace(reading.config, log=before.log, server=before.server)
        book = self._book if reading.book.version == self._book.version else reading.book
        if self._upstreams is not None:
            self._setup = setup_of(config, book, self._upstreams.reach(config))
        if self._ingress is not None:
            self._ingress.use(config)
        self._config, self._book = config, book
        return changed_at_restart(before, reading.config)

    async def _world(self, stack: AsyncExitStack) -> World:
        counter = Counter()
        stack.push_async_callback(counter.close)
        self._upstreams = await stack.enter_async_context(upstreams())
        for credential in self._control.credentials():
            self._take_credential(credential)
        self._control.on_credential = self._take_credential
        self._setup = setup_of(self._config, self._book, self._upstreams.reach(self._config))
        return World(
            log=self.log,
            replies=self._replies if self._config.log.embedded else TopicMailbox(self.log, self._sealer, self._replies),
            control=self._control,
            sealer=self._sealer,
            setup=self._setup_now,
            instance=self._instance,
            address=self._replies.address,
            fatal=self._fatal,
            draw=random.random,
            now_ms=wall_clock_ms,
            count_tokens=counter.count,
            answering_s=self.log.answering_s,
            settled=self.log.settled,
            shared=not self._config.log.embedded,
        )

    def _take_credential(self, state: CredentialSet) -> None:
        """Have the next call of the account take what was set for it, or what the configuration says again."""
        given: Given | CredentialError | None = None
        if state.kind is not None:
            try:
                given = unseal(self._secret, state)
            except CredentialError as error:
                given = error
        assert self._upstreams is not None
        self._upstreams.give(state.provider, state.account, given)

    def _setup_now(self) -> Setup:
        assert self._setup is not None
        return self._setup

    @asynccontextmanager
    async def _always(self, work: Awaitable[Any], name: str) -> AsyncIterator[None]:
        """Have `work` done beside everything else; that it ends by itself is the end of the process."""

        async def watched() -> None:
            try:
                await work
                self._fatal(f"{name} ended")
            except Exception as error:  # whatever it was: a process that goes on without it would be trusted wrongly
                self._fatal(f"{name} failed: {type(error).__name__}: {error}")

        task = asyncio.create_task(watched())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
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
    config: Config,
    *,
    role: Role = "all",
    data: Path,
    instance: str,
    secrets: Secrets,
    fatal: Fatal,
    source: Source | None = None,
    seen: Seen = (),
) -> AsyncIterator[Gateway]:
    """Open the log and make the stages of the role; nothing runs before `started` is entered.

    `fatal` is called with the reason when something happened whose outcome only a restart can find out. `source` is
    where the configuration is read again when it changes, and `seen` how that was when it was read.
    """
    check_role(role, config)
    book = load_prices()
    (data / "instances" / instance).mkdir(parents=True, exist_ok=True)
    log = await open_log(config, data, role=role, client_id=instance)
    try:
        yield Gateway(
            config,
            log,
            role=role,
            data=data,
            instance=instance,
            secrets=secrets,
            book=book,
            fatal=fatal,
            source=source,
            seen=seen,
        )
    finally:
        await log.close()


def changed_at_restart(running: Config, read: Config) -> Sequence[str]:
    """The keys in which the configuration that was read differs from the running one beyond what can be reloaded."""
    sections = (("log", running.log, read.log), ("server", running.server, read.server))
    return [
        f"{name}.{key}"
        for name, one, other in sections
        for key in one.__struct_fields__
        if getattr(one, key) != getattr(other, key)
    ]


def load_prices() -> PriceBook:
    """The catalogue, and above it `pricing.yaml` of the working directory if there is one."""
    overrides = Path(PRICING_FILE)
    return PriceBook.load(overrides if overrides.exists() else None)
