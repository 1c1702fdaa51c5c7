"""The command line: what it asks of the gateway, what it prints, and how it fails."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

import tollgate
from tests.sinks.journals import ended
from tollgate.app import cli
from tollgate.errors import AppendUnknown, LogLocked
from tollgate.events import OwnerTook, encode
from tollgate.log import Log
from tollgate.log.embedded import EmbeddedLog
from tollgate.log.kafka_security import Security
from tollgate.sinks.differences import Difference as Unbalanced
from tollgate.sinks.reconcile import Report
from tollgate.sinks.replay import Replayed
from tollgate.sinks.starts import Range
from tollgate.topics import Difference, Topics, load_topics

KEY = "kZ3vQ9xL2mN8pR5tW7yB4cD6"
KEY_RECORD = {
    "id": "k1",
    "name": "ci",
    "organization": "default",
    "limits": {"requests_per_minute": 60},
    "quota": {"monthly_budget": "12.50"},
}


class Gateway:
    """A gateway that answers `answer` with `status` and notes what it was asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.status = 200
        self.answer: Any = {}
        self.asked: list[tuple[str, str, Any]] = []
        self.authorization: str | None = None


@pytest.fixture
def gateway(monkeypatch) -> Iterator[Gateway]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            gateway.asked.append((self.command, self.path, json.loads(body) if body else None))
            gateway.authorization = self.headers["authorization"]
            content = json.dumps(gateway.answer).encode()
            self.send_response(gateway.status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        gateway = Gateway(f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("TOLLGATE_URL", gateway.url)
        monkeypatch.setenv("TOLLGATE_KEY", KEY)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield gateway
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("CONFIG", "DATA", "PORT", "INSTANCE", "ADMIN_KEY", "SECRET", "URL", "KEY"):
        monkeypatch.delenv(f"TOLLGATE_{name}", raising=False)


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command; its exit code, and what it printed on stdout and stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tollgate", *words])
        code = cli.main()
        return code, *capsys.readouterr()

    return run


def test_a_key_is_created_and_shown_once(run, gateway):
    gateway.status, gateway.answer = 201, KEY_RECORD | {"key": "sk-tollgate-once"}

    code, out, err = run("keys", "create", "ci", "--team", "web", "--budget", "12.50", "--requests-per-minute", "60")

    assert code == 0
    assert gateway.asked == [
        (
            "POST",
            "/v1/keys",
            {
                "name": "ci",
                "team": "web",
                "limits": {"requests_per_minute": 60},
                "quota": {"monthly_budget": "12.50"},
            },
        )
    ]
    assert gateway.authorization == f"Bearer {KEY}"
    assert out.splitlines()[-1] == "sk-tollgate-once"
    assert "shown only now" in err


def test_keys_are_listed_in_aligned_columns(run, gateway):
    revoked = KEY_RECORD | {"id": "k22", "name": "[red]x", "revoked_at": "2026-11-01T00:00:00Z"}
    expired = KEY_RECORD | {"id": "k333", "expires_at": "2026-01-01T00:00:00Z"}
    gateway.answer = {"data": [KEY_RECORD, revoked, expired]}

    code, out, _ = run("keys", "list")

    header, first, second, third = out.splitlines()
    assert code == 0
    assert header.split()[:3] == ["id", "name", "organization"]
    assert header.index("name") == first.index("ci") == second.index("[red]x")
    assert first.rstrip().endswith("active") and second.rstrip().endswith("revoked")
    assert third.rstrip().endswith("expired")


def test_what_a_key_has_spent_this_month_is_shown_where_its_books_are(run, gateway, monkeypatch):
    this_month = f"{datetime.now(UTC):%Y-%m}"
    asyncio.run(booked("k1", {this_month: 1_500_000_000_000, "2001-01": 7}))
    gateway.answer = {"data": [KEY_RECORD, KEY_RECORD | {"id": "k2"}]}
    monkeypatch.delenv("TOLLGATE_KEY")
    monkeypatch.setenv("TOLLGATE_ADMIN_KEY", KEY)

    header, first, second = run("keys", "list")[1].splitlines()
    column = slice(header.index("spent USD"), header.index("spent USD") + 9)
    assert (first[column].strip(), second[column].strip()) == ("1.5", "0")

    monkeypatch.setenv("TOLLGATE_KEY", KEY)  # it may be that of another gateway
    assert "spent" not in run("keys", "list")[1]


async def booked(key_id: str, bills: dict[str, int]) -> None:
    """A log in which the key was billed these pico-dollars, by period."""
    log = await EmbeddedLog.open(Path("data/log"), load_topics())
    await log.append("completions", None, encode(OwnerTook(instance="a")), partition=0)
    for number, (period, bill) in enumerate(bills.items()):
        end = ended(f"r{number}", attempts=(), request={"key_id": key_id}, period=period, bill_pusd=bill)
        await log.append("completions", None, encode(end), partition=0)
    await log.close()


@pytest.mark.parametrize("words", [("keys", "list"), ("keys", "show", "k1"), ("keys", "revoke", "k1")])
def test_json_is_the_gateways_own_answer(run, gateway, words):
    gateway.answer = {"data": [KEY_RECORD], "more": "é"}

    code, out, _ = run(*words, "--json")

    assert (code, json.loads(out)) == (0, gateway.answer)
    assert "é" in out


def test_an_update_sends_only_what_was_named(run, gateway):
    gateway.answer = KEY_RECORD

    run("keys", "update", "k1", "--budget", "none", "--concurrent", "4")

    assert gateway.asked == [
        ("PATCH", "/v1/keys/k1", {"limits": {"concurrent_requests": 4}, "quota": {"monthly_budget": None}})
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("keys", "update", "k1"), "nothing to change"),
        (("keys", "update", "k1", "--budget", "ten"), "--budget takes an amount in USD"),
        (("keys", "update", "k1", "--budget", "-1"), "--budget takes an amount in USD"),
        (("keys", "update", "k1", "--budget", "inf"), "--budget takes an amount in USD"),
        (("keys", "update", "k1", "--concurrent", "1.5"), "--concurrent takes a whole number or 'none'"),
        (("keys", "show", "../usage"), "is not a key's id"),
        (("requests", "show", "abc"), "is not a request id"),
        (("serve", "--broker", "localhost"), "--broker must be 'embedded' or kafka://"),
        (("serve", "--port", "99999"), "--port"),
        (("serve", "--role", "boss"), "--role"),
        (("keys", "create"), "Missing argument 'NAME'"),
        (("serv",), "Did you mean 'serve'?"),
    ],
)
def test_wrong_words_are_one_line_and_exit_code_2(run, gateway, words, message):
    code, out, err = run(*words)

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("tollgate: ") and message in err
    assert gateway.asked == []


