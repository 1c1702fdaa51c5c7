"""The sandbox as a process of its own."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tollgate.sandbox import main


def test_the_process_serves_keeps_books_and_ends_when_told(tmp_path: Path):
    path = tmp_path / "ledger"
    command = [sys.executable, "-m", "tollgate.sandbox", "--port", "0", "--ledger", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("sandbox provider on http://127.0.0.1:")
            url = line.split()[-1]
            document = {"model": "sandbox-tok3-cut1", "messages": [{"role": "user", "content": "hi"}]}
            with pytest.raises(Exception, match="IncompleteRead"):
                call(f"{url}/v1/chat/completions", document)
            document["model"] = "sandbox-tok3"
            assert call(f"{url}/v1/chat/completions", document)["usage"]["completion_tokens"] == 3
            outcomes = [row["outcome"] for row in call(f"{url}/ledger")]
            assert outcomes == ["cut", "ok"]
        finally:
            process.send_signal(signal.SIGTERM)
            out, errors = process.communicate(timeout=10)
    assert (out, errors) == ("", "")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["seq"], row["outcome"]) for row in lines] == [(1, None), (1, "cut"), (2, None), (2, "ok")]


def test_a_wrong_argument_is_a_usage_error(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit:
        main(["--port", "many"])
    assert exit.value.code == 2
    assert "--port" in capsys.readouterr().err


def call(url: str, document: object = None) -> object:
    data = None if document is None else json.dumps(document).encode()
    with urlopen(Request(url, data=data), timeout=5) as response:
        return json.load(response)
