"""An ingress that cannot know what was revoked lets nobody in, and waits for what its client has seen already."""

import asyncio
from typing import Any

import pytest

from tests.ingress.support import BODIES, CHAT, MESSAGES, OPENAI_BODY, Gateway
from tollgate.control import OFFSET_HEADER
from tollgate.freshness import MAX_AGE_S, Freshness


async def stale_gateway(make_gateway: Any) -> tuple[Gateway, Freshness]:
    freshness = Freshness(patience_s=0.01)
    return await make_gateway(freshness=freshness), freshness


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_a_request_is_refused_in_its_dialect_while_the_control_state_is_old(make_gateway: Any, path: str):
    gateway, _ = await stale_gateway(make_gateway)
    for client in (gateway.bearer("acme"), gateway.anonymous, gateway.admin):
        response = await client.request("POST", path, BODIES[path])
        assert (response.status, response.headers["retry-after"]) == (503, "1")
        assert "changed or revoked" in response.error["message"]
        assert response.json.get("type") == ("error" if path == MESSAGES else None)
    assert gateway.worker.accepted == []


async def test_probes_are_answered_however_old_the_control_state_is(make_gateway: Any):
    gateway, _ = await stale_gateway(make_gateway)
    assert (await gateway.anonymous.request("GET", "/healthz")).status == 200


async def test_a_request_waits_a_moment_for_the_fold_to_catch_up(make_gateway: Any):
    gateway = await make_gateway(freshness=Freshness(patience_s=5))
    asking = asyncio.create_task(gateway.bearer("acme").request("POST", CHAT, OPENAI_BODY))
    watching = asyncio.create_task(gateway.door.freshness.keep(gateway.log, gateway.control))
    while not asking.done():
        await gateway.log.append("control", b"beat", b"")
        await asyncio.sleep(0.01)
    assert (await asking).status == 200
    watching.cancel()


async def test_the_answer_to_a_change_says_what_a_client_can_wait_for_elsewhere(gateway: Gateway):
    created = await gateway.admin.request("POST", "/v1/keys", {"name": "n"})
    seen = created.headers[OFFSET_HEADER]
    assert int(seen) == gateway.control.offset
    asking = asyncio.create_task(
        gateway.bearer("acme").request("POST", CHAT, OPENAI_BODY, headers={OFFSET_HEADER: str(int(seen) + 1)})
    )
    await asyncio.sleep(0.05)
    assert not asking.done()
    await gateway.log.append("control", b"beat", b"")
    assert (await asking).status == 200


async def test_what_is_waited_for_and_never_comes_is_refused(make_gateway: Any):
    gateway = await make_gateway(freshness=Freshness(as_of_s=float("inf"), patience_s=0.01))
    response = await gateway.bearer("acme").request("GET", "/v1/models", headers={OFFSET_HEADER: "999999"})
    assert (response.status, response.error["code"]) == (503, "control_state_unknown")


@pytest.mark.parametrize("given", ["", "-1", "one", "1.5", "9" * 20])
async def test_an_offset_that_is_none_is_refused(gateway: Gateway, given: str):
    response = await gateway.bearer("acme").request("GET", "/v1/models", headers={OFFSET_HEADER: given})
    assert (response.status, response.error["param"]) == (400, OFFSET_HEADER)


async def test_a_revocation_is_answered_when_no_ingress_takes_the_key_any_more(make_gateway: Any):
    class Own(Freshness):
        stale = False

    gateway = await make_gateway(freshness=Own())
    created = (await gateway.admin.request("POST", "/v1/keys", {"name": "n"})).json
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert (await gateway.admin.request("DELETE", f"/v1/keys/{created['id']}")).status == 200
    assert loop.time() - began >= MAX_AGE_S
