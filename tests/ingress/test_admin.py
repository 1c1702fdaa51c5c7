"""Keys are managed by whoever holds the admin key, and what they answer is true from that moment on."""

import asyncio
from typing import Any

import pytest

from tests.ingress.support import CHAT, OPENAI_BODY, Gateway
from tollgate import keys
from tollgate.errors import LogUnavailable
from tollgate.events import CommandIssued, CreateKey, KeySet, Limits, UpdateKey
from tollgate.ingress import commands as commands_module

FULL = {
    "name": "of the web team",
    "organization": "acme",
    "team": "web",
    "limits": {"requests_per_minute": 60, "concurrent_requests": 5},
    "quota": {"monthly_budget": 12.5},
    "expires_at": "2099-01-31T00:00:00Z",
}


async def create(gateway: Gateway, **fields: Any) -> dict[str, Any]:
    response = await gateway.admin.request("POST", "/v1/keys", {"name": "n"} | fields)
    assert response.status == 201, response.body
    return response.json


async def refused(gateway: Gateway, method: str, path: str, body: Any) -> dict[str, Any]:
    response = await gateway.admin.request(method, path, body)
    assert response.status == 400, response.body
    return response.error


# Create --------------------------------------------------------------------------------------------------------------


async def test_a_new_key_is_shown_once_and_works_at_once(gateway: Gateway):
    created = await create(gateway, **FULL)
    assert keys.parse(created["key"]).key_id == created["id"]
    response = await gateway.anonymous.request(
        "POST", CHAT, OPENAI_BODY, headers={"authorization": f"Bearer {created['key']}"}
    )
    assert response.status == 200
    request = gateway.worker.accepted[0].request
    assert (request.key_id, request.org_id, request.team_id) == (created["id"], "acme", "web")
    shown = (await gateway.admin.request("GET", f"/v1/keys/{created['id']}")).json
    assert shown == {name: value for name, value in created.items() if name != "key"}
    assert shown["limits"] == FULL["limits"]
    assert shown["quota"] == {"monthly_budget": "12.5"}
    assert shown["expires_at"] == "2099-01-31T00:00:00.000Z"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"budget": 5}, "'budget' is not known; there are name, organization, team, limits.requests_per_minute, "),
        ({"organization": "../x"}, "'organization' may have 64 letters, digits, '.', '_' and '-'."),
        ({"limits": {"concurrent_requests": "5"}}, "'limits.concurrent_requests' must be a whole number, not text."),
        ({"limits": {"concurrent_requests": 0}}, "'limits.concurrent_requests' must be a whole number of at least 1."),
        ({"quota": {"monthly_budget": "lots"}}, "'quota.monthly_budget' must be an amount in USD, such as 12.50."),
        ({"expires_at": "2099-01-31T00:00:00"}, "'expires_at' must say its time zone, as in 2027-01-31T00:00:00Z."),
    ],
)
async def test_what_is_wrong_is_told_in_words_of_the_form(gateway: Gateway, fields: Any, message: str):
    error = await refused(gateway, "POST", "/v1/keys", {"name": "n"} | fields)
    assert error["message"].startswith(message)


@pytest.mark.parametrize("at", ["9999-12-31T23:59:59-23:00", "0001-01-01T00:00:00+23:00"])
async def test_a_time_in_no_year_of_the_calendar_is_refused_and_does_not_reach_the_log(gateway: Gateway, at: str):
    error = await refused(gateway, "POST", "/v1/keys", {"name": "n", "expires_at": at})
    assert (error["param"], error["code"]) == ("expires_at", "invalid_value")
    assert "years 1 to 9999" in error["message"]


async def test_neither_the_log_nor_the_list_has_the_secret(gateway: Gateway):
    created = await create(gateway)
    secret = keys.parse(created["key"]).secret
    listed = await gateway.admin.request("GET", "/v1/keys")
    assert secret not in listed.body.decode()
    assert "hash" not in listed.body.decode()
    for topic in ("requests", "control", "audit"):
        assert all(secret not in repr(event) for event in await gateway.records(topic))


async def test_a_key_of_nobody_belongs_to_the_default_organisation(gateway: Gateway):
    created = await create(gateway)
    assert (created["organization"], created["team"]) == ("default", None)
    assert created["limits"] == {"requests_per_minute": None, "concurrent_requests": None}
    assert created["quota"] == {"monthly_budget": None}


