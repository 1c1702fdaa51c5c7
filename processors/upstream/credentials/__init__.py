"""How a call proves to a provider whose it is. What takes time (files, tokens, roles) is renewed beside the calls.

    api_key, api_key_file   → `keys`      a header; a file is read again when it changes
    oauth, google           → `tokens`    a bearer token, renewed before it expires
    aws                     → `aws`       a signature of the whole request (SigV4)

A credential never shows itself: not in a log line, an error or an event.
"""

from collections.abc import Mapping

import aiohttp

from tollgate.config import Account, Provider
from tollgate.processors.upstream.credentials.aws import AwsCredential
from tollgate.processors.upstream.credentials.keys import KeyFile, Missing, NoKey, StaticKey
from tollgate.processors.upstream.credentials.port import Credential
from tollgate.processors.upstream.credentials.tokens import Token, client_grant, service_account_grant
from tollgate.wire.exchange import PROTOCOLS

__all__ = ["Credential", "Missing", "credential_of"]


def credential_of(provider: Provider, account: Account, session: aiohttp.ClientSession) -> Credential:
    """The credential of an account; the session is for asking for tokens.

    Raises `ConfigError` when a file that it needs is not what it should be.
    """
    name = f"{provider.name}/{account.name}"

    def headers(key: str) -> Mapping[str, str]:
        if provider.quirks.key_header:
            return {provider.quirks.key_header: key}
        return PROTOCOLS[provider.protocol].auth_headers(key)

    if account.api_key is not None:
        return StaticKey(headers(account.api_key.reveal()))
    if account.api_key_file is not None:
        return KeyFile(name, account.api_key_file, headers)
    if account.oauth is not None:
        return Token(name, session, client_grant(account.oauth))
    if account.google is not None:
        return Token(name, session, service_account_grant(name, account.google))
    if account.aws is not None:
        return AwsCredential(name, account.aws)
    if account.managed:
        how = f"tollgate credentials set {provider.name} {account.name}"
        return Missing(f"no credential has been set for {name}; '{how}' does that")
    return NoKey()
