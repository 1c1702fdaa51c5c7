"""A gateway as a process, in front of a provider that says again what real ones once said."""

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp

from tests.kafka_broker import free_port
from tests.sdk.replay import Exchange, replaying
from tests.wire.fixtures import payloads, stream, unary
from tests.wire.said import SAID, Said
from tollgate.errors import ProviderError
from tollgate.events import Dialect

READY_S = 60.0

# Which provider of the gateway says what stands in a file, and how its protocol is called
FILES: dict[str, Dialect] = {
    "alibaba.chat": "openai",
    "anthropic.messages": "anthropic",
    "azure.chat": "openai",
    "bedrock.converse": "bedrock",
    "bedrock.converse_stream": "bedrock",
    "deepseek.chat": "openai",
    "google.generateContent": "gemini",
    "google.streamGenerateContent": "gemini",
    "groq.chat": "openai",
    "mistral.chat": "mistral",
    "ollama.chat": "ollama",
    "openai.chat": "openai",
    "openai.responses": "responses",
    "openrouter.chat": "openai",
    "perplexity.chat": "openai",
    "xai.chat": "openai",
    "xai.responses": "responses",
}
PROTOCOLS = sorted(set(FILES.values()))
PATHS = {"openai": "/v1", "mistral": "/v1", "responses": "/v1"}

OF_EACH_FILE = 8  # exchanges, those with the most peculiarities first
MAX_BYTES = 200_000


class Place(NamedTuple):
    """A running gateway: its address, its admin key, its folder, and what can be asked for."""

    url: str
    key: str
    folder: Path
    recorded: dict[str, list[Exchange]]  # by file


@asynccontextmanager
async def running(recorded: dict[str, list[Exchange]], folder: Path) -> AsyncIterator[Place]:
    """The gateway has a provider for each protocol, `p-openai` and so on, whose models are ids of recordings."""
    port, key = free_port(), secrets.token_hex(32)
    served = {exchange.id: exchange for found in recorded.values() for exchange in found}
    async with replaying(served) as upstream:
        providers = "".join(
            f"  p-{protocol}: {{protocol: {protocol}, base_url: '{upstream}{PATHS.get(protocol, '')}', models: ['*'], "
            "max_retries: 0}\n"
            for protocol in PROTOCOLS
        )
        (folder / "gateway.yaml").write_text(f"sandbox: false\nproviders:\n{providers}")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from tollgate.app.cli import main; raise SystemExit(main())"),
            *("serve", "--port", str(port)),
            cwd=folder,
            env={**os.environ, "TOLLGATE_ADMIN_KEY": key, "TOLLGATE_DATA": str(folder / "data")},
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            await _ready(f"http://127.0.0.1:{port}/readyz")
            yield Place(f"http://127.0.0.1:{port}", key, folder, recorded)
        finally:
            process.kill()
            await process.wait()


async def _ready(url: str) -> None:
    async with asyncio.timeout(READY_S), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)


def chosen(found: list[Exchange]) -> Iterator[Exchange]:
    small = [exchange for exchange in found if sum(map(len, exchange.pieces)) <= MAX_BYTES]
    yield from sorted(small, key=lambda exchange: (-len(exchange.edge), exchange.id))[:OF_EACH_FILE]


def translated(dialect: Dialect, protocol: Dialect, exchange: Exchange) -> Said | None:
    """What a client of this dialect is to hear; None where the provider's answer is a failure."""
    try:
        if exchange.is_stream:
            return SAID[dialect](payloads(stream(dialect, protocol, list(exchange.pieces))[0]))
        return SAID[dialect]([unary(dialect, protocol, exchange.pieces[0])[0]])
    except ProviderError:
        return None
