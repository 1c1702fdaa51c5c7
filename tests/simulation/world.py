"""One run: the real gateway in a world that a seed decides, and everything that was wrong with it."""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random

from tests.simulation import checker
from tests.simulation.books import Books
from tests.simulation.clients import Client
from tests.simulation.gateway import Gateway
from tests.simulation.log import STATE, SimLog
from tests.simulation.loop import Process, Stalled, VirtualLoop
from tests.simulation.provider import ProviderCall, SimProvider
from tests.simulation.scenario import DEATHS, Fault, Scenario, scenario
from tests.simulation.setting import BOOK, Seals, gateway_config
from tests.simulation.trace import described
from tollgate import failpoints
from tollgate.events import KeySet, encode
from tollgate.log import Record
from tollgate.replies import Reply
from tollgate.secret import Secret

REST_S = 120.0  # in virtual time: then a run that has not come to rest never will
SETTLE_S = 5.0  # then everything that was on its way has landed
CLOCK_JUMP_MS = 600_000
HELD_BACK_S = 16.0  # how long the rows of a replaced owner may be on their way, at most
POLL_S = 0.05


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
    trace: tuple[str, ...]
    facts: dict[str, int]
    passed: frozenset[str]  # the places, of `DEATHS`, that some process has come to

    @property
    def digest(self) -> str:
        """The same for two runs exactly if they went the same way."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()


class Simulation:
    """The world around the gateway's processes."""

    def __init__(self, seed: str) -> None:
        self.seed = seed
        self.scenario: Scenario = scenario(seed)
        self.knobs = self.scenario.knobs
        self.loop = VirtualLoop(self.knobs.tick_s)
        self.books = Books(self.violation)
        self.log = SimLog(self.loop, self.wall_ms, self._landed)
        self.secret = Secret("simulation " * 4)
        self.seals = Seals()
        self.config = gateway_config(balanced=self.knobs.balanced, timeout_s=self.knobs.timeout_s)
        self.book = BOOK
        self.sent: set[str] = set()  # the ids of all calls, those too that no provider has received
        self.calls: list[ProviderCall] = []
        self.gateways: list[Gateway] = []
        self.replaced = 0  # how often one was taken over from while it lived
        self.violations: list[Violation] = []
        self.trace: list[str] = []
        self.passed: set[str] = set()
        self._jumped_ms = 0
        self._storm = True
        self.providers = {
            (provider.name, account.name): SimProvider(
                self.loop,
                seed,
                name=provider.name,
                account=account.name,
                protocol=provider.protocol,
                timeout_s=self.knobs.timeout_s,
                manners=self.knobs.manners,
                sent=partial(checker.on_call, self),
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
            for gateway in self.gateways:
                gateway.process.kill()
            self.loop.close()
        for error in self.loop.errors:
            self.violation("internal error", error)
        return Result(self.seed, tuple(self.violations), tuple(self.trace), checker.facts(self), frozenset(self.passed))

    @property
    def clock_jumps(self) -> bool:
        return any(fault.kind == "clock" for fault in self.scenario.faults)

    # What the parts of the world say and ask --------------------------------------------------------------------------

    def chance(self, name: str) -> Random:
        """Each part has its own source, so that one more draw here changes nothing there."""
        return Random(f"{self.seed}/{name}")

    def wall_ms(self) -> int:
        return self.knobs.begins_ms + self._jumped_ms + int(self.loop.time() * 1000)

    def says(self, who: str, text: str) -> None:
        self.trace.append(f"{self.loop.time():10.4f}  {who:<12} {text}")

    def violation(self, rule: str, text: str) -> None:
        self.violations.append(Violation(rule, text))
        self.says("VIOLATION", f"{rule}: {text}")

    def seen(self, client: Client, reply: Reply) -> None:
        client.replies.append(reply)
        self.says(
            f"client {client.number}", f"gets {reply.status or ''} {len(reply.body)} bytes{' (last)' * reply.last}"
        )
        checker.on_reply(self, client, reply)

    def gone(self, client: Client) -> None:
        self.says(f"client {client.number}", "has gone")
        checker.on_gone(self, client)

    def taken_over(self, gateway: Gateway) -> None:
        self.says(gateway.name, f"has taken over; reads from {gateway.position}")
        checker.on_take_over(self, gateway)

    def stopped_in_order(self, gateway: Gateway) -> None:
        self.says(gateway.name, "has stopped in order")
        checker.on_stop(self, gateway)

    def _landed(self, record: Record, by: str) -> None:
        self.says(by, f"{record.topic}/{record.offset}: {described(record)}")
        if record.value is not None:
            self.books.land(record.topic, record.offset, record.timestamp_ms, record.value)

    def _received(self, call: ProviderCall) -> None:
        self.calls.append(call)
        self.says(call.provider, f"is called: {call.call_id}")

    def _reached(self, failpoint: str) -> None:
        process = Process.current()
        for gateway in self.gateways:
            if gateway.process is process:
                gateway.reached(failpoint)

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
        self._start()
        keeper = self.loop.outside_task(self._keep_running())
        clients = [self.loop.outside_task(self._client(client)) for client in self.scenario.clients]
        await asyncio.gather(
            self._break_things(), self._change_limits(), asyncio.sleep(self.knobs.duration_s), *clients
        )
        await self._wait_for_clients()
        keeper.cancel()
        await self._rest()

    async def _client(self, client: Client) -> None:
        await asyncio.sleep(client.at_s)
        living = await self._living()
        self.says(
            f"client {client.number}",
            f"asks {living[-1].name} as {client.key_id} for {client.model}, stream={client.stream}",
        )
        living[-1].submit(client)

    async def _living(self) -> list[Gateway]:
        while True:
            living = [gateway for gateway in self.gateways if gateway.alive]
            if living:
                return living
            await asyncio.sleep(POLL_S)

    async def _wait_for_clients(self) -> None:
        """Whoever is patient, and whose gateway lives, gets an answer."""
        gateways = {gateway.name: gateway for gateway in self.gateways}
        until_s = self.loop.time() + REST_S
        while self.loop.time() < until_s:
            waiting = [
                client
                for client in self.scenario.clients
                if not (client.done or client.hung_up) and gateways[client.gateway].alive
            ]
            if not waiting:
                return
            await asyncio.sleep(POLL_S)
        self.violation("liveness", f"clients {[client.number for client in waiting]} wait for ever")

    async def _change_limits(self) -> None:
        for number, change in enumerate(self.scenario.changes):
            await asyncio.sleep(max(0.0, change.at_s - self.loop.time()))
            living = await self._living()
            living[-1].change_limits(f"command-{number}", change.key_id, change.limits)

    def _start(self) -> Gateway:
        gateway = Gateway(self, f"gateway-{len(self.gateways)}")
        chance = self.chance(f"life/{gateway.name}")
        if self._storm and chance.random() < self.knobs.failpoints:
            gateway.crash_at = chance.choice(DEATHS), int(chance.expovariate(0.3))
        self.gateways.append(gateway)
        self.says("world", f"starts {gateway.name}" + (f" {gateway.crash_at}" if gateway.crash_at else ""))
        gateway.start()
        return gateway

    async def _keep_running(self) -> None:
        """Start the next life when the last has ended."""
        chance = self.chance("restarts")
        while True:
            if not any(gateway.alive for gateway in self.gateways):
                await asyncio.sleep(chance.random() * self.knobs.restart_s)
                self._start()
            await asyncio.sleep(POLL_S)

    async def _break_things(self) -> None:
        for fault in self.scenario.faults:
            await asyncio.sleep(max(0.0, fault.at_s - self.loop.time()))
            self.says("world", f"fault: {fault.kind}")
            await self._break(fault)

    async def _break(self, fault: Fault) -> None:
        living = [gateway for gateway in self.gateways if gateway.alive]
        present = living[-1] if living else None
        match fault.kind:
            case "clock":
                self._jumped_ms += int((2 * fault.size - 1) * CLOCK_JUMP_MS)
            case "lost rows":
                self._lose_rows()
            case "kill" if present is not None:
                present.kill("SIGKILL")
            case "stop" if present is not None:
                await present.stop()
            case "lost acks" if present is not None:
                present.log.break_at_next_append()
            case "redeliver" if present is not None:
                present.send_back(int(fault.size * present.position))
            case "replace" if present is not None:
                self._replace(present, fault.size)

    def _replace(self, present: Gateway, size: float) -> None:
        """Start another beside it, which knows nothing of it. Often the old one has a checkpoint on its way, which is
        late, and dies in the middle of it."""
        self.replaced += 1
        self._start()
        if size < 0.5:
            present.log.hold_back(STATE, HELD_BACK_S * size)
            present.process.spawn(present.checkpoint())
            present.crash_at = f"landed.{STATE}", int(size * 10) % 4
        self.loop.outside_later(size * 5, present.kill, "SIGKILL, at last")

    async def _rest(self) -> None:
        """No more faults: everything that was accepted comes to its end, and the books are closed."""
        self._storm = False
        for gateway in self.gateways:
            gateway.kill("the end of the run")
        while any(gateway.log.flying for gateway in self.gateways):
            await asyncio.sleep(POLL_S)
        last = self._start()
        if not await self._until(lambda: last.idle and not last.log.flying, last):
            return
        await asyncio.sleep(SETTLE_S)
        await last.checkpoint()
        checker.at_rest(self, last)
        if await self._deliver_again(last):
            last.kill("rested")
            await self._recover()
            self._lose_rows()
            await self._recover()

    async def _until(self, come: Callable[[], bool], gateway: Gateway) -> bool:
        """Wait until it has come; a violation if it never will."""
        until_s = self.loop.time() + REST_S
        while not come():
            if not gateway.alive or self.loop.time() > until_s:
                self.violation("liveness", f"{gateway.name} does not come to rest")
                return False
            await asyncio.sleep(POLL_S)
        return True

    async def _deliver_again(self, gateway: Gateway) -> bool:
        """All that was ever asked, once more: nothing may come of it."""
        before, end = len(self.log.records("completions")), gateway.position
        gateway.send_back(0)
        if not await self._until(lambda: gateway.position >= end, gateway):
            return False
        await asyncio.sleep(SETTLE_S)
        if len(self.log.records("completions")) != before:
            self.violation("I6", "delivered again, requests were decided again")
        return True

    async def _recover(self) -> None:
        """What the next life finds is compared when it has taken over."""
        gateway = self._start()
        if await self._until(lambda: gateway.owner is not None, gateway):
            gateway.kill("seen")

    def _lose_rows(self) -> None:
        for gateway in self.gateways:
            gateway.kill("SIGKILL")
            gateway.log.rows_are_lost = True
        self.log.lose_rows()

    async def _deliver_again(self, gateway: Gateway) -> None:
        """All that was ever asked, once more: nothing may come of it."""
        before = len(self.log.records("completions"))
        end = gateway.position
        gateway.send_back(0)
        while gateway.position < end:
            await asyncio.sleep(POLL_S)
        await asyncio.sleep(SETTLE_S)
        if len(self.log.records("completions")) != before:
            self.violation("I6", "delivered again, requests were decided again")

    async def _recover(self) -> None:
        """What the next life finds is compared when it has taken over."""
        gateway = self._start()
        while gateway.owner is None:
            await asyncio.sleep(POLL_S)
        gateway.kill("seen")
