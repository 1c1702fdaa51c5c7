"""The story of a request is told from the log, to those whom it concerns."""

from typing import Any

import pytest

from tests.ingress.support import CHAT, OPENAI_BODY, PROMPT, Gateway, attempt, ended, stay_silent
from tollgate.events import Admitted, AttemptStarted, Candidate, OwnerTook, Request
from tollgate.ids import new_request_id
from tollgate.ingress import story as story_module


async def ask(gateway: Gateway, org_id: str = "acme") -> Request:
    """A request that was accepted, and about which nothing has been decided."""
    gateway.worker.script = stay_silent
    gateway.worker.request_came.clear()
    connection, call = gateway.bearer(org_id).begin(CHAT, OPENAI_BODY)
    await gateway.worker.request_came.wait()
    connection.hang_up()
    await call
    return gateway.worker.accepted[-1].request


def admitted(request: Request, epoch: int, **fields: Any) -> Admitted:
    candidates = (
        Candidate(provider="first", account="a", model="m"),
        Candidate(provider="sandbox", account="b", model="m"),
    )
    return Admitted(
        epoch=epoch,
        src=0,
        request=request,
        subjects=(),
        period="2026-11",
        plan=candidates,
        price_version="p1",
        hold_pusd=10**12,
        **fields,
    )


async def tell(gateway: Gateway, request_id: str, who: str = "acme") -> dict[str, Any]:
    client = gateway.admin if who == "admin" else gateway.bearer(who)
    response = await client.request("GET", f"/v1/requests/{request_id}")
    assert response.status == 200, response.body
    return response.json


async def test_a_request_about_which_nothing_is_decided_is_queued(gateway: Gateway):
    request = await ask(gateway)
    for who in ("acme", "admin"):
        told = await tell(gateway, request.request_id, who)
        assert told["status"] == "queued"
        assert told["events"][0]["type"] == "accepted"
        assert told["bill_usd"] is None


async def test_a_request_with_a_hold_is_running(gateway: Gateway):
    request = await ask(gateway)
    (epoch,) = await gateway.journal(OwnerTook(instance="i"))
    await gateway.journal(admitted(request, epoch))
    told = await tell(gateway, request.request_id)
    assert (told["status"], told["hold_usd"]) == ("running", "1")
    assert told["events"][1]["plan"] == ["first/m", "sandbox/m"]


async def test_the_whole_story_of_a_fallback(gateway: Gateway):
    request = await ask(gateway)
    (epoch,) = await gateway.journal(OwnerTook(instance="i"))
    failed = attempt(1, provider="first", outcome="error", error_class="overloaded", usage=None, lines=())
    await gateway.journal(
        admitted(request, epoch),
        AttemptStarted(epoch=epoch, request_id=request.request_id, org_id="acme", attempt=2, previous=failed),
        ended(request, epoch=epoch, attempts=(failed, attempt(2)), overhead_us=1500, latency_ms=20),
    )
    told = await tell(gateway, request.request_id)
    assert told["status"] == "completed"
    assert (told["cost_usd"], told["bill_usd"], told["overhead_ms"]) == ("0.5", "0.5", 1.5)
    assert (told["provider"], told["model"], told["organization"]) == ("sandbox", "sandbox", "acme")
    assert told["usage"] == {"input_tokens": 3, "output_tokens": 4}
    assert [each["outcome"] for each in told["attempts"]] == ["error", "ok"]
    assert told["attempts"][0]["error_class"] == "overloaded"
    assert [event["type"] for event in told["events"]] == ["accepted", "admitted", "attempt_started", "ended"]
    assert all(event["at"].endswith("Z") for event in told["events"])
    assert told["events"][2]["because"] == "overloaded"


async def test_a_refused_request_has_an_end_and_no_attempt(gateway: Gateway):
    request = await ask(gateway)
    (epoch,) = await gateway.journal(OwnerTook(instance="i"))
    end = ended(
        request, epoch=epoch, status="rejected", http_status=429, error="QUOTA_EXCEEDED", cost_pusd=0, bill_pusd=0
    )
    await gateway.journal(end)
    told = await tell(gateway, request.request_id)
    assert (told["status"], told["http_status"], told["error"]) == ("rejected", 429, "QUOTA_EXCEEDED")
    assert (told["attempts"], told["bill_usd"]) == ([], "0")


async def test_what_a_fenced_writer_wrote_is_not_told(gateway: Gateway):
    request = await ask(gateway)
    old, new = await gateway.journal(OwnerTook(instance="old"), OwnerTook(instance="new"))
    await gateway.journal(
        admitted(request, old),
        ended(request, epoch=old, status="failed", bill_pusd=1),
        admitted(request, new),
        ended(request, epoch=new),
    )
    told = await tell(gateway, request.request_id)
    assert (told["status"], told["bill_usd"]) == ("completed", "0.5")
    assert [event["type"] for event in told["events"]] == ["accepted", "admitted", "ended"]


async def test_the_take_over_may_lie_before_the_request(gateway: Gateway, monkeypatch: pytest.MonkeyPatch):
    """As it nearly always does: the story begins in the middle of the log."""
    (epoch,) = await gateway.journal(OwnerTook(instance="i"))
    monkeypatch.setattr(story_module, "CLOCK_SLACK_MS", -1)  # so that the search begins behind it
    request = await ask(gateway)
    await gateway.journal(admitted(request, epoch), ended(request, epoch=epoch))
    assert (await tell(gateway, request.request_id))["status"] == "completed"


