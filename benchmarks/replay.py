"""How fast the books are rebuilt from Kafka: `python -m benchmarks --section replay`.

A broker of its own, on the loopback interface, gets a journal of a million records as a gateway writes it: take-overs,
admissions, retries, ends of unary and streamed requests with tags and the provider's usage block, over ten days.
Then `tollgate replay` runs as a user runs it. Java and Maven are needed, as for the tests on Kafka; with
TOLLGATE_BENCH_KAFKA=host:port another broker keeps the journal, and the next run finds it there.
"""

import asyncio
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from benchmarks.figures import Figure
from benchmarks.servers import cpu_s_of
from tests.kafka_broker import KafkaBroker
from tollgate.events import (
    Admitted,
    Attempt,
    AttemptStarted,
    Candidate,
    CostLine,
    Ended,
    Event,
    OwnerTook,
    Request,
    Usage,
    encode,
)
from tollgate.ids import new_request_id
from tollgate.journal import JOURNAL
from tollgate.log.kafka_topics import apply_kafka
from tollgate.log.partitioner import partition_of
from tollgate.topics import Topic, Topics, load_topics

RECORDS = 1_000_000
DAYS = 10
END_MS = 1_795_000_000_000
ORGANISATIONS = 400
RETRIED = 0.05  # share of requests with a second attempt
BATCH_BYTES = 256 << 10

_PRICE_VERSION = "2026-11-10.db9bf441"
_USAGE_RAW = (
    '{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,"prompt_tokens_details":{"cached_tokens":%d,'
    '"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,'
    '"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}'
)


def replay(folder: Path, rounds: int) -> Iterator[Figure]:
    """Replay the journal so many times, each into a new folder; closing the days is part of it.

    What is counted are the records that were read, whether they make rows or not. The time is that of the work itself,
    the start of its processes included; the CPU is of everything that the command used.
    """
    rates, cpu_s, broker_s = [], [], []
    with _broker() as (address, pid):
        records = asyncio.run(_fill(address))
        print(f"{records:,} records are in Kafka", file=sys.stderr, flush=True)
        (folder / "gateway.yaml").write_text(f"log: {{broker: 'kafka://{address}'}}\n")
        for _ in range(rounds):
            before_s, broker_before_s = _cpu_s(), cpu_s_of(pid) if pid else 0.0
            summary = _replay(folder)
            cpu_s.append((_cpu_s() - before_s) * 1_000_000 / summary["records"])
            if pid:
                broker_s.append((cpu_s_of(pid) - broker_before_s) * 1_000_000 / summary["records"])
            rates.append(summary["records"] / summary["seconds"])
    yield Figure(
        name="replay from Kafka", unit="records/s", value=median(rates), target=">= 150,000 on 2 cores", rounds=rates
    )
    yield Figure(name="CPU of the replay per 1,000,000 records", unit="s", value=median(cpu_s), rounds=cpu_s)
    if broker_s:
        yield Figure(
            name="CPU of the broker meanwhile, per 1,000,000 records", unit="s", value=median(broker_s), rounds=broker_s
        )
    largest_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    yield Figure(name="memory of its largest process", unit="MiB", value=largest_mb, target="<= 500")


