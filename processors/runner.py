"""The calls of one partition: they start when the journal allows it, are booked when they are over, and outlive the
ownership of the partition, which is handed over with them.

Knows nothing of decisions: whoever decides, the owner, is built on it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial
from traceback import format_tb

from tollgate.errors import LogError, ProviderError, Refusal, TollgateError, Unreadable
from tollgate.events import (
    Attempt,
    AttemptStarted,
    CallReported,
    CancelRequested,
    Ended,
    OwnerBeat,
    OwnerReleased,
    Request,
    RunnerBeat,
    Running,
    decode,
)
from tollgate.failpoints import reached
from tollgate.log import Position
from tollgate.processors.call import Call, Ending, Job
from tollgate.processors.handover import lost_attempt, report_of
from tollgate.processors.journal import Writer, succeeded
from tollgate.processors.ledger import OpenRequest
from tollgate.processors.succession import RUNNER_BEAT_S
from tollgate.processors.world import World
from tollgate.replies import Reply
from tollgate.wire.exchange import WIRES

log = logging.getLogger(__name__)

CERTAIN_FOR_S = 1.0  # from the sending of a record that has landed; after this, a call waits for another
INGRESS_PATIENCE_S = 10.0

_ABANDONED = Refusal(502, "abandoned", "The process that made the answer ended before it.", type="api_error")

# How the event begins on the log: of all others, bodies of many megabytes among them, nothing more is looked at.
_CANCELLATION = b'{"type":"cancel_requested.'


class Runner(Writer):
    """The writer of one partition, as far as it runs calls and books them."""

    def __init__(self, partition: int, world: World) -> None:
        super().__init__(partition, world)
        self._received = -1  # the newest event of `requests` that was taken
        self._calls: dict[str, Call] = {}
        self._given_up: dict[str, str] = {}  # open requests that were cancelled while no call of them ran here: why
        self._tasks: set[asyncio.Task[None]] = set()
        self._hearing_s: Callable[[], float] = world.answering_s or world.clock_s
        self._silent: dict[str, float] = {}  # ingress → when it was last heard of, where it is another process
        self._resuming: set[asyncio.Task[None]] = set()  # calls in the making
        self._released: asyncio.Future[Position] | None = None  # done when the hand-over is durable

    def _has_started(self) -> None:
        """A call has begun: for whoever bounds how many there are."""

    def _has_finished(self) -> None:
        """A call is over."""

    def _stop_deciding(self) -> None:
        """The partition is given up: from now on nothing is decided here."""
        self._closed = True

    # Calls, from their start to their end -----------------------------------------------------------------------------

    def _start_call(self, job: Job) -> None:
        request = job.request.admitted.request
        call = Call(
            job,
            books=self,
            replies=self._world.replies,
            count_tokens=self._world.count_tokens,
            now_ms=self._world.now_ms,
        )
        self._calls[request.request_id] = call
        self._has_started()
        task = call.start()
        self._tasks.add(task)
        task.add_done_callback(partial(self._finished, request.request_id))
        self._heard(request.reply_to)
        given_up = self._given_up.pop(request.request_id, "")
        if given_up or self._world.replies.is_waiting(request.reply_to, request.request_id) is False:
            call.cancel(given_up or "the client hung up")

    def _finished(self, request_id: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._calls.pop(request_id, None)
        self._has_finished()
        if not task.cancelled() and (error := task.exception()) is not None:
            trace = "".join(format_tb(error.__traceback__))
            self._world.fatal(f"a call ended without its end: {type(error).__name__}\n{trace}")

    @property
    def calls(self) -> int:
        return len(self._calls)

    def interrupt(self, reason: str) -> None:
        """End the calls under way; their clients are told."""
        for call in list(self._calls.values()):
            call.interrupt(reason)

    async def drained(self, patience_s: float, reason: str) -> None:
        """Return when no call runs here any more; those that take longer than `patience_s` are cancelled."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience_s)
        for call in list(self._calls.values()):
            call.interrupt(reason)
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self, reason: str) -> None:
        """Decide nothing more, end what is under way, and return when its ends are durable."""
        self._stop_deciding()
        with contextlib.suppress(TollgateError):
            await self._landed_so_far()  # what was admitted last is a call by now, which can be cancelled
        for call in list(self._calls.values()):
            call.interrupt(reason)
        if self._tasks:
            await asyncio.wait(self._tasks)
        with contextlib.suppress(TollgateError):
            await self._landed_so_far()

    def _cancel(self, event: CancelRequested) -> None:
        """Stop the request's call. Where none runs here now, none goes on that is begun later.

        A call that was handed over is stopped by its runner, which listens for itself.
        """
        call = self._calls.get(event.request_id)
        if call is not None:
            call.cancel(event.reason)
        elif self._may_begin_later(event.request_id):
            self._given_up[event.request_id] = event.reason

    def _may_begin_later(self, request_id: str) -> bool:
        return request_id in self.ledger.open

    def _heard(self, address: str) -> None:
        """An ingress lives, or has just sent a request."""
        if self._world.shared and address != self._world.address:
            self._silent[address] = self._hearing_s()

    def cancel_for_the_silent(self) -> None:
        """Cancel the calls whose ingress has not been heard of for long: their clients are gone with it."""
        now_s = self._hearing_s()
        silent = {address for address, heard_s in self._silent.items() if now_s - heard_s > INGRESS_PATIENCE_S}
        for address in silent:
            del self._silent[address]
        for call in list(self._calls.values()) if silent else ():
            if call.reply_to in silent:
                call.cancel("the ingress that held the client is gone")

    # The books: what calls ask for ------------------------------------------------------------------------------------

    async def may_call(self) -> None:
        """Return when this process certainly owned the partition less than a second ago, or handed the call over then.

        Certain is when a record was sent that has landed where it should, not when that was heard: after a halt of the
        process an acknowledgement is as old as the halt, and somebody else may own the partition. Then the beat
        does not land where it should. Raises `ProviderError` when a call that was handed over may be given up already.
        """
        if not self._world.shared:
            return
        if self._world.settled is not None:
            await self._world.settled()
        while not self._is_certain():
            if self._released is not None and self._released.done():
                raise ProviderError("connection", "the process was halted before the call could be made")
            await asyncio.shield(self._released or self._append(OwnerBeat(epoch=self.ledger.epoch)))

    def _is_certain(self) -> bool:
        """Does the newest record that has landed, or that of the hand-over, say so?"""
        landed = self._released is None or self._released.done()
        return landed and self._world.clock_s() - self._certain_s <= CERTAIN_FOR_S

    async def start_attempt(
        self, request: OpenRequest, attempt: int, choice: int, attempts: tuple[Attempt, ...]
    ) -> bool:
        if self._released is not None:
            facts = request.admitted.request
            due = CallReported(
                request_id=facts.request_id,
                org_id=facts.org_id,
                runner=self._world.address,
                attempts=attempts,
                attempt=request.attempt,
                choice=choice,
            )
            await self._send("requests", None, due)
            return False
        await asyncio.shield(self._append(self._attempt_started(request, attempt, choice, attempts[-1])))
        return True

    def _attempt_started(self, request: OpenRequest, attempt: int, choice: int, previous: Attempt) -> AttemptStarted:
        facts = request.admitted.request
        return AttemptStarted(
            epoch=self.ledger.epoch,
            request_id=facts.request_id,
            org_id=facts.org_id,
            attempt=attempt,
            previous=previous,
            choice=choice,
        )

    async def end(self, request: OpenRequest, ending: Ending, last: Reply) -> bool:
        if self._released is not None:
            report = report_of(request, ending, last, runner=self._world.address, sealer=self._world.sealer)
            # The new owner sends the last bytes when it has read this: they must not overtake those before them.
            await self._world.replies.arrived(request.admitted.request.reply_to)
            await self._send("requests", None, report)
            return False
        appended = self._append_end(request, ending)
        reached("end.appended")
        await appended
        reached("end.durable")
        return True

    def _append_end(self, request: OpenRequest, ending: Ending) -> asyncio.Future[Position]:
        admitted = request.admitted
        self._given_up.pop(admitted.request.request_id, None)
        lines = [line for attempt in ending.attempts for line in attempt.lines]
        return self._append(
            Ended(
                epoch=self.ledger.epoch,
                request=admitted.request,
                status=ending.status,
                http_status=ending.http_status,
                period=admitted.period,
                subjects=admitted.subjects,
                error=ending.error,
                reason=ending.reason,
                attempts=ending.attempts,
                price_version=admitted.price_version,
                hold_pusd=admitted.hold_pusd,
                cost_pusd=sum(line.cost_pusd for line in lines),
                bill_pusd=sum(line.bill_pusd for line in lines),
                latency_ms=max(0, self._world.now_ms() - admitted.request.accepted_ms),
                ttft_ms=ending.ttft_ms,
                overhead_us=ending.overhead_us,
            )
        )

    # Ends without an answer -------------------------------------------------------------------------------------------

    def open_request(self, request_id: str) -> OpenRequest | None:
        return self.ledger.open.get(request_id)

    def abandon(self, request: OpenRequest) -> None:
        """End a request whose call was lost with its process, at the most that it can have cost."""
        self._abandon(request, (*request.previous, lost_attempt(request)))

    def _abandon(self, request: OpenRequest, attempts: tuple[Attempt, ...]) -> None:
        ended = self._append_end(
            request,
            Ending(
                status="abandoned",
                http_status=502,
                attempts=attempts,
                error="abandoned",
                reason="the gateway was restarted in the middle of the request",
            ),
        )
        if self._world.shared:  # its ingress may not have answered in time, and still hold the client
            ended.add_done_callback(partial(self._abandoned, request.admitted.request))

    def _abandoned(self, request: Request, future: asyncio.Future[Position]) -> None:
        if succeeded(future):
            self._tell(request, _ABANDONED)

    def _tell(self, request: Request, refusal: Refusal) -> None:
        """Tell the client of a request that has ended that it gets no answer. One that has its answer hears nothing."""
        self._world.replies.send(request.reply_to, self._refusal_reply(request, refusal))

    def _refusal_reply(
        self, request: Request, refusal: Refusal, *, seal: str = "", headers: tuple[tuple[str, str], ...] = ()
    ) -> Reply:
        """An error as the whole answer, in the client's dialect."""
        return Reply(
            request_id=request.request_id,
            org_id=request.org_id,
            seal=seal,
            epoch=self.ledger.epoch,
            attempt=0,
            seq=0,
            status=refusal.status,
            headers=(("content-type", "application/json"), *(headers or tuple(refusal.headers.items()))),
            body=WIRES[request.dialect].error_body(refusal, request.request_id),
            last=True,
        )

    # Hand-over --------------------------------------------------------------------------------------------------------

    async def release(self) -> None:
        """Hand over: decide nothing more, say which calls run on here, and let them run.

        Their outcomes go to `requests` as events, for the next owner to book. Whoever was replaced long ago has nothing
        to hand over: the gap before this record ends the process.
        """
        self._stop_deciding()
        if self._resuming:  # they become calls first, or else nobody would know of them
            await asyncio.wait(self._resuming)
        while True:
            last = self._last
            await self._landed_so_far()
            await self._world.replies.arrived()  # the next owner takes for granted that whose end is booked was told
            if last is self._last:  # or else a call has ended meanwhile, and was booked here
                break
        running = tuple(
            Running(request_id=request_id, attempt=call.attempt, runner=self._world.address)
            for request_id, call in self._calls.items()
        )
        self._released = self._append(OwnerReleased(epoch=self.ledger.epoch, running=running))
        await asyncio.shield(self._released)
        self._world.counts.released += 1
        self._world.counts.calls_released += len(running)
        if running:
            self._keep(asyncio.get_running_loop().create_task(self._beat()))

    async def _beat(self) -> None:
        """Let the next owner know that the calls which were handed over still run; until none does."""
        listening = asyncio.create_task(self._hear_cancellations())
        while self._calls:
            beat = RunnerBeat(runner=self._world.address, request_ids=tuple(self._calls))
            await self._send("requests", None, beat)
            calls = self._tasks - {asyncio.current_task()}
            if calls:
                await asyncio.wait(calls, timeout=RUNNER_BEAT_S)
        listening.cancel()
        await asyncio.wait((listening,))

    async def _hear_cancellations(self) -> None:
        """Go on to read `requests` where the owner has stopped, for those whose clients go away; for ever.

        Whoever runs a call listens, owner or not: so a cancellation reaches it while the partition has no owner, too.
        """
        try:
            async for records in self._world.log.follow("requests", {self.partition: self._received + 1}):
                for record in records:
                    if record.value is not None and record.value.startswith(_CANCELLATION):
                        event = decode(record.value)
                        assert isinstance(event, CancelRequested)
                        self._cancel(event)
        except (LogError, Unreadable) as error:
            log.error("calls of partition %d that were handed over hear no cancellation: %s", self.partition, error)

    def _keep(self, task: asyncio.Task[None]) -> None:
        """Hold on to a task, and end the process if it fails."""
        self._tasks.add(task)
        task.add_done_callback(self._kept)

    def _kept(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            trace = "".join(format_tb(error.__traceback__))
            self._world.fatal(f"the owner of partition {self.partition} failed: {type(error).__name__}\n{trace}")
