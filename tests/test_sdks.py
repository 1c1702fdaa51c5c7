"""The official clients, unchanged, against a running gateway: each endpoint, unary and streaming, in step and async."""

import asyncio
import base64
import io
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
import uvicorn

from tollgate.app.gateway import Gateway, open_gateway
from tollgate.config import load_config
from tollgate.ingress.server import server_config
from tollgate.secret import first_run_secrets
from tollgate.sinks.sql import open_sql
from tollgate.tokenizer import count

# The clients say so of a service that is there
pytestmark = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")

INPUT = "Hello, who is there?"
PROVIDERS = ["sandbox", "sandbox-anthropic/sandbox", "sandbox-responses/sandbox"]


class Running:
    """A gateway with its address and a key."""

    def __init__(self, gateway: Gateway, url: str, key: str, data: Path) -> None:
        self.data = data
        self.gateway = gateway
        self.key = key
        self.openai = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
        self.anthropic = anthropic.AsyncAnthropic(base_url=url, api_key=key, max_retries=0)
        self.url = url

    async def in_step(self, use: Callable[[openai.OpenAI], Any]) -> Any:
        """What the blocking client does, beside the gateway's loop."""
        with openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.key, max_retries=0) as client:
            return await asyncio.to_thread(use, client)


@pytest.fixture
async def running(tmp_path) -> AsyncIterator[Running]:
    secrets = first_run_secrets(tmp_path, {}, embedded=True)
    config = load_config(None, {})
    async with open_gateway(config, data=tmp_path, instance="test", secrets=secrets, fatal=pytest.fail) as gateway:
        async with gateway.started():
            with socket.create_server(("127.0.0.1", 0)) as listener:
                server = uvicorn.Server(server_config(gateway.application, host="127.0.0.1", port=0))
                serving = asyncio.create_task(server.serve(sockets=[listener]))
                url = f"http://127.0.0.1:{listener.getsockname()[1]}"
                found = Running(gateway, url, secrets.admin_key.reveal(), tmp_path)
                yield found
                await found.openai.close()
                await found.anthropic.close()
                server.should_exit = True
                await serving
        books = await open_sql(tmp_path, gateway.log)
        rows = books.execute(
            "select count(*), count(distinct request_id), bool_and(status in ('completed', 'failed')) from usage"
        )
        count, distinct, ended = rows.fetchall()[0]
        assert count == distinct > 0
        assert ended


# Responses ----------------------------------------------------------------------------------------------------------


async def test_responses(running: Running):
    for model in PROVIDERS:
        answer = await running.openai.responses.create(model=model, input=INPUT, instructions="Be brief.")

        assert answer.status == "completed"
        assert answer.output_text.endswith(".")
        assert answer.usage is not None and answer.usage.total_tokens > 0
        assert answer.tollgate["attempts"] == 1  # type: ignore[attr-defined]


async def test_responses_as_a_stream(running: Running):
    for model in PROVIDERS:
        whole = await running.openai.responses.create(model=model, input=INPUT)
        async with running.openai.responses.stream(model=model, input=INPUT) as stream:
            events = [event async for event in stream]
            final = await stream.get_final_response()

        assert events[0].type == "response.created"
        assert events[-1].type == "response.completed"
        numbers = [event.sequence_number for event in events if hasattr(event, "sequence_number")]
        assert numbers == sorted(numbers)
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert text == final.output_text == whole.output_text


async def test_responses_in_step(running: Running):
    def use(client: openai.OpenAI) -> tuple[str, str]:
        whole = client.responses.create(model="sandbox", input=INPUT).output_text
        stream = client.responses.create(model="sandbox", input=INPUT, stream=True)
        return whole, "".join(event.delta for event in stream if event.type == "response.output_text.delta")

    whole, streamed = await running.in_step(use)
    assert whole == streamed != ""


async def test_a_response_that_reaches_its_cap_is_incomplete(running: Running):
    for model in PROVIDERS:
        answer = await running.openai.responses.create(model=model, input=INPUT, max_output_tokens=3)
        assert answer.status == "incomplete"
        assert answer.incomplete_details is not None
        assert answer.incomplete_details.reason == "max_output_tokens"


# Services -----------------------------------------------------------------------------------------------------------


async def test_completions(running: Running):
    answer = await running.openai.completions.create(model="sandbox", prompt=["Once", "Twice"], max_tokens=20)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.usage is not None and answer.usage.completion_tokens > 0

    stream = await running.openai.completions.create(model="sandbox", prompt="Once", max_tokens=20, stream=True)
    text = "".join([chunk.choices[0].text async for chunk in stream if chunk.choices])
    assert (
        text == (await running.openai.completions.create(model="sandbox", prompt="Once", max_tokens=20)).choices[0].text
    )


