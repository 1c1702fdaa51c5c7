"""Every event that is ever written to the log: facts in the past tense, frozen, versioned by their tag.

Events outlive the code. A new field gets a default. A changed meaning gets a new version in the tag and one entry in
`UPCASTERS`, which is never removed. `decode` ignores fields it does not know, so that a newer writer does not stop
an older reader; an unknown type or version is `Unreadable`. One of every version ever written lies in
`tests/golden/events/` and must still read. Amounts are pico-dollars (`_pusd`), times Unix milliseconds (`_ms`).

Pure: no clock, no I/O.
"""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import msgspec

from tollgate.errors import Unreadable

Dialect = Literal["openai", "anthropic", "responses", "gemini", "bedrock", "mistral", "ollama"]
CostSource = Literal["provider_reported", "computed", "estimated", "unpriced"]
UsageSource = Literal["provider", "estimated", "missing"]
Outcome = Literal["ok", "error", "cut", "cancelled", "abandoned"]
Status = Literal["completed", "failed", "rejected", "cancelled", "abandoned"]


class _Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A part of an event; never on the log by itself."""


class _Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", gc=False):
    """What all events share: `{"type": "<name>.<version>", ...}`, fields at their default left out."""


# Parts ---------------------------------------------------------------------------------------------------------------


class Usage(_Part, frozen=True):
    """What one provider call used, in disjoint classes: no token is counted twice, and the sum is what is charged.

    `input_tokens` are the uncached ones; `output_tokens` do not include `reasoning_tokens`.
    """

    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    cache_write_tokens: int = 0  # of another or unstated lifetime
    input_audio_tokens: int = 0
    input_image_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    output_audio_tokens: int = 0
    output_image_tokens: int = 0
    web_searches: int = 0
    images: int = 0  # made
    characters: int = 0  # spoken
    audio_ms: int = 0  # heard


class CostLine(_Part, frozen=True):
    """`quantity` units of one meter at one price. `bill_pusd` is what the tenant pays of it.

    The line's id is (request, attempt, revision, its index). Meters are the field names of `Usage`,
    `request` for a fee per call, `stated` for a call whose provider says itself what it cost, and `estimate` for what
    a call of unknown outcome may at most have cost.
    """

    meter: str
    quantity: int
    unit_price_pusd: int
    cost_pusd: int
    bill_pusd: int = 0
    price_version: str = ""
    cost_source: CostSource = "computed"


class Candidate(_Part, frozen=True):
    """One place where the request can be sent; a plan is the whole order of attempts.

    `bound_pusd` is the most that this call can cost, None when the model is unpriced.
    `backoff_ms` is waited before the attempt. `max_output_tokens` is the cap sent upstream, None when none is sent.
    """

    provider: str
    account: str
    model: str
    protocol: Dialect = "openai"
    bound_pusd: int | None = None
    max_output_tokens: int | None = None
    backoff_ms: int = 0


class Attempt(_Part, frozen=True):
    """One provider call that is over, with all that it used and cost."""

    attempt: int
    provider: str
    account: str
    model: str
    outcome: Outcome
    served_model: str | None = None
    error_class: str | None = None
    http_status: int | None = None
    reason: str | None = None
    started_ms: int = 0
    latency_ms: int = 0
    ttft_ms: int | None = None
    usage: Usage | None = None
    usage_raw: str | None = None  # the provider's own block, verbatim JSON
    usage_source: UsageSource = "missing"
    finish_reason: str | None = None
    upstream_request_id: str | None = None
    lines: tuple[CostLine, ...] = ()


class Request(_Part, frozen=True):
    """What is known of a request before anything is decided; no prompt is in it."""

    request_id: str
    org_id: str
    key_id: str
    endpoint: str
    dialect: Dialect
    model: str
    team_id: str | None = None
    user_id: str | None = None
    stream: bool = False
    tags: dict[str, str] = {}
    accepted_ms: int = 0
    deadline_ms: int = 0
    reply_to: str = ""  # the ingress and its present life, where the client waits
    body_bytes: int = 0


# Topic `requests` ---------------------------------------------------------------------------------------------------


class RequestAccepted(_Event, frozen=True, tag="request_accepted.1"):
    """An ingress has taken the request from an authenticated client, which now waits for a reply.

    `body` is sealed (AES-256-GCM); `seal` names the key. `headers` are those of the client that a provider may need.
    The owner decides only after it has applied the control topic up to `control_offset`. If the log has taken the
    request later than at `void_after_ms` of its own time, the client was refused meanwhile, and nothing is called. 0:
    that is not known.
    """

    request: Request
    body: bytes
    seal: str
    headers: dict[str, str] = {}
    control_offset: int = 0
    void_after_ms: int = 0


class CancelRequested(_Event, frozen=True, tag="cancel_requested.1"):
    """The client is gone, or reads too slowly. What has been received is metered, nothing more is asked for."""

    request_id: str
    reason: str


class ProbeAnswered(_Event, frozen=True, tag="probe_answered.1"):
    """An ingress says whether the client of a request that a new owner found open still waits, with nothing delivered.

    From now on it drops replies of epochs before `epoch`.
    """

    request_id: str
    epoch: int
    waiting: bool


class RunnerBeat(_Event, frozen=True, tag="runner_beat.1"):
    """The process at the address `runner` still runs these calls, which outlived its ownership of the partition."""

    runner: str
    request_ids: tuple[str, ...]


class CallReported(_Event, frozen=True, tag="call_reported.1"):
    """A call that outlived its owner is over; the present owner books it.

    `attempt` is the one that was handed over; 0 in reports that were written before it was said. `choice` is set when
    it failed and `plan[choice]` is due. Else the request ends with the rest, and with the last reply, whose body is
    sealed under `seal`.
    """

    request_id: str
    org_id: str
    runner: str
    attempts: tuple[Attempt, ...]
    attempt: int = 0
    choice: int | None = None
    status: Status = "completed"
    http_status: int = 200
    error: str | None = None
    reason: str | None = None
    ttft_ms: int | None = None
    overhead_us: int = 0
    seq: int = 0
    reply_status: int | None = None
    reply_headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    seal: str = ""
    upstream_us: int = 0


class IngressBeat(_Event, frozen=True, tag="ingress_beat.1"):
    """The ingress at the address lives. The streams of one that has been silent for long have no client any more."""

    address: str


class LeaseAsked(_Event, frozen=True, tag="lease_asked.1"):
    """The owner of `partition` needs `wanted` units of a limit that all partitions share; the limit's owner decides.

    The limit's own partition is that of its name as a key. `epoch` and `question` name what is answered.
    """

    limit: str
    per_minute: int
    wanted: int
    partition: int
    epoch: int
    question: int


class LeaseAnswered(_Event, frozen=True, tag="lease_answered.1"):
    """What the owner of a limit gives to the one who asked: units to be spent within two seconds of the question.

    `retry_ms` is set when it was not all that was wanted: more can be had then.
    """

    limit: str
    epoch: int
    question: int
    granted: int
    retry_ms: int = 0


class Limits(_Part, frozen=True):
    """What a key may use. None is no limit. `monthly_budget_pusd` counts the bill."""

    monthly_budget_pusd: int | None = None
    requests_per_minute: int | None = None
    concurrent_requests: int | None = None


class CreateKey(_Part, frozen=True, tag="create_key", tag_field="do"):
    """Make a key. `hash` is HMAC-SHA256(pepper, secret); the secret itself is never on the log."""

    key_id: str
    hash: str
    name: str
    org_id: str
    team_id: str | None = None
    limits: Limits = Limits()
    expires_ms: int | None = None


class UpdateKey(_Part, frozen=True, tag="update_key", tag_field="do"):
    """Replace the limits or the name of a key; refused if `expected_version` is not the present one."""

    key_id: str
    name: str | None = None
    limits: Limits | None = None
    expected_version: int | None = None


class RevokeKey(_Part, frozen=True, tag="revoke_key", tag_field="do"):
    """Make a key useless, at once and for ever."""

    key_id: str


class SetCredential(_Part, frozen=True, tag="set_credential", tag_field="do"):
    """Give an account with a provider this credential, in the place of any other.

    `sealed` is AES-256-GCM under a key of the gateway's secret, for this account alone. `last_four` is for people.
    """

    provider: str
    account: str
    kind: str
    sealed: bytes
    last_four: str = ""


class DeleteCredential(_Part, frozen=True, tag="delete_credential", tag_field="do"):
    """Take the credential away that was set; what the configuration says of the account counts again."""

    provider: str
    account: str


Action: TypeAlias = CreateKey | UpdateKey | RevokeKey | SetCredential | DeleteCredential


class CommandIssued(_Event, frozen=True, tag="command_issued.1"):
    """Somebody entitled to it asks for a change of the control state; the owner of partition 0 decides."""

    command_id: str
    actor: str  # the id of the key that asked
    action: Action
    reply_to: str = ""


# Topic `completions`: the journal -----------------------------------------------------------------------------------


class OwnerTook(_Event, frozen=True, tag="owner_took.1"):
    """A writer begins on this partition. Its epoch is the offset of this record."""

    instance: str
    address: str = ""


class Running(_Part, frozen=True):
    """A call that goes on after its owner has left."""

    request_id: str
    attempt: int
    runner: str


class OwnerReleased(_Event, frozen=True, tag="owner_released.1"):
    """The writer has stopped deciding and hands over; the calls named run on where they are."""

    epoch: int
    running: tuple[Running, ...] = ()


class Admitted(_Event, frozen=True, tag="admitted.1"):
    """The request's budgets cover it: its hold stands until it ends, and attempt 1 is about to start on `plan[0]`.

    `src` is the offset of the accepted request. `subjects` are those whose budget, rates and concurrency count it.
    `hold_pusd` is None where no budget applies. `rates` is the state of each rate limit after this request
    (theoretical arrival times in Unix microseconds, the GCRA of ITU-T I.371).
    """

    epoch: int
    src: int
    request: Request
    subjects: tuple[str, ...]
    period: str  # YYYY-MM, UTC
    plan: tuple[Candidate, ...]
    price_version: str
    hold_pusd: int | None = None
    rates: dict[str, int] = {}


class OwnerBeat(_Event, frozen=True, tag="owner_beat.1"):
    """The writer makes sure that it still is the owner, before it calls a provider a while after its last record."""

    epoch: int


class LeaseGranted(_Event, frozen=True, tag="lease_granted.1"):
    """Units of a limit were leased to the owner of another partition, and count as spent whatever becomes of them.

    The limit's state after them: the theoretical arrival time of its next request, in Unix microseconds, with leases
    that are over spent at their end; and of those that are not over, when they end, and their units.
    """

    epoch: int
    limit: str
    partition: int
    granted: int
    tat_us: int
    live: tuple[tuple[int, int], ...]


class AttemptStarted(_Event, frozen=True, tag="attempt_started.1"):
    """Attempt `attempt` is about to start on `plan[choice]`; `previous` is the one before it, which is over.

    Without `choice` it is `plan[attempt - 1]`. A repeat after a crash takes the same choice under the next number.
    """

    epoch: int
    request_id: str
    org_id: str
    attempt: int
    previous: Attempt | None = None
    choice: int | None = None


class Ended(_Event, frozen=True, tag="ended.1"):
    """The request's one end, with all that it used, cost and is billed. Complete by itself: a row comes from it alone.

    `src` is set when the request was never admitted. `bill_pusd` is the sum of the lines' bills and never exceeds
    the hold. `error` is one of the public error codes; `reason` is for people.
    """

    epoch: int
    request: Request
    status: Status
    http_status: int
    period: str
    src: int | None = None
    subjects: tuple[str, ...] = ()
    error: str | None = None
    reason: str | None = None
    attempts: tuple[Attempt, ...] = ()
    price_version: str = ""
    hold_pusd: int | None = None
    cost_pusd: int = 0
    bill_pusd: int = 0
    latency_ms: int = 0
    ttft_ms: int | None = None
    overhead_us: int = 0
    cache: str | None = None


class Adjusted(_Event, frozen=True, tag="adjusted.1"):
    """Something was learned after the end: `lines` reverse the estimated ones and state the true, at their own time."""

    epoch: int
    request_id: str
    org_id: str
    attempt: int
    revision: int
    reason: str
    lines: tuple[CostLine, ...]
    request: Request | None = None


# Topic `costs` ------------------------------------------------------------------------------------------------------


class CostsBooked(_Event, frozen=True, tag="costs_booked.1"):
    """The cost lines of one attempt, copied from the journal record at `journal_offset`; a second copy is no other."""

    request_id: str
    org_id: str
    attempt: int
    revision: int
    provider: str
    account: str
    model: str
    journal_offset: int
    lines: tuple[CostLine, ...]


# Topic `control` ----------------------------------------------------------------------------------------------------


class KeySet(_Event, frozen=True, tag="key_set.1"):
    """The whole present state of a key. `src` is the offset of the command that made it so."""

    key_id: str
    hash: str
    name: str
    org_id: str
    version: int
    src: int
    command_id: str
    created_ms: int
    team_id: str | None = None
    limits: Limits = Limits()
    expires_ms: int | None = None
    revoked_ms: int | None = None


class CredentialSet(_Event, frozen=True, tag="credential_set.1"):
    """The whole present state of the credential that was set for an account; without `kind` it was taken away.

    `src` is the offset of the command that made it so, `sealed` what that brought.
    """

    provider: str
    account: str
    version: int
    src: int
    command_id: str
    set_ms: int
    set_by: str  # the id of the key that asked
    kind: str | None = None
    sealed: bytes = b""
    last_four: str = ""


class ControlTaken(_Event, frozen=True, tag="control_taken.1"):
    """An owner begins to write the topic. What one of a lower epoch writes after this record does not count.

    The epoch is that of its `OwnerTook` in the journal of the partition that takes commands.
    """

    epoch: int
    instance: str


class ControlBeat(_Event, frozen=True, tag="control_beat.1"):
    """The topic can be written and read: whoever has not read anything new for a while knows that it may be behind."""

    at_ms: int


# Topic `replies` ----------------------------------------------------------------------------------------------------


class ReplySent(_Event, frozen=True, tag="reply_sent.1"):
    """A piece of an answer is on its way to the ingress at `address`. `body` is sealed under the request's own seal.

    `seq` counts from 0 within (request, epoch); the highest epoch wins.
    """

    address: str
    request_id: str
    org_id: str
    epoch: int
    attempt: int
    seq: int
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    seal: str = ""  # empty: the body is not sealed, for nothing in it is anybody's content
    last: bool = False
    upstream_us: int = 0


class ProbeSent(_Event, frozen=True, tag="probe_sent.1"):
    """A new owner asks the ingress at `address` whether the client of an open request still waits."""

    address: str
    request_id: str
    org_id: str
    epoch: int


# Topic `seals` ------------------------------------------------------------------------------------------------------


class SealMade(_Event, frozen=True, tag="seal_made.1"):
    """A data key of an organisation and hour, wrapped under the gateway's secret. Its tombstone is its deletion."""

    seal_id: str
    wrapped: bytes


