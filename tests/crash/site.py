"""A gateway with everything around it: its folder and settings, the provider, the keys, the clients; life after life.

with a_provider(folder) as provider:
    site = Site(folder, provider, seed=1)
    await site.live(seconds=1.0)  # started, under load, killed
    await site.live(failpoint="end.durable:3")  # the same, by itself at this step
    await site.rest()  # started, stopped in order: now nothing may be open
    report = await site.check()
"""

import asyncio
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from tests.crash import gateway
from tests.crash.checker import Report, check
from tests.crash.evidence import OFFSET_BITS, Key, gather
from tests.crash.load import FALLBACKS, MIXED, Kind, Load

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0
FAILPOINT_TIMEOUT_S = 8.0  # under load every step is reached much sooner
POLL_S = 0.01
PERMANENT_KEYS = 5
DEADLINE_S = 1.2
PROVIDER_TIMEOUT_S = 0.7  # two of them are longer than the deadline, so calls end by either
NOTICE_TIMEOUT_S = 3.0  # for the provider to notice that its callers are dead

PRICING = """\
models:
  "main/sandbox*": {input: 1.00, cache_read: 0.25, output: 4.00, context_window: 20000, max_output_tokens: 1000}
  "backup/sandbox*": {input: 2.00, cache_read: 0.50, output: 6.00, context_window: 20000, max_output_tokens: 1000}
"""


