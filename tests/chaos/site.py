"""A whole gateway in processes of its own on a Kafka of its own: started, under load, disturbed, and judged at rest."""

import asyncio
import random
import secrets
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

from tests import forked
from tests.chaos import gateway
from tests.chaos.evidence import PARTITIONS, Tail
from tests.chaos.proxy import Proxy
from tests.chaos.supervisor import Supervised
from tests.chaos.traffic import Asked, Balancer, Traffic
from tests.crash.checker import Report, check
from tests.crash.evidence import Evidence, Fields, Key, read_parquet
from tests.crash.fold import NOT_ACCEPTED, Violation
from tests.crash.load import Kind
from tests.crash.provider import Provider, a_provider
from tests.crash.settings import make_key, write_settings
from tests.crash.site import environment
from tests.kafka_broker import HOST, KafkaBroker, free_port
from tollgate.log.partitioner import partition_of

ROLES = {"ingress": 2, "worker": 2, "sink": 2}
DEADLINE_S = 75.0  # of a request: longer than any fault
PROVIDER_TIMEOUT_S = 60.0
LEAVE_S = 2.0  # in it the balancer has looked often enough to believe it
DRAIN_S = 30.0
SETTLE_S = 45.0  # until everything must be in Parquet: another sink elected, its flush, a cost line copied at a start
BROKER_TIMEOUT_S = 60.0
COMMAND_TIMEOUT_S = 120.0
POLL_S = 0.1
READ_TRIES = 3

# One organisation on each partition, so that every worker has something to lose
ORGANISATIONS: Sequence[str] = tuple(
    {partition_of(f"org-{number}".encode(), PARTITIONS): f"org-{number}" for number in range(60)}.values()
)


