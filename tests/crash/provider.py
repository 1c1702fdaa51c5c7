"""The provider of all scenarios: the sandbox in a process of its own, which nobody kills, and its ledger."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import orjson

from tests.crash.evidence import Fields

STOP_TIMEOUT_S = 20.0
NOTICE_TIMEOUT_S = 3.0  # for the provider to notice that its callers are dead
POLL_S = 0.05


class Provider:
    """Where it listens, and what is in its ledger."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def calls(self) -> list[Fields]:
        """The rows of its ledger, once every call is over as far as it can notice."""
        deadline = asyncio.get_running_loop().time() + NOTICE_TIMEOUT_S
        while True:
            rows = await self.rows()
            if all(row["finished"] for row in rows) or asyncio.get_running_loop().time() > deadline:
                return rows
            await asyncio.sleep(POLL_S)

    async def rows(self) -> list[Fields]:
        """The rows as of now."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/ledger") as response:
            rows: list[Fields] = orjson.loads(await response.read())
            return rows

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
