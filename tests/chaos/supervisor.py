"""A process of the gateway, and the supervisor that starts it again whenever it exits, as an operator's would."""

import asyncio
import resource
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import aiohttp

from tests.chaos import gateway
from tests.forked import Forked
from tests.kafka_broker import HOST, free_port

RESTART_S = 0.5
POLL_S = 0.05
READY_TIMEOUT_S = 60.0
PAGE_BYTES = resource.getpagesize()
STOP_TIMEOUT_S = 90.0  # more than a process takes to leave and to drain, on a busy machine too


class Supervised:
    """One role under one name and one port, through all its lives. `exits` are the codes of those that are over."""

    def __init__(self, folder: Path, env: Mapping[str, str], role: str, name: str) -> None:
        self.role = role
        self.name = name
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        self.exits: list[int] = []
        self.log = folder / f"{name}.log"
        self._folder = folder
        self._words = ["serve", "--role", role, "--port", str(self.port), "--instance", name]
        self._env = env
        self._broker = ""
        self._once: Mapping[str, str] = {}
        self._wanted = asyncio.Event()
        self._ended = asyncio.Event()
        self._ended.set()
        self._process: Forked | None = None

    async def supervise(self) -> None:
        """Keep it running while it is wanted; for ever."""
        while True:
            await self._wanted.wait()
            self._launch()
            assert self._process is not None
            while (code := self._process.poll()) is None:
                await asyncio.sleep(POLL_S)
            self.exits.append(code)
            self._ended.set()
            await asyncio.sleep(RESTART_S)

    def start(self, broker: str, once: Mapping[str, str] | None = None) -> None:
        """Have it run, against this broker; with these variables of the environment in its next life only."""
        self._broker = broker
        self._once = once or {}
        self._wanted.set()

    @property
    def runs(self) -> bool:
        """Is it wanted to run?"""
        return self._wanted.is_set()

    @property
    def memory_bytes(self) -> int:
        """What it occupies now; 0 where it does not run, or the system does not say (it is not Linux)."""
        if self._process is not None:
            with suppress(OSError):
                pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()
                return int(pages[1]) * PAGE_BYTES if pages else 0
        return 0

    def send(self, number: signal.Signals) -> None:
        """Send the signal to the present life, if there is one."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    async def end(self, number: signal.Signals) -> int:
        """End the present life by a signal; the supervisor starts the next one. Returns the exit code."""
        self.send(number)
        return await self.ended()

    async def ended(self) -> int:
        """Return the exit code of the present life, once it is over."""
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await self._ended.wait()
        return self.exits[-1] if self.exits else 0

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it, and do not start it again."""
        self._wanted.clear()
        return await self.end(number)

    async def listens(self) -> None:
        """Return when it takes connections, ready or not. Raises `TimeoutError`."""
        async with asyncio.timeout(READY_TIMEOUT_S):
            while True:
                with suppress(OSError):
                    _, writer = await asyncio.open_connection(HOST, self.port)
                    writer.close()
                    return
                await asyncio.sleep(POLL_S)

    async def ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Return when it says that it is ready. Raises `TimeoutError`, with what it wrote last."""
        try:
            async with asyncio.timeout(timeout_s), aiohttp.ClientSession() as session:
                while not await is_ready(session, self.url):
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise TimeoutError(f"{self.name} is not ready: {self.log.read_text()[-1500:]}") from None

    def close(self) -> None:
        self._wanted.clear()
        self.send(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def _launch(self) -> None:
        self._ended.clear()
        words = [*self._words, "--broker", f"kafka://{self._broker}"]
        env, self._once = {**self._env, **self._once}, {}
        self._process = Forked(gateway.main, words, cwd=self._folder, env=env, stdout=self.log, stderr=self.log)


async def is_ready(session: aiohttp.ClientSession, url: str) -> bool:
    """What a balancer asks."""
    try:
        async with session.get(f"{url}/readyz", timeout=aiohttp.ClientTimeout(total=1.0)) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False
