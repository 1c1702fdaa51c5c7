"""An ingress over the embedded log, with a fake worker behind it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import uvloop
from prometheus_client import CollectorRegistry

from tests.ingress.support import SECRETS, Gateway, Worker, config, stop
from tollgate.control import Control, follow_control
from tollgate.freshness import Freshness
from tollgate.ingress.app import create_ingress
from tollgate.ingress.door import Door, wall_clock_ms
from tollgate.log.embedded import EmbeddedLog
from tollgate.replies import LocalReplies
from tollgate.sealed import FolderSeals, Sealer
from tollgate.topics import load_topics


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that serves in production: it buffers, closes and orders things in its own way."""
    return {"uvloop": uvloop.new_event_loop}


MakeGateway = Callable[..., Awaitable[Gateway]]


@pytest.fixture
async def make_gateway(tmp_path: Path) -> AsyncIterator[MakeGateway]:
    """Makes a gateway with other settings of the server than the default ones."""
    async with AsyncExitStack() as stack:

        async def make(
            not_ready: Callable[[], list[str]] = list, freshness: Freshness | None = None, **server: Any
        ) -> Gateway:
            folder = tmp_path / f"data-{len(list(tmp_path.iterdir()))}"
            log = await EmbeddedLog.open(folder / "log", load_topics(), durability="process")
            stack.push_async_callback(log.close)
            control = Control()
            sealer = Sealer(SECRETS.secret, FolderSeals(folder / "seals"))
            replies = LocalReplies("ingress-1")
            clock = [0]
            door = Door(
                config=config(**server),
                log=log,
                replies=replies,
                control=control,
                sealer=sealer,
                secrets=SECRETS,
                registry=CollectorRegistry(),
                freshness=freshness or Freshness.always(),
                not_ready=not_ready,
                now_ms=lambda: wall_clock_ms() + clock[0],
            )
            worker = Worker(log, replies, control, sealer, door.now_ms)
            for running in (follow_control(log, control), worker.run()):
                stack.push_async_callback(stop, asyncio.create_task(running))
            gateway = Gateway(door, create_ingress(door), log, control, worker, clock, {})
            for org_id in ("acme", "other"):
                gateway.tokens[org_id] = await gateway.give_key(org_id)
            return gateway

        yield make


@pytest.fixture
async def gateway(make_gateway: MakeGateway) -> Gateway:
    return await make_gateway()
