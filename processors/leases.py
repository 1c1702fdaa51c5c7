"""A limit that many partitions share: the owner of the limit's own partition leases parts of it to the others.

    asker ──LeaseAsked──▶ the limit's owner ──LeaseGranted (journal)──▶ LeaseAnswered ──▶ asker: a share for 2 s

A request takes one unit of a share. What is not taken in time is lost, and so is a share whose answer was lost, whose
asker died, or that was asked for twice: it counts as spent. So the limit is never exceeded; what is lost is bounded by
what one asks for at a time.

Both sides are here, and pure: time comes in. The owner's time is the log's. An asker's is its own monotonic clock, from
the moment of the question on, so that no two clocks are compared.
"""

import math
from collections import deque
from typing import NamedTuple

from tollgate.events import LeaseAnswered, LeaseAsked, LeaseGranted
from tollgate.processors.ledger import Ledger
from tollgate.processors.rates import MINUTE_US, RateLimit

LEASE_S = 2.0
SHARES = 50  # so many shares make a limit: 2 % is what one asker gets ahead of its need
AHEAD_S = 1.0  # the need of so much time is asked for
RENEW_S = 0.3  # a share that lasts no longer is renewed
ASK_AGAIN_S = 0.5  # after a question that was not answered
DENIED_S = 0.05  # a limit that is exhausted is not asked again sooner

_LEASE_US = int(LEASE_S * 1_000_000)
_STEP_US = 250_000  # leases that end within one step are one, which ends with it


class Lent(NamedTuple):
    """A shared limit: the theoretical arrival time of its next request, were all leases that are over taken at their
    very end, and the leases that are not over: when each ends, and its units.
    """

    tat_us: int = 0
    live: tuple[tuple[int, int], ...] = ()


class Grant(NamedTuple):
    """What the owner of a limit gives, the limit's state then, and when more can be had where it was not all."""

    granted: int
    state: Lent
    retry_ms: int


