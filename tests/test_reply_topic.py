"""Replies and data keys between processes, over a log: sealed on the way, for one life of one ingress."""

import asyncio
from contextlib import asynccontextmanager, suppress

from tollgate.errors import LogUnavailable
from tollgate.log.embedded import EmbeddedLog
from tollgate.replies import LocalReplies, Reply
from tollgate.reply_topic import ReplyReader, TopicMailbox, new_address
from tollgate.seal_topic import TopicSeals
from tollgate.sealed import Sealer
from tollgate.secret import Secret
from tollgate.topics import load_topics

ROOT = Secret("a secret of more than 128 bits, really")
NOW_MS = 1_795_000_000_000


@asynccontextmanager
async def beside(work):
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def two_processes(tmp_path):
    """A worker and an ingress that share nothing but the log: (log, mailbox, replies, sealer of each)."""
    log = await EmbeddedLog.open(tmp_path, load_topics())
    theirs, ours = TopicSeals(log), TopicSeals(log)
    ingress, worker = Sealer(ROOT, theirs), Sealer(ROOT, ours)
    replies = LocalReplies(new_address(log, "ingress-1"))
    reader = ReplyReader(log, ingress, replies)
    async with beside(theirs.run()), beside(ours.run()), beside(reader.run(await reader.start())):
        yield log, TopicMailbox(log, worker, LocalReplies(new_address(log, "worker-1"))), replies, ingress, worker
    await log.close()


async def test_an_answer_reaches_the_ingress_sealed_on_its_way(tmp_path):
    async with two_processes(tmp_path) as (log, mailbox, replies, ingress, worker):
        await ingress.prepare("acme", NOW_MS)
        seal, _ = ingress.seal("acme", "r", b"question", NOW_MS)
        assert await worker.wait_for(seal, timeout_s=5)
        waiter = replies.open("r")
        for seq, body in enumerate((b"the secret ", b"answer")):
            mailbox.send(
                replies.address,
                Reply(
                    request_id="r",
                    org_id="acme",
                    seal=seal,
                    epoch=1,
                    attempt=1,
                    seq=seq,
                    body=body,
                    last=seq == 1,
                    status=200 if seq == 0 else None,
                    headers=(("content-type", "text/plain"),),
                    upstream_us=7,
                ),
            )
        first, second = await waiter.get(), await waiter.get()
        assert (first.status, first.body, first.headers, first.upstream_us) == (
            200,
            b"the secret ",
            (("content-type", "text/plain"),),
            7,
        )
        assert (second.body, second.last) == (b"answer", True)
        for partition in range(log.partitions("replies")):
            async for records in log.scan("replies", partition, 0):
                assert all(b"secret" not in record.value for record in records)


async def test_a_process_gives_itself_replies_without_the_topic(tmp_path):
    async with two_processes(tmp_path) as (log, _, replies, ingress, _worker):
        waiter = replies.open("r")
        mailbox = TopicMailbox(log, ingress, replies)
        mailbox.send(replies.address, Reply(request_id="r", epoch=1, attempt=1, seq=0, status=200, last=True))
        assert (await waiter.get()).status == 200
        assert set((await log.ends("replies")).values()) == {0}
        assert mailbox.is_waiting(replies.address, "r") is True
        assert mailbox.is_waiting("0/other/life", "r") is None


async def test_what_was_sent_has_arrived_when_it_is_durable_or_lost():
    appended: list[asyncio.Future[None]] = []

    class SlowLog:
        def append(self, *args, **facts):
            appended.append(asyncio.get_running_loop().create_future())
            return appended[-1]

    mailbox = TopicMailbox(SlowLog(), None, LocalReplies("0/worker-1/life"))
    for address in ("0/ingress-1/life", "0/ingress-1/life", "1/ingress-2/life"):
        mailbox.send(address, Reply(request_id="r", epoch=1, attempt=1, seq=0, status=200))
    arrived = [asyncio.create_task(mailbox.arrived(*address)) for address in (["0/ingress-1/life"], [])]
    await mailbox.arrived("2/ingress-3/life")  # nothing was sent there
    await mailbox.arrived("0/worker-1/life")  # nor does anything leave this process
    appended[0].set_result(None)
    await asyncio.sleep(0.01)
    assert [task.done() for task in arrived] == [False, False]
    appended[1].set_exception(LogUnavailable("it is away"))
    await asyncio.sleep(0.01)
    assert [task.done() for task in arrived] == [True, False]
    appended[2].set_result(None)
    await asyncio.gather(*arrived)


async def test_what_cannot_be_read_on_the_topic_disturbs_nobody(tmp_path):
    async with two_processes(tmp_path) as (log, mailbox, replies, _, _worker):
        partition = int(replies.address.split("/")[0])
        await log.append("replies", None, b"garbage", partition=partition)
        waiter = replies.open("r")
        mailbox.send(replies.address, Reply(request_id="r", epoch=1, attempt=1, seq=0, status=200, last=True))
        assert (await waiter.get()).last


async def test_a_deleted_data_key_is_gone_for_every_process(tmp_path):
    async with two_processes(tmp_path) as (_log, _, _replies, ingress, worker):
        await ingress.prepare("acme", NOW_MS)
        seal, body = ingress.seal("acme", "r", b"question", NOW_MS)
        assert await worker.wait_for(seal, timeout_s=5)
        assert worker.open(seal, "acme", "r", body) == b"question"
        ingress.expire(NOW_MS + 7_200_000, keep_ms=0)
        worker.expire(NOW_MS + 7_200_000, keep_ms=0)
        assert not worker.knows(seal)
        assert not await worker.wait_for(seal, timeout_s=0.05)


async def test_a_late_process_finds_the_keys_that_were_made_before(tmp_path):
    async with two_processes(tmp_path) as (log, _, _replies, ingress, _worker):
        await ingress.prepare("acme", NOW_MS)
        seal, body = ingress.seal("acme", "r", b"question", NOW_MS)
        late = TopicSeals(log)
        await late.catch_up()
        assert Sealer(ROOT, late).open(seal, "acme", "r", body) == b"question"
