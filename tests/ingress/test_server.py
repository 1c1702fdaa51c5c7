"""What leaves in one packet."""

import asyncio

import pytest

from tollgate.ingress.server import _HeadWithBody

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


class Sent(asyncio.Transport):
    """A transport that notes each write, as one packet."""

    def __init__(self) -> None:
        super().__init__()
        self.packets: list[bytes] = []
        self.closed = False

    def write(self, data) -> None:
        assert not self.closed
        self.packets.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.fixture
async def transport(sent):
    return _HeadWithBody(sent, asyncio.get_running_loop())


async def turn_of_the_loop() -> None:
    await asyncio.sleep(0)


async def test_a_head_leaves_with_its_body_and_later_pieces_by_themselves(sent, transport):
    for data in (HEAD, b"a", b"b"):
        transport.write(data)
    await turn_of_the_loop()

    assert sent.packets == [HEAD + b"a", b"b"]


async def test_a_head_whose_body_is_late_does_not_wait_for_it(sent, transport):
    transport.write(HEAD)
    await turn_of_the_loop()
    transport.write(b"a")

    assert sent.packets == [HEAD, b"a"]


async def test_nothing_is_lost_when_an_interim_answer_goes_before_the_head(sent, transport):
    go_on = b"HTTP/1.1 100 Continue\r\n\r\n"
    for data in (go_on, HEAD, b"a"):
        transport.write(data)

    assert b"".join(sent.packets) == go_on + HEAD + b"a"


async def test_closing_sends_a_head_that_was_kept_back(sent, transport):
    transport.write(HEAD)
    transport.close()
    await turn_of_the_loop()

    assert (sent.packets, transport.is_closing()) == ([HEAD], True)
