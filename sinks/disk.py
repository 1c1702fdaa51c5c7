"""Files that are whole and durable, or not there: the few calls on the file system that the protocol rests on."""

import os
from contextlib import suppress
from pathlib import Path


def sync(path: Path) -> None:
    """Return when the file's bytes, or the folder's entries, are durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make the folder and those above it, durably; one that exists is left as it is."""
    if not folder.is_dir():
        make_folder(folder.parent)
        with suppress(FileExistsError):
            folder.mkdir()
        sync(folder.parent)


def publish(temporary: Path, target: Path) -> None:
    """Give a finished file its name, in place of what had it before. Both names are on one file system."""
    sync(temporary)
    make_folder(target.parent)
    temporary.rename(target)
    sync(target.parent)


def publish_new(temporary: Path, target: Path) -> bool:
    """Give a finished file its name unless another file has it; True when it was given. The temporary name goes."""
    sync(temporary)
    try:
        os.link(temporary, target)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    sync(target.parent)
    return True
