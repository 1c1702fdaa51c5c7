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

ANSWERED = b'{"model": "sandbox", "messages": [{"role": "user", "content": "Hello"}]}'
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


async def test_a_record_without_a_value_goes_to_the_dead_letters_and_the_next_request_is_answered(tmp_path):
    secrets = first_run_secrets(tmp_path, {}, embedded=True)
    config = load_config(None, {})
    async with (
        open_gateway(config, data=tmp_path, instance="test", secrets=secrets, fatal=pytest.fail) as gateway,
        gateway.started(),
    ):
        await gateway.log.append("requests", b"default", None)
        status, _, _ = await post(gateway.application, secrets.admin_key.reveal(), ANSWERED)
        letters = await events(gateway.log, "dead-letters")
    assert status == 200
    assert [letter.topic for letter in letters] == ["requests"]


async def test_whatever_ends_the_work_beside_ends_the_process(tmp_path):
    secrets = first_run_secrets(tmp_path, {}, embedded=True)
    reasons: list[str] = []
    async with open_gateway(
        load_config(None, {}), data=tmp_path, instance="test", secrets=secrets, fatal=reasons.append
    ) as gateway:

        async def work() -> None:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "a bug")

        async with gateway._always(work(), "the fold of something"):
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    assert reasons and reasons[0].startswith("the fold of something failed: UnicodeDecodeError")
