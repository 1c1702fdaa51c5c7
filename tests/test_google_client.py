"""Google's official SDK and the whole gateway: its sandbox provider, its admission and its books."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from google import genai
from google.genai import errors
from google.genai.types import FinishReason, GenerateContentConfig, HttpOptions

from tollgate.app.gateway import open_gateway
from tollgate.config import load_config
from tollgate.ingress.server import server_config
from tollgate.secret import first_run_secrets
from tollgate.sinks.reconcile import reconcile
from tollgate.sinks.sql import open_sql
from tollgate.tokenizer import count

# The SDK's own use of aiohttp
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

PROVIDERS = {"sandbox": "openai", "sandbox-anthropic": "anthropic", "sandbox-gemini": "gemini"}


@pytest.fixture
async def running(tmp_path) -> AsyncIterator[tuple[Any, Any]]:
    """The gateway, started and listening, and the SDK with its admin key."""
    secrets = first_run_secrets(tmp_path, {}, embedded=True)
    config = load_config(None, {})
    async with (
        open_gateway(config, data=tmp_path, instance="test", secrets=secrets, fatal=pytest.fail) as gateway,
        gateway.started(),
    ):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = uvicorn.Server(server_config(gateway.application, host="127.0.0.1", port=0))
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            options = HttpOptions(base_url=url, timeout=20_000)
            client = genai.Client(api_key=secrets.admin_key.reveal(), http_options=options)
            yield gateway, client.aio.models
            await client.aio.aclose()
            server.should_exit = True
            await serving


async def test_an_answer_a_stream_and_an_error_of_each_protocol_are_in_the_books(running, tmp_path):
    gateway, models = running
    limit = GenerateContentConfig(max_output_tokens=6)

    for provider in PROVIDERS:
        answer = await models.generate_content(model=f"{provider}/sandbox-tok9-reason2", contents="Hi", config=limit)
        stream = await models.generate_content_stream(
            model=f"{provider}/sandbox-tok9-reason2", contents="Hi", config=limit
        )
        chunks = [chunk async for chunk in stream]
        assert answer.text == "".join(chunk.text or "" for chunk in chunks)
        for last in (answer, chunks[-1]):
            assert last.candidates[0].finish_reason is FinishReason.MAX_TOKENS
            usage = last.usage_metadata
            assert (usage.candidates_token_count, usage.thoughts_token_count) == (4, 2)
        with pytest.raises(errors.ServerError) as failed:
            await models.generate_content(model=f"{provider}/sandbox-err503", contents="Hi")
        assert (failed.value.code, failed.value.status) == (503, "UNAVAILABLE")

    counted = await models.count_tokens(model="sandbox", contents="one two three")
    assert counted.total_tokens == 6
    elsewhere = await models.count_tokens(model="sandbox/sandbox", contents="one two three")
    assert elsewhere.total_tokens == 3 + 4 + count(["one two three"]), "counted here, where no provider can"

    embedded = await models.embed_content(model="sandbox", contents=["one", "two"])
    assert len(embedded.embeddings) == 2 and embedded.embeddings[0].values

    books = await open_sql(tmp_path, gateway.log)
    rows = books.execute(
        "select provider, status, count(*), min(output_tokens), min(reasoning_tokens) from usage "
        "where status = 'completed' and output_tokens > 0 group by all order by all"
    ).fetchall()
    assert rows == [(provider, "completed", 2, 4, 2) for provider in sorted(PROVIDERS)]
    assert books.execute("select cost_usd from usage where endpoint like '%countTokens'").fetchall() == [(0,), (0,)]
    failures = books.execute("select count(*) from usage where status = 'failed'").fetchall()
    assert failures == [(len(PROVIDERS),)]
    assert not (await reconcile(gateway.log, tmp_path)).differences
