"""What a provider says that a call cost is what the call cost, unless the operator has a price of his own."""

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.test_one_request import events, post
from tollgate.app.gateway import open_gateway
from tollgate.config import load_config
from tollgate.events import Ended
from tollgate.money import PUSD_PER_USD
from tollgate.secret import first_run_secrets

ANSWER = {
    "id": "gen-1",
    "object": "chat.completion",
    "created": 1,
    "model": "openai/gpt-4o-mini",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12, "cost": 0.00123},
}


@pytest.fixture
async def router():
    async def complete(request: web.Request) -> web.Response:
        return web.json_response(ANSWER)

    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    async with TestServer(app) as server:
        yield server


async def lines_of_a_call(tmp_path, monkeypatch, router, *, prices=""):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gateway.yaml").write_text(
        f"providers: {{openrouter: {{api_key: k, models: ['openai/*'], base_url: '{router.make_url('/v1')}'}}}}"
    )
    (tmp_path / "pricing.yaml").write_text(prices)
    secrets = first_run_secrets(tmp_path, {}, embedded=True)
    config = load_config(tmp_path / "gateway.yaml", {})
    asked = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}
    async with (
        open_gateway(config, data=tmp_path, instance="test", secrets=secrets, fatal=pytest.fail) as gateway,
        gateway.started(),
    ):
        status, headers, _ = await post(gateway.application, secrets.admin_key.reveal(), orjson.dumps(asked))
        assert status == 200
        (ended,) = [event for event in await events(gateway.log, "completions") if isinstance(event, Ended)]
    return ended, headers


async def test_a_stated_cost_is_one_line_and_is_billed(tmp_path, monkeypatch, router):
    ended, headers = await lines_of_a_call(tmp_path, monkeypatch, router)
    (line,) = ended.attempts[0].lines
    assert (line.meter, line.cost_source) == ("stated", "provider_reported")
    assert line.cost_pusd == line.bill_pusd == ended.bill_pusd == 123 * PUSD_PER_USD // 100_000
    assert headers["x-tollgate-cost-usd"] == "0.00123"
    assert ended.attempts[0].usage.output_tokens == 2  # what was used is in the books all the same


async def test_the_operators_own_price_comes_before_it(tmp_path, monkeypatch, router):
    prices = 'models: {"openrouter/openai/*": {input: 1, output: 2}}'
    ended, _ = await lines_of_a_call(tmp_path, monkeypatch, router, prices=prices)
    assert [(line.meter, line.cost_source) for line in ended.attempts[0].lines] == [
        ("input_tokens", "computed"),
        ("output_tokens", "computed"),
    ]
    assert ended.bill_pusd == 14 * PUSD_PER_USD // 10**6
