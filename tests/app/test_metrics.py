"""What a whole gateway shows of itself, and that its documents name exactly that."""

import re
from pathlib import Path

import orjson
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.serving import STAYING
from tests.test_one_request import QUESTION, post
from tollgate.app.gateway import open_gateway
from tollgate.app.reload import Source
from tollgate.config import load_config
from tollgate.secret import first_run_secrets

DOCS = Path(__file__).parents[2] / "docs"
LABELS = {
    "role",
    "version",
    "route",
    "status",
    "reason",
    "partition",
    "topic",
    "owner",
    "answer",
    "provider",
    "outcome",
    "account",
    "counts",
}


@pytest.fixture
async def shown(tmp_path):
    """(families by name, samples by name and labels, the answer of /readyz) after one request."""
    secrets = first_run_secrets(tmp_path, {}, embedded=True)
    config = load_config(None, {})
    source = Source(lambda: (), lambda: pytest.fail("nothing has changed"))
    async with open_gateway(
        config, data=tmp_path, instance="test", secrets=secrets, fatal=pytest.fail, source=source
    ) as gateway:
        not_started = await get(gateway.application, "/readyz")
        async with gateway.started():
            assert (await post(gateway.application, secrets.admin_key.reveal(), QUESTION))[0] == 200
            _, ready = await get(gateway.application, "/readyz")
            _, text = await get(gateway.application, "/metrics")
    status, answer = not_started
    assert (status, orjson.loads(answer)["waiting_for"]) == (503, ["the start: the log is being read"])
    families = [family for family in text_string_to_metric_families(text.decode()) if not foreign(family.name)]
    samples = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }
    return families, samples, orjson.loads(ready)


def foreign(name):
    return name.startswith(("process_", "python_gc_"))


async def get(application, path):
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request"}

    headers = [(b"host", b"tollgate")]
    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b""}
    scope |= {"http_version": "1.1", "headers": headers, "extensions": STAYING}
    await application(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def exposed(family):
    """The name as the page has it: counters end in `_total`."""
    return f"{family.name}_total" if family.type == "counter" else family.name


async def test_the_page_names_what_is_shown_and_nothing_else(shown):
    families, _, _ = shown
    documented = re.findall(r"^\| `(tollgate_\w+)` \|", (DOCS / "operations.md").read_text(), re.M)
    # a histogram and a counter are accompanied by the time of their making
    seen = {exposed(family) for family in families if not family.name.endswith("_created")}
    assert sorted(documented) == sorted(seen)


async def test_labels_are_few_and_name_nobody(shown):
    families, _, _ = shown
    for family in families:
        for sample in family.samples:
            assert set(sample.labels) <= LABELS | {"le"}
            assert not any("tg-" in value or "sandbox-" in value for value in sample.labels.values())


async def test_the_request_is_counted_and_nothing_is_held_any_more(shown):
    _, samples, ready = shown

    def value(name, **labels):
        return samples[name, frozenset(labels.items())]

    assert value("tollgate_requests_ended_total", status="completed") == 1
    assert value("tollgate_attempts_total", provider="sandbox", outcome="ok") == 1
    assert value("tollgate_partitions_owned") == value("tollgate_takeovers_total") == 6
    assert value("tollgate_held_usd") == value("tollgate_open_requests") == 0
    assert sum(number for (name, _), number in samples.items() if name == "tollgate_requests_lag") == 0
    assert value("tollgate_ready") == value("tollgate_sink_active") == 1
    assert set(ready.pop("configuration")) == {"in_force_since"}
    assert ready == {"status": "ready", "role": "all", "partitions": [0, 1, 2, 3, 4, 5], "sink": "elected"}


async def test_alerts_are_about_metrics_that_exist(shown):
    families, _, _ = shown
    names = {exposed(family) for family in families}
    (group,) = yaml.safe_load((DOCS / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]:
        used = set(re.findall(r"\b(?:tollgate|process)_\w+", rule["expr"]))
        assert used and all(name in names or foreign(name) for name in used), rule["alert"]
        assert rule["annotations"]["summary"]
