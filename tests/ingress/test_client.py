"""Clients that go, stop reading or wait in vain are noticed, and what is done for them is cancelled at once."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.ingress.support import (
    ANTHROPIC_BODY,
    BODIES,
    CHAT,
    MESSAGES,
    OPENAI_BODY,
    Client,
    Connection,
    Gateway,
    Worker,
    begin_to_stream,
    stay_silent,
)
from tollgate.errors import AppendUnknown, LogUnavailable
from tollgate.events import CancelRequested, RequestAccepted, decode
from tollgate.ingress import client as client_module
from tollgate.replies import MAX_UNREAD_BYTES

NOW_MS = 1_800_000_000_000


@pytest.fixture
def client(gateway: Gateway) -> Client:
    return gateway.bearer("acme")


async def only_cancel(gateway: Gateway) -> str:
    """The reason of the one cancellation, once it has been written."""
    async with asyncio.timeout(5):
        await gateway.worker.cancel_came.wait()
    (cancel,) = gateway.worker.cancelled
    assert cancel.request_id == gateway.worker.accepted[0].request.request_id
    return cancel.reason


def counted(gateway: Gateway, name: str, **labels: str) -> float | None:
    return gateway.door.registry.get_sample_value(name, labels)


# Gone ----------------------------------------------------------------------------------------------------------------


async def test_who_hangs_up_before_the_answer_has_the_request_cancelled(gateway: Gateway, client: Client):
    gateway.worker.script = stay_silent
    connection, call = client.begin(CHAT, OPENAI_BODY)
    await gateway.worker.request_came.wait()
    connection.hang_up()
    response = await call
    assert response.status == 0
    assert await only_cancel(gateway) == "client disconnected"
    assert counted(gateway, "tollgate_http_requests_total", route=CHAT, status="499") == 1
    assert counted(gateway, "tollgate_http_cancelled_total", reason="client disconnected") == 1


async def test_who_hangs_up_in_a_stream_has_it_cancelled(gateway: Gateway, client: Client):
    gateway.worker.script = begin_to_stream
    connection, call = client.begin(CHAT, OPENAI_BODY | {"stream": True})
    await connection.started.wait()
    connection.hang_up()
    await call
    assert await only_cancel(gateway) == "client disconnected"


async def test_a_cancellation_is_behind_its_request_on_the_log(gateway: Gateway, client: Client):
    gateway.worker.script = stay_silent
    connection, call = client.begin(CHAT, OPENAI_BODY)
    connection.hang_up()  # before anything was written
    await call
    await only_cancel(gateway)
    assert [type(event).__name__ for event in await gateway.records("requests")] == [
        "RequestAccepted",
        "CancelRequested",
    ]


async def test_replies_for_who_has_gone_are_dropped(gateway: Gateway, client: Client):
    gateway.worker.script = stay_silent
    connection, call = client.begin(CHAT, OPENAI_BODY)
    await gateway.worker.request_came.wait()
    connection.hang_up()
    await call
    (event,) = gateway.worker.accepted
    gateway.worker.reply(event, b"late")
    assert gateway.door.replies.is_waiting("ingress-1", event.request.request_id) is False


async def test_who_hangs_up_while_sending_has_asked_for_nothing(gateway: Gateway, client: Client):
    connection = Connection([b'{"model": '], sends_on=True)
    call = asyncio.ensure_future(client.call("POST", CHAT, client.head(b"x"), connection))
    await asyncio.sleep(0)
    connection.hang_up()
    await call
    assert await gateway.records("requests") == []


async def test_an_answered_request_is_not_cancelled(gateway: Gateway, client: Client):
    await client.request("POST", CHAT, OPENAI_BODY)
    await asyncio.sleep(0.01)
    assert gateway.worker.cancelled == []


# Slow ----------------------------------------------------------------------------------------------------------------


async def test_who_reads_nothing_is_cut_off_when_too_much_has_gathered(gateway: Gateway, client: Client):
    gateway.worker.script = begin_to_stream
    connection, call = client.begin(CHAT, OPENAI_BODY | {"stream": True})
    await connection.started.wait()
    connection.stop_reading()
    (event,) = gateway.worker.accepted
    piece = b"data: " + b"x" * 100_000
    for seq in range(1, 3 + MAX_UNREAD_BYTES // len(piece)):
        assert not connection.aborted
        gateway.worker.reply(event, piece, seq=seq, last=False)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert connection.aborted
    await call
    assert await only_cancel(gateway) == "client reads too slowly"


async def begin_to_speak(worker: Worker, event: RequestAccepted) -> None:
    worker.reply(event, b"sound", last=False, headers=(("content-type", "audio/mpeg"),))


@pytest.mark.parametrize("lost", [False, True])
async def test_sound_that_breaks_off_ends_with_its_connection_and_not_with_words(
    gateway: Gateway, client: Client, lost: bool
):
    gateway.worker.script = begin_to_speak
    connection, call = client.begin(CHAT, OPENAI_BODY)
    await connection.started.wait()
    if lost:
        gateway.worker.reply(gateway.worker.accepted[0], b"more", seq=5, last=False)
    else:
        gateway.worker.reply(gateway.worker.accepted[0], b"", seq=1, status=502)
    response = await call
    assert connection.aborted
    assert (response.body, response.ended) == (b"sound", False)


async def test_who_takes_too_long_for_one_piece_is_cut_off(
    gateway: Gateway, client: Client, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(client_module, "SEND_DEADLINE_S", 0.01)
    gateway.worker.script = begin_to_stream
    connection, call = client.begin(CHAT, OPENAI_BODY | {"stream": True})
    await connection.started.wait()
    connection.stop_reading()
    gateway.worker.reply(gateway.worker.accepted[0], b"data: two\n\n", seq=1, last=False)
    await call
    assert connection.aborted
    assert await only_cancel(gateway) == "client reads too slowly"


async def test_much_at_once_is_not_behind_for_who_reads(gateway: Gateway, client: Client):
    async def answer(worker: Worker, event: RequestAccepted) -> None:
        for seq in range(4):
            worker.reply(event, b"x" * MAX_UNREAD_BYTES, seq=seq, last=seq == 3)

    gateway.worker.script = answer
    response = await client.request("POST", CHAT, OPENAI_BODY | {"stream": True})
    assert len(response.body) == 4 * MAX_UNREAD_BYTES
    assert gateway.worker.cancelled == []


# In vain -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", BODIES)
async def test_who_has_waited_past_the_deadline_is_told_so(
    make_gateway: Any, path: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(client_module, "DEADLINE_GRACE_S", 0)
    gateway = await make_gateway(request_deadline_s=0.05)
    gateway.worker.script = stay_silent
    response = await gateway.bearer("acme").request("POST", path, BODIES[path])
    assert (response.status, response.error["code"]) == (504, "deadline_exceeded")
    assert await only_cancel(gateway) == "deadline passed without an end"


@pytest.mark.parametrize(
    ("path", "body", "begins"),
    [(CHAT, OPENAI_BODY, b'data: {"error":'), (MESSAGES, ANTHROPIC_BODY, b'event: error\ndata: {"type":"error"')],
)
async def test_a_stream_past_its_deadline_ends_with_the_dialects_own_error(
    make_gateway: Any, path: str, body: Any, begins: bytes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(client_module, "DEADLINE_GRACE_S", 0)
    gateway = await make_gateway(request_deadline_s=0.6)
    gateway.worker.script = begin_to_stream
    response = await gateway.bearer("acme").request("POST", path, body | {"stream": True})
    assert response.ended
    assert response.pieces[0] == b"data: one\n\n"
    assert response.pieces[1].startswith(begins)


class BrokenLog:
    """Fails every append as told."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def partition_for(self, topic: str, key: bytes) -> int:
        return 0

    def earliest_ms(self, topic: str, partition: int) -> int | None:
        return None

    def append(self, *args: Any, **kwargs: Any) -> "asyncio.Future[Any]":
        appended = asyncio.get_running_loop().create_future()
        appended.set_exception(self._error)
        return appended


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    ("error", "status", "retry_after"), [(LogUnavailable("full"), 503, "1"), (AppendUnknown("who knows"), 500, None)]
)
async def test_what_cannot_be_written_is_not_accepted(
    gateway: Gateway, path: str, error: Exception, status: int, retry_after: str | None
):
    object.__setattr__(gateway.door, "log", BrokenLog(error))
    response = await gateway.bearer("acme").request("POST", path, BODIES[path])
    assert (response.status, response.headers.get("retry-after")) == (status, retry_after)
    assert response.error["message"]


