"""The management of the credentials of provider accounts: written, replaced and taken away, but never read.

What comes in is sealed before anything else is done with it; from then on nobody but a worker's call opens it.
"""

from collections.abc import Sequence
from typing import Any

from tollgate import credentials
from tollgate.accounts import Account, Given
from tollgate.credentials import public_credential, unknown_credential
from tollgate.errors import Refusal
from tollgate.events import DeleteCredential, SetCredential
from tollgate.ingress.catalogue import Catalogue
from tollgate.ingress.commands import Commands
from tollgate.ingress.door import Door
from tollgate.ingress.http import Answer, Incoming, json_answer


class Credentials:
    """`/v1/credentials`: for the bearer of the admin key."""

    def __init__(self, door: Door, commands: Commands, catalogue: Catalogue) -> None:
        self._door = door
        self._commands = commands
        self._catalogue = catalogue

    async def list(self, incoming: Incoming) -> Answer:
        """`GET /v1/credentials`: of every account, where its credential comes from; and those without an account."""
        accounts = [(name, account.name) for name, account in self._accounts()]
        others = [
            place
            for state in self._door.control.credentials()
            if (place := (state.provider, state.account)) not in accounts
        ]
        data = [shown for place in (*accounts, *others) if (shown := self._shown(*place)) is not None]
        return json_answer(200, {"object": "list", "data": data, "has_more": False})

    async def one(self, incoming: Incoming) -> Answer:
        """`GET /v1/credentials/{provider}/{account}`."""
        provider, account = _place(incoming)
        shown = self._shown(provider, account)
        if shown is None:
            raise unknown_credential()
        return json_answer(200, shown)

    async def set(self, incoming: Incoming) -> Answer:
        """`PUT /v1/credentials/{provider}/{account}`: the account's next call takes it. Raises `Refusal`."""
        provider, account = _place(incoming)
        if not self._door.secrets.kept_apart:
            raise _no_secret()
        self._check_account(provider, account)
        given = await self._commands.read(incoming, Given)
        try:
            credentials.checked(given)
        except ValueError as error:
            raise Refusal(400, "invalid_value", f"{error}.") from None
        action = SetCredential(
            provider=provider,
            account=account,
            kind=given.kinds[0],
            sealed=credentials.seal(self._door.secrets.secret, given, provider=provider, account=account),
            last_four=credentials.last_four(given),
        )
        return await self._commands.issue(incoming, action)

    async def delete(self, incoming: Incoming) -> Answer:
        """`DELETE /v1/credentials/{provider}/{account}`: what the configuration says of the account counts again."""
        provider, account = _place(incoming)
        if self._door.control.credential(provider, account) is None:
            raise unknown_credential()
        return await self._commands.issue(incoming, DeleteCredential(provider=provider, account=account))

    def _accounts(self) -> Sequence[tuple[str, Account]]:
        providers = self._catalogue.providers.values()
        return [(each.name, account) for each in providers if not each.builtin for account in each.accounts]

    def _shown(self, provider: str, account: str) -> dict[str, Any] | None:
        configured = next((each for name, each in self._accounts() if (name, each.name) == (provider, account)), None)
        state = self._door.control.credential(provider, account)
        if state is not None and state.kind is not None:
            return {**public_credential(state), "account_exists": configured is not None}
        if configured is None:
            return None
        kind = configured.credentials[0] if configured.credentials else None
        source = "none" if kind is None else "configuration"
        return {
            "object": "credential",
            "provider": provider,
            "account": account,
            "kind": kind,
            "source": source,
            "account_exists": True,
        }

    def _check_account(self, provider: str, account: str) -> None:
        known = [f"{name}/{each.name}" for name, each in self._accounts()]
        if f"{provider}/{account}" not in known:
            have = f"There are {', '.join(known)}" if known else "There is none but the built-in ones"
            raise Refusal(
                404,
                "account_not_found",
                f"There is no such account of such a provider in gateway.yaml. {have}; one whose credential is set "
                "here is written 'accounts: [{name: main, managed: true}]'.",
            )


def _place(incoming: Incoming) -> tuple[str, str]:
    return incoming.path_params["provider"], incoming.path_params["account"]


def _no_secret() -> Refusal:
    return Refusal(
        501,
        "secret_not_set",
        "Credentials are only stored under a TOLLGATE_SECRET that comes from the environment: the secret of this "
        "gateway lies in its data folder, beside the log that it would encrypt. Set TOLLGATE_SECRET to what is in "
        "secret.key there, keep it elsewhere, and start the gateway again.",
        type="api_error",
        headers={"x-should-retry": "false"},
    )
