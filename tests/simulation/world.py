"""The world around the processes of a run: log, providers, clients, faults, and everything that was wrong.

What processes there are, what can befall them, and how a run comes to rest is said in `embedded` and `kafka`.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random

from tests.simulation import checker
from tests.simulation.books import Books, Facts
from tests.simulation.clients import Client
from tests.simulation.front import Front
from tests.simulation.life import Life
from tests.simulation.log import STATE, SimLog
from tests.simulation.loop import Process, Stalled, VirtualLoop
from tests.simulation.processing import Processing
from tests.simulation.provider import ProviderCall, SimProvider
from tests.simulation.scenario import Fault, Scenario
from tests.simulation.setting import BOOK, Seals, gateway_config
from tests.simulation.trace import Step, rendered
from tollgate import failpoints
from tollgate.events import KeySet, encode
from tollgate.log import Record
from tollgate.processors.owner import Owner
from tollgate.secret import Secret

REST_S = 120.0  # in virtual time: then a run that has not come to rest never will
SETTLE_S = 5.0  # then everything that was on its way has landed
CLOCK_JUMP_MS = 600_000
HELD_BACK_S = 16.0  # how long the rows of a replaced owner may be on their way, at most
POLL_S = 0.1


@dataclass(frozen=True)
class Violation:
    """A promise that was broken: which, and how."""

    rule: str
    text: str


@dataclass(frozen=True)
class Result:
    """What came of a run."""

    seed: str
    violations: tuple[Violation, ...]
    steps: Sequence[Step]
    facts: dict[str, int]
    passed: frozenset[str]  # the places, of `DEATHS`, that some process has come to

    @property
    def trace(self) -> list[str]:
        """The run, for people."""
        return [rendered(step) for step in self.steps]

    @property
    def digest(self) -> str:
        """The same for two runs exactly if they went the same way."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()


