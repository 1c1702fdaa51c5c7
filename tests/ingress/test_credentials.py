"""Credentials of provider accounts are written through the management API, and cannot be read by it."""

from typing import Any

import msgspec
import pytest

from tests.ingress.support import SECRETS, Gateway
from tollgate.accounts import Account
from tollgate.config import BUILT_IN, Provider
from tollgate.credentials import unseal
from tollgate.events import AuditRecorded, CommandIssued, CredentialSet

KEY = "sk-live-3f9a8b7c6d5e4f"
MAIN, SPARE, FILED = "/v1/credentials/openai/main", "/v1/credentials/openai/spare", "/v1/credentials/local/main"


@pytest.fixture
def gateway(gateway: Gateway) -> Gateway:
    """With the accounts openai/main and openai/spare, whose credentials are managed, and local/main, which has one."""
    sandbox = BUILT_IN[0]
    openai = msgspec.structs.replace(
        sandbox,
        name="openai",
        builtin=None,
        accounts=(Account(name="main", managed=True), Account(name="spare", managed=True)),
    )
    local = msgspec.structs.replace(openai, name="local", accounts=(Account(name="main", api_key_file="/run/key"),))
    providers: dict[str, Provider] = {each.name: each for each in (openai, local, sandbox)}
    gateway.app.use(msgspec.structs.replace(gateway.door.config, providers=providers))
    return gateway


async def put(gateway: Gateway, path: str = MAIN, body: Any = None) -> Any:
    response = await gateway.admin.request("PUT", path, body or {"api_key": KEY})
    assert response.status == 200, response.body
    return response.json


async def test_a_credential_is_set_replaced_and_taken_away_and_only_its_end_is_shown(gateway: Gateway):
    first = await put(gateway)
    assert (first["kind"], first["last_four"], first["set_by"], first["version"]) == ("api_key", "5e4f", "admin", 1)
    shown = (await gateway.admin.request("GET", MAIN)).json
    assert shown == {**first, "account_exists": True}
    second = await put(gateway, body={"aws": {"accessKeyId": "AKIA0123456789AB", "secretAccessKey": KEY}})
    assert (second["kind"], second["last_four"], second["version"]) == ("aws", "89AB", 2)
    deleted = await gateway.admin.request("DELETE", MAIN)
    assert (deleted.status, deleted.json["deleted"]) == (200, True)
    assert (await gateway.admin.request("GET", MAIN)).json["source"] == "none"
    assert (await gateway.admin.request("DELETE", MAIN)).status == 404


async def test_the_list_says_of_every_account_where_its_credential_comes_from(gateway: Gateway):
    await put(gateway)
    listed = (await gateway.admin.request("GET", "/v1/credentials")).json["data"]
    assert [(each["provider"], each["account"], each["source"], each["kind"]) for each in listed] == [
        ("openai", "main", "api", "api_key"),
        ("openai", "spare", "none", None),
        ("local", "main", "configuration", "api_key_file"),
    ]


async def test_of_an_account_that_was_taken_out_of_the_configuration_the_credential_is_listed_still(gateway: Gateway):
    await put(gateway)
    gateway.app.use(gateway.door.config)
    (listed,) = (await gateway.admin.request("GET", "/v1/credentials")).json["data"]
    assert listed["account_exists"] is False
    assert (await gateway.admin.request("DELETE", MAIN)).status == 200


async def test_the_log_has_it_sealed_for_this_account_from_the_first_record_on(gateway: Gateway):
    await put(gateway)
    (command,) = [event for event in await gateway.records("requests") if isinstance(event, CommandIssued)]
    (state,) = [event for event in await gateway.records("control") if isinstance(event, CredentialSet)]
    assert unseal(SECRETS.secret, state).api_key == msgspec.convert(KEY, type(SECRETS.secret), dec_hook=_secret)
    assert KEY not in repr((command, state))


def _secret(shape: type, value: str) -> Any:
    return shape(value)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "give one of api_key, oauth, google, aws"),
        ({"api_key": ""}, "'api_key' is empty"),
        ({"api_key": f"{KEY}\n"}, "'api_key' holds a line break"),
        ({"api_key": 7}, "'api_key' must be text"),
        ({"api_key": KEY, "apiKey": KEY}, "there twice"),
        ({"api_key_file": "/etc/passwd"}, "'api_key_file' is not known; there are api_key, oauth, google, aws"),
        ({"oauth": {"token_url": "http://id.test/token", "client_id": "me"}}, "oauth.token_url must begin with https"),
        ({"aws": {"access_key_id": "AKIA", "secret_access_key": KEY, "profile": "root"}}, "'aws.profile' is not known"),
        (
            {"aws": {"access_key_id": "AKIA", "secret_access_key": KEY, "role_arn": KEY}},
            "'aws.role_arn' must be a role's ARN",
        ),
        ({"aws": {"access_key_id": "A", "secret_access_key": KEY}}, "'aws.access_key_id' may have 4 to 128 letters"),
        ({"google": {"service_account": {"private_key": KEY}}}, "service account's key file"),
    ],
)
async def test_what_can_be_no_credential_is_refused_by_its_field_and_without_its_value(
    gateway: Gateway, body: Any, says: str
):
    response = await gateway.admin.request("PUT", MAIN, body)
    assert response.status == 400
    assert says in response.error["message"]
    assert KEY not in response.body.decode()


@pytest.mark.parametrize("path", ["/v1/credentials/openai/other", "/v1/credentials/sandbox/main"])
async def test_an_account_that_is_not_in_the_configuration_is_refused_with_those_that_are(gateway: Gateway, path: str):
    response = await gateway.admin.request("PUT", path, {"api_key": KEY})
    assert (response.status, response.error["code"]) == (404, "account_not_found")
    assert "openai/main, openai/spare, local/main" in response.error["message"]


async def test_without_a_secret_of_the_environment_none_is_stored(gateway: Gateway, monkeypatch: pytest.MonkeyPatch):
    object.__setattr__(gateway.door, "secrets", SECRETS._replace(kept_apart=False))
    response = await gateway.admin.request("PUT", MAIN, {"api_key": KEY})
    assert (response.status, response.error["code"]) == (501, "secret_not_set")
    assert "Set TOLLGATE_SECRET to what is in secret.key" in response.error["message"]
    assert not [event for event in await gateway.records("requests") if isinstance(event, CommandIssued)]


async def test_it_is_for_the_admin_only(gateway: Gateway):
    for method in ("GET", "PUT", "DELETE"):
        assert (await gateway.bearer("acme").request(method, MAIN, {"api_key": KEY})).status == 403
        assert (await gateway.anonymous.request(method, MAIN, {"api_key": KEY})).status == 401
    refused = [event for event in await gateway.records("audit") if isinstance(event, AuditRecorded)]
    assert {event.route for event in refused} == {"/v1/credentials/{provider}/{account}"}
