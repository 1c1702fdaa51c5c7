"""What happens to the gateway under load. Each fault is a function of the site; one that is named in `FAULTS` is run.

A fault returns when it is over: what it has killed runs again or is being started again by its supervisor. It may look
itself at what only it can know, and blame what is wrong; everything else is judged at rest.
"""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from tests.chaos.evidence import PARTITIONS
from tests.chaos.site import ORGANISATIONS, Site
from tests.chaos.supervisor import Supervised
from tests.chaos.traffic import Asked, answered
from tests.crash.gateway import FAILPOINT
from tests.crash.load import Kind
from tollgate.log.partitioner import partition_of

Fault = Callable[[Site], Awaitable[None]]

ANSWER_S = 15.0  # after the death of a worker its clients have their answers, beside the time that the calls take
SLOW_S = 4.0
SLOW = Kind(1, f"sandbox-lat{SLOW_S * 1000:.0f}-tok9", False)
SLOW_STREAM = Kind(1, f"sandbox-lat{SLOW_S * 1000:.0f}-tok9", True)
LONG_STREAM = Kind(1, "sandbox-lat50-tok300-gap100", True, max_tokens=300)
FAILS_LATE = Kind(1, f"sandbox-lat{SLOW_S * 1000:.0f}-err500x1-tok9", False)
ORG = ORGANISATIONS[0]
GONE_S = 15.0  # after the death of an ingress the calls for its clients are over
QUICK = Kind(1, "sandbox-tok3", False)
NOTICED_S = 3.0  # an outage is by then
TOLD_S = 8.0  # the patience of an ingress, and some more where the machine is busy
TRY_AGAIN = 503  # that it says when, the checker sees to
ROOM_BYTES = 64 << 20  # for what waits for the log
STAY_S = 2.0
GROUP = "tollgate"
GROUP_EMPTY_S = 30.0


# Workers --------------------------------------------------------------------------------------------------------------


async def worker_killed(site: Site) -> None:
    """Another takes over while the dead one stays dead: who waits is answered in time, and once."""
    waiting, owner = await _waiting(site)
    streams = site.ask(LONG_STREAM, 4, org=ORG)
    await site.called(streams)
    await owner.stop(signal.SIGKILL)
    await _answered(site, waiting)
    owner.start(site.broker.address)
    await owner.ready()


async def worker_killed_and_started_again(site: Site) -> None:
    """Within the session, under its name: it gets its own partitions back."""
    waiting, owner = await _waiting(site)
    await owner.end(signal.SIGKILL)
    await _answered(site, waiting)


async def worker_killed_before_the_answer(site: Site) -> None:
    """The end of a request is on the log, and its last bytes were not sent: its client is told at the take-over."""
    worker = site.of("worker")[0]
    worker.start(site.broker.address, once={FAILPOINT: "end.durable:40"})
    await worker.end(signal.SIGTERM)
    await worker.ready()
    await worker.ended()
    under_way = [each for each in site.traffic.asked if not each.ended_s]
    if not await answered(under_way, ANSWER_S):
        site.blame("answer", worker.name, f"clients wait still, {ANSWER_S:g} s after its death")


async def owning_worker_frozen(site: Site, *, seconds: float = 30.0) -> None:
    """In the middle of calls, and it wakes when they are somebody else's: what it does then counts for nothing."""
    owner = await site.owner(ORG)
    waiting = site.ask(SLOW, 3, org=ORG) + site.ask(FAILS_LATE, 3, org=ORG)
    tokens = int(2 * seconds) + 10  # so that its successor still answers when it wakes
    late = Kind(1, f"sandbox-lat{SLOW_S * 1000:.0f}-tok{tokens}-gap500", True, max_tokens=tokens)
    waiting += site.ask(late, 3, org=ORG, dialect="openai")
    await site.called(waiting)
    owner.send(signal.SIGSTOP)
    await asyncio.sleep(seconds)
    owner.send(signal.SIGCONT)
    if not await answered(waiting, 60.0):
        site.blame("answer", owner.name, "not everybody who waited for the frozen worker was answered")
    site.expect(waiting, "answer")


async def runner_killed(site: Site) -> None:
    """A worker that was told to stop, and still ran the calls that it had handed over."""
    waiting, owner = await _waiting(site)
    stopping = asyncio.create_task(owner.stop())
    await _released(site, owner)
    owner.send(signal.SIGKILL)
    await stopping
    await _answered(site, waiting, ANSWER_S + 10.0)  # first its beats are missed
    owner.start(site.broker.address)
    await owner.ready()


