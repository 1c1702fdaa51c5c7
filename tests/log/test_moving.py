"""History moves from one log into another: every record at its offset, with its time; or nothing moves at all."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sinks.journals import NOON_MS, audit, ended, took
from tollgate.errors import ConfigError, LogLocked, LogUnavailable, UsageError
from tollgate.events import CancelRequested, KeySet, decode, encode
from tollgate.journal import JOURNAL, valid
from tollgate.log import Log, Record
from tollgate.log.archive import Manifest, open_archive
from tollgate.log.embedded import EmbeddedLog
from tollgate.log.import_embedded import import_embedded
from tollgate.log.import_kafka import gapless, import_kafka
from tollgate.log.kafka import IMPORT_TOPIC, KafkaLog
from tollgate.log.kafka_topics import apply_kafka, check_kafka
from tollgate.log.moving import FILLER_KEY, LEFT_OUT, Export, filler_of
from tollgate.topics import Topics, load_topics

TOPICS = load_topics()
MOVED = [topic.name for topic in TOPICS if topic.name not in LEFT_OUT]
DAY_MS = 86_400_000


def nothing(done: int, total: int) -> None:
    """Progress that nobody looks at."""


class Killed(Exception):
    """The process dies here."""


async def make_log(folder: Path) -> None:
    """A log in use for eight days: taken over twice, with requests that retention has cut, and keys set again."""
    now_ms = [NOON_MS]
    log = await EmbeddedLog.open(folder, TOPICS, clock_ms=lambda: now_ms[0])
    for partition in range(3):
        first = await log.append(JOURNAL, b"", encode(took()), partition=partition)
        for number in range(40):
            now_ms[0] += DAY_MS // 15
            cancelled = CancelRequested(request_id=f"r{number}", reason="x" * number)
            asked = await log.append("requests", b"acme", encode(cancelled), partition=partition)
            end = ended(f"r{number}", epoch=first.offset, src=asked.offset)
            await log.append(JOURNAL, b"acme", encode(end), partition=partition)
            await log.append("audit", b"acme", encode(audit(f"{number}")), partition=partition)
        second = await log.append(JOURNAL, b"", encode(took()), partition=partition)
        await log.append(JOURNAL, b"acme", encode(ended("zombie's", epoch=first.offset)), partition=partition)
        await log.append(JOURNAL, b"acme", encode(ended("last", epoch=second.offset)), partition=partition)
    for number in range(30):
        key = KeySet(key_id="k", hash="h", name=f"{number}", org_id="acme", version=number, src=number, command_id="c",
                     created_ms=1)  # fmt: skip
        await log.append("control", b"k", encode(key))
    await log.append("seals", b"gone", None)
    await log.append("dead-letters", None, b"\xff\n", headers=(("why", b"odd"),))
    await log.append("replies", b"", b"{}", partition=4)
    await log.maintain(now_ms[0] + 1000)
    await log.close()


async def everything(log: Log) -> dict[tuple[str, int], tuple[int, int, list[Record]]]:
    """Start, end and records of every partition that moves."""
    found = {}
    for topic in MOVED:
        starts, ends = await log.starts(topic), await log.ends(topic)
        for number in range(log.partitions(topic)):
            records = [record async for batch in log.scan(topic, number, starts[number]) for record in batch]
            records = [record for record in records if record.key != FILLER_KEY]
            found[topic, number] = (starts[number], ends[number], records)
    return found


async def of_embedded(folder: Path) -> dict[tuple[str, int], tuple[int, int, list[Record]]]:
    log = await EmbeddedLog.open_readonly(folder)
    try:
        return await everything(log)
    finally:
        await log.close()


async def export(log: Log, to: Path, **more: Any) -> Manifest:
    to.mkdir()
    return await Export(log, to, TOPICS, source="embedded", **more).run()


@pytest.fixture
async def archive(tmp_path: Path) -> Path:
    """The archive of a log, which lies beside it."""
    await make_log(tmp_path / "old")
    log = await EmbeddedLog.open_readonly(tmp_path / "old")
    await export(log, tmp_path / "archive")
    await log.close()
    return tmp_path / "archive"


async def into_embedded(place: Path, folder: Path, topics: Topics = TOPICS, **progress: Any) -> list[dict[str, Any]]:
    steps = {"checked": nothing, "written": nothing, "compared": nothing, **progress}
    with open_archive(place) as archive:
        return await import_embedded(archive, folder, topics, **steps)


async def test_an_embedded_log_becomes_another_with_the_same_offsets_and_times(archive: Path, tmp_path: Path) -> None:
    rows = await into_embedded(archive, tmp_path / "new")
    assert await of_embedded(tmp_path / "new") == await of_embedded(tmp_path / "old")
    assert all(row["archive"] == row["log"] for row in rows)
    [journal] = [row["log"] for row in rows if row["partition"] == "completions/0"]
    assert (journal["ends"], journal["cost_pusd"], journal["bill_pusd"]) == (41, "1230", "1230")
    found = await of_embedded(tmp_path / "new")
    assert found["requests", 0][0] > 0  # retention had cut it
    assert len(found["control", 0][2]) < 30  # compaction had


async def test_a_log_that_was_imported_is_written_on(archive: Path, tmp_path: Path) -> None:
    await into_embedded(archive, tmp_path / "new")
    before = await of_embedded(tmp_path / "new")
    log = await EmbeddedLog.open(tmp_path / "new", TOPICS)
    for topic in MOVED:
        position = await log.append(topic, b"k", b"{}", partition=0)
        start, end, records = before[topic, 0]
        assert position.offset == end >= start
        assert position.timestamp_ms >= max((record.timestamp_ms for record in records), default=0)
    await log.close()


async def test_decided_requests_may_stay_behind(tmp_path: Path) -> None:
    await make_log(tmp_path / "old")
    log = await EmbeddedLog.open(tmp_path / "old", TOPICS)
    waiting = await log.append("requests", b"acme", b'{"not":"decided"}', partition=1)
    await log.close()
    log = await EmbeddedLog.open_readonly(tmp_path / "old")
    await export(log, tmp_path / "archive", all_requests=False)
    await log.close()
    await into_embedded(tmp_path / "archive", tmp_path / "new")
    before, found = await of_embedded(tmp_path / "old"), await of_embedded(tmp_path / "new")
    assert found["requests", 1] == (waiting.offset, waiting.offset + 1, before["requests", 1][2][-1:])
    assert found["requests", 0] == (40, 40, [])
    assert found[JOURNAL, 1] == before[JOURNAL, 1]


async def test_a_log_that_is_not_empty_is_left_alone(archive: Path, tmp_path: Path) -> None:
    before = await of_embedded(tmp_path / "old")
    with pytest.raises(UsageError, match=r"is not empty: \S+ ends at \d+"):
        await into_embedded(archive, tmp_path / "old")
    assert await of_embedded(tmp_path / "old") == before


async def test_a_log_without_records_is_empty(archive: Path, tmp_path: Path) -> None:
    log = await EmbeddedLog.open(tmp_path / "new", TOPICS)
    await log.close()
    await into_embedded(archive, tmp_path / "new")
    assert await of_embedded(tmp_path / "new") == await of_embedded(tmp_path / "old")


async def test_a_log_in_use_is_refused(archive: Path, tmp_path: Path) -> None:
    log = await EmbeddedLog.open(tmp_path / "new", TOPICS)
    with pytest.raises(LogLocked):
        await into_embedded(archive, tmp_path / "new")
    await log.close()


async def test_other_partition_counts_are_refused(archive: Path, tmp_path: Path) -> None:
    audit = TOPICS["audit"]
    others = Topics(topics={**TOPICS.topics, "audit": type(audit)(name="audit", partitions=2, config=audit.config)})
    with pytest.raises(ConfigError, match="'audit' has 2 partitions, in the archive it has 6"):
        await into_embedded(archive, tmp_path / "new", others)


async def test_a_damaged_archive_changes_nothing(archive: Path, tmp_path: Path) -> None:
    path = archive / "completions-2.ndjson.zst"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ConfigError, match=r"completions-2\.ndjson\.zst is damaged"):
        await into_embedded(archive, tmp_path / "new")
    assert not (tmp_path / "new" / "log.db").exists()


async def test_a_disk_that_refuses_is_told_and_changes_nothing(archive: Path, tmp_path: Path) -> None:
    def full(done: int, total: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(ConfigError, match=r"new: the archive cannot be written there: .*No space left"):
        await into_embedded(archive, tmp_path / "new", written=full)
    assert not (tmp_path / "new" / "log.db").exists()


@pytest.mark.parametrize("step", ["checked", "written", "compared"])
async def test_killed_in_the_middle_there_is_no_log_and_the_next_import_is_whole(
    archive: Path, tmp_path: Path, step: str
) -> None:
    def kill(done: int, total: int) -> None:
        if done > total // 2:
            raise Killed

    with pytest.raises(Killed):
        await into_embedded(archive, tmp_path / "new", **{step: kill})
    assert not (tmp_path / "new" / "log.db").exists()
    await into_embedded(archive, tmp_path / "new")
    assert await of_embedded(tmp_path / "new") == await of_embedded(tmp_path / "old")


async def test_a_log_that_grows_is_not_exported(tmp_path: Path) -> None:
    log = await EmbeddedLog.open(tmp_path / "old", TOPICS)
    await log.append("audit", b"", b"{}", partition=0)

    def grow(done: int, total: int) -> None:
        if done == total:
            log.append("audit", b"", b"{}", partition=0)

    with pytest.raises(UsageError, match="'audit' grew while it was read: stop the gateway"):
        await export(log, tmp_path / "archive", progress=grow, settle_s=0.2)
    await log.close()
    assert not (tmp_path / "archive" / "tollgate-log.json").exists()


async def test_a_journal_that_retention_has_cut_is_not_exported(tmp_path: Path) -> None:
    await make_log(tmp_path / "old")
    log = await EmbeddedLog.open_readonly(tmp_path / "old")
    starts = log.starts

    async def cut(topic: str) -> dict[int, int]:
        return {**await starts(topic), **({1: 5} if topic == JOURNAL else {})}

    log.starts = cut  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match=r"completions/1, which begins at 5"):
        await export(log, tmp_path / "archive")
    await log.close()


@pytest.mark.parametrize("topic", MOVED)
def test_a_filler_says_nothing_to_any_reader(topic: str) -> None:
    value = filler_of(topic)
    if value is not None:
        event = decode(value)
        assert not any(valid(epoch, event) for epoch in range(-1, 5))
        assert topic in (JOURNAL, "requests", "costs")


def test_gaps_are_filled_from_any_offset_on() -> None:
    records = [Record("audit", 0, offset, 100 + offset, b"k", b"v") for offset in (3, 4, 7)]
    [part] = [a_part(end=10, records=3)]
    whole = list(gapless([records[:2], records[2:]], part, 0))
    assert [record.offset for record in whole] == list(range(10))
    assert [record for record in whole if record.key != FILLER_KEY] == records
    assert [record.timestamp_ms for record in whole] == [103, 103, 103, 103, 104, 104, 104, 107, 107, 107]
    for begin in range(11):
        assert list(gapless([records[:2], records[2:]], part, begin)) == whole[begin:]


def a_part(*, end: int, records: int) -> Any:
    from tollgate.log.archive import Part

    return Part(topic="audit", partition=0, file="", start=3, end=end, records=records, sha256="")


# Kafka ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster(start_broker) -> Iterator[str]:
    """A cluster of these tests' own: its topics are whole logs."""
    broker = start_broker()
    yield broker.address
    broker.stop()


