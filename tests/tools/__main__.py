"""Programs that people use, as clients of a running gateway with the sandbox behind it: `make tools`.

Installs each from its own registry below build/tools (some hundred megabytes, once), gives it the gateway's address and
key as its manual says, has it complete one prompt, and looks whether the books hold the call. Where there are
recordings of real providers, the SDKs for Node are also asked for each of many recorded answers. Exit code 1 when one
fails. Needs npm for those that come from there. What is set here is what docs/clients.md says.
"""

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from tests.kafka_broker import free_port
from tests.tools import recordings
from tollgate.sandbox.answer import SENTENCES

ROOT = Path(__file__).parents[2]
HOME = ROOT / "build" / "tools"
TIMEOUT_S = 180
INSTALL_TIMEOUT_S = 900
PROMPT = "Say hello"
MODEL = "sandbox"
GATEWAY = [sys.executable, "-c", "from tollgate.app.cli import main; raise SystemExit(main())"]


class Place(NamedTuple):
    """The gateway, and a folder for one program to work in."""

    url: str
    key: str
    folder: Path


class Tool(NamedTuple):
    """`npm` or `pip` names what is installed; `run` gives the words to run and what the environment must say."""

    endpoint: str  # under which its calls stand in the books
    npm: tuple[str, ...]
    pip: tuple[str, ...]
    run: Callable[[Place], tuple[list[str], dict[str, str]]]


def bin_of(name: str, *, pip: bool = False) -> str:
    return str(HOME / name / "bin" / name) if pip else str(HOME / "node_modules" / ".bin" / name)


def claude_code(place: Place) -> tuple[list[str], dict[str, str]]:
    quiet = ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "DISABLE_TELEMETRY", "DISABLE_AUTOUPDATER")
    return [bin_of("claude"), "-p", PROMPT], {
        "ANTHROPIC_BASE_URL": place.url,
        "ANTHROPIC_AUTH_TOKEN": place.key,
        "ANTHROPIC_MODEL": MODEL,
        "ANTHROPIC_SMALL_FAST_MODEL": MODEL,
        **dict.fromkeys(quiet, "1"),
    }


def codex(place: Place) -> tuple[list[str], dict[str, str]]:
    home = place.folder / ".codex"
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(
        f'model = "{MODEL}"\nmodel_provider = "tollgate"\n[model_providers.tollgate]\nname = "tollgate"\n'
        f'base_url = "{place.url}/v1"\nenv_key = "TOLLGATE_KEY"\nwire_api = "responses"\n'
    )
    words = [bin_of("codex"), "exec", "--skip-git-repo-check", PROMPT]
    return words, {"CODEX_HOME": str(home), "TOLLGATE_KEY": place.key}


def aider(place: Place) -> tuple[list[str], dict[str, str]]:
    words = [bin_of("aider", pip=True), "--model", f"openai/{MODEL}", "--message", PROMPT, "--no-git", "--yes-always"]
    quiet = ["--no-show-model-warnings", "--no-check-update", "--analytics-disable", "--no-pretty"]
    # left to itself it keeps both in the root of the git repository around it
    history = [f"--{kind}-history-file={place.folder / kind}" for kind in ("chat", "input")]
    return [*words, *quiet, *history], {"OPENAI_API_BASE": f"{place.url}/v1", "OPENAI_API_KEY": place.key}


def llm(place: Place) -> tuple[list[str], dict[str, str]]:
    (place.folder / "extra-openai-models.yaml").write_text(
        f"- model_id: tollgate\n  model_name: {MODEL}\n  api_base: {place.url}/v1\n  api_key_name: tollgate\n"
    )
    words = [bin_of("llm", pip=True), "-m", "tollgate", "--key", place.key, PROMPT]
    return words, {"LLM_USER_PATH": str(place.folder)}


def node_sdks(place: Place) -> tuple[list[str], dict[str, str]]:
    shutil.copy(Path(__file__).parent / "node.mjs", HOME / "node.mjs")
    return ["node", str(HOME / "node.mjs")], {"TOLLGATE_URL": place.url, "TOLLGATE_KEY": place.key}


