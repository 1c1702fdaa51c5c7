"""One admitted request: its attempts in order, the answer to the client, and its one end.

A call is open → closing → closed; whoever closes it first (answer, cancellation, deadline) decides its end.
An attempt starts only when the record that names it is durable, and the last bytes leave only when the end is.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from traceback import format_tb
from typing import Literal, Protocol

import msgspec

from tollgate.config import Provider
from tollgate.errors import ERROR_CLASSES, ProviderError, Refusal
from tollgate.events import Attempt, Candidate, CostLine, Outcome, Status, Usage, UsageSource
from tollgate.failpoints import reached
from tollgate.ids import attempt_id
from tollgate.money import usd_text
from tollgate.prices.price import Price
from tollgate.prices.rate import bill, estimate_line, rate, stated_line, unpriced
from tollgate.processors.ledger import OpenRequest
from tollgate.processors.setup import Setup
from tollgate.processors.upstream import Transport
from tollgate.replies import Mailbox, Reply, gateway_stopping
from tollgate.tokenizer import overhead, request_texts
from tollgate.tokenizer.counter import CountTokens
from tollgate.wire import Ask, Body, Exchange, Extras, Meter, Quirks
from tollgate.wire.endpoints import COUNTER, ENDPOINTS
from tollgate.wire.exchange import PROTOCOLS, WIRES, refusal_of

ROOM_EVERY_BYTES = 64 << 10  # how much of an answer goes to the client before it is asked whether it reads
CLIENT_CLOSED_REQUEST = 499  # nginx's number for it; nobody is there to read it

_HANDED_OVER = ProviderError("cut", "the request is its new owner's")  # not a failure: nothing is left to be done here

FALLS_BACK_AS = {"cut": "connection"}  # a connection that ended before any content is one that failed


log = logging.getLogger(__name__)


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a request ended, before it is written down."""

    status: Status
    http_status: int
    attempts: tuple[Attempt, ...] = ()
    error: str | None = None
    reason: str | None = None
    ttft_ms: int | None = None
    overhead_us: int = 0


class _Closing(msgspec.Struct, frozen=True, kw_only=True):
    """The end, and the last that the client gets once it is durable. `status` counts where no head has left, or where
    the answer is `broken` off without a word."""

    ending: Ending
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    broken: bool = False


class Books(Protocol):
    """What a call asks of whoever books it. All return when what they wrote is durable.

    False: the partition has another owner by now, who was told, and does what comes next.
    """

    async def may_call(self) -> None:
        """Return when it is certain that the intent of the attempt still counts."""
        ...

    async def start_attempt(
        self, request: OpenRequest, attempt: int, choice: int, attempts: tuple[Attempt, ...]
    ) -> bool: ...

    async def end(self, request: OpenRequest, ending: Ending, last: Reply) -> bool: ...


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """All that a call needs to know of its request. `received` is `perf_counter` when the owner got it."""

    request: OpenRequest
    epoch: int  # of the owner that runs it
    body: Body
    ask: Ask
    headers: dict[str, str]
    seal: str
    reply_headers: tuple[tuple[str, str], ...]
    setup: Setup  # with which it was admitted
    reason: str
    attempt: int = 1  # the one whose intent is on record, on `plan[choice]`
    choice: int = 0
    previous: tuple[Attempt, ...] = ()
    priced_ms: int  # when: one time for the bound and for all that is rated
    received: float


