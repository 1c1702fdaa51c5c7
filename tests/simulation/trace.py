"""The steps of a run in a few words, for people to follow it. None of them is random: sealed bodies and times spent,
which differ from run to run, are left out, so that two runs that went the same way read the same."""

from tests.simulation.log import STATE
from tollgate.events import decode
from tollgate.log import Record

Step = tuple[float, str, str | Record]  # when, who, what

_TOLD = (
    "request_id",
    "epoch",
    "src",
    "attempt",
    "seq",
    "last",
    "choice",
    "waiting",
    "runner",
    "running",
    "address",
    "status",
    "error",
    "hold_pusd",
    "cost_pusd",
    "bill_pusd",
    "period",
    "journal_offset",
    "key_id",
    "command_id",
    "limits",
    "reason",
)


def rendered(step: Step) -> str:
    """One line. Done when somebody asks, for most runs are never looked at."""
    at_s, who, what = step
    text = what if isinstance(what, str) else f"{what.topic}/{what.offset}: {_described(what)}"
    return f"{at_s:10.4f}  {who:<12} {text}"


def _described(record: Record) -> str:
    if record.topic == STATE or record.value is None:
        return f"{(record.key or b'').decode()} {'deleted' if record.value is None else 'written'}"
    event = decode(record.value)
    known = {name: getattr(event, name) for name in _TOLD if hasattr(event, name)}
    request = getattr(event, "request", None)
    if request is not None:
        known["request_id"] = request.request_id
    facts = " ".join(f"{name}={value}" for name, value in known.items() if value not in (None, ()))
    return f"{type(event).__name__} at {record.timestamp_ms} {facts}"
