"""Speech goes through as it comes: no more is held than its client has left unread, and its end waits for the books."""

import asyncio
from contextlib import suppress

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.serving import serve
from tests.test_one_request import events
from tollgate.app.gateway import open_gateway
from tollgate.config import load_config
from tollgate.events import Ended, Usage
from tollgate.money import PUSD_PER_USD
from tollgate.processors.call import ROOM_EVERY_BYTES
from tollgate.replies import MAX_UNREAD_BYTES
from tollgate.secret import first_run_secrets

BODY = {"model": "tts", "input": "Hello", "voice": "alloy"}
PIECE = b"x" * ROOM_EVERY_BYTES


class Speaker:
    """A provider that speaks piece by piece, each when it is told to; it goes on for ever or breaks off."""

    def __init__(self):
        self.go_on = asyncio.Semaphore(0)
        self.ends = asyncio.Event()
        self.sent = 0
        self.cut = False

    async def speak(self, request):
        response = web.StreamResponse(headers={"content-type": "audio/mpeg"})
        await response.prepare(request)
        with suppress(ConnectionError):
            while True:
                await self.go_on.acquire()
                if self.cut:
                    request.transport.abort()
                    return response
                if self.ends.is_set():
                    break
                await response.write(PIECE)
                self.sent += len(PIECE)
        await response.write_eof()
        return response


@pytest.fixture
async def place(tmp_path, monkeypatch):
    """The speaker, how it is asked, and the gateway's log."""
    monkeypatch.chdir(tmp_path)
    speaker = Speaker()
    app = web.Application()
    app.router.add_post("/v1/audio/speech", speaker.speak)
    secrets = first_run_secrets(tmp_path, {}, embedded=True)
    (tmp_path / "pricing.yaml").write_text('models: {"p/tts": {input: 0, output: 0, characters: 15}}')
    async with TestServer(app) as server:
        (tmp_path / "gateway.yaml").write_text(
            f"providers: {{p: {{protocol: openai, base_url: '{server.make_url('/v1')}', models: [tts]}}}}"
        )
        config = load_config(tmp_path / "gateway.yaml", {})
        async with (
            open_gateway(config, data=tmp_path, instance="t", secrets=secrets, fatal=pytest.fail) as gateway,
            gateway.started(),
            serve(gateway.application) as url,
            aiohttp.ClientSession(headers={"authorization": f"Bearer {secrets.admin_key.reveal()}"}) as session,
        ):
            yield speaker, lambda: session.post(f"{url}/v1/audio/speech", json=BODY), gateway.log


async def end_of(log):
    async with asyncio.timeout(10):
        while not (found := [event for event in await events(log, "completions") if isinstance(event, Ended)]):
            await asyncio.sleep(0.01)
    return found[0]


COST_PUSD = 5 * 15 * PUSD_PER_USD // 10**6


async def test_the_first_of_it_is_heard_before_the_last_is_spoken(place):
    speaker, ask, log = place
    speaker.go_on.release()
    async with ask() as answer:
        assert (answer.status, answer.headers["content-type"]) == (200, "audio/mpeg")
        first = await answer.content.readexactly(len(PIECE) - 1)
        assert not await events_of_the_end(log)
        speaker.ends.set()
        speaker.go_on.release()
        assert first + await answer.read() == PIECE

    end = await end_of(log)
    assert (end.status, end.bill_pusd) == ("completed", COST_PUSD)
    assert (end.attempts[0].usage, end.attempts[0].usage_source) == (Usage(characters=5), "provider")


async def events_of_the_end(log):
    return [event for event in await events(log, "completions") if isinstance(event, Ended)]


async def test_who_listens_slowly_is_neither_cut_off_nor_run_ahead_of(place):
    speaker, ask, log = place
    pieces = 4 * MAX_UNREAD_BYTES // len(PIECE)
    for _ in range(pieces):
        speaker.go_on.release()
    async with ask() as answer:
        heard = 0
        while heard < pieces * len(PIECE) - 1:
            heard += len(await answer.content.readany())
            await asyncio.sleep(0.002)
        speaker.ends.set()
        speaker.go_on.release()
        assert heard + len(await answer.read()) == pieces * len(PIECE)
    assert (await end_of(log)).status == "completed"


async def test_what_breaks_off_is_not_taken_for_whole(place):
    speaker, ask, log = place
    speaker.go_on.release()
    async with ask() as answer:
        await answer.content.readexactly(len(PIECE) - 1)
        speaker.cut = True
        speaker.go_on.release()
        with pytest.raises(aiohttp.ClientError):
            await answer.read()

    end = await end_of(log)
    attempt = end.attempts[0]
    assert (end.status, end.bill_pusd, attempt.outcome) == ("failed", 0, "cut")
    assert (attempt.usage_source, sum(line.cost_pusd for line in attempt.lines)) == ("estimated", COST_PUSD)


async def test_who_hangs_up_pays_for_what_was_begun_and_the_provider_is_cut(place):
    speaker, ask, log = place
    speaker.go_on.release()
    async with ask() as answer:
        await answer.content.readexactly(10)
        answer.close()

    end = await end_of(log)
    assert (end.status, end.attempts[0].usage_source) == ("cancelled", "estimated")
    assert end.bill_pusd == COST_PUSD