class Call:
    """One request under way."""

    def __init__(
        self,
        job: Job,
        *,
        books: Books,
        replies: Mailbox,
        count_tokens: CountTokens,
        now_ms: Callable[[], int],
    ) -> None:
        self._job = job
        self._now_ms = now_ms
        self._request = job.request.admitted.request
        self._books = books
        self._setup = job.setup
        self._replies = replies
        self._count_tokens = count_tokens
        self._state: Literal["open", "closing", "closed"] = "open"
        self._task: asyncio.Task[None] | None = None
        self._begun = False
        self._interrupted = False
        self._cancelled_because = ""
        self._attempts: list[Attempt] = list(job.previous)
        self._seq = 0
        self._since_room = 0  # bytes that the client was sent since there was room for more
        self._upstream_s = 0.0
        self._ttft_ms: int | None = None
        # of the attempt under way
        self._number = 0
        self._candidate: Candidate | None = None
        self._exchange: Exchange | None = None
        self._called = False  # before that, nothing can have been used
        self._started = 0.0
        self._started_ms = 0
        self._http_status: int | None = None
        self._upstream_id: str | None = None

    @property
    def attempt(self) -> int:
        """The number of the attempt under way."""
        return max(self._number, self._job.attempt)

    @property
    def reply_to(self) -> str:
        """The ingress that holds the client."""
        return self._request.reply_to

    def start(self) -> asyncio.Task[None]:
        self._task = asyncio.get_running_loop().create_task(self._run())
        return self._task

    def interrupt(self, reason: str) -> None:
        """Stop what is under way because the gateway stops; the client is there, and is told."""
        self._interrupted = True
        self.cancel(reason)

    def cancel(self, reason: str) -> None:
        """Stop what is under way, unless its end has been decided already."""
        if self._state == "open" and self._task is not None and not self._cancelled_because:
            self._cancelled_because = reason
            if self._begun:  # a task that is cancelled before its first step would never run, and never end anything
                self._task.cancel()

    async def _run(self) -> None:
        self._begun = True
        left_s = (self._request.deadline_ms - self._now_ms()) / 1000
        try:
            if self._cancelled_because:  # before anything was called
                raise asyncio.CancelledError
            if left_s <= 0:  # a time-out of 0 would strike only after the call was sent
                raise TimeoutError
            async with asyncio.timeout(left_s):
                error = await self._make_attempts()
            if error is _HANDED_OVER:
                return
            self._state = "closing"  # nothing was awaited since the outcome was known: nobody else can end it
            closing = await (self._completed() if error is None else self._failed(error))
        except asyncio.CancelledError:
            if not self._cancelled_because:
                raise
            self._state = "closing"
            closing = await (self._stopped() if self._interrupted else self._cancelled())
        except TimeoutError:
            self._state = "closing"
            closing = await self._failed(ProviderError("timeout", "the request's deadline has passed"))
        except Exception as bug:
            log.error(
                "a call failed inside the gateway: %s\n%s", type(bug).__name__, "".join(format_tb(bug.__traceback__))
            )
            self._state = "closing"
            closing = await self._stumbled(bug)
        status = closing.status if self._seq == 0 or closing.broken else None
        last = self._piece(status, closing.headers, closing.body, last=True)
        if await self._books.end(self._job.request, closing.ending, last):
            self._replies.send(self._request.reply_to, last)
            reached("reply.last")
        self._state = "closed"

    async def _make_attempts(self) -> ProviderError | None:
        """Return when one has succeeded, or the error after which none is left to be made."""
        plan = self._job.request.admitted.plan
        for number, choice in enumerate(range(self._job.choice, len(plan)), self._job.attempt):
            candidate = plan[choice]
            if number > self._job.attempt:
                await asyncio.sleep(candidate.backoff_ms / 1000)
                self._upstream_s += candidate.backoff_ms / 1000
                mine = await self._books.start_attempt(self._job.request, number, choice, tuple(self._attempts))
                if not mine:
                    return _HANDED_OVER
                reached("call.next_attempt")
            try:
                await self._attempt(number, candidate)
            except ProviderError as error:
                content_started = self._content_started
                await self._close_attempt(error)
                reason = FALLS_BACK_AS.get(error.error_class, error.error_class)
                if content_started or reason not in self._setup.fallback_on or choice == len(plan) - 1:
                    return error
            else:
                return None
        raise AssertionError("a plan is never empty")

    async def _attempt(self, number: int, candidate: Candidate) -> None:
        """Return when the whole answer has come. Raises `ProviderError`."""
        self._number, self._candidate = number, candidate
        self._http_status = self._upstream_id = None
        self._exchange = None
        self._called = False
        self._started, self._started_ms = time.perf_counter(), self._now_ms()
        provider = self._provider(candidate)
        endpoint = ENDPOINTS[self._request.endpoint]
        exchange = endpoint.exchange(
            candidate.protocol,
            self._job.body,
            request_id=self._request.request_id,
            model=candidate.model,
            max_output_tokens=candidate.max_output_tokens,
            headers=self._job.headers,
            quirks=Quirks() if provider is None else provider.quirks,
        )
        self._exchange = exchange
        if candidate.provider == COUNTER:
            exchange.answer(endpoint.counted(await self._input_tokens()))
            exchange.meter.usage, exchange.meter.estimate = None, Usage()
            return
        transport = self._transport(candidate)
        await self._books.may_call()
        self._called = True
        reached("call.before")
        call_id = attempt_id(self._request.request_id, number)
        async with transport.send(exchange.request, request_id=call_id) as answer:
            reached("call.head")
            self._http_status = answer.status
            self._upstream_id = answer.headers.get("x-request-id") or answer.headers.get("request-id")
            if answer.status >= 300:
                body = await answer.read()
                raise PROTOCOLS[candidate.protocol].provider_error(answer.status, answer.headers, body)
            if exchange.request.stream:
                async for piece in answer.pieces():
                    ready = exchange.feed(piece)
                    if ready:
                        self._forward(ready)
                        await self._until_room(len(ready))
                    if exchange.meter.complete:
                        break
                exchange.finish()
            else:
                exchange.answer(await answer.read())
        reached("call.answered")

    def _provider(self, candidate: Candidate) -> Provider | None:
        """None for the gateway itself. Raises `ProviderError` for one that was taken out of the configuration since."""
        if candidate.provider == COUNTER:
            return None
        provider = self._setup.config.providers.get(candidate.provider)
        if provider is None:
            raise ProviderError("connection", f"{candidate.provider} is no longer among the providers")
        return provider

    def _transport(self, candidate: Candidate) -> Transport:
        """Raises `ProviderError` for an account that was taken out of the configuration since it was planned."""
        transport = self._setup.transports.get((candidate.provider, candidate.account))
        if transport is None:
            raise ProviderError(
                "connection", f"{candidate.account} is no longer among the accounts of {candidate.provider}"
            )
        return transport

    def _forward(self, ready: bytes) -> None:
        """Hand content to the client; with the first of it goes the head."""
        if self._seq == 0:
            self._ttft_ms = self._now_ms() - self._request.accepted_ms
            self._upstream_s += time.perf_counter() - self._started
            self._reply(200, self._answer_headers(), ready)
            self._started = time.perf_counter()
            reached("call.first_content")
        else:
            self._reply(None, (), ready)

    async def _until_room(self, sent_bytes: int) -> None:
        """The provider is not read faster than the client reads, so that a long answer is nowhere in memory."""
        self._since_room += sent_bytes
        if self._since_room >= ROOM_EVERY_BYTES:
            sent_bytes, self._since_room = self._since_room, 0
            await self._replies.room(self._request.reply_to, self._request.request_id, sent_bytes)

    # The attempt under way, closed -----------------------------------------------------------------------------------

    @property
    def _content_started(self) -> bool:
        return self._exchange is not None and self._exchange.meter.content_started

    async def _close_attempt(self, error: ProviderError | None = None, *, cancelled: bool = False) -> None:
        """Write the attempt down, if one is under way, with what it used and cost; nothing is billed yet."""
        candidate, exchange = self._candidate, self._exchange
        if candidate is None or len(self._attempts) == self._number:
            return
        self._upstream_s += time.perf_counter() - self._started
        meter = exchange.meter if exchange is not None else Meter()
        outcome = self._outcome(error, cancelled=cancelled)
        usage, source = await self._usage(candidate, meter, outcome)
        self._attempts.append(
            Attempt(
                attempt=self._number,
                provider=candidate.provider,
                account=candidate.account,
                model=candidate.model,
                outcome=outcome,
                served_model=meter.served_model,
                error_class=error.error_class if error else None,
                http_status=self._http_status,
                reason=_reason(error) if error else None,
                started_ms=self._started_ms,
                latency_ms=self._now_ms() - self._started_ms,
                ttft_ms=self._ttft_ms,
                usage=usage,
                usage_raw=meter.usage_raw,
                usage_source=source,
                finish_reason=meter.finish_reason,
                upstream_request_id=self._upstream_id,
                lines=self._lines(candidate, meter, usage, source),
            )
        )

    def _outcome(self, error: ProviderError | None, *, cancelled: bool) -> Outcome:
        """`cut` where the provider may have worked for an answer that never came whole, `error` where it said no."""
        if cancelled:
            return "cancelled"
        if error is None:
            return "ok"
        return "cut" if self._content_started or error.error_class in ("cut", "timeout") else "error"

    async def _usage(self, candidate: Candidate, meter: Meter, outcome: Outcome) -> tuple[Usage | None, UsageSource]:
        """What the provider has said that it used, also of an answer that it then refused, or that could not be read;
        else an estimate. One that said no, and nothing of usage, has used nothing.
        """
        over = outcome in ("ok", "error") or (meter.complete and meter.finish_reason is not None)
        if over and meter.usage is not None and self._is_charged_by(candidate, meter, meter.usage):
            return meter.usage, "provider"
        if outcome != "error" and self._called:
            return await self._estimated(meter), "estimated"
        return None, "missing"

    async def _estimated(self, meter: Meter) -> Usage:
        """What was received of an answer whose usage nobody stated: the provider's input count where it came first."""
        if meter.estimate is not None:
            return meter.estimate
        known = meter.usage or Usage()
        output = await self._count_tokens(self._exchange.said()) if self._exchange is not None else 0
        if known.input_tokens or known.cache_read_tokens:
            return msgspec.structs.replace(known, output_tokens=max(known.output_tokens, output))
        return Usage(input_tokens=await self._input_tokens(), output_tokens=output)

    async def _input_tokens(self) -> int:
        body = self._job.body
        return overhead(body) + await self._count_tokens(request_texts(body))

    def _is_charged_by(self, candidate: Candidate, meter: Meter, usage: Usage) -> bool:
        """Is the usage in measures by which the model is charged? Without an estimate there is no better one."""
        if meter.estimate is None:
            return True
        price = self._price(candidate, meter)
        return price is not None and price.covers(usage)

    def _lines(
        self, candidate: Candidate, meter: Meter, usage: Usage | None, source: UsageSource
    ) -> tuple[CostLine, ...]:
        """The cost of what was used: as the provider states it, unless the operator has a price of his own, or else at
        the price of the model that the provider says it served.
        """
        if usage is None or self._job.ask.free:
            return ()
        price = self._price(candidate, meter)
        if source == "provider" and meter.stated_cost_pusd is not None and not (price and price.operators_own):
            return (stated_line(meter.stated_cost_pusd, self._setup.book.version),)
        if price is None:
            return unpriced(usage, version=self._setup.book.version)
        if source != "estimated":
            return rate(usage, price)
        lines = rate(usage, price, source="estimated")
        bound = candidate.bound_pusd
        if bound is not None and sum(line.cost_pusd for line in lines) > bound:
            return (estimate_line(bound, price.version),)
        return lines

    def _price(self, candidate: Candidate, meter: Meter) -> Price | None:
        catalogue = self._setup.config.providers[candidate.provider].price_provider
        for model in dict.fromkeys((meter.served_model or candidate.model, candidate.model)):
            price = self._setup.book.price(
                candidate.provider, model, self._job.priced_ms, catalogue=catalogue, context=meter.price_context
            )
            if price is not None:
                return price
        return None

    # The end ------------------------------------------------------------------------------------------------------

    async def _completed(self) -> _Closing:
        await self._close_attempt()
        self._bill_last()
        candidate, exchange = self._candidate, self._exchange
        assert candidate is not None and exchange is not None
        cost_usd = usd_text(sum(line.bill_pusd for line in self._attempts[-1].lines))
        body = exchange.final(
            Extras(
                request_id=self._request.request_id,
                provider=candidate.provider,
                model=candidate.model,
                cost_usd=cost_usd,
                attempts=self._number,
                reason=self._job.reason,
                price_version=self._job.request.admitted.price_version,
                max_output_tokens=self._set_cap,
            )
        )
        return _Closing(
            ending=self._ending("completed", 200),
            status=200,
            headers=(*self._answer_headers(), ("x-tollgate-cost-usd", cost_usd)) if self._seq == 0 else (),
            body=body,
        )

    async def _failed(self, error: ProviderError) -> _Closing:
        """The plan is used up, the stream broke, or the deadline passed. The attempts cost; nobody is billed."""
        await self._close_attempt(error)
        self._attempts = [_unbilled(attempt) for attempt in self._attempts]
        refusal = refusal_of(error)
        if self._candidate is not None:
            refusal = refusal_of(error, provider=self._candidate.provider, model=self._candidate.model)
        return self._refused(refusal, reason=_reason(error))

    async def _stumbled(self, bug: Exception) -> _Closing:
        """The fault is ours, so no provider is named."""
        error = ProviderError("server_error", f"internal error: {type(bug).__name__}")
        await self._close_attempt(error)
        self._attempts = [_unbilled(attempt) for attempt in self._attempts]
        refusal = Refusal(
            500, "internal_error", "The gateway failed at this call; its log says how.", type="server_error"
        )
        return self._refused(refusal, reason=error.message)

    def _refused(self, refusal: Refusal, *, reason: str) -> _Closing:
        """The end of a request that failed, told in the client's dialect, before or after content."""
        if self._seq == 0:
            body = WIRES[self._request.dialect].error_body(refusal, self._request.request_id)
            headers = (*self._failure_headers(), *refusal.headers.items())
        else:
            assert self._exchange is not None
            body, headers = self._exchange.failure(refusal, self._request.request_id), ()
        return _Closing(
            ending=self._ending("failed", refusal.status, error=refusal.code, reason=reason),
            status=refusal.status,
            headers=headers,
            body=body,
            broken=not body,
        )

    async def _stopped(self) -> _Closing:
        """The gateway stops. What was received is metered as at a hang-up, and nobody is billed."""
        await self._close_attempt(cancelled=True)
        return self._refused(gateway_stopping(), reason=self._cancelled_because)

    async def _cancelled(self) -> _Closing:
        """The client is gone. It pays for what it was sent; the provider may charge for what it had read."""
        await self._close_attempt(cancelled=True)
        if self._seq > 0:
            self._bill_last()
        reason = self._cancelled_because
        return _Closing(
            ending=self._ending("cancelled", CLIENT_CLOSED_REQUEST, error="client_closed_request", reason=reason),
            status=CLIENT_CLOSED_REQUEST,
            headers=(),
            body=b"",
        )

    def _ending(
        self, status: Status, http_status: int, *, error: str | None = None, reason: str | None = None
    ) -> Ending:
        overhead_s = time.perf_counter() - self._job.received - self._upstream_s
        return Ending(
            status=status,
            http_status=http_status,
            attempts=tuple(self._attempts),
            error=error,
            reason=reason,
            ttft_ms=self._ttft_ms,
            overhead_us=max(0, int(overhead_s * 1e6)),
        )

    def _bill_last(self) -> None:
        """The last attempt is the one that the tenant pays, never beyond the hold."""
        last = self._attempts[-1]
        lines = bill(last.lines, self._job.request.admitted.hold_pusd)
        self._attempts[-1] = msgspec.structs.replace(last, lines=lines)

    # The reply ----------------------------------------------------------------------------------------------------

    def _answer_headers(self) -> tuple[tuple[str, str], ...]:
        assert self._candidate is not None
        assert self._exchange is not None
        dropped = self._exchange.dropped
        return (
            ("content-type", self._exchange.content_type),
            ("x-tollgate-provider", self._candidate.provider),
            ("x-tollgate-model", self._candidate.model),
            ("x-tollgate-cache", "off"),
            ("x-tollgate-attempts", str(self._number)),
            *((("x-tollgate-max-output-tokens", str(self._set_cap)),) if self._set_cap is not None else ()),
            *((("x-tollgate-dropped-params", ", ".join(dropped)),) if dropped else ()),
            *self._job.reply_headers,
        )

    @property
    def _set_cap(self) -> int | None:
        """The cap on output that the gateway has set, where the client named none: an answer may end at it."""
        assert self._candidate is not None
        ask = self._job.ask
        return self._candidate.max_output_tokens if ask.max_output_tokens is None and not ask.free else None

    def _failure_headers(self) -> tuple[tuple[str, str], ...]:
        candidate = self._candidate
        tried = (
            (("x-tollgate-provider", candidate.provider), ("x-tollgate-model", candidate.model)) if candidate else ()
        )
        return (
            ("content-type", "application/json"),
            *tried,
            ("x-tollgate-attempts", str(self._number)),
            *self._job.reply_headers,
        )

    def _reply(self, status: int | None, headers: tuple[tuple[str, str], ...], body: bytes) -> None:
        self._replies.send(self._request.reply_to, self._piece(status, headers, body, last=False))
        self._seq += 1

    def _piece(self, status: int | None, headers: tuple[tuple[str, str], ...], body: bytes, *, last: bool) -> Reply:
        request = self._request
        return Reply(
            request_id=request.request_id,
            org_id=request.org_id,
            seal=self._job.seal,
            epoch=self._job.epoch,
            attempt=self._number,
            seq=self._seq,
            status=status,
            headers=headers,
            body=body,
            last=last,
            upstream_us=int(self._upstream_s * 1e6),
        )


def _unbilled(attempt: Attempt) -> Attempt:
    """What was billed already when the answer turned out to be unwritable is billed no more."""
    if not any(line.bill_pusd for line in attempt.lines):
        return attempt
    lines = tuple(msgspec.structs.replace(line, bill_pusd=0) for line in attempt.lines)
    return msgspec.structs.replace(attempt, lines=lines)


def _reason(error: ProviderError) -> str:
    """What the books say of a failure: our own words. A provider's may quote the prompt, and go to the client only."""
    if error.error_class in ("connection", "cut"):  # only the transports and the reader of streams say these
        return error.message
    words = ERROR_CLASSES[error.error_class]
    return words if error.status is None else f"{words} (HTTP {error.status})"
