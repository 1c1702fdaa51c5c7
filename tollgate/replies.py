"""How an answer travels from the worker that makes it to the ingress that holds the client.

The port, and the adapter for one process. Replies of one request keep their order; what cannot be delivered is
counted and dropped, because the journal, not the reply, is the record of what happened.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Literal, Protocol

import msgspec

from tollgate.errors import Refusal

MAX_UNREAD_BYTES = 1 << 20  # a client this far behind is cancelled
ROOM_BYTES = MAX_UNREAD_BYTES // 2  # who sends much waits until no more than this is unread


# Why a reply was dropped: its owner had been replaced (or it came twice); one before it never came, or it could not be
# written or opened; nobody waits for it any more.
Dropped = Literal["stale", "lost", "unclaimed"]


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of an answer. The first carries status and headers; the one with `last` is the end.

    A last one that is not the first and carries a status says that the answer broke off, in a form that has no words
    for it: nothing but the end of the connection can tell its client.

    `seq` counts from 0 within (request, epoch). `upstream_us` is how long the provider has been waited for
    so far; what the client waited beyond it is the gateway's own.
    """

    request_id: str
    epoch: int
    attempt: int
    seq: int
    org_id: str = "default"
    seal: str = ""  # under which the body is sealed where it leaves the process; empty: nobody's content is in it
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    last: bool = False
    upstream_us: int = 0


class Mailbox(Protocol):
    """The worker's side: hand a reply to whoever waits for it."""

    def send(self, address: str, reply: Reply) -> None:
        """Never blocks. A reply nobody waits for is dropped."""
        ...

    async def room(self, address: str, request_id: str, sent_bytes: int) -> None:
        """Return when the client can be sent more without falling behind; `sent_bytes` were since the last call."""
        ...

    async def arrived(self, address: str | None = None) -> None:
        """Return when what was sent to the address so far, or to all, cannot be lost with us, nor overtaken."""
        ...

    def is_waiting(self, address: str, request_id: str) -> bool | None:
        """Does this process hold the waiting client? None: it cannot be known here (another process)."""
        ...

    def probe(self, address: str, request_id: str, *, org_id: str, epoch: int) -> bool | None:
        """Does the client still wait, with nothing delivered? From now on, replies of older epochs are dropped.

        None: its ingress was asked, and answers with `ProbeAnswered`. A client that was given a part of an answer
        already is told that the rest will not come. The probe of an owner that was itself replaced changes nothing.
        """
        ...


def follows(reply: Reply, *, epoch: int, seq: int) -> Literal["next", "stale", "lost"]:
    """What a reply is to a client that has taken everything before `seq` of `epoch`. Pure.

    The highest epoch wins: an owner that took over either goes on where the last one stopped, or begins anew if nothing
    was delivered. `lost` is a gap: the client must be told, for it would never notice.
    """
    if reply.epoch < epoch or (reply.epoch == epoch and reply.seq < seq):
        return "stale"
    return "next" if reply.seq == seq else "lost"


def gateway_stopping() -> Refusal:
    """What a client is told that still waits when a stopping gateway's time is over."""
    message = "The gateway is stopping and could not wait for the end of this answer. Try again."
    return Refusal(503, "gateway_stopping", message, type="api_error", headers={"retry-after": "1"})