# Topic `audit` ------------------------------------------------------------------------------------------------------


class AuditRecorded(_Event, frozen=True, tag="audit_recorded.1"):
    """Somebody was refused, or changed something. Neither secret nor prompt is in it."""

    actor: str
    action: str
    org_id: str = "default"
    target: str | None = None
    key_id: str | None = None
    user_id: str | None = None
    method: str | None = None
    route: str | None = None
    status: int | None = None
    request_id: str | None = None
    ip: str | None = None
    before: str | None = None
    after: str | None = None


# Topic `dead-letters` -----------------------------------------------------------------------------------------------


class DeadLetter(_Event, frozen=True, tag="dead_letter.1"):
    """A record that could not be read, kept whole, with the reason."""

    topic: str
    partition: int
    offset: int
    reason: str
    value: bytes


Event: TypeAlias = (
    RequestAccepted
    | CancelRequested
    | ProbeAnswered
    | RunnerBeat
    | CallReported
    | IngressBeat
    | LeaseAsked
    | LeaseAnswered
    | CommandIssued
    | OwnerTook
    | OwnerReleased
    | OwnerBeat
    | LeaseGranted
    | Admitted
    | AttemptStarted
    | Ended
    | Adjusted
    | CostsBooked
    | KeySet
    | CredentialSet
    | ControlTaken
    | ControlBeat
    | ReplySent
    | ProbeSent
    | SealMade
    | AuditRecorded
    | DeadLetter
)

# (type, version) of what was once written → the same facts as the next version states them
UPCASTERS: dict[tuple[str, int], Callable[[dict[str, Any]], dict[str, Any]]] = {}

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)

encode: Callable[[Event], bytes] = _encoder.encode


class _Tagged(msgspec.Struct):
    type: str = ""


_tag_decoder = msgspec.json.Decoder(_Tagged)


def decode(value: bytes | memoryview) -> Event:
    """The event in `value`, brought up to its newest version. Raises `Unreadable` with its type in the text."""
    try:
        event: Event = _decoder.decode(value)
        return event
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        return _decode_old(value, error)


def _decode_old(value: bytes | memoryview, error: Exception) -> Event:
    try:
        tag = _tag_decoder.decode(value).type
        name, _, version = tag.rpartition(".")
        upcast = UPCASTERS.get((name, int(version)))
        if upcast is None:
            raise Unreadable(f"cannot read event {tag!r}: {error}")
        facts = upcast(msgspec.json.decode(value))
        facts["type"] = f"{name}.{int(version) + 1}"
        return decode(_encoder.encode(facts))
    except (msgspec.MsgspecError, RecursionError, ValueError) as second:
        raise Unreadable(f"not an event: {second}") from error
