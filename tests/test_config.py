"""gateway.yaml: what it comes to, and how every mistake in it is told."""

from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from tollgate.config import BUILT_IN, Account, Config, Provider, load_config
from tollgate.errors import ConfigError
from tollgate.log.kafka_security import Security
from tollgate.money import PUSD_PER_USD
from tollgate.presets import presets
from tollgate.secret import Secret

KEY = "sk-not-for-your-eyes-0123456789"


@pytest.fixture
def load(tmp_path: Path):
    def load(text: str, **env: str) -> Config:
        path = tmp_path / "gateway.yaml"
        path.write_text(text)
        return load_config(path, env)

    return load


@pytest.fixture
def complaint(load, tmp_path: Path):
    """The error about a file, with the folder left out of it."""

    def complaint(text: str, **env: str) -> str:
        with pytest.raises(ConfigError) as caught:
            load(text, **env)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return complaint


def test_without_a_file_there_are_defaults_and_the_sandbox_in_every_dialect():
    config = load_config(None, {})

    assert config.log.embedded and config.log.durability == "power"
    assert config.server.port == 8080 and config.server.host == "127.0.0.1"
    assert [(p.name, p.protocol, p.builtin) for p in config.providers.values()] == [
        ("sandbox", "openai", "sandbox"),
        ("sandbox-anthropic", "anthropic", "sandbox"),
        ("sandbox-responses", "responses", "sandbox"),
        ("sandbox-gemini", "gemini", "sandbox"),
    ]
    assert all(p.serves("sandbox-lat50") and not p.serves("gpt-4o") for p in config.providers.values())


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "providers:\n", "server: {port: }\n", "---\n"])
def test_what_is_empty_keeps_its_default(load, text):
    assert load(text) == load_config(None, {})


def test_a_whole_file(load):
    config = load(
        """
        log:
          broker: "kafka://a:9092,b:9093"
          durability: process
          security: {protocol: SASL_SSL, mechanism: SCRAM-SHA-256, username: u, password: "${KAFKA_PASSWORD}",
                     ca_file: ca.pem, cert_file: cert.pem, key_file: key.pem}
        server: {max_body_mb: 8, max_in_flight: 10, request_deadline_s: 60, drain_s: 2.5, host: 0.0.0.0, port: 9000}
        providers:
          openai: {protocol: openai, api_key: "${OPENAI_API_KEY}", models: [gpt-4o, gpt-4.1*], priority: 1,
                   timeout_seconds: 30, connect_timeout_seconds: 3, max_retries: 0}
          local:
            protocol: anthropic
            base_url: http://127.0.0.1:9999/
            accounts: [{name: a, api_key: x}, {name: b, api_key: y, weight: 2}]
            models: [mock-claude]
            price_provider: anthropic
        routing: {default: balanced, fallbacks: {gpt-4o: [local/mock-claude]}, fallback_on: [timeout, auth]}
        limits: {on_missing_max_tokens: reject, default_max_tokens: 1000, unpriced: hold, unpriced_hold_usd: 0.25}
        content: none
        """,
        OPENAI_API_KEY=KEY,
        KAFKA_PASSWORD="hush",
    )

    assert not config.log.embedded
    assert config.log.security == Security(
        protocol="SASL_SSL",
        mechanism="SCRAM-SHA-256",
        username="u",
        password=Secret("hush"),
        ca_file="ca.pem",
        cert_file="cert.pem",
        key_file="key.pem",
    )
    assert config.log.bootstrap_servers == ("a:9092", "b:9093")
    assert config.log.durability == "process"
    assert (config.server.host, config.server.port, config.server.drain_s) == ("0.0.0.0", 9000, 2.5)
    assert list(config.providers) == [
        "openai",
        "local",
        "sandbox",
        "sandbox-anthropic",
        "sandbox-responses",
        "sandbox-gemini",
    ]
    assert config.providers["openai"] == Provider(
        name="openai",
        protocol="openai",
        base_url="https://api.openai.com/v1",
        accounts=(Account(name="main", api_key=Secret(KEY)),),
        models=("gpt-4o", "gpt-4.1*"),
        priority=1,
        timeout_seconds=30,
        connect_timeout_seconds=3,
        max_retries=0,
        price_provider="openai",
        quirks=presets()["openai"].quirks,
        endpoints=frozenset(presets()["openai"].endpoints or ()),
    )
    local = config.providers["local"]
    assert (local.base_url, local.price_provider) == ("http://127.0.0.1:9999", "anthropic")
    assert local.endpoints == {"messages", "count_tokens"}
    assert [(account.name, account.weight) for account in local.accounts] == [("a", 1), ("b", 2)]
    assert config.routing.fallbacks == {"gpt-4o": ("local/mock-claude",)}
    assert config.routing.fallback_on == ("timeout", "auth")
    assert config.limits.unpriced_hold_usd == Decimal("0.25")
    assert config.limits.unpriced_hold_pusd == PUSD_PER_USD // 4


