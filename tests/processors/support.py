"""What the tests of the processors share."""

from pathlib import Path
from typing import Any

import pytest

from tollgate.config import load_config
from tollgate.control import Control
from tollgate.log import Log
from tollgate.prices.book import PriceBook
from tollgate.processors.world import World
from tollgate.replies import LocalReplies
from tollgate.sealed import FolderSeals, Sealer
from tollgate.secret import Secret

NOW_MS = 1_795_000_000_000
BOOK = PriceBook.load(None)


def make_world(log: Log, folder: Path, **given: Any) -> World:
    """The surroundings of one process on this log; what is not given is what a process alone would have."""
    facts: dict[str, Any] = {
        "log": log,
        "replies": LocalReplies("here"),
        "control": Control(),
        "sealer": Sealer(Secret("s" * 32), FolderSeals(folder / "seals")),
        "config": load_config(None, {}),
        "book": BOOK,
        "transports": {},
        "instance": "here",
        "address": "here",
        "fatal": pytest.fail,
        "draw": lambda: 0.0,
        "now_ms": lambda: NOW_MS,
    }
    return World(**facts | given)
