"""The processes that are measured: a gateway as its users start it, and the mock upstream that it calls.

Both listen on the loopback interface; the gateway's data lies in a folder that is gone afterwards.
"""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.load import Order, Outcome

START_S = 60.0  # for a process to say where it listens, and then to be ready
STOP_S = 40.0  # for the requests under way, the sink and the log
POLL_S = 0.01
BUDGET_USD = "1000000000"  # never used up, so every request places a hold and none is refused

_TOLLGATE = str(Path(sys.executable).with_name("tollgate"))
_PORT = re.compile(r"http://[^/]*:(\d+)")
_CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

# Durable against power loss, and one provider that is reached over HTTP.
_GATEWAY_YAML = """\
log: {{broker: embedded, durability: power}}
sandbox: false
providers:
  upstream: {{protocol: openai, base_url: "http://127.0.0.1:{port}/v1", api_key: not-a-secret, models: [sandbox*]}}
"""
PRICING_YAML = """\
models:
  "upstream/*": {input: 2.50, output: 10.00, cache_read: 0.25, cache_write: 3.125}
"""


def cpu_s_of(pid: int) -> float:
    """What all threads of a process have used since it started, in user and in kernel mode."""
    # proc(5): utime and stime are the 12th and 13th field after the command's name, which stands in brackets.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS_PER_S


class Process:
    """A command that prints one line with its URL once it listens, and stops on SIGTERM."""

    def __init__(self, *words: str, folder: Path, environment: dict[str, str] | None = None) -> None:
        self.started = time.perf_counter()
        self._process = subprocess.Popen(
            [_TOLLGATE, *words], cwd=folder, env=os.environ | (environment or {}), stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"'tollgate {' '.join(words)}' ended with {self._process.wait()} before it listened")
        self.ready_s = time.perf_counter() - self.started
        """When it said so: for a role, once it has taken over what there is."""
        port = _PORT.search(line)
        assert port is not None, line
        self.port = int(port[1])

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu_s(self) -> float:
        """What all its threads have used since it started, in user and in kernel mode."""
        return cpu_s_of(self._process.pid)

    def rss_mb(self) -> float:
        """Its memory in RAM, in MiB."""
        return int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]) * _PAGE_BYTES / (1 << 20)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it and wait until it has ended."""
        self._process.send_signal(number)
        try:
            self._process.wait(STOP_S)
        finally:
            self._process.kill()


class Gateway:
    """The gateway on its embedded log, with the mock as its only provider and a key that has a budget."""

    def __init__(self, folder: Path, upstream: Process) -> None:
        self._folder = folder
        (folder / "gateway.yaml").write_text(_GATEWAY_YAML.format(port=upstream.port))
        (folder / "pricing.yaml").write_text(PRICING_YAML)
        self.process = self._start()
        self.key = self._create_key()

    def stop_and_fill(self, filling: Callable[[Path], None]) -> None:
        """Stop it, and have its data folder filled."""
        self.process.stop()
        filling(self._folder / "data")

    def start(self) -> float:
        """Start it again; return the seconds to the first `/readyz` of 200."""
        self.process = self._start()
        return time.perf_counter() - self.process.started

    def restart(self, number: signal.Signals) -> float:
        """End it by the signal and start it again; return the seconds from the start to the first `/readyz` of 200."""
        self.process.stop(number)
        return self.start()

    def forced_writes_ms(self, writes: int = 200) -> list[float]:
        """How long the disk of its data takes for 8 KiB, one write after the other."""
        times_ms = []
        with tempfile.TemporaryFile(dir=self._folder) as file:
            for _ in range(writes):
                began = time.perf_counter()
                os.write(file.fileno(), bytes(8192))
                os.fdatasync(file.fileno())
                times_ms.append((time.perf_counter() - began) * 1000)
                time.sleep(POLL_S)
        return times_ms

    def _start(self) -> Process:
        process = Process(
            "serve", "--port", "0", folder=self._folder, environment={"TOLLGATE_DATA": str(self._folder / "data")}
        )
        until = time.perf_counter() + START_S
        while call(process.port, "GET", "/readyz")[0] != 200:
            if time.perf_counter() > until:
                raise RuntimeError(f"the gateway was not ready within {START_S:.0f} s")
            time.sleep(POLL_S)
        return process

    def _create_key(self) -> str:
        admin_key = (self._folder / "data" / "admin.key").read_text().strip()
        form = {"name": "benchmark", "quota": {"monthly_budget": BUDGET_USD}}
        status, answer = call(self.process.port, "POST", "/v1/keys", form, key=admin_key)
        if status != 201:
            raise RuntimeError(f"no key was created: {status} {answer}")
        return str(answer["key"])


@contextmanager
def running(folder: Path) -> Iterator[tuple[Process, Gateway]]:
    """The mock upstream and the gateway, both started, and stopped in the end."""
    upstream = Process("sandbox", "--port", "0", folder=folder)
    try:
        gateway = Gateway(folder, upstream)
        try:
            yield upstream, gateway
        finally:
            gateway.process.stop()
    finally:
        upstream.stop()


def load(order: Order) -> Outcome:
    """Have the order carried out by a process of its own. Raises `RuntimeError` when a request failed."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load"],
        cwd=Path(__file__).parents[1],
        input=msgspec.json.encode(order),
        stdout=subprocess.PIPE,
        check=True,
        timeout=order.limit_s + START_S,
    )
    outcome = msgspec.json.decode(done.stdout, type=Outcome)
    failures = sum(times.failures for times in outcome.times)
    if failures:
        raise RuntimeError(f"{failures} of {order.requests} requests failed; the figures would mean nothing")
    return outcome


def call(port: int, method: str, path: str, form: Any = None, *, key: str = "", parse: bool = True) -> tuple[int, Any]:
    """One request: status, and the answer as JSON or, if it is not to be parsed, as text."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_S)
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    try:
        connection.request(method, path, None if form is None else json.dumps(form), headers)
        response = connection.getresponse()
        answer = response.read()
        return response.status, json.loads(answer) if parse else answer.decode()
    finally:
        connection.close()