async def rebalances(site: Site, *, seconds: float = 120.0) -> None:
    """Two more workers join and leave all the time, while calls take longer than that."""
    names = ("worker-3", "worker-4")
    guests = [site.processes.get(name) or site.add("worker", name) for name in names]
    until_s = time.monotonic() + seconds
    visits = [asyncio.create_task(_come_and_go(site, guest, until_s)) for guest in guests]
    slow: list[Asked] = []
    while not all(visit.done() for visit in visits):
        slow += site.ask(SLOW, 3) + site.ask(SLOW_STREAM, 3)
        await asyncio.wait(visits, timeout=SLOW_S)
    await asyncio.gather(*visits)
    if not await answered(slow, ANSWER_S + SLOW_S):
        site.blame("answer", "slow calls", "are not all answered")
    site.expect(slow, "answer")
    await _called_once(site, slow)
    if not {*names} & {entry.event.get("instance") for entry in site.tail.topic("completions")}:
        site.blame("fault", "the guests", "have never owned a partition")


async def _come_and_go(site: Site, guest: Supervised, until_s: float) -> None:
    while time.monotonic() < until_s:
        guest.start(site.broker.address)
        await guest.ready()
        await asyncio.sleep(STAY_S)
        await guest.stop()


async def offsets_forgotten(site: Site) -> None:
    """Workers are stopped, what their group has committed is set to 0, and they start again."""
    workers = site.of("worker")
    await site.stop(workers)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=site.broker.address, group_id=GROUP, enable_auto_commit=False, auto_offset_reset="none"
    )
    await consumer.start()
    try:
        sources = [TopicPartition("requests", number) for number in range(PARTITIONS)]
        consumer.assign(sources)
        async with asyncio.timeout(GROUP_EMPTY_S):
            while True:  # refused until the sessions of those that were stopped are over
                with suppress(KafkaError):
                    await consumer.commit(dict.fromkeys(sources, 0))
                    break
                await asyncio.sleep(0.5)
    finally:
        await consumer.stop()
    for worker in workers:
        worker.start(site.broker.address)
    await site.ready(workers)


# Ingresses and sinks --------------------------------------------------------------------------------------------------


async def ingress_killed(site: Site, *, streams: int = 60) -> None:
    """With streams open. It comes back under its name, and the calls for the clients of its former life are ended."""
    ingress = site.of("ingress")[0]
    open_streams = site.ask(LONG_STREAM, streams, url=ingress.url)
    await site.called(open_streams)
    await ingress.end(signal.SIGKILL)
    if not await answered(open_streams, 5.0):
        site.blame("answer", ingress.name, "clients of the dead ingress still wait")
    await ingress.ready()
    if not await site.ended(open_streams, GONE_S):
        site.blame("cancel", ingress.name, f"{GONE_S:g} s after its death there are calls for its clients")


async def ingress_cut_off(site: Site, *, seconds: float = 8.0) -> None:
    """It alone, for longer than it waits for the log: what the log takes when its client was refused is not called."""
    ingress = site.of("ingress")[0]
    await _moved(site, site.proxied_address, [ingress])
    first = site.ask(QUICK, len(ORGANISATIONS), url=ingress.url)  # with which it makes the keys of their bodies
    await answered(first, ANSWER_S)
    site.expect(first, "answer")
    site.proxy.flows.clear()
    asked = site.ask(QUICK, 12, url=ingress.url)
    await asyncio.sleep(seconds)
    site.proxy.flows.set()
    if not await answered(asked, TOLD_S):
        site.blame("outage", ingress.name, f"its clients wait still, {TOLD_S:g} s after it was cut off")
    for each in asked:
        if each.ended_s and each.sent.status != TRY_AGAIN:
            site.blame("outage", f"request {each.sent.number}", f"cut off from the log: {each.failure() or 'answered'}")
    if not await site.refused_late(asked):
        site.blame("fault", ingress.name, "has sent nothing that came late")
    await _moved(site, site.broker.address, [ingress])


async def sink_killed(site: Site) -> None:
    """First the one that works, then the other."""
    for sink in site.of("sink"):
        await sink.end(signal.SIGKILL)
        await asyncio.sleep(2.0)
        await sink.ready()


async def everything_killed(site: Site) -> None:
    """All processes of the gateway at once, in the middle of calls: with their clients gone, none is made again."""
    under_way = site.ask(SLOW, 12) + site.ask(LONG_STREAM, 12)
    await site.called(under_way)
    ended = [process.end(signal.SIGKILL) for process in site.processes.values()]
    await asyncio.gather(*ended)
    await site.ready(process for process in site.processes.values() if process.runs)
    if not await site.ended(under_way, GONE_S):
        site.blame("cancel", "the gateway", f"{GONE_S:g} s after its death there are calls for nobody")