@pytest.fixture
async def brokers(cluster: str) -> str:
    """The cluster, with new topics."""
    await clear(cluster)
    await apply_kafka(cluster, TOPICS)
    return cluster


async def clear(cluster: str) -> None:
    from aiokafka.admin import AIOKafkaAdminClient

    admin = AIOKafkaAdminClient(bootstrap_servers=cluster)
    await admin.start()
    names = [name for name in await admin.list_topics() if not name.startswith("__")]
    if names:
        await admin.delete_topics(names)
    while set(await admin.list_topics()) & set(names):
        await asyncio.sleep(0.05)
    await admin.close()


async def into_kafka(place: Path, brokers: str, **progress: Any) -> list[dict[str, Any]]:
    steps = {"checked": nothing, "written": nothing, "compared": nothing, **progress}
    with open_archive(place) as archive:
        return await import_kafka(archive, brokers, TOPICS, **steps)


async def of_kafka(brokers: str) -> dict[tuple[str, int], tuple[int, int, list[Record]]]:
    log = await KafkaLog.connect(brokers, TOPICS, client_id="test", read_only=True)
    try:
        return await everything(log)
    finally:
        await log.close()


@pytest.mark.kafka
async def test_embedded_to_kafka_and_back_is_the_same_log(archive: Path, tmp_path: Path, brokers: str) -> None:
    before = await of_embedded(tmp_path / "old")
    rows = await into_kafka(archive, brokers)
    assert all(row["archive"] == row["log"] for row in rows)
    assert await check_kafka(brokers, TOPICS) == []
    found = await of_kafka(brokers)
    assert {place: records for place, (_, _, records) in found.items()} == {
        place: records for place, (_, _, records) in before.items()
    }
    assert {place: end for place, (_, end, _) in found.items()} == {place: end for place, (_, end, _) in before.items()}
    assert found["requests", 0][0] == before["requests", 0][0] > 0
    log = await KafkaLog.connect(brokers, TOPICS, client_id="test")
    await export(log, tmp_path / "second")
    position = await log.append("requests", b"acme", b"{}", partition=0)
    assert position.offset == before["requests", 0][1]
    assert position.timestamp_ms > NOON_MS + 30 * DAY_MS  # the broker's own time again
    await log.close()
    await into_embedded(tmp_path / "second", tmp_path / "new")
    assert await of_embedded(tmp_path / "new") == before


