"""What is measured of one process on its embedded log: each section compares it with calling the mock directly."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from benchmarks.figures import Figure, added, figure, percentile
from benchmarks.load import Order, Outcome, Target
from benchmarks.servers import Gateway, Process, load
from benchmarks.state import ROWS, fill
from tollgate.app.open_log import LOG_FOLDER
from tollgate.log.embedded import EmbeddedLog
from tollgate.topics import load_topics

CONCURRENCY = 64
RATE_PER_S = 20.0
UNARY = "sandbox"
STREAM = "sandbox-chunks20-gap10"  # 20 chunks, 10 ms apart: each comes and leaves by itself
BURST = "sandbox-chunks20"  # 20 chunks at once
UNARY_REQUESTS = 4_000  # of one round
STREAM_REQUESTS = 1_000
PACED_S = 15.0
MEMORY_STEPS = 10


class Bench:
    """The servers, and how often to repeat. `requests` counts what the gateway has answered so far."""

    def __init__(self, upstream: Process, gateway: Gateway, *, rounds: int, soak: int) -> None:
        self.gateway = gateway
        self.rounds = rounds
        self.soak = soak
        self.requests = 0
        self._upstream = upstream

    def direct(self, model: str, **order: object) -> Outcome:
        """Load on the mock alone."""
        return self._load([self._target(model, direct=True)], order)

    def through(self, model: str, **order: object) -> tuple[Outcome, float]:
        """Load on the gateway alone, and the CPU seconds that it used."""
        process = self.gateway.process
        before_s = process.cpu_s()
        outcome = self._load([self._target(model)], order)
        self.requests += len(outcome.times[0].latency_ms)
        return outcome, process.cpu_s() - before_s

    def side_by_side(self, model: str) -> Outcome:
        """The mock and the gateway in turn, `RATE_PER_S` each; their times in this order."""
        requests = int(2 * RATE_PER_S * PACED_S)
        targets = [self._target(model, direct=True), self._target(model)]
        outcome = self._load(targets, {"requests": requests, "rate": RATE_PER_S, "concurrency": CONCURRENCY})
        self.requests += requests // 2
        return outcome

    def _target(self, model: str, *, direct: bool = False) -> Target:
        stream = model != UNARY
        if direct:
            return Target(port=self._upstream.port, model=model, stream=stream)
        return Target(port=self.gateway.process.port, model=model, stream=stream, key=self.gateway.key)

    def _load(self, targets: list[Target], order: dict[str, object]) -> Outcome:
        return load(msgspec.convert({"targets": targets, **order}, Order))


def latency(bench: Bench) -> Iterator[Figure]:
    """What a caller waits longer, at a rate that keeps nothing busy; the disk's share of it are two forced writes."""
    yield figure("forced write of 8 KiB p50", "ms", [percentile(bench.gateway.forced_writes_ms(), 50)])
    outcomes = [bench.side_by_side(UNARY) for _ in range(bench.rounds)]
    direct, through = ([outcome.times[side].latency_ms for outcome in outcomes] for side in (0, 1))
    at = f"unary, {RATE_PER_S:.0f}/s"
    yield added(f"latency p50 ({at})", direct, through, 50, target="added <= 2")
    yield added(f"latency p99 ({at})", direct, through, 99, target="added <= 15")


def first_token(bench: Bench) -> Iterator[Figure]:
    """How much later the first content of a stream comes."""
    outcomes = [bench.side_by_side(STREAM) for _ in range(bench.rounds)]
    direct, through = ([outcome.times[side].first_token_ms for outcome in outcomes] for side in (0, 1))
    at = f"{RATE_PER_S:.0f} streams/s"
    yield added(f"first token p50 ({at})", direct, through, 50, target="added <= 3")
    yield added(f"first token p99 ({at})", direct, through, 99)


def unary(bench: Bench) -> Iterator[Figure]:
    """As many unary requests as it can, and what each costs."""
    order = {"requests": UNARY_REQUESTS, "concurrency": CONCURRENCY}
    bench.through(UNARY, **order)  # warms up
    direct = [bench.direct(UNARY, **order) for _ in range(bench.rounds)]
    through = [bench.through(UNARY, **order) for _ in range(bench.rounds)]
    yield figure(
        f"unary requests ({CONCURRENCY} at a time)",
        "1/s",
        [UNARY_REQUESTS / outcome.seconds for outcome, _ in through],
        [UNARY_REQUESTS / outcome.seconds for outcome in direct],
        target=">= 1200",
    )
    for percent in (50, 99):
        yield figure(
            f"latency p{percent} ({CONCURRENCY} at a time)",
            "ms",
            [percentile(outcome.times[0].latency_ms, percent) for outcome, _ in through],
            [percentile(outcome.times[0].latency_ms, percent) for outcome in direct],
        )
    yield figure(
        "CPU of the gateway per 1,000 unary",
        "s",
        [cpu_s / UNARY_REQUESTS * 1000 for _, cpu_s in through],
        target="<= 0.8",
    )


def streams(bench: Bench) -> Iterator[Figure]:
    """What a stream of 20 chunks costs, slow and in one burst."""
    order = {"requests": STREAM_REQUESTS, "concurrency": CONCURRENCY}
    for name, model, target in (("10 ms apart", STREAM, "<= 1.5"), ("at once", BURST, "")):
        through = [bench.through(model, **order) for _ in range(bench.rounds)]
        yield figure(
            f"CPU per 1,000 streams of 20 chunks, {name}",
            "s",
            [cpu_s / STREAM_REQUESTS * 1000 for _, cpu_s in through],
            target=target,
        )


def memory(bench: Bench) -> Iterator[Figure]:
    """Memory in use at the beginning, and over many requests."""
    process = bench.gateway.process
    yield Figure(name=f"memory after {bench.requests:,} requests", unit="MiB", value=process.rss_mb())
    steps = []
    for _ in range(MEMORY_STEPS):
        bench.through(UNARY, requests=bench.soak // MEMORY_STEPS, concurrency=CONCURRENCY)
        steps.append(process.rss_mb())
    yield Figure(
        name=f"memory after {bench.requests:,} requests", unit="MiB", value=steps[-1], target="<= 250", rounds=steps
    )


def restart(bench: Bench) -> Iterator[Figure]:
    """How soon it is ready again, with all that it has answered on its log."""
    for number, how in ((signal.SIGTERM, "stopped"), (signal.SIGKILL, "killed")):
        rounds = [bench.gateway.restart(number) for _ in range(bench.rounds)]
        yield figure(f"start to ready after {bench.requests:,} requests, {how}", "s", rounds, target="<= 3")


def recovery(bench: Bench) -> Iterator[Figure]:
    """How soon it is ready again when the checkpoint of one partition has a million rows."""

    async def filled(data: Path) -> None:
        log = await EmbeddedLog.open(data / LOG_FOLDER, load_topics(), durability="process")
        await fill(log, partition=log.partition_for("requests", b"default"))
        await log.close()

    bench.gateway.stop_and_fill(lambda data: asyncio.run(filled(data)))
    rounds = [bench.gateway.start()]
    rounds += [bench.gateway.restart(signal.SIGKILL) for _ in range(bench.rounds - 1)]
    yield figure(f"start to ready with {ROWS:,} rows of state", "s", rounds, target="<= 15")


SECTIONS: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    section.__name__: section for section in (latency, first_token, unary, streams, memory, restart, recovery)
}