class QuietLog:
    """Takes what it is given, and acknowledges it or does not."""

    def __init__(self, *, acknowledges: bool, now_ms: int | None = None) -> None:
        self.given: list[tuple[Any, ...]] = []
        self._acknowledges = acknowledges
        self._now_ms = now_ms

    def partition_for(self, topic: str, key: bytes) -> int:
        return 3

    def earliest_ms(self, topic: str, partition: int) -> int | None:
        assert (topic, partition) == ("requests", 3)
        return self._now_ms

    def append(self, *args: Any, **kwargs: Any) -> "asyncio.Future[Any]":
        assert not kwargs.get("linger"), "its owner waits to read it, where it is another process"
        self.given.append(args)
        appended = asyncio.get_running_loop().create_future()
        if self._acknowledges:
            appended.set_result(None)
        return appended


@pytest.mark.parametrize("path", BODIES)
async def test_what_the_log_does_not_acknowledge_in_time_is_refused_and_cancelled_right_behind(
    gateway: Gateway, path: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(client_module, "ACCEPT_PATIENCE_S", 0.05)
    silent = QuietLog(acknowledges=False)
    object.__setattr__(gateway.door, "log", silent)
    response = await gateway.bearer("acme").request("POST", path, BODIES[path])
    assert (response.status, response.headers["retry-after"]) == (503, "1")
    assert response.error["message"].endswith("so it was not accepted. Try again.")
    (topic, key, accepted), (cancelled_topic, cancelled_key, cancelled) = silent.given
    assert (topic, key) == (cancelled_topic, cancelled_key) == ("requests", b"acme"), "one partition, in this order"
    request, cancel = decode(accepted), decode(cancelled)
    assert isinstance(request, RequestAccepted) and isinstance(cancel, CancelRequested)
    assert cancel.request_id == request.request.request_id


@pytest.mark.parametrize(("now_ms", "void_after_ms"), [(NOW_MS, NOW_MS + 4_999), (None, 0)])
async def test_a_request_says_from_when_in_the_time_of_the_log_its_client_has_been_refused(
    gateway: Gateway, client: Client, now_ms: int | None, void_after_ms: int
):
    log = QuietLog(acknowledges=True, now_ms=now_ms)
    object.__setattr__(gateway.door, "log", log)
    connection, call = client.begin(CHAT, OPENAI_BODY)
    await asyncio.sleep(0)
    connection.hang_up()
    await call
    request = decode(log.given[0][2])
    assert isinstance(request, RequestAccepted) and request.void_after_ms == void_after_ms


async def test_what_the_log_has_acknowledged_is_waited_for_as_long_as_it_takes(
    gateway: Gateway, client: Client, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(client_module, "ACCEPT_PATIENCE_S", 0.05)
    log = QuietLog(acknowledges=True)
    object.__setattr__(gateway.door, "log", log)
    connection, call = client.begin(CHAT, OPENAI_BODY)
    await asyncio.sleep(0.2)
    connection.hang_up()
    await call
    cancel = decode(log.given[1][2])
    assert isinstance(cancel, CancelRequested) and cancel.reason == "client disconnected"


async def test_a_cancellation_that_cannot_be_written_is_counted(gateway: Gateway, client: Client):
    gateway.worker.script = stay_silent
    connection, call = client.begin(CHAT, OPENAI_BODY)
    await gateway.worker.request_came.wait()
    object.__setattr__(gateway.door, "log", BrokenLog(LogUnavailable("full")))
    connection.hang_up()
    await call
    await asyncio.sleep(0)
    reason = "the cancellation could not be written"
    assert counted(gateway, "tollgate_http_cancelled_total", reason=reason) == 1


async def test_a_disk_that_takes_no_key_accepts_no_request(gateway: Gateway, client: Client, tmp_path: Path):
    for folder in tmp_path.glob("*/seals"):
        folder.rmdir()
    response = await client.request("POST", CHAT, OPENAI_BODY)
    assert (response.status, response.headers["retry-after"]) == (503, "1")
    assert await gateway.records("requests") == []


async def test_a_beginning_that_was_lost_is_an_error_and_no_half_answer(gateway: Gateway, client: Client):
    async def lose_the_first(worker: Worker, event: RequestAccepted) -> None:
        worker.reply(event, b"second", seq=1)

    gateway.worker.script = lose_the_first
    response = await client.request("POST", CHAT, OPENAI_BODY)
    assert (response.status, orjson.loads(response.body)["error"]["code"]) == (502, "answer_lost")
    assert await only_cancel(gateway) == "a part of the answer was lost"  # or else it would be paid for to its end
