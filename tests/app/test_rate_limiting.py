"""Limits of the whole gateway, of a model and of an end user, as clients meet them: through HTTP, on a real log."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager

import orjson
import pytest

from tests.test_one_request import events, post
from tollgate.app.gateway import open_gateway
from tollgate.config import load_config
from tollgate.events import Ended, LeaseGranted
from tollgate.secret import first_run_secrets


@asynccontextmanager
async def started(tmp_path, rates):
    """A gateway with these limits; gives what posts a body to it."""
    tmp_path.mkdir(exist_ok=True)
    path = tmp_path / "gateway.yaml"
    path.write_text(f"rate_limiting: {rates}\n")
    secrets = first_run_secrets(tmp_path, {}, embedded=True)
    async with (
        open_gateway(
            load_config(path, {}), data=tmp_path, instance="test", secrets=secrets, fatal=pytest.fail
        ) as gateway,
        gateway.started(),
    ):

        async def ask(model="sandbox", user=None, stream=False):
            body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "stream": stream}
            if user is not None:
                body["user"] = user
            return await post(gateway.application, secrets.admin_key.reveal(), orjson.dumps(body))

        ask.log = gateway.log
        yield ask


def error_of(answer):
    status, headers, body = answer
    assert status == 429, body
    return headers, orjson.loads(body)["error"]


@pytest.mark.parametrize("limit", [1, 7])
async def test_of_many_requests_at_once_exactly_the_limit_goes(tmp_path, limit):
    async with started(tmp_path, f"{{global_rpm: {limit}}}") as ask:
        answers = await asyncio.gather(*(ask() for _ in range(4 * limit)))
        ended = [event for event in await events(ask.log, "completions") if isinstance(event, Ended)]
    assert Counter(status for status, _, _ in answers) == {200: limit, 429: 3 * limit}
    assert Counter(event.status for event in ended) == {"completed": limit, "rejected": 3 * limit}
    assert {event.error for event in ended if event.status == "rejected"} == {"QUOTA_EXCEEDED"}


async def test_a_refused_client_is_told_which_limit_it_is_and_when_to_come_again(tmp_path):
    async with started(tmp_path, "{global_rpm: 2}") as ask:
        for _ in range(2):
            assert (await ask())[0] == 200
        headers, error = error_of(await ask())
    assert (error["code"], error["limit_name"], error["limit"]) == ("QUOTA_EXCEEDED", "global_requests_per_minute", 2)
    assert error["type"] == "rate_limit_error"
    assert error["reset_at"].endswith("Z")
    assert 1 <= int(headers["retry-after"]) <= 33
    assert int(headers["retry-after-ms"]) <= 33_000
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("2", "0")
    assert headers["x-ratelimit-reset-requests"].endswith("ms")


async def test_a_model_has_a_limit_of_its_own(tmp_path):
    async with started(tmp_path, "{per_model_rpm: 1, global_rpm: 100}") as ask:
        assert (await ask("sandbox"))[0] == 200
        _, error = error_of(await ask("sandbox/sandbox"))  # by another name
        assert (error["limit_name"], error["limit"]) == ("model_requests_per_minute", 1)
        assert (await ask("sandbox-lat1"))[0] == 200


async def test_a_user_has_a_limit_of_its_own_and_nobody_else_feels_it(tmp_path):
    async with started(tmp_path, "{per_user_rpm: 1}") as ask:
        status, headers, _ = await ask(user="ann")
        assert (status, headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == (
            200,
            "1",
            "0",
        )
        _, error = error_of(await ask(user="ann"))
        assert error["limit_name"] == "user_requests_per_minute"
        assert (await ask(user="bob"))[0] == 200
        assert [(await ask())[0] for _ in range(3)] == [200, 200, 200]
        assert not [event for event in await events(ask.log, "completions") if isinstance(event, LeaseGranted)]


async def test_what_was_spent_before_a_restart_is_spent_after_it(tmp_path):
    async with started(tmp_path, "{global_rpm: 3}") as ask:
        assert [(await ask())[0] for _ in range(4)] == [200, 200, 200, 429]
    async with started(tmp_path, "{global_rpm: 3}") as ask:
        error_of(await ask())


async def test_requests_that_do_not_fit_cost_nothing_and_take_nothing_from_those_that_do(tmp_path):
    async with started(tmp_path, "{global_rpm: 2}") as ask:
        assert (await ask("sandbox-no-such-model-knob", user="x" * 3))[0] in (200, 400, 404)
        for _ in range(3):
            await ask()
        granted = [event for event in await events(ask.log, "completions") if isinstance(event, LeaseGranted)]
    assert sum(event.granted for event in granted) == 2


async def test_without_limits_nothing_is_leased(tmp_path):
    async with started(tmp_path, "{}") as ask:
        assert (await ask())[0] == 200
        assert len(await events(ask.log, "requests")) == 1
