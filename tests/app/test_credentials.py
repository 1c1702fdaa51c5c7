"""A credential that is set through the API is taken by the next call, survives a restart, and fails nobody."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.app.test_reload import Providers
from tests.ingress.support import Client
from tollgate.app.gateway import open_gateway
from tollgate.config import load_config
from tollgate.secret import first_run_secrets

SECRET = "kR7pVx2mQz9nBt4wYs6cJd"
PLACE = "/v1/credentials/one/main"
MANAGED, FILED = "{name: main, managed: true}", "{name: main, api_key: of-the-file}"


@asynccontextmanager
async def running(
    folder: Path, url: str, account: str = MANAGED, *, secret: str = SECRET, retries: int = 0
) -> AsyncIterator[Client]:
    """A gateway with the provider `one`, and its administrator."""
    one = f"{{protocol: openai, base_url: '{url}', models: [m], max_retries: {retries}, accounts: [{account}]}}"
    path = folder / "gateway.yaml"
    path.write_text(f"providers: {{one: {one}}}\nrouting: {{fallback_on: [auth]}}")
    secrets = first_run_secrets(folder / "data", {"TOLLGATE_SECRET": secret}, embedded=True)
    async with (
        open_gateway(
            load_config(path, {}), data=folder / "data", instance="test", secrets=secrets, fatal=pytest.fail
        ) as gateway,
        gateway.started(),
    ):
        yield Client(gateway.application, secrets.admin_key.reveal())


@asynccontextmanager
async def serving(providers: Providers) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", providers.answer)
    async with TestServer(app) as server:
        yield str(server.make_url("/v1"))


async def ask(client: Client) -> Any:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    return await client.request("POST", "/v1/chat/completions", body)


async def give(client: Client, key: str) -> None:
    assert (await client.request("PUT", PLACE, {"api_key": key})).status == 200


async def test_a_managed_account_has_none_until_it_is_set_and_none_again_when_it_is_deleted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    providers = Providers()
    async with serving(providers) as url, running(tmp_path, url) as client:
        assert (await ask(client)).status == 502
        assert "no credential has been set for one/main; 'tollgate credentials set one main'" in caplog.text
        await give(client, "key-1")
        assert (await ask(client)).status == 200
        assert (await client.request("DELETE", PLACE)).status == 200
        assert (await ask(client)).status == 502
    assert providers.keys == ["key-1"]


async def test_what_is_set_goes_before_the_file_and_the_file_counts_again_afterwards(tmp_path: Path):
    providers = Providers()
    async with serving(providers) as url, running(tmp_path, url, FILED) as client:
        await ask(client)
        await give(client, "key-1")
        await ask(client)
        await client.request("DELETE", PLACE)
        await ask(client)
    assert providers.keys == ["of-the-file", "key-1", "of-the-file"]


async def test_a_call_under_way_ends_with_the_old_one_and_a_retry_takes_the_new_one(tmp_path: Path):
    providers = Providers()
    providers.refused = {"key-1"}
    async with serving(providers) as url, running(tmp_path, url, retries=1) as client:
        await give(client, "key-1")
        providers.may_answer.clear()
        under_way = asyncio.create_task(ask(client))
        await providers.came.wait()
        await give(client, "key-2")
        providers.may_answer.set()
        assert (await under_way).status == 200
    assert providers.keys == ["key-1", "key-2"]


async def test_it_is_there_after_a_restart_and_does_not_open_under_another_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    providers = Providers()
    async with serving(providers) as url:
        async with running(tmp_path, url, FILED) as client:
            await give(client, "key-1")
            await give(client, "key-2")
        async with running(tmp_path, url, FILED) as client:
            assert (await ask(client)).status == 200
        async with running(tmp_path, url, FILED, secret=SECRET[::-1]) as client:
            assert (await ask(client)).status == 502
            await give(client, "key-3")
            assert (await ask(client)).status == 200
    assert "one/main does not open: TOLLGATE_SECRET is not the one that it was set under" in caplog.text
    assert providers.keys == ["key-2", "key-3"]