class Simulation:
    """One run. A world of its own says what processes there are."""

    def __init__(self, seed: str, scenario: Scenario) -> None:
        self.seed = seed
        self.scenario = scenario
        self.knobs = self.scenario.knobs
        self.loop = VirtualLoop(self.knobs.tick_s)
        self.books = Books(self.violation)
        self.log = SimLog(self.loop, self.wall_ms, self._landed)
        self.secret = Secret("simulation " * 4)
        self.seals = Seals()
        self.config = gateway_config(balanced=self.knobs.balanced, timeout_s=self.knobs.timeout_s)
        self.book = BOOK
        self.sent: dict[str, Life] = {}  # who made each call, those too that no provider has received
        self.calls: list[ProviderCall] = []
        self.lives: list[Life] = []
        self.one_at_a_time = True  # no two processes have worked at the same time
        self.violations: list[Violation] = []
        self.steps: list[Step] = []
        self.passed: set[str] = set()
        self.storm = True  # things go wrong by themselves
        self.supervised = True  # what has died is started again
        self._of_process: dict[Process, Life] = {}
        self._jumped_ms = 0
        self.providers = {
            (provider.name, account.name): SimProvider(
                self.loop,
                seed,
                name=provider.name,
                account=account.name,
                protocol=provider.protocol,
                timeout_s=self.knobs.timeout_s,
                manners=self.knobs.manners,
                sent=self._sent,
                received=self._received,
                says=self.says,
            )
            for provider in self.config.providers.values()
            for account in provider.accounts
        }

    def run(self) -> Result:
        failpoints.install(self._reached)
        logging.getLogger("tollgate").setLevel(logging.CRITICAL)
        try:
            self.loop.run_until_complete(self._live())
        except Stalled as stalled:
            self.violation("liveness", str(stalled))
        finally:
            failpoints.install(None)
            logging.getLogger("tollgate").setLevel(logging.NOTSET)
            for life in self.lives:
                life.process.kill()
            self.loop.close()
        for error in self.loop.errors:
            self.violation("internal error", error)
        facts = {**checker.facts(self), **self.facts()}
        return Result(self.seed, tuple(self.violations), self.steps, facts, frozenset(self.passed))

    # What a world says of itself --------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start the first processes."""
        raise NotImplementedError

    def died(self, life: Life) -> None:
        """A process has died: what comes in its place?"""
        raise NotImplementedError

    async def break_something(self, fault: Fault) -> None:
        """What is special to this world; clocks and checkpoints are not."""
        raise NotImplementedError

    def fronts(self) -> list[Front]:
        """Where a client can ask now."""
        raise NotImplementedError

    async def come_to_rest(self) -> None:
        """No more faults, and nobody waits any more: close the books and compare them."""
        raise NotImplementedError

    def facts(self) -> dict[str, int]:
        """What happened here and not elsewhere, in numbers."""
        return {}

    def client(self, request_id: str) -> Client:
        return self.scenario.clients[int(request_id[-12:], 16)]

    # What the parts of the world say and ask --------------------------------------------------------------------------

    def chance(self, name: str) -> Random:
        """Each part has its own source, so that one more draw here changes nothing there."""
        return Random(f"{self.seed}/{name}")

    def wall_ms(self) -> int:
        return self.knobs.begins_ms + self._jumped_ms + int(self.loop.time() * 1000)

    def says(self, who: str, what: str | Record) -> None:
        self.steps.append((self.loop.time(), who, what))

    def violation(self, rule: str, text: str) -> None:
        self.violations.append(Violation(rule, text))
        self.says("VIOLATION", f"{rule}: {text}")

    def seen(self, client: Client) -> None:
        if client.done:
            client.told_s = self.loop.time()
        last = client.told or "last" if client.done else ""
        piece = client.pieces[-1] if client.pieces else b""
        self.says(f"client {client.number}", f"gets {client.status} {len(piece)} bytes {last}")
        checker.on_piece(self, client)

    def cancelled(self, client: Client, reason: str) -> None:
        self.says(f"client {client.number}", f"is given up: {reason}")
        checker.on_cancel(self, client, reason)

    def taken_over(self, life: Life, owner: Owner, position: int) -> None:
        self.says(life.name, f"has taken over; reads from {position}")
        checker.on_take_over(self, life, owner)

    def stopped_in_order(self, life: Life, owner: Owner | None) -> None:
        self.says(life.name, "has stopped in order")
        checker.on_stop(self, life, owner)

    def landed(self, event: Facts, offset: int, by: str) -> None:
        """A record has become durable, and stands in the books."""

    def called(self, call: ProviderCall, life: Life) -> None:
        """A provider is about to be sent a call that stands in the books."""

    def _landed(self, record: Record, by: str) -> None:
        self.says(by, record)
        if record.value is None or record.topic not in self.books.topics:
            return
        event = self.books.land(record.topic, record.offset, record.timestamp_ms, record.key or b"", record.value)
        if record.topic in ("requests", "completions"):
            self.landed(event, record.offset, by)
        if str(event["type"]).startswith("ended."):
            client = self.client(event["request"]["request_id"])
            if client.leaves_at_end and client.leave is not None:
                client.leave()

    def _sent(self, call: ProviderCall) -> None:
        life = self._of_process[call.process]
        checker.on_call(self, call)
        self.sent[call.call_id] = life
        self.called(call, life)

    def _received(self, call: ProviderCall) -> None:
        self.calls.append(call)
        self.says(call.provider, f"is called: {call.call_id}")

    def _reached(self, failpoint: str) -> None:
        process = Process.current()
        if process is not None:
            self._of_process[process].reached(failpoint)

    def started(self, life: Life, deaths: Sequence[str]) -> None:
        """A process begins; perhaps its death is settled already."""
        chance = self.chance(f"fate/{life.name}")
        if deaths and self.storm and chance.random() < self.knobs.failpoints:
            life.crash_at = chance.choice(deaths), int(chance.expovariate(0.3))
        self.lives.append(life)
        self._of_process[life.process] = life
        life.process.at_death(lambda: self.supervised and self.died(life))
        self.says("world", f"starts {life.name}" + (f" {life.crash_at}" if life.crash_at else ""))

    # The run ----------------------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        for key_id, limits in self.scenario.keys.items():
            made = KeySet(
                key_id=key_id,
                hash="",
                name=key_id,
                org_id="org",
                version=1,
                src=-1,
                command_id="",
                created_ms=0,
                limits=limits,
            )
            self.log.land("control", key_id.encode(), encode(made), by="world")
        self.begin()
        clients = [self.loop.outside_task(self._client(client)) for client in self.scenario.clients]
        await asyncio.gather(
            self._break_things(), self._change_limits(), asyncio.sleep(self.knobs.duration_s), *clients
        )
        await self._wait_for_clients()
        self.storm = False
        try:
            await self.come_to_rest()
        except Restless as restless:
            self.violation("liveness", str(restless))

    async def _client(self, client: Client) -> None:
        await asyncio.sleep(client.at_s)
        front = await self._front()
        self.says(
            f"client {client.number}",
            f"asks {front.name} as {client.key_id} for {client.model}, stream={client.stream}",
        )
        front.submit(client)

    async def _front(self) -> Front:
        while True:
            fronts = self.fronts()
            if fronts:
                return fronts[-1] if len(fronts) == 1 else self.chance(f"front/{self.loop.time()}").choice(fronts)
            await asyncio.sleep(POLL_S)

    async def _wait_for_clients(self) -> None:
        """Whoever is patient, and whose process lives, gets an answer."""
        until_s = self.loop.time() + REST_S
        while waiting := [client for client in self.scenario.clients if client.waits]:
            if self.loop.time() > until_s:
                self.violation("liveness", f"clients {[client.number for client in waiting]} wait for ever")
                return
            await asyncio.sleep(POLL_S)

    async def _change_limits(self) -> None:
        for number, change in enumerate(self.scenario.changes):
            await asyncio.sleep(max(0.0, change.at_s - self.loop.time()))
            (await self._front()).change_limits(f"command-{number}", change.key_id, change.limits)

    async def _break_things(self) -> None:
        for fault in self.scenario.faults:
            await asyncio.sleep(max(0.0, fault.at_s - self.loop.time()))
            self.says("world", f"fault: {fault.kind}")
            match fault.kind:
                case "clock":
                    self._jumped_ms += int((2 * fault.size - 1) * CLOCK_JUMP_MS)
                case "lost rows":
                    self.lose_rows()
                case _:
                    await self.break_something(fault)

    @property
    def clock_jumps(self) -> bool:
        return any(fault.kind == "clock" for fault in self.scenario.faults)

    def lose_rows(self) -> None:
        """Every process that wrote a checkpoint dies, and the checkpoint is gone with it."""
        for life in self.lives:
            life.kill("SIGKILL")
            life.log.rows_are_lost = True
        self.log.lose_rows()

    # Rest -------------------------------------------------------------------------------------------------------------

    async def silence(self, lives: Iterable[Life], reason: str) -> None:
        """Kill them, and wait until what they had on its way has landed."""
        for life in lives:
            life.kill(reason)
        while any(life.log.flying for life in self.lives):
            await asyncio.sleep(POLL_S)

    async def until(self, come: Callable[[], bool], life: Life | None = None, *, what: str) -> None:
        """Wait until it has come. Raises `Restless` if it never will."""
        until_s = self.loop.time() + REST_S
        while not come():
            if self.loop.time() > until_s or (life is not None and not life.alive):
                raise Restless(f"{what} never comes")
            await asyncio.sleep(POLL_S)

    async def deliver_again(self, processing: Processing) -> None:
        """All that was ever asked, once more: nothing may come of it."""
        before, end = len(self.log.records("completions")), processing.position
        processing.send_back(0)
        await self.until(lambda: processing.position >= end, what="the end of what is delivered again")
        await asyncio.sleep(SETTLE_S)
        if len(self.log.records("completions")) != before:
            self.violation("I6", "delivered again, requests were decided again")


class Restless(Exception):
    """A run does not come to rest."""


def delay_checkpoint(life: Life, processing: Processing, size: float) -> None:
    """A checkpoint of somebody who is being replaced is on its way, comes late, and breaks off in the middle."""
    life.log.hold_back(STATE, HELD_BACK_S * size)
    life.work(processing.partitions.checkpoint)
    life.crash_at = f"landed.{STATE}", int(size * 10) % 4
