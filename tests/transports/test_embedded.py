"""Faust over the embedded log: what it sees of records that are not durable yet."""

from pathlib import Path
from typing import Any

import pytest
from faust.types import TP

from tests.transports.support import Place, Processor
from tollgate.log import embedded


async def test_an_event_is_delivered_before_it_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "LINGER_S", 3600)
    place = Place(tmp_path, None)
    async with place.log() as log, Processor(place, log, start=lambda partition: 0) as processor:
        accepted: Any = log.append(place.requests, None, b"e", partition=0)
        await processor.until(lambda so_far: so_far.offsets(0) == [0])
        assert not accepted.done()

        await log.append(place.changelog, b"k", b"what came of it", partition=0)
        assert accepted.done()


async def test_no_offset_is_committed_beyond_what_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "LINGER_S", 3600)
    place = Place(tmp_path, None)
    async with place.log() as log, Processor(place, log, start=lambda partition: 0) as processor:
        log.append(place.requests, None, b"e", partition=0)
        await processor.until(lambda so_far: so_far.offsets(0) == [0])

        consumer: Any = processor.app.consumer
        await consumer._commit({TP(place.requests, 0): 1})
        assert await place.committed(0) == 0
