"""The process around the gateway."""

import asyncio
import gc
import os
import signal
from contextlib import asynccontextmanager

import pytest

from tollgate.app import serve
from tollgate.app.listen import bind
from tollgate.config import load_config
from tollgate.secret import Secret, Secrets

STEPS: list[str] = []  # of the stop, in order
SECRETS = Secrets(Secret("an admin key"), Secret("a secret"))


class Stages:
    """A gateway with nothing in it."""

    requests_under_way = 0

    def __init__(self) -> None:
        self.interrupted = asyncio.Event()

    async def application(self, scope, receive, send) -> None:
        """What is asked is under way until it is interrupted."""
        self.requests_under_way += 1
        STEPS.append("ask")
        await self.interrupted.wait()
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    @asynccontextmanager
    async def started(self):
        yield

    def discourage_new(self, reason: str) -> None:
        STEPS.append("discourage")

    def refuse_new(self, reason: str) -> None:
        STEPS.append("refuse")

    def reload(self) -> None:
        STEPS.append("reload")

    def interrupt(self) -> None:
        STEPS.append("interrupt")
        self.interrupted.set()


@pytest.fixture
def stages(monkeypatch):
    STEPS.clear()

    @asynccontextmanager
    async def open_gateway(*_: object, **__: object):
        yield Stages()

    monkeypatch.setattr(serve, "open_gateway", open_gateway)


async def serving(tmp_path, config=None) -> int:
    with bind("127.0.0.1", 0) as sockets:
        return await serve._serve(
            config or load_config(None, {}),
            role="all",
            data=tmp_path,
            sockets=sockets,
            instance="main",
            secrets=SECRETS,
        )


async def test_the_collector_spares_what_the_start_has_made_until_the_process_stops(tmp_path, stages, monkeypatch):
    ready = asyncio.Event()
    monkeypatch.setattr(serve, "_greet", lambda *_: ready.set())
    gc.unfreeze()  # what the tests have imported: at its end the process forgets all that it spared
    thresholds, frozen = gc.get_threshold(), gc.get_freeze_count()

    running = asyncio.create_task(serving(tmp_path))
    await ready.wait()
    assert gc.get_freeze_count() > frozen
    assert gc.get_threshold() == serve.COLLECT_AFTER
    os.kill(os.getpid(), signal.SIGTERM)

    assert await running == 0
    assert (gc.get_threshold(), gc.get_freeze_count()) == (thresholds, frozen)


async def test_a_gateway_that_leaves_is_not_ready_for_a_while_before_it_refuses(tmp_path, stages, monkeypatch):
    ready = asyncio.Event()
    monkeypatch.setattr(serve, "_greet", lambda *_: ready.set())
    path = tmp_path / "gateway.yaml"
    path.write_text("server: {leave_s: 0.2}")
    running = asyncio.create_task(serving(tmp_path, load_config(path, {})))
    await ready.wait()

    os.kill(os.getpid(), signal.SIGTERM)
    while not STEPS:
        await asyncio.sleep(0.01)
    assert STEPS == ["discourage"]
    assert await running == 0
    assert STEPS == ["discourage", "refuse"]


async def test_sighup_has_the_configuration_read_again_and_ends_nothing(tmp_path, stages, monkeypatch):
    ready = asyncio.Event()
    monkeypatch.setattr(serve, "_greet", lambda *_: ready.set())
    running = asyncio.create_task(serving(tmp_path))
    await ready.wait()
    os.kill(os.getpid(), signal.SIGHUP)
    while not STEPS:
        await asyncio.sleep(0.01)
    assert STEPS == ["reload"]
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running == 0


async def test_sighup_of_a_terminal_that_was_closed_ends_the_process(tmp_path, stages, monkeypatch):
    ready = asyncio.Event()
    monkeypatch.setattr(serve, "_greet", lambda *_: ready.set())
    terminal = [True]
    monkeypatch.setattr(serve, "_has_terminal", lambda: terminal[0])
    running = asyncio.create_task(serving(tmp_path))
    await ready.wait()
    terminal[0] = False
    os.kill(os.getpid(), signal.SIGHUP)
    assert await running == 0
    assert "reload" not in STEPS


async def test_a_second_signal_ends_the_patience(tmp_path, stages, monkeypatch):
    ready = asyncio.Event()
    monkeypatch.setattr(serve, "_greet", lambda *_: ready.set())
    path = tmp_path / "gateway.yaml"
    path.write_text("server: {leave_s: 3600}")
    running = asyncio.create_task(serving(tmp_path, load_config(path, {})))
    await ready.wait()

    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.05)
    assert await running == 0


async def test_who_stops_it_is_told_what_it_waits_for_and_ends_that_by_a_second_signal(
    tmp_path, stages, monkeypatch, capsys
):
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    monkeypatch.setattr(serve, "_greet", lambda at, *_: url.set_result(at))
    path = tmp_path / "gateway.yaml"
    path.write_text("server: {leave_s: 0, drain_s: 3600}")
    running = asyncio.create_task(serving(tmp_path, load_config(path, {})))
    host, port = (await url).removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    while "ask" not in STEPS:
        await asyncio.sleep(0.01)

    os.kill(os.getpid(), signal.SIGINT)
    while "refuse" not in STEPS:
        await asyncio.sleep(0.01)
    assert capsys.readouterr().err == (
        "waiting for 1 request under way, up to 3600 s; press Ctrl-C again to end it now\n"
    )
    os.kill(os.getpid(), signal.SIGINT)
    assert (await reader.readline()).startswith(b"HTTP/1.1 503")
    writer.close()
    assert await running == 0
    assert STEPS == ["ask", "discourage", "refuse", "interrupt"]


def test_several_are_waited_for_in_the_plural():
    assert serve._patience(2, 0.5) == (
        "waiting for 2 requests under way, up to 0.5 s; press Ctrl-C again to end them now"
    )
