"""Everything outside that the owner of a partition touches."""

import time
from collections.abc import Awaitable, Callable

import msgspec

from tollgate.control import Control
from tollgate.log import Log
from tollgate.processors.counts import Counts
from tollgate.processors.setup import Setup
from tollgate.replies import Mailbox
from tollgate.sealed import Sealer
from tollgate.tokenizer.counter import CountTokens, count_roughly


class World(msgspec.Struct, frozen=True, kw_only=True):
    """One process's surroundings; a test or a simulation brings its own."""

    log: Log
    replies: Mailbox
    control: Control
    sealer: Sealer
    setup: Callable[[], Setup]  # what is in force now; each request keeps what was when it was admitted
    instance: str
    address: str  # of the replies in this life of the process
    fatal: Callable[[str], None]  # ends the process; the restart reads the truth
    draw: Callable[[], float]
    count_tokens: CountTokens = count_roughly
    shared: bool = False  # other processes may own partitions and hold clients: the log is Kafka
    counts: Counts = msgspec.field(default_factory=Counts)
    now_ms: Callable[[], int]  # for durations and deadlines; decisions take the log's time
    clock_s: Callable[[], float] = time.monotonic  # it goes on while the process is halted
    # For patience with others: it stands still while none of them could be heard. Without it, `clock_s` counts.
    answering_s: Callable[[], float] | None = None
    settled: Callable[[], Awaitable[None]] | None = None  # returns when no cancellation is held up by an outage
