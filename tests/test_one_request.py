"""One request through everything, in one process and without a network: read this first.

HTTP → RequestAccepted → Admitted → provider → Ended → bytes → Parquet → SQL
"""

import asyncio
from decimal import Decimal

import orjson
import pytest

from tests.serving import STAYING
from tollgate.app.gateway import open_gateway
from tollgate.config import load_config
from tollgate.events import Admitted, CostsBooked, Ended, OwnerTook, RequestAccepted, decode
from tollgate.money import usd
from tollgate.secret import first_run_secrets
from tollgate.sinks.reconcile import reconcile
from tollgate.sinks.sql import open_sql

QUESTION = b'{"model": "sandbox", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello, who is there?"}]}'


async def test_one_request(tmp_path):
    secrets = first_run_secrets(tmp_path, {}, embedded=True)
    config = load_config(None, {})
    async with open_gateway(config, data=tmp_path, instance="test", secrets=secrets, fatal=pytest.fail) as gateway:
        async with gateway.started():
            status, headers, body = await post(gateway.application, secrets.admin_key.reveal(), QUESTION)

        # the client has its answer, and what it cost
        answer = orjson.loads(body)
        assert status == 200
        assert answer["object"] == "chat.completion"
        assert answer["provider"] == "sandbox"
        assert headers["x-request-id"] == answer["tollgate"]["request_id"]

        # the log has the whole story, in order
        log = gateway.log
        journal = [event for event in await events(log, "completions") if not isinstance(event, OwnerTook)]
        (accepted,) = await events(log, "requests")
        admitted, ended = journal
        assert isinstance(accepted, RequestAccepted)
        assert isinstance(admitted, Admitted)
        assert isinstance(ended, Ended)
        assert accepted.request == admitted.request == ended.request
        assert b"who is there" not in accepted.body  # sealed
        assert ended.status == "completed"
        assert ended.attempts[0].usage.input_tokens == answer["usage"]["prompt_tokens"]
        assert usd(ended.bill_pusd) == Decimal(headers["x-tollgate-cost-usd"]) > 0

        # so have the costs, for whoever consumes them
        (booked,) = await events(log, "costs")
        assert isinstance(booked, CostsBooked)
        assert booked.lines == ended.attempts[0].lines

        # and the books, which agree
        books = await open_sql(tmp_path, log)
        rows = books.execute("select request_id, status, bill_usd from usage").fetchall()
        assert rows == [(ended.request.request_id, "completed", usd(ended.bill_pusd))]
        assert not (await reconcile(log, tmp_path)).differences


async def post(application, key, body, path="/v1/chat/completions"):
    """What an HTTP server would do with one request."""
    sent = []
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "http_version": "1.1",
        "extensions": STAYING,
        "headers": [
            (b"host", b"tollgate"),
            (b"authorization", b"Bearer " + key.encode()),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ],
    }
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive():
        if messages:
            return messages.pop()
        return await asyncio.get_running_loop().create_future()  # the client stays

    async def send(message):
        sent.append(message)

    await application(scope, receive, send)
    head, *bodies = sent
    headers = {name.decode(): value.decode() for name, value in head["headers"]}
    return head["status"], headers, b"".join(message.get("body", b"") for message in bodies)


async def events(log, topic):
    found = []
    for partition in range(log.partitions(topic)):
        async for records in log.scan(topic, partition, 0):
            found += [decode(record.value) for record in records]
    return found
