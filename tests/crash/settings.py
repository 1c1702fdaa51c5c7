"""The settings of a gateway under test: two providers of one sandbox, at the prices the checker knows; its keys."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from tests.crash.evidence import Key
from tests.crash.load import FALLBACKS

PRICING = """\
models:
  "main/sandbox*": {input: 1.00, cache_read: 0.25, output: 4.00, context_window: 20000, max_output_tokens: 1000}
  "backup/sandbox*": {input: 2.00, cache_read: 0.50, output: 6.00, context_window: 20000, max_output_tokens: 1000}
"""


def write_settings(folder: Path, provider_url: str, *, timeout_s: float, **more: Mapping[str, Any]) -> None:
    """`gateway.yaml` and `pricing.yaml`; a provider may take `timeout_s`."""
    settings = {
        "sandbox": False,
        "providers": {
            "main": _provider("openai", f"{provider_url}/v1", priority=1, timeout_s=timeout_s),
            "backup": _provider("anthropic", provider_url, priority=2, timeout_s=timeout_s),
        },
        "routing": {"fallbacks": FALLBACKS},
        "limits": {"default_max_tokens": 40},
        **more,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gateway.yaml").write_bytes(orjson.dumps(settings))
    (folder / "pricing.yaml").write_text(PRICING)


async def make_key(
    url: str,
    admin_key: str,
    name: str,
    *,
    org: str,
    budget_usd: str | None = None,
    per_minute: int | None = None,
    at_once: int | None = None,
) -> Key:
    """Have the gateway at `url` make a key; None is no limit."""
    form = {
        "name": name,
        "organization": org,
        "limits": {"requests_per_minute": per_minute, "concurrent_requests": at_once},
        "quota": {"monthly_budget": budget_usd},
    }
    headers = {"authorization": f"Bearer {admin_key}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{url}/v1/keys", json=form) as response,
    ):
        assert response.status == 201, await response.text()
        made = await response.json()
    budget_pusd = None if budget_usd is None else int(float(budget_usd) * 10**9) * 1000
    return Key(
        id=made["id"],
        token=made["key"],
        org=org,
        budget_pusd=budget_pusd,
        per_minute=per_minute,
        at_once=at_once,
    )


def _provider(protocol: str, base_url: str, *, priority: int, timeout_s: float) -> dict[str, Any]:
    return {
        "protocol": protocol,
        "base_url": base_url,
        "models": ["sandbox*"],
        "priority": priority,
        "max_retries": 0,
        "timeout_seconds": timeout_s,
    }
