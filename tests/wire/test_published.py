"""Every request that a translation writes is valid by what the provider itself publishes, or refused by name."""

import orjson
import pytest

from tests.conftest import SUMMARY
from tests.wire import recordings
from tests.wire.published.judges import problems
from tests.wire.recordings import Table
from tests.wire.requests import MODELS, PAIRS, QUIRKS, REQUESTS
from tollgate.errors import Refusal
from tollgate.events import Dialect
from tollgate.wire import Quirks
from tollgate.wire.exchange import exchange_for, least_output_tokens

# The recordings that hold requests of a dialect, each of which goes to every other protocol
FILES: dict[Dialect, tuple[str, ...]] = {
    "openai": (
        "alibaba.chat",
        "azure.chat",
        "cerebras.chat",
        "deepseek.chat",
        "google.openai_compat_chat",
        "groq.chat",
        "huggingface.chat",
        "ollama.openai_compat_chat",
        "openai-compatible.chat",
        "openai.chat",
        "openrouter.chat",
        "perplexity.chat",
        "together.chat",
        "xai.chat",
        "zai.chat",
    ),
    "anthropic": ("anthropic.messages",),
    "responses": ("azure.responses", "openai.responses", "openrouter.responses", "xai.responses"),
    "gemini": (
        "google.generateContent",
        "google.streamGenerateContent",
        "vertex.generateContent",
        "vertex.streamGenerateContent",
    ),
}


def sent(dialect, protocol, body, *, model):
    """What a provider gets. Raises `Refusal`."""
    exchange = exchange_for(
        dialect,
        protocol,
        body,
        request_id="0198b4f0-1234-7000-8000-000000000001",
        model=model,
        max_output_tokens=None,
        headers={},
        quirks=QUIRKS.get(protocol, Quirks()),
    )
    return orjson.loads(exchange.request.body)


@pytest.mark.parametrize(("dialect", "protocol"), PAIRS)
def test_all_that_a_request_can_say_is_valid_where_it_goes(dialect, protocol):
    carried = 0
    for title, body in REQUESTS[dialect].items():
        for model in MODELS[protocol]:
            try:
                wrong = problems(protocol, sent(dialect, protocol, body, model=model))
            except Refusal as refusal:
                assert refusal.code == "unsupported_parameter", (title, model)
            else:
                carried += 1
                assert not wrong, (title, model)
    assert carried > len(REQUESTS[dialect]) // 2


@pytest.mark.skipif(not recordings.exists(), reason=recordings.MISSING)
@pytest.mark.parametrize("protocol", MODELS)
def test_every_recorded_request_is_valid_where_it_goes(protocol, record_property):
    table = Table(f"requests to {protocol}", {})
    for dialect, files in FILES.items():
        for name in files if dialect != protocol else ():
            for recording in recordings.recordings(name):
                if recording.request is None or recording.status >= 300:
                    continue
                for model in MODELS[protocol]:
                    try:
                        body = sent(dialect, protocol, recording.request, model=model)
                    except Refusal as refusal:
                        assert refusal.code == "unsupported_parameter", (recording.id, refusal.param)
                        continue

                    def judge(body=body):
                        assert not problems(protocol, body)

                    table.check(dialect, recording, judge)
    record_property(SUMMARY, str(table))
    assert not table.failures, "\n" + "\n".join(table.failures)


def test_a_budget_pays_for_no_cap_that_a_protocol_refuses():
    assert {protocol: least_output_tokens(protocol) for protocol in MODELS} == dict.fromkeys(MODELS, 1) | {
        "responses": 16
    }


def test_a_judge_finds_what_is_wrong():
    """Of each protocol a request with a field too many, and one without what it must have."""
    for dialect, protocol in PAIRS:
        body = sent(dialect, protocol, REQUESTS[dialect]["system texts"], model=MODELS[protocol][0])
        turns = next(field for field in ("messages", "input", "contents") if field in body)
        assert not problems(protocol, body)
        assert problems(protocol, body | {"x_new": 1})
        assert problems(protocol, body | {turns: [body[turns][-1] | {"x_new": 1}]})
        assert problems(protocol, body | {turns: 1})