@pytest.mark.parametrize(("status", "code"), [(400, 2), (404, 2), (409, 2), (401, 3), (403, 3), (500, 3), (302, 3)])
def test_the_gateways_refusal_is_told_in_its_own_words(run, gateway, status, code):
    gateway.status, gateway.answer = status, {"error": {"message": "no such thing"}}

    got, _, err = run("keys", "show", "k1")

    assert got == code
    assert err.startswith("tollgate: no such thing") and err.count("\n") == 1


@pytest.mark.parametrize("command", ["show", "revoke"])
@pytest.mark.parametrize(("spoilt", "told"), [("", "; its id is abcd1234"), ("!", "")])
def test_a_whole_key_in_the_place_of_its_id_is_not_shown(run, gateway, command, spoilt, told):
    secret = "s3cr3T" * 7 + "x"
    code, out, err = run("keys", command, f"sk-tollgate-abcd1234-{secret}{spoilt}")

    assert (code, out, gateway.asked) == (2, "", [])
    assert err == f"tollgate: this is a key itself, not its id{told}; 'tollgate keys list' shows the ids\n"


@pytest.mark.parametrize("key", [" ", "two\nlines", "\u20ac", "\xe9"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(run, gateway, monkeypatch, key):
    monkeypatch.setenv("TOLLGATE_KEY", key)

    code, out, err = run("keys", "list")

    assert (code, out, gateway.asked, err.count("\n")) == (3, "", [], 1)
    assert err.startswith("tollgate: TOLLGATE_KEY ")
    assert not key.strip() or key not in err


def test_who_asked_with_an_unknown_key_is_told_which_it_was(run, gateway):
    gateway.status, gateway.answer = 401, {"error": {"message": "This API key is not known here."}}

    assert run("keys", "list")[2] == (
        f"tollgate: This API key is not known here (it was TOLLGATE_KEY, shown to {gateway.url})\n"
    )


@pytest.mark.parametrize("words", [("--help",), ("keys", "create", "--help"), ("log", "export", "--help")])
def test_the_help_shows_flags_as_they_are_typed(run, words):
    out = run(*words)[1]

    assert "--help" in out and "bool" not in out


def test_a_port_in_use_is_told_before_anything_is_made(run, gateway):
    port = gateway.url.rpartition(":")[2]

    code, out, err = run("serve", "--port", port)

    assert (code, out, err.count("\n")) == (3, "", 1)
    assert f"port {port} of 127.0.0.1 is in use" in err and "TOLLGATE_PORT" in err and "server.port" in err
    assert list(Path().iterdir()) == []


def test_a_role_that_needs_kafka_is_refused_before_anything_is_made(run):
    code, _, err = run("serve", "--role", "worker", "--port", "0")

    assert code == 2 and "--role worker needs Kafka" in err
    assert list(Path().iterdir()) == []


def test_an_answer_that_is_not_ours_is_told_by_its_status(run, gateway):
    gateway.status, gateway.answer = 502, ["?"]

    assert run("keys", "list")[2] == f"tollgate: GET /v1/keys was answered 502 by {gateway.url}\n"


def test_a_gateway_that_is_not_there_is_exit_code_3(run, monkeypatch):
    monkeypatch.setenv("TOLLGATE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("TOLLGATE_KEY", KEY)

    code, _, err = run("keys", "list")

    assert code == 3
    assert "no answer from http://127.0.0.1:1: Connection refused; start it with 'tollgate serve'" in err


def test_this_machines_admin_key_is_found_and_goes_to_no_other_machine(run, gateway, monkeypatch):
    monkeypatch.delenv("TOLLGATE_KEY")
    assert run("keys", "list")[0] == 3

    Path("data").mkdir()
    Path("data/admin.key").write_text(f"{KEY}\n")
    Path("data/admin.key").chmod(0o600)
    gateway.answer = {"data": []}
    assert run("keys", "list")[0] == 0
    assert gateway.authorization == f"Bearer {KEY}"

    monkeypatch.setenv("TOLLGATE_URL", "http://192.0.2.1:8080")
    code, _, err = run("keys", "list")
    assert code == 3
    assert "is on another machine; set TOLLGATE_KEY" in err


def test_where_the_admin_key_lies_is_told_without_the_key(run, tmp_path, monkeypatch):
    assert run("keys", "admin")[0] == 3

    Path("data").mkdir()
    Path("data/admin.key").write_text(KEY)
    assert run("keys", "admin") == (0, f"{tmp_path}/data/admin.key\n", "")

    monkeypatch.setenv("TOLLGATE_ADMIN_KEY", KEY)
    assert json.loads(run("keys", "admin", "--json")[1]) == {"admin_key": "TOLLGATE_ADMIN_KEY"}


def test_the_story_of_a_request_has_a_line_per_attempt_and_event(run, gateway):
    request_id = "0199f3a0-0000-7000-8000-000000000001"
    gateway.answer = {
        "request_id": request_id,
        "status": "completed",
        "error": None,
        "tags": {},
        "usage": {"input_tokens": 3, "output_tokens": 5},
        "attempts": [
            {"attempt": 1, "provider": "a", "account": "main", "model": "m", "outcome": "error", "error_class": "cut"},
            {"attempt": 2, "provider": "b", "account": "main", "model": "m", "outcome": "ok", "cost_usd": "0.1"},
        ],
        "events": [
            {"type": "accepted", "at": "T0"},
            {"type": "admitted", "at": "T1", "hold_usd": None, "plan": ["a/m", "b/m"]},
        ],
    }

    code, out, _ = run("requests", "show", request_id)

    lines = [line.split() for line in out.splitlines()]
    assert code == 0
    assert gateway.asked == [("GET", f"/v1/requests/{request_id}", None)]
    assert ["usage", "input_tokens=3", "output_tokens=5"] in lines
    assert not [line for line in lines if line[:1] in (["error"], ["tags"])]
    assert ["1", "a", "main", "m", "error", "cut", "-"] in lines
    assert ["2", "b", "main", "m", "ok", "-", "0.1"] in lines
    assert not [line for line in out.splitlines() if line.endswith(" ")]
    assert lines[-2:] == [["T0", "accepted"], ["T1", "admitted", "plan=a/m,b/m"]]


def test_who_looks_for_a_request_that_was_refused_at_the_door_is_sent_to_the_audit(run, gateway):
    request_id = "0199f3a0-0000-7000-8000-000000000001"
    gateway.status, gateway.answer = 404, {"error": {"message": "There is no such request."}}

    code, out, err = run("requests", "show", request_id)

    assert (code, out) == (2, "")
    assert err.startswith("tollgate: There is no such request. ")
    assert f"tollgate sql \"from audit where request_id = '{request_id}'\"" in err


def test_config_check_shows_what_the_file_comes_to(run):
    Path("gateway.yaml").write_text("providers: {x: {protocol: openai, api_key: hidden-value, models: [gpt-4o]}}")

    code, out, _ = run("config", "check")
    assert code == 0
    assert out.splitlines()[1].split() == ["x", "openai", "https://api.openai.com/v1", "main", "gpt-4o", "100"]
    assert "gateway.yaml: ok" in out

    code, out, _ = run("config", "check", "--json")
    assert code == 0
    (account,) = json.loads(out)["providers"]["x"]["accounts"]
    assert {name: value for name, value in account.items() if value is not None} == {
        "name": "main",
        "api_key": "***",
        "managed": False,
        "weight": 1,
    }


def test_config_check_names_the_line_that_is_wrong(run):
    Path("gateway.yaml").write_text("server:\n  prot: 1\n")

    assert run("config", "check") == (
        3,
        "",
        "tollgate: gateway.yaml:2: unknown key 'prot' in server; did you mean 'port'?\n",
    )


def test_config_check_reads_the_prices_as_well(run):
    Path("pricing.yaml").write_text("models: {x/y: {input: cheap, output: 1}}")

    code, _, err = run("config", "check")

    assert code == 3
    assert err.startswith("tollgate: pricing.yaml") and err.count("\n") == 1


def test_a_check_looks_at_the_files_that_the_configuration_names(run, tmp_path):
    (tmp_path / "gateway.yaml").write_text("log: {security: {protocol: SSL, ca_file: gone.pem}}")

    code, _, err = run("config", "check")

    assert (code, err) == (3, "tollgate: log.security.ca_file gone.pem: No such file or directory\n")


def test_config_schema_is_json(run):
    code, out, _ = run("config", "schema")

    assert code == 0
    assert json.loads(out)["$schema"].startswith("https://json-schema.org/")


def test_serving_on_kafka_without_secrets_is_exit_code_3_with_how_to_make_them(run):
    code, _, err = run("serve", "--broker", "kafka://127.0.0.1:1", "--port", "0")

    assert code == 3
    assert 'export TOLLGATE_ADMIN_KEY="$(openssl rand -hex 32)"' in err
    assert 'export TOLLGATE_SECRET="$(openssl rand -hex 32)"' in err
    assert not Path("data").exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LogLocked("pid 7 holds it"), 3),
        (AppendUnknown("start me again"), 75),
        (KeyboardInterrupt(), 130),
    ],
)
def test_the_exit_code_says_what_to_do_about_a_failure(run, monkeypatch, error, code):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("tollgate.app.settings.resolve", fail)

    got, out, err = run("serve")

    assert (got, out) == (code, "")
    assert err == (f"tollgate: {error}\n" if str(error) else "")


