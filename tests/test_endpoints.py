"""Every path on which a model is asked goes through admission, and leaves one row in the books."""

from collections import Counter
from typing import Any

import pytest

from tests.endpoints import ASKS_NO_MODEL, EXAMPLES, STREAMING, Example, ask
from tollgate.app.gateway import Gateway, open_gateway
from tollgate.config import load_config
from tollgate.events import Admitted, decode
from tollgate.ingress.app import Ingress
from tollgate.secret import first_run_secrets
from tollgate.sinks.reconcile import reconcile
from tollgate.sinks.sql import open_sql


def asked(gateway: Gateway) -> list[str]:
    """The routes of the ingress that are POSTed to, but for administration and what asks no model."""
    assert isinstance(gateway.application, Ingress)
    return [
        endpoint.route
        for endpoint in gateway.application.endpoints
        if "POST" in endpoint.methods and endpoint.access != "admin" and endpoint.route not in ASKS_NO_MODEL
    ]


async def test_every_endpoint_is_admitted_and_leaves_one_row(tmp_path):
    secrets = first_run_secrets(tmp_path, {}, embedded=True)
    config = load_config(None, {})
    async with open_gateway(config, data=tmp_path, instance="test", secrets=secrets, fatal=pytest.fail) as gateway:
        routes = asked(gateway)
        assert set(routes) == set(EXAMPLES), "every route needs an example in tests/endpoints.py"
        calls = [(route, example) for route in routes for example in variants(route)]
        async with gateway.started():
            for route, example in calls:
                status, _, body = await ask(gateway.application, secrets.admin_key.reveal(), route, example)
                assert status == 200, (route, body)

        books = await open_sql(tmp_path, gateway.log)
        rows = books.execute("select endpoint, status, count(*) from usage group by all").fetchall()
        expected = Counter(example.endpoint or route for route, example in calls)
        assert sorted(rows) == sorted((endpoint, "completed", count) for endpoint, count in expected.items())
        admitted = Counter(
            event.request.endpoint for event in await journal(gateway.log) if isinstance(event, Admitted)
        )
        assert admitted == expected
        assert not (await reconcile(gateway.log, tmp_path)).differences


def variants(route: str) -> list[Example]:
    example = EXAMPLES[route]
    if route not in STREAMING:
        return [example]
    return [example, example._replace(body=example.body | {"stream": not STREAMING[route]})]


async def journal(log: Any) -> list[Any]:
    return [
        decode(record.value)
        for partition in range(log.partitions("completions"))
        async for records in log.scan("completions", partition, 0)
        for record in records
    ]
