"""A gateway in several real processes on a real Kafka, with a provider that keeps its own ledger."""

import asyncio
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from tests import forked
from tests.forked import Forked
from tests.kafka_broker import free_port
from tollgate.app import cli
from tollgate.events import OwnerReleased, decode
from tollgate.log.kafka import KafkaLog
from tollgate.topics import load_topics

START_S = 40.0
NOTICED_S = 5.0  # a second, on a machine that has nothing else to do
GATEWAY = """
log: {{broker: "kafka://{kafka}"}}
providers:
  main:
    protocol: openai
    base_url: "http://127.0.0.1:{port}/v1"
    api_key: x
    models: ["mock*", "sandbox*"]
    max_retries: 0
sandbox: false
"""
PRICES = """
models:
  "main/*": {input: 1.00, output: 4.00, context_window: 128000, max_output_tokens: 4096}
"""


class Process:
    """One process of the gateway."""

    def __init__(self, site: "Site", role: str, name: str) -> None:
        self.role = role
        self.name = name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        words = ["serve", "--role", role, "--port", str(self.port), "--broker", f"kafka://{site.kafka}"]
        log = site.folder / f"{name}.log"
        words += ["--instance", name]
        self.process = Forked(cli.main, words, cwd=site.folder, env=site.env, stdout=log, stderr=log)

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)

    def ended(self, timeout_s: float = 60.0) -> int:
        return self.process.wait(timeout_s)


class Site:
    """The processes of one test, their folder, and the provider beside them."""

    def __init__(self, folder: Path, kafka: str, *, settings: str = "") -> None:
        """`settings` are further lines of gateway.yaml."""
        self.folder = folder
        self.kafka = kafka
        self.key = secrets.token_hex(32)
        self.env = {
            **os.environ,
            "TOLLGATE_ADMIN_KEY": self.key,
            "TOLLGATE_SECRET": secrets.token_hex(32),
            "TOLLGATE_DATA": str(folder / "data"),
        }
        self.provider_port = free_port()
        self.processes: list[Process] = []
        (folder / "gateway.yaml").write_text(GATEWAY.format(port=self.provider_port, kafka=kafka) + settings)
        (folder / "pricing.yaml").write_text(PRICES)
        self._provider = Forked(cli.main, ["sandbox", "--port", str(self.provider_port)], cwd=folder, env=os.environ)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return forked.run(cli.main, words, cwd=self.folder, env=self.env)

    def start(self, role: str, name: str) -> Process:
        process = Process(self, role, name)
        self.processes.append(process)
        return process

    async def ready(self, *processes: Process) -> None:
        deadline = time.monotonic() + START_S
        async with aiohttp.ClientSession() as session:
            for process in processes:
                while True:
                    try:
                        async with session.get(f"{process.url}/readyz") as response:
                            if response.status == 200:
                                break
                    except aiohttp.ClientError:
                        pass
                    log = (self.folder / f"{process.name}.log").read_text()
                    assert process.process.poll() is None, f"{process.name} ended: {log[-2000:]}"
                    assert time.monotonic() < deadline, f"{process.name} is not ready: {log[-2000:]}"
                    await asyncio.sleep(0.1)

    async def ask(self, ingress: Process, model: str, **more: Any) -> tuple[int, dict[str, str], bytes]:
        """One completion: status, headers, whole body."""
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], **more}
        timeout = aiohttp.ClientTimeout(total=60)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(
                f"{ingress.url}/v1/chat/completions", json=body, headers={"authorization": f"Bearer {self.key}"}
            ) as response,
        ):
            headers = {name.lower(): value for name, value in response.headers.items()}
            return response.status, headers, await response.read()

    async def manage(
        self,
        ingress: Process,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, dict[str, str], Any]:
        """One call without a stream, with the admin key or another: status, headers, JSON."""
        head = {"authorization": f"Bearer {key or self.key}", **(headers or {})}
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session,
            session.request(method, ingress.url + path, json=body, headers=head) as response,
        ):
            answered = {name.lower(): value for name, value in response.headers.items()}
            return response.status, answered, await response.json()

    async def story(self, ingress: Process, request_id: str) -> dict[str, Any]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(
                f"{ingress.url}/v1/requests/{request_id}", headers={"authorization": f"Bearer {self.key}"}
            ) as response,
        ):
            found: dict[str, Any] = await response.json()
            return found

    async def calls(self, request_id: str = "") -> list[dict[str, Any]]:
        """What the provider's own ledger says of a request."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.provider_port}/ledger") as response,
        ):
            return [row for row in await response.json() if row["call_id"].startswith(request_id)]

    async def called(self, request_id_or_nothing: str = "", *, more_than: int = 0) -> None:
        """Return when the provider has been called."""
        deadline = time.monotonic() + START_S
        while len(await self.calls(request_id_or_nothing)) <= more_than:
            assert time.monotonic() < deadline, "the provider was not called"
            await asyncio.sleep(0.05)

    async def finished(self, call_id: str, *, within_s: float = NOTICED_S) -> dict[str, Any]:
        """The provider's row of the call, once that is over."""
        deadline = time.monotonic() + within_s
        while True:
            [row] = await self.calls(call_id)
            if row["finished"]:
                return row
            assert time.monotonic() < deadline, f"{call_id} goes on"
            await asyncio.sleep(0.05)

    async def ended(self, ingress: Process, request_id: str) -> dict[str, Any]:
        """The request's story, once it has an end."""
        deadline = time.monotonic() + START_S
        while True:
            story = await self.story(ingress, request_id)
            if story["status"] not in ("queued", "running"):
                return story
            assert time.monotonic() < deadline, f"{request_id} has no end: {story}"
            await asyncio.sleep(0.1)

    async def handed_over(self, leaving: Process) -> None:
        """Return when the journal says that calls of the process go on after its ownership."""
        log = await KafkaLog.connect(self.kafka, load_topics(), client_id="test", read_only=True)
        deadline = time.monotonic() + START_S
        try:
            while time.monotonic() < deadline:
                for partition in range(log.partitions("completions")):
                    async for batch in log.scan("completions", partition, 0):
                        for record in batch:
                            event = decode(record.value or b"")
                            if isinstance(event, OwnerReleased) and any(
                                f"/{leaving.name}/" in running.runner for running in event.running
                            ):
                                return
                await asyncio.sleep(0.1)
        finally:
            await log.close()
        raise AssertionError(f"{leaving.name} has handed nothing over")

    def owner(self, workers: list[Process]) -> Process:
        """The worker that owns the partition of `default`: the one that holds a connection to the provider."""
        return next(worker for worker in workers if connections_to(worker.process.pid, self.provider_port))

    def close(self) -> None:
        for process in self.processes:
            if process.process.poll() is None:
                process.kill(signal.SIGCONT)
                process.kill(signal.SIGKILL)
                process.process.wait(10)
        self._provider.kill()
        self._provider.wait(10)


def connections_to(pid: int, port: int) -> bool:
    """Does the process hold a connection to the port? Read from /proc (Linux)."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    wanted = f":{port:04X}"
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[2].endswith(wanted) and fields[3] == "01" and fields[9] in inodes:
            return True
    return False
