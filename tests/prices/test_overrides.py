"""What pricing.yaml may say, and what it answers when it is wrong."""

from decimal import Decimal

import pytest

from tollgate.errors import ConfigError
from tollgate.prices.overrides import read_rules


def usd(text, word):
    (rule,) = read_rules(f"models: {{local/m: {text}}}")
    return rule.entries[0].usd[word]


@pytest.mark.parametrize("text", ["", "models:", "models: {}", "# only a comment"])
def test_a_file_may_say_nothing(text):
    assert read_rules(text) == ()


@pytest.mark.parametrize("written", ["0.1", '"0.1"', "0.10", "1e-1"])
def test_numbers_never_pass_through_a_float(written):
    assert usd(f"{{input: {written}, output: 1}}", "input") == Decimal("0.1")


def test_more_digits_than_a_float_can_hold_are_kept():
    assert usd("{input: 1.00000000000000000001, output: 1}", "input") == Decimal("1.00000000000000000001")


def test_a_price_may_rise_with_the_length_of_the_input():
    assert usd("{input: {200000: 2.5, 0: 1.25}, output: 1}", "input") == {0: Decimal("1.25"), 200_000: Decimal("2.5")}


def test_a_key_without_wildcards_counts_first_then_the_one_with_more_literal_characters_then_the_one_written_first():
    price = "{input: 1, output: 1}"
    keys = ["*/*", "a/gpt-*", "*/gpt-4*", "a/gpt-4o*", "a/gpt-4o", "a/gpt-4?*", "b/gpt-*"]
    rules = read_rules("models:\n" + "".join(f'  "{key}": {price}\n' for key in keys))
    patterns = [rule.pattern for rule in rules]
    assert patterns == ["a/gpt-4o", "a/gpt-4o*", "a/gpt-4?*", "a/gpt-*", "*/gpt-4*", "b/gpt-*", "*/*"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "models:\n  local/m:\n    input: 1\n    ouput: 2\n",
            "pricing.yaml:4: 'local/m': unknown key 'ouput'; did you mean 'output'?",
        ),
        (
            "models:\n  local/m: {input: 1}",
            "pricing.yaml:2: 'local/m' has no 'output'; write output: 0 if it costs nothing",
        ),
        ("prices: {}", "pricing.yaml:1: the file: unknown key 'prices'; known are models"),
        ("modles: {}", "pricing.yaml:1: the file: unknown key 'modles'; did you mean 'models'?"),
        (
            "models:\n  gpt-4o: {input: 1, output: 1}",
            "pricing.yaml:2: 'gpt-4o' is not provider/model; write 'openai/gpt-4o' or '*/gpt-4o'",
        ),
        (
            "models:\n  a/m: {input: 1, output: 1}\n  A/M: {input: 2, output: 2}",
            "pricing.yaml:3: models: 'a/m' is there twice; remove one",
        ),
        (
            "models:\n  a/m: {input: 1, input: 2, output: 1}",
            "pricing.yaml:2: 'a/m': 'input' is there twice; remove one",
        ),
        (
            "models:\n  a/m: {input: -1, output: 1}",
            "pricing.yaml:2: 'a/m': input must be USD from 0 to 1000000, not '-1'",
        ),
        (
            "models:\n  a/m: {input: .nan, output: 1}",
            "pricing.yaml:2: 'a/m': input must be USD from 0 to 1000000, not '.nan'",
        ),
        (
            "models:\n  a/m: {input: [1], output: 1}",
            "pricing.yaml:2: 'a/m': input must be USD from 0 to 1000000, not a list",
        ),
        (
            "models:\n  a/m: {input: 2500000, output: 1}",
            "pricing.yaml:2: 'a/m': input must be USD from 0 to 1000000, not '2500000'",
        ),
        (
            "models:\n  a/m: {input: 0.0000001, output: 1}",
            "pricing.yaml:2: 'a/m': input: '0.0000001' is less than a pico-dollar each; write USD per million tokens",
        ),
        (
            "models:\n  a/m: {input: {1000: 1}, output: 1}",
            "pricing.yaml:2: 'a/m': input: the first step must be 0, as in {0: 1.25, 200000: 2.50}",
        ),
        (
            "models:\n  a/m: {input: {0: 1, many: 2}, output: 1}",
            "pricing.yaml:2: 'a/m': input: a step begins above a number of tokens, not 'many'",
        ),
        (
            "models:\n  a/m: {input: 1, output: 1, context_window: 128k}",
            "pricing.yaml:2: 'a/m': context_window must be a whole number of tokens, not '128k'",
        ),
        (
            "models:\n  a/m: {input: 1, output: 1, valid_from: November}",
            "pricing.yaml:2: 'a/m': valid_from must be a day such as 2026-11-01, not 'November'",
        ),
        (
            "models:\n  a/m:\n    - {input: 1, output: 1}\n    - {input: 2, output: 2}",
            "pricing.yaml:3: 'a/m' has two entries without valid_from; give each another valid_from",
        ),
        (
            "models:\n  a/m:\n" + "    - {input: 1, output: 1, valid_from: 2026-11-01}\n" * 2,
            "pricing.yaml:3: 'a/m' has two entries from 2026-11-01; give each another valid_from",
        ),
        ("models:\n  a/m: []", "pricing.yaml:2: 'a/m' has no entry"),
        ("models:\n  a/m: 5", "pricing.yaml:2: 'a/m' must be a mapping of keys to values, not '5'"),
        ("- 1", "pricing.yaml:1: the file must be a mapping of keys to values, not a list"),
        ("models: {a: [", "pricing.yaml:1: not YAML: expected the node content, but found '<stream end>'"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_the_way_out(text, message):
    with pytest.raises(ConfigError) as caught:
        read_rules(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: {'a/m': \x00}", "pricing.yaml: not YAML: unacceptable character #x0000: special characters"),
        ("[" * 5_000, "pricing.yaml: nested too deeply to be a list of prices"),
    ],
)
def test_what_is_not_a_yaml_file_at_all_is_an_error_too(text, message):
    with pytest.raises(ConfigError) as caught:
        read_rules(text)
    assert str(caught.value).startswith(message)
