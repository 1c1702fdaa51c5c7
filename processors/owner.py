"""The one writer of one partition: it takes events in order, decides, appends, and lets the calls run.

    requests ──▶ decide (pure) ──▶ journal ──ack──▶ call ──▶ journal ──ack──▶ last bytes
                     ▲ ledger: the fold of the journal, evolved before anything is awaited

Nothing has an effect before the record that allows it is durable. An append that fails, or lands where it should not,
is an unknown outcome: the process ends, and its restart reads the truth from the log.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from traceback import format_tb
from typing import NamedTuple

import orjson

from tollgate.control import COMMANDS_PARTITION
from tollgate.errors import OutOfRange, Refusal, TollgateError, Unreadable
from tollgate.events import (
    Admitted,
    CallReported,
    CancelRequested,
    CommandIssued,
    DeadLetter,
    Ended,
    Event,
    IngressBeat,
    LeaseAnswered,
    LeaseAsked,
    Limits,
    OwnerReleased,
    OwnerTook,
    ProbeAnswered,
    Request,
    RequestAccepted,
    RunnerBeat,
    decode,
    encode,
)
from tollgate.failpoints import reached
from tollgate.keys import ADMIN
from tollgate.log import Position
from tollgate.processors.admit import decide, period_of, reject
from tollgate.processors.call import Job
from tollgate.processors.commands import Commands, applied
from tollgate.processors.handover import ending_of, last_reply_of, lost_attempt
from tollgate.processors.journal import WriteRows, succeeded
from tollgate.processors.leases import lend
from tollgate.processors.leasing import Leasing, answer_question
from tollgate.processors.ledger import Ledger, OpenRequest, evolve, forget_full_buckets, restoring
from tollgate.processors.route.plan import Route, plan
from tollgate.processors.runner import Runner
from tollgate.processors.setup import Setup
from tollgate.processors.succession import Succession
from tollgate.processors.world import World
from tollgate.sealed import SealError
from tollgate.wire import Body
from tollgate.wire.endpoints import ENDPOINTS

log = logging.getLogger(__name__)

MAX_CALLS = 4_000  # of one owner; the events of further requests wait on the log
SHARE_PATIENCE_S = 0.25  # of a request, for a share of a limit; those behind it in the partition wait as long
MANY_RATES = 1_000  # from there on it is worth while to look for those that are of no consequence any more
FORGET_EVERY_S = 60.0
MAX_PARKED = 256  # requests that wait so; the events of further ones wait on the log
SEAL_PATIENCE_S = 2.0  # then the body cannot be opened, and the request fails

_TOO_LATE = Refusal(
    503,
    "log_unavailable",
    "The request reached the log too late, so it was not accepted. Try again.",
    type="api_error",
    headers={"retry-after": "1"},
)
_UNTOLD = Refusal(
    502,
    "answer_lost",
    "The process that made the answer ended when the request was booked and the answer not yet sent.",
    type="api_error",
)


Ack = Callable[[], object]


class _Parked(NamedTuple):
    """A request that is not decided yet: until when it waits."""

    accepted: RequestAccepted
    src: int
    ack: Ack
    until_s: float


class Owner(Runner):
    """The writer of one partition, from take-over to hand-over."""

    def __init__(self, partition: int, world: World) -> None:
        super().__init__(partition, world)
        self._now_ms = 0  # the log's time: never lower than before
        self._handled = -1  # up to where none needs to be given again
        self._forgot_s = 0.0  # when rates that are of no consequence were forgotten
        self._room = asyncio.Event()
        self._room.set()
        self._succession = Succession(self, world.replies, clock_s=self._hearing_s, counts=world.counts)
        self._commands: Commands | None = None
        self._took_ms = 0  # when this owner began, in the time of the log
        self._leasing: Leasing | None = None
        self._parked: deque[_Parked] = deque()  # requests that wait for a share of a limit, and those behind them
        self._unparking: asyncio.TimerHandle | None = None

    # Take-over -----------------------------------------------------------------------------------------------------

    async def take_over(self, rows: Mapping[str, bytes]) -> int:
        """Become the writer; return the offset of `requests` to go on from.

        The state is the checkpoint and what the journal says after it. What was open is the succession's to settle;
        `settled` waits until what is known of it already is durable.
        """
        world = self._world
        ledger = self.ledger = await _restored(self.partition, rows)
        took = await self._send("completions", None, OwnerTook(instance=world.instance, address=world.address))
        reached("takeover.took")
        ended: deque[Request] = deque(maxlen=MAX_CALLS)  # since the checkpoint, in an earlier life or another process
        async for records in world.log.scan("completions", self.partition, ledger.next_offset, took.offset + 1):
            for record in records:
                self._now_ms = max(self._now_ms, record.timestamp_ms)
                try:
                    event = decode(record.value or b"")
                except Unreadable as error:
                    log.error("journal %d/%d is unreadable: %s", self.partition, record.offset, error)
                    ledger.next_offset = record.offset + 1
                    continue
                if evolve(ledger, record.offset, event):
                    self._copy_costs(event, record.offset)
                    if isinstance(event, Ended):
                        ended.append(event.request)
                    elif isinstance(event, OwnerReleased):  # who lives on sends the last bytes, too
                        ended.clear()
        if ledger.epoch != took.offset:
            raise TollgateError(f"the journal of partition {self.partition} does not hold what was just appended to it")
        self._certain_s = self._world.clock_s()
        world.counts.taken_over += 1
        self._took_ms = took.timestamp_ms
        self._leasing = Leasing(world, self.partition, ledger.epoch)
        if self.partition == COMMANDS_PARTITION:
            self._commands = Commands(world, ledger.epoch)
            await self._commands.begin()
        self._succession.begin(ledger.open.values(), ledger.epoch)
        for request in ended if world.shared else ():
            self._tell(request, _UNTOLD)
        self._received = self._handled = max(ledger.decided, ledger.handled)
        return self._received + 1

    async def settled(self) -> None:
        """Return when what was appended so far is durable."""
        if self._last is not None:
            await asyncio.shield(self._last)

    def resume(self, request: OpenRequest, report: CallReported | None) -> None:
        """Make the next attempt at a request whose client still waits, under the hold that it has.

        Without a report its call was lost: it may have cost its bound, and is made again. The journal says so before
        anything else is decided: or else a crash would forget what was reported, as the next owner reads on behind it.
        """
        previous = lost_attempt(request) if report is None else report.attempts[-1]
        choice = request.choice if report is None or report.choice is None else report.choice
        started = self._append(self._attempt_started(request, request.attempt + 1, choice, previous))
        resuming = asyncio.get_running_loop().create_task(self._resume(request, started))
        self._resuming.add(resuming)
        resuming.add_done_callback(self._resuming.discard)
        self._keep(resuming)

    async def _resume(self, request: OpenRequest, started: asyncio.Future[Position]) -> None:
        received = time.perf_counter()
        admitted = request.admitted
        facts = admitted.request
        await asyncio.shield(started)
        accepted = await self._accepted(admitted.src)
        try:
            if accepted is None:
                raise SealError("its body is no longer on the log")
            body = self._body(accepted)
        except (SealError, orjson.JSONDecodeError) as error:
            log.error("request %s cannot be attempted again: %s", facts.request_id, error)
            self._abandon(request, request.previous)  # the attempt that was to be made now was never called
            return
        self._start_call(
            Job(
                request=request,
                epoch=self.ledger.epoch,
                body=body,
                ask=ENDPOINTS[facts.endpoint].ask(body),
                headers=accepted.headers,
                seal=accepted.seal,
                reply_headers=(),
                setup=self._world.setup(),
                reason="resumed",
                attempt=request.attempt,
                choice=request.choice,
                previous=request.previous,
                priced_ms=self._now_ms,
                received=received,
            )
        )

    async def _accepted(self, src: int) -> RequestAccepted | None:
        """The request's own event, read again from the log; None when retention has removed it."""
        try:
            async for records in self._world.log.scan("requests", self.partition, src, src + 1):
                for record in records:
                    event = decode(record.value or b"")
                    if isinstance(event, RequestAccepted):
                        await self._world.sealer.wait_for(event.seal, timeout_s=SEAL_PATIENCE_S)
                        return event
        except (OutOfRange, Unreadable) as error:
            log.error("requests %d/%d cannot be read again: %s", self.partition, src, error)
        return None

    def book(self, request: OpenRequest, report: CallReported) -> None:
        """End a request as the process says that ran it after its own ownership; then its last bytes may leave."""
        ended = self._append_end(request, ending_of(report))
        ended.add_done_callback(partial(self._booked, request.admitted.request, report))

    def _booked(self, request: Request, report: CallReported, future: asyncio.Future[Position]) -> None:
        if not succeeded(future):
            return
        try:
            last = last_reply_of(report, epoch=self.ledger.epoch, sealer=self._world.sealer)
        except SealError as error:
            log.error("the last bytes of request %s cannot be read: %s", request.request_id, error)
            return
        self._world.replies.send(request.reply_to, last)

    # Events of `requests`, in order -----------------------------------------------------------------------------------

    def receive(self, src: int, timestamp_ms: int, value: bytes, ack: Ack) -> Awaitable[None] | None:
        """Take the event at offset `src`. What is returned must be awaited before the next event is given.

        `ack` is called when the event need not be delivered again, which may be later. Never raises.
        """
        if self._closed:
            return None
        self._now_ms = max(self._now_ms, timestamp_ms)
        self._received = src
        try:
            event = decode(value)
        except Unreadable as error:
            self._bury(src, value, str(error), ack)
            return None
        waiting = self._handle(event, src, timestamp_ms, value, ack)
        if waiting is not None:
            return self._handle_slowly(waiting, src)
        self._has_handled(src)
        return None

    async def _handle_slowly(self, waiting: Awaitable[None], src: int) -> None:
        await waiting
        self._has_handled(src)

    def _has_handled(self, src: int) -> None:
        """All that follows from the event is in the journal or on its way there; what waits for a share is not."""
        if not self._closed and not self._parked:
            self._handled = max(self._handled, src)

    def _handle(self, event: Event, src: int, timestamp_ms: int, value: bytes, ack: Ack) -> Awaitable[None] | None:
        match event:
            case RequestAccepted():
                if src <= self.ledger.decided:  # decided in an earlier life
                    ack()
                elif 0 < event.void_after_ms < timestamp_ms:
                    self._unpark(last_chance=True)  # what came before it is decided before it
                    self._refuse(event, _TOO_LATE, src, ack, headers=())
                elif not self._can_decide(event):
                    return self._decide_later(event, src, ack)
                else:
                    self._take(event, src, ack)
            case CancelRequested():
                self._cancel(event)
                ack()
            case ProbeAnswered():
                self._succession.answered(event)
                ack()
            case RunnerBeat():
                self._succession.heard(event)
                ack()
            case CallReported():
                self._succession.reported(event)
                ack()
            case IngressBeat():
                self._heard(event.address)
                ack()
            case LeaseAsked():
                self._lease(event, timestamp_ms)
                ack()
            case LeaseAnswered() if self._leasing is not None:
                self._leasing.answered(event)
                self._unpark()
                ack()
            case LeaseAnswered():
                ack()
            case CommandIssued() if self._commands is not None:
                return self._command(self._commands, event, src, ack)
            case _:
                self._bury(src, value, f"{type(event).__name__} does not belong on this topic", ack)
        return None

    def _can_decide(self, accepted: RequestAccepted) -> bool:
        """Is everything here that the decision needs: room, the control state of its ingress, the key to its body?"""
        world = self._world
        return (
            accepted.control_offset <= world.control.offset
            and self._room.is_set()
            and world.sealer.knows(accepted.seal)
        )

    async def _decide_later(self, accepted: RequestAccepted, src: int, ack: Ack) -> None:
        await self._room.wait()
        await applied(self._world, accepted.control_offset)
        await self._world.sealer.wait_for(accepted.seal, timeout_s=SEAL_PATIENCE_S)
        if not self._closed:
            self._take(accepted, src, ack)

    def _take(self, accepted: RequestAccepted, src: int, ack: Ack) -> None:
        """Decide, unless that must wait for a share of a limit, or earlier ones wait for one."""
        if self._parked or not self._decide(accepted, src, ack):
            self._parked.append(_Parked(accepted, src, ack, self._world.clock_s() + SHARE_PATIENCE_S))
            if len(self._parked) >= MAX_PARKED:
                self._room.clear()
            if self._unparking is None:
                self._unpark_later()

    def _unpark(self, *, last_chance: bool = False) -> None:
        """Decide on those that wait, in their order, as far as there are shares for them or their patience is over."""
        while self._parked and not self._closed:
            accepted, src, ack, until_s = self._parked[0]
            if not self._decide(accepted, src, ack, last_chance=last_chance or self._world.clock_s() >= until_s):
                break
            self._parked.popleft()
        self._make_room()
        self._unpark_later()

    def _unpark_later(self) -> None:
        """Come back when the first one's patience is over."""
        if self._unparking is not None:
            self._unparking.cancel()
            self._unparking = None
        if self._parked and not self._closed:
            left_s = max(0.0, self._parked[0].until_s - self._world.clock_s())
            self._unparking = asyncio.get_running_loop().call_later(left_s, self._unpark)

    def _decide(self, accepted: RequestAccepted, src: int, ack: Ack, *, last_chance: bool = False) -> bool:
        """Decide and evolve without awaiting in between, so that nobody decides on stale state.

        False: a share of a limit is waited for, and nothing has happened; not at the last chance.
        """
        received = time.perf_counter()
        request = accepted.request
        waiting = self._world.replies.is_waiting(request.reply_to, request.request_id)
        if waiting is False:
            self._append(self._nobody_waits(request, src)).add_done_callback(partial(_when_durable, ack))
            return True
        setup = self._world.setup()
        try:
            body = self._body(accepted)
            ask = ENDPOINTS[request.endpoint].ask(body)
            route = self._route(request, body, setup)
            limits = self._limits(request.key_id)
            decision = decide(
                self.ledger,
                request,
                ask,
                route,
                limits=limits,
                policy=setup.policy,
                src=src,
                now_ms=self._now_ms,
                price_version=setup.book.version,
            )
            if self._leasing is not None and isinstance(decision.record, Admitted):
                taken = self._leasing.take(
                    decision.record.plan[0].model,
                    setup.config.rate_limiting,
                    waiting=max(1, len(self._parked)),
                    now_ms=self._now_ms,
                    last_chance=last_chance,
                )
                if not taken:
                    return False
        except Exception as error:  # one request that cannot be decided must not stop the partition
            self._refuse(accepted, _refusal_for(error), src, ack, headers=())
            return True
        if decision.refusal is not None or isinstance(decision.record, Ended):
            refusal = decision.refusal or Refusal(500, "internal_error", "refused", type="server_error")
            self._refuse(accepted, refusal, src, ack, headers=decision.headers, record=decision.record)
            return True
        appended = self._append(decision.record)
        reached("owner.decided")
        job = Job(
            request=self.ledger.open[request.request_id],
            epoch=self.ledger.epoch,
            body=body,
            ask=ask,
            headers=accepted.headers,
            seal=accepted.seal,
            reply_headers=decision.headers,
            setup=setup,
            reason=route.reason if isinstance(route, Route) else "",
            priced_ms=self._now_ms,
            received=received,
        )
        appended.add_done_callback(partial(self._admitted, job, ack))
        return True

    def _lease(self, asked: LeaseAsked, timestamp_ms: int) -> None:
        """Give what there is of a limit that belongs to this partition. What is given is durable before it is said.

        What was asked before this owner began is passed over: nobody waits for it any more.
        """
        if timestamp_ms < self._took_ms:
            return
        granted, answer = lend(self.ledger, asked, self._now_ms * 1000)
        if granted is None:
            answer_question(self._world.log, asked, answer)
        else:
            self._append(granted).add_done_callback(partial(self._lent, asked, answer))

    def _lent(self, asked: LeaseAsked, answer: LeaseAnswered, future: asyncio.Future[Position]) -> None:
        if succeeded(future):
            answer_question(self._world.log, asked, answer)

    def _body(self, accepted: RequestAccepted) -> Body:
        request = accepted.request
        opened = self._world.sealer.open(accepted.seal, request.org_id, request.request_id, accepted.body)
        body: Body = orjson.loads(opened)
        return body

    def _route(self, request: Request, body: dict[str, object], setup: Setup) -> Route | Refusal:
        return plan(
            request.model,
            body,
            endpoint=ENDPOINTS[request.endpoint],
            config=setup.config,
            book=setup.book,
            at_ms=self._now_ms,
            draw=self._world.draw(),
        )

    def _limits(self, key_id: str) -> Limits:
        """The key's limits as of now. Raises `Refusal` when it was revoked after its request was accepted."""
        if key_id == ADMIN:
            return Limits()
        key = self._world.control.key(key_id)
        if key is None or key.revoked_ms is not None:
            raise Refusal(
                401,
                "invalid_api_key",
                "This key has been revoked.",
                type="authentication_error",
                headers={"x-should-retry": "false"},
            )
        return key.limits

    def _nobody_waits(self, request: Request, src: int) -> Ended:
        """The client left before anything was decided: with its connection, or with an earlier life of the ingress."""
        here = request.reply_to == self._world.address
        return Ended(
            epoch=self.ledger.epoch,
            src=src,
            request=request,
            status="cancelled" if here else "abandoned",
            http_status=499 if here else 502,
            period=period_of(self._now_ms),
            error="client_closed_request" if here else "abandoned",
            reason="nobody waited for the answer any more when its turn came",
            price_version=self._world.setup().book.version,
        )

    def _refuse(
        self,
        accepted: RequestAccepted,
        refusal: Refusal,
        src: int,
        ack: Ack,
        *,
        headers: tuple[tuple[str, str], ...],
        record: Event | None = None,
    ) -> None:
        request = accepted.request
        self._given_up.pop(request.request_id, None)
        ended = record or reject(
            self.ledger.epoch,
            request,
            refusal,
            src=src,
            period=period_of(self._now_ms),
            price_version=self._world.setup().book.version,
        )
        seal = accepted.seal if self._world.sealer.knows(accepted.seal) else ""  # then nothing of the body is in it
        reply = self._refusal_reply(request, refusal, seal=seal, headers=headers)

        def refused(future: asyncio.Future[Position]) -> None:
            if succeeded(future):
                ack()
                self._world.replies.send(request.reply_to, reply)

        self._append(ended).add_done_callback(refused)

    def _admitted(self, job: Job, ack: Ack, future: asyncio.Future[Position]) -> None:
        """The admission is durable: the intent of attempt 1 is on record, so it may be made."""
        if not succeeded(future):
            return
        reached("owner.admitted")
        ack()
        self._start_call(job)

    def _stop_deciding(self) -> None:
        self._unpark(last_chance=True)
        super()._stop_deciding()
        self._succession.end()

    def _may_begin_later(self, request_id: str) -> bool:
        waits = any(parked.accepted.request.request_id == request_id for parked in self._parked)
        return waits or super()._may_begin_later(request_id)

    def _has_started(self) -> None:
        if len(self._calls) >= MAX_CALLS:
            self._room.clear()

    def _has_finished(self) -> None:
        self._make_room()

    def _make_room(self) -> None:
        if len(self._calls) < MAX_CALLS and len(self._parked) < MAX_PARKED:
            self._room.set()

    async def checkpoint(self, write_rows: WriteRows) -> None:
        """See `Writer.checkpoint`."""
        ledger, now_s = self.ledger, self._world.clock_s()
        if len(ledger.rates) > MANY_RATES and now_s - self._forgot_s > FORGET_EVERY_S:
            self._forgot_s = now_s
            forget_full_buckets(ledger, self._now_ms * 1000)
        ledger.handled = self._handled
        await super().checkpoint(write_rows)

    # Commands and letters ---------------------------------------------------------------------------------------------

    async def _command(self, commands: Commands, command: CommandIssued, src: int, ack: Ack) -> None:
        """Change the control state. The partition waits until the change is durable: then `src` counts as decided
        for whoever takes over, because later decisions of this partition lie behind it.
        """
        await commands.obey(command, src, self._now_ms)
        ack()

    def _bury(self, src: int, value: bytes, reason: str, ack: Ack) -> None:
        """Keep what cannot be read where it can be looked at, and go on."""
        self._world.counts.dead_letters += 1
        letter = DeadLetter(topic="requests", partition=self.partition, offset=src, reason=reason, value=value)
        log.error("requests %d/%d goes to dead-letters: %s", self.partition, src, reason)
        buried = asyncio.ensure_future(self._world.log.append("dead-letters", b"requests", encode(letter)))
        buried.add_done_callback(partial(_when_durable, ack))


async def _restored(partition: int, rows: Mapping[str, bytes]) -> Ledger:
    """The ledger of the checkpoint's rows, made while others have their turn."""
    steps = restoring(partition, rows)
    while True:
        try:
            next(steps)
        except StopIteration as made:
            ledger: Ledger = made.value
            return ledger
        await asyncio.sleep(0)


def _when_durable(ack: Ack, future: asyncio.Future[Position]) -> None:
    if succeeded(future):
        ack()


def _refusal_for(error: Exception) -> Refusal:
    if isinstance(error, Refusal):
        return error
    log.error("a request could not be decided: %s\n%s", type(error).__name__, "".join(format_tb(error.__traceback__)))
    return Refusal(500, "internal_error", "The request could not be decided.", type="server_error")