class Site:
    """See `open_site`."""

    def __init__(self, folder: Path, provider: Provider, *, seed: int, bug: str | None, rate: float) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.provider = provider
        self.chance = random.Random(seed)
        proxied, proxy = free_port(), free_port()
        self.broker = KafkaBroker(listeners={"PROXIED": proxied}, advertised={"PROXIED": proxy})
        self.proxy = Proxy(proxy, proxied, seed)
        self.proxied_address = f"{HOST}:{proxy}"
        self.tail = Tail(self.broker.address)
        self.keys: dict[str, Key] = {}
        self.poisoned: set[str] = set()
        """Places of the log where a fault has put what nobody can read, as `reconcile` names them."""
        self._admin_key = secrets.token_hex(32)
        self._env = environment() | {
            "TOLLGATE_ADMIN_KEY": self._admin_key,
            "TOLLGATE_SECRET": secrets.token_hex(32),
            "TOLLGATE_DATA": str(self.data),
        }
        if bug is not None:
            self._env[gateway.SEEDED_BUG] = bug
        names = [(role, f"{role}-{number}") for role, count in ROLES.items() for number in range(1, count + 1)]
        self.processes = {name: self._process(role, name) for role, name in names}
        balancer = Balancer([ingress.url for ingress in self.of("ingress")], self.chance)
        self.traffic = Traffic(balancer, seed, rate=rate)
        self.balancer = balancer
        self._blamed: list[Violation] = []
        self._known: set[Violation] = set()
        self._checks: list[asyncio.Task[None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        write_settings(
            folder,
            provider.url,
            timeout_s=PROVIDER_TIMEOUT_S,
            server={"request_deadline_s": DEADLINE_S, "leave_s": LEAVE_S, "drain_s": DRAIN_S},
            log={"broker": f"kafka://{self.broker.address}"},
        )

    # Processes -------------------------------------------------------------------------------------------------------

    def of(self, role: str) -> list[Supervised]:
        return [process for process in self.processes.values() if process.role == role]

    def add(self, role: str, name: str) -> Supervised:
        """One more process, which runs from now on."""
        process = self.processes[name] = self._process(role, name)
        self._supervise(process)
        process.start(self.broker.address)
        return process

    def _process(self, role: str, name: str) -> Supervised:
        return Supervised(self.folder, self._env, role, name)

    def _supervise(self, process: Supervised) -> None:
        self._tasks.append(asyncio.create_task(process.supervise()))

    async def owner(self, org: str) -> Supervised:
        """The worker that owns the organisation's partition."""
        await self.tail.read()
        return self.processes[self.tail.owner(partition_of(org.encode(), PARTITIONS))]

    def another(self, worker: Supervised) -> Supervised:
        return next(other for other in self.of(worker.role) if other is not worker)

    async def ready(self, processes: Iterable[Supervised] | None = None) -> None:
        """Return when they all are ready; all there are, if none is named."""
        chosen = self.processes.values() if processes is None else processes
        await asyncio.gather(*(process.ready() for process in chosen))

    async def start(self, broker: str | None = None) -> None:
        for process in self.processes.values():
            process.start(broker or self.broker.address)

    async def plant(self, bug: str, processes: Iterable[Supervised]) -> None:
        """Have them start again with a bug in them, until they end."""
        for process in processes:
            process.start(self.broker.address, once={gateway.SEEDED_BUG: bug})
            await process.end(signal.SIGTERM)
            await process.ready()

    async def stop(self, processes: Iterable[Supervised]) -> None:
        """In order (SIGTERM); they are not started again."""
        await asyncio.gather(*(process.stop() for process in processes))

    async def broker_answers(self) -> None:
        async with asyncio.timeout(BROKER_TIMEOUT_S):
            while not await asyncio.to_thread(self.broker.answers):
                await asyncio.sleep(0.1)

    def command(self, *words: str) -> "asyncio.Future[subprocess.CompletedProcess[str]]":
        """Another command of the gateway, as an operator would run it."""
        run = asyncio.to_thread(
            forked.run, gateway.main, words, cwd=self.folder, env=self._env, timeout=COMMAND_TIMEOUT_S
        )
        return asyncio.ensure_future(run)

    # Requests --------------------------------------------------------------------------------------------------------

    def key(self, org: str) -> Key:
        """One of the organisation's keys that has no limit."""
        return next(key for key in self.keys.values() if key.org == org and key.budget_pusd is None)

    def ask(self, kind: Kind, count: int, *, org: str | None = None, **more: Any) -> list[Asked]:
        """So many requests of one kind at once, of this organisation or of all of them in turn."""
        orgs = [org] if org is not None else ORGANISATIONS
        return [self.traffic.ask(self.key(orgs[number % len(orgs)]), [kind], **more) for number in range(count)]

    async def called(self, asked: Sequence[Asked], timeout_s: float = 30.0) -> None:
        """Return when the provider has been called for each of them. Raises `TimeoutError`."""
        async with asyncio.timeout(timeout_s):
            while True:
                accepted = await self._accepted(asked)
                called = {row["call_id"].rpartition(".")[0] for row in await self.provider.rows() if row["call_id"]}
                if len(accepted & called) == len(asked):
                    return
                if lost := [each.failure() for each in asked if each.ended_s]:
                    raise TimeoutError(f"of {len(asked)} requests to be called, some have ended before: {lost}")
                await asyncio.sleep(POLL_S)

    async def ended(self, asked: Sequence[Asked], timeout_s: float) -> bool:
        """Return when those of them that were accepted have ended on the log; False when some have not in this time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    accepted = await self._accepted(asked)
                    if accepted <= self.tail.ends().keys():
                        return True
                    await asyncio.sleep(POLL_S)
        return False

    async def refused_late(self, asked: Sequence[Asked], timeout_s: float = 15.0) -> bool:
        """Return when an owner has refused one of them because it came late; False when none has in this time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    accepted, ends = await self._accepted(asked), self.tail.ends()
                    if any(ends[each].get("error") == NOT_ACCEPTED for each in accepted & ends.keys()):
                        return True
                    await asyncio.sleep(POLL_S)
        return False

    async def outcomes(self, asked: Iterable[Asked]) -> dict[str, list[str]]:
        """How the attempts of each that has ended went, by request."""
        await self.tail.read()
        ends = self.tail.ends()
        return {
            request_id: [attempt["outcome"] for attempt in ends[request_id].get("attempts", ())]
            for each in asked
            if (request_id := each.sent.request_id) in ends
        }

    async def _accepted(self, asked: Sequence[Asked]) -> set[str]:
        """The ids of those that are on the log."""
        await self.tail.read()
        numbers = {each.sent.number for each in asked}
        return {
            entry.event["request"]["request_id"]
            for entry in self.tail.topic("requests")
            if entry.kind == "request_accepted" and entry.event["request"]["tags"].get("sent") in numbers
        }

    # Judgement -------------------------------------------------------------------------------------------------------

    def blame(self, promise: str, subject: str, problem: str) -> None:
        """A promise was broken, as a fault has seen itself."""
        self._blamed.append(Violation(promise, subject, problem))

    def watch(self, check: Coroutine[Any, Any, None]) -> None:
        """Have this looked at from now on, beside whatever comes: see `watched`."""
        self._checks.append(asyncio.create_task(check))

    async def watched(self) -> None:
        """Return when everything has been looked at."""
        checks, self._checks = self._checks, []
        await asyncio.gather(*checks)

    def expect(self, asked: Iterable[Asked], promise: str) -> None:
        """Each of these must have got its whole answer."""
        for each in asked:
            if not each.ok:
                self.blame(promise, each.sent.request_id or f"request {each.sent.number}", f"{each.failure()}")

    async def judge(self, *, settle_s: float, reconcile: bool, replay: bool) -> tuple[list[Violation], Report]:
        """At rest: what is wrong now and was not at the last judgement, and the checker's report.

        What needs a moment (rows in Parquet, the end of a lost call) is given `settle_s`.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + settle_s
        while True:
            report = await self._check(None)
            new = set(report.violations) - self._known
            if not new or loop.time() > deadline:
                break
            await asyncio.sleep(1.0)
        found = [*self._blamed, *sorted(new)]
        self._known |= new
        if reconcile:
            found += await self._reconcile()
        if replay:
            found += await self._replay()
        self._blamed.clear()
        return found, report

    async def _check(self, replay: Path | None) -> Report:
        await self.tail.read()
        calls = await self.provider.calls()
        return await asyncio.to_thread(self._compare, calls, replay)

    def _compare(self, calls: Sequence[Fields], replay: Path | None) -> Report:
        evidence = Evidence(
            sent=self.traffic.sent,
            calls=calls,
            topics={topic: self.tail.topic(topic) for topic in ("requests", "completions", "costs")},
            rows=_rows(self.data),
            replayed=None if replay is None else read_parquet(replay),
        )
        return check(evidence, self.keys, at_rest=True)

    async def _reconcile(self) -> list[Violation]:
        done = await self.command("reconcile", "--json")
        try:
            differences = orjson.loads(done.stdout)["differences"]
        except (orjson.JSONDecodeError, KeyError):
            return [Violation("reconcile", "the command", f"ended with {done.returncode}: {done.stderr[-500:]}")]
        found = {
            Violation("reconcile", str(each.get("request_id") or each.get("place")), str(each.get("what")))
            for each in differences
            if each.get("place") not in self.poisoned
        }
        new = found - self._known
        self._known |= new
        return sorted(new)

    async def _replay(self) -> list[Violation]:
        to = self.folder / "replay"
        done = await self.command("replay", "--to", str(to))
        if done.returncode != 0:
            return [Violation("replay", "the command", f"ended with {done.returncode}: {done.stderr[-500:]}")]
        return sorted(set((await self._check(to)).violations) - self._known)

    @property
    def exits(self) -> Counter[tuple[str, int]]:
        """How often processes of each role have ended with which code."""
        return Counter((process.role, code) for process in self.processes.values() for code in process.exits)

    # Start and end ---------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Start everything, and the load."""
        self.broker.start()
        applied = await self.command("topics", "apply", "--broker", f"kafka://{self.broker.address}")
        assert applied.returncode == 0, applied.stderr
        await self.proxy.start()
        await self.tail.start()
        for process in self.processes.values():
            self._supervise(process)
        await self.start()
        await self.ready()
        await self._make_keys()
        self.traffic.keys = list(self.keys.values())
        self._tasks += [asyncio.create_task(self.balancer.run()), asyncio.create_task(self.traffic.run())]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for process in self.processes.values():
            process.send(signal.SIGCONT)
            process.close()
        await self.proxy.close()
        await self.tail.close()
        self.broker.stop()

    async def _make_keys(self) -> None:
        """For every organisation one without limits and one whose budget is reached; here and there other limits."""
        for number, org in enumerate(ORGANISATIONS):
            await self._make_key("free", org=org)
            await self._make_key("small", org=org, budget_usd=f"0.00{2 + 3 * number}")
        await self._make_key("at once", org=ORGANISATIONS[0], budget_usd="0.5", at_once=2)
        await self._make_key("a minute", org=ORGANISATIONS[1], budget_usd="0.5", per_minute=20)

    async def _make_key(self, name: str, **limits: Any) -> None:
        key = await make_key(self.of("ingress")[0].url, self._admin_key, name, **limits)
        self.keys[key.id] = key


def _rows(data: Path) -> dict[str, list[Fields]]:
    """What is in Parquet. The sink runs: between the manifest and its files a compaction may come."""
    for _ in range(READ_TRIES - 1):
        with suppress(FileNotFoundError):
            return read_parquet(data)
    return read_parquet(data)


@asynccontextmanager
async def open_site(folder: Path, *, seed: int = 1, bug: str | None = None, rate: float = 12.0) -> AsyncIterator[Site]:
    """A site that runs in `folder`, without load yet. `bug` is planted in each of its processes."""
    with a_provider(folder) as provider:
        site = Site(folder, provider, seed=seed, bug=bug, rate=rate)
        try:
            await site.open()
            yield site
        finally:
            await site.close()
