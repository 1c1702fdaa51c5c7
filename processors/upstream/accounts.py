"""The accounts with providers: how each is reached, and its credential, kept fresh beside the calls."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from traceback import format_tb
from typing import NamedTuple

import aiohttp
from msgspec.structs import replace

from tollgate.accounts import Account, Given
from tollgate.config import Config, Provider
from tollgate.credentials import CredentialError
from tollgate.errors import ConfigError
from tollgate.processors.upstream import Transport
from tollgate.processors.upstream.credentials import Credential, Missing, credential_of
from tollgate.processors.upstream.http import HttpTransport, new_session
from tollgate.processors.upstream.inprocess import InProcessTransport
from tollgate.sandbox import create_app as create_sandbox

log = logging.getLogger(__name__)

Key = tuple[str, str]  # provider, account


class _Way(NamedTuple):
    """How an account is reached, and from what that was made: another way is needed only when one of these changes."""

    address: tuple[object, ...]
    account: Account
    given: Given | CredentialError | None
    transport: Transport
    credential: Credential | None


class Upstreams:
    """The ways to all accounts. They may be changed while calls go on: those end on the way on which they began.

    A new credential is taken by the next call of its account, whichever request that is of.
    """

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._sandbox = create_sandbox()
        self._config: Config | None = None
        self._given: dict[Key, Given | CredentialError] = {}
        self._ways: dict[Key, _Way] = {}
        self._renewals: dict[Key, asyncio.Task[None]] = {}

    def reach(self, config: Config) -> Mapping[Key, Transport]:
        """The ways to the accounts of this configuration; what did not change stays as it is, tokens and all.

        Raises `ConfigError` for a credential that cannot be right; then nothing was changed.
        """
        ways = {
            (provider.name, account.name): self._way(provider, account)
            for provider in config.providers.values()
            for account in provider.accounts
        }
        self._config = config
        before, self._ways = self._ways, ways
        for way in ways.values():
            if isinstance(way.transport, HttpTransport) and way.credential is not None:
                way.transport.credential = way.credential
        for key in before.keys() | ways.keys():
            old, new = before.get(key), ways.get(key)
            if old is None or new is None or old.credential is not new.credential:
                self._renew(key, None if new is None else new.credential)
        return {key: way.transport for key, way in ways.items()}

    def give(self, provider: str, account: str, given: Given | CredentialError | None) -> None:
        """Use this credential in the place of the configuration's; None: that one again. Never raises.

        With an error, calls of the account fail by it: the credential cannot be opened, and no other was meant.
        """
        if given is None:
            self._given.pop((provider, account), None)
        else:
            self._given[provider, account] = given
        if self._config is not None:
            try:
                self.reach(self._config)
            except ConfigError as error:  # of a file that was right when the configuration was put in force
                log.error("the credential of %s/%s is not in force: %s", provider, account, error)

    async def close(self) -> None:
        """Renew nothing any more."""
        renewals = list(self._renewals.values())
        for renewal in renewals:
            renewal.cancel()
        await asyncio.gather(*renewals, return_exceptions=True)

    def _way(self, provider: Provider, account: Account) -> _Way:
        account = replace(account, weight=1)  # that is the plan's
        address = (
            provider.builtin,
            provider.protocol,
            provider.base_url,
            provider.timeout_seconds,
            provider.connect_timeout_seconds,
            provider.quirks.key_header,
        )
        key = provider.name, account.name
        before, given = self._ways.get(key), self._given.get(key)
        same_address = before is not None and before.address == address
        if before is not None and same_address and (before.account, before.given) == (account, given):
            return before
        if provider.builtin:
            return _Way(address, account, given, InProcessTransport(self._sandbox, base_url=provider.base_url), None)
        credential = self._credential(provider, account, given)
        if before is not None and same_address:
            return _Way(address, account, given, before.transport, credential)
        return _Way(address, account, given, HttpTransport(self._session, provider, credential), credential)

    def _credential(self, provider: Provider, account: Account, given: Given | CredentialError | None) -> Credential:
        if isinstance(given, CredentialError):
            return Missing(str(given))
        if given is None:
            return credential_of(provider, account, self._session)
        try:
            return credential_of(provider, given.of(account), self._session)
        except ConfigError as error:
            return Missing(str(error))

    def _renew(self, key: Key, credential: Credential | None) -> None:
        """Have this credential of the account kept fresh, and no other."""
        former = self._renewals.pop(key, None)
        if former is not None:
            former.cancel()
        if credential is not None:
            self._renewals[key] = asyncio.create_task(_kept_fresh(credential))


@asynccontextmanager
async def upstreams() -> AsyncIterator[Upstreams]:
    """The sockets to providers; they are closed at the end."""
    async with new_session() as session:
        made = Upstreams(session)
        try:
            yield made
        finally:
            await made.close()


async def _kept_fresh(credential: Credential) -> None:
    """A renewal that fails in a way that nobody foresaw leaves the calls with what they have."""
    try:
        await credential.keep_fresh()
    except Exception as error:
        trace = "".join(format_tb(error.__traceback__))
        log.error("a credential is not renewed any more: %s\n%s", type(error).__name__, trace)
