"""One partition's shares of the limits that all partitions have together, and the questions that get them."""

import asyncio
import logging
from functools import lru_cache, partial

from tollgate.config import RateLimiting
from tollgate.events import LeaseAnswered, LeaseAsked, encode
from tollgate.log import Log, Position
from tollgate.processors.leases import Share
from tollgate.processors.rates import RateLimit, exceeded
from tollgate.processors.world import World

TOPIC = "requests"
MAX_SHARES = 1_000  # of limits that were used lately; models may have any number of names
UNANSWERED_MS = 1_000  # after which a client may try again when nobody could say whether there is room

log = logging.getLogger(__name__)


class Leasing:
    """Belongs to an owner; `epoch` is its own."""

    def __init__(self, world: World, partition: int, epoch: int) -> None:
        self._world = world
        self._partition = partition
        self._epoch = epoch
        self._shares: dict[str, Share] = {}
        self._questions = 0

    def take(self, model: str, rates: RateLimiting, *, waiting: int, now_ms: int, last_chance: bool) -> bool:
        """Take a unit of each limit on a request for the model, or of none: then False, and an answer will come.

        `waiting` requests have none yet. Raises `Refusal` (429) when it is known that there is no room, or at the
        `last_chance`, when it is not known.
        """
        limits = limits_on(model, rates)
        if not limits:
            return True
        now_s = self._world.clock_s()
        shares = [self._share(limit, now_s) for limit in limits]
        short = [share for share in shares if not share.left(now_s)]
        for share in short:
            denied_ms = share.denied_ms(now_s) or (UNANSWERED_MS if last_chance else 0)
            if denied_ms:
                raise exceeded(share.limit, wait_ms=denied_ms, reset_ms=denied_ms, now_ms=now_ms)
        for share in short:
            self._ask(share, waiting, now_s)
        if short:
            return False
        for share in shares:
            share.take(now_s)
            self._ask(share, 0, now_s)
        return True

    def answered(self, event: LeaseAnswered) -> None:
        """The owner of a limit has answered; what an earlier owner of this partition had asked for is lost."""
        share = self._shares.get(event.limit)
        if share is not None and event.epoch == self._epoch:
            share.answer(event.question, event.granted, event.retry_ms, self._world.clock_s())

    def _share(self, limit: RateLimit, now_s: float) -> Share:
        share = self._shares.get(limit.name)
        if share is None or share.limit != limit:  # one of a limit that was changed counts as spent
            if len(self._shares) >= MAX_SHARES:
                self._shares = {name: share for name, share in self._shares.items() if not share.idle(now_s)}
            share = self._shares[limit.name] = Share(limit)
        return share

    def _ask(self, share: Share, waiting: int, now_s: float) -> None:
        """Ask the owner of the limit's partition for what is needed, if anything is."""
        wanted = share.wanted(now_s, waiting=waiting)
        if not wanted:
            return
        self._questions += 1
        share.ask(self._questions, now_s)
        question = LeaseAsked(
            limit=share.limit.name,
            per_minute=share.limit.per_minute,
            wanted=wanted,
            partition=self._partition,
            epoch=self._epoch,
            question=self._questions,
        )
        put = self._world.log.append(TOPIC, share.limit.name.encode(), encode(question))
        asyncio.ensure_future(put).add_done_callback(partial(_unless_it_failed, "a question for a share"))


def limits_on(model: str, rates: RateLimiting) -> tuple[RateLimit, ...]:
    """The limits that all partitions have together, on a request for the model."""
    return _limits_on(model, rates.global_rpm, rates.per_model_rpm)


@lru_cache(maxsize=MAX_SHARES)
def _limits_on(model: str, global_rpm: int | None, per_model_rpm: int | None) -> tuple[RateLimit, ...]:
    limits = []
    if global_rpm is not None:
        limits.append(RateLimit("global", global_rpm, "global_requests_per_minute", "All keys together"))
    if per_model_rpm is not None:
        whose = f"All keys together, for {model!r},"
        limits.append(RateLimit(f"model:{model}", per_model_rpm, "model_requests_per_minute", whose))
    return tuple(limits)


def answer_question(source: Log, asked: LeaseAsked, answer: LeaseAnswered) -> None:
    """Tell the asker, whoever owns its partition now."""
    said = source.append(TOPIC, None, encode(answer), partition=asked.partition)
    asyncio.ensure_future(said).add_done_callback(partial(_unless_it_failed, "the answer about a share"))


def _unless_it_failed(what: str, future: asyncio.Future[Position]) -> None:
    """What is not written is asked for again, or counts as spent."""
    if not future.cancelled() and (error := future.exception()) is not None:
        log.error("%s was not written: %s", what, error)
