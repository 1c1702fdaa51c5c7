"""Whoever is turned away at the door leaves one record, and nobody can fill the log with them."""

from hypothesis import given
from hypothesis import strategies as st

from tests.ingress.support import CHAT, OPENAI_BODY, Gateway
from tollgate import keys
from tollgate.events import AuditRecorded
from tollgate.ingress import audit
from tollgate.ingress.audit import BURST, RATE_PER_S, Rate, pass_rate


async def test_a_refusal_leaves_a_record_of_who_where_and_why(gateway: Gateway):
    response = await gateway.bearer("acme").request("POST", CHAT, OPENAI_BODY | {"model": "nothing"})
    (recorded,) = await gateway.records("audit")
    key_id = keys.parse(gateway.tokens["acme"]).key_id
    assert recorded == AuditRecorded(
        actor=key_id,
        action="refused",
        org_id="acme",
        target="model_not_found",
        key_id=key_id,
        method="POST",
        route=CHAT,
        status=404,
        request_id=response.headers["x-request-id"],
        ip="192.0.2.7",
    )


async def test_who_is_not_known_is_recorded_with_the_id_that_was_claimed(gateway: Gateway):
    key_id, token = keys.new_key()
    await gateway.anonymous.request("POST", CHAT, OPENAI_BODY, headers={"authorization": f"Bearer {token}"})
    await gateway.anonymous.request("POST", CHAT, OPENAI_BODY)
    recorded = await gateway.records("audit")
    assert [(each.actor, each.org_id, each.key_id) for each in recorded] == [
        ("anonymous", "default", key_id),
        ("anonymous", "default", None),
    ]


async def test_a_path_is_recorded_by_its_route(gateway: Gateway):
    await gateway.admin.request("GET", "/v1/keys/looked-for")
    await gateway.admin.request("GET", "/somewhere/else")
    assert [each.route for each in await gateway.records("audit")] == ["/v1/keys/{id}", "unmatched"]


async def test_what_is_answered_leaves_none(gateway: Gateway):
    await gateway.bearer("acme").request("POST", CHAT, OPENAI_BODY)
    await gateway.anonymous.request("GET", "/healthz")
    assert await gateway.records("audit") == []


async def test_a_flood_of_refusals_is_recorded_in_part_and_the_rest_counted(gateway: Gateway):
    gateway.clock[0] -= gateway.door.now_ms()  # stands near 0, and moves on by milliseconds
    for _ in range(BURST + 50):
        await gateway.anonymous.request("GET", "/nothing")
    recorded = len(await gateway.records("audit"))
    dropped = gateway.door.registry.get_sample_value("tollgate_audits_dropped_total")
    assert recorded + dropped == BURST + 50
    assert BURST <= recorded < BURST + 50


async def test_a_log_that_is_slow_gets_no_more_than_the_bound(gateway: Gateway, monkeypatch):
    monkeypatch.setattr(audit, "MAX_UNWRITTEN", 0)
    await gateway.anonymous.request("GET", "/nothing")
    assert await gateway.records("audit") == []
    assert gateway.door.registry.get_sample_value("tollgate_audits_dropped_total") == 1


@given(st.lists(st.floats(0, 10_000), min_size=1, max_size=600))
def test_in_no_stretch_of_time_does_more_pass_than_burst_and_rate_allow(times: list[float]):
    passed, rate = [], Rate()
    for now_ms in sorted(times):
        after = pass_rate(rate, now_ms)
        if after is not None:
            passed.append(now_ms)
            rate = after
    for index, start in enumerate(passed):
        for count, end in enumerate(passed[index:], 1):
            assert count <= BURST + (end - start) / 1000 * RATE_PER_S + 1e-6


def test_the_sustained_rate_always_passes():
    rate: Rate | None = Rate()
    for event in range(1000):
        assert rate is not None
        rate = pass_rate(rate, event * 1000 / RATE_PER_S)
    assert rate is not None
