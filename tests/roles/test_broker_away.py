"""The broker is away when the gateway starts, ends in the middle of its work, or does not answer for a while.

No process ends for it. Clients are told to come back, at once and in their dialect; what was answered is in the books,
once; and soon after the broker is back requests are answered again.
"""

import asyncio
import io
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import orjson
import pytest

from tests.kafka_broker import KafkaBroker
from tests.roles.site import START_S, Process, Site
from tollgate.log.kafka import QUEUE_BYTES
from tollgate.log.kafka_clients import SESSION_TIMEOUT_S
from tollgate.log.reach import BEHIND_AFTER_S

pytestmark = [pytest.mark.kafka, pytest.mark.crash]

RECOVERY_S = 15.0
NOTICED_S = BEHIND_AFTER_S + 3.0  # on a machine that does much else; half a second more when it does not
LOAD_EVERY_S = 0.1
ROUTES = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
BODY = {"model": "mock-gpt", "max_tokens": 20, "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture(scope="module")
def broker(start_broker) -> Iterator[KafkaBroker]:
    """A broker for these tests alone."""
    broker = start_broker()
    yield broker
    broker.stop()


@pytest.fixture
async def site(tmp_path: Path, broker: KafkaBroker) -> AsyncIterator[Site]:
    site = Site(tmp_path, broker.address)
    assert site.command("topics", "apply", "--broker", f"kafka://{broker.address}").returncode == 0
    try:
        yield site
    finally:
        site.close()


class Asked(NamedTuple):
    """One request of the load, and what became of it."""

    at_s: float
    took_s: float
    status: int
    request_id: str
    retry_after: str | None
    body: Any


class Load:
    """Clients of both dialects that ask and ask, and never wait for each other."""

    def __init__(self, site: Site, ingress: Process) -> None:
        self.asked: list[Asked] = []
        self._site = site
        self._ingress = ingress
        self._asking: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Load":
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))
        self._run = asyncio.create_task(self._ask_on())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._run.cancel()
        await asyncio.gather(*self._asking)
        await self._session.close()

    async def _ask_on(self) -> None:
        while True:
            for route in ROUTES.values():
                self._asking.add(asyncio.create_task(self._ask(route)))
            await asyncio.sleep(LOAD_EVERY_S)

    async def _ask(self, route: str) -> None:
        begun = time.monotonic()
        headers = {"authorization": f"Bearer {self._site.key}"}
        async with self._session.post(f"{self._ingress.url}{route}", json=BODY, headers=headers) as response:
            body = orjson.loads(await response.read())
        self.asked.append(
            Asked(
                begun,
                time.monotonic() - begun,
                response.status,
                response.headers["x-request-id"],
                response.headers.get("retry-after"),
                body,
            )
        )

    async def answers(self, since_s: float) -> float:
        """Return when a request asked after `since_s` was answered; how long after it that was."""
        async with asyncio.timeout(2 * RECOVERY_S):
            while not any(asked.status == 200 and asked.at_s > since_s for asked in self.asked):
                await asyncio.sleep(0.05)
        return time.monotonic() - since_s

    def of(self, status: int) -> list[Asked]:
        return [asked for asked in self.asked if asked.status == status]


async def start_again(broker: KafkaBroker) -> None:
    """Begun in this thread: on Linux a broker ends with the thread that began it."""
    broker.launch()
    async with asyncio.timeout(START_S):
        while not await asyncio.to_thread(broker.answers):
            await asyncio.sleep(0.05)


async def probe(process: Process, path: str) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
        session.get(f"{process.url}{path}") as response,
    ):
        return response.status, await response.json()


async def listening(*processes: Process) -> None:
    async with asyncio.timeout(START_S):
        for process in processes:
            while True:
                try:
                    assert (await probe(process, "/healthz"))[0] == 200
                    break
                except aiohttp.ClientError:
                    await asyncio.sleep(0.1)


async def waits_for_the_log(*processes: Process, within_s: float) -> None:
    async with asyncio.timeout(within_s):
        for process in processes:
            while (found := await probe(process, "/readyz"))[0] == 200:
                await asyncio.sleep(0.1)
            assert found[0] == 503
            assert found[1]["waiting_for"][0].startswith("the log: ")
            assert (await probe(process, "/healthz"))[0] == 200


async def refused_in_both_dialects(site: Site, ingress: Process) -> None:
    """As the official clients show it: an error of the server's, worth another try."""
    import anthropic  # here, for they take seconds
    import openai

    with pytest.raises(openai.InternalServerError) as told:
        await openai.AsyncOpenAI(base_url=f"{ingress.url}/v1", api_key=site.key, max_retries=0).chat.completions.create(
            **BODY
        )
    assert (told.value.status_code, told.value.response.headers["retry-after"]) == (503, "1")
    assert "Try again" in told.value.message
    with pytest.raises(anthropic.InternalServerError) as said:
        await anthropic.AsyncAnthropic(base_url=ingress.url, api_key=site.key, max_retries=0).messages.create(**BODY)
    assert (said.value.status_code, said.value.response.headers["retry-after"]) == (503, "1")
    assert "Try again" in said.value.message


async def three_roles(site: Site) -> tuple[Process, Process, Process]:
    ingress, worker, sink = (site.start(role, f"{role}-1") for role in ("ingress", "worker", "sink"))
    await site.ready(ingress, worker, sink)
    return ingress, worker, sink


