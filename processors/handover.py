"""How a call that outlives its owner is told to the next one, and what is said of a call that was lost. Pure."""

from tollgate.events import Attempt, CallReported
from tollgate.prices.rate import estimate_line
from tollgate.processors.call import Ending
from tollgate.processors.ledger import OpenRequest
from tollgate.replies import Reply
from tollgate.sealed import Sealer


def lost_attempt(request: OpenRequest) -> Attempt:
    """The attempt whose outcome nobody knows any more: it may have cost as much as it could."""
    candidate = request.admitted.plan[request.choice]
    return Attempt(
        attempt=request.attempt,
        provider=candidate.provider,
        account=candidate.account,
        model=candidate.model,
        outcome="abandoned",
        reason="the process that made the call ended before its outcome was written",
        usage_source="missing",
        lines=(estimate_line(candidate.bound_pusd or 0, request.admitted.price_version),),
    )


def report_of(request: OpenRequest, ending: Ending, last: Reply, *, runner: str, sealer: Sealer) -> CallReported:
    """The end of a call, with the last reply, its body sealed."""
    facts = request.admitted.request
    body = last.body
    if body and last.seal:
        body = sealer.seal_under(last.seal, facts.org_id, facts.request_id, body)
    return CallReported(
        request_id=facts.request_id,
        org_id=facts.org_id,
        runner=runner,
        attempts=ending.attempts,
        attempt=request.attempt,
        status=ending.status,
        http_status=ending.http_status,
        error=ending.error,
        reason=ending.reason,
        ttft_ms=ending.ttft_ms,
        overhead_us=ending.overhead_us,
        seq=last.seq,
        reply_status=last.status,
        reply_headers=last.headers,
        body=body,
        seal=last.seal,
        upstream_us=last.upstream_us,
    )


def ending_of(report: CallReported) -> Ending:
    """The end as the runner tells it."""
    return Ending(
        status=report.status,
        http_status=report.http_status,
        attempts=report.attempts,
        error=report.error,
        reason=report.reason,
        ttft_ms=report.ttft_ms,
        overhead_us=report.overhead_us,
    )


def last_reply_of(report: CallReported, *, epoch: int, sealer: Sealer) -> Reply:
    """The last reply, as the new owner sends it. Raises `SealError` when its body cannot be opened."""
    body = report.body
    if body and report.seal:
        body = sealer.open(report.seal, report.org_id, report.request_id, body)
    return Reply(
        request_id=report.request_id,
        org_id=report.org_id,
        seal=report.seal,
        epoch=epoch,
        attempt=len(report.attempts),
        seq=report.seq,
        status=report.reply_status,
        headers=report.reply_headers,
        body=body,
        last=True,
        upstream_us=report.upstream_us,
    )
