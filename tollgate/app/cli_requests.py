"""`tollgate requests`: the story of one request, from the gateway's books."""

from collections.abc import Iterable
from typing import Annotated, Any

import typer

from tollgate.app.cli_client import NotFound, call
from tollgate.app.cli_output import print_json, print_table
from tollgate.errors import UsageError
from tollgate.ids import is_request_id

app = typer.Typer(help="What became of a request.", no_args_is_help=True)

LISTS = ("attempts", "events")  # parts of a story that have a table of their own
ATTEMPT = ("attempt", "provider", "account", "model", "outcome", "error_class", "http_status", "latency_ms", "cost_usd")


@app.callback()
def _requests() -> None:
    """With it, `show` stays a word of its own although it is the only one."""


@app.command()
def show(
    request_id: Annotated[str, typer.Argument(metavar="REQUEST_ID", help="As in the header x-request-id.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """What became of a request: its end, every attempt with its reason and cost, and every event."""
    if not is_request_id(request_id):
        raise UsageError(f"{request_id!r} is not a request id; answers carry it in the header x-request-id")
    try:
        story = call("GET", f"/v1/requests/{request_id}")
    except NotFound as error:
        where = f"tollgate sql \"from audit where request_id = '{request_id}'\""
        raise UsageError(f"{error} One that was refused at the door is in the audit only: {where}") from None
    if json:
        print_json(story)
        return 0
    print_table(("", ""), _known((key, value) for key, value in story.items() if key not in LISTS))
    if story["attempts"]:
        print()
        print_table(
            [column.replace("_", " ") for column in ATTEMPT],
            [[attempt.get(column) for column in ATTEMPT] for attempt in story["attempts"]],
        )
    print()
    print_table(("at", "event", ""), [_event(**event) for event in story["events"]])
    return 0


def _event(at: str, type: str, **details: Any) -> tuple[str, str, str]:
    return at, type, " ".join(f"{key}={value}" for key, value in _known(details.items()))


def _known(pairs: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """The pairs that say something; lists and mappings in one line."""
    return [(key, _line(value)) for key, value in pairs if value not in (None, {}, [])]


def _line(value: Any) -> Any:
    match value:
        case dict():
            return " ".join(f"{key}={_line(inner)}" for key, inner in value.items())
        case list():
            return ",".join(str(_line(inner)) for inner in value)
        case _:
            return value