def the_books_agree(site: Site, sink: Process, load: Load) -> dict[str, tuple[str, str]]:
    """Stop the sink and compare; return status and cost by request."""
    sink.kill(signal.SIGTERM)
    assert sink.ended() == 0
    checked = site.command("reconcile")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    found = site.command("sql", "--format", "json", "select request_id, status, cost_usd from usage")
    assert found.returncode == 0, found.stderr
    rows = [(row["request_id"], row["status"], str(row["cost_usd"])) for row in orjson.loads(found.stdout)]
    ends = {request_id: (status, cost) for request_id, status, cost in rows}
    assert len(ends) == len(rows), "no request has two ends"
    for asked in load.of(200):
        assert ends[asked.request_id][0] == "completed"
    return ends


async def nothing_was_called_for_the_refused(
    site: Site, load: Load, ends: dict[str, tuple[str, str]], *, gone_s: float
) -> None:
    called = {row["call_id"].rpartition(".")[0] for row in await site.calls()}
    assert {asked.request_id for asked in load.of(200)} <= called
    for asked in load.of(503):
        assert asked.retry_after == "1"
        assert "Try again" in asked.body["error"]["message"]
        if asked.at_s < gone_s:
            continue  # it may have been decided and called in the moment before, and only that was not heard of
        assert asked.request_id not in called
        if (
            asked.request_id in ends
        ):  # it had landed all the same: in time, and its cancellation right behind it, or void
            assert ends[asked.request_id][0] in ("cancelled", "rejected")
            assert float(ends[asked.request_id][1]) == 0


def memory_bytes(process: Process) -> int:
    pages = int(Path(f"/proc/{process.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def test_every_role_starts_without_a_broker_and_comes_up_by_itself(site: Site, broker: KafkaBroker):
    broker.kill()
    processes = [site.start(role, f"{role}-1") for role in ("ingress", "worker", "sink")]
    ingress = processes[0]
    await listening(*processes)
    await waits_for_the_log(*processes, within_s=5)
    await refused_in_both_dialects(site, ingress)
    for path in ("/v1/models", "/v1/keys", "/v1/requests/x"):
        status, said = await probe(ingress, path)
        assert (status, said["error"]["code"]) == (503, "not_ready")
    stopped = site.start("worker", "worker-2")
    await listening(stopped)
    stopped.kill(signal.SIGTERM)
    assert stopped.ended(10) == 0, "one that waits can be told to stop"

    await start_again(broker)
    back_s = time.monotonic()
    async with Load(site, ingress) as load:
        assert await load.answers(back_s) < RECOVERY_S
    await site.ready(*processes)
    assert all(process.process.poll() is None for process in processes)


async def test_a_broker_that_is_killed_under_load_and_comes_back_costs_no_end_and_no_process(
    site: Site, broker: KafkaBroker
):
    ingress, worker, sink = await three_roles(site)
    async with Load(site, ingress) as load:
        await load.answers(time.monotonic())
        gone_s = time.monotonic()
        broker.kill()
        await waits_for_the_log(ingress, worker, sink, within_s=NOTICED_S)
        await refused_in_both_dialects(site, ingress)
        await start_again(broker)
        back_s = time.monotonic()
        assert await load.answers(back_s) < RECOVERY_S
        await site.ready(ingress, worker, sink)
    assert all(process.process.poll() is None for process in (ingress, worker, sink))
    late = [asked for asked in load.of(503) if asked.at_s - gone_s > NOTICED_S]
    assert late and max(asked.took_s for asked in late) < NOTICED_S, "refused at once, not queued"
    await asyncio.sleep(2)  # what had landed and was cancelled comes to its end
    ends = the_books_agree(site, sink, load)
    await nothing_was_called_for_the_refused(site, load, ends, gone_s=gone_s)


async def test_a_broker_that_is_paused_cuts_no_stream_and_fills_no_memory(site: Site, broker: KafkaBroker):
    ingress, worker, sink = await three_roles(site)
    before = len(await site.calls())
    streaming = asyncio.create_task(site.ask(ingress, "sandbox-chunks20-gap300", stream=True))
    await site.called(more_than=before)
    async with Load(site, ingress) as load:
        await load.answers(time.monotonic())
        at_rest = memory_bytes(ingress)
        gone_s = time.monotonic()
        broker.freeze(True)
        try:
            statuses = await flood(site, ingress, requests=400, body_bytes=1 << 20)
            await waits_for_the_log(ingress, worker, sink, within_s=NOTICED_S)
            assert set(statuses) == {503}
            assert memory_bytes(ingress) - at_rest < QUEUE_BYTES + (96 << 20), "of 400 MiB offered"
            await asyncio.sleep(max(0.0, gone_s + 2 * SESSION_TIMEOUT_S - time.monotonic()))
        finally:
            broker.freeze(False)
        back_s = time.monotonic()
        assert await load.answers(back_s) < RECOVERY_S
        await site.ready(ingress, worker, sink)
    assert all(process.process.poll() is None for process in (ingress, worker, sink))
    status, headers, body = await streaming
    assert status == 200
    assert body.endswith(b"data: [DONE]\n\n"), "a stream under way goes on where it was"
    assert len(await site.calls(headers["x-request-id"])) == 1
    await asyncio.sleep(2)
    ends = the_books_agree(site, sink, load)
    assert ends[headers["x-request-id"]][0] == "completed"


async def flood(site: Site, ingress: Process, *, requests: int, body_bytes: int) -> list[int]:
    """Requests with large bodies, all at once; the statuses of their answers."""
    content = orjson.dumps(BODY | {"messages": [{"role": "user", "content": "x" * body_bytes}]})
    headers = {"authorization": f"Bearer {site.key}", "content-type": "application/json"}
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=50), timeout=aiohttp.ClientTimeout(total=60)
    ) as session:

        async def one() -> int:
            url = f"{ingress.url}/v1/chat/completions"
            async with session.post(url, data=io.BytesIO(content), headers=headers) as response:
                await response.read()
                return response.status

        return await asyncio.gather(*(one() for _ in range(requests)))
