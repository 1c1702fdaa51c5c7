"""`tollgate sql`, `replay` and `reconcile`: the history, asked, rebuilt and checked.

They read the data folder and the log directly, whether a gateway runs or not.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tollgate.app.cli_config import ConfigFile
from tollgate.app.cli_output import counted, print_json, progress_bar, quiet, remark
from tollgate.app.cli_times import unix_ms
from tollgate.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from tollgate.log import Log
    from tollgate.sinks.reconcile import Report
    from tollgate.sinks.replay import Replayed
    from tollgate.sinks.starts import Range

Format = Literal["table", "csv", "json", "parquet"]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
From = Annotated[
    str | None, typer.Option("--from", metavar="TIME", help="Begin with the first record that is not older.")
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Stop before the first record that is not older.")]


def sql(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="As in: select * from usage_daily.")],
    format: Annotated[Format, typer.Option(help="How the answer is written.")] = "table",
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the answer is written; here when left out.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    config: ConfigFile = None,
) -> int:
    """Ask the books: usage, attempts, costs, audit, usage_daily, invoices, focus. What is not flushed is included."""
    from tollgate.sinks.sql import run

    async def ask() -> None:
        async with _log(config, files_will_do=True) as (data, log):
            await run(query, data=data, log=log, format="json" if json else format, out=output)

    asyncio.run(ask())
    return 0


def replay(
    to: Annotated[Path, typer.Option(metavar="DIR", help="An empty folder, or one where a replay was interrupted.")],
    from_: From = None,
    until: Until = None,
    processes: Annotated[
        int | None, typer.Option(min=1, max=64, help="How many share the partitions; by default one a core.")
    ] = None,
    from_start_of_log: Annotated[
        bool, typer.Option("--from-start-of-log", help="Begin where the log begins now, if retention has cut it.")
    ] = False,
    json: Json = False,
    config: ConfigFile = None,
) -> int:
    """Rebuild Parquet from the log, all of it or that of a time, in another folder. The log is only read.

    A TIME is a day (2026-11-20, its beginning in UTC) or an RFC 3339 time, and is compared with the log's own time.
    """
    from tollgate.app.open_log import open_log_to_read
    from tollgate.app.settings import resolve
    from tollgate.sinks.replay import replay as rebuild

    range = _range(from_, until)
    settings = resolve(os.environ, config=config)
    if processes is None:
        processes = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    async def rebuilt() -> "Replayed":
        async with _log(config) as (_, log):
            assert log is not None
            with progress_bar("replay", unit="records") as progress:
                return await rebuild(
                    log,
                    to,
                    range=range,
                    open_log=partial(open_log_to_read, settings.config, settings.data),
                    processes=processes,
                    progress=progress,
                    from_start_of_log=from_start_of_log,
                )

    done = asyncio.run(rebuilt())
    if json:
        print_json(_summary(to, from_, until, done))
        return 0
    for record in done.skipped:
        remark(f"skipped {record.topic}[{record.partition}] at {record.offset}: {record.reason}")
    if done.rows == done.rows_in_folder:
        print(f"{counted(done.rows, 'row')} of {counted(done.records, 'record')} in {to}")
    else:
        new = f"{counted(done.rows, 'new row')} of {counted(done.records, 'record')}"
        print(f"{new}; with them, {counted(done.rows_in_folder, 'row')} in {to}")
    for key, start in done.starts.items():
        if start.hash:
            print(f"{key} begins at {start.offset}; the audit chain's link before it is {start.hash}")
    return 0


def _range(from_: str | None, until: str | None) -> "Range":
    from tollgate.sinks.starts import Range

    range = Range(from_ms=_instant(from_, "--from"), until_ms=_instant(until, "--until"))
    if range.from_ms is not None and range.until_ms is not None and range.from_ms > range.until_ms:
        raise UsageError(f"--from {from_} is later than --until {until}: give the earlier time to --from")
    return range


def _instant(text: str | None, option: str) -> int | None:
    return None if text is None else unix_ms(text, option=option)


def _summary(to: Path, from_: str | None, until: str | None, done: "Replayed") -> dict[str, object]:
    """What `replay --json` prints. `starts` is where the folder's history begins, `read` what this run has read."""
    return {
        "to": str(to),
        "from": from_,
        "until": until,
        "rows": done.rows,
        "rows_in_folder": done.rows_in_folder,
        "records": done.records,
        "seconds": round(done.seconds, 3),
        "records_per_s": round(done.records / done.seconds) if done.seconds else None,
        "starts": {
            key: {"offset": start.offset, "epoch": start.epoch, "hash": start.hash or None}
            for key, start in done.starts.items()
        },
        "read": {stretch.key: {"first": stretch.start.offset, "end": stretch.end} for stretch in done.stretches},
        "skipped": [record._asdict() for record in done.skipped],
    }


def reconcile(
    from_: From = None,
    until: Until = None,
    json: Json = False,
    config: ConfigFile = None,
) -> int:
    """Compare the log with Parquet and with itself; exit code 1 if the books do not balance.

    What is still under way is pending, not a difference. A TIME is as for 'replay'.
    """
    from tollgate.sinks.reconcile import reconcile as compare

    range = _range(from_, until)

    async def compared() -> "Report":
        async with _log(config) as (data, log):
            assert log is not None
            return await compare(log, data, range=range)

    report = asyncio.run(compared())
    if json:
        from msgspec import to_builtins

        print_json(to_builtins(report))
        return 1 if report.differences else 0
    for difference in report.differences:
        print(difference)
    print(f"{counted(len(report.differences), 'difference')} in {counted(report.rows, 'row')}")
    for count, noun, what in (
        (report.pending_rows, "row", "not in Parquet yet"),
        (report.pending_copies, "cost line", "on the way to the topic 'costs'"),
        (report.open_requests, "request", "not ended yet"),
        (report.before_log, "row", "older than the log, and so not compared"),
    ):
        if count:
            print(f"{counted(count, noun)} {what}")
    return 1 if report.differences else 0


@asynccontextmanager
async def _log(config: Path | None, *, files_will_do: bool = False) -> "AsyncIterator[tuple[Path, Log | None]]":
    """The data folder, and the log to be read; None, where that is enough, if there are only files."""
    from tollgate.app.open_log import open_log_to_read
    from tollgate.app.settings import resolve

    quiet("aiokafka")
    settings = resolve(os.environ, config=config)
    try:
        log = await open_log_to_read(settings.config, settings.data)
    except ConfigError as error:
        if not (files_will_do and settings.config.log.embedded and settings.data.is_dir()):
            raise
        remark(f"{error}; only what is in files is shown")
        yield settings.data, None
        return
    try:
        yield settings.data, log
    finally:
        await log.close()