def test_without_words_there_is_help(run):
    for words in ((), ("keys",)):
        code, out, err = run(*words)
        assert (code, err) == (2, "")
        assert "Usage: tollgate" in out


DIFFERENCES = [
    Difference(topic="costs", what="missing", declared="6"),
    Difference(topic="audit", what="config", setting="retention.ms", declared="-1", actual="1000"),
]
FIXED = Difference(topic="requests", what="partitions", declared="6", actual="3")


@pytest.fixture
def cluster(monkeypatch):
    """A cluster with differences; what was asked of it."""
    asked: list[tuple[str, str, Security]] = []
    differences: list[Difference] = [*DIFFERENCES]

    for name in ("check_kafka", "apply_kafka"):

        async def ask(brokers: str, topics: Topics, security: Security, name: str = name) -> list[Difference]:
            asked.append((name, brokers, security))
            return differences

        monkeypatch.setattr(f"tollgate.log.kafka_topics.{name}", ask)
    return asked, differences


BROKER = ("--broker", "kafka://a:1,b:2")


def test_a_plan_changes_nothing_and_says_what_would_be_done(run, cluster):
    asked, _ = cluster

    code, out, _ = run("topics", "plan", *BROKER)

    assert (code, asked) == (0, [("check_kafka", "a:1,b:2", Security())])
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [["costs", "create"], ["audit", "set"]]
    assert "retention.ms is 1000, declared is -1" in out


