"""The gateway in one process: what happens at its edges in time."""

import asyncio

import orjson
import pytest

from tests.test_one_request import events, post
from tollgate.app.gateway import open_gateway
from tollgate.config import load_config
from tollgate.errors import UsageError
from tollgate.events import Ended
from tollgate.secret import first_run_secrets

NEVER_ANSWERED = b'{"model": "sandbox-hang", "messages": [{"role": "user", "content": "Hello"}]}'


async def test_a_request_that_outlasts_the_drain_is_told_so_and_not_billed(tmp_path):
    secrets = first_run_secrets(tmp_path, {}, embedded=True)
    config = load_config(None, {})
    async with open_gateway(config, data=tmp_path, instance="test", secrets=secrets, fatal=pytest.fail) as gateway:
        async with gateway.started():
            asking = asyncio.create_task(post(gateway.application, secrets.admin_key.reveal(), NEVER_ANSWERED))
            while not await events(gateway.log, "requests"):
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            gateway.interrupt()
            status, headers, body = await asking
        (ended,) = [event for event in await events(gateway.log, "completions") if isinstance(event, Ended)]
    assert (status, headers["retry-after"]) == (503, "1")
    assert orjson.loads(body)["error"]["code"] == "gateway_stopping"
    assert (ended.status, ended.http_status, ended.error, ended.bill_pusd) == ("failed", 503, "gateway_stopping", 0)


async def test_one_role_of_several_needs_kafka(tmp_path):
    secrets = first_run_secrets(tmp_path, {}, embedded=True)
    with pytest.raises(UsageError, match="--role worker needs Kafka"):
        async with open_gateway(
            load_config(None, {}), role="worker", data=tmp_path, instance="t", secrets=secrets, fatal=pytest.fail
        ):
            raise AssertionError("it opened")