async def test_embeddings_in_the_form_that_the_client_prefers_and_in_the_other(running: Running):
    packed = await running.openai.embeddings.create(model="sandbox", input=["a", "b"])  # asks for base64 by itself
    plain = await running.openai.embeddings.create(model="sandbox", input=["a", "b"], encoding_format="float")

    assert [item.embedding for item in packed.data] == [item.embedding for item in plain.data]
    assert len(plain.data) == 2
    assert plain.usage.prompt_tokens == 2


async def test_images(running: Running):
    answer = await running.openai.images.generate(model="sandbox", prompt="A cat", n=2)

    assert answer.data is not None and len(answer.data) == 2
    assert base64.b64decode(answer.data[0].b64_json or "").startswith(b"\x89PNG")
    assert answer.usage is not None and answer.usage.output_tokens == 200


async def test_moderations(running: Running):
    answer = await running.openai.moderations.with_raw_response.create(model="sandbox", input="Hello")

    assert not answer.parse().results[0].flagged
    assert answer.headers["x-tollgate-cost-usd"] == "0"  # nothing was stated, so nothing is charged
    books = await open_sql(running.data, running.gateway.log)
    assert books.execute("select count(*) from costs").fetchall() == [(0,)]


async def test_speech(running: Running):
    answer = await running.openai.audio.speech.create(model="sandbox", voice="alloy", input=INPUT)

    assert answer.response.headers["content-type"] == "audio/mpeg"
    assert answer.content.startswith(b"\xff\xfb")
    assert answer.response.headers["x-tollgate-provider"] == "sandbox"


async def test_transcriptions_and_translations(running: Running):
    for service in (running.openai.audio.transcriptions, running.openai.audio.translations):
        sound = io.BytesIO(b"RIFF" + bytes(50_000))
        sound.name = "a.wav"
        answer = await service.create(model="sandbox", file=sound)
        assert answer.text.endswith(".")


async def test_services_in_step(running: Running):
    def use(client: openai.OpenAI) -> list[object]:
        sound = ("a.wav", b"RIFF" + bytes(50_000), "audio/wav")
        return [
            client.completions.create(model="sandbox", prompt="Once", max_tokens=9).choices,
            client.embeddings.create(model="sandbox", input="a").data,
            client.images.generate(model="sandbox", prompt="A cat").data,
            client.moderations.create(model="sandbox", input="Hello").results,
            client.audio.speech.create(model="sandbox", voice="alloy", input="Hi").content,
            client.audio.transcriptions.create(model="sandbox", file=sound).text,
            client.audio.translations.create(model="sandbox", file=sound).text,
        ]

    assert all(await running.in_step(use))


async def test_a_count_of_tokens(running: Running):
    counted = await running.anthropic.messages.count_tokens(
        model="sandbox", messages=[{"role": "user", "content": INPUT}]
    )

    assert counted.input_tokens == 7


async def test_a_count_for_a_model_of_another_protocol_is_made_here_and_says_so(running: Running):
    answer = await running.anthropic.messages.with_raw_response.count_tokens(
        model="sandbox/sandbox", system="Be brief.", messages=[{"role": "user", "content": INPUT}]
    )

    counted = await answer.parse()
    assert counted.input_tokens == 3 + 4 + count([INPUT, "Be brief."])
    assert counted.estimated is True  # type: ignore[attr-defined]
    assert answer.headers["x-tollgate-provider"] == "tollgate"
    assert answer.headers["x-tollgate-cost-usd"] == "0"


async def test_what_a_provider_does_not_count_is_counted_here(running: Running):
    for model in ("sandbox/sandbox-nousage", "sandbox-responses/sandbox-nousage", "sandbox-anthropic/sandbox-nousage"):
        answer = await running.openai.chat.completions.create(
            model=model, messages=[{"role": "user", "content": INPUT}], max_tokens=99
        )
        stream = await running.openai.chat.completions.create(
            model=model, messages=[{"role": "user", "content": INPUT}], max_tokens=99, stream=True
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
        assert text == answer.choices[0].message.content
    books = await open_sql(running.data, running.gateway.log)
    rows = books.execute("select input_tokens, output_tokens, usage_source from usage").fetchall()
    assert {source for *_, source in rows} == {"estimated"}
    assert {tokens for tokens, *_ in rows} == {3 + 4 + count([INPUT])}
    assert all(abs(tokens - count([text])) <= 5 for _, tokens, _ in rows)  # pieces of a stream end inside words


# Errors -------------------------------------------------------------------------------------------------------------


async def test_an_error_in_the_middle_of_a_stream_is_raised(running: Running):
    for model in ("sandbox-responses/sandbox-eband2", "sandbox/sandbox-cut2"):
        stream = await running.openai.responses.create(model=model, input=INPUT, stream=True)
        with pytest.raises(openai.APIError):
            async for _ in stream:
                pass
