"""Every recorded answer of a provider, told to the clients of every dialect.

Each is judged by the types of the client's own SDK, and by what it says. Prints a table: file, and passed of tried.
"""

import orjson
import pytest

from tests.conftest import SUMMARY
from tests.wire import recordings
from tests.wire.fixtures import DIALECTS, by_byte, came, payloads, stream, unary
from tests.wire.recordings import MAX_CUT_BYTES, Table
from tests.wire.said import SAID
from tests.wire.sdk import is_valid, validate
from tollgate.errors import ERROR_CLASSES, ProviderError
from tollgate.wire import gemini, neutral
from tollgate.wire.exchange import PROTOCOLS

if not recordings.exists():
    pytest.skip(recordings.MISSING, allow_module_level=True)

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
    "google.generateContent": "gemini",
    "google.openai_compat_chat": "openai",
    "google.streamGenerateContent": "gemini",
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
    "vertex.generateContent": "gemini",
    "vertex.streamGenerateContent": "gemini",
    "xai.chat": "openai",
    "xai.responses": "responses",
    "zai.chat": "openai",
}

# What cannot pass, and why
_JOINED = "the source has joined two answers into one body: what comes after the end of the first is not read"
_BACKGROUND = "the answer is not there yet: it is asked for later, which the gateway refuses beforehand"
_NO_ANSWER = "a cached content, which the source keeps among the answers"
_NO_FINISH = "written by Google to be malformed: it says neither anything nor that it is over"
EXCEPTIONS = {
    "59b322feea1c1c19": "the source has left out pieces of the text that the end of the answer repeats",
    "a56b8ce48e85c513": _JOINED,
    "79bef0200c96ef64": _BACKGROUND,
    "53db9245885a1f1c": _BACKGROUND,
    "795fd6dbb78c13f4": _JOINED,
    "156051275e073cd3": _JOINED,
    "23c62bdc2cb91caf": _JOINED,
    "3d52f18f33b95a46": _NO_ANSWER,
    "0da91898b9bd1a99": _NO_ANSWER,
    "369deeb2b393d417": _NO_FINISH,
}


_ERRORS = frozenset({"inband_error", "term_response.failed"})  # how an answer that failed inside a 200 is marked


def told(client, protocol, recording):
    """What the client gets, as payloads, and the exchange."""
    if recording.is_stream:
        out, exchange = stream(client, protocol, [recording.body])
        return payloads(out), exchange
    answer, exchange = unary(client, protocol, recording.body)
    return [answer], exchange


def given(recording):
    return came(recording.body) if recording.is_stream else [orjson.loads(recording.body)]


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
        said = given(recording)
        for client in DIALECTS:
            # what a provider sends to clients of its own dialect they get as it is, also where it errs
            judged = client != protocol or is_valid(client, said, is_stream=recording.is_stream)

            def tell(client=client, recording=recording, said=said, judged=judged):
                sent, _ = told(client, protocol, recording)
                assert SAID[client](sent) == SAID[protocol](said)
                for payload in sent if judged else ():
                    validate(client, payload, is_stream=recording.is_stream)

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
def test_every_recorded_error_is_classified(name):
    wire = PROTOCOLS[FILES[name]]
    for recording in recordings.recordings(name):
        if recording.status >= 300:
            error = wire.provider_error(recording.status, recording.headers, recording.body)
            assert error.error_class in ERROR_CLASSES, recording.id
            assert isinstance(error, ProviderError)


def test_usage_of_google_is_read_as_genai_prices_reads_it():
    """Its data set of usage blocks, with what it makes of each; totals there include their parts."""
    compared = 0
    for row in recordings.usage_oracle():
        block = row["body"].get("usageMetadata")
        if block is None:
            continue
        usage = gemini.read_usage(block)
        assert usage is not None, row["id"]
        for extracted in (one["usage"] for one in row["extracted"]):
            compared += 1
            assert {
                "input_tokens": neutral.total_input(usage),
                "output_tokens": neutral.total_output(usage),
                "cache_read_tokens": usage.cache_read_tokens,
                "output_reasoning_tokens": usage.reasoning_tokens,
                "output_image_tokens": usage.output_image_tokens,
            } == {field: extracted.get(field, 0) for field in _COMPARED}, row["id"]
    assert compared


_COMPARED = ("input_tokens", "output_tokens", "cache_read_tokens", "output_reasoning_tokens", "output_image_tokens")
