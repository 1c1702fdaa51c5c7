"""The configuration changes while the gateway runs: for requests to come, and for no other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.app.test_metrics import get
from tests.test_one_request import post
from tollgate.app import reload
from tollgate.app.gateway import Gateway, changed_at_restart, load_prices, open_gateway
from tollgate.app.reload import Reading, Reloading, Source
from tollgate.config import load_config
from tollgate.errors import ConfigError
from tollgate.secret import first_run_secrets

GATEWAY, PRICING = Path("gateway.yaml"), Path("pricing.yaml")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reload, "LOOK_EVERY_S", 0.01)


def source() -> Source:
    def read() -> Reading:
        return Reading(load_config(GATEWAY if GATEWAY.exists() else None, {}), load_prices())

    return Source(lambda: (GATEWAY, PRICING), read)


def write(path: Path, text: str) -> None:
    """As an editor does: the file is another one then."""
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.rename(path)


# Reading again -------------------------------------------------------------------------------------------------------


class Watched:
    """A watch over the files, and what it has put in force."""

    def __init__(self) -> None:
        self.applied: list[Reading] = []
        self.wrong: str | None = None
        files = source()
        self.reloading = Reloading(files, files.seen(), self.apply)

    def apply(self, reading: Reading) -> tuple[str, ...]:
        if self.wrong is not None:
            raise ConfigError(self.wrong)
        self.applied.append(reading)
        return ()

    async def until(self, outcome: str, times: int = 1) -> None:
        async with asyncio.timeout(10):
            while self.reloading.counts[outcome] < times:
                await asyncio.sleep(0.005)


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    write(GATEWAY, "sandbox: true")
    made = Watched()
    running = asyncio.create_task(made.reloading.run())
    yield made
    running.cancel()
    await asyncio.wait({running})


async def test_what_has_not_changed_is_not_read(watched: Watched):
    await asyncio.sleep(0.1)
    assert watched.reloading.counts == {"applied": 0, "refused": 0}


async def test_a_file_that_comes_and_one_that_changes_are_read(watched: Watched):
    write(GATEWAY, "routing: {default: balanced}")
    await watched.until("applied")
    write(PRICING, 'models: {"a/b": {input: 1, output: 2}}')
    await watched.until("applied", 2)
    first, second = watched.applied
    assert first.config.routing.default == second.config.routing.default == "balanced"
    assert first.book.version != second.book.version


async def test_a_file_behind_a_link_that_now_leads_elsewhere_is_read(watched: Watched):
    """As Kubernetes replaces what it has mounted: the names stay, and a link above them is exchanged."""
    GATEWAY.unlink()
    for day, strategy in (("monday", "priority"), ("tuesday", "balanced")):
        Path(day).mkdir()
        Path(day, "gateway.yaml").write_text(f"routing: {{default: {strategy}}}")
    Path("data").symlink_to("monday")
    GATEWAY.symlink_to("data/gateway.yaml")
    await watched.until("applied")
    Path("next").symlink_to("tuesday")
    Path("next").rename("data")
    await watched.until("applied", 2)
    assert [reading.config.routing.default for reading in watched.applied] == ["priority", "balanced"]


async def test_a_signal_has_them_read_though_they_look_the_same(watched: Watched):
    watched.reloading.now()
    await watched.until("applied")


@pytest.mark.parametrize(
    ("wrong", "says", "shows"),
    [
        ("\nrouting: {default: best}", "gateway.yaml:2: routing.default must be one of", "gateway.yaml:2 is wrong"),
        ("providers: {x: {", "gateway.yaml:1: not YAML", "gateway.yaml:1 is wrong"),
    ],
)
async def test_a_wrong_file_changes_nothing_and_is_told_with_its_place_until_it_is_right(
    watched: Watched, caplog: pytest.LogCaptureFixture, wrong: str, says: str, shows: str
):
    write(GATEWAY, wrong)
    await watched.until("refused")
    await asyncio.sleep(0.05)
    assert watched.applied == []
    assert watched.reloading.counts["refused"] == 1, "it is told once"
    assert says in caplog.text
    assert says in (watched.reloading.wrong or "")
    assert str(watched.reloading.shown()["refused"]).startswith(shows)
    write(GATEWAY, "sandbox: true")
    await watched.until("applied")
    assert watched.reloading.wrong is None
    assert "refused" not in watched.reloading.shown()


async def test_a_file_that_is_gone_takes_nothing_away(watched: Watched):
    GATEWAY.unlink()
    await watched.until("refused")
    assert "gateway.yaml is gone: what it said stays in force" in (watched.reloading.wrong or "")


async def test_what_cannot_be_put_in_force_is_refused_like_what_cannot_be_read(watched: Watched):
    watched.wrong = "providers: x/main: key.json is not the key file of a service account"
    watched.reloading.now()
    await watched.until("refused")
    assert watched.reloading.wrong == watched.wrong
    assert watched.reloading.shown()["refused"] == "the configuration is wrong; the log of the process says how"


async def test_a_surprise_in_a_file_does_not_end_the_process(watched: Watched, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reload.Source, "read", lambda *_: 1 / 0)
    watched.reloading.now()
    await watched.until("refused")
    assert watched.reloading.wrong == "the configuration cannot be read: ZeroDivisionError"


def test_what_needs_a_restart_is_named():
    before = load_config(None, {})
    GATEWAY.write_text("server: {port: 1, drain_s: 5}\nlog: {durability: process}\nrouting: {default: balanced}")
    changed = changed_at_restart(before, load_config(GATEWAY, {}))
    assert changed == ["log.durability", "server.port", "server.drain_s"]


# The gateway ---------------------------------------------------------------------------------------------------------


class Providers:
    """Providers on one server. An answer waits until it may go; with which key it was asked is noted."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.refused: set[str] = set()
        self.came = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def answer(self, request: web.Request) -> web.Response:
        self.keys.append(request.headers["authorization"].removeprefix("Bearer "))
        self.came.set()
        await self.may_answer.wait()
        if self.keys[-1] in self.refused:
            return web.json_response({"error": {"message": "no", "code": "invalid_api_key"}}, status=401)
        said = {"role": "assistant", "content": "Hi"}
        return web.json_response(
            {
                "id": "c",
                "object": "chat.completion",
                "created": 1,
                "model": (await request.json())["model"],
                "choices": [{"index": 0, "message": said, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 1_000_000, "completion_tokens": 0, "total_tokens": 1_000_000},
            }
        )


class Site:
    """A gateway whose files the test writes."""

    def __init__(self, gateway: Gateway, token: str, providers: Providers, url: str) -> None:
        self.gateway, self.token, self.providers, self.url = gateway, token, providers, url

    async def ask(self, model: str) -> tuple[int, dict[str, str], Any]:
        body = orjson.dumps({"model": model, "messages": [{"role": "user", "content": "Hi"}]})
        status, headers, answer = await post(self.gateway.application, self.token, body)
        return status, headers, orjson.loads(answer)

    async def write(self, name: str, key: str, usd: int, *, more: str = "") -> None:
        """Serve the model `m` by one provider with this name, key and price; return when that is in force."""
        at = f"{{protocol: openai, base_url: '{self.url}', models: [m], api_key: {key}}}"
        write(PRICING, f'models: {{"*/m": {{input: {usd}, output: 0}}}}')
        write(GATEWAY, f"providers: {{{name}: {at}}}\n{more}")
        before = self.reloading.counts.copy()
        self.gateway.reload()
        async with asyncio.timeout(10):
            while self.reloading.counts == before:
                await asyncio.sleep(0.005)

    @property
    def reloading(self) -> Reloading:
        assert self.gateway._reloading is not None
        return self.gateway._reloading


@asynccontextmanager
async def running(data: Path) -> AsyncIterator[Site]:
    secrets = first_run_secrets(data, {}, embedded=True)
    providers = Providers()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", providers.answer)
    files = source()
    async with (
        TestServer(app) as server,
        open_gateway(
            load_config(None, {}),
            data=data,
            instance="test",
            secrets=secrets,
            fatal=pytest.fail,
            source=files,
            seen=files.seen(),
        ) as gateway,
        gateway.started(),
    ):
        yield Site(gateway, secrets.admin_key.reveal(), providers, str(server.make_url("/v1")))


async def test_requests_to_come_go_by_the_new_files_and_those_under_way_by_the_old_ones(tmp_path: Path):
    async with running(tmp_path / "data") as site:
        assert (await site.ask("m"))[0] == 404
        await site.write("first", "key-1", usd=1)
        site.providers.may_answer.clear()
        under_way = asyncio.create_task(site.ask("m"))
        await site.providers.came.wait()

        await site.write("second", "key-2", usd=2)
        site.providers.may_answer.set()
        status, headers, _ = await under_way
        assert (status, headers["x-tollgate-provider"], headers["x-tollgate-cost-usd"]) == (200, "first", "1")
        status, headers, _ = await site.ask("m")
        assert (status, headers["x-tollgate-provider"], headers["x-tollgate-cost-usd"]) == (200, "second", "2")
        assert (await site.ask("first/m"))[0] == 404
        assert site.providers.keys == ["key-1", "key-2"]


async def test_a_key_in_the_file_is_replaced_for_the_next_call_on_the_same_connections(tmp_path: Path):
    async with running(tmp_path / "data") as site:
        await site.write("one", "key-1", usd=1)
        await site.ask("m")
        ways = dict(site.gateway._setup_now().transports)
        await site.write("one", "key-2", usd=1)
        await site.ask("m")
        assert site.providers.keys == ["key-1", "key-2"]
        assert site.gateway._setup_now().transports == ways


async def test_a_wrong_file_is_told_by_readiness_and_metrics_while_requests_are_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    async with running(tmp_path / "data") as site:
        await site.write("one", "key-1", usd=1, more="server: {max_in_flight: 7}")
        _, ready = await get(site.gateway.application, "/readyz")
        assert orjson.loads(ready)["configuration"]["needs_restart"] == ["server.max_in_flight"]
        await site.write("one", "key-1", usd=1, more="routes: {}")
        status, ready = await get(site.gateway.application, "/readyz")
        assert status == 200
        assert orjson.loads(ready)["configuration"]["refused"].startswith("gateway.yaml:2 is wrong")
        _, metrics = await get(site.gateway.application, "/metrics")
        assert b"tollgate_config_last_reload_successful 0.0" in metrics
        assert b'tollgate_config_reloads_total{outcome="refused"} 1.0' in metrics
        assert (await site.ask("m"))[0] == 200
    assert "unknown key 'routes'" in caplog.text
    assert "key-1" not in caplog.text


async def test_a_limit_that_is_set_holds_for_the_next_request(tmp_path: Path):
    async with running(tmp_path / "data") as site:
        await site.write("one", "key-1", usd=1)
        assert [(await site.ask("m"))[0] for _ in range(3)] == [200, 200, 200]
        await site.write("one", "key-1", usd=1, more="rate_limiting: {global_rpm: 1}")
        assert [(await site.ask("m"))[0] for _ in range(2)] == [200, 429]
        await site.write("one", "key-1", usd=1)
        assert (await site.ask("m"))[0] == 200