async def test_a_fenced_writer_is_known_even_where_no_take_over_is_in_sight(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
):
    old, new = await gateway.journal(OwnerTook(instance="old"), OwnerTook(instance="new"))
    monkeypatch.setattr(story_module, "CLOCK_SLACK_MS", -1)
    request = await ask(gateway)
    await gateway.journal(admitted(request, old), admitted(request, new), ended(request, epoch=new))
    told = await tell(gateway, request.request_id)
    assert [event["type"] for event in told["events"]] == ["accepted", "admitted", "ended"]


async def test_a_request_taken_over_is_told_across_both_writers(gateway: Gateway):
    request = await ask(gateway)
    (first,) = await gateway.journal(OwnerTook(instance="i"))
    await gateway.journal(admitted(request, first))
    (second,) = await gateway.journal(OwnerTook(instance="i"))
    await gateway.journal(ended(request, epoch=second, status="abandoned", http_status=504))
    told = await tell(gateway, request.request_id)
    assert told["status"] == "abandoned"
    assert [event["type"] for event in told["events"]] == ["accepted", "admitted", "ended"]


async def test_other_requests_are_no_part_of_it(gateway: Gateway):
    first, second = await ask(gateway), await ask(gateway)
    (epoch,) = await gateway.journal(OwnerTook(instance="i"))
    await gateway.journal(ended(second, epoch=epoch), ended(first, epoch=epoch, bill_pusd=7))
    assert (await tell(gateway, first.request_id))["bill_usd"] == "0.000000000007"


async def test_a_tag_that_looks_like_a_request_id_makes_no_story(gateway: Gateway):
    first, second = await ask(gateway), await ask(gateway)
    import msgspec

    (epoch,) = await gateway.journal(OwnerTook(instance="i"))
    await gateway.journal(ended(msgspec.structs.replace(second, tags={"parent": first.request_id}), epoch=epoch))
    assert (await tell(gateway, first.request_id))["status"] == "queued"


async def test_the_story_is_told_to_its_own_organisation_only(gateway: Gateway):
    request = await ask(gateway, "acme")
    (epoch,) = await gateway.journal(OwnerTook(instance="i"))
    await gateway.journal(ended(request, epoch=epoch))
    response = await gateway.bearer("other").request("GET", f"/v1/requests/{request.request_id}")
    assert (response.status, response.error["code"]) == (404, "request_not_found")
    assert (await tell(gateway, request.request_id, "admin"))["organization"] == "acme"


async def test_an_organisation_on_the_same_partition_is_another_one_all_the_same(gateway: Gateway):
    request = await ask(gateway, "acme")
    partition = gateway.log.partition_for("requests", b"acme")
    neighbour = next(f"n{n}" for n in range(1000) if gateway.log.partition_for("requests", b"n%d" % n) == partition)
    gateway.tokens[neighbour] = await gateway.give_key(neighbour)
    response = await gateway.bearer(neighbour).request("GET", f"/v1/requests/{request.request_id}")
    assert response.status == 404


async def test_the_admin_finds_what_the_topic_of_requests_keeps_no_longer(gateway: Gateway):
    (epoch,) = await gateway.journal(OwnerTook(instance="i"))
    gone = Request(
        request_id=new_request_id(), org_id="acme", key_id="k", endpoint=CHAT, dialect="openai", model="sandbox"
    )
    await gateway.journal(ended(gone, epoch=epoch))
    assert (await tell(gateway, gone.request_id, "admin"))["status"] == "completed"


@pytest.mark.parametrize(
    "request_id",
    ["nothing", "00000000-0000-7000-8000-000000000000", "' OR 1=1", pytest.param(new_request_id(), id="a new one")],
)
async def test_what_there_is_no_trace_of_is_not_found(gateway: Gateway, request_id: str):
    for client in (gateway.bearer("acme"), gateway.admin):
        response = await client.request("GET", f"/v1/requests/{request_id.replace(' ', '%20')}")
        assert (response.status, response.error["type"]) == (404, "invalid_request_error")


async def test_the_prompt_is_no_part_of_the_story(gateway: Gateway):
    request = await ask(gateway)
    response = await gateway.admin.request("GET", f"/v1/requests/{request.request_id}")
    assert PROMPT.encode() not in response.body


async def test_a_search_has_a_bound(gateway: Gateway, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(story_module, "MAX_RECORDS", 3)
    request = await ask(gateway)
    (epoch,) = await gateway.journal(OwnerTook(instance="i"))
    await gateway.journal(*[ended(request, epoch=epoch - 1)] * 5)
    response = await gateway.bearer("acme").request("GET", f"/v1/requests/{request.request_id}")
    assert (response.status, response.error["code"]) == (503, "search_exhausted")


async def test_no_more_stories_are_looked_for_at_once_than_the_bound(gateway: Gateway, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(story_module, "MAX_AT_ONCE", 0)
    response = await gateway.bearer("acme").request("GET", f"/v1/requests/{new_request_id()}")
    assert (response.status, response.headers["retry-after"]) == (503, "1")
