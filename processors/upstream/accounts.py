"""The accounts with providers: how each is reached, and its credential, kept fresh beside the calls."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from traceback import format_tb

from tollgate.config import Config
from tollgate.processors.upstream import Transport
from tollgate.processors.upstream.credentials import Credential, credential_of
from tollgate.processors.upstream.http import HttpTransport, new_session
from tollgate.processors.upstream.inprocess import InProcessTransport
from tollgate.sandbox import create_app as create_sandbox

log = logging.getLogger(__name__)


@asynccontextmanager
async def transports(config: Config) -> AsyncIterator[Mapping[tuple[str, str], Transport]]:
    """How each (provider, account) is reached; the sockets are closed at the end.

    Raises `ConfigError` for a credential that cannot be right.
    """
    sandbox = create_sandbox()
    reached: dict[tuple[str, str], Transport] = {}
    renewals: list[asyncio.Task[None]] = []
    async with new_session() as session:
        try:
            for provider in config.providers.values():
                for account in provider.accounts:
                    if provider.builtin:
                        transport: Transport = InProcessTransport(sandbox, base_url=provider.base_url)
                    else:
                        credential = credential_of(provider, account, session)
                        transport = HttpTransport(session, provider, credential)
                        renewals.append(asyncio.create_task(_kept_fresh(credential)))
                    reached[provider.name, account.name] = transport
            yield reached
        finally:
            for renewal in renewals:
                renewal.cancel()
            await asyncio.gather(*renewals, return_exceptions=True)


async def _kept_fresh(credential: Credential) -> None:
    """A renewal that fails in a way that nobody foresaw leaves the calls with what they have."""
    try:
        await credential.keep_fresh()
    except Exception as error:
        trace = "".join(format_tb(error.__traceback__))
        log.error("a credential is not renewed any more: %s\n%s", type(error).__name__, trace)
