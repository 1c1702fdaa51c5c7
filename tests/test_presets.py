"""Providers that are known by name: each can be used with a key and a model, and its data fits what reads it."""

from pathlib import Path

import pytest

from tollgate.config import load_config
from tollgate.events import Dialect
from tollgate.presets import NO_KEY, preset_at, presets
from tollgate.prices.catalogue import load_catalogue
from tollgate.wire import Quirks
from tollgate.wire.content import Prompt

BEYOND_THE_PROTOCOLS = 25


def config_of(tmp_path: Path, provider: str):
    path = tmp_path / "gateway.yaml"
    path.write_text(f"providers: {{{provider}}}")
    return load_config(path, {})


@pytest.mark.parametrize("name", presets())
def test_a_key_and_a_model_are_enough(tmp_path, name):
    preset = presets()[name]
    key = "" if preset.key == NO_KEY else ", api_key: k"
    address = "" if preset.base_url else ", base_url: 'https://mine.test/v1'"
    provider = config_of(tmp_path, f"{name}: {{models: [m]{key}{address}}}").providers[name]
    assert provider.base_url == (preset.base_url or "https://mine.test/v1")
    assert provider.protocol == preset.protocol
    assert provider.quirks == preset.quirks
    assert not provider.base_url.endswith("/")


def test_there_are_many():
    assert len(presets()) >= BEYOND_THE_PROTOCOLS + 4


def test_a_preset_may_have_another_name_and_another_address(tmp_path):
    mine = "fast: {preset: groq, base_url: 'http://proxy.test/openai/v1', models: [m]}"
    provider = config_of(tmp_path, mine).providers["fast"]
    assert provider.quirks == presets()["groq"].quirks
    assert (provider.price_provider, provider.base_url) == ("groq", "http://proxy.test/openai/v1")


def test_a_known_address_is_recognised_and_an_unknown_one_is_a_server_without_peculiarities(tmp_path):
    known = config_of(
        tmp_path, "x: {protocol: openai, api_key: k, base_url: 'https://openrouter.ai/api/v1/', models: [m]}"
    ).providers["x"]
    assert known.quirks == presets()["openrouter"].quirks
    unknown = config_of(tmp_path, "openai: {protocol: openai, base_url: 'http://10.0.0.1/v1', models: [m]}")
    assert unknown.providers["openai"].quirks == Quirks()
    assert preset_at("http://127.0.0.1:8000/v1", "openai") is None  # nobody knows what listens there


def test_every_quirk_names_fields_that_there_are():
    fields = set(Prompt.__struct_fields__)
    for name, preset in presets().items():
        assert preset.quirks.takes | preset.quirks.lacks <= fields, name


def test_the_catalogue_knows_the_names_under_which_prices_are_looked_up():
    catalogue, _ = load_catalogue()
    known = {provider.id for provider in catalogue.providers}
    for preset in presets().values():
        assert preset.prices is None or catalogue.provider_id(preset.prices) in known


def test_every_protocol_has_a_preset_of_its_own_name():
    """It is what a provider without an address is taken for."""
    for protocol in Dialect.__args__:
        assert presets()[protocol].protocol == protocol


def test_quirks_may_stand_in_the_file_and_take_the_place_of_what_is_known(tmp_path):
    azure = """mine: {preset: azure, base_url: 'https://r.openai.azure.com', api_key: k, models: [gpt],
      quirks: {path: '/openai/deployments/{model}/chat/completions?api-version=2024-10-21', key_header: api-key,
               lacks: [verbosity, user]}}"""
    quirks = config_of(tmp_path, azure).providers["mine"].quirks
    assert quirks == Quirks(
        path="/openai/deployments/{model}/chat/completions?api-version=2024-10-21",
        key_header="api-key",
        lacks=frozenset({"user", "verbosity"}),
    )
    assert quirks.call_path("/chat/completions", "my gpt") == (
        "/openai/deployments/my%20gpt/chat/completions?api-version=2024-10-21"
    )
