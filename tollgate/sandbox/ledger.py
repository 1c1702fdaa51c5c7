"""The provider's own books: a row per call, written before the first byte of the answer leaves.

Token counts are in disjoint classes, so that their sum is all that the provider would charge: `input_tokens` are the
uncached ones, `output_tokens` do not include `reasoning_tokens`. Output counts what was really handed to the server.
"""

import os
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import orjson

Outcome = Literal["ok", "error", "cut", "disconnected"]

MAX_ROWS = 10_000  # kept in memory only: then the row that finished first makes room
MAX_ROWS_ON_FILE = 1_000_000  # with a file nothing is forgotten: then calls are refused


class LedgerFull(Exception):
    """No row can be added, and none may be dropped."""


@dataclass(slots=True, kw_only=True)
class Call:
    """One call as the provider sees it.

    `call_id` is the caller's `x-request-id`. `status` is the HTTP status of the answer, None for a call that is never
    answered. `outcome` is None until the call is `finished`. `started_ms` is read from CLOCK_MONOTONIC, which all
    processes of a machine share; `disconnected_after_ms` counts from there to the moment the hang-up was noticed.
    """

    seq: int
    call_id: str | None
    dialect: str
    model: str
    stream: bool
    status: int | None
    max_tokens: int | None
    started_ms: float
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    finished: bool = False
    outcome: Outcome | None = None
    disconnected_after_ms: float | None = None


class Ledger:
    """Rows in memory and, with a path, on a file: a JSON line when a call starts and one when it ends.

    Lines are handed to the operating system at once and not synced: they survive the process, not the machine. Rows
    of an earlier life of the file are read back; a call that was under way then stays unfinished.
    """

    def __init__(self, path: Path | str | None = None, *, max_rows: int | None = None) -> None:
        """Raises `ValueError` naming the line when the file holds something else than a ledger."""
        self._max_rows = max_rows or (MAX_ROWS if path is None else MAX_ROWS_ON_FILE)
        self._open: dict[int, Call] = {}
        # In the order in which they finished. The first is dropped for each that is added, which a dict cannot do
        # without walking over all that it has dropped before.
        self._finished: OrderedDict[int, Call] = OrderedDict()
        self._last_seq = 0
        self._file: int | None = None
        if path is not None:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            self._restore(Path(path))

    def start(
        self,
        *,
        call_id: str | None,
        dialect: str,
        model: str,
        stream: bool,
        status: int | None,
        max_tokens: int | None,
    ) -> Call:
        """Add a row. The caller raises its token counts as it serves. Raises `LedgerFull`."""
        if len(self._open) + len(self._finished) >= self._max_rows:
            self._make_room()
        self._last_seq += 1
        call = Call(
            seq=self._last_seq,
            call_id=call_id,
            dialect=dialect,
            model=model,
            stream=stream,
            status=status,
            max_tokens=max_tokens,
            started_ms=time.monotonic() * 1000,
        )
        self._open[call.seq] = call
        self._write(call)
        return call

    def end(self, call: Call, outcome: Outcome) -> None:
        """Close a row; one that was cleared in the meantime stays forgotten."""
        if outcome == "disconnected":
            call.disconnected_after_ms = time.monotonic() * 1000 - call.started_ms
        call.finished = True
        call.outcome = outcome
        if self._open.pop(call.seq, None) is not None:
            self._finished[call.seq] = call
            self._write(call)

    def rows(self, *, after: int = 0) -> list[Call]:
        """The rows whose `seq` is greater, in its order. Those of unfinished calls still change."""
        rows: Iterable[Call] = chain(self._open.values(), self._finished.values())
        return sorted((call for call in rows if call.seq > after), key=lambda call: call.seq)

    def clear(self) -> None:
        """Forget all rows, on the file too. `seq` goes on counting."""
        self._open.clear()
        self._finished.clear()
        if self._file is not None:
            os.ftruncate(self._file, 0)

    def close(self) -> None:
        """Release the file. Nothing is written afterwards."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _make_room(self) -> None:
        if self._file is not None or not self._finished:
            raise LedgerFull(f"the ledger holds {self._max_rows} calls; clear it or start another")
        self._finished.popitem(last=False)

    def _write(self, call: Call) -> None:
        if self._file is not None:
            os.write(self._file, orjson.dumps(call, option=orjson.OPT_APPEND_NEWLINE))

    def _restore(self, path: Path) -> None:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    call = Call(**orjson.loads(line))
                except (TypeError, ValueError) as error:
                    raise ValueError(f"{path}: line {number} is not a row of a ledger") from error
                self._open.pop(call.seq, None)
                (self._finished if call.finished else self._open)[call.seq] = call
                self._last_seq = max(self._last_seq, call.seq)
