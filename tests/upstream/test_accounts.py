"""The ways to accounts change while calls go on: what stays the same is kept, and what cannot be changes nothing."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from tollgate.accounts import Account, Given, GoogleAccount
from tollgate.config import Config, load_config
from tollgate.credentials import CredentialError
from tollgate.errors import ConfigError, ProviderError
from tollgate.processors.upstream.accounts import Upstreams, upstreams
from tollgate.processors.upstream.http import HttpTransport
from tollgate.secret import Secret

CALL = ("POST", "http://one.test/v1", {}, b"")


@pytest.fixture
async def ways():
    async with upstreams() as made:
        yield made


def config(*accounts: Account, base_url: str = "http://one.test/v1", timeout_seconds: float = 5) -> Config:
    """One provider, `one`, with these accounts."""
    made = load_config(None, {})
    one = replace(
        made.providers["sandbox"],
        name="one",
        builtin=None,
        base_url=base_url,
        timeout_seconds=timeout_seconds,
        accounts=accounts,
    )
    return replace(made, providers={"one": one})


def keyed(key: str, name: str = "main", **more: int) -> Account:
    return Account(name=name, api_key=Secret(key), **more)


async def key_of(ways: Upstreams, config: Config, account: str = "main") -> str:
    transport = ways.reach(config)["one", account]
    assert isinstance(transport, HttpTransport)
    return (await transport.credential.headers(*CALL))["authorization"]


async def test_the_way_is_kept_while_address_and_credential_are_the_same(ways: Upstreams):
    before = ways.reach(config(keyed("a")))
    assert ways.reach(config(keyed("a", weight=9))) == before
    credential = before["one", "main"].credential
    assert ways.reach(config(keyed("b"))) == before
    assert before["one", "main"].credential is not credential
    for change in ({"base_url": "http://two.test/v1"}, {"timeout_seconds": 6}):
        assert ways.reach(config(keyed("b"), **change)) != before


async def test_a_call_whose_account_is_gone_has_its_way_still(ways: Upstreams):
    (gone,) = ways.reach(config(keyed("a", "old"))).values()
    assert list(ways.reach(config(keyed("b")))) == [("one", "main")]
    assert (await gone.credential.headers(*CALL))["authorization"] == "Bearer a"


async def test_a_credential_that_cannot_be_changes_nothing_of_any_account(ways: Upstreams, tmp_path: Path):
    before = ways.reach(config(keyed("a"), keyed("b", "other")))
    broken = Account(name="other", google=GoogleAccount(service_account_file=str(tmp_path / "none")))
    with pytest.raises(ConfigError, match=r"one/other: .*none is not the key file"):
        ways.reach(config(keyed("c"), broken))
    assert (await before["one", "main"].credential.headers(*CALL))["authorization"] == "Bearer a"
    assert await key_of(ways, config(keyed("a"), keyed("b", "other")), "other") == "Bearer b"


async def test_what_was_given_stays_in_force_over_a_change_of_the_file_until_it_is_taken_back(ways: Upstreams):
    ways.give("one", "main", Given(api_key=Secret("given")))
    assert await key_of(ways, config(keyed("a"))) == "Bearer given"
    assert await key_of(ways, config(keyed("b"), base_url="http://two.test/v1")) == "Bearer given"
    ways.give("one", "main", None)
    assert await key_of(ways, config(keyed("b"), base_url="http://two.test/v1")) == "Bearer b"


async def test_one_that_does_not_open_fails_its_calls_and_no_others(ways: Upstreams):
    both = config(keyed("a"), keyed("b", "other"))
    ways.reach(both)
    ways.give("one", "main", CredentialError("it does not open"))
    with pytest.raises(ProviderError, match="it does not open"):
        await key_of(ways, both)
    assert await key_of(ways, both, "other") == "Bearer b"