class Waiter:
    """One client's replies, in order. `get` waits; `behind` says that the client reads too slowly.

    `on_behind` is called for each reply that comes while `behind`: a client that does not read cannot notice itself.
    """

    def __init__(self, on_behind: Callable[[], None] | None = None) -> None:
        self._replies: deque[Reply] = deque()
        self._ready: asyncio.Future[None] | None = None
        self._room: asyncio.Event | None = None  # while there is none
        self.on_behind = on_behind
        self._given_up: Exception | None = None
        self.epoch = -1  # of the newest reply
        self.taken = 0  # replies so far: the `seq` of the next
        self.complete = False  # the last one is among them
        self.unread_bytes = 0

    @property
    def behind(self) -> bool:
        return self.unread_bytes > MAX_UNREAD_BYTES

    def put(self, reply: Reply) -> None:
        self.epoch, self.taken, self.complete = reply.epoch, reply.seq + 1, reply.last
        self._replies.append(reply)
        self.unread_bytes += len(reply.body)
        if self.unread_bytes > ROOM_BYTES and self._room is None:
            self._room = asyncio.Event()
        if self.behind and self.on_behind is not None:
            self.on_behind()
        self._wake()

    def give_up(self, why: Exception) -> None:
        """From now on `get` raises `why`, for whoever waits in it too, whatever has arrived. The first one stays."""
        if self._given_up is None:
            self._given_up = why
            self._make_room()
            self._wake()

    async def get(self) -> Reply:
        """The next reply. Raises what `give_up` was told."""
        while not self._replies and self._given_up is None:
            self._ready = asyncio.get_running_loop().create_future()
            try:
                await self._ready
            finally:
                self._ready = None
        if self._given_up is not None:
            raise self._given_up
        reply = self._replies.popleft()
        self.unread_bytes -= len(reply.body)
        if self.unread_bytes <= ROOM_BYTES:
            self._make_room()
        return reply

    async def room(self) -> None:
        """Return when no more than `ROOM_BYTES` are unread, or nobody reads any more."""
        if self._room is not None:
            await self._room.wait()

    def leave(self) -> None:
        """Nobody reads any more."""
        self.on_behind = None  # it refers to whoever waited: a cycle that only the collector would find
        self._make_room()

    def _make_room(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None

    def _wake(self) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)


class LocalReplies:
    """Replies inside one process: a queue per request. `address` names this life of the process."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._waiters: dict[str, Waiter] = {}
        self.dropped: dict[Dropped, int] = {"stale": 0, "lost": 0, "unclaimed": 0}
        """Replies that reached nobody, by why, since the start."""

    def open(self, request_id: str, on_behind: Callable[[], None] | None = None) -> Waiter:
        """Begin to wait. Call before the request is appended, so that no reply can come too early."""
        waiter = self._waiters[request_id] = Waiter(on_behind)
        return waiter

    def close(self, request_id: str) -> None:
        """Wait no longer; what comes later is dropped."""
        waiter = self._waiters.pop(request_id, None)
        if waiter is not None:
            waiter.leave()

    def send(self, address: str, reply: Reply) -> None:
        waiter = self._waiters.get(reply.request_id)
        if waiter is None or address != self.address or waiter.complete:
            self.dropped["unclaimed"] += 1
            return
        match follows(reply, epoch=waiter.epoch, seq=waiter.taken):
            case "next":
                waiter.put(reply)
            case "stale":
                self.dropped["stale"] += 1
            case "lost":
                self.dropped["lost"] += 1
                waiter.give_up(Refusal(502, "answer_lost", "The answer was lost, or a part of it.", type="api_error"))

    def give_up(self, why: Exception) -> None:
        """Have everybody who waits for a reply get `why` instead."""
        for waiter in self._waiters.values():
            if not waiter.complete:
                waiter.give_up(why)

    @property
    def waiting(self) -> int:
        """Requests whose last reply has not come."""
        return sum(not waiter.complete for waiter in self._waiters.values())

    def waiter(self, request_id: str) -> Waiter | None:
        """Whoever waits for the request in this process."""
        return self._waiters.get(request_id)

    async def room(self, address: str, request_id: str, sent_bytes: int) -> None:
        waiter = self._waiters.get(request_id)
        if waiter is not None and address == self.address:
            await waiter.room()

    async def arrived(self, address: str | None = None) -> None:
        """At once: nothing is on its way inside a process."""

    def is_waiting(self, address: str, request_id: str) -> bool | None:
        return address == self.address and request_id in self._waiters

    def probe(self, address: str, request_id: str, *, org_id: str, epoch: int) -> bool | None:
        waiter = self._waiters.get(request_id)
        if waiter is None or address != self.address or waiter.complete or epoch < waiter.epoch:
            return False
        if waiter.taken and epoch > waiter.epoch:
            waiter.give_up(
                Refusal(
                    502, "answer_interrupted", "The process that made the answer ended within it.", type="api_error"
                )
            )
        waiter.epoch = epoch
        return not waiter.taken