async def rolling_restart(site: Site) -> None:
    """One process after the other is told to stop and starts again: nobody notices, and no call is made twice."""
    first = len(site.traffic.asked)
    await _calls(site)
    for process in (*site.of("worker")[:2], *site.of("ingress"), *site.of("sink")):
        code = await process.end(signal.SIGTERM)
        if code != 0:
            site.blame("restart", process.name, f"was told to stop and ended with {code}")
        await process.ready()
    await answered(site.traffic.asked[first:], ANSWER_S)
    asked = site.traffic.asked[first:]
    for each in asked:
        if (failure := each.failure()) is not None and each.ended_s:
            site.blame("restart", each.sent.request_id or f"request {each.sent.number}", failure)
    await _called_once(site, asked)


# The broker -----------------------------------------------------------------------------------------------------------


async def broker_killed(site: Site, *, seconds: float = 6.0) -> None:
    """SIGKILL, and it is started again on its log."""
    under_way = await _calls(site)
    await asyncio.to_thread(site.broker.kill)
    await _outage(site, seconds)
    site.broker.launch()
    await site.broker_answers()
    site.watch(_went_on(site, under_way))


async def broker_restarted(site: Site, *, seconds: float = 6.0) -> None:
    """In order."""
    under_way = await _calls(site)
    assert site.broker.process is not None
    site.broker.process.terminate()
    await asyncio.to_thread(site.broker.process.wait)
    await _outage(site, seconds)
    site.broker.launch()
    await site.broker_answers()
    site.watch(_went_on(site, under_way))


async def broker_paused(site: Site, *, seconds: float = 30.0) -> None:
    """Connections stay open, and nothing answers."""
    under_way = await _calls(site)
    site.broker.freeze(True)
    await _outage(site, seconds)
    site.broker.freeze(False)
    site.watch(_went_on(site, under_way))


async def broker_down_at_start(site: Site, *, seconds: float = 10.0) -> None:
    """Everything is started where no broker is yet."""
    processes = [process for process in site.processes.values() if process.runs]
    await site.stop(processes)
    await asyncio.to_thread(site.broker.kill)
    for process in processes:
        process.start(site.broker.address)
    await asyncio.gather(*(ingress.listens() for ingress in site.of("ingress")))
    await _outage(site, seconds)
    site.broker.launch()
    await site.broker_answers()


async def acknowledgements_lost(site: Site, *, seconds: float = 30.0, share: float = 0.3) -> None:
    """Of what is written, so much is on the log without its writer being told, and its connection is cut."""
    await _moved(site, site.proxied_address, site.processes.values())
    site.proxy.share = share
    await asyncio.sleep(seconds)
    site.proxy.share = 0.0
    if not site.proxy.lost:
        site.blame("fault", "proxy", "has lost nothing")
    await _moved(site, site.broker.address, site.processes.values())


# Topics ---------------------------------------------------------------------------------------------------------------

POISON = {
    "random bytes": bytes(range(255, 0, -3)),
    "empty": b"",
    "not an object": b"[1, 2, 3]",
    "no type": b'{"request_id": "x"}',
    "unknown type": b'{"type": "moon_landed.1", "epoch": 0}',
    "unknown version": b'{"type": "ended.99", "epoch": 0, "request": {}}',
    "truncated": b'{"type":"ended.1","epoch":0,"request":{"request_id":"0190',
    "the wrong event": b'{"type":"dead_letter.1","topic":"x","partition":0,"offset":0,"reason":"x","value":"eA=="}',
    "deep": b"[" * 20_000,
}
HUGE = 4 << 20
TOPICS = (
    "requests",
    "completions",
    "costs",
    "tollgate-state-changelog",
    "control",
    "audit",
    "replies",
    "seals",
    "dead-letters",
)
COMPACTED = ("tollgate-state-changelog", "control", "seals")


async def poison(site: Site, *, restart: bool = True) -> None:
    """Records that nobody can read, on every partition of every topic; then a start that reads them."""
    exits = site.exits
    producer = AIOKafkaProducer(bootstrap_servers=site.broker.address, max_request_size=2 * HUGE)
    await producer.start()

    async def put(topic: str, partition: int, key: bytes | None, value: bytes | None) -> None:
        metadata = await producer.send_and_wait(topic, value, key=key, partition=partition)
        site.poisoned.add(f"{topic}/{partition}@{metadata.offset}")

    try:
        for topic in TOPICS:
            for partition in sorted(await producer.partitions_for(topic)):
                for name, value in POISON.items():
                    await put(topic, partition, f"poison {name}".encode(), value)
                if topic not in COMPACTED:  # the broker itself refuses what has no key there
                    await put(topic, partition, None, POISON["random bytes"])
                await put(topic, partition, b"\xff\xfe", POISON["random bytes"])
                await put(topic, partition, b"\xff\xfe", None)
            await put(topic, 0, b"poison huge", b'{"type":"ended.1","reason":"' + b"x" * HUGE)
    finally:
        await producer.stop()
    await asyncio.sleep(2.0)
    for process in [site.of(role)[0] for role in ("worker", "ingress", "sink")] if restart else ():
        await process.end(signal.SIGTERM)
        await process.ready()
    for role, code in site.exits - exits:
        if code != 0:
            site.blame("poison", role, f"has ended with {code} at a record that it could not read")


