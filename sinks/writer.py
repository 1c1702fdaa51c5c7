"""Makes a batch durable: Parquet files under temporary names, their names, then one commit that counts them all.

Blocking; runs in a thread. A crash anywhere leaves files that no record names, which nobody reads and the sweep takes.
"""

import secrets
from collections.abc import Callable, Collection

from tollgate.failpoints import reached
from tollgate.sinks import disk, parquet
from tollgate.sinks.fold import Batch, Part
from tollgate.sinks.manifest import LIVE, Change, DataFile, Manifest

CLOSE_ROWS = 5_000  # of a closed day, from which a file of their own is worth it

Failpoint = Callable[[str], None]
"""Called with the name of each step that is about to be taken or just was; tests stop there."""


def write(
    manifest: Manifest, batch: Batch, failpoint: Failpoint = reached, *, closed: Collection[str] = frozenset()
) -> None:
    """Return when the batch is in the history, once and for ever.

    The rows of days that are `closed` are put in order, and into a file that stays, unless they are so few that they
    are better joined with others. Who closes days alone knows the folder: after a crash such a file may lie there
    without being counted. Raises `Fenced` when another writer has moved any of the batch's cursors: then nothing of
    the batch is there.
    """
    failpoint("sink.before_write")
    files = tuple(_write_part(manifest, part, failpoint, closed=part.day in closed) for part in batch.parts)
    failpoint("sink.before_commit")
    manifest.commit(Change(add=files, cursors=batch.cursors), base=batch.base)
    failpoint("sink.after_commit")


def _write_part(manifest: Manifest, part: Part, failpoint: Failpoint, *, closed: bool) -> DataFile:
    closed = closed and part.rows.num_rows >= CLOSE_ROWS
    temporary = manifest.temporary()
    parquet.write(parquet.in_order(part.table, part.rows) if closed else part.rows, temporary)
    failpoint("sink.after_write")
    # The name is new: a fenced writer must never replace a file that a record names.
    token = secrets.token_hex(8)
    path = f"{part.table}/dt={part.day}/part-{token}.parquet"
    if not closed:
        path = f"{part.table}/{LIVE}/{part.day}-{token}.parquet"
    disk.publish(temporary, manifest.data / path)
    failpoint("sink.after_rename")
    return DataFile(path, part.table, part.day, part.rows.num_rows)