def _replay(folder: Path) -> dict[str, Any]:
    tollgate = str(Path(sys.executable).with_name("tollgate"))
    with tempfile.TemporaryDirectory(dir=folder) as to:
        done = subprocess.run(
            [tollgate, "replay", "--to", to, "--json"], cwd=folder, stdout=subprocess.PIPE, check=True
        )
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def _cpu_s() -> float:
    """What the processes that have ended here have used, those that they had started included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


SECTIONS = {"replay": replay}


@contextmanager
def _broker() -> Iterator[tuple[str, int | None]]:
    """Its address, and its process if it is ours."""
    address = os.environ.get("TOLLGATE_BENCH_KAFKA")
    if address is not None:
        yield address, None
        return
    broker = KafkaBroker().start()
    try:
        yield broker.address, broker.process.pid if broker.process is not None else None
    finally:
        broker.stop()


async def _fill(address: str) -> int:
    """Make the topics, and fill the journal if it is empty; return how many records there are."""
    topics = load_topics()
    await apply_kafka(address, _with_given_times(topics))
    producer = AIOKafkaProducer(bootstrap_servers=address, acks="all", max_batch_size=BATCH_BYTES, linger_ms=20)
    await producer.start()
    try:
        partitions = topics[JOURNAL].partitions
        ends = await _ends(address, partitions)
        if sum(ends) == 0:
            for count, (org_id, timestamp_ms, event) in enumerate(_journal(partitions)):
                partition = partition_of(org_id.encode(), partitions) if org_id else count
                await producer.send(
                    JOURNAL, encode(event), org_id.encode(), partition=partition, timestamp_ms=timestamp_ms
                )
            await producer.flush()
            ends = await _ends(address, partitions)
        return sum(ends)
    finally:
        await producer.stop()


def _with_given_times(topics: Topics) -> Topics:
    """The journal takes the times that it is given, so that it can be of many days."""
    journal = topics[JOURNAL]
    given = Topic(
        name=journal.name,
        partitions=journal.partitions,
        config=journal.config | {"message.timestamp.type": "CreateTime"},
    )
    return Topics(topics={**topics.topics, JOURNAL: given})


async def _ends(address: str, partitions: int) -> list[int]:
    consumer = AIOKafkaConsumer(bootstrap_servers=address)
    await consumer.start()
    try:
        return list((await consumer.end_offsets([TopicPartition(JOURNAL, n) for n in range(partitions)])).values())
    finally:
        await consumer.stop()


def _journal(partitions: int) -> Iterator[tuple[str, int, Event]]:
    """Events with organisation and time: one take-over for each partition, then requests, in the order of time."""
    draw = random.Random(1)
    begin_ms = END_MS - DAYS * 86_400_000
    for _ in range(partitions):
        yield "", begin_ms, OwnerTook(instance="main")
    written = partitions
    while written < RECORDS:
        org_id = f"org-{int(ORGANISATIONS * draw.random() ** 2)}"  # some have much more than others
        at_ms = begin_ms + (END_MS - begin_ms) * written // RECORDS
        for event in _request(draw, org_id, at_ms):
            yield org_id, at_ms, event
            written += 1


def _request(draw: random.Random, org_id: str, at_ms: int) -> Iterator[Event]:
    """What the journal says of one request."""
    model = draw.choice(["gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5", "mistral-large-latest"])
    stream = draw.random() < 0.5
    request = Request(
        request_id=new_request_id(),
        org_id=org_id,
        key_id=f"key-{draw.randrange(2000)}",
        endpoint="/v1/chat/completions",
        dialect="openai",
        model=model,
        team_id=f"team-{draw.randrange(20)}",
        user_id=f"user-{draw.randrange(5000)}",
        stream=stream,
        tags={"feature": draw.choice(["search", "chat", "summary"]), "env": "prod"} if draw.random() < 0.5 else {},
        accepted_ms=at_ms - 3,
        deadline_ms=at_ms + 600_000,
        reply_to="main/01a1f9fd-0000-7000-8000-000000000001",
        body_bytes=draw.randrange(200, 20_000),
    )
    plan = tuple(
        Candidate(provider=name, account="main", model=model, bound_pusd=40_960_000_000, max_output_tokens=4096)
        for name in ("openai", "azure")
    )
    subjects = (f"key:{request.key_id}", f"team:{request.team_id}", f"org:{org_id}")
    hold_pusd = draw.randrange(10**9, 10**11)
    yield Admitted(
        epoch=0,
        src=draw.randrange(10**6),
        request=request,
        subjects=subjects,
        period="2026-11",
        plan=plan,
        price_version=_PRICE_VERSION,
        hold_pusd=hold_pusd,
        rates={f"key:{request.key_id}": at_ms * 1000},
    )
    attempts = []
    if draw.random() < RETRIED:
        attempts.append(
            Attempt(
                attempt=1,
                provider="openai",
                account="main",
                model=model,
                outcome="error",
                error_class="rate_limit",
                http_status=429,
                reason="Rate limit reached for requests",
                started_ms=at_ms,
                latency_ms=80,
            )
        )
        yield AttemptStarted(
            epoch=0, request_id=request.request_id, org_id=org_id, attempt=2, previous=attempts[0], choice=1
        )
    attempts.append(_answer(draw, len(attempts) + 1, plan[len(attempts)].provider, model, at_ms, stream=stream))
    cost_pusd = sum(line.cost_pusd for line in attempts[-1].lines)
    yield Ended(
        epoch=0,
        request=request,
        status="completed",
        http_status=200,
        period="2026-11",
        subjects=subjects,
        attempts=tuple(attempts),
        price_version=_PRICE_VERSION,
        hold_pusd=hold_pusd,
        cost_pusd=cost_pusd,
        bill_pusd=min(cost_pusd, hold_pusd),
        latency_ms=attempts[-1].latency_ms + 4,
        ttft_ms=attempts[-1].ttft_ms,
        overhead_us=draw.randrange(900, 4000),
    )


def _answer(draw: random.Random, number: int, provider: str, model: str, at_ms: int, *, stream: bool) -> Attempt:
    tokens_in, cached, tokens_out = draw.randrange(20, 4000), draw.choice([0, 0, 1024]), draw.randrange(5, 800)
    counts = (("input_tokens", tokens_in), ("cache_read_tokens", cached), ("output_tokens", tokens_out))
    lines = tuple(
        CostLine(
            meter=meter,
            quantity=quantity,
            unit_price_pusd=2_500_000,
            cost_pusd=quantity * 2_500_000,
            bill_pusd=quantity * 2_500_000,
            price_version=_PRICE_VERSION,
        )
        for meter, quantity in counts
        if quantity
    )
    return Attempt(
        attempt=number,
        provider=provider,
        account="main",
        model=model,
        outcome="ok",
        served_model=f"{model}-2026-08-06",
        http_status=200,
        started_ms=at_ms + 2,
        latency_ms=draw.randrange(200, 9000),
        ttft_ms=draw.randrange(80, 900) if stream else None,
        usage=Usage(input_tokens=tokens_in, cache_read_tokens=cached, output_tokens=tokens_out),
        usage_raw=_USAGE_RAW % (tokens_in + cached, tokens_out, tokens_in + cached + tokens_out, cached),
        usage_source="provider",
        finish_reason="stop",
        upstream_request_id=f"req_{draw.getrandbits(64):016x}",
        lines=lines,
    )