def grant(state: Lent, now_us: int, *, per_minute: int, wanted: int) -> Grant:
    """As much of `wanted` as is in the limit's bucket now, however the leases so far have been or will be taken.

    A unit may be taken between the grant and the end of its lease. A lease that is over may have been taken at its end;
    one that is not, at once or together with what is granted now. Against the worst of it, what is taken in any
    window is within the bucket and its refill.
    """
    interval_us = -(-MINUTE_US // per_minute)
    state = _settled(state, now_us, interval_us)
    units = sum(units for _, units in state.live)
    room = (per_minute * interval_us - max(0, state.tat_us - now_us)) // interval_us - units
    granted = max(0, min(wanted, room))
    if granted:
        until_us = -(-(now_us + _LEASE_US) // _STEP_US) * _STEP_US
        live = dict(state.live)
        live[until_us] = live.get(until_us, 0) + granted
        state = Lent(state.tat_us, tuple(live.items()))
    return Grant(granted, state, 0 if granted == wanted else _retry_ms(state, now_us, per_minute, interval_us))


def _settled(state: Lent, now_us: int, interval_us: int) -> Lent:
    """The state when the leases that are over by then are counted as taken at their end."""
    tat_us, live = state
    while live and live[0][0] <= now_us:
        until_us, units = live[0]
        tat_us, live = max(tat_us, until_us) + units * interval_us, live[1:]
    return Lent(tat_us, live)


def _retry_ms(state: Lent, now_us: int, per_minute: int, interval_us: int) -> int:
    """How long until one more unit can be had, if nobody else takes it."""
    while True:
        units = sum(units for _, units in state.live)
        at_us = max(now_us, state.tat_us + (units + 1 - per_minute) * interval_us)
        if units < per_minute and (not state.live or at_us < state.live[0][0]):
            return max(1, -(-(at_us - now_us) // 1000))
        state = _settled(state, state.live[0][0], interval_us)


def lend(ledger: Ledger, asked: LeaseAsked, now_us: int) -> tuple[LeaseGranted | None, LeaseAnswered]:
    """What the owner of the limit writes down, if it gives anything, and what it then answers."""
    rate = ledger.rates.get(asked.limit)
    lent = Lent(rate.tat_us, rate.live) if rate is not None else Lent()
    given = grant(lent, now_us, per_minute=asked.per_minute, wanted=asked.wanted)
    answer = LeaseAnswered(
        limit=asked.limit, epoch=asked.epoch, question=asked.question, granted=given.granted, retry_ms=given.retry_ms
    )
    if not given.granted:
        return None, answer
    granted = LeaseGranted(
        epoch=ledger.epoch,
        limit=asked.limit,
        partition=asked.partition,
        granted=given.granted,
        tat_us=given.state.tat_us,
        live=given.state.live,
    )
    return granted, answer


class _Lease:
    __slots__ = ("left", "until_s")

    def __init__(self, until_s: float, left: int) -> None:
        self.until_s = until_s
        self.left = left


class Share:
    """What one partition has of one limit, and what it needs."""

    def __init__(self, limit: RateLimit) -> None:
        self.limit = limit
        self._leases: deque[_Lease] = deque()
        self._asked: tuple[int, float] | None = None  # the question that is open: its number, when it was put
        self._denied_until_s = 0.0
        self._second = 0  # of the counts below
        self._taken = [0, 0]  # in the last second, in this one

    def left(self, now_s: float) -> int:
        """How many requests may go now."""
        leases = self._leases
        while leases and (leases[0].until_s <= now_s or not leases[0].left):
            leases.popleft()
        return sum(lease.left for lease in leases if lease.until_s > now_s)

    def take(self, now_s: float) -> None:
        """One request goes. To be called when something is left."""
        self._count(now_s)
        self._taken[1] += 1
        next(lease for lease in self._leases if lease.left and lease.until_s > now_s).left -= 1

    def denied_ms(self, now_s: float) -> int:
        """For how long it is known that nothing can be had; 0 when it is not known."""
        return max(0, math.ceil((self._denied_until_s - now_s) * 1000))

    def wanted(self, now_s: float, *, waiting: int) -> int:
        """How much to ask for now; 0: nothing. `waiting` requests have no unit yet."""
        if self._asked is not None and now_s - self._asked[1] < ASK_AGAIN_S:
            return 0
        if now_s < self._denied_until_s:
            return 0
        left, need = self.left(now_s), self._per_s(now_s)
        if not waiting and (not need or left > need * RENEW_S):
            return 0
        ahead = min(math.ceil(need * AHEAD_S), max(1, self.limit.per_minute // SHARES))
        return max(0, waiting + max(0, ahead - left))

    def ask(self, number: int, now_s: float) -> None:
        """The question of this number is put. An earlier one that is open is given up: its answer counts as lost."""
        self._asked = number, now_s

    def answer(self, number: int, granted: int, retry_ms: int, now_s: float) -> bool:
        """The answer to a question. False, and without effect, when that is not the open one."""
        if self._asked is None or self._asked[0] != number:
            return False
        until_s = self._asked[1] + LEASE_S  # from the question on: it was granted later than that
        self._asked = None
        if granted and until_s > now_s:
            self._leases.append(_Lease(until_s, granted))
        if retry_ms:
            self._denied_until_s = now_s + max(retry_ms / 1000, DENIED_S)
        return True

    def idle(self, now_s: float) -> bool:
        """Is there nothing that would be lost if this were forgotten?"""
        return self._asked is None and not self.left(now_s) and now_s >= self._denied_until_s

    def _per_s(self, now_s: float) -> float:
        """Requests a second, as of late. A single one foretells none."""
        self._count(now_s)
        return max(0.0, self._taken[1] + self._taken[0] * (1 - now_s % 1) - 1)

    def _count(self, now_s: float) -> None:
        second = int(now_s)
        if second != self._second:
            self._taken = [self._taken[1] if second == self._second + 1 else 0, 0]
            self._second = second
