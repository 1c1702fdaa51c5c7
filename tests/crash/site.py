"""A gateway with its folder and settings, its keys and its clients; life after life.

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
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp

from tests import forked
from tests.crash import gateway
from tests.crash.checker import Report, check
from tests.crash.evidence import Key, gather
from tests.crash.load import MIXED, Kind, Load
from tests.crash.provider import Provider
from tests.crash.settings import make_key, write_settings
from tests.kafka_broker import free_port

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0
FAILPOINT_TIMEOUT_S = 15.0  # under load every step is reached much sooner
POLL_S = 0.01
LASTING_KEYS = 5
DEADLINE_S = 1.2
PROVIDER_TIMEOUT_S = 0.7  # two of them are longer than the deadline, so calls end by either


class Site:
    """One data folder, through as many lives of its gateway as a test wants."""

    def __init__(self, folder: Path, provider: Provider, *, seed: int, bug: str | None = None) -> None:
        """Write the settings. `bug` is planted in every life."""
        self.keys: dict[str, Key] = {}
        self.data = folder / "data"
        self._folder = folder
        self._provider = provider
        self._load = Load(seed)
        self._bug = bug
        self._port = free_port()
        self._url = f"http://127.0.0.1:{self._port}"
        write_settings(folder, provider.url, timeout_s=PROVIDER_TIMEOUT_S, server={"request_deadline_s": DEADLINE_S})

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
                with suppress(aiohttp.ClientConnectionError):  # the failpoint was reached while keys were made
                    await self._make_keys()
                    if not await self._under_load(process, seconds, kinds, patience_s):
                        return False
            code = process.wait(STOP_TIMEOUT_S)
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
        return await self._check(at_rest=at_rest, replay=None)

    async def check_all(self) -> Report:
        """At rest: the same, with a replay of the log too; and the gateway's own check must find nothing either."""
        replay = self._folder / "replay"
        self._run("replay", "--to", str(replay))
        self._run("reconcile")
        return await self._check(at_rest=True, replay=replay)

    async def _check(self, *, at_rest: bool, replay: Path | None) -> Report:
        calls = await self._provider.calls()
        evidence = gather(self.data, sent=self._load.sent, calls=calls, replay=replay)
        return check(evidence, self.keys, at_rest=at_rest)

    def _start(self, failpoint: str | None) -> forked.Forked:
        variables = environment()
        if failpoint is not None:
            variables[gateway.FAILPOINT] = failpoint
        if self._bug is not None:
            variables[gateway.SEEDED_BUG] = self._bug
        words = ["serve", "--port", str(self._port)]
        return forked.Forked(gateway.main, words, cwd=self._folder, env=variables, stderr=self._folder / "stderr")

    def _run(self, *arguments: str) -> None:
        """Another command, which must find nothing wrong."""
        done = forked.run(gateway.main, arguments, cwd=self._folder, env=environment())
        assert done.returncode == 0, f"tollgate {arguments[0]}: {done.returncode}: {done.stdout}{done.stderr}"

    async def _ready(self, process: forked.Forked) -> bool:
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
        self, process: forked.Forked, seconds: float, kinds: Sequence[Kind], patience_s: float | None
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
        """Those that last, and the newest of the small ones: the others are spent."""
        keys = list(self.keys.values())
        return [*keys[:LASTING_KEYS], keys[-1]]

    async def _make_keys(self) -> None:
        """Make those that last, once, and one whose budget is spent within a life."""
        if not self.keys:
            await self._make_key("free", org="default")
            await self._make_key("large", org="acme", budget_usd="0.05")
            await self._make_key("a minute", org="kiwi", per_minute=90)
            await self._make_key("at once", org="zebra", at_once=3)
            await self._make_key("all three", org="zebra", budget_usd="0.02", per_minute=900, at_once=4)
        await self._make_key("small", org="acme", budget_usd="0.0012")

    async def _make_key(self, name: str, **limits: Any) -> None:
        admin_key = (self.data / "admin.key").read_text().strip()
        key = await make_key(self._url, admin_key, name, **limits)
        self.keys[key.id] = key


def environment() -> dict[str, str]:
    """That of the tests, without what would configure a gateway."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("TOLLGATE_")}
    return own | {"PYTHONPATH": str(ROOT)}
