"""Shares the stretches of a replay among processes: each opens the log for itself and commits to the one manifest.

Each partition belongs to one process, so no two of them ever move the same cursor. A process ends when its parent
does: it then finds nobody to report to.
"""

import asyncio
import gc
import multiprocessing
from collections.abc import Awaitable, Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import monotonic

import uvloop

import tollgate.errors
from tollgate.errors import LogUnavailable, TollgateError
from tollgate.log import Log
from tollgate.sinks.fold import Skipped
from tollgate.sinks.manifest import Manifest
from tollgate.sinks.replay_folder import one_of_the_replay
from tollgate.sinks.replay_part import Read, fold_stretches
from tollgate.sinks.starts import Stretch

REPORT_S = 0.2
STOP_S = 5.0
# Events hold no cycles, and few other things are made: the collector would look at a million live objects for nothing.
GC_THRESHOLD = 100_000

Open = Callable[[], Awaitable[Log]]


async def fold_in_processes(
    open_log: Open, to: Path, stretches: Sequence[Stretch], *, open_day: str, read: Read, processes: int, max_rows: int
) -> tuple[int, list[Skipped]]:
    """See `fold_stretches`. Raises what failed in any of the processes; the others are then stopped."""
    context = multiprocessing.get_context("spawn")
    workers: list[tuple[BaseProcess, Connection]] = []
    try:
        for share in shares(stretches, processes):
            ours, theirs = context.Pipe()
            process: BaseProcess = context.Process(
                target=_main, args=(theirs, open_log, to, share, open_day, max_rows), daemon=True
            )
            process.start()
            theirs.close()
            workers.append((process, ours))
        done = await asyncio.gather(*(_follow(process, pipe, read) for process, pipe in workers))
        return sum(rows for rows, _ in done), [record for _, skipped in done for record in skipped]
    finally:
        for process, pipe in workers:
            pipe.close()
            process.terminate()
            process.join(STOP_S)


def shares(stretches: Sequence[Stretch], processes: int) -> list[list[Stretch]]:
    """The stretches, dealt to as many processes so that none has much more than the others. Pure.

    The longest first, always to who has least: at worst a third more than the best possible (Graham, 1969).
    """
    shares: list[list[Stretch]] = [[] for _ in range(min(processes, len(stretches)))]
    for stretch in sorted(stretches, key=lambda stretch: -stretch.records):
        min(shares, key=lambda share: sum(each.records for each in share)).append(stretch)
    return shares


async def _follow(process: BaseProcess, pipe: Connection, read: Read) -> tuple[int, list[Skipped]]:
    """What the process reports in the end."""
    try:
        while True:
            match await asyncio.to_thread(pipe.recv):
                case int(records):
                    read(records)
                case str(name), str(text):
                    raise getattr(tollgate.errors, name, TollgateError)(text)
                case int(rows), list(skipped):
                    return rows, skipped
    except (EOFError, OSError):
        await asyncio.to_thread(process.join, STOP_S)
        raise LogUnavailable(
            f"a process of the replay ended with {process.exitcode}; the same command goes on where it was"
        ) from None


def _main(
    pipe: Connection, open_log: Open, to: Path, stretches: Sequence[Stretch], open_day: str, max_rows: int
) -> None:
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    try:
        with one_of_the_replay(to):
            rows, skipped = uvloop.run(_fold(pipe, open_log, to, stretches, open_day, max_rows))
        pipe.send((rows, skipped))
    except (BrokenPipeError, KeyboardInterrupt):
        return  # the parent is gone
    except TollgateError as error:
        pipe.send((type(error).__name__, str(error)))
    except OSError as error:
        pipe.send(("TollgateError", f"{to}: {error}"))


async def _fold(
    pipe: Connection, open_log: Open, to: Path, stretches: Sequence[Stretch], open_day: str, max_rows: int
) -> tuple[int, list[Skipped]]:
    log = await open_log()
    waiting, reported = 0, monotonic()

    def read(records: int) -> None:
        nonlocal waiting, reported
        waiting += records
        if monotonic() - reported >= REPORT_S:
            pipe.send(waiting)
            waiting, reported = 0, monotonic()

    try:
        done = await fold_stretches(log, Manifest(to), stretches, open_day=open_day, read=read, max_rows=max_rows)
    finally:
        await log.close()
    pipe.send(waiting)
    return done
