"""`tollgate keys`: create, list, show, change and revoke API keys through the management API."""

import os
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

import typer

from tollgate.app.cli_client import call
from tollgate.app.cli_output import print_json, print_table, remark
from tollgate.environment import data_folder
from tollgate.errors import ConfigError, UsageError
from tollgate.money import pusd, usd_text
from tollgate.secret import ADMIN_KEY_FILE

app = typer.Typer(help="API keys and what they may use.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
KeyId = Annotated[str, typer.Argument(metavar="KEY_ID", help="The key's id, not the key.")]
Budget = Annotated[
    str | None,
    typer.Option(metavar="USD", help="Budget per calendar month (UTC), such as 25 or 0.50; 'none' for no limit."),
]
PerMinute = Annotated[str | None, typer.Option(metavar="N", help="Requests per minute; 'none' for no limit.")]
Concurrent = Annotated[str | None, typer.Option(metavar="N", help="Requests under way at once; 'none' for no limit.")]

COLUMNS = (
    "id",
    "name",
    "organization",
    "team",
    "budget USD",
    "spent USD",
    "per minute",
    "concurrent",
    "expires",
    "state",
)


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is for.")],
    organization: Annotated[str | None, typer.Option(help="Who pays. Default: 'default'.")] = None,
    team: Annotated[str | None, typer.Option(help="A part of the organisation.")] = None,
    budget: Budget = None,
    requests_per_minute: PerMinute = None,
    concurrent: Concurrent = None,
    expires_at: Annotated[str | None, typer.Option(metavar="TIME", help="As 2027-01-31T00:00:00Z.")] = None,
    json: Json = False,
) -> int:
    """Make a key. It is shown this once: the gateway keeps only its hash."""
    body: dict[str, Any] = {"name": name, **_bounds(budget, requests_per_minute, concurrent)}
    given = {"organization": organization, "team": team, "expires_at": expires_at}
    key = call("POST", "/v1/keys", body | {field: value for field, value in given.items() if value is not None})
    if json:
        print_json(key)
        return 0
    print_table(COLUMNS, [_row(key, datetime.now(UTC))])
    remark("\nThe key, shown only now:")
    print(key["key"])
    return 0


@app.command("list")
def list_keys(json: Json = False) -> int:
    """All keys, without their secrets, and what each has spent this month, where its gateway's data folder is."""
    keys = call("GET", "/v1/keys")
    if json:
        print_json(keys)
    else:
        _table(keys["data"])
    return 0


@app.command()
def show(key_id: KeyId, json: Json = False) -> int:
    """One key: its limits, its state, and what it has spent this month, where its gateway's data folder is."""
    return _print(call("GET", _path(key_id)), json=json)


@app.command()
def update(
    key_id: KeyId,
    name: Annotated[str | None, typer.Option(help="A new name.")] = None,
    budget: Budget = None,
    requests_per_minute: PerMinute = None,
    concurrent: Concurrent = None,
    json: Json = False,
) -> int:
    """Change a key. What is not named stays."""
    change = _bounds(budget, requests_per_minute, concurrent) | ({"name": name} if name is not None else {})
    if not change:
        raise UsageError("nothing to change: give --name, --budget, --requests-per-minute or --concurrent")
    return _print(call("PATCH", _path(key_id), change), json=json)


@app.command()
def revoke(key_id: KeyId, json: Json = False) -> int:
    """Make a key useless, at once and for ever."""
    answer = call("DELETE", _path(key_id))
    if json:
        print_json(answer)
    else:
        remark(f"{key_id} is revoked.")
    return 0


@app.command()
def admin(json: Json = False) -> int:
    """Say where the admin key lies, without showing it."""
    path = Path(data_folder(os.environ), ADMIN_KEY_FILE).absolute()
    if os.environ.get("TOLLGATE_ADMIN_KEY"):
        place = "TOLLGATE_ADMIN_KEY"
    elif path.exists():
        place = str(path)
    else:
        raise ConfigError(
            f"no admin key: there is no {path}, and TOLLGATE_ADMIN_KEY is not set; 'tollgate serve' makes one"
        )
    if json:
        print_json({"admin_key": place})
    else:
        print(place)
    return 0


def _path(key_id: str) -> str:
    from tollgate.keys import PREFIX, parse

    if key_id.startswith(PREFIX):  # never to be shown: it may be a secret, well-formed or with a slip in it
        key = parse(key_id)
        its_id = f"; its id is {key.key_id}" if key else ""
        raise UsageError(f"this is a key itself, not its id{its_id}; 'tollgate keys list' shows the ids")
    if not key_id.replace("-", "").replace("_", "").isalnum() or not key_id.isascii():
        raise UsageError(f"{key_id!r} is not a key's id; 'tollgate keys list' shows them")
    return f"/v1/keys/{key_id}"


def _bounds(budget: str | None, requests_per_minute: str | None, concurrent: str | None) -> dict[str, Any]:
    """The parts of a request that limit a key: absent where nothing was said, null for no limit."""
    limits = {
        field: _count(option, text)
        for field, option, text in (
            ("requests_per_minute", "--requests-per-minute", requests_per_minute),
            ("concurrent_requests", "--concurrent", concurrent),
        )
        if text is not None
    }
    bounds: dict[str, Any] = {"limits": limits} if limits else {}
    if budget is not None:
        bounds["quota"] = {"monthly_budget": _amount(budget)}
    return bounds


def _count(option: str, text: str) -> int | None:
    if text == "none":
        return None
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"{option} takes a whole number or 'none'")
    return int(text)


def _amount(text: str) -> str | None:
    """The amount as the API takes it: text, because a JSON number may pass through a float."""
    if text == "none":
        return None
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0:
        raise UsageError("--budget takes an amount in USD such as 25 or 0.50, or 'none'")
    return f"{amount:f}"


def _print(key: dict[str, Any], *, json: bool) -> int:
    if json:
        print_json(key)
    else:
        _table([key])
    return 0


def _table(keys: list[dict[str, Any]]) -> None:
    """The keys in rows. What they have spent stands in the books of the gateway, if its data folder is this one."""
    from tollgate.app.cli_client import is_own_gateway
    from tollgate.app.spending import billed_by_key

    now = datetime.now(UTC)
    own = bool(keys) and is_own_gateway(os.environ)
    billed = billed_by_key(data_folder(os.environ), f"{now:%Y-%m}") if own else None
    print_table(COLUMNS, [_row(key, now, None if billed is None else billed[key["id"]]) for key in keys])


def _row(key: dict[str, Any], now: datetime, spent: Decimal | None = None) -> list[Any]:
    limits, quota = key.get("limits") or {}, key.get("quota") or {}
    return [
        key["id"],
        key["name"],
        key.get("organization"),
        key.get("team"),
        quota.get("monthly_budget"),
        None if spent is None else usd_text(pusd(spent)),
        limits.get("requests_per_minute"),
        limits.get("concurrent_requests"),
        _seconds(key.get("expires_at")),
        _state(key, now),
    ]


def _seconds(time: str | None) -> str | None:
    """A time of the API without its milliseconds: a line of a terminal is short."""
    return time and f"{time[:19]}Z"


def _state(key: dict[str, Any], now: datetime) -> str:
    if key.get("revoked_at"):
        return "revoked"
    expires_at = key.get("expires_at")
    return "expired" if expires_at and datetime.fromisoformat(expires_at) <= now else "active"
