"""What a provider's failure means, and what the client is told of it.

Providers agree on neither status nor words, so both are asked: words that mean one thing only come first, then the
status, then the vaguer words. Nothing here raises, whatever the provider sent. Pure.
"""

import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import orjson

from tollgate.errors import ERROR_CLASSES, ProviderError, Refusal

MAX_MESSAGE_CHARS = 1000
MAX_SHOWN_RETRY_AFTER_S = 60  # the SDKs sleep as long as they are told to, silently

# Credentials that a provider repeats in its message
_SECRET = re.compile(r"(?i)\bbearer\s+\S+|\b(?:sk|rk|gsk|xai|pplx)-[\w*.\-]+|\bAIza[\w\-]{10,}|\bya29\.[\w\-.]+")


# Classification -----------------------------------------------------------------------------------------------------


class _Sign(NamedTuple):
    """What gives a class away: a word in `code` or `type`, or a phrase in the message (both in lower case)."""

    error_class: str
    words: frozenset[str]
    phrases: tuple[str, ...] = ()


# In this order. A phrase is believed only where the provider blames the request (400, 403, 413, 422, or in-band).
_CERTAIN = (
    _Sign(
        "quota",
        frozenset(
            {
                "insufficient_quota",
                "billing_error",
                "billing_hard_limit_reached",
                "billing_not_active",
                "billing_disabled",
                "servicequotaexceededexception",
            }
        ),
        ("credit balance is too low",),
    ),
    _Sign(
        "content_filter",
        frozenset({"content_filter", "content_policy_violation", "responsibleaipolicyviolation", "invalid_prompt"}),
        ("content management policy", "content filtering policy", "your input was flagged"),
    ),
    _Sign(
        "context_window",
        frozenset({"context_length_exceeded", "model_context_window_exceeded", "exceed_context_size_error"}),
        (
            "prompt is too long",
            "input is too long",
            "maximum context length",
            "maximum prompt length",
            "exceed context limit",
            "exceeds the context window",
            "exceeds the available context size",
            "input token count exceeds",
            "exceeds the maximum number of tokens allowed",
            "reduce the length of the messages",
        ),
    ),
    _Sign("not_found", frozenset({"model_not_found", "not_found_error"})),
    _Sign(
        "auth",
        frozenset(
            {
                "invalid_api_key",
                "authentication_error",
                "permission_error",
                "permission_denied",
                *("api_key_invalid", "unauthenticated"),
                *("accessdeniedexception", "unrecognizedclientexception", "expiredtokenexception"),
            }
        ),
        ("incorrect api key", "invalid api key", "api key not valid", "user location is not supported"),
    ),
    _Sign("overloaded", frozenset({"overloaded_error", "engine_overloaded_error", "serviceunavailableexception"})),
    _Sign("timeout", frozenset({"timeout_error", "request_timeout", "modeltimeoutexception"})),
    _Sign(
        "rate_limit",
        frozenset({"rate_limit_error", "rate_limit_exceeded", "throttlingexception", "modelnotreadyexception"}),
    ),
)
_BLAMES_THE_REQUEST = frozenset({None, 400, 403, 413, 422})

_BY_STATUS = {
    401: "auth",
    402: "quota",
    403: "auth",
    404: "not_found",
    408: "timeout",
    409: "server_error",  # a conflict inside the provider, which its own SDKs retry
    424: "server_error",  # the model behind the provider failed
    429: "rate_limit",
    503: "overloaded",
    504: "timeout",
    529: "overloaded",
}
_OUR_FAULT = frozenset(
    {"invalid_request_error", "bad_request", "validationexception"}
)  # of an in-band error without status


def classify(status: int | None, code: str | None, type: str | None, message: str) -> str:
    """One of `ERROR_CLASSES`. `status` is None for an error sent in-band without one."""
    words = {word.lower() for word in (code, type) if word}
    said = message.lower() if status in _BLAMES_THE_REQUEST else ""
    for sign in _CERTAIN:
        if not words.isdisjoint(sign.words) or any(phrase in said for phrase in sign.phrases):
            return sign.error_class
    if status is None:
        return "server_error" if words.isdisjoint(_OUR_FAULT) else "bad_request"
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return "bad_request" if 400 <= status < 500 else "server_error"


# Reading ------------------------------------------------------------------------------------------------------------


