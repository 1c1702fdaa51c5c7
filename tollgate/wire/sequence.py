"""Puts the parts of a streamed answer one after another, whatever order the provider mixes them in.

Clients get a part's beginning, its pieces and its end, never two parts of one choice at once. So a call's fragments
wait until its id and name are known, and a part that begins while a call's arguments are not whole waits for them.
Pure.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec
import orjson

from tollgate.wire.content import Delta, Family, Kind
from tollgate.wire.failures import unreadable

MAX_WAITING_BYTES = 8 << 20


class Streamed(msgspec.Struct, kw_only=True, gc=False):
    """A part as a writer sees it: the same object from its beginning to its end.

    `index` counts the parts of its choice, `call` the calls among them. A call has its `id` and `name` from the start;
    a thought that is `redacted` has no text.
    """

    kind: Kind
    choice: int
    index: int
    call: int = -1
    id: str = ""
    name: str = ""
    signature: str | None = None  # of a call; a thought's comes with its last piece
    redacted: str | None = None
    origin: Family | None = None


class PartWriter(Protocol):
    """Each method returns the client's bytes, which may be none."""

    def open(self, part: Streamed) -> bytes:
        """A part begins. None of its text is in `part`."""
        ...

    def more(self, part: Streamed, delta: Delta) -> bytes:
        """Text, signature, citations or logprobs of the open part, as in `delta`."""
        ...

    def close(self, part: Streamed) -> bytes: ...


class Sequencer:
    """The order of one answer, over all its choices."""

    def __init__(self, writer: PartWriter, request_id: str) -> None:
        self._writer = writer
        self._request_id = request_id
        self._lanes: dict[int, _Lane] = {}
        self._calls_made = 0

    def add(self, delta: Delta) -> bytes:
        lane = self._lanes.get(delta.choice)
        if lane is None:
            lane = self._lanes[delta.choice] = _Lane(self._writer, self._new_id)
        return lane.add(delta)

    def end(self) -> bytes:
        """The answer is over: ends what is open, and lets out what waits."""
        return b"".join(lane.end() for lane in self._lanes.values())

    def has_called(self, choice: int) -> bool:
        return choice in self._lanes and self._lanes[choice].calls > 0

    def _new_id(self) -> str:
        self._calls_made += 1
        return new_call_id(self._request_id, self._calls_made)


def new_call_id(request_id: str, number: int) -> str:
    """An id for a call that its provider gave none: the same each time, unlike that of any other request."""
    return f"call_{request_id.replace('-', '')}_{number}"


class _Lane:
    """The parts of one choice."""

    def __init__(self, writer: PartWriter, new_id: Callable[[], str]) -> None:
        self._writer = writer
        self._new_id = new_id
        self._part: Streamed | None = None
        self._key = 0  # of the part that is open
        self._shown = False  # has the writer been told of it?
        self._arguments = ""  # of the call that is open
        self._held: list[Delta] = []  # of the call that is open, until it is shown
        self._waiting: list[Delta] = []  # of other parts
        self._waiting_bytes = 0
        self._done: set[int] = set()  # keys of calls that are closed
        self._parts = 0
        self.calls = 0

    def add(self, delta: Delta) -> bytes:
        part = self._part
        if part is not None and part.kind == delta.kind and self._key == delta.key:
            out = self._more(part, delta)
            if self._waiting and self._part is not None and self._is_whole():
                out += self._close()
            return out + self._release() if self._waiting and self._part is None else out
        if part is not None and not self._is_whole():
            return self._wait(delta)
        out = self._close() if part is not None else b""
        return out + self._open(delta)

    def end(self) -> bytes:
        out: list[bytes] = []
        while self._part is not None or self._waiting:
            if self._part is not None:
                out.append(self._close())
            out.append(self._release())
        return b"".join(out)

    def _open(self, delta: Delta) -> bytes:
        if delta.kind == "tool_call" and delta.key in self._done:
            if delta.text.strip():
                raise unreadable("a tool call went on after its end")
            return b""
        if delta.last and not (delta.text or delta.name or delta.redacted or delta.signature):
            return b""  # the end of a part that never began
        self._key = delta.key
        self._shown = False
        self._arguments = ""
        part = Streamed(
            kind=delta.kind,
            choice=delta.choice,
            index=self._parts,
            redacted=delta.redacted,
            origin=delta.origin,
        )
        self._parts += 1
        if part.kind == "tool_call":
            part.call = self.calls
            self.calls += 1
        self._part = part
        return self._more(part, delta)

    def _more(self, part: Streamed, delta: Delta) -> bytes:
        if part.kind != "tool_call":
            out = b""
            if not self._shown:
                self._shown = True
                out = self._writer.open(part)
            if delta.text or delta.signature or delta.citations or delta.logprobs:
                out += self._writer.more(part, delta)
            return out + self._close() if delta.last else out
        part.id = part.id or delta.id
        part.name = part.name or delta.name
        if delta.signature is not None:
            part.signature, part.origin = delta.signature, delta.origin
        self._arguments += delta.text
        if self._shown:
            out = self._writer.more(part, delta) if delta.text else b""
        else:
            self._held.append(delta)
            out = self._show(part) if part.id and part.name else b""
        return out + self._close() if delta.last else out

    def _show(self, part: Streamed) -> bytes:
        self._shown = True
        held, self._held = self._held, []
        return self._writer.open(part) + b"".join(self._writer.more(part, delta) for delta in held if delta.text)

    def _close(self) -> bytes:
        part = self._part
        assert part is not None
        out = b""
        if part.kind == "tool_call":
            self._done.add(self._key)
            if not self._shown:
                if not part.name:
                    raise unreadable("a tool call has no name")
                part.id = part.id or self._new_id()
                out = self._show(part)
            if not self._arguments:
                out += self._writer.more(part, Delta(kind="tool_call", text="{}"))
        self._part = None
        return out + self._writer.close(part)

    def _is_whole(self) -> bool:
        """May another part begin? Text ends where something else begins, JSON where it is an object."""
        if self._part is None or self._part.kind != "tool_call":
            return True
        try:
            return self._shown and isinstance(orjson.loads(self._arguments), dict)
        except orjson.JSONDecodeError:
            return False

    def _wait(self, delta: Delta) -> bytes:
        self._waiting.append(delta)
        self._waiting_bytes += len(delta.text)
        if self._waiting_bytes > MAX_WAITING_BYTES:
            raise unreadable(f"more than {MAX_WAITING_BYTES} bytes behind a tool call that does not end")
        return b""

    def _release(self) -> bytes:
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        return b"".join(self.add(delta) for delta in waiting)
