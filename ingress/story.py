"""The story of one request, told from the log: what was decided, what was tried, what it used and cost.

Nothing is kept for this. A request's id begins with its time, so its records lie near a place in the log that can be
computed; they are looked for from there on, among the records of its organisation's partition.
"""

from collections.abc import AsyncIterator, Iterable
from typing import Any, NamedTuple

import msgspec

from tollgate.errors import OutOfRange, Refusal, Unreadable
from tollgate.events import (
    Admitted,
    Attempt,
    AttemptStarted,
    Ended,
    Event,
    OwnerTook,
    Request,
    RequestAccepted,
    decode,
)
from tollgate.ids import is_request_id, request_time_ms
from tollgate.ingress.auth import Identity
from tollgate.ingress.door import REQUESTS, Door
from tollgate.ingress.guard import RETRY_AFTER
from tollgate.ingress.http import Answer, Incoming, json_answer
from tollgate.journal import JOURNAL, epoch_after, valid
from tollgate.log import Record
from tollgate.money import usd_text
from tollgate.times import iso

CLOCK_SLACK_MS = 10_000  # between the clock that made the id and the log's
FIRST_RECORD_MS = 15 * 60_000  # by then a request has been decided, or will never be
MAX_RECORDS = 1_000_000  # looked at for one story
MAX_AT_ONCE = 4

_TAKE_OVER = b'"owner_took.'


class Told(NamedTuple):
    """One record of the journal that is part of the story, with the log's own time."""

    at_ms: int
    event: Event


class Stories:
    """`GET /v1/requests/{id}`."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._under_way = 0

    async def one(self, incoming: Incoming) -> Answer:
        """The request's story, to its own organisation and to the admin; 404 to anybody else."""
        identity = incoming.identity
        assert identity is not None
        request_id = incoming.path_params["id"]
        if not is_request_id(request_id):
            raise _unknown(request_id)
        if self._under_way >= MAX_AT_ONCE:
            raise Refusal(
                503,
                "overloaded",
                "Other requests are being looked up, as many as may be at once. Try again.",
                type="api_error",
                headers=RETRY_AFTER,
            )
        self._under_way += 1
        try:
            story = await self._find(request_id, identity)
        except OutOfRange:
            story = None
        finally:
            self._under_way -= 1
        if story is None or not (identity.is_admin or story["organization"] == identity.org_id):
            raise _unknown(request_id)
        return json_answer(200, story)

    async def _find(self, request_id: str, identity: Identity) -> dict[str, Any] | None:
        log = self._door.log
        if not identity.is_admin:
            partition = log.partition_for(REQUESTS, identity.org_id.encode())
            return await self._tell(request_id, partition)
        for topic, window_ms in ((REQUESTS, CLOCK_SLACK_MS), (JOURNAL, FIRST_RECORD_MS)):
            for partition in range(log.partitions(topic)):
                if await anext(self._matches(topic, partition, request_id, window_ms), None) is not None:
                    return await self._tell(request_id, partition)
        return None

    async def _tell(self, request_id: str, partition: int) -> dict[str, Any] | None:
        told = await self._journal(request_id, partition)
        if told:
            return story_of(told)
        async for record in self._matches(REQUESTS, partition, request_id, CLOCK_SLACK_MS):
            event = _decoded(record)
            if isinstance(event, RequestAccepted) and event.request.request_id == request_id:
                return story_of([Told(record.timestamp_ms, event)])
        return None

    async def _journal(self, request_id: str, partition: int) -> list[Told]:
        """The valid records of the journal that tell of the request, up to its end.

        Where the search begins, the highest epoch that the request's own records name stands for the one in force.
        So what a fenced writer wrote of it could be told by mistake, but only until the true owner has ended it.
        """
        told: list[Told] = []
        epoch: int | None = None
        assumed = -1
        async for record in self._matches(JOURNAL, partition, request_id, None):
            event = _decoded(record)
            if isinstance(event, OwnerTook):
                epoch = epoch_after(-1 if epoch is None else epoch, record.offset, event)
                continue
            if not isinstance(event, Admitted | AttemptStarted | Ended) or _request_id(event) != request_id:
                continue
            if epoch is None and event.epoch > assumed:
                assumed = event.epoch
                told.clear()
            if not valid(assumed if epoch is None else epoch, event):
                continue
            told.append(Told(record.timestamp_ms, event))
            if isinstance(event, Ended):
                break
        return told

    async def _matches(
        self, topic: str, partition: int, request_id: str, window_ms: int | None
    ) -> AsyncIterator[Record]:
        """The records that name the request, from its time on, and the take-overs between them.

        Searches `window_ms` beyond the request's time, or to the end of the log. Bytes are compared before anything
        is decoded. Raises `Refusal` after `MAX_RECORDS`.
        """
        log = self._door.log
        made_ms = request_time_ms(request_id)
        start = await log.offset_at(topic, partition, made_ms - CLOCK_SLACK_MS)
        end = None if window_ms is None else await log.offset_at(topic, partition, made_ms + window_ms)
        named = request_id.encode()
        seen = 0
        async for batch in log.scan(topic, partition, start, end):
            for record in batch:
                if record.value is not None and (named in record.value or _TAKE_OVER in record.value):
                    yield record
            seen += len(batch)
            if seen > MAX_RECORDS:
                raise Refusal(
                    503,
                    "search_exhausted",
                    f"The request's end is not among the {seen} records after it; it is too far away to be looked for.",
                    type="api_error",
                )