def test_a_check_fails_as_long_as_something_differs(run, cluster):
    _, differences = cluster

    assert run("topics", "check", *BROKER)[0] == 1
    differences.clear()
    assert run("topics", "check", *BROKER) == (0, "Every topic is as declared.\n", "")


def test_apply_fails_only_for_what_can_never_be_set_right(run, cluster):
    asked, differences = cluster

    assert run("topics", "apply", *BROKER)[0] == 0
    differences.append(FIXED)
    code, out, _ = run("topics", "apply", *BROKER, "--json")

    assert (code, asked) == (1, [("apply_kafka", "a:1,b:2", Security())] * 2)
    assert [(entry["topic"], entry["applicable"]) for entry in json.loads(out)] == [
        ("costs", True),
        ("audit", True),
        ("requests", False),
    ]


@pytest.mark.parametrize("command", ["plan", "check", "apply"])
def test_topics_are_reached_as_the_file_says(run, cluster, command, tmp_path):
    (tmp_path / "gateway.yaml").write_text("log: {broker: 'kafka://a:1', security: {protocol: SSL}}")

    run("topics", command)

    assert [asked[1:] for asked in cluster[0]] == [("a:1", Security(protocol="SSL"))]


def test_the_embedded_log_has_no_topics_to_apply(run, cluster):
    code, _, err = run("topics", "apply")

    assert (code, cluster[0]) == (2, [])
    assert "the embedded log makes its own topics" in err