async def test_both_cases_are_read(gateway: Gateway):
    created = await create(
        gateway,
        limits={"requestsPerMinute": 7},
        quota={"monthlyBudget": "0.000000000001"},
        expiresAt="2099-01-31T02:00:00+02:00",
    )
    assert created["limits"]["requests_per_minute"] == 7
    assert created["quota"]["monthly_budget"] == "0.000000000001"
    assert created["expires_at"] == "2099-01-31T00:00:00.000Z"


@pytest.mark.parametrize("amount", [b"0.1", b'"0.1"', b"1e-1", b"0.10000000000"])
async def test_an_amount_is_exact_however_it_is_written(gateway: Gateway, amount: bytes):
    raw = b'{"name": "n", "quota": {"monthly_budget": ' + amount + b"}}"
    await gateway.admin.request("POST", "/v1/keys", raw=raw)
    states = [event for event in await gateway.records("control") if isinstance(event, KeySet) and event.name == "n"]
    assert states[0].limits == Limits(monthly_budget_pusd=10**11)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": 1}, "name"),
        ({"name": "n", "role": "admin"}, "role"),
        ({"name": "n", "is_admin": True}, "is_admin"),
        ({"name": "n", "limits": {"requests_per_day": 5}}, "limits.requests_per_day"),
        ({"name": "n", "limits": {"requests_per_minute": 0}}, "limits.requests_per_minute"),
        ({"name": "n", "limits": {"requests_per_minute": -1}}, "limits.requests_per_minute"),
        ({"name": "n", "limits": {"requests_per_minute": 1.5}}, "limits.requests_per_minute"),
        ({"name": "n", "limits": {"requests_per_minute": True}}, "limits.requests_per_minute"),
        ({"name": "n", "limits": None}, "limits"),
        ({"name": "n", "quota": {"monthly_budget": -1}}, "quota.monthly_budget"),
        ({"name": "n", "quota": {"monthly_budget": 1e308}}, "quota.monthly_budget"),
        ({"name": "n", "quota": {"monthly_budget": "NaN"}}, "quota.monthly_budget"),
        ({"name": "n", "quota": {"monthly_budget": "Infinity"}}, "quota.monthly_budget"),
        ({"name": "n", "quota": {"monthly_budget": "ten"}}, "quota.monthly_budget"),
        ({"name": "n", "organization": "a b"}, "organization"),
        ({"name": "n", "organization": "../x"}, "organization"),
        ({"name": "n", "team": "x" * 65}, "team"),
        ({"name": "n", "expires_at": "tomorrow"}, "expires_at"),
        ({"name": "n", "expires_at": "2099-01-31T00:00:00"}, "expires_at"),
        ({"name": "n", "expires_at": "2001-01-31T00:00:00Z"}, "expires_at"),
        ({"name": "n", "expires_at": None, "expiresAt": "2099-01-31T00:00:00Z"}, "expires_at"),
    ],
)
async def test_what_a_key_cannot_be_is_refused_by_the_fields_name(gateway: Gateway, body: Any, param: str):
    error = await refused(gateway, "POST", "/v1/keys", body)
    assert error["param"] == param
    assert error["message"]


async def test_an_unknown_field_is_named(gateway: Gateway):
    error = await refused(gateway, "POST", "/v1/keys", {"name": "n", "limits": {"requests_per_day": 5}})
    assert "requests_per_day" in error["message"]


# Change --------------------------------------------------------------------------------------------------------------


async def test_a_change_changes_what_it_names(gateway: Gateway):
    created = await create(gateway, **FULL)
    change = {"limits": {"concurrent_requests": None}, "quota": {"monthly_budget": "3"}}
    response = await gateway.admin.request("PATCH", f"/v1/keys/{created['id']}", change)
    assert response.status == 200
    assert response.json["limits"] == {"requests_per_minute": 60, "concurrent_requests": None}
    assert response.json["quota"] == {"monthly_budget": "3"}
    assert response.json["name"] == FULL["name"]
    assert response.json["version"] == 2
    assert (await gateway.admin.request("GET", f"/v1/keys/{created['id']}")).json == response.json


