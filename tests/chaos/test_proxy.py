"""The proxy passes everything on but the acknowledgements that it is to lose and what it is to hold back."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.chaos.proxy import Proxy
from tests.kafka_broker import HOST, free_port

PRODUCE, METADATA = 0, 3
SHARE_LOST = 0.3


def request(key: int, correlation: int, more: bytes = b"") -> bytes:
    body = key.to_bytes(2, "big") + (9).to_bytes(2, "big") + correlation.to_bytes(4, "big") + more
    return len(body).to_bytes(4, "big") + body


def response(correlation: int) -> bytes:
    body = correlation.to_bytes(4, "big") + b"answer"
    return len(body).to_bytes(4, "big") + body


class Broker:
    """Answers every request with its correlation id, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.serving: set[asyncio.Task[None] | None] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serving.add(asyncio.current_task())
        while size := await reader.read(4):
            body = await reader.readexactly(int.from_bytes(size, "big"))
            self.asked.append(body)
            writer.write(response(int.from_bytes(body[4:8], "big")))
        writer.close()


@pytest.fixture
async def broker() -> AsyncIterator[tuple[Broker, Proxy, int]]:
    broker, port = Broker(), free_port()
    server = await asyncio.start_server(broker.serve, HOST, 0)
    proxy = Proxy(port, server.sockets[0].getsockname()[1], seed=1)
    await proxy.start()
    yield broker, proxy, port
    await proxy.close()
    server.close()
    await asyncio.gather(*(task for task in broker.serving if task is not None))


async def test_everything_is_passed_on_however_it_is_cut(broker):
    _, _, port = broker
    sent = request(PRODUCE, 7, b"x" * 1000) + request(METADATA, 8)
    reader, writer = await asyncio.open_connection(HOST, port)
    for start in range(0, len(sent), 97):
        writer.write(sent[start : start + 97])
        await writer.drain()
        await asyncio.sleep(0)
    expected = response(7) + response(8)
    assert await reader.readexactly(len(expected)) == expected
    writer.close()


async def test_a_lost_acknowledgement_was_earned_and_costs_the_connection(broker):
    behind, proxy, port = broker
    proxy.share = 1.0
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(request(METADATA, 1) + request(PRODUCE, 2, b"record"))
    assert await reader.read() == response(1)  # and then the end
    assert behind.asked[-1].endswith(b"record")
    assert proxy.lost == 1
    writer.close()


async def test_only_the_share_is_lost(broker):
    _, proxy, port = broker
    proxy.share = SHARE_LOST
    answered = 0
    for correlation in range(100):
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(request(PRODUCE, correlation))
        answered += bool(await reader.read(4))
        writer.close()
    assert answered + proxy.lost == 100
    assert 10 < proxy.lost < 60


async def test_what_is_held_back_reaches_the_broker_later(broker):
    behind, proxy, port = broker
    proxy.flows.clear()
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(request(PRODUCE, 1) + request(METADATA, 2))
    await asyncio.sleep(0.05)
    assert behind.asked == []
    proxy.flows.set()
    expected = response(1) + response(2)
    assert await reader.readexactly(len(expected)) == expected
    writer.close()


async def test_where_no_broker_is_the_connection_ends():
    port = free_port()
    proxy = Proxy(port, free_port(), seed=1)
    await proxy.start()
    reader, writer = await asyncio.open_connection(HOST, port)
    assert await reader.read() == b""
    writer.close()
    await proxy.close()
