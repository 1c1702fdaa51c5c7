"""What is measured of the roles on Kafka: one ingress and one worker, processes of their own, on a broker of one node.

The broker is the one at TOLLGATE_TEST_KAFKA, or one that is started for this. All of them, the load and the mock
upstream share the cores of one machine.
"""

import asyncio
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from benchmarks.figures import Figure, added, figure, percentile
from benchmarks.load import Order, Outcome, Target
from benchmarks.measure import CONCURRENCY, PACED_S, RATE_PER_S, STREAM, STREAM_REQUESTS, UNARY, UNARY_REQUESTS
from benchmarks.servers import BUDGET_USD, PRICING_YAML, Process, call, cpu_s_of, load
from benchmarks.state import ROWS, fill
from tests.kafka_broker import LONG_RUN, KafkaBroker
from tollgate.log.kafka import KafkaLog
from tollgate.log.partitioner import partition_of
from tollgate.topics import load_topics

_GATEWAY_YAML = """\
log: {{broker: "kafka://{broker}"}}
sandbox: false
providers:
  upstream: {{protocol: openai, base_url: "http://127.0.0.1:{port}/v1", api_key: not-a-secret, models: [sandbox*]}}
"""
SLOW = "sandbox-lat2000"  # a call that is killed in its middle
SLOW_S = 2.0
WARM_REQUESTS, WARM_CONCURRENCY = 12_000, 8
SESSION_S = 6.0  # before it, nobody can know that a worker is dead
LOOK_EVERY_S = 0.02