async def test_a_change_of_what_somebody_else_has_changed_is_refused(gateway: Gateway):
    created = await create(gateway)
    path = f"/v1/keys/{created['id']}"
    await gateway.admin.request("PATCH", path, {"name": "mine"})
    response = await gateway.admin.request("PATCH", path, {"name": "yours", "version": 1})
    assert (response.status, response.error["code"]) == (409, "version_conflict")


async def test_a_change_names_the_version_that_it_was_made_from(gateway: Gateway):
    created = await create(gateway)
    await gateway.admin.request("PATCH", f"/v1/keys/{created['id']}", {"name": "x"})
    commands = [event for event in await gateway.records("requests") if isinstance(event, CommandIssued)]
    assert commands[-1].action == UpdateKey(key_id=created["id"], name="x", expected_version=1)
    assert commands[-1].actor == "admin"


@pytest.mark.parametrize("body", [{"key": "x"}, {"organization": "x"}, {"name": None}, {"version": "1"}])
async def test_what_cannot_be_changed_is_refused(gateway: Gateway, body: Any):
    created = await create(gateway)
    await refused(gateway, "PATCH", f"/v1/keys/{created['id']}", body)


# Revoke --------------------------------------------------------------------------------------------------------------


async def test_a_revoked_key_is_useless_from_the_answer_on(gateway: Gateway):
    created = await create(gateway)
    bearer = {"authorization": f"Bearer {created['key']}"}
    path = f"/v1/keys/{created['id']}"
    response = await gateway.admin.request("DELETE", path)
    assert response.status == 200
    assert response.json["revoked_at"] is not None
    refusal = await gateway.anonymous.request("POST", CHAT, OPENAI_BODY, headers=bearer)
    assert (refusal.status, refusal.headers["x-should-retry"]) == (401, "false")
    assert "revoked" in refusal.error["message"]
    assert (await gateway.admin.request("DELETE", path)).json == response.json
    assert response.json in (await gateway.admin.request("GET", "/v1/keys")).json["data"]


# Who may -------------------------------------------------------------------------------------------------------------

CALLS = [
    ("POST", "/v1/keys"),
    ("GET", "/v1/keys"),
    ("GET", "/v1/keys/x"),
    ("PATCH", "/v1/keys/x"),
    ("DELETE", "/v1/keys/x"),
]


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_nobody_but_the_admin_may(gateway: Gateway, method: str, path: str):
    response = await gateway.bearer("acme").request(method, path, {"name": "n"} if method != "GET" else None)
    assert (response.status, response.error["code"]) == (403, "permission_denied")
    assert (await gateway.anonymous.request(method, path)).status == 401
    assert not any(isinstance(event, CommandIssued) for event in await gateway.records("requests"))


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_what_does_not_exist_is_not_found(gateway: Gateway, method: str):
    response = await gateway.admin.request(method, "/v1/keys/nothing1", {"name": "n"} if method == "PATCH" else None)
    assert (response.status, response.error["code"]) == (404, "key_not_found")


# The owner -----------------------------------------------------------------------------------------------------------


async def test_commands_go_to_the_one_partition_whose_owner_decides(gateway: Gateway):
    await create(gateway)
    batches = [batch async for batch in gateway.log.scan("requests", 0, 0)]
    assert len(batches) == 1
    (command,) = [event for event in await gateway.records("requests") if isinstance(event, CommandIssued)]
    assert isinstance(command.action, CreateKey)


async def test_an_owner_that_does_not_answer_leaves_the_outcome_open(gateway: Gateway, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(commands_module, "OWNER_DEADLINE_S", 0.01)
    monkeypatch.setattr(gateway.worker.replies, "send", lambda *args: None)
    response = await gateway.admin.request("POST", "/v1/keys", {"name": "n"})
    assert (response.status, response.error["code"]) == (504, "unknown_outcome")


async def test_a_command_that_cannot_be_written_did_not_happen(gateway: Gateway, monkeypatch: pytest.MonkeyPatch):
    def fail(*args: Any, **kwargs: Any) -> "asyncio.Future[Any]":
        appended = asyncio.get_running_loop().create_future()
        appended.set_exception(LogUnavailable("full"))
        return appended

    monkeypatch.setattr(gateway.log, "append", fail)
    response = await gateway.admin.request("POST", "/v1/keys", {"name": "n"})
    assert (response.status, response.headers["retry-after"]) == (503, "1")
