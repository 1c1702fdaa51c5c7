"""Every recorded answer of a provider, told to the clients of every dialect.

Each is judged by the types of the client's own SDK, and by what it says. Prints a table: file, and passed of tried.
"""

import orjson
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter, ValidationError

from tests.conftest import SUMMARY
from tests.wire import recordings
from tests.wire.fixtures import DIALECTS, by_byte, payloads, stream, unary
from tests.wire.recordings import MAX_CUT_BYTES, Table
from tests.wire.said import SAID
from tollgate.errors import ERROR_CLASSES, ProviderError, Refusal
from tollgate.wire import Quirks
from tollgate.wire.exchange import PROTOCOLS, cannot_carry, exchange_for

if not recordings.exists():
    pytest.skip(recordings.MISSING, allow_module_level=True)

ANTHROPIC_EVENT = TypeAdapter(RawMessageStreamEvent)
RESPONSES_EVENT = TypeAdapter(ResponseStreamEvent)
RESPONSE = TypeAdapter(Response)

# Which protocol the exchanges of a file speak
FILES = {
    "alibaba.chat": "openai",
    "anthropic.messages": "anthropic",
    "azure.chat": "openai",
    "azure.responses": "responses",
    "bedrock.openai_compat_chat": "openai",
    "bedrock.openai_compat_responses": "responses",
    "cerebras.chat": "openai",
    "deepseek.chat": "openai",
    "google.openai_compat_chat": "openai",
    "groq.chat": "openai",
    "huggingface.chat": "openai",
    "moonshot.chat": "openai",
    "ollama.openai_compat_chat": "openai",
    "openai-compatible.chat": "openai",
    "openai-compatible.responses": "responses",
    "openai.chat": "openai",
    "openai.responses": "responses",
    "openrouter.chat": "openai",
    "openrouter.responses": "responses",
    "perplexity.chat": "openai",
    "together.chat": "openai",
    "xai.chat": "openai",
    "xai.responses": "responses",
    "zai.chat": "openai",
}

# What cannot pass, and why
_JOINED = "the source has joined two answers into one body: what comes after the end of the first is not read"
_BACKGROUND = "the answer is not there yet: it is asked for later, which the gateway refuses beforehand"
EXCEPTIONS = {
    "59b322feea1c1c19": "the source has left out pieces of the text that the end of the answer repeats",
    "a56b8ce48e85c513": _JOINED,
    "79bef0200c96ef64": _BACKGROUND,
    "53db9245885a1f1c": _BACKGROUND,
    "795fd6dbb78c13f4": _JOINED,
    "156051275e073cd3": _JOINED,
    "23c62bdc2cb91caf": _JOINED,
}


_ERRORS = frozenset({"inband_error", "term_response.failed"})  # how an answer that failed inside a 200 is marked


def validate(client, sent, *, is_stream):
    """Every payload satisfies the types of the client's own SDK."""
    for payload in sent:
        if client == "openai":
            (ChatCompletionChunk if is_stream else ChatCompletion).model_validate(payload)
        elif client == "responses":
            (RESPONSES_EVENT if is_stream else RESPONSE).validate_python(payload)
        elif not is_stream:
            Message.model_validate(payload)
        elif payload["type"] != "ping":
            ANTHROPIC_EVENT.validate_python(payload)


def is_valid(client, sent, *, is_stream):
    try:
        validate(client, sent, is_stream=is_stream)
    except ValidationError:
        return False
    return True


def told(client, protocol, recording):
    """What the client gets, as payloads, and the exchange."""
    if recording.is_stream:
        out, exchange = stream(client, protocol, [recording.body])
        return payloads(out), exchange
    answer, exchange = unary(client, protocol, recording.body)
    return [answer], exchange


def given(protocol, recording):
    return payloads(recording.body.rstrip(b"\r\n") + b"\n\n") if recording.is_stream else [orjson.loads(recording.body)]


def raises(protocol, recording):
    for client in DIALECTS:
        with pytest.raises(ProviderError):
            told(client, protocol, recording)


@pytest.mark.parametrize("name", FILES)
def test_every_recorded_answer_is_told_in_every_dialect(name, record_property):
    protocol = FILES[name]
    table = Table(name, EXCEPTIONS)
    for recording in recordings.recordings(name):
        if recording.status >= 300:
            continue
        if not _ERRORS.isdisjoint(recording.edge):
            table.check("error", recording, lambda recording=recording: raises(protocol, recording))
            continue
        came = given(protocol, recording)
        for client in DIALECTS:
            # what a provider sends to clients of its own dialect they get as it is, also where it errs
            judged = client != protocol or is_valid(client, came, is_stream=recording.is_stream)

            def tell(client=client, recording=recording, came=came, judged=judged):
                sent, _ = told(client, protocol, recording)
                assert SAID[client](sent) == SAID[protocol](came)
                if judged:
                    validate(client, sent, is_stream=recording.is_stream)

            table.check(client if judged else f"{client}, invalid as it came", recording, tell)
            if recording.is_stream and len(recording.body) <= MAX_CUT_BYTES:

                def cut(client=client, recording=recording):
                    whole, one = stream(client, protocol, [recording.body])
                    pieces, other = stream(client, protocol, by_byte(recording.body))
                    assert pieces == whole
                    assert one.meter == other.meter

                table.check(f"{client} cut", recording, cut)
    record_property(SUMMARY, str(table))
    assert not table.failures, "\n" + "\n".join(table.failures)


@pytest.mark.parametrize("name", FILES)
def test_every_recorded_request_is_carried_or_refused_by_name(name, record_property):
    protocol = FILES[name]
    table = Table(name, EXCEPTIONS)
    for recording in recordings.recordings(name):
        if recording.request is None or recording.status >= 300:
            continue
        for target in DIALECTS:

            def carry(target=target, request=recording.request):
                refused = cannot_carry(protocol, target, request, model=request.get("model") or "")
                if refused is not None:
                    assert refused.code == "unsupported_parameter", refused.param
                    raise refused
                exchange_for(
                    protocol,
                    target,
                    request,
                    request_id="0198b4f0-1234-7000-8000-000000000001",
                    model="m",
                    max_output_tokens=None,
                    headers={},
                    quirks=Quirks(),
                )

            def carry_or_refuse(carry=carry):
                try:
                    carry()
                except Refusal as refused:
                    assert refused.code == "unsupported_parameter"

            table.check(f"to {target}", recording, carry_or_refuse)
    record_property(SUMMARY, str(table))
    assert not table.failures, "\n" + "\n".join(table.failures)


@pytest.mark.parametrize("name", FILES)
def test_every_recorded_error_is_classified(name):
    wire = PROTOCOLS[FILES[name]]
    for recording in recordings.recordings(name):
        if recording.status >= 300:
            error = wire.provider_error(recording.status, recording.headers, recording.body)
            assert error.error_class in ERROR_CLASSES, recording.id
            assert isinstance(error, ProviderError)