NODE_SDKS = ("openai", "@anthropic-ai/sdk")
RECORDINGS = "node-recordings"  # the SDKs for Node, before recorded answers instead of the sandbox

TOOLS = {
    "claude-code": Tool("/v1/messages", ("@anthropic-ai/claude-code",), (), claude_code),
    "codex": Tool("/v1/responses", ("@openai/codex",), (), codex),
    "aider": Tool("/v1/chat/completions", (), ("aider-chat",), aider),
    "llm": Tool("/v1/chat/completions", (), ("llm",), llm),
    "node-sdks": Tool("/v1/messages", NODE_SDKS, (), node_sdks),
    RECORDINGS: Tool("all three", NODE_SDKS, (), node_sdks),
}


def install(name: str, tool: Tool) -> None:
    HOME.mkdir(parents=True, exist_ok=True)
    if tool.npm:
        command = ["npm", "install", "--prefix", str(HOME), "--no-audit", "--no-fund", "--silent", *tool.npm]
        subprocess.run(command, check=True, timeout=INSTALL_TIMEOUT_S)
    if tool.pip and not (HOME / name / "bin" / name).exists():
        subprocess.run([sys.executable, "-m", "venv", str(HOME / name)], check=True, timeout=INSTALL_TIMEOUT_S)
        pip = [str(HOME / name / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
        subprocess.run([*pip, *tool.pip], check=True, timeout=INSTALL_TIMEOUT_S)


def use(name: str, tool: Tool) -> str:
    """Run it against a gateway of its own; returns what went wrong, or nothing."""
    folder = HOME / "work" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    place = Place(f"http://127.0.0.1:{free_port()}", secrets.token_hex(32), folder)
    env = {**os.environ, "TOLLGATE_ADMIN_KEY": place.key, "TOLLGATE_DATA": str(folder / "data")}
    serve = [*GATEWAY, "serve", "--port", place.url.rpartition(":")[2]]
    with subprocess.Popen(serve, cwd=folder, env=env, stdout=subprocess.DEVNULL) as gateway:
        try:
            wait_for(f"{place.url}/readyz")
            words, said = tool.run(place)
            own = {"PATH": os.environ["PATH"], "HOME": str(folder), "TERM": "dumb", **said}
            done = subprocess.run(
                words, cwd=folder, env=own, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S
            )
            query = "select endpoint, status from usage"
            booked = subprocess.run(
                [*GATEWAY, "sql", "--format", "json", query], cwd=folder, env=env, capture_output=True, text=True
            )
        finally:
            gateway.kill()
    said_words = " ".join(done.stdout.split())  # some wrap their lines
    if done.returncode != 0 or not any(sentence.decode() in said_words for sentence in SENTENCES):
        return f"exit code {done.returncode}: {(done.stdout + done.stderr)[-500:].replace(place.key, '***')}"
    if {"endpoint": tool.endpoint, "status": "completed"} not in json.loads(booked.stdout):
        return f"no completed request at {tool.endpoint} in the books"
    return ""


def wait_for(url: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"nothing answers at {url}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.tools", description=__doc__.splitlines()[0])
    parser.add_argument("tools", nargs="*", metavar="TOOL", help=f"some of {', '.join(TOOLS)}; all by default")
    names = parser.parse_args().tools or list(TOOLS)
    if unknown := [name for name in names if name not in TOOLS]:
        parser.error(f"{unknown[0]!r} is not one of {', '.join(TOOLS)}")
    console = Console()
    results: dict[str, str] = {}
    for name in names:
        with console.status(f"{name}: installing"):
            install(name, TOOLS[name])
        tried = "works"
        with console.status(f"{name}: at work"):
            if name == RECORDINGS:
                results[name], tried = recordings.check(HOME)
            else:
                results[name] = use(name, TOOLS[name])
        console.print(f"{name}: {results[name] or tried}")
    table = Table("program", "endpoint", "result")
    for name, problem in results.items():
        table.add_row(name, TOOLS[name].endpoint, "failed" if problem else "works")
    console.print(table)
    return 1 if any(results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