@pytest.fixture
def empty_log() -> None:
    async def make() -> None:
        log = await EmbeddedLog.open(Path("data/log"), load_topics())
        await log.close()

    asyncio.run(make())


def test_sql_asks_files_and_log(run, empty_log):
    code, out, err = run("sql", "select count(*) as requests from usage", "--json")

    assert (code, json.loads(out), err) == (0, [{"requests": 0}], "")


def test_sql_without_a_log_shows_files_and_says_so(run):
    assert run("sql", "select 1")[0] == 3

    Path("data").mkdir()
    code, out, err = run("sql", "select 1 as one", "--format", "csv")
    assert (code, out) == (0, "one\n1\n")
    assert err.endswith("only what is in files is shown\n")


def test_sql_that_is_none_is_wrong_usage(run, empty_log):
    assert run("sql", "selec")[0] == 2
    assert run("sql", "select 1", "--format", "parquet")[0] == 2


@pytest.mark.parametrize("format", ["csv", "json", "table", "parquet"])
@pytest.mark.parametrize("place", ["nowhere/x", "data"])
def test_an_answer_that_cannot_be_written_names_its_file(run, empty_log, format, place):
    code, _, err = run("sql", "select 1", "--output", place, "--format", format)

    assert code == 3
    assert err.startswith(f"tollgate: {place} cannot be written (")
    assert err.endswith("): name another file with --output\n")


def test_a_replay_into_a_file_is_wrong_usage(run, empty_log):
    Path("file").write_text("mine")

    assert run("replay", "--to", "file") == (
        2,
        "",
        "tollgate: file is no folder: name an empty one, or one that is not there yet\n",
    )


@pytest.mark.parametrize("place", ["file/below", "/proc/replayed"])
def test_a_folder_that_cannot_be_made_is_named(run, empty_log, place):
    Path("file").write_text("mine")
    code, _, err = run("replay", "--to", place)

    assert code in (2, 3)
    assert err.startswith(f"tollgate: {place} ") and err.count("\n") == 1


def test_a_replay_says_what_it_made(run, empty_log):
    assert run("replay", "--to", "out") == (0, "0 rows of 0 records in out\n", "")
    assert json.loads(run("replay", "--to", "out", "--json")[1])["records"] == 0


