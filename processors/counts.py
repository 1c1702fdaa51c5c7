"""What a worker counts since its start: plain numbers, which its metrics read when somebody asks."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from tollgate.events import Ended, Event, Outcome, Status

ProbeOutcome = Literal["waiting", "gone", "silent"]


@dataclass(slots=True)
class Counts:
    """The counts of one process. The keys are few by construction: states, and the providers of the configuration."""

    taken_over: int = 0  # partitions, by this process
    released: int = 0  # partitions, handed over
    calls_released: int = 0  # calls that were running when their partition was handed over
    gaps: int = 0  # times that records of a writer that had been replaced were found between ours
    dead_letters: int = 0
    probes: Counter[ProbeOutcome] = field(default_factory=Counter)
    ends: Counter[Status] = field(default_factory=Counter)
    attempts: Counter[tuple[str, Outcome]] = field(default_factory=Counter)  # by provider

    def durable(self, event: Event) -> None:
        """A record of this process's has landed in the journal."""
        if isinstance(event, Ended):
            self.ends[event.status] += 1
            for attempt in event.attempts:
                self.attempts[attempt.provider, attempt.outcome] += 1
