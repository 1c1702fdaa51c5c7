"""The commands for credentials: a secret comes in by standard input or is typed, and is shown nowhere."""

import io
import json
import sys

import pytest

from tests.app.test_cli import gateway, in_an_empty_folder, run  # noqa: F401 - fixtures

KEY = "sk-live-3f9a8b7c6d5e4f"
STATE = {
    "provider": "openai",
    "account": "main",
    "kind": "api_key",
    "last_four": "5e4f",
    "source": "api",
    "set_at": "2026-11-28T15:00:00.000Z",
    "set_by": "admin",
}


@pytest.fixture
def given(monkeypatch):
    """Put text on standard input."""
    return lambda text: monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_a_key_is_read_from_standard_input_and_only_its_end_is_printed(run, gateway, given):  # noqa: F811
    gateway.answer = STATE
    given(f"{KEY}\n")

    code, out, err = run("credentials", "set", "openai")

    assert code == 0
    assert gateway.asked == [("PUT", "/v1/credentials/openai/main", {"api_key": KEY})]
    assert "5e4f" in out and "openai/main uses it from its next call on" in err
    assert KEY not in out + err


def test_at_a_terminal_it_is_asked_for_without_an_echo(run, gateway, given, monkeypatch):  # noqa: F811
    gateway.answer = STATE
    given("")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    asked = []
    monkeypatch.setattr("getpass.getpass", lambda prompt: asked.append(prompt) or KEY)

    assert run("credentials", "set", "openai", "spare", "--json")[0] == 0
    assert asked == ["The api-key of openai/spare: "]
    assert gateway.asked == [("PUT", "/v1/credentials/openai/spare", {"api_key": KEY})]


ROBOT = {"client_email": "a", "private_key": KEY}


@pytest.mark.parametrize(
    ("kind", "text", "body"),
    [
        ("aws", {"access_key_id": "AK", "secret_access_key": KEY}, None),
        ("oauth", {"token_url": "https://id.test", "client_id": "me"}, None),
        ("google", ROBOT, {"service_account": ROBOT}),
    ],
)
def test_what_is_more_than_a_key_is_a_json_object(run, gateway, given, kind, text, body):  # noqa: F811
    gateway.answer = STATE
    given(json.dumps(text))

    assert run("credentials", "set", "p", "--kind", kind)[0] == 0
    assert gateway.asked == [("PUT", "/v1/credentials/p/main", {kind: body or text})]


@pytest.mark.parametrize(
    ("words", "text", "says"),
    [
        (("openai",), " \n", "nothing was given on standard input"),
        (("openai",), "x" * 70_000, "more than 65536 characters"),
        (("openai", "--kind", "aws"), KEY, "--kind aws takes a JSON object"),
        (("openai", "main", KEY), "", "is not taken from the command line"),
    ],
)
def test_what_is_no_credential_never_leaves_the_machine(run, gateway, given, words, text, says):  # noqa: F811
    given(text)

    code, _, err = run("credentials", "set", *words)

    assert (code, gateway.asked) == (2, [])
    assert says in err and KEY not in err


def test_they_are_listed_without_what_they_are_and_deleted(run, gateway):  # noqa: F811
    gone = {"provider": "x", "account": "y", "source": "api", "kind": "aws", "account_exists": False}
    gateway.answer = {"data": [STATE, {"provider": "local", "account": "main", "source": "none", "kind": None}, gone]}
    code, out, _ = run("credentials", "list")
    assert code == 0
    rows = [line.split()[:3] for line in out.splitlines()]
    assert rows[1:3] == [["openai", "main", "api"], ["local", "main", "none"]]
    assert "no such account" in out
    assert run("credentials", "delete", "openai", "b/c")[0] == 0
    assert gateway.asked[-1] == ("DELETE", "/v1/credentials/openai/b%2Fc", None)
