"""The log of the simulation: the port in memory, with delays, lost acknowledgements, and what a crash leaves.

There is one `SimLog` for all processes, and a `ProcessLog` for each life of one. What a process appends is on its way
for a while, then it *lands* (durable, visible to readers), then the process is told. A crash keeps a prefix of what
was on its way: over all topics as the embedded log does it, which commits in one order, or topic by topic as Kafka
does; there it may even land after the successor has begun. Where the process is only halted, what was on its way goes
on or stays behind with it.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from tests.simulation.loop import Process, VirtualLoop
from tollgate.errors import AppendUnknown
from tollgate.log import Headers, Position, Record
from tollgate.log.clock import LogClock

PARTITION = 0  # one is enough: nothing is shared between partitions
STATE = "state"  # the rows of the checkpoint
REPLIES = "replies"
AWAITED = ("requests", "completions", REPLIES)  # somebody waits to read what is there, or until it is
BATCH_RECORDS = 20
SLOW_TOPICS = (None, "requests", "completions", "costs", "costs", REPLIES, STATE)
SLOWNESS = 30
MAX_LATENCY_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Latency:
    """How long an append takes. `slow` is the share of those that take up to a hundred times as long."""

    typical_s: float
    slow: float

    def draw(self, chance: Random, slowness: int = 1) -> float:
        factor = 100 if chance.random() < self.slow else 1
        return min(chance.random() * self.typical_s * factor * slowness, MAX_LATENCY_S)


class SimLog:
    """What is durable, by topic. `landed` is called for each record at the moment when it becomes so."""

    def __init__(self, loop: VirtualLoop, wall_ms: Callable[[], int], landed: Callable[[Record, str], None]) -> None:
        self._loop = loop
        self._wall_ms = wall_ms
        self._landed = landed
        self._topics: defaultdict[str, list[Record]] = defaultdict(list)
        self._followers: defaultdict[str, list[asyncio.Future[None]]] = defaultdict(list)

    @property
    def topics(self) -> list[str]:
        return list(self._topics)

    def records(self, topic: str) -> list[Record]:
        return self._topics[topic]

    def land(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers = (), *, by: str) -> Record:
        """Make a record durable; its time is never lower than before in the topic."""
        records = self._topics[topic]
        earliest = records[-1].timestamp_ms if records else 0
        record = Record(topic, PARTITION, len(records), max(earliest, self._wall_ms()), key, value, headers)
        records.append(record)
        self._landed(record, by)
        self.wake(topic)
        return record

    async def news(self, topic: str) -> None:
        """Return when the topic has grown, or somebody has called `wake`."""
        news: asyncio.Future[None] = self._loop.create_future()
        self._followers[topic].append(news)
        await news

    def wake(self, topic: str) -> None:
        """Let those who wait for the topic look again."""
        followers, self._followers[topic] = self._followers[topic], []
        for follower in followers:
            if not follower.done():
                follower.set_result(None)

    def rows(self) -> dict[str, bytes]:
        """What compaction leaves of the checkpoint: the last row of each key."""
        rows: dict[str, bytes] = {}
        for record in self._topics[STATE]:
            assert record.key is not None
            name = record.key.decode()
            if record.value is None:
                rows.pop(name, None)
            else:
                rows[name] = record.value
        return rows

    def lose_rows(self) -> None:
        """The checkpoint is gone as a whole."""
        self._topics[STATE].clear()


@dataclass
class _Append:
    since_s: float
    future: "asyncio.Future[Position]"
    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass
class _Lane:
    """Appends that keep their order: of one topic, or of all."""

    flying: deque[_Append] = field(default_factory=deque)
    landed: deque[tuple[_Append, Position]] = field(default_factory=deque)
    slowness: int = 1
    land_at_s: float = 0.0
    ack_at_s: float = 0.0
    halted: bool = False  # what is on its way has not left the process yet
    owed: int = 0  # how many records would have landed meanwhile


class ProcessLog:
    """The log as one process has it. Satisfies `tollgate.log.Log`."""

    def __init__(
        self,
        log: SimLog,
        process: Process,
        loop: VirtualLoop,
        chance: Random,
        *,
        one_order: bool,
        latency: Latency,
        landed: Callable[[str], None],
    ) -> None:
        self._log = log
        self._process = process
        self._loop = loop
        self._chance = chance
        self._one_order = one_order
        self._latency = latency
        self._landed = landed
        self._slow_topic = chance.choice(SLOW_TOPICS)  # where topics have an order each, one may lag behind
        self._lanes: dict[str, _Lane] = {}
        self._clocks: defaultdict[str, LogClock] = defaultdict(LogClock)
        self._broken: AppendUnknown | None = None
        self._breaks_next = False
        self.reply_mishaps = 0.0
        """The share of replies that never arrive; as many arrive twice."""
        self.others_keep_its_time = False
        """As on Kafka."""
        self.rows_are_lost = False
        """The checkpoint was lost after the death of this process: what it still had on its way to it is lost too."""
        process.at_death(self._die)

    def append(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        *,
        partition: int | None = None,
        headers: Headers = (),
        linger: bool = False,
        worth: str = "kept",
    ) -> "asyncio.Future[Position]":
        future: asyncio.Future[Position] = self._loop.create_future()
        assert not (linger and topic in AWAITED)
        if not self._process.alive:
            return future
        if self._broken is not None:
            future.set_exception(self._broken)
            return future
        lane = self._lane(topic)
        lane.flying.append(_Append(self._loop.time(), future, topic, key, value, headers))
        lane.land_at_s = max(lane.land_at_s, self._loop.time() + self._latency.draw(self._chance, lane.slowness))
        self._loop.call_at(lane.land_at_s, self._land, lane, context=self._loop.outside)
        if self._breaks_next:
            self._break()
        return future

    @property
    def flying(self) -> int:
        """How many records are on their way."""
        return sum(len(lane.flying) for lane in self._lanes.values())

    def hold_back(self, topic: str, seconds: float) -> None:
        """What is appended to the topic from now on stays on its way for so long at least."""
        self._lane(topic).land_at_s = self._loop.time() + seconds

    def hold_back_acks(self, topic: str, seconds: float) -> None:
        """What lands in the topic from now on is acknowledged so much later at least."""
        self._lane(topic).ack_at_s = self._loop.time() + seconds

    def halt(self) -> None:
        """The process is halted: of each topic, all that is on its way goes on, or nothing does."""
        for lane in self._lanes.values():
            lane.halted = self._chance.random() < 0.5

    def go_on(self) -> None:
        """The process goes on, and so does what stayed behind with it."""
        for lane in self._lanes.values():
            lane.halted = False
            for _ in range(lane.owed):
                self._land(lane)
            lane.owed = 0

    def break_at_next_append(self) -> None:
        """From the next append on nothing is acknowledged any more, whether it has landed or not."""
        self._breaks_next = True

    async def scan(
        self, topic: str, partition: int, start: int, end: int | None = None
    ) -> AsyncIterator[Sequence[Record]]:
        records = self._log.records(topic)
        end = len(records) if end is None else min(end, len(records))
        for at in range(start, end, BATCH_RECORDS):
            await asyncio.sleep(self._latency.draw(self._chance))
            yield records[at : min(at + BATCH_RECORDS, end)]

    async def follow(self, topic: str, offsets: Mapping[int, int]) -> AsyncIterator[Sequence[Record]]:
        position = offsets[PARTITION]
        while True:
            while len(self._log.records(topic)) <= position and self._broken is None:
                await self._log.news(topic)
            if self._broken is not None:
                raise self._broken
            await asyncio.sleep(self._latency.draw(self._chance))
            batch = self._log.records(topic)[position : position + BATCH_RECORDS]
            position += len(batch)
            yield batch

    async def starts(self, topic: str) -> dict[int, int]:
        return {PARTITION: 0}

    async def ends(self, topic: str) -> dict[int, int]:
        return {PARTITION: len(self._log.records(topic))}

    def partitions(self, topic: str) -> int:
        return 1

    def partition_for(self, topic: str, key: bytes) -> int:
        return PARTITION

    def earliest_ms(self, topic: str, partition: int) -> int | None:
        return self._clocks[topic].earliest_ms(self._loop.time()) if self.others_keep_its_time else None

    def _lane(self, topic: str) -> _Lane:
        name = "" if self._one_order else topic
        if name not in self._lanes:
            self._lanes[name] = _Lane(slowness=SLOWNESS if name == self._slow_topic else 1)
        return self._lanes[name]

    def _land(self, lane: _Lane) -> None:
        if lane.halted:
            lane.owed += 1
            return
        if not lane.flying:
            return
        append = lane.flying.popleft()
        if append.topic == STATE and self.rows_are_lost:
            return
        mishap = self._chance.random() if append.topic == REPLIES and self.reply_mishaps else 1.0
        if mishap < self.reply_mishaps:
            return
        if mishap < 2 * self.reply_mishaps:
            self._log.land(append.topic, append.key, append.value, append.headers, by=self._process.name)
        record = self._log.land(append.topic, append.key, append.value, append.headers, by=self._process.name)
        lane.landed.append((append, Position(PARTITION, record.offset, record.timestamp_ms)))
        lane.ack_at_s = max(lane.ack_at_s, self._loop.time() + self._latency.draw(self._chance))
        self._loop.call_at(lane.ack_at_s, self._acknowledge, lane, context=self._loop.outside)
        self._landed(append.topic)

    def _acknowledge(self, lane: _Lane) -> None:
        append, position = lane.landed.popleft()
        self._clocks[append.topic].heard(position.timestamp_ms, asked_s=append.since_s, now_s=self._loop.time())
        if self._broken is None and self._process.alive and not append.future.done():
            append.future.set_result(position)

    def _break(self) -> None:
        waiting = [append.future for lane in self._lanes.values() for append, _ in lane.landed]
        waiting += [append.future for lane in self._lanes.values() for append in lane.flying]
        self._cut()
        self._broken = AppendUnknown("the acknowledgement was lost")
        self._loop.outside_later(self._chance.random() / 10, self._fail, waiting, self._broken)

    def _fail(self, waiting: "list[asyncio.Future[Position]]", error: AppendUnknown) -> None:
        for future in waiting:
            if self._process.alive and not future.done():
                future.set_exception(error)
        for topic in self._log.topics:
            self._log.wake(topic)

    def _die(self) -> None:
        self._cut()

    def _cut(self) -> None:
        """Of what is on its way, a prefix lands: at once, or (Kafka) when its time comes. The rest is lost."""
        for lane in self._lanes.values():
            if lane.halted:  # it has never left
                lane.flying.clear()
                lane.halted, lane.owed = False, 0
            kept = self._chance.randint(0, len(lane.flying))
            while len(lane.flying) > kept:
                lane.flying.pop()
            if self._one_order or self._chance.random() < 0.5:
                while lane.flying:
                    self._land(lane)
