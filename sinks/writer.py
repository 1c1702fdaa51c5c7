"""Makes a batch durable: Parquet files under temporary names, their names, then one commit that counts them all.

Blocking; runs in a thread. A crash anywhere leaves files that no record names, which nobody reads and the sweep takes.
"""

import secrets
from collections.abc import Callable

from tollgate.failpoints import reached
from tollgate.sinks import disk, parquet
from tollgate.sinks.fold import Batch, Part
from tollgate.sinks.manifest import LIVE, Change, DataFile, Manifest

Failpoint = Callable[[str], None]
"""Called with the name of each step that is about to be taken or just was; tests stop there."""


def write(manifest: Manifest, batch: Batch, failpoint: Failpoint = reached) -> None:
    """Return when the batch is in the history, once and for ever.

    Raises `Fenced` when another writer has moved any of its cursors: then nothing of the batch is there.
    """
    failpoint("sink.before_write")
    files = tuple(_write_part(manifest, part, failpoint) for part in batch.parts)
    failpoint("sink.before_commit")
    manifest.commit(Change(add=files, cursors=batch.cursors), base=batch.base)
    failpoint("sink.after_commit")


def _write_part(manifest: Manifest, part: Part, failpoint: Failpoint) -> DataFile:
    temporary = manifest.temporary()
    parquet.write(part.rows, temporary)
    failpoint("sink.after_write")
    # The name is new: a fenced writer must never replace a file that a record names.
    path = f"{part.table}/{LIVE}/{part.day}-{secrets.token_hex(8)}.parquet"
    disk.publish(temporary, manifest.data / path)
    failpoint("sink.after_rename")
    return DataFile(path, part.table, part.day, part.rows.num_rows)
