"""A gateway moves from its embedded log to Kafka and back: budgets go on where they were, and its books balance."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import forked
from tests.kafka_broker import KafkaBroker, free_port
from tests.roles.site import Site
from tollgate.app import cli
from tollgate.sinks.manifest import load
from tollgate.sinks.schemas import KEYS, SCHEMAS

pytestmark = [pytest.mark.kafka, pytest.mark.crash]

ASKS = 40


@pytest.fixture
def broker(start_broker) -> Iterator[KafkaBroker]:
    """A cluster of this test's own: its topics are to be one whole log."""
    broker = start_broker()
    yield broker
    broker.stop()


class House:
    """One gateway, all roles, on the log that it is started with."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.name = "house"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: Any = None

    async def move_in(self, log: str) -> None:
        words = ["serve", "--port", str(self.port), "--broker", log]
        log, site = self.site.folder / f"{self.name}.log", self.site
        self.process = forked.Forked(cli.main, words, cwd=site.folder, env=site.env, stdout=log, stderr=log)
        await self.site.ready(self)  # type: ignore[arg-type]

    def move_out(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0

    async def ask(self, key: str) -> int:
        body = {"model": "mock-gpt", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1000}
        status, _, _ = await self.site.manage(self, "POST", "/v1/chat/completions", body, key=key)  # type: ignore[arg-type]
        return status


def tollgate(site: Site, *words: str, **env: str) -> dict[str, Any]:
    """What the command prints as JSON."""
    done = forked.run(cli.main, [*words, "--json"], cwd=site.folder, env={**site.env, **env})
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def rows(data: Path) -> dict[str, Any]:
    """All rows that the folder's manifest counts, in order."""
    state = load(data)
    tables = {}
    for table, schema in SCHEMAS.items():
        parts = [pq.ParquetFile(data / file.path).read() for file in state.of(table)]
        whole = pa.concat_tables([schema.empty_table(), *parts])
        tables[table] = whole.sort_by([(column, "ascending") for column in KEYS[table]]).to_pylist()
    return tables


async def test_a_gateway_moves_to_kafka_and_back_with_all_that_it_knows(tmp_path: Path, broker: KafkaBroker) -> None:
    kafka = f"kafka://{broker.address}"
    site = Site(tmp_path, broker.address)
    house = House(site)
    site.processes.append(house)  # type: ignore[arg-type]
    try:
        await house.move_in("embedded")
        form = {"name": "moves", "quota": {"monthly_budget": "0.0045"}}
        status, _, key = await site.manage(house, "POST", "/v1/keys", form)  # type: ignore[arg-type]
        assert status == 201
        answers = [await house.ask(key["key"])]
        while answers[-1] == 200 and len(answers) < ASKS:
            answers.append(await house.ask(key["key"]))
        assert answers[0] == 200 and answers[-1] == 429  # the next hold does not fit any more
        house.move_out()

        exported = tollgate(site, "log", "export", "first.tar", "--broker", "embedded")
        assert site.command("topics", "apply", "--broker", kafka).returncode == 0
        imported = tollgate(site, "log", "import", "first.tar", "--broker", kafka)
        assert imported["totals"] == exported["totals"]
        assert exported["totals"]["ends"] == len(answers)

        await house.move_in(kafka)
        assert await house.ask(key["key"]) == 429  # what was spent before counts
        more = {"quota": {"monthly_budget": "0.0100"}}
        assert (await site.manage(house, "PATCH", f"/v1/keys/{key['id']}", more))[0] == 200  # type: ignore[arg-type]
        assert await house.ask(key["key"]) == 200
        house.move_out()
        assert tollgate_reconciles(site, kafka) == []

        back = tmp_path / "data" / "log"
        back.rename(tmp_path / "old-log")
        tollgate(site, "log", "export", "second", "--broker", kafka)
        tollgate(site, "log", "import", "second", "--broker", "embedded")
        assert tollgate_reconciles(site, "embedded") == []
        tollgate_replays(site, kafka, "from-kafka")
        tollgate_replays(site, "embedded", "from-embedded")
        assert rows(tmp_path / "from-kafka") == rows(tmp_path / "from-embedded") == rows(tmp_path / "data")
        assert len(rows(tmp_path / "data")["usage"]) == len(answers) + 2

        await house.move_in("embedded")
        assert await house.ask(key["key"]) == 200
        house.move_out()
        assert tollgate_reconciles(site, "embedded") == []
    finally:
        site.close()


def on(site: Site, log: str) -> Path:
    """A configuration for the commands that have no --broker."""
    path = site.folder / f"{log.partition(':')[0]}.yaml"
    path.write_text((site.folder / "gateway.yaml").read_text().replace(f"kafka://{site.kafka}", log))
    return path


def tollgate_reconciles(site: Site, log: str) -> list[Any]:
    differences: list[Any] = tollgate(site, "reconcile", "--config", str(on(site, log)))["differences"]
    return differences


def tollgate_replays(site: Site, log: str, to: str) -> None:
    tollgate(site, "replay", "--to", to, "--config", str(on(site, log)))