def test_models_are_named_by_wildcards_in_exactly_the_case_given(load):
    openai = load("providers: {x: {protocol: openai, api_key: k, models: ['gpt-4*', 'o?']}}").providers["x"]

    assert openai.serves("gpt-4o") and openai.serves("o3")
    assert not openai.serves("GPT-4o") and not openai.serves("o30") and not openai.serves("my-gpt-4o")


def test_a_value_is_the_text_that_was_written(load):
    """YAML 1.1 would make a boolean of `no`, octal 83 of `0123` and a float of `0.1`."""
    config = load(
        "providers: {no: {protocol: openai, api_key: 0123, models: [on, 4.10]}}\nlimits: {unpriced_hold_usd: 0.1}"
    )

    provider = config.providers["no"]
    assert provider.accounts[0].api_key == Secret("0123")
    assert provider.models == ("on", "4.10")
    assert config.limits.unpriced_hold_pusd == PUSD_PER_USD // 10


def test_the_environment_fills_in_values_of_any_type(load):
    text = "server: {port: '${PORT}', host: '${HOST:-0.0.0.0}', drain_s: '${DRAIN:-7}'}\nsandbox: '${SANDBOX}'"

    config = load(text, PORT="99", SANDBOX="true", DRAIN="")

    assert (config.server.port, config.server.host, config.server.drain_s) == (99, "0.0.0.0", 7)


def test_what_the_environment_holds_cannot_change_the_structure(load):
    config = load("server: {host: '${HOST}'}", HOST="a, port: 1}\nsandbox: ${PORT}")

    assert config.server.host == "a, port: 1}\nsandbox: ${PORT}"
    assert config.server.port == 8080


def test_a_doubled_dollar_stands_for_itself(load):
    assert load("server: {host: '$${HOST} and $5'}").server.host == "${HOST} and $5"


def test_a_provider_of_ones_own_may_go_without_a_key(load):
    local = load("providers: {local: {protocol: openai, base_url: 'http://gpu:8000/v1', models: [llama]}}")

    assert local.providers["local"].accounts == (Account(name="main", api_key=None),)


def test_the_sandbox_can_be_switched_off_and_its_name_is_then_free(load):
    text = "sandbox: false\nproviders: {sandbox: {protocol: openai, api_key: k, models: [m]}}"

    config = load(text)

    assert list(config.providers) == ["sandbox"]
    assert config.providers["sandbox"].builtin is None


def test_a_provider_of_the_operator_goes_before_the_built_in_one(load):
    config = load("providers: {mine: {protocol: openai, base_url: 'http://x/v1', models: [sandbox*]}}")

    assert all(config.providers["mine"].priority < sandbox.priority for sandbox in BUILT_IN)


OPENAI = "protocol: openai, api_key: k, models: [gpt-4o]"

