"""`tollgate log`: the whole history out of a log into files, and out of files into a new log."""

import asyncio
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tollgate.app.cli_config import ConfigFile
from tollgate.app.cli_output import counted, print_json, print_table, progress_bar, quiet, remark
from tollgate.errors import ConfigError, UsageError, why

if TYPE_CHECKING:
    from tollgate.app.settings import Settings
    from tollgate.log.archive import Manifest
    from tollgate.log.moving import Progress

app = typer.Typer(help="Move the history between logs.", no_args_is_help=True)

UNFINISHED = ".unfinished"

Broker = Annotated[
    str | None,
    typer.Option(help="'embedded' or kafka://host:port[,host:port...]. Default: 'log.broker' of gateway.yaml."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("export")
def export_(
    to: Annotated[Path, typer.Argument(metavar="FILE|DIR", help="A new folder, or a file that ends in .tar.")],
    all_requests: Annotated[
        bool, typer.Option("--requests/--no-requests", help="Also the requests that are decided; others always.")
    ] = True,
    broker: Broker = None,
    config: ConfigFile = None,
    json: Json = False,
) -> int:
    """Write the log into files that anybody can read. The gateway must not run; the log is only read.

    Everything goes but answers on their way and the checkpoint, which is made anew.
    """
    settings = _settings(broker, config)
    with _new_archive(to) as folder, progress_bar("export", unit="records") as progress:
        manifest = asyncio.run(_export(settings, folder, all_requests=all_requests, progress=progress))
    if json:
        print_json({"to": str(to), **_summary(manifest)})
    else:
        _print(manifest)
        print(f"{counted(sum(part.records for part in manifest.parts), 'record')} in {to}")
    return 0


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(metavar="FILE|DIR", help="What 'tollgate log export' has made.")],
    broker: Broker = None,
    config: ConfigFile = None,
    json: Json = False,
) -> int:
    """Make the log that the configuration names of an exported one. It must be new, or empty; offsets stay the same.

    The embedded log comes into being whole or not at all. On Kafka, an import that was interrupted is gone on with by
    the same command, and no gateway starts before it is done.
    """
    from tollgate.log.archive import open_archive

    settings = _settings(broker, config)
    with open_archive(source) as archive, progress_bar("import", unit="records") as progress:
        rows = asyncio.run(_import(settings, archive, progress))
        manifest = archive.manifest
    if json:
        print_json({"from": str(source), "partitions": rows, "totals": _totals(manifest)})
        return 0
    _print(manifest)
    print(f"{counted(sum(part.records for part in manifest.parts), 'record')} in the log, the same as in {source}")
    remark("It needs the TOLLGATE_SECRET that it was written with; 'tollgate reconcile' compares it with the books.")
    return 0


async def _export(settings: "Settings", folder: Path, *, all_requests: bool, progress: "Progress") -> "Manifest":
    from tollgate.app.open_log import LOG_FOLDER, open_log_to_read
    from tollgate.log.embedded_folder import take_lock
    from tollgate.log.moving import GROWTH_S, Export
    from tollgate.topics import load_topics

    log = await open_log_to_read(settings.config, settings.data, role="mover")
    embedded = settings.config.log.embedded
    lock = None
    try:
        lock = take_lock(settings.data / LOG_FOLDER) if embedded else None
        export = Export(
            log,
            folder,
            load_topics(),
            source="embedded" if embedded else "kafka",
            all_requests=all_requests,
            settle_s=0.0 if embedded else GROWTH_S,
            progress=progress,
        )
        return await export.run()
    finally:
        if lock is not None:
            os.close(lock)
        await log.close()


async def _import(settings: "Settings", archive: Any, progress: "Progress") -> list[dict[str, Any]]:
    from tollgate.app.open_log import LOG_FOLDER
    from tollgate.topics import load_topics

    checked, written, compared = _thirds(progress, sum(part.records for part in archive.manifest.parts))
    if settings.config.log.embedded:
        from tollgate.log.import_embedded import import_embedded

        folder = settings.data / LOG_FOLDER
        return await import_embedded(
            archive, folder, load_topics(), checked=checked, written=written, compared=compared
        )
    from tollgate.log.import_kafka import import_kafka

    return await import_kafka(
        archive,
        ",".join(settings.config.log.bootstrap_servers),
        load_topics(),
        settings.config.log.security,
        checked=checked,
        written=written,
        compared=compared,
    )


def _thirds(progress: "Progress", records: int) -> "list[Progress]":
    """Three steps over the same records as one progress: checked, written, compared."""

    def step(number: int) -> "Callable[[int, int], None]":
        return lambda done, total: progress(number * records + (records * done // total if total else 0), 3 * records)

    return [step(number) for number in range(3)]


@contextmanager
def _new_archive(to: Path) -> Iterator[Path]:
    """A folder for the files of an archive; a tar file is made of them in the end."""
    from tollgate.log.archive import MANIFEST, TAR

    if to.exists() and not (to.is_dir() and not (to / MANIFEST).exists() and _only_parts(to)):
        raise UsageError(f"{to} exists: name a new folder, or a new file that ends in {TAR}")
    if to.suffix not in ("", TAR):
        raise UsageError(f"{to}: a file must end in {TAR}; anything else is a folder")
    folder = to.with_name(to.name + UNFINISHED) if to.suffix == TAR else to
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)
        yield folder
        if to.suffix == TAR:
            packed = folder / to.name
            with tarfile.open(packed, "w") as tar:
                for path in sorted(folder.iterdir(), key=lambda path: (path.name != MANIFEST, path.name)):
                    if path != packed:
                        tar.add(path, arcname=path.name)
            packed.rename(to)
            shutil.rmtree(folder)
    except OSError as error:
        raise ConfigError(f"{to}: cannot be written: {why(error)}") from None


def _only_parts(folder: Path) -> bool:
    """Is there nothing in the folder but what an export has left that did not end?"""
    return all(path.name.endswith(".ndjson.zst") for path in folder.iterdir())


def _settings(broker: str | None, config: Path | None) -> "Settings":
    from tollgate.app.settings import resolve

    quiet("aiokafka")
    return resolve(os.environ, config=config, broker=broker)


def _summary(manifest: "Manifest") -> dict[str, Any]:
    from msgspec import to_builtins

    return {**to_builtins(manifest), "totals": _totals(manifest)}


def _totals(manifest: "Manifest") -> dict[str, Any]:
    return {
        "records": sum(part.records for part in manifest.parts),
        "ends": sum(part.ends for part in manifest.parts),
        "cost_pusd": str(sum(int(part.cost_pusd) for part in manifest.parts)),
        "bill_pusd": str(sum(int(part.bill_pusd) for part in manifest.parts)),
    }


def _print(manifest: "Manifest") -> None:
    from tollgate.money import usd

    print_table(
        ("partition", "records", "from", "to", "requests ended", "cost USD", "bill USD"),
        [
            (
                part.name,
                part.records,
                part.start,
                part.end,
                part.ends or None,
                usd(int(part.cost_pusd)) if part.ends else None,
                usd(int(part.bill_pusd)) if part.ends else None,
            )
            for part in manifest.parts
            if part.records
        ],
    )
    if empty := sum(not part.records for part in manifest.parts):
        print(f"{counted(empty, 'partition')} without records")
    totals = _totals(manifest)
    print(f"cost {usd(int(totals['cost_pusd']))} USD, bill {usd(int(totals['bill_pusd']))} USD")