def story_of(told: list[Told]) -> dict[str, Any]:
    """What these records tell: valid ones of one request, in the order of the log, at least one. Pure."""
    request = next(event.request for _, event in told if isinstance(event, RequestAccepted | Admitted | Ended))
    last_at_ms, last = told[-1]
    admitted = next((event for _, event in told if isinstance(event, Admitted)), None)
    ended = last if isinstance(last, Ended) else None
    attempts = _attempts(event for _, event in told)
    final = attempts[-1] if attempts else None
    return {
        "object": "request",
        "request_id": request.request_id,
        "status": ended.status if ended else "running" if admitted else "queued",
        "http_status": ended.http_status if ended else None,
        "error": ended.error if ended else None,
        "reason": ended.reason if ended else None,
        **_asked(request),
        "provider": final.provider if final else None,
        "served_model": final.served_model if final else None,
        "accepted_at": iso(request.accepted_ms),
        "ended_at": iso(last_at_ms) if ended else None,
        "latency_ms": ended.latency_ms if ended else None,
        "ttft_ms": ended.ttft_ms if ended else None,
        "overhead_ms": ended.overhead_us / 1000 if ended else None,
        "cache": ended.cache if ended else None,
        "usage": msgspec.to_builtins(final.usage) if final and final.usage else None,
        "cost_usd": usd_text(ended.cost_pusd) if ended else None,
        "bill_usd": usd_text(ended.bill_pusd) if ended else None,
        "hold_usd": _usd(admitted.hold_pusd) if admitted else None,
        "price_version": admitted.price_version if admitted else None,
        "attempts": [_attempt(attempt) for attempt in attempts],
        "events": [
            {"type": "accepted", "at": iso(request.accepted_ms)},
            *({"at": iso(at_ms), **_summary(event)} for at_ms, event in told if not isinstance(event, RequestAccepted)),
        ],
    }


def _asked(request: Request) -> dict[str, Any]:
    return {
        "organization": request.org_id,
        "team": request.team_id,
        "key_id": request.key_id,
        "user": request.user_id,
        "endpoint": request.endpoint,
        "dialect": request.dialect,
        "model": request.model,
        "stream": request.stream,
        "tags": request.tags,
    }


def _attempts(events: Iterable[Event]) -> list[Attempt]:
    """All attempts that are over, once each."""
    attempts: dict[int, Attempt] = {}
    for event in events:
        if isinstance(event, Ended):
            attempts |= {attempt.attempt: attempt for attempt in event.attempts}
        elif isinstance(event, AttemptStarted) and event.previous is not None:
            attempts[event.previous.attempt] = event.previous
    return [attempts[number] for number in sorted(attempts)]


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "attempt": attempt.attempt,
        "provider": attempt.provider,
        "account": attempt.account,
        "model": attempt.model,
        "outcome": attempt.outcome,
        "error_class": attempt.error_class,
        "http_status": attempt.http_status,
        "reason": attempt.reason,
        "started_at": iso(attempt.started_ms),
        "latency_ms": attempt.latency_ms,
        "ttft_ms": attempt.ttft_ms,
        "usage": msgspec.to_builtins(attempt.usage) if attempt.usage else None,
        "usage_source": attempt.usage_source,
        "finish_reason": attempt.finish_reason,
        "upstream_request_id": attempt.upstream_request_id,
        "cost_usd": usd_text(sum(line.cost_pusd for line in attempt.lines)),
        "bill_usd": usd_text(sum(line.bill_pusd for line in attempt.lines)),
    }


def _summary(event: Event) -> dict[str, Any]:
    match event:
        case Admitted():
            plan = [f"{candidate.provider}/{candidate.model}" for candidate in event.plan]
            return {"type": "admitted", "hold_usd": _usd(event.hold_pusd), "plan": plan}
        case AttemptStarted():
            because = event.previous.error_class if event.previous else None
            return {"type": "attempt_started", "attempt": event.attempt, "because": because}
        case Ended():
            return {"type": "ended", "status": event.status, "bill_usd": usd_text(event.bill_pusd)}
        case _:
            return {"type": "unknown"}


def _usd(amount_pusd: int | None) -> str | None:
    return None if amount_pusd is None else usd_text(amount_pusd)


def _decoded(record: Record) -> Event | None:
    try:
        return decode(record.value or b"")
    except Unreadable:
        return None


def _request_id(event: Admitted | AttemptStarted | Ended) -> str:
    return event.request_id if isinstance(event, AttemptStarted) else event.request.request_id


def _unknown(request_id: str) -> Refusal:
    return Refusal(
        404,
        "request_not_found",
        f"There is no request {request_id[:64]!a} of this organisation, or the log keeps it no longer.",
        param="id",
    )
