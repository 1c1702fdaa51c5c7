"""`tollgate credentials`: set, list and delete the credentials of provider accounts through the management API.

A secret is read from a pipe or asked for without an echo, and never taken from the command line: the words of a command
stand in the shell's history and in the list of processes.
"""

import json as jsonlib
import sys
from typing import Annotated, Any, Literal
from urllib.parse import quote

import typer

from tollgate.app.cli_client import call
from tollgate.app.cli_output import print_json, print_table, remark
from tollgate.errors import UsageError

app = typer.Typer(help="Credentials of the accounts with providers.", no_args_is_help=True)

MAX_SECRET_CHARS = 64 << 10

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Provider = Annotated[str, typer.Argument(metavar="PROVIDER", help="The provider's name in gateway.yaml.")]
Account = Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account's name there.")]
COLUMNS = ("provider", "account", "source", "kind", "last four", "set at", "by")


@app.command("set", context_settings={"allow_extra_args": True})
def set_credential(
    context: typer.Context,
    provider: Provider,
    account: Account = "main",
    kind: Annotated[
        Literal["api-key", "oauth", "google", "aws"],
        typer.Option(help="api-key: the key itself; google: a service account's key file; oauth, aws: a JSON object."),
    ] = "api-key",
    json: Json = False,
) -> int:
    """Set or replace a credential. It is read from standard input: tollgate credentials set openai < key

    OAuth: {"token_url", "client_id", "client_secret" or "refresh_token", "scope", "audience"}. AWS: {"access_key_id",
    "secret_access_key", "session_token", "region", "role_arn", "external_id"}.
    """
    if context.args:  # what stands there may be the secret: it is not echoed
        raise UsageError(
            "a credential is not taken from the command line, where the shell's history and every process can see it; "
            "pipe it in, or type it when asked, and have one replaced that was written there"
        )
    text = _secret(f"The {kind} of {provider}/{account}: ")
    body: dict[str, Any] = {"api_key": text} if kind == "api-key" else {kind: _object(kind, text)}
    answer = call("PUT", _path(provider, account), body)
    if json:
        print_json(answer)
    else:
        print_table(COLUMNS, [_row(answer)])
        remark(f"{provider}/{account} uses it from its next call on.")
    return 0


@app.command("list")
def list_credentials(json: Json = False) -> int:
    """Where the credential of each account comes from. None is shown."""
    answer = call("GET", "/v1/credentials")
    if json:
        print_json(answer)
    else:
        print_table(COLUMNS, (_row(each) for each in answer["data"]))
    return 0


@app.command()
def delete(provider: Provider, account: Account = "main", json: Json = False) -> int:
    """Take a credential away that was set. What gateway.yaml says of the account counts again."""
    answer = call("DELETE", _path(provider, account))
    if json:
        print_json(answer)
    else:
        remark(f"The credential of {provider}/{account} is deleted.")
    return 0


def _secret(prompt: str) -> str:
    if sys.stdin.isatty():
        from getpass import getpass

        text = getpass(prompt)
    else:
        text = sys.stdin.read(MAX_SECRET_CHARS + 1)
    if len(text) > MAX_SECRET_CHARS:
        raise UsageError(f"standard input holds more than {MAX_SECRET_CHARS} characters, which is no credential")
    if not text.strip():
        raise UsageError("nothing was given on standard input; pipe the credential in, or type it when asked")
    return text.strip()


def _object(kind: str, text: str) -> dict[str, Any]:
    """What was given, as the API takes it. Errors show nothing of it."""
    try:
        value = jsonlib.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UsageError(f"--kind {kind} takes a JSON object on standard input")
    return {"service_account": value} if kind == "google" and "service_account" not in value else value


def _path(provider: str, account: str) -> str:
    return f"/v1/credentials/{quote(provider, safe='')}/{quote(account, safe='')}"


def _row(credential: dict[str, Any]) -> list[Any]:
    source = credential.get("source")
    if credential.get("account_exists") is False:
        source = f"{source}, no such account"
    return [
        credential["provider"],
        credential["account"],
        source,
        credential.get("kind"),
        credential.get("last_four") or None,
        credential.get("set_at"),
        credential.get("set_by"),
    ]
