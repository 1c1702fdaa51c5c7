"""A limit of the whole gateway holds over all its workers, whatever becomes of them, and is used to the full."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.roles.site import Process, Site

pytestmark = [pytest.mark.kafka, pytest.mark.crash]

PER_MINUTE = 240
LOAD_S = 25.0
CLIENTS = 12
ORGANISATIONS = 6
LIMIT = f"rate_limiting: {{global_rpm: {PER_MINUTE}}}\n"


@pytest.fixture
async def site(tmp_path: Path, kafka: str) -> AsyncIterator[Site]:
    site = Site(tmp_path, kafka, settings=LIMIT)
    assert site.command("topics", "apply", "--broker", f"kafka://{kafka}").returncode == 0
    try:
        yield site
    finally:
        site.close()


class Load:
    """Clients of several organisations, so of several partitions, that ask for more than there is."""

    def __init__(self, site: Site, ingress: Process) -> None:
        self._site = site
        self._ingress = ingress
        self._keys: list[str] = []
        self.statuses: Counter[int] = Counter()
        self.took_s = 0.0

    async def prepare(self) -> None:
        for number in range(ORGANISATIONS):
            _, _, key = await self._site.manage(
                self._ingress, "POST", "/v1/keys", {"name": "n", "organization": f"org-{number}"}
            )
            self._keys.append(key["key"])

    async def run(self, in_the_middle: Callable[[], object] | None = None) -> None:
        began = time.monotonic()
        async with asyncio.TaskGroup() as clients:
            for number in range(CLIENTS):
                clients.create_task(self._client(self._keys[number % ORGANISATIONS], began + LOAD_S))
            if in_the_middle is not None:
                await asyncio.sleep(LOAD_S / 3)
                in_the_middle()
        self.took_s = time.monotonic() - began

    async def _client(self, key: str, until: float) -> None:
        body = {"model": "mock-gpt", "messages": [{"role": "user", "content": "Hello"}]}
        while time.monotonic() < until:
            status, headers, answer = await self._site.manage(
                self._ingress, "POST", "/v1/chat/completions", body, key=key
            )
            self.statuses[status] += 1
            if status == 429:
                assert answer["error"]["limit_name"] == "global_requests_per_minute"
                await asyncio.sleep(min(0.05, int(headers["retry-after-ms"]) / 1000))

    @property
    def most(self) -> float:
        """What the bucket and its refill let go in that time."""
        return PER_MINUTE * (1 + self.took_s / 60)


async def loaded(site: Site) -> tuple[Load, list[Process]]:
    ingress = site.start("ingress", "ingress-1")
    workers = [site.start("worker", name) for name in ("worker-1", "worker-2")]
    await site.ready(ingress, *workers)
    load = Load(site, ingress)
    await load.prepare()
    return load, workers


async def test_two_workers_together_let_the_limit_go_and_not_one_more(site: Site):
    load, _ = await loaded(site)
    await load.run()
    calls = len(await site.calls())
    print(f"{calls} calls of at most {load.most:.0f} in {load.took_s:.1f} s; {dict(load.statuses)}")
    assert load.statuses[200] == calls
    assert set(load.statuses) == {200, 429}
    assert calls <= load.most
    assert calls >= 0.9 * PER_MINUTE * (1 + LOAD_S / 60)


async def test_a_worker_that_dies_takes_nothing_of_the_limit_that_is_given_again(site: Site):
    load, workers = await loaded(site)
    await load.run(in_the_middle=workers[0].kill)
    calls = len(await site.calls())
    again = sum(call["call_id"].endswith(".2") for call in await site.calls())  # the same request, admitted once
    assert calls - again <= load.most
    assert load.statuses[200] > 0
