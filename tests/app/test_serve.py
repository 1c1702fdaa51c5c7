"""The process around the gateway."""

import asyncio
import gc
import os
import signal
from contextlib import asynccontextmanager

import pytest

from tollgate.app import serve
from tollgate.config import load_config
from tollgate.secret import Secret, Secrets

STEPS: list[str] = []  # of the stop, in order
SECRETS = Secrets(Secret("an admin key"), Secret("a secret"))


class Stages:
    """A gateway with nothing in it."""

    async def application(self, scope, receive, send) -> None:
        raise AssertionError("nobody asks for anything")

    @asynccontextmanager
    async def started(self):
        yield

    def discourage_new(self, reason: str) -> None:
        STEPS.append("discourage")

    def refuse_new(self, reason: str) -> None:
        STEPS.append("refuse")

    def interrupt(self) -> None:
        pass


@pytest.fixture
def stages(monkeypatch):
    STEPS.clear()

    @asynccontextmanager
    async def open_gateway(*_: object, **__: object):
        yield Stages()

    monkeypatch.setattr(serve, "open_gateway", open_gateway)


async def serving(tmp_path, config=None) -> int:
    return await serve._serve(
        config or load_config(None, {}),
        role="all",
        data=tmp_path,
        host="127.0.0.1",
        port=0,
        instance="main",
        secrets=SECRETS,
    )


async def test_the_collector_spares_what_the_start_has_made_until_the_process_stops(tmp_path, stages, monkeypatch):
    ready = asyncio.Event()
    monkeypatch.setattr(serve, "_greet", lambda *_: ready.set())
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
