"""`tollgate requests`: the story of one request, from the gateway's books."""

from typing import Annotated, Any

import typer

from tollgate.app.cli_client import call
from tollgate.app.cli_output import print_json, print_table
from tollgate.errors import UsageError
from tollgate.ids import is_request_id

app = typer.Typer(help="What became of a request.", no_args_is_help=True)


@app.callback()
def _requests() -> None:
    pass


@app.command()
def show(
    request_id: Annotated[str, typer.Argument(metavar="REQUEST_ID", help="As in the header x-request-id.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """What became of a request: its end, and every attempt with its reason and cost."""
    if not is_request_id(request_id):
        raise UsageError(f"{request_id!r} is not a request id; answers carry it in the header x-request-id")
    story = call("GET", f"/v1/requests/{request_id}")
    if json:
        print_json(story)
        return 0
    print_table(("", ""), [(key, _cell(value)) for key, value in story.items() if key != "attempts"])
    attempts = story.get("attempts") or []
    if attempts:
        columns = list(dict.fromkeys(key for attempt in attempts for key in attempt))
        print()
        print_table(columns, [[_cell(attempt.get(column)) for column in columns] for attempt in attempts])
    return 0


def _cell(value: Any) -> Any:
    """A value in one cell: small things as they are, mappings as `key=value`, lists by their length."""
    match value:
        case dict():
            return ", ".join(f"{key}={_cell(inner)}" for key, inner in value.items() if inner is not None) or None
        case list():
            return f"{len(value)} items"
        case _:
            return value
