"""A planted key and a planted prompt turn up nowhere but where they belong, whatever is refused."""

import logging
from pathlib import Path
from typing import Any

import pytest

from tests.ingress.support import ADMIN_KEY, BODIES, CHAT, PROMPT, SECRETS, Gateway, Response
from tests.ingress.test_malformed import WRONG, send
from tollgate import keys


async def test_neither_keys_nor_prompts_are_in_any_answer_event_metric_log_line_or_file(
    make_gateway: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    caplog.set_level(logging.DEBUG)
    gateway: Gateway = await make_gateway(max_body_mb=1)
    _, foreign = keys.new_key()
    answers: list[Response] = []
    for path in BODIES:
        for wrong in WRONG.values():
            answers.append(await send(gateway, path, wrong))
        answers.append(await gateway.bearer("acme").request("POST", path, BODIES[path]))
        for token in (foreign, ADMIN_KEY[:-1], gateway.tokens["acme"][:-1]):
            headers: dict[str, str | None] = {"authorization": f"Bearer {token}"}
            answers.append(await gateway.anonymous.request("POST", path, BODIES[path], headers=headers))
    answers.append(await gateway.anonymous.request("GET", f"/v1/models/{foreign}"))
    answers.append(await gateway.admin.request("GET", "/v1/keys"))
    answers.append(await gateway.anonymous.request("GET", "/metrics"))
    monkeypatch.setattr(gateway.door.sealer, "seal", lambda *args: 1 / 0)
    answers.append(await gateway.bearer("acme").request("POST", CHAT, BODIES[CHAT]))
    assert answers[-1].status == 500

    shown = b"".join(answer.body + repr(answer.headers).encode() for answer in answers)
    shown += caplog.text.encode()
    shown += repr([await gateway.records(topic) for topic in ("requests", "audit", "control")]).encode()
    shown += b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    secrets = [keys.parse(token).secret for token in (foreign, gateway.tokens["acme"])]
    canaries = [PROMPT, *secrets, ADMIN_KEY, SECRETS.secret.reveal()]
    assert [canary for canary in canaries if canary.encode() in shown] == []