class Site:
    """The processes: one ingress, and the workers that a section asks for. `requests` counts what was answered."""

    def __init__(self, folder: Path, broker: str, broker_pid: int | None, upstream: Process, *, rounds: int) -> None:
        self.rounds = rounds
        self._folder = folder
        self._broker_pid = broker_pid
        self.broker = broker
        self.upstream = upstream
        self._environment = {
            "TOLLGATE_DATA": str(folder / "data"),
            "TOLLGATE_ADMIN_KEY": secrets.token_hex(32),
            "TOLLGATE_SECRET": secrets.token_hex(32),
        }
        (folder / "gateway.yaml").write_text(_GATEWAY_YAML.format(broker=broker, port=upstream.port))
        (folder / "pricing.yaml").write_text(PRICING_YAML)
        tollgate = str(Path(sys.executable).with_name("tollgate"))
        subprocess.run([tollgate, "topics", "apply"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        self.names: set[str] = {"worker-1"}  # of every worker so far
        self.workers = {"worker-1": self._start("worker", "worker-1")}
        self.ingress = self._start("ingress", "ingress-1")
        self.key = self.create_key("default")

    def _start(self, role: str, name: str) -> Process:
        return Process(
            *("serve", "--role", role, "--port", "0", "--instance", name),
            folder=self._folder,
            environment=self._environment,
        )

    def start_worker(self, name: str) -> Process:
        self.names.add(name)
        self.workers[name] = self._start("worker", name)
        return self.workers[name]

    def stop_worker(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        self.workers.pop(name).stop(number)

    def partitions(self, worker: Process) -> list[int]:
        """What the worker owns now."""
        return list(call(worker.port, "GET", "/readyz")[1].get("partitions", ()))

    def create_key(self, organisation: str) -> str:
        form = {"name": organisation, "organization": organisation, "quota": {"monthly_budget": BUDGET_USD}}
        status, answer = call(self.ingress.port, "POST", "/v1/keys", form, key=self._environment["TOLLGATE_ADMIN_KEY"])
        if status != 201:
            raise RuntimeError(f"no key was created: {status} {answer}")
        return str(answer["key"])

    def direct(self, model: str) -> Target:
        return Target(port=self.upstream.port, model=model, stream=model != UNARY)

    def through(self, model: str, key: str = "") -> Target:
        return Target(port=self.ingress.port, model=model, stream=model != UNARY, key=key or self.key)

    def cpu_s(self) -> dict[str, float]:
        """By process; the broker's is absent when it is not ours."""
        used = {"ingress": self.ingress.cpu_s()} | {name: worker.cpu_s() for name, worker in self.workers.items()}
        return used if self._broker_pid is None else used | {"broker": cpu_s_of(self._broker_pid)}

    def close(self) -> None:
        for process in (self.ingress, *self.workers.values()):
            process.stop()


@contextmanager
def site(rounds: int) -> Iterator[Site]:
    """The broker, the mock upstream, an ingress and a worker, all started, and stopped in the end."""
    address = os.environ.get("TOLLGATE_TEST_KAFKA", "")
    broker = None if address else KafkaBroker(java_options=LONG_RUN).start()
    pid = None if broker is None or broker.process is None else broker.process.pid
    try:
        with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as name:
            folder = Path(name)
            upstream = Process("sandbox", "--port", "0", folder=folder)
            try:
                running = Site(folder, broker.address if broker else address, pid, upstream, rounds=rounds)
                try:
                    yield running
                finally:
                    running.close()
            finally:
                upstream.stop()
    finally:
        if broker is not None:
            broker.stop()


def kafka_latency(site: Site) -> Iterator[Figure]:
    """What a caller waits longer, at a rate that keeps nothing busy, and when the first content of a stream comes."""
    _warm(site)
    at = f"{RATE_PER_S:.0f}/s on Kafka"
    outcomes = [_side_by_side(site, UNARY) for _ in range(site.rounds)]
    direct, through = ([outcome.times[side].latency_ms for outcome in outcomes] for side in (0, 1))
    yield added(f"latency p50 (unary, {at})", direct, through, 50, target="added <= 5")
    yield added(f"latency p99 (unary, {at})", direct, through, 99, target="added <= 30")
    outcomes = [_side_by_side(site, STREAM) for _ in range(site.rounds)]
    direct, through = ([outcome.times[side].first_token_ms for outcome in outcomes] for side in (0, 1))
    yield added(f"first token p50 (streams, {at})", direct, through, 50, target="added <= 6")


def kafka_load(site: Site) -> Iterator[Figure]:
    """As many requests as one ingress and one worker can do, and what each costs whom."""
    for kind, model, requests, target in (
        ("unary requests", UNARY, UNARY_REQUESTS, ">= 1000"),
        ("streams of 20 chunks, 10 ms apart", STREAM, STREAM_REQUESTS, ""),
    ):
        _press(site, [site.through(model)], requests)  # warms up
        rounds = [_press(site, [site.through(model)], requests) for _ in range(site.rounds)]
        yield figure(
            f"{kind} on Kafka ({CONCURRENCY} at a time)",
            "1/s",
            [requests / outcome.seconds for outcome, _ in rounds],
            target=target,
        )
        if model == UNARY:
            yield figure(
                f"latency p99 on Kafka ({CONCURRENCY} at a time)",
                "ms",
                [percentile(outcome.times[0].latency_ms, 99) for outcome, _ in rounds],
            )
        for process in rounds[0][1]:
            yield figure(
                f"CPU of {process} per 1,000 {kind}", "s", [used[process] / requests * 1000 for _, used in rounds]
            )


def kafka_second_worker(site: Site) -> Iterator[Figure]:
    """What a second worker gains, where two organisations lie on partitions of different owners."""
    second = site.start_worker("worker-2")
    try:
        keys = [site.create_key(name) for name in _organisations(site)]
        targets = [site.through(UNARY, key) for key in keys]
        _press(site, targets, UNARY_REQUESTS)
        both = [_press(site, targets, UNARY_REQUESTS) for _ in range(site.rounds)]
        assert site.partitions(second)
    finally:
        site.stop_worker("worker-2")
    (first,) = site.workers.values()
    _until(lambda: len(site.partitions(first)) == _partitions(), "one worker owns everything")
    alone = [_press(site, targets, UNARY_REQUESTS) for _ in range(site.rounds)]
    yield figure(
        "unary requests of two organisations: two workers, beside one",
        "1/s",
        [UNARY_REQUESTS / outcome.seconds for outcome, _ in both],
        [UNARY_REQUESTS / outcome.seconds for outcome, _ in alone],
    )
    yield figure(
        "CPU of the workers per 1,000 of them: two, beside one", "s", _of_workers(site, both), _of_workers(site, alone)
    )


def kafka_take_over(site: Site) -> Iterator[Figure]:
    """How long a killed worker is missed: by its partitions, and by a client whose call it was running."""
    rounds = [_kill_a_worker(site) for _ in range(site.rounds)]
    yield figure(
        f"kill of a worker to its partitions taken over, session of {SESSION_S:.0f} s",
        "s",
        [owned_s for owned_s, _ in rounds],
        target="<= 14",
    )
    yield figure(
        "kill of a worker to its client's answer, less the call",
        "s",
        [answered_s for _, answered_s in rounds],
        target="<= 15",
    )


def _kill_a_worker(site: Site) -> tuple[float, float]:
    """Seconds from the kill until the other worker owns everything, and until the client of its call is answered."""
    site.start_worker(f"worker-{len(site.names) + 1}")
    (owner,) = (name for name, worker in site.workers.items() if _partition() in site.partitions(worker))
    (heir,) = (worker for name, worker in site.workers.items() if name != owner)
    client = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load"],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    target = msgspec.structs.replace(site.through(SLOW), stream=False)
    assert client.stdin is not None and client.stdout is not None
    client.stdin.write(msgspec.json.encode(Order(targets=[target], requests=1, limit_s=60.0)))
    client.stdin.close()
    _until(lambda: _calls(site.workers[owner]) == 1, "the call runs")
    site.stop_worker(owner, signal.SIGKILL)
    killed = time.perf_counter()
    _until(lambda: len(site.partitions(heir)) == _partitions(), "everything is taken over")
    owned_s = time.perf_counter() - killed
    outcome = msgspec.json.decode(client.stdout.read(), type=Outcome)
    if outcome.times[0].failures:
        raise RuntimeError("the client of the killed worker got no answer")
    return owned_s, time.perf_counter() - killed - SLOW_S


def kafka_recovery(site: Site) -> Iterator[Figure]:
    """How soon a worker is ready again when the checkpoint of one partition has a million rows."""
    (name,) = site.workers
    site.stop_worker(name)
    before_s = site.start_worker(name).ready_s
    site.stop_worker(name)
    asyncio.run(_fill(site))
    rounds = []
    for _ in range(site.rounds):
        rounds.append(site.start_worker(name).ready_s)
        site.stop_worker(name)
    site.start_worker(name)
    yield figure("start to ready of a worker", "s", [before_s])
    yield figure(f"start to ready of a worker with {ROWS:,} rows of state", "s", rounds, target="<= 15")


SECTIONS: Mapping[str, Callable[[Site], Iterator[Figure]]] = {
    section.__name__: section
    for section in (kafka_latency, kafka_load, kafka_second_worker, kafka_take_over, kafka_recovery)
}


async def _fill(site: Site) -> None:
    log = await KafkaLog.connect(site.broker, load_topics(), client_id="benchmark")
    try:
        await fill(log, partition=_partition())
    finally:
        await log.close()


def _side_by_side(site: Site, model: str) -> Outcome:
    targets = [site.direct(model), site.through(model)]
    requests = int(2 * RATE_PER_S * PACED_S)
    return load(Order(targets=targets, requests=requests, rate=RATE_PER_S, concurrency=CONCURRENCY))


def _warm(site: Site) -> None:
    """Load until the broker's Java has compiled what it does all the time: until then it takes thrice as long."""
    load(Order(targets=[site.through(UNARY)], requests=WARM_REQUESTS, concurrency=WARM_CONCURRENCY))


def _press(site: Site, targets: list[Target], requests: int) -> tuple[Outcome, dict[str, float]]:
    """Load by so many requests, and the CPU seconds that each process used for them."""
    before = site.cpu_s()
    outcome = load(Order(targets=targets, requests=requests, concurrency=CONCURRENCY // len(targets)))
    return outcome, {name: used_s - before[name] for name, used_s in site.cpu_s().items()}


def _of_workers(site: Site, rounds: list[tuple[Outcome, dict[str, float]]]) -> list[float]:
    """CPU seconds per 1,000 requests, of all workers together."""
    return [
        sum(used_s for name, used_s in used.items() if name in site.names) / UNARY_REQUESTS * 1000 for _, used in rounds
    ]


def _partition(organisation: str = "default") -> int:
    return partition_of(organisation.encode(), _partitions())


def _partitions() -> int:
    return load_topics()["requests"].partitions


def _organisations(site: Site) -> Iterator[str]:
    """The name of one for each worker."""
    for worker in site.workers.values():
        owned = site.partitions(worker)
        yield next(f"org-{number}" for number in range(1_000) if _partition(f"org-{number}") in owned)


def _calls(worker: Process) -> int:
    text = call(worker.port, "GET", "/metrics", parse=False)[1]
    line = next(line for line in text.splitlines() if line.startswith('tollgate_calls_running{owner="here"}'))
    return int(float(line.rpartition(" ")[2]))


def _until(reached: Callable[[], bool], what: str) -> None:
    deadline = time.perf_counter() + 60.0
    while not reached():
        if time.perf_counter() > deadline:
            raise RuntimeError(f"it was not so within a minute that {what}")
        time.sleep(LOOK_EVERY_S)