MISTAKES = {
    "an unknown key with a near one": (
        "providers:\n  openai:\n    protocol: openai\n    models: [gpt-4o]\n    timout_seconds: 3\n",
        "gateway.yaml:5: unknown key 'timout_seconds' in providers.openai; did you mean 'timeout_seconds'?",
    ),
    "an unknown key with no near one": (
        "server: {}\nzzz: 1\n",
        "gateway.yaml:2: unknown key 'zzz' in the file; known: content, limits, log, providers, rate_limiting, routing",
    ),
    "a key given twice": (
        "server:\n  port: 1\n  host: x\n  port: 2\n",
        "gateway.yaml:4: 'port' is given twice in server, first on line 2; keep one",
    ),
    "a word for a number": (
        "server:\n\n  port: high\n",
        "gateway.yaml:3: server.port: expected a whole number (The port to listen on; 0 takes a free one.)",
    ),
    "a number too large": (
        "server: {port: 70000}",
        "gateway.yaml:1: server.port: expected a whole number <= 65535 (The port to listen on; 0 takes a free one.)",
    ),
    "yes for true": ("sandbox: yes", "gateway.yaml:1: sandbox: expected true or false"),
    "an unknown word": (
        "routing: {default: prioritty}",
        "gateway.yaml:1: routing.default must be one of priority, balanced; did you mean 'priority'?",
    ),
    "content that is not kept yet": ("content: full", "gateway.yaml:1: content must be none"),
    "a value for a list": (
        "providers: {x: {protocol: openai, api_key: k, models: gpt-4o}}",
        "gateway.yaml:1: providers.x.models must be a list, for instance [a, b]",
    ),
    "a list for a value": ("server: {host: [a]}", "gateway.yaml:1: server.host must be a single value"),
    "a value for a section": ("server: 8080", "gateway.yaml:1: server must hold 'key: value' pairs"),
    "a list for the file": ("- a\n", "gateway.yaml:1: the file must hold 'key: value' pairs"),
    "a list for a key": ("? [a]\n: b\n", "gateway.yaml:1: a key in the file is not a word"),
    "a provider without its keys": ("providers:\n  x:\n", "gateway.yaml:2: providers.x needs 'models'"),
    "a provider that nobody knows": (
        "providers:\n  x: {api_key: k, models: [m]}",
        "gateway.yaml:2: providers.x needs 'protocol', which says what API it speaks",
    ),
    "a preset that nobody knows": (
        "providers:\n  x:\n    models: [m]\n    preset: grok",
        "gateway.yaml:4: providers.x.preset names 'grok', which is not known; did you mean 'groq'?",
    ),
    "a preset and another protocol": (
        "providers: {x: {preset: groq, protocol: anthropic, api_key: k, models: [m]}}",
        "gateway.yaml:1: providers.x.protocol contradicts the preset 'groq', which speaks openai",
    ),
    "a provider without an address of its own": (
        "providers: {azure: {api_key: k, models: [m]}}",
        "gateway.yaml:1: providers.azure needs a base_url: every customer of this provider has an address of its own",
    ),
    "no models": (
        "providers: {x: {protocol: openai, api_key: k, models: []}}",
        "gateway.yaml:1: providers.x.models must name the models that it serves, for instance [gpt-4o, gpt-4.1*]",
    ),
    "a null among models": (
        "providers:\n  x: {protocol: openai, api_key: k,\n   models: [~]}",
        "gateway.yaml:3: providers.x.models.0 must be a single value",
    ),
    "a key and accounts": (
        f"providers:\n  x:\n    {{{OPENAI},\n     accounts: [{{name: a, api_key: k}}]}}",
        "gateway.yaml:4: providers.x.accounts cannot stand beside 'api_key'",
    ),
    "two accounts of one name": (
        "providers: {x: {protocol: openai, models: [m], accounts: [{name: a, api_key: k}, {name: a, api_key: l}]}}",
        "gateway.yaml:1: providers.x.accounts must have different names",
    ),
    "no key for the public address": (
        "providers:\n  x: {protocol: anthropic, models: [m]}",
        "gateway.yaml:2: providers.x needs an api_key: https://api.anthropic.com answers nobody without one",
    ),
    "an empty key": ("providers: {x: {protocol: openai, models: [m], api_key: ''}}", "providers.x.api_key is empty"),
    "a key with a line break": (
        'providers: {x: {protocol: openai, models: [m], api_key: "a\\nb"}}',
        "gateway.yaml:1: providers.x.api_key holds a line break",
    ),
    "a provider's name with a slash": (
        f"providers:\n  a/b: {{{OPENAI}}}",
        "gateway.yaml:2: providers.a/b is not a provider's name",
    ),
    "the built-in provider's name": (
        f"providers:\n  sandbox: {{{OPENAI}}}",
        "gateway.yaml:2: providers.sandbox is the name of the built-in provider; choose another, or switch that off",
    ),
    "no provider at all": ("sandbox: false", "gateway.yaml:1: providers is empty and 'sandbox' is false"),
    "an address that is none": (
        "providers: {x: {protocol: openai, models: [m], base_url: 'localhost:80'}}",
        "gateway.yaml:1: providers.x.base_url must be http(s)://host[:port][/path]",
    ),
    "a password in an address": (
        "providers: {x: {protocol: openai, models: [m], base_url: 'https://me:pass@host'}}",
        "gateway.yaml:1: providers.x.base_url must be http(s)://host[:port][/path]",
    ),
    "a broker that is none": (
        "log:\n  broker: localhost:9092\n",
        "gateway.yaml:2: log.broker must be 'embedded' or kafka://host:port[,host:port...]",
    ),
    "money that is none": ("limits: {unpriced_hold_usd: much}", "gateway.yaml:1: limits.unpriced_hold_usd: invalid"),
    "money that is endless": (
        "limits: {unpriced_hold_usd: Infinity}",
        "gateway.yaml:1: limits.unpriced_hold_usd must be more than 0",
    ),
    "time that is not a number": ("server: {drain_s: nan}", "gateway.yaml:1: server.drain_s: expected a number > 0"),
    "time without end": ("server: {drain_s: inf}", "gateway.yaml:1: server.drain_s: expected a number <= 86400"),
    "a fallback that nobody serves": (
        "routing:\n  fallbacks:\n    sandbox: [claude]\n",
        "gateway.yaml:3: routing.fallbacks.sandbox names 'claude', which no provider serves",
    ),
    "a fallback that the named provider does not serve": (
        "routing: {fallbacks: {sandbox: [sandbox/claude]}}",
        "names 'sandbox/claude', which no provider serves",
    ),
    "a variable that is not set": (
        "server:\n  host: ${NOPE}\n",
        "gateway.yaml:2: server.host needs the environment variable NOPE, which is not set; "
        "export NOPE=..., or give a default: ${NOPE:-...}",
    ),
    "an unknown key of Kafka's security": (
        "log:\n  security:\n    user: u",
        "gateway.yaml:3: unknown key 'user' in log.security; did you mean 'username'?",
    ),
    "no way to connect to Kafka": (
        "log: {security: {protocol: TLS}}",
        "gateway.yaml:1: log.security.protocol must be one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL",
    ),
    "a user of Kafka without a password": (
        "log:\n  security:\n    protocol: SASL_SSL\n    username: u",
        "gateway.yaml:2: log.security.password is needed: log.security.protocol is SASL_SSL",
    ),
    "a password of Kafka that would not be used": (
        "log:\n  security:\n    password: p\n",
        "gateway.yaml:3: log.security.password is used by SASL_PLAINTEXT and SASL_SSL only; log.security.protocol is "
        "PLAINTEXT",
    ),
    "an authority that nobody asks": (
        "log:\n  security:\n    ca_file: ca.pem\n",
        "gateway.yaml:3: log.security.ca_file is used by SSL and SASL_SSL only",
    ),
    "a certificate without its key": (
        "log:\n  security:\n    protocol: SSL\n    cert_file: c.pem\n",
        "gateway.yaml:2: log.security.key_file is needed",
    ),
    "half a reference": ("server: {host: '${NO PE}'}", "gateway.yaml:1: server.host holds '${' that is not ${NAME}"),
    "an unclosed bracket": ("a: [\n", "gateway.yaml:2: not YAML: "),
    "an unknown anchor": ("a: *b\n", "gateway.yaml:1: not YAML: found undefined alias"),
    "two documents": ("---\nserver: {}\n---\nserver: {}\n", "gateway.yaml:3: not YAML: "),
    "an unprintable character": ("a: \x00", "gateway.yaml: not YAML: "),
    "endless nesting": ("[" * 5000, "gateway.yaml: nested too deeply"),
    "an alias of itself": ("server: &a {port: *a}", "gateway.yaml:1: server.port must be a single value"),
    "an object of the language": (
        "server: {host: !!python/object/apply:os.getcwd []}",
        "gateway.yaml:1: server.host must be a single value",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_its_line_and_the_way_out(complaint, name):
    text, expected = MISTAKES[name]

    message = complaint(text)

    assert expected in message
    assert "\n" not in message


def test_no_error_shows_a_value(complaint):
    for place in (
        "server: {port: %s}",
        "sandbox: %s",
        "log: {broker: %s}",
        "log: {security: {protocol: %s}}",
        "log: {security: {password: %s}}",
        "routing: {default: %s}",
        "limits: {unpriced_hold_usd: %s}",
        "server: %s",
        "providers: {x: {protocol: openai, models: [m], base_url: %s}}",
    ):
        assert KEY not in complaint(place % KEY)
        assert KEY not in complaint(place % "${LEAK}", LEAK=KEY)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be read: No such file or directory; check the path"):
        load_config(tmp_path / "gateway.yaml", {})
    (tmp_path / "latin.yaml").write_bytes(b"server: {host: \xe9}")
    with pytest.raises(ConfigError, match=r"latin\.yaml is not UTF-8: byte 15"):
        load_config(tmp_path / "latin.yaml", {})
    (tmp_path / "large.yaml").write_text("#" * (1 << 20) + "\n")
    with pytest.raises(ConfigError, match=r"large\.yaml is larger than"):
        load_config(tmp_path / "large.yaml", {})


def test_a_configuration_written_down_shows_no_secret(load):
    config = load("providers: {x: {protocol: openai, api_key: '${KEY}', models: [m]}}", KEY=KEY)

    assert KEY not in repr(config)
    assert KEY.encode() not in msgspec.json.encode(config, enc_hook=str)
    with pytest.raises(TypeError):
        msgspec.json.encode(config)