def test_a_replay_that_finds_nothing_new_says_what_is_there(run, empty_log, monkeypatch):
    async def replay(log: Log, to: Path, **options: Any) -> Replayed:
        return Replayed(0, 240, 0, (), 0.0, {}, ())

    monkeypatch.setattr("tollgate.sinks.replay.replay", replay)
    assert run("replay", "--to", "out")[1] == "0 new rows of 0 records; with them, 240 rows in out\n"


@pytest.mark.parametrize("command", [("replay", "--to", "out"), ("reconcile",)])
def test_a_range_that_ends_before_it_begins_is_wrong_usage(run, empty_log, command):
    code, _, err = run(*command, "--from", "2026-12-01", "--until", "2026-11-01")

    assert code == 2
    assert err == "tollgate: --from 2026-12-01 is later than --until 2026-11-01: give the earlier time to --from\n"
    assert not Path("out").exists()


def test_a_replay_needs_a_log(run):
    code, _, err = run("replay", "--to", "out")

    assert code == 3
    assert "there is no log that can be read" in err


@pytest.mark.parametrize(
    ("time", "range"),
    [
        ("2026-11-20", 1_795_132_800_000),
        ("2026-11-20T09:30:00+01:00", 1_795_163_400_000),
        ("2026-11-20T08:30:00.250Z", 1_795_163_400_250),
    ],
)
def test_a_replay_takes_days_and_times(run, empty_log, monkeypatch, time, range):
    asked = []

    async def replay(log: Log, to: Path, **options: Any) -> Replayed:
        asked.append(options["range"])
        return Replayed(0, 0, 0, (), 0.0, {}, ())

    monkeypatch.setattr("tollgate.sinks.replay.replay", replay)
    assert run("replay", "--to", "out", "--from", time, "--until", time)[0] == 0
    assert asked == [Range(from_ms=range, until_ms=range)]


@pytest.mark.parametrize("time", ["yesterday", "2026-13-01", "2026-11-20T09:30:00", "20261120", ""])
def test_a_time_that_is_none_is_named_with_its_option(run, empty_log, time):
    code, _, err = run("replay", "--to", "out", "--until", time)

    assert code == 2
    assert err.startswith(f"tollgate: --until: '{time}' is neither a day (2026-11-20) nor a time")


def test_a_replay_names_where_it_begins(run, empty_log):
    answer = json.loads(run("replay", "--to", "out", "--from", "2026-11-20", "--json")[1])

    assert answer["from"] == "2026-11-20"
    assert answer["starts"]["audit/0"] == {"offset": 0, "epoch": -1, "hash": None}


@pytest.mark.parametrize("name", ["history", "history.tar"])
def test_a_log_moves_by_way_of_files(run, empty_log, name):
    code, out, _ = run("log", "export", name, "--json")
    assert (code, json.loads(out)["source"]) == (0, "embedded")
    assert not Path("history.tar.unfinished").exists()

    assert run("log", "import", name)[0] == 0  # the log is there, but nothing is in it
    code, _, err = run("log", "export", name)
    assert (code, "exists: name a new folder" in err) == (2, True)


def test_an_export_that_did_not_end_may_be_repeated(run, empty_log):
    Path("history").mkdir()
    Path("history/audit-0.ndjson.zst").write_bytes(b"half")
    assert run("log", "export", "history")[0] == 0


def test_an_export_needs_a_log_and_an_import_an_archive(run):
    assert run("log", "export", "history")[0] == 3
    assert "there is no log that can be read" in run("log", "export", "history")[2]
    assert run("log", "import", "history")[0] == 3
    assert run("log", "export", "history.zip")[0] == 2


def test_a_file_that_is_no_archive_is_told_in_one_line(run):
    Path("notatar").write_text("no")

    assert run("log", "import", "notatar") == (
        3,
        "",
        "tollgate: notatar: is no tar file; name a folder or a file that 'tollgate log export' has made\n",
    )


def test_books_that_balance_are_exit_code_0(run, empty_log):
    assert run("reconcile") == (0, "0 differences in 0 rows\n", "")
    assert json.loads(run("reconcile", "--json")[1])["differences"] == []


def test_books_are_compared_within_the_range(run, empty_log, monkeypatch):
    async def compared(log: Log, data: Path, *, range: Range) -> Report:
        assert range == Range(from_ms=1_795_132_800_000, until_ms=1_795_132_800_250)
        return Report(differences=[], rows=7, pending_rows=0, open_requests=0, pending_copies=0, before_log=0)

    monkeypatch.setattr("tollgate.sinks.reconcile.reconcile", compared)

    code, out, _ = run("reconcile", "--from", "2026-11-20", "--until", "2026-11-20T00:00:00.250Z")
    assert (code, out) == (0, "0 differences in 7 rows\n")


