"""Recorded exchanges with real providers, read in place where they are; without them the tests that want them skip.

`TOLLGATE_RECORDINGS` names a folder of files `<provider>.<api>.jsonl`, one exchange per line. Their bodies are other
people's conversations: no test prints one, a failure names ids only.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("TOLLGATE_RECORDINGS") or ROOT.parent / "shared" / "recordings")
MISSING = f"no recordings in {FOLDER}: TOLLGATE_RECORDINGS names another folder"

MAX_CUT_BYTES = 60_000  # of a stream that is fed byte by byte


class Recording(NamedTuple):
    """One exchange. `request` is None where only the answer was recorded."""

    id: str
    request: dict[str, Any] | None
    status: int
    headers: dict[str, str]
    body: bytes
    model: str
    edge: frozenset[str]

    @property
    def is_stream(self) -> bool:
        return self.body.lstrip().startswith((b"data:", b"event:", b":", b"["))  # an array is Google's other form


def exists() -> bool:
    return FOLDER.is_dir()


def recordings(name: str) -> Iterator[Recording]:
    """The exchanges of one file, `openai.chat` for example."""
    for line in (FOLDER / f"{name}.jsonl").read_bytes().splitlines():
        row = orjson.loads(line)
        request, body = row["request_body"], row["response_body"]
        if row["response_encoding"] == "utf8" and isinstance(body, str):
            yield Recording(
                id=row["id"],
                request=request if isinstance(request, dict) else None,
                status=row["status"],
                headers=row["response_headers"] or {},
                body=body.encode(),
                model=row.get("model") or "",
                edge=frozenset(row.get("edge") or ()),
            )


def usage_oracle() -> Iterator[dict[str, Any]]:
    """Blocks of usage (`body`), with what genai-prices extracts from each (`extracted`)."""
    for line in (FOLDER / "usage_oracle.genai-prices.jsonl").read_bytes().splitlines():
        yield orjson.loads(line)


class Table:
    """Counts what passed, per file and check; names what did not by its id and the kind of error, never its content."""

    def __init__(self, name: str, exceptions: dict[str, str]) -> None:
        self.name = name
        self._exceptions = exceptions
        self._passed: dict[str, int] = {}
        self._tried: dict[str, int] = {}
        self._excused: dict[str, int] = {}
        self.failures: list[str] = []

    def check(self, what: str, recording: Recording, run: Callable[[], object]) -> None:
        self._tried[what] = self._tried.get(what, 0) + 1
        try:
            run()
        except Exception as error:
            if recording.id in self._exceptions:
                self._excused[what] = self._excused.get(what, 0) + 1
            else:
                self.failures.append(f"{recording.id} {what}: {_kind(error)}")
        else:
            self._passed[what] = self._passed.get(what, 0) + 1

    def __str__(self) -> str:
        cells = [
            f"{what} {self._passed.get(what, 0)}/{tried}"
            + (f" (+{self._excused[what]} excused)" if what in self._excused else "")
            for what, tried in self._tried.items()
        ]
        return f"{self.name:32} {'  '.join(cells)}"


def _kind(error: Exception) -> str:
    """The type of an error, and where it was raised; its text may quote the conversation."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "?"
    locations = ""
    if hasattr(error, "errors"):
        locations = " " + ", ".join(sorted({".".join(map(str, one["loc"])) for one in error.errors()})[:3])
    return f"{type(error).__name__} at {where}{locations}"
