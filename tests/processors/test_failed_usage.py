"""What a provider has counted is in the books as its cost, also where no answer came of it; nobody is billed for it."""

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.endpoints import post
from tests.test_one_request import events
from tests.wire.fixtures import MESSAGE_START, event
from tollgate.app.gateway import open_gateway
from tollgate.config import load_config
from tollgate.events import Ended, Usage
from tollgate.money import PUSD_PER_USD
from tollgate.secret import first_run_secrets
from tollgate.sinks.reconcile import reconcile

USAGE = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
FAILED = {"error": {"message": "the model broke down", "code": 500}, "model": "m", "usage": USAGE}
NAMELESS = {"id": "c", "type": "function", "function": {"name": "", "arguments": "{}"}}
UNTELLABLE = {
    "model": "m",
    "choices": [{"index": 0, "message": {"tool_calls": [NAMELESS]}, "finish_reason": "tool_calls"}],
    "usage": USAGE,
}
HELLO = {"model": "m", "choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}], "usage": USAGE}
REFUSED = event({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})

PRICES = 'models: {"*/m": {input: 1, output: 2, cache_read: 0.5, cache_write: 3}}'


def serving(*answers):
    """A provider that gives these answers, one after another."""
    left = list(answers)

    async def answer(request: web.Request) -> web.Response:
        said = left.pop(0)
        if isinstance(said, bytes):
            return web.Response(body=said, content_type="text/event-stream")
        return web.json_response(said)

    app = web.Application()
    app.router.add_post("/v1/{path:.*}", answer)
    return TestServer(app)


async def ended(tmp_path, monkeypatch, *answers, protocol="openai", path="/v1/chat/completions", retries=0, **asked):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pricing.yaml").write_text(PRICES)
    secrets = first_run_secrets(tmp_path, {}, embedded=True)
    body = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}], **asked}
    async with serving(*answers) as server:
        base = server.make_url("/v1" if protocol == "openai" else "/")
        (tmp_path / "gateway.yaml").write_text(
            f"providers: {{p: {{protocol: {protocol}, base_url: '{base}', models: [m], max_retries: {retries}}}}}"
        )
        config = load_config(tmp_path / "gateway.yaml", {})
        async with open_gateway(config, data=tmp_path, instance="t", secrets=secrets, fatal=pytest.fail) as gateway:
            async with gateway.started():
                await post(gateway.application, secrets.admin_key.reveal(), path, orjson.dumps(body))
            found = [event for event in await events(gateway.log, "completions") if isinstance(event, Ended)]
            assert not (await reconcile(gateway.log, tmp_path)).differences
    return found[0]


def booked(attempt):
    cost_usd = sum(line.cost_pusd for line in attempt.lines) * 10**6 // PUSD_PER_USD
    assert not any(line.bill_pusd for line in attempt.lines)
    assert {line.cost_source for line in attempt.lines} == {"computed"}
    return attempt.outcome, attempt.usage_source, attempt.usage, cost_usd


COUNTED = Usage(input_tokens=10, output_tokens=2)


async def test_of_an_error_inside_a_200_that_counts(tmp_path, monkeypatch):
    end = await ended(tmp_path, monkeypatch, FAILED)

    assert booked(end.attempts[0]) == ("error", "provider", COUNTED, 14)
    assert (end.status, end.bill_pusd) == ("failed", 0)


async def test_of_a_stream_that_said_what_it_had_read_and_failed_before_it_said_anything(tmp_path, monkeypatch):
    end = await ended(
        tmp_path,
        monkeypatch,
        MESSAGE_START + REFUSED,
        protocol="anthropic",
        path="/v1/messages",
        model="p/m",
        stream=True,
    )

    outcome, source, usage, cost = booked(end.attempts[0])
    assert (outcome, source) == ("error", "provider")
    assert usage.input_tokens and cost >= usage.input_tokens
    assert (end.status, end.bill_pusd) == ("failed", 0)


async def test_of_an_answer_that_cannot_be_told_to_the_client(tmp_path, monkeypatch):
    end = await ended(tmp_path, monkeypatch, UNTELLABLE, path="/v1/messages")

    assert booked(end.attempts[0]) == ("cut", "provider", COUNTED, 14)
    assert (end.status, end.bill_pusd) == ("failed", 0)


async def test_of_an_attempt_after_which_another_succeeded(tmp_path, monkeypatch):
    end = await ended(tmp_path, monkeypatch, FAILED, HELLO, retries=1)

    assert booked(end.attempts[0]) == ("error", "provider", COUNTED, 14)
    assert (end.status, len(end.attempts)) == ("completed", 2)
    assert end.bill_pusd == 14 * PUSD_PER_USD // 10**6, "only the answer is billed"


async def test_a_provider_that_said_no_and_counted_nothing_has_cost_nothing(tmp_path, monkeypatch):
    end = await ended(tmp_path, monkeypatch, {"error": {"message": "no", "code": 500}})

    (attempt,) = end.attempts
    assert (attempt.outcome, attempt.usage, attempt.lines, attempt.usage_source) == ("error", None, (), "missing")
