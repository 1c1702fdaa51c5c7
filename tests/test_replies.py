"""Replies reach their client in order, once, from the newest owner, or the client is told that something is missing."""

import asyncio

import pytest

from tollgate.errors import Refusal
from tollgate.replies import ROOM_BYTES, LocalReplies, Reply, follows, gateway_stopping


def reply(seq, *, epoch=1, body=b"x", last=False):
    return Reply(request_id="r", epoch=epoch, attempt=1, seq=seq, body=body, last=last)


@pytest.mark.parametrize(
    ("coming", "epoch", "taken", "is_what"),
    [
        (reply(0), -1, 0, "next"),
        (reply(1), 1, 1, "next"),
        (reply(0), 1, 1, "stale"),  # delivered twice
        (reply(5, epoch=0), 1, 1, "stale"),  # of an owner that was replaced
        (reply(2), 1, 1, "lost"),
        (reply(0, epoch=2), 1, 0, "next"),  # a successor begins anew: nothing was delivered
        (reply(3, epoch=2), 1, 3, "next"),  # a successor goes on
        (reply(0, epoch=2), 1, 3, "lost"),  # a successor begins anew after content: two answers would be mixed
    ],
)
def test_the_highest_epoch_wins_and_a_gap_is_noticed(coming, epoch, taken, is_what):
    assert follows(coming, epoch=epoch, seq=taken) == is_what


async def test_a_reply_of_a_replaced_owner_is_dropped():
    replies = LocalReplies("a")
    waiter = replies.open("r")
    for coming in (reply(0, epoch=2, body=b"new"), reply(0, epoch=1, body=b"old"), reply(1, epoch=2, body=b"!")):
        replies.send("a", coming)
    assert [(await waiter.get()).body, (await waiter.get()).body] == [b"new", b"!"]


async def test_a_request_is_waited_for_until_its_last_reply_has_come():
    replies = LocalReplies("a")
    replies.open("r")
    replies.send("a", reply(0))
    assert replies.waiting == 1
    replies.send("a", reply(1, last=True))
    assert replies.waiting == 0


async def test_a_gap_is_an_error_to_the_client():
    replies = LocalReplies("a")
    waiter = replies.open("r")
    replies.send("a", reply(0))
    replies.send("a", reply(2))
    with pytest.raises(Refusal, match="lost"):
        await waiter.get()


async def test_who_has_the_whole_answer_is_not_told_by_the_next_owner_that_it_is_lost():
    replies = LocalReplies("a")
    waiter = replies.open("r")
    for coming in (reply(0), reply(1, last=True), reply(0, epoch=2, body=b"lost", last=True)):
        replies.send("a", coming)
    assert [(await waiter.get()).last, (await waiter.get()).last] == [False, True]


async def test_a_stopping_ingress_tells_everybody_who_still_waits():
    replies = LocalReplies("a")
    waiting, answered = replies.open("waits"), replies.open("r")
    replies.send("a", reply(0, last=True))
    replies.give_up(gateway_stopping())
    with pytest.raises(Refusal, match="stopping"):
        await waiting.get()
    assert (await answered.get()).last


async def test_what_is_meant_for_a_former_life_reaches_nobody():
    replies = LocalReplies("a")
    waiter = replies.open("r")
    replies.send("former", reply(0))
    assert waiter.taken == 0
    assert replies.is_waiting("former", "r") is False
    assert replies.is_waiting("a", "r") is True


async def test_the_question_of_an_owner_that_was_replaced_changes_nothing():
    replies = LocalReplies("a")
    waiter = replies.open("r")
    assert replies.probe("a", "r", org_id="o", epoch=2) is True
    replies.send("a", reply(0, epoch=2))
    assert replies.probe("a", "r", org_id="o", epoch=1) is False
    assert replies.probe("a", "r", org_id="o", epoch=2) is False  # delivered twice: the answer is this owner's own
    replies.send("a", reply(1, epoch=2, body=b"!"))
    assert [(await waiter.get()).body, (await waiter.get()).body] == [b"x", b"!"]


async def test_a_client_with_a_part_of_an_answer_is_told_when_a_new_owner_asks():
    replies = LocalReplies("a")
    waiter = replies.open("r")
    replies.send("a", reply(0, epoch=1))
    assert replies.probe("a", "r", org_id="o", epoch=2) is False
    with pytest.raises(Refusal, match="ended within it"):
        await waiter.get()


async def test_what_comes_after_the_last_reply_is_for_nobody():
    """A client that has not read it yet must not be told that it is lost."""
    replies = LocalReplies("a")
    waiter = replies.open("r")
    replies.send("a", Reply(request_id="r", epoch=1, attempt=1, seq=0, body=b"all", last=True))
    replies.send("a", reply(0, epoch=2))
    assert replies.probe("a", "r", org_id="o", epoch=3) is False
    assert (await waiter.get()).body == b"all"


@pytest.mark.parametrize("reads", [True, False])
async def test_there_is_room_again_when_the_client_has_read_or_has_gone(reads):
    replies = LocalReplies("a")
    waiter = replies.open("r")
    await replies.room("a", "r", 0)
    for seq in range(2):
        replies.send("a", reply(seq, body=b"x" * (ROOM_BYTES // 2 + 1)))
    waiting = asyncio.ensure_future(replies.room("a", "r", ROOM_BYTES))
    await asyncio.sleep(0)
    assert not waiting.done()
    if reads:
        await waiter.get()
    else:
        replies.close("r")
    await waiting
    await replies.room("a", "of nobody", ROOM_BYTES)