@pytest.mark.kafka
async def test_an_import_into_kafka_that_was_killed_goes_on_and_nothing_starts_beside_it(
    archive: Path, tmp_path: Path, brokers: str
) -> None:
    before = await of_embedded(tmp_path / "old")
    for share in (0.1, 0.6):

        def kill(done: int, total: int, share: float = share) -> None:
            if done > total * share:
                raise Killed

        with pytest.raises(Killed):
            await into_kafka(archive, brokers, written=kill)
        with pytest.raises(ConfigError, match=f"an import into Kafka .* has not ended .*{IMPORT_TOPIC}"):
            await KafkaLog.connect(brokers, TOPICS, client_id="test")
    shutil.copytree(archive, tmp_path / "other")
    text = (tmp_path / "other" / "tollgate-log.json").read_text()
    (tmp_path / "other" / "tollgate-log.json").write_text(text.replace('"source": "embedded"', '"source": "other"'))
    with pytest.raises(UsageError, match="the import of another archive was begun here"):
        await into_kafka(tmp_path / "other", brokers)
    await into_kafka(archive, brokers)
    found = await of_kafka(brokers)
    assert {place: records for place, (_, _, records) in found.items()} == {
        place: records for place, (_, _, records) in before.items()
    }


@pytest.mark.kafka
async def test_topics_with_records_are_left_alone(archive: Path, brokers: str) -> None:
    log = await KafkaLog.connect(brokers, TOPICS, client_id="test")
    await log.append("control", b"k", b"{}")
    with pytest.raises(UsageError, match="the log is not empty: control/0 ends at 1"):
        await into_kafka(archive, brokers)
    assert (await log.ends(JOURNAL))[0] == 0
    await log.close()


@pytest.mark.kafka
async def test_without_a_broker_nothing_is_imported(archive: Path) -> None:
    with pytest.raises(LogUnavailable):
        await into_kafka(archive, "127.0.0.1:1")
