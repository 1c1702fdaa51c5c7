"""The fold of the data keys: what nobody can read stops nobody, and a tombstone deletes."""

from pathlib import Path

from tollgate.events import SealMade, encode
from tollgate.log.embedded import EmbeddedLog
from tollgate.seal_topic import TOPIC, TopicSeals
from tollgate.topics import load_topics

WRAPPED = b"a wrapped key"


async def test_records_that_nobody_can_read_are_passed_over(tmp_path: Path):
    log = await EmbeddedLog.open(tmp_path, load_topics())
    try:
        for key, value in (
            (None, b"x"),
            (b"\xff\xfe", b"\x00"),
            (b"\xff\xfe", None),
            (b"1.acme", encode(SealMade(seal_id="1.acme", wrapped=WRAPPED))),
            (b"2.acme", encode(SealMade(seal_id="2.acme", wrapped=WRAPPED))),
            (b"2.acme", None),
        ):
            await log.append(TOPIC, key, value)
        seals = TopicSeals(log)
        await seals.catch_up()
    finally:
        await log.close()
    assert (seals.load("1.acme"), seals.load("2.acme")) == (WRAPPED, None)