class Provider:
    """The sandbox in a process of its own, which nobody kills."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def calls(self) -> list[dict[str, Any]]:
        """The rows of its ledger, once every call is over as far as it can notice."""
        deadline = asyncio.get_running_loop().time() + NOTICE_TIMEOUT_S
        async with aiohttp.ClientSession() as session:
            while True:
                async with session.get(f"{self.url}/ledger") as response:
                    rows: list[dict[str, Any]] = orjson.loads(await response.read())
                if all(row["finished"] for row in rows) or asyncio.get_running_loop().time() > deadline:
                    return rows
                await asyncio.sleep(5 * POLL_S)

    async def forget(self) -> None:
        """Begin an empty ledger."""
        async with aiohttp.ClientSession() as session, session.delete(f"{self.url}/ledger"):
            pass


@contextmanager
def a_provider(folder: Path) -> Iterator[Provider]:
    """Run a provider whose ledger is a file in `folder`."""
    command = [sys.executable, "-m", "tollgate.sandbox", "--port", "0", "--ledger", str(folder / "ledger.jsonl")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Provider(process.stdout.readline().split()[-1])
        finally:
            process.terminate()
            process.communicate(timeout=STOP_TIMEOUT_S)


class Site:
    """One data folder, through as many lives of its gateway as a test wants."""

    def __init__(self, folder: Path, provider: Provider, *, seed: int, bug: str | None = None) -> None:
        """Write the settings. `bug` is planted in every life."""
        self.keys: dict[str, Key] = {}
        self._folder = folder
        self._provider = provider
        self._load = Load(seed)
        self._bug = bug
        self._port = _free_port()
        self._url = f"http://127.0.0.1:{self._port}"
        settings = {
            "sandbox": False,
            "providers": {
                "main": _provider("openai", f"{provider.url}/v1", priority=1),
                "backup": _provider("anthropic", provider.url, priority=2),
            },
            "routing": {"fallbacks": FALLBACKS},
            "limits": {"default_max_tokens": 40},
            "server": {"request_deadline_s": DEADLINE_S},
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "gateway.yaml").write_bytes(orjson.dumps(settings))
        (folder / "pricing.yaml").write_text(PRICING)

    @property
    def requests(self) -> int:
        """How many requests clients have sent so far."""
        return len(self._load.sent)

    @property
    def said(self) -> str:
        """What the gateway wrote on its standard error."""
        return (self._folder / "stderr").read_text()

    async def live(
        self,
        *,
        seconds: float = FAILPOINT_TIMEOUT_S,
        failpoint: str | None = None,
        kinds: Sequence[Kind] = MIXED,
        patience_s: float | None = 0.0,
    ) -> bool:
        """One life under load; true if it ended by itself, at the failpoint, before the time was over.

        When it is, the gateway is killed, `patience_s` after it was told to stop; None: it may end in order.
        Fails when it ends in any other way.
        """
        process = self._start(failpoint)
        try:
            if await self._ready(process):
                if not self.keys:
                    await self._make_keys()
                await self._make_key("small", org="acme", budget_usd="0.0012")
                if not await self._under_load(process, seconds, kinds, patience_s):
                    return False
            code = process.wait()
            assert code == -signal.SIGKILL, f"the gateway ended by itself, with {code}: {self.said}"
            return True
        finally:
            process.kill()
            process.wait()

    async def rest(self) -> None:
        """Start without load, and stop in order: then nothing is open, and the sink has written everything."""
        process = self._start(None)
        try:
            assert await self._ready(process), f"the gateway died at its start: {self.said}"
            process.send_signal(signal.SIGTERM)
            code = await asyncio.to_thread(process.wait, STOP_TIMEOUT_S)
            assert code == 0, f"the gateway ended with {code}: {self.said}"
        finally:
            process.kill()
            process.wait()

    async def check(self, *, at_rest: bool = True) -> Report:
        """Hold all sources against each other. The gateway does not run now."""
        calls = await self._provider.calls()
        evidence = gather(self._folder / "data", sent=self._load.sent, calls=calls)
        return check(evidence, self.keys, at_rest=at_rest)

    def speak_as_a_zombie(self) -> None:
        """Have each partition taken over by somebody else, and its last writer speak on in spite of it: a further
        end, dear to its key, of what has ended, and the admission of what was never accepted. Between lives."""
        with sqlite3.connect(self._folder / "data" / "log" / "log.db") as database:
            for place, records in _journals(database):
                ends = [event for _, event in records if event["type"] == "ended.1"]
                admissions = [event for _, event in records if event["type"] == "admitted.1"]
                if not ends or not admissions:
                    continue
                stranger = admissions[-1]["request"] | {"request_id": "01900000-0000-7000-8000-00000000dead"}
                said = [
                    {"type": "owner_took.1", "instance": "elsewhere"},
                    ends[-1] | {"bill_pusd": 10**9, "cost_pusd": 10**9},
                    admissions[-1] | {"request": stranger},
                ]
                for offset, event in enumerate(said, start=records[-1][0] + 1):
                    row = (place << OFFSET_BITS) + offset, orjson.dumps(event)
                    database.execute("INSERT INTO records SELECT ?, max(timestamp_ms), x'', ?, NULL FROM records", row)
        database.close()

    def forget_offsets(self) -> None:
        """Set back what every consumer has committed, so that all events are delivered again. Between lives."""
        with sqlite3.connect(self._folder / "data" / "log" / "log.db") as database:
            database.execute("UPDATE committed SET position = 0")
        database.close()

    def _start(self, failpoint: str | None) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TOLLGATE_")}
        environment["PYTHONPATH"] = str(ROOT)
        if failpoint is not None:
            environment[gateway.FAILPOINT] = failpoint
        if self._bug is not None:
            environment[gateway.SEEDED_BUG] = self._bug
        command = [sys.executable, "-m", gateway.__name__, "serve", "--port", str(self._port)]
        with (self._folder / "stderr").open("ab") as errors:
            return subprocess.Popen(
                command, cwd=self._folder, env=environment, stdout=subprocess.DEVNULL, stderr=errors
            )

    async def _ready(self, process: subprocess.Popen[bytes]) -> bool:
        """Return when requests are taken; false when the process ends before. Raises `TimeoutError`."""
        async with asyncio.timeout(START_TIMEOUT_S), aiohttp.ClientSession() as session:
            while process.poll() is None:
                try:
                    async with session.get(f"{self._url}/readyz") as response:
                        if response.status == 200:
                            return True
                except aiohttp.ClientConnectionError:
                    pass
                await asyncio.sleep(POLL_S)
        return False

    async def _under_load(
        self, process: subprocess.Popen[bytes], seconds: float, kinds: Sequence[Kind], patience_s: float | None
    ) -> bool:
        """Return when the process is dead and all clients know it: did it end by itself?"""
        clients = asyncio.create_task(self._load.run(self._url, self._keys_in_use(), kinds=kinds))
        ended = asyncio.create_task(asyncio.to_thread(process.wait))
        await asyncio.wait({ended}, timeout=seconds)
        by_itself = ended.done()
        if patience_s != 0.0:
            process.terminate()
            await asyncio.wait({ended}, timeout=STOP_TIMEOUT_S if patience_s is None else patience_s)
        process.kill()
        code = await ended
        await clients
        in_order = 0 if patience_s is None or code == 0 else -signal.SIGKILL
        assert by_itself or code == in_order, f"the gateway ended with {code}: {self.said}"
        return by_itself

    def _keys_in_use(self) -> list[Key]:
        """Those made once, and the newest of those made for one life, whose budget is not spent yet."""
        keys = list(self.keys.values())
        return [*keys[:PERMANENT_KEYS], keys[-1]]

    async def _make_keys(self) -> None:
        await self._make_key("free", org="default")
        await self._make_key("large", org="acme", budget_usd="0.05")
        await self._make_key("a minute", org="kiwi", per_minute=90)
        await self._make_key("at once", org="zebra", at_once=3)
        await self._make_key("all three", org="zebra", budget_usd="0.02", per_minute=900, at_once=4)

    async def _make_key(
        self,
        name: str,
        *,
        org: str,
        budget_usd: str | None = None,
        per_minute: int | None = None,
        at_once: int | None = None,
    ) -> None:
        form = {
            "name": name,
            "organization": org,
            "limits": {"requests_per_minute": per_minute, "concurrent_requests": at_once},
            "quota": {"monthly_budget": budget_usd},
        }
        admin_key = (self._folder / "data" / "admin.key").read_text().strip()
        headers = {"authorization": f"Bearer {admin_key}"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(f"{self._url}/v1/keys", json=form) as response,
        ):
            assert response.status == 201, await response.text()
            made = await response.json()
        budget_pusd = None if budget_usd is None else int(float(budget_usd) * 10**9) * 1000
        self.keys[made["id"]] = Key(
            id=made["id"],
            token=made["key"],
            org=org,
            budget_pusd=budget_pusd,
            per_minute=per_minute,
            at_once=at_once,
        )


def _journals(database: sqlite3.Connection) -> list[tuple[int, list[tuple[int, dict[str, Any]]]]]:
    """The place and the records (offset, event) of each partition of the journal that has any."""
    journals = []
    for (place,) in database.execute("SELECT place FROM partitions WHERE topic = 'completions'").fetchall():
        rows = database.execute(
            "SELECT id, value FROM records WHERE id >> ? = ? ORDER BY id", (OFFSET_BITS, place)
        ).fetchall()
        if rows:
            journals.append((place, [(id - (place << OFFSET_BITS), orjson.loads(value)) for id, value in rows]))
    return journals


def _provider(protocol: str, base_url: str, *, priority: int) -> dict[str, Any]:
    return {
        "protocol": protocol,
        "base_url": base_url,
        "models": ["sandbox*"],
        "priority": priority,
        "max_retries": 0,
        "timeout_seconds": PROVIDER_TIMEOUT_S,
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
