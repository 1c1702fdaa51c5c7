"""A change of a key is known to every ingress in time, and where that cannot be known nobody is let in."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.app.test_reload import Providers
from tests.roles.site import PRICES, Process, Site
from tollgate.control import OFFSET_HEADER
from tollgate.events import ControlTaken, decode
from tollgate.log.kafka import KafkaLog
from tollgate.topics import load_topics

pytestmark = [pytest.mark.kafka, pytest.mark.crash]

TAKE_OVER_S = 30.0  # on a busy machine
ASLEEP_S = 3.0
MANAGED = "{name: main, managed: true}"


@pytest.fixture
async def site(tmp_path: Path, kafka: str) -> AsyncIterator[Site]:
    site = Site(tmp_path, kafka)
    assert site.command("topics", "apply", "--broker", f"kafka://{kafka}").returncode == 0
    try:
        yield site
    finally:
        site.close()


async def started(site: Site) -> tuple[list[Process], list[Process]]:
    ingresses = [site.start("ingress", name) for name in ("ingress-1", "ingress-2")]
    workers = [site.start("worker", name) for name in ("worker-1", "worker-2")]
    await site.ready(*ingresses, *workers)
    return ingresses, workers


async def command_owner(site: Site, workers: list[Process]) -> Process:
    """The worker that said last that it owns the commands."""
    log = await KafkaLog.connect(site.kafka, load_topics(), client_id="test", read_only=True)
    try:
        records = [record async for batch in log.scan("control", 0, 0) for record in batch if record.value]
    finally:
        await log.close()
    taken = [event for record in records if isinstance(event := decode(record.value or b""), ControlTaken)]
    return next(worker for worker in workers if worker.name == taken[-1].instance)


async def new_key(site: Site, ingress: Process) -> tuple[str, str, str]:
    """Id, key, and the offset that the answer names."""
    status, headers, key = await site.manage(ingress, "POST", "/v1/keys", {"name": "n"})
    assert status == 201, key
    return key["id"], key["key"], headers[OFFSET_HEADER]


async def models(site: Site, ingress: Process, key: str, **headers: str) -> int:
    status, _, _ = await site.manage(ingress, "GET", "/v1/models", key=key, headers=headers)
    return status


async def until(status: int, site: Site, ingress: Process, key: str) -> None:
    deadline = time.monotonic() + TAKE_OVER_S
    while await models(site, ingress, key) != status:
        assert time.monotonic() < deadline, f"never {status}"
        await asyncio.sleep(0.05)


async def test_what_is_changed_through_one_ingress_is_so_on_the_other(site: Site):
    (one, other), _ = await started(site)
    key_id, key, seen = await new_key(site, one)
    assert await models(site, other, key, **{OFFSET_HEADER: seen}) == 200
    status, _, _ = await site.manage(one, "DELETE", f"/v1/keys/{key_id}")
    assert status == 200
    for ingress in (one, other):
        assert await models(site, ingress, key) == 401


async def test_a_provider_that_is_written_down_and_a_credential_that_is_set_count_in_every_process(site: Site):
    """Without a restart of any: its models at both ingresses, its calls and its credential at the worker."""
    one, other = (site.start("ingress", name) for name in ("ingress-1", "ingress-2"))
    worker = site.start("worker", "worker-1")
    await site.ready(one, other, worker)
    providers = Providers()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", providers.answer)
    async with TestServer(app) as server:
        file = site.folder / "gateway.yaml"
        mine = f"{{protocol: openai, base_url: '{server.make_url('/v1')}', models: [mine], accounts: [{MANAGED}]}}"
        file.write_text(file.read_text().replace("providers:\n", f"providers:\n  mine: {mine}\n"))
        (site.folder / "pricing.yaml").write_text(PRICES + '  "mine/*": {input: 1.00, output: 1.00}\n')
        worker.kill(signal.SIGHUP)
        async with asyncio.timeout(TAKE_OVER_S):
            for ingress in (one, other):
                while (await site.manage(ingress, "GET", "/v1/models/mine"))[0] != 200:
                    await asyncio.sleep(0.1)
            while (await site.ask(one, "mine"))[0] == 404:  # of a worker that has not read it yet
                await asyncio.sleep(0.1)
        for number in ("1", "2"):
            place = "/v1/credentials/mine/main"
            status, headers, _ = await site.manage(one, "PUT", place, {"api_key": f"sk-canary-{number}"})
            assert status == 200
            seen = {OFFSET_HEADER: headers[OFFSET_HEADER]}
            status, _, shown = await site.manage(other, "GET", place, headers=seen)
            assert (status, shown["version"]) == (200, int(number))
            status, headers, _ = await site.ask(other, "mine")
            assert (status, headers["x-tollgate-cost-usd"]) == (200, "1")
    assert providers.keys == ["sk-canary-1", "sk-canary-2"]
    assert all(b"sk-canary" not in path.read_bytes() for path in site.folder.rglob("*") if path.is_file())


async def test_an_ingress_that_was_halted_does_not_take_a_key_that_was_revoked_meanwhile(site: Site):
    (one, other), _ = await started(site)
    key_id, key, seen = await new_key(site, one)
    assert await models(site, other, key, **{OFFSET_HEADER: seen}) == 200
    other.kill(signal.SIGSTOP)
    await site.manage(one, "DELETE", f"/v1/keys/{key_id}")
    asked = [asyncio.create_task(models(site, other, key)) for _ in range(20)]  # they wait in its sockets
    await asyncio.sleep(ASLEEP_S)
    other.kill(signal.SIGCONT)
    assert set(await asyncio.gather(*asked)) <= {401, 503}
    await until(401, site, other, key)


async def test_while_no_worker_lives_nobody_is_let_in(site: Site):
    (one, other), workers = await started(site)
    await until(200, site, one, site.key)
    for worker in workers:
        worker.kill(signal.SIGSTOP)
    await until(503, site, one, site.key)
    status, headers, body = await site.manage(other, "GET", "/v1/models")
    assert (status, headers["retry-after"], body["error"]["code"]) == (503, "1", "control_state_unknown")
    for worker in workers:
        worker.kill(signal.SIGCONT)
    await until(200, site, one, site.key)


async def test_when_the_owner_of_commands_dies_requests_go_on_and_changes_wait_for_the_next(site: Site):
    (one, other), workers = await started(site)
    key_id, key, _ = await new_key(site, one)
    owner = await command_owner(site, workers)
    await until(200, site, other, key)
    owner.kill()
    revoking = asyncio.create_task(site.manage(one, "DELETE", f"/v1/keys/{key_id}"))
    seen = set()
    while not revoking.done():
        seen.add(await models(site, other, site.key))
        await asyncio.sleep(0.1)
    assert seen == {200}  # the other worker beats
    status, _, _ = await revoking
    assert status in (200, 504)  # 504: not answered in time, obeyed all the same
    await until(401, site, other, key)
    assert await command_owner(site, workers) is not owner


async def test_an_owner_of_commands_that_was_halted_undoes_nothing_when_it_wakes(site: Site):
    (one, other), workers = await started(site)
    key_id, key, _ = await new_key(site, one)
    owner = await command_owner(site, workers)
    owner.kill(signal.SIGSTOP)
    await site.manage(one, "DELETE", f"/v1/keys/{key_id}")
    await until(401, site, one, key)
    owner.kill(signal.SIGCONT)
    await asyncio.sleep(ASLEEP_S)
    for ingress in (one, other):
        assert await models(site, ingress, key) == 401
    late = site.start("ingress", "ingress-3")
    await site.ready(late)
    await until(401, site, late, key)
