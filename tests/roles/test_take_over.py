"""Workers come and go in the middle of requests: the client gets its answer, once, and the books know every call."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.roles.site import Process, Site

pytestmark = [pytest.mark.kafka, pytest.mark.crash]


@pytest.fixture
async def site(tmp_path: Path, kafka: str) -> AsyncIterator[Site]:
    site = Site(tmp_path, kafka)
    assert site.command("topics", "apply", "--broker", f"kafka://{kafka}").returncode == 0
    try:
        yield site
    finally:
        site.close()


async def two_workers(site: Site) -> tuple[Process, list[Process]]:
    ingress = site.start("ingress", "ingress-1")
    workers = [site.start("worker", name) for name in ("worker-1", "worker-2")]
    await site.ready(ingress, *workers)
    status, _, _ = await site.ask(ingress, "mock-gpt")
    assert status == 200
    return ingress, workers


async def hang_up(asking: "asyncio.Task[object]") -> None:
    """Close the connection."""
    asking.cancel()
    await asyncio.wait((asking,))


async def test_a_client_that_goes_after_its_call_was_handed_over_has_it_cut_and_booked_once(site: Site):
    ingress, workers = await two_workers(site)
    before = len(await site.calls())
    asking = asyncio.create_task(site.ask(ingress, "sandbox-chunks1000-gap100", stream=True))
    await site.called(more_than=before)
    leaving = site.owner(workers)
    leaving.kill(signal.SIGTERM)
    await site.handed_over(leaving)
    [call] = [call for call in await site.calls() if not call["finished"]]
    await hang_up(asking)
    row = await site.finished(call["call_id"])
    assert row["outcome"] == "disconnected"
    assert leaving.ended() == 0  # and does not wait for the end of its drain
    request_id = call["call_id"].rpartition(".")[0]
    story = await site.ended(ingress, request_id)
    assert (story["status"], [attempt["outcome"] for attempt in story["attempts"]]) == ("cancelled", ["cancelled"])
    assert len(await site.calls(request_id)) == 1


async def test_a_client_that_goes_after_a_take_over_has_its_new_call_cut(site: Site):
    ingress, workers = await two_workers(site)
    before = len(await site.calls())
    asking = asyncio.create_task(site.ask(ingress, "sandbox-lat20000"))
    await site.called(more_than=before)
    site.owner(workers).kill()
    await site.called(more_than=before + 1)
    again = (await site.calls())[-1]["call_id"]
    request_id = again.rpartition(".")[0]
    await hang_up(asking)
    row = await site.finished(again)
    assert row["outcome"] == "disconnected"
    story = await site.ended(ingress, request_id)
    assert (story["status"], [attempt["outcome"] for attempt in story["attempts"]]) == (
        "cancelled",
        ["abandoned", "cancelled"],
    )
    assert len(await site.calls(request_id)) == 2
