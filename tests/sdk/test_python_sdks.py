"""The providers' own SDKs as clients of a running gateway, in front of what real providers once said.

Each hears from each provider what the translation, judged elsewhere, says: over real sockets, at the recorded borders
of events. Afterwards the books hold every request, and agree with the log.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anthropic
import ollama
import openai
import pytest
from google import genai
from google.genai import errors as genai_errors
from mistralai.client import Mistral
from mistralai.client.errors import MistralError

from tests.conftest import SUMMARY
from tests.sdk.replay import Exchange
from tests.sdk.site import FILES, Place, chosen, translated
from tests.wire import recordings
from tests.wire.said import SAID, Said
from tollgate.events import Dialect

if not recordings.exists():
    pytest.skip(recordings.MISSING, allow_module_level=True)

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.crash,
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning"),
]

# The SDK reads blocks of the beta interface, which it types elsewhere, as if they were texts
_BETA = ("535987eb87f336d1", "392e4193a7cfbd4b")
EXCUSED = {("anthropic", id) for id in _BETA}
# This SDK speaks to the gateway as if to Mistral: it wants calls of a stream in one piece, knows no thoughts of others,
# and refuses what compatible servers have added to an answer
MISTRAL = "mistralai"
# This one fails on a number where it expects a word, which Google itself has written into answers made for tests
GOOGLE, NUMBERS = "google-genai", "finish_1"
PROMPT = "ollama, generate"  # there is no place for calls in what this endpoint answers
HI = [{"role": "user", "content": "Hi"}]
FAILURES = (openai.APIError, anthropic.APIError, genai_errors.APIError, MistralError, ollama.ResponseError)


# The SDKs: each asks a model and tells what it heard, as its own payloads ---------------------------------------------

Ask = Callable[[str, bool], Awaitable[list[Any]]]


@asynccontextmanager
async def chat(place: Place) -> AsyncIterator[Ask]:
    async with openai.AsyncOpenAI(base_url=f"{place.url}/v1", api_key=place.key, max_retries=0) as client:

        async def ask(model: str, is_stream: bool) -> list[Any]:
            if not is_stream:
                return [(await client.chat.completions.create(model=model, messages=HI)).model_dump(warnings=False)]
            chunks = await client.chat.completions.create(model=model, messages=HI, stream=True)
            return [chunk.model_dump(warnings=False) async for chunk in chunks]

        yield ask


@asynccontextmanager
async def responses(place: Place) -> AsyncIterator[Ask]:
    async with openai.AsyncOpenAI(base_url=f"{place.url}/v1", api_key=place.key, max_retries=0) as client:

        async def ask(model: str, is_stream: bool) -> list[Any]:
            if not is_stream:
                return [(await client.responses.create(model=model, input="Hi")).model_dump(warnings=False)]
            events = await client.responses.create(model=model, input="Hi", stream=True)
            return [event.model_dump(warnings=False) async for event in events]

        yield ask


@asynccontextmanager
async def messages(place: Place) -> AsyncIterator[Ask]:
    async with anthropic.AsyncAnthropic(base_url=place.url, api_key=place.key, max_retries=0) as client:

        async def ask(model: str, is_stream: bool) -> list[Any]:
            if not is_stream:
                return [
                    (await client.messages.create(model=model, messages=HI, max_tokens=50)).model_dump(warnings=False)
                ]
            events = await client.messages.create(model=model, messages=HI, max_tokens=50, stream=True)
            return [event.model_dump(warnings=False) async for event in events]

        yield ask


@asynccontextmanager
async def generate_content(place: Place) -> AsyncIterator[Ask]:
    client = genai.Client(api_key=place.key, http_options={"base_url": place.url})

    async def ask(model: str, is_stream: bool) -> list[Any]:
        if is_stream:
            pieces = await client.aio.models.generate_content_stream(model=model, contents="Hi")
            answers = [piece async for piece in pieces]
        else:
            answers = [await client.aio.models.generate_content(model=model, contents="Hi")]
        return [
            json.loads(answer.model_dump_json(by_alias=True, exclude_none=True, warnings=False)) for answer in answers
        ]

    try:
        yield ask
    finally:
        await client.aio.aclose()


@asynccontextmanager
async def mistral(place: Place) -> AsyncIterator[Ask]:
    async with Mistral(server_url=place.url, api_key=place.key) as client:

        async def ask(model: str, is_stream: bool) -> list[Any]:
            if not is_stream:
                return [(await client.chat.complete_async(model=model, messages=HI)).model_dump(warnings=False)]
            events = await client.chat.stream_async(model=model, messages=HI)
            return [event.data.model_dump(warnings=False) async for event in events]

        yield ask


@asynccontextmanager
async def ollama_chat(place: Place) -> AsyncIterator[Ask]:
    async with ollama.AsyncClient(place.url, headers={"Authorization": f"Bearer {place.key}"}) as client:

        async def ask(model: str, is_stream: bool) -> list[Any]:
            if not is_stream:
                return [(await client.chat(model=model, messages=HI)).model_dump()]
            lines = await client.chat(model=model, messages=HI, stream=True)
            return [line.model_dump() async for line in lines]

        yield ask


@asynccontextmanager
async def ollama_generate(place: Place) -> AsyncIterator[Ask]:
    async with ollama.AsyncClient(place.url, headers={"Authorization": f"Bearer {place.key}"}) as client:

        async def ask(model: str, is_stream: bool) -> list[Any]:
            if not is_stream:
                return [(await client.generate(model=model, prompt="Hi")).model_dump()]
            lines = await client.generate(model=model, prompt="Hi", stream=True)
            return [line.model_dump() async for line in lines]

        yield ask


SDKS: dict[str, tuple[Callable[[Place], AbstractAsyncContextManager[Ask]], Dialect]] = {
    "openai, chat": (chat, "openai"),
    "openai, responses": (responses, "responses"),
    "anthropic": (messages, "anthropic"),
    GOOGLE: (generate_content, "gemini"),
    MISTRAL: (mistral, "openai"),
    "ollama, chat": (ollama_chat, "ollama"),
    PROMPT: (ollama_generate, "ollama"),
}


@pytest.mark.parametrize("sdk", SDKS)
async def test_an_sdk_hears_what_each_provider_said(place, sdk, record_property):
    counts, wrong = await _everything(place, sdk)
    told = "  ".join(f"{protocol} {passed}/{tried}" for protocol, (passed, tried) in sorted(counts.items()))
    record_property(SUMMARY, f"SDK {sdk:20} {told}")
    assert not wrong, "\n".join(wrong)


async def _everything(place: Place, sdk: str) -> tuple[dict[str, list[int]], list[str]]:
    """Ask for each recording; return how many of each protocol were heard right, of how many, and what was not."""
    connect, dialect = SDKS[sdk]
    counts: dict[str, list[int]] = {}
    wrong: list[str] = []
    async with connect(place) as ask:
        for name, protocol in FILES.items():
            for exchange in chosen(place.recorded[name]):
                expected = translated(dialect, protocol, exchange)
                if (sdk, exchange.id) in EXCUSED or (sdk == GOOGLE and NUMBERS in exchange.edge):
                    continue
                if sdk == MISTRAL and expected is not None:
                    if protocol == "openai" or (exchange.is_stream and expected.calls):
                        continue
                    expected = expected._replace(thoughts="")
                if sdk == PROMPT and expected is not None and (protocol == "ollama" or expected.calls):
                    continue  # a provider of the same protocol would answer in this endpoint's own form
                problem = await _problem(ask, dialect, f"p-{protocol}/{exchange.id}", exchange, expected)
                passed, tried = counts.get(protocol, (0, 0))
                counts[protocol] = [passed + (problem is None), tried + 1]
                if problem is not None:
                    wrong.append(f"{exchange.id} of {name}: {problem}")
    return counts, wrong


async def _problem(ask: Ask, dialect: Dialect, model: str, exchange: Exchange, expected: Said | None) -> str | None:
    try:
        heard = SAID[dialect](await ask(model, exchange.is_stream))
    except FAILURES as error:
        return None if expected is None else type(error).__name__
    if heard == expected:
        return None
    parts = [part for part in Said._fields if getattr(heard, part) != getattr(expected, part, None)]
    return f"other {', '.join(parts)}"


async def test_the_books_hold_every_request_of_an_sdk(place):
    await _everything(place, "openai, chat")
    command = [sys.executable, "-c", "from tollgate.app.cli import main; raise SystemExit(main())"]

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *words], cwd=place.folder, capture_output=True, text=True, timeout=60)

    counted = await asyncio.to_thread(
        run, "sql", "--format", "json", "select count(*) n, count(distinct provider) p from usage"
    )
    (row,) = json.loads(counted.stdout)
    assert row["n"] > 100 and row["p"] == len(set(FILES.values()))
    checked = await asyncio.to_thread(run, "reconcile")
    assert checked.returncode == 0, checked.stdout
