"""May this request spend? The decision that makes budgets hard: hold first, call after.

`decide` answers with the one record that the owner appends: `Admitted`, with hold, plan and first intent, or
`Ended` (rejected). Every limit of the key is checked against the ledger of its partition, which no other writer
changes, so neither concurrency nor a crash can overspend.

Pure: no clock, no randomness, no I/O; time comes in as `now_ms`, the log's own.
"""

from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

import msgspec

from tollgate.errors import Refusal
from tollgate.events import Admitted, Candidate, Ended, Limits, Request
from tollgate.money import usd_text
from tollgate.prices.price import INPUT_METERS, OUTPUT_METERS
from tollgate.prices.rate import affordable_output, bound_pusd
from tollgate.processors.ledger import Ledger
from tollgate.processors.rates import RateLimit, check_all
from tollgate.processors.route.plan import Option, Route
from tollgate.wire import Ask

HOUR_MS = 3_600_000
RETRY_CONCURRENT_S = 1  # when a slot may be free again is not known; a second is short against a call


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator decided for requests whose cost has no natural bound."""

    default_max_tokens: int = 4096
    reject_missing_max_tokens: bool = False
    unpriced_hold_pusd: int | None = None  # None: a model without a price is refused under a budget
    per_user_rpm: int | None = None


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The record to append; with a refusal, what to tell the client; the limits as they stand, for the headers."""

    record: Admitted | Ended
    refusal: Refusal | None = None
    headers: tuple[tuple[str, str], ...] = ()


def decide(
    ledger: Ledger,
    request: Request,
    ask: Ask,
    route: Route | Refusal,
    *,
    limits: Limits,
    policy: Policy,
    src: int,
    now_ms: int,
    price_version: str,
) -> Decision:
    """Admit the request or refuse it. The ledger is read, not changed: that is `evolve`'s, with the record."""
    subject = f"key:{request.key_id}"
    period = period_of(now_ms)
    try:
        if isinstance(route, Refusal):
            raise route
        _check_concurrency(ledger, subject, limits)
        rates, headers = check_all(_rate_limits(request, limits, policy), ledger.tat_us, now_ms)
        available_pusd = None
        if limits.monthly_budget_pusd is not None:
            available_pusd = limits.monthly_budget_pusd - ledger.spent(subject, period) - ledger.held(subject, period)
        plan = _candidates(route, ask, policy, available_pusd)
        if not plan:
            raise _budget_spent(ledger, subject, period, limits, route, ask, policy)
    except Refusal as refusal:
        return Decision(
            record=reject(ledger.epoch, request, refusal, src=src, period=period, price_version=price_version),
            refusal=refusal,
            headers=tuple(refusal.headers.items()),
        )
    hold_pusd = None if available_pusd is None else max(candidate.bound_pusd or 0 for candidate in plan)
    return Decision(
        record=Admitted(
            epoch=ledger.epoch,
            src=src,
            request=request,
            subjects=(subject,),
            period=period,
            plan=plan,
            price_version=price_version,
            hold_pusd=hold_pusd,
            rates=rates,
        ),
        headers=headers,
    )


def reject(epoch: int, request: Request, refusal: Refusal, *, src: int, period: str, price_version: str = "") -> Ended:
    """The end of a request that was never admitted: it costs nothing and is billed nothing."""
    return Ended(
        epoch=epoch,
        src=src,
        request=request,
        status="rejected",
        http_status=refusal.status,
        period=period,
        error=refusal.code,
        reason=refusal.message,
        price_version=price_version,
    )


def period_of(at_ms: int) -> str:
    """The budget period of a time: its month in UTC, `2026-11`."""
    return _period_of_hour(at_ms // HOUR_MS)


@lru_cache(maxsize=64)
def _period_of_hour(hour: int) -> str:
    return datetime.fromtimestamp(hour * HOUR_MS / 1000, UTC).strftime("%Y-%m")


def period_end(period: str) -> datetime:
    """When the period's budgets are fresh again: the first instant of the next month, UTC."""
    year, month = map(int, period.split("-"))
    return datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)


