"""The official SDKs for Node in front of recorded answers of real providers, as the tests have those for Python.

Each answer comes over real sockets, a stream event by event as it was recorded; the object in which the SDK ends it
says what the translation, judged elsewhere, says.
"""

import asyncio
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.sdk.replay import exchanges
from tests.sdk.site import FILES, Place, chosen, running, translated
from tests.wire import recordings
from tests.wire.said import SAID, Said
from tollgate.events import Dialect

TIMEOUT_S = 300
# What these SDKs cannot make an object of, though the gateway passes it on as it came
EXCUSED = {
    ("messages", "535987eb87f336d1"): "blocks of the beta interface, which it types elsewhere",
    ("messages", "392e4193a7cfbd4b"): "so it has",
    ("chat", "eb30b6c6b1b79f60"): "a stream whose provider never said why it ended",
}
APIS: dict[str, Dialect] = {"chat": "openai", "responses": "responses", "messages": "anthropic"}


class Case(NamedTuple):
    """One question: the recording, and what is to be heard; None where the provider's answer is a failure."""

    name: str
    api: str
    model: str
    stream: bool
    expected: Said | None


def check(home: Path) -> tuple[str, str]:
    """What went wrong, or nothing, and how much was tried. The SDKs are installed in `home`."""
    if not recordings.exists():
        return "", recordings.MISSING
    folder = home / "work" / "node-recordings"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    cases, heard = asyncio.run(_ask_all(home, folder))
    wrong = [
        f"{case.name} as {case.api}: {problem}"
        for case, line in zip(cases, heard, strict=True)
        if (problem := _problem(case, line)) is not None
    ]
    return "\n".join(wrong), f"{len(cases) - len(wrong)} of {len(cases)} answers"


async def _ask_all(home: Path, folder: Path) -> tuple[list[Case], list[Any]]:
    recorded = {name: list(exchanges(name)) for name in FILES}
    async with running(recorded, folder) as place:
        cases = list(_cases(place))
        questions = [{"api": case.api, "model": case.model, "stream": case.stream} for case in cases]
        (folder / "questions.json").write_text(json.dumps(questions))
        shutil.copy(Path(__file__).parent / "recordings.mjs", home / "recordings.mjs")
        node = await asyncio.create_subprocess_exec(
            "node",
            str(home / "recordings.mjs"),
            str(folder / "questions.json"),
            env={"PATH": os.environ["PATH"], "TOLLGATE_URL": place.url, "TOLLGATE_KEY": place.key},
            stdout=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(TIMEOUT_S):
            out, _ = await node.communicate()
        return cases, [json.loads(line) for line in out.splitlines()]


def _cases(place: Place) -> Iterator[Case]:
    for api, dialect in APIS.items():
        for name, protocol in FILES.items():
            for exchange in chosen(place.recorded[name]):
                if (api, exchange.id) in EXCUSED:
                    continue
                expected = translated(dialect, protocol, exchange)
                if api == "chat" and exchange.is_stream and expected is not None:
                    expected = expected._replace(thoughts="")  # of a field that is not OpenAI's it keeps the last piece
                yield Case(f"{exchange.id} of {name}", api, f"p-{protocol}/{exchange.id}", exchange.is_stream, expected)


def _problem(case: Case, line: Any) -> str | None:
    if "error" in line:
        return None if case.expected is None else f"{line['error']} {line.get('status', '')}"
    said = SAID[APIS[case.api]]([line["final"]])
    if case.api == "chat" and case.stream:
        said = said._replace(thoughts="")
    if said == case.expected:
        return None
    return (
        f"other {', '.join(part for part in Said._fields if getattr(said, part) != getattr(case.expected, part, None))}"
    )
