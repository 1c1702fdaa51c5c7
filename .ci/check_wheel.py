"""Builds the wheel, installs it into a clean environment, and uses it as a stranger would, from an empty directory.

What is printed at the start must work as printed: the URL answers, and so does the `curl` line.
"""

import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
START_S = 30
STOP_S = 40


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="tollgate-wheel-") as folder:
        wheel = build(Path(folder, "dist"))
        command = install(wheel, Path(folder, "venv"))
        empty = Path(folder, "empty")
        empty.mkdir()
        version = output([command, "--version"], cwd=empty)
        print(version)
        if version.split()[1] != wheel.name.split("-")[1]:
            raise SystemExit(f"{wheel.name} says that it is {version}")
        json.loads(output([command, "config", "schema"], cwd=empty))
        serve(command, empty)


def build(to: Path) -> Path:
    """The wheel, built from the source distribution as an installer without a checkout would."""
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", to, ROOT])
    (wheel,) = to.glob("*.whl")
    return wheel


def install(wheel: Path, into: Path) -> Path:
    """The installed command. The lock only constrains, so that what the wheel says it needs is what is tested."""
    venv.create(into, with_pip=True)
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    constraints = into / "constraints.txt"
    constraints.write_text("".join(f"{line.rstrip(' ' + chr(92))}\n" for line in lines if re.match(r"[a-z]", line)))
    pip = [into / "bin/python", "-m", "pip", "--disable-pip-version-check", "--quiet"]
    run([*pip, "install", "--constraint", constraints, wheel])
    run([*pip, "check"])
    return into / "bin/tollgate"


def serve(command: Path, cwd: Path) -> None:
    port = free_port()
    with (cwd / "out.txt").open("w") as out:
        gateway = subprocess.Popen([command, "serve", "--port", str(port)], cwd=cwd, stdout=out, stderr=out)
    try:
        wait_until_ready(f"http://127.0.0.1:{port}/readyz", gateway, cwd / "out.txt")
        answer = json.loads(output(["bash", "-c", printed_curl((cwd / "out.txt").read_text())], cwd=cwd))
        print(f"the printed curl was answered: {answer['choices'][0]['message']['content']!r}")
        gateway.send_signal(signal.SIGTERM)
        code = gateway.wait(STOP_S)
        if code != 0:
            raise SystemExit(f"serve ended with {code} on SIGTERM:\n{(cwd / 'out.txt').read_text()}")
    finally:
        if gateway.poll() is None:
            gateway.kill()
            gateway.wait()


def wait_until_ready(url: str, gateway: "subprocess.Popen[bytes]", printed: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and gateway.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                print(f"{url} answered {answer.status}")
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    raise SystemExit(f"{url} did not answer within {START_S} s; serve printed:\n{printed.read_text()}")


def printed_curl(text: str) -> str:
    """The `curl` command in what was printed, with the lines that continue it."""
    match = re.search(r"^\s*(curl (?:.*\\\n)*.*)$", text, re.MULTILINE)
    if match is None:
        raise SystemExit(f"serve printed no curl command:\n{text}")
    return match[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(command: list[str | Path]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def output(command: list[str | Path], *, cwd: Path) -> str:
    return subprocess.run(command, check=True, cwd=cwd, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