def provider_error(status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    """A non-2xx answer of any provider that speaks JSON."""
    lower = {name.lower(): value for name, value in headers.items()}
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError:
        payload = None
    wait_s = retry_after_s(lower) if status == 429 or status >= 500 else None
    return _error(payload, status=status, retry_after_s=wait_s)


def inband_error(payload: object) -> ProviderError:
    """An error sent inside a 2xx answer: the event or body that holds it."""
    return _error(payload, status=None, retry_after_s=None)


def unreadable(why: str) -> ProviderError:
    """The provider broke its own protocol. `why` repeats nothing of what it sent."""
    return ProviderError("server_error", f"the provider's answer cannot be read: {why}")


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The provider's wish from `retry-after-ms` or `retry-after` (RFC 9110, section 10.2.3).

    A date is measured from the answer's own `date`, so that no clock is needed. None if unreadable.
    """
    try:
        if "retry-after-ms" in headers:
            wait_s = float(headers["retry-after-ms"]) / 1000
        elif headers.get("retry-after", "")[:1].isalpha():
            until = parsedate_to_datetime(headers["retry-after"])
            wait_s = (until - parsedate_to_datetime(headers["date"])).total_seconds()
        else:
            wait_s = float(headers["retry-after"])
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
    return max(0.0, wait_s) if math.isfinite(wait_s) else None


def _error(payload: object, *, status: int | None, retry_after_s: float | None) -> ProviderError:
    details = _details(payload)
    code, type, param = (_word(details.get(name)) for name in ("code", "type", "param"))
    google = _rpc_details(details)
    if google is not None:
        code, type = _google_words(google, details)
        if retry_after_s is None and status in (None, 429, 503):
            retry_after_s = _retry_delay_s(google)
    if status is None:
        status = _status(details.get("status_code")) or _status(details.get("code"))
    said = details.get("message") or details.get("detail") or ""
    message = said if isinstance(said, str) else orjson.dumps(said).decode()
    error_class = classify(status, code, type, message)
    if error_class == "auth" or not message:  # the text of a refused credential may hold parts of it
        message = ERROR_CLASSES[error_class]
    return ProviderError(
        error_class,
        _SECRET.sub("[removed]", message)[:MAX_MESSAGE_CHARS],
        status=status,
        code=code,
        type=type,
        param=param,
        retry_after_s=retry_after_s,
    )


def _details(payload: object) -> dict[str, object]:
    """The object that holds message and code, wherever the provider has put it."""
    if isinstance(payload, list):  # Google's compatible endpoint wraps its error in a list
        payload = payload[0] if payload else None
    if not isinstance(payload, dict):
        return {}
    error = payload.get("error")
    if isinstance(error, dict):
        return error
    return {**payload, "message": error} if isinstance(error, str) else payload


# Google's errors (google/rpc/error_details.proto): `status` is the class, what is known of the cause is in `details`

_Details = dict[str, dict[str, object]]
_RETRY_DELAY = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s")


def _rpc_details(error: Mapping[str, object]) -> _Details | None:
    """The entries of `details` by the last word of their type; None where the error is not one of Google's."""
    if _word(error.get("status")) is None or not isinstance(error.get("code"), int):
        return None
    found = error.get("details")
    return {
        str(one.get("@type")).rpartition(".")[2]: one
        for one in (found if isinstance(found, list) else ())
        if isinstance(one, dict)
    }


def _google_words(google: _Details, error: Mapping[str, object]) -> tuple[str | None, str | None]:
    """Code and type. A limit per day, or one of 0, is not over in a moment: it counts as a quota that is spent."""
    violations = google.get("QuotaFailure", {}).get("violations")
    for violation in violations if isinstance(violations, list) else ():
        if isinstance(violation, dict) and (
            "PerDay" in str(violation.get("quotaId")) or str(violation.get("quotaValue")) == "0"
        ):
            return "insufficient_quota", _word(error.get("status"))
    return _word(google.get("ErrorInfo", {}).get("reason")), _word(error.get("status"))


def _retry_delay_s(google: _Details) -> float | None:
    found = _RETRY_DELAY.fullmatch(str(google.get("RetryInfo", {}).get("retryDelay")))
    return float(found[1]) if found else None


def _word(value: object) -> str | None:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) and value != "" else None


def _status(value: object) -> int | None:
    """An HTTP status given as a number or its digits, as OpenRouter, Groq and Azure do in-band."""
    word = _word(value)
    return int(word) if word is not None and re.fullmatch("[45][0-9]{2}", word) else None


# Showing ------------------------------------------------------------------------------------------------------------


class _Shown(NamedTuple):
    status: int
    type: str
    code: str
    provider_text: bool = False  # the client's own doing: it needs the provider's words to mend it


_SHOWN = {
    "bad_request": _Shown(400, "invalid_request_error", "bad_request", provider_text=True),
    "context_window": _Shown(400, "invalid_request_error", "context_length_exceeded", provider_text=True),
    "content_filter": _Shown(400, "invalid_request_error", "content_filter", provider_text=True),
    "not_found": _Shown(404, "invalid_request_error", "model_not_found"),
    "rate_limit": _Shown(429, "rate_limit_error", "rate_limit_exceeded"),
    "overloaded": _Shown(503, "server_error", "overloaded"),
    "timeout": _Shown(504, "timeout", "timeout"),
    "auth": _Shown(502, "server_error", "provider_auth"),
    "quota": _Shown(502, "server_error", "provider_quota"),
    "server_error": _Shown(502, "server_error", "provider_error"),
    "connection": _Shown(502, "server_error", "provider_unreachable"),
    "cut": _Shown(502, "server_error", "provider_cut"),
}


def refusal_of(error: ProviderError, *, provider: str = "", model: str = "") -> Refusal:
    """What the client is told when no other provider is left: whose failure it was, and of which model's call.

    The provider's own words only where the request is at fault: otherwise they may name the operator's account.
    """
    shown = _SHOWN[error.error_class]
    who = f"{provider} ({model}): " if provider else ""
    if shown.provider_text:
        message, code = who + error.message, error.code or shown.code
        return Refusal(shown.status, code, message, type=shown.type, param=error.param)
    status = "" if error.status is None else f" (HTTP {error.status})"
    message = f"{who}{ERROR_CLASSES[error.error_class]}{status}"
    headers = _wait_headers(error.retry_after_s) if shown.status in (429, 503) else {}
    return Refusal(shown.status, shown.code, message, type=shown.type, headers=headers)


def _wait_headers(wait_s: float | None) -> dict[str, str]:
    if wait_s is None:
        return {}
    if wait_s > MAX_SHOWN_RETRY_AFTER_S:
        return {"x-should-retry": "false"}
    return {"retry-after": str(math.ceil(wait_s))}
