"""What a provider is not told, its client is: in a header, from the request to the answer."""

import orjson
import pytest

from tests.test_one_request import post
from tollgate.app.gateway import open_gateway
from tollgate.config import load_config
from tollgate.secret import first_run_secrets


@pytest.mark.parametrize("stream", [False, True])
async def test_what_was_dropped_is_named_in_a_header(tmp_path, stream):
    secrets = first_run_secrets(tmp_path, {}, embedded=True)
    asked = {
        "model": "sandbox-anthropic/sandbox",
        "max_tokens": 50,
        "messages": [{"role": "user", "content": "Hi", "name": "ann"}],
        "seed": 7,
        "stream": stream,
    }
    async with (
        open_gateway(
            load_config(None, {}), data=tmp_path, instance="test", secrets=secrets, fatal=pytest.fail
        ) as gateway,
        gateway.started(),
    ):
        status, headers, body = await post(gateway.application, secrets.admin_key.reveal(), orjson.dumps(asked))
        asked["model"] = "sandbox/sandbox"
        _, same_dialect, _ = await post(gateway.application, secrets.admin_key.reveal(), orjson.dumps(asked))

    assert status == 200
    assert headers["x-tollgate-dropped-params"] == "messages[].name, seed"
    assert b'"dropped":["messages[].name","seed"]' in body
    assert "x-tollgate-dropped-params" not in same_dialect