# Budget -----------------------------------------------------------------------------------------------------------


def _candidates(route: Route, ask: Ask, policy: Policy, available_pusd: int | None) -> tuple[Candidate, ...]:
    """The plan with its bounds. Under a budget the first choice must fit; a dearer fallback that does not is left out.

    Empty when the first choice does not fit. Raises `Refusal` where no bound can be stated for it.
    """
    candidates: list[Candidate] = []
    before: Option | None = None
    terms: _Terms | None = None
    for option in route.options:
        if before is None or option.provider is not before.provider or option.price is not before.price:
            terms = _terms(option, ask, policy, available_pusd, first=not candidates)
        before = option  # another attempt at the same place is on the same terms
        if terms is not None:
            candidates.append(
                Candidate(
                    provider=option.provider.name,
                    account=option.account.name,
                    model=option.model,
                    protocol=option.protocol,
                    bound_pusd=terms.bound_pusd,
                    max_output_tokens=terms.output_cap,
                    backoff_ms=option.backoff_ms,
                )
            )
        elif not candidates:
            return ()
    return tuple(candidates)


class _Terms(NamedTuple):
    """The output limit that a call is sent with, and the most that it can then cost; None where there is none."""

    output_cap: int | None
    bound_pusd: int | None


def _terms(option: Option, ask: Ask, policy: Policy, available_pusd: int | None, *, first: bool) -> _Terms | None:
    """On which terms the request can go there; None if the budget covers none.

    Raises `Refusal` for the first choice where no bound can be stated; a fallback without one is left out.
    """
    cap = _output_cap(option, ask, policy, available_pusd)
    if cap is not None and cap < option.least_output_tokens and ask.max_output_tokens is None:
        return None  # the shortest answer that can be asked for is not affordable
    bound = _bound(option, ask, policy, cap)
    if available_pusd is not None:
        if bound is None and first:
            raise _unboundable(option, ask)
        if bound is None or bound > available_pusd:
            return None
    return _Terms(cap, bound)


