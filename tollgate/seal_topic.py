"""Data keys shared between processes: the compacted topic `seals`, folded by each of them.

They lie apart from the bodies, wrapped under the gateway's secret. A tombstone deletes one; until the topic is cleaned,
what lies there cannot be unwrapped without the secret.
"""

import asyncio
import logging
from collections.abc import Sequence

from tollgate.errors import LogError, Unreadable
from tollgate.events import SealMade, decode, encode
from tollgate.log import Log, Record

TOPIC = "seals"

log = logging.getLogger(__name__)


class TopicSeals:
    """A `SealStore` over the log. Holds the wrapped keys of all hours that may still be needed in memory."""

    def __init__(self, source: Log) -> None:
        self._log = source
        self._wrapped: dict[str, bytes] = {}
        self._offset = 0
        self._arrived = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def save(self, seal_id: str, wrapped: bytes) -> None:
        """See `SealStore.save`: called in a thread, it waits for the log. Raises `LogError`."""
        asyncio.run_coroutine_threadsafe(self._save(seal_id, wrapped), self._loop).result()

    async def _save(self, seal_id: str, wrapped: bytes) -> None:
        made = encode(SealMade(seal_id=seal_id, wrapped=wrapped))
        await self._log.append(TOPIC, seal_id.encode(), made, worth="new")
        self._wrapped[seal_id] = wrapped

    def load(self, seal_id: str) -> bytes | None:
        """See `SealStore.load`."""
        return self._wrapped.get(seal_id)

    def drop_before(self, hour: int) -> None:
        """See `SealStore.drop_before`. Tombstones of several processes for one key are as good as one."""
        for seal_id in [seal_id for seal_id in self._wrapped if int(seal_id.partition(".")[0]) < hour]:
            del self._wrapped[seal_id]
            try:
                dropped = asyncio.ensure_future(self._log.append(TOPIC, seal_id.encode(), None))
            except LogError as error:
                log.error("seal %s was not deleted; the next round tries again: %s", seal_id, error)
                return
            dropped.add_done_callback(lambda future: future.cancelled() or future.exception())

    async def wait_for(self, seal_id: str, *, timeout_s: float) -> bool:
        """Wait until the key is here; False when that took longer than `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                while seal_id not in self._wrapped:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            return False
        return True

    async def catch_up(self) -> None:
        """Fold what the topic holds as of now."""
        async for records in self._log.scan(TOPIC, 0, (await self._log.starts(TOPIC))[0]):
            self._fold(records)

    async def run(self) -> None:
        """Fold what is appended, for ever."""
        async for records in self._log.follow(TOPIC, {0: max(self._offset, (await self._log.starts(TOPIC))[0])}):
            self._fold(records)

    def _fold(self, records: Sequence[Record]) -> None:
        for record in records:
            self._apply(record)
        self._arrived.set()

    def _apply(self, record: Record) -> None:
        self._offset = max(self._offset, record.offset + 1)
        if record.key is None:
            return
        if record.value is None:
            self._wrapped.pop(record.key.decode(errors="replace"), None)
            return
        try:
            event = decode(record.value)
        except Unreadable as error:
            log.error("seals %d is unreadable: %s", record.offset, error)
            return
        if isinstance(event, SealMade):
            self._wrapped[event.seal_id] = event.wrapped
