"""A gateway as a process, in front of a provider that says again what real ones once said."""

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest
import pytest_asyncio

from tests.roles.site import free_port
from tests.sdk.replay import Exchange, exchanges, replaying
from tests.wire import recordings

READY_S = 60.0

# Which provider of the gateway says what stands in a file, and how its protocol is called
FILES = {
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


class Place(NamedTuple):
    """A running gateway: its address, its admin key, its folder, and what can be asked for."""

    url: str
    key: str
    folder: Path
    recorded: dict[str, list[Exchange]]  # by file


@pytest.fixture(scope="module")
def recorded() -> dict[str, list[Exchange]]:
    if not recordings.exists():
        pytest.skip(recordings.MISSING)
    return {name: list(exchanges(name)) for name in FILES}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(recorded: dict[str, list[Exchange]], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    folder = tmp_path_factory.mktemp("gateway")
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