def _output_cap(option: Option, ask: Ask, policy: Policy, available_pusd: int | None) -> int | None:
    """The output limit to send, per choice: the client's; else, under a budget, the most that it pays for.

    Without a budget none is sent where the provider does not insist, because defaults belong to the provider.
    """
    if ask.max_output_tokens is not None or ask.uncappable is not None:
        return ask.max_output_tokens
    default = policy.default_max_tokens
    if option.price is not None and option.price.max_output_tokens is not None:
        default = min(default, option.price.max_output_tokens)
    if available_pusd is None:
        return default if option.protocol == "anthropic" else None
    if policy.reject_missing_max_tokens:
        raise Refusal(
            400,
            "max_tokens_required",
            "A request under a budget must say how long its answer may be: set max_tokens.",
            param="max_tokens",
        )
    if option.price is None:
        return default
    affordable = affordable_output(
        option.price, input_tokens=_input_bound(option, ask), budget_pusd=max(0, available_pusd)
    )
    return min(default, affordable // ask.choices)


def _bound(option: Option, ask: Ask, policy: Policy, cap: int | None) -> int | None:
    if ask.free:
        return 0
    price = option.price
    if price is None:
        return policy.unpriced_hold_pusd
    if price.is_free:
        return 0
    output = _most_output(option, ask) if cap is None or ask.uncappable is not None else cap
    if _unbounded(option, ask) is not None or output is None:
        return None
    choices = max(ask.choices, ask.limits.images)
    return bound_pusd(price, input_tokens=_input_bound(option, ask), output_tokens=choices * output, limits=ask.limits)


def _most_output(option: Option, ask: Ask) -> int | None:
    """What comes out at most where no cap is sent, per choice: no model writes more than its window."""
    price = option.price
    if price is None or (ask.uncappable is not None and not price.charges(OUTPUT_METERS)):
        return 0
    return option.most_output_tokens or price.max_output_tokens or price.context_window


def _unbounded(option: Option, ask: Ask) -> str | None:
    """The field for which no bound can be stated, in what the model is charged by."""
    price = option.price
    if ask.uncappable is not None and _most_output(option, ask) is None:
        return ask.uncappable
    if ask.sound is not None and price is not None:
        too_long = price.charges(("audio_ms",)) and not ask.limits.audio_ms
        if too_long or (price.charges(INPUT_METERS) and price.context_window is None):
            return ask.sound
    return ask.unbounded or (ask.unbounded_at_home if option.at_home else None)


def _input_bound(option: Option, ask: Ask) -> int:
    """No tokenizer makes more tokens of a text than it has bytes, and no model reads more than its window."""
    window = option.price.context_window if option.price else None
    if ask.sound is not None and window is not None:  # it is no text
        return window
    return ask.input_bound_tokens if window is None else min(ask.input_bound_tokens, window)


def _unboundable(option: Option, ask: Ask) -> Refusal:
    if option.price is None:
        return Refusal(
            400,
            "model_unpriced",
            f"The model '{option.provider.name}/{option.model}' has no price, so a budget cannot cover it. "
            "Give it one in pricing.yaml, or set limits.unpriced to hold.",
            param="model",
        )
    field = _unbounded(option, ask)
    return Refusal(
        400,
        "cost_unbounded",
        f"What {field} makes the request cost cannot be bounded beforehand, so a budget cannot cover it. "
        "Leave it out, give the model its max_output_tokens or context_window in pricing.yaml, or use a key without a "
        "budget." + (" Of sound, WAV (PCM) and MP3 show how long they can be." if field == ask.sound else ""),
        param=field,
    )


def _budget_spent(
    ledger: Ledger, subject: str, period: str, limits: Limits, route: Route, ask: Ask, policy: Policy
) -> Refusal:
    limit = limits.monthly_budget_pusd or 0
    spent, held = ledger.spent(subject, period), ledger.held(subject, period)
    option = route.options[0]
    cap = option.least_output_tokens if ask.max_output_tokens is None else ask.max_output_tokens
    needed = _bound(option, ask, policy, cap) or 0
    reset = period_end(period)
    return Refusal(
        429,
        "QUOTA_EXCEEDED",
        f"The monthly budget of this key does not cover the request: it needs up to ${usd_text(needed)}, and "
        f"${usd_text(max(0, limit - spent - held))} of ${usd_text(limit)} is left "
        f"(${usd_text(spent)} spent, ${usd_text(held)} held by requests under way). "
        f"It is fresh again at {reset:%Y-%m-%dT%H:%M:%SZ}.",
        type="insufficient_quota",
        headers={"x-should-retry": "false"},
        details={
            "limit_name": "monthly_budget",
            "used": usd_text(spent),
            "held": usd_text(held),
            "limit": usd_text(limit),
            "needed": usd_text(needed),
            "reset_at": f"{reset:%Y-%m-%dT%H:%M:%SZ}",
        },
    )


# Rates ------------------------------------------------------------------------------------------------------------


def _check_concurrency(ledger: Ledger, subject: str, limits: Limits) -> None:
    limit = limits.concurrent_requests
    used = ledger.running.get(subject, 0)
    if limit is not None and used >= limit:
        raise Refusal(
            429,
            "QUOTA_EXCEEDED",
            f"This key may have {limit} requests under way at once, and has {used}. Try again when one has ended.",
            type="rate_limit_error",
            headers={"retry-after": str(RETRY_CONCURRENT_S)},
            details={"limit_name": "concurrent_requests", "used": used, "limit": limit, "reset_at": None},
        )


def _rate_limits(request: Request, limits: Limits, policy: Policy) -> tuple[RateLimit, ...]:
    """The limits that this partition keeps alone: of the key, and of the end user within the organisation."""
    found = []
    if limits.requests_per_minute is not None:
        name = f"key:{request.key_id}/requests_per_minute"
        found.append(RateLimit(name, limits.requests_per_minute, "requests_per_minute", "This key"))
    if policy.per_user_rpm is not None and request.user_id:
        name = f"user:{request.org_id}/{request.user_id}/requests_per_minute"
        found.append(RateLimit(name, policy.per_user_rpm, "user_requests_per_minute", "This user"))
    return tuple(found)