def test_books_that_do_not_balance_are_exit_code_1_with_every_difference(run, empty_log, monkeypatch):
    async def unbalanced(log: Log, data: Path, **options: Any) -> Report:
        wrong = [Unbalanced(source="usage", place=f"row {row}", what="is missing") for row in range(300)]
        return Report(differences=wrong, rows=7, pending_rows=2, open_requests=1, pending_copies=0, before_log=0)

    monkeypatch.setattr("tollgate.sinks.reconcile.reconcile", unbalanced)

    code, out, _ = run("reconcile")
    assert code == 1
    assert out.count("is missing") == 300
    assert out.splitlines()[-3:] == [
        "300 differences in 7 rows",
        "2 rows not in Parquet yet",
        "1 request not ended yet",
    ]
    code, out, _ = run("reconcile", "--json")
    assert (code, len(json.loads(out)["differences"])) == (1, 300)


HEAVY = ("aiohttp", "duckdb", "faust", "pyarrow", "starlette", "uvicorn", "yaml", "msgspec", "cryptography", "aiokafka")


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_load_nothing_heavy(flag):
    """Not measured in milliseconds, which a busy machine would decide, but by what is loaded."""
    code = f"import sys; sys.argv = ['tollgate', {flag!r}]; from tollgate.app.cli import main; main(); " + (
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )

    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert out.splitlines()[-1] == "[]"
    assert tollgate.__version__ in out or "Usage: tollgate" in out


@pytest.mark.parametrize("words", [["config", "check"], ["config", "schema"]], ids=["a little", "more than a buffer"])
def test_a_reader_that_has_seen_enough_is_no_error(words):
    reader, writer = os.pipe()
    os.close(reader)

    code = f"import sys; sys.argv = {['tollgate', *words]!r}; from tollgate.app.cli import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)

    assert (done.returncode, done.stderr) == (0, "")


WRONG = """\
server: {port: many, drain_s: 0}
providers:
  x: {protocol: openai, api_key: hidden-value}
  y: {models: [m], unknown: 1}
  y: {models: [m]}
routing: {default: best}
"""


def test_config_check_finds_every_mistake_of_both_files_and_shows_no_value(run):
    Path("gateway.yaml").write_text(WRONG)
    Path("pricing.yaml").write_text('models:\n  "a/b": {input: x}\n  "c": {input: 1, output: 2}\n')

    code, out, err = run("config", "check")

    assert (code, out) == (3, "")
    assert [line.split(": ", 2)[:2] for line in err.splitlines()] == [
        ["tollgate", f"gateway.yaml:{line}"] for line in (1, 1, 3, 4, 5, 6)
    ] + [["tollgate", f"pricing.yaml:{line}"] for line in (2, 2, 3)]
    assert "hidden-value" not in err

    code, out, _ = run("config", "check", "--json")
    told = json.loads(out)
    assert (code, told["ok"], told["checked"]) == (3, False, ["gateway.yaml", "pricing.yaml"])
    assert [problem["line"] for problem in told["problems"]] == [1, 1, 3, 4, 5, 6, 2, 2, 3]
    assert told["problems"][0]["message"].startswith("server.port: expected a whole number")


def test_config_check_finds_every_provider_that_cannot_be_and_files_that_are_not_there(run):
    Path("gateway.yaml").write_text(
        "providers:\n  X: {models: [m]}\n  y: {preset: groq, models: []}\n  z: {models: [m]}"
    )
    assert run("config", "check")[2].count("\n") == 3

    Path("gateway.yaml").write_text("providers: {openai: {models: [m], accounts: [{name: a, api_key_file: nowhere}]}}")
    code, _, err = run("config", "check")
    assert code == 3
    assert "providers: openai/a: api_key_file nowhere cannot be read here" in err


def test_config_check_says_what_it_has_read(run):
    code, out, _ = run("config", "check")
    assert code == 0
    assert "no gateway.yaml, so the defaults: ok" in out
    assert "no pricing.yaml, so the catalogue: ok; prices 20" in out
