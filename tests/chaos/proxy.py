"""A TCP proxy before a broker. It loses acknowledgements: the record is on the log, and its writer is not told. Or it
holds back what is asked, so that records reach the log late.

It knows of Kafka's protocol what that takes (kafka.apache.org/protocol): a frame is four bytes of length and so much
more; a request begins with api key (2 bytes), version (2) and correlation id (4), a response with the correlation id.
Responses on one connection come in the order of the requests.
"""

import asyncio
import random
import struct

from tests.kafka_broker import HOST

PRODUCE = 0


class Proxy:
    """Passes everything on, except for `share` of the answers to produce requests: it cuts the connection instead.

    While `flows` is not set, nothing goes to the broker; it goes on later.
    """

    def __init__(self, port: int, broker_port: int, seed: int) -> None:
        self.share = 0.0
        self.lost = 0
        self.flows = asyncio.Event()
        self.flows.set()
        self._port = port
        self._broker_port = broker_port
        self._chance = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Return when it listens."""
        self._server = await asyncio.start_server(self._connected, HOST, self._port)

    async def close(self) -> None:
        """Listen no longer, and cut what is open."""
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _connected(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._serve(client, to_client))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            broker, to_broker = await asyncio.open_connection(HOST, self._broker_port)
        except OSError:
            to_client.close()
            return
        produced: set[bytes] = set()
        directions = [
            asyncio.create_task(self._requests(client, to_broker, produced)),
            asyncio.create_task(self._responses(broker, to_client, produced)),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
            to_client.close()
            to_broker.close()

    async def _requests(
        self, client: asyncio.StreamReader, to_broker: asyncio.StreamWriter, produced: set[bytes]
    ) -> None:
        while True:
            frame = await _frame(client)
            key, _ = struct.unpack_from(">hh", frame, 4)
            if key == PRODUCE:
                produced.add(frame[8:12])
            await self.flows.wait()
            to_broker.write(frame)
            await to_broker.drain()

    async def _responses(
        self, broker: asyncio.StreamReader, to_client: asyncio.StreamWriter, produced: set[bytes]
    ) -> None:
        while True:
            frame = await _frame(broker)
            if frame[4:8] in produced:
                produced.discard(frame[4:8])
                if self._chance.random() < self.share:
                    self.lost += 1
                    return
            to_client.write(frame)
            await to_client.drain()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    """The next frame, whole, its length included. Raises `IncompleteReadError` at the end."""
    size = await reader.readexactly(4)
    return size + await reader.readexactly(int.from_bytes(size, "big"))
