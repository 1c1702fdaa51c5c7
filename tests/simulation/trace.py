"""Records in a few words, for people to follow a run. None of them is random: sealed bodies and times spent, which
differ from run to run, are left out, so that two runs that went the same way read the same."""

from tests.simulation.log import STATE
from tollgate.events import decode
from tollgate.log import Record

_TOLD = (
    "request_id",
    "epoch",
    "src",
    "attempt",
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


def described(record: Record) -> str:
    """What a record says."""
    if record.topic == STATE:
        return f"{(record.key or b'').decode()} {'deleted' if record.value is None else 'written'}"
    event = decode(record.value or b"")
    known = {name: getattr(event, name) for name in _TOLD if hasattr(event, name)}
    request = getattr(event, "request", None)
    if request is not None:
        known["request_id"] = request.request_id
    facts = " ".join(f"{name}={value}" for name, value in known.items() if value is not None)
    return f"{type(event).__name__} at {record.timestamp_ms} {facts}"
