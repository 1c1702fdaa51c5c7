"""A request goes to providers that serve its endpoint, in the protocol in which they do."""

from pathlib import Path

import pytest

from tollgate.config import load_config
from tollgate.errors import Refusal
from tollgate.prices.book import PriceBook
from tollgate.processors.route.plan import Route, plan
from tollgate.wire.endpoints import ENDPOINTS

FILE = """
sandbox: false
providers:
  openai: {api_key: k, models: [gpt-5, embed, gpt-image-1]}
  house:  {protocol: openai, base_url: "http://house.test/v1", models: [house, shared], priority: 1}
  vllm:   {protocol: openai, base_url: "http://vllm.test/v1", models: [shared], endpoints: [chat, responses]}
  claude: {preset: anthropic, api_key: k, models: [claude]}
"""
BODIES = {
    "/v1/responses": {"model": "m", "input": "Hi"},
    "/v1/chat/completions": {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
    "/v1/embeddings": {"model": "m", "input": "Hi"},
    "/v1/images/generations": {"model": "m", "prompt": "A cat", "quality": "low", "size": "1024x1024"},
    "/v1/messages/count_tokens": {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
}


@pytest.fixture
def route(tmp_path: Path):
    path = tmp_path / "gateway.yaml"
    path.write_text(FILE)
    config, book = load_config(path, {}), PriceBook.load(None)

    def route(endpoint: str, model: str) -> list[tuple[str, str]] | Refusal:
        found = plan(model, BODIES[endpoint], endpoint=ENDPOINTS[endpoint], config=config, book=book, at_ms=0, draw=0.5)
        if isinstance(found, Refusal):
            return found
        assert isinstance(found, Route)
        return list(dict.fromkeys((option.provider.name, option.protocol) for option in found.options))

    return route


def test_a_provider_that_speaks_the_clients_dialect_too_is_asked_in_it(route):
    assert route("/v1/responses", "gpt-5") == [("openai", "responses")]
    assert route("/v1/chat/completions", "gpt-5") == [("openai", "openai")]


def test_any_other_is_asked_in_its_own_protocol(route):
    assert route("/v1/responses", "house") == [("house", "openai")]
    assert route("/v1/responses", "claude") == [("claude", "anthropic")]


def test_a_service_goes_to_those_that_serve_it(route):
    assert route("/v1/embeddings", "embed") == [("openai", "openai")]
    assert route("/v1/embeddings", "shared") == [("house", "openai")]
    assert route("/v1/messages/count_tokens", "claude") == [("claude", "anthropic")]


def test_a_service_that_nobody_serves_is_refused_with_the_way_out(route):
    refused = route("/v1/embeddings", "claude")

    assert (refused.status, refused.code, refused.param) == (400, "endpoint_not_served", "model")
    assert "'endpoints: [embeddings, ...]'" in refused.message


def test_a_plan_knows_what_each_model_can_give_where_no_cap_is_sent(tmp_path):
    (tmp_path / "gateway.yaml").write_text(FILE)
    config, path = load_config(tmp_path / "gateway.yaml", {}), "/v1/images/generations"
    found = plan(
        "openai/gpt-image-1",
        BODIES[path],
        endpoint=ENDPOINTS[path],
        config=config,
        book=PriceBook.load(None),
        at_ms=0,
        draw=0.5,
    )
    assert isinstance(found, Route)
    assert {option.most_output_tokens for option in found.options} == {272}