# What several of them do ----------------------------------------------------------------------------------------------


async def _waiting(site: Site) -> tuple[list[Asked], Supervised]:
    """Clients that wait for calls under way, and the worker that makes them."""
    waiting = site.ask(SLOW, 4, org=ORG) + site.ask(SLOW_STREAM, 4, org=ORG)
    await site.called(waiting)
    return waiting, await site.owner(ORG)


async def _answered(site: Site, waiting: list[Asked], timeout_s: float = ANSWER_S) -> None:
    if not await answered(waiting, timeout_s + SLOW_S):
        site.blame("answer", "clients", f"wait still, {timeout_s:g} s and the time of a call after their worker died")
    site.expect(waiting, "answer")
    if ["abandoned", "ok"] not in (await site.outcomes(waiting)).values():
        site.blame("fault", "worker", "died without a call that had to be made again")


async def _released(site: Site, owner: Supervised) -> None:
    """Return when the owner has handed over."""
    partition = partition_of(ORG.encode(), PARTITIONS)
    async with asyncio.timeout(ANSWER_S):
        while True:
            await site.tail.read()
            journal = [entry for entry in site.tail.topic("completions") if entry.partition == partition]
            taken = max(entry.offset for entry in journal if entry.kind == "owner_took")
            if any(entry.kind == "owner_released" and entry.event["epoch"] == taken for entry in journal):
                return
            if site.tail.owner(partition) != owner.name:
                return
            await asyncio.sleep(0.1)


async def _calls(site: Site) -> list[Asked]:
    """Calls under way, for every organisation."""
    asked = site.ask(SLOW, 6) + site.ask(SLOW_STREAM, 6)
    await site.called(asked)
    return asked


async def _went_on(site: Site, under_way: Sequence[Asked]) -> None:
    """Calls that were under way when the broker went are answered when it is back, and were made once."""
    if not await answered(under_way, ANSWER_S):
        site.blame("answer", "clients", f"wait still for calls under way, {ANSWER_S:g} s after the broker is back")
    site.expect(under_way, "answer")
    await _called_once(site, under_way)


async def _called_once(site: Site, asked: Sequence[Asked]) -> None:
    """No process was lost, so no call was either."""
    for request_id, outcomes in (await site.outcomes(asked)).items():
        if "abandoned" in outcomes:
            site.blame("second call", request_id, f"its attempts: {', '.join(outcomes)}")


async def _outage(site: Site, seconds: float) -> None:
    """No broker answers for so long: whoever asks is told to try again, and what waits takes no more than its room."""
    began = time.monotonic()
    before = {process.name: process.memory_bytes for process in site.processes.values()}
    await asyncio.sleep(NOTICED_S)
    asked: list[Asked] = []
    while time.monotonic() - began < seconds:
        asked += [each for ingress in site.of("ingress") for each in site.ask(QUICK, 10, url=ingress.url)]
        await asyncio.sleep(1.0)
    if not await answered(asked, TOLD_S):
        site.blame("outage", "clients", f"wait still, {TOLD_S:g} s after they asked")
    for each in asked:
        if each.ended_s and each.sent.status != TRY_AGAIN:
            site.blame("outage", f"request {each.sent.number}", f"without a broker: {each.failure() or 'answered'}")
    for process in site.processes.values():
        if (more := process.memory_bytes - before[process.name]) > ROOM_BYTES:
            site.blame("outage", process.name, f"has taken {more >> 20} MiB more")


async def _moved(site: Site, broker: str, processes: Iterable[Supervised]) -> None:
    """Have them start again, one after the other, at this address of the broker."""
    for process in list(processes):
        if process.runs:
            process.start(broker)
            await process.end(signal.SIGTERM)
            await process.ready()


FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        worker_killed,
        worker_killed_and_started_again,
        worker_killed_before_the_answer,
        owning_worker_frozen,
        runner_killed,
        rebalances,
        offsets_forgotten,
        ingress_killed,
        ingress_cut_off,
        sink_killed,
        everything_killed,
        rolling_restart,
        poison,
        broker_killed,
        broker_restarted,
        broker_paused,
        broker_down_at_start,
        acknowledgements_lost,
    )
}
