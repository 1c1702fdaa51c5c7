"""Recorded answers of providers whose protocol no client speaks, or whose streams are no server-sent events: told in
every dialect, and judged as the others are.

What the answer said is read here by hand from the provider's own payloads. Prints a table: file, and passed of tried.
"""

import base64
import re
from typing import Any, NamedTuple

import orjson
import pytest

from tests.conftest import SUMMARY
from tests.wire import recordings
from tests.wire.fixtures import DIALECTS, by_byte, payloads, stream, unary
from tests.wire.frames import frames, unframed
from tests.wire.recordings import MAX_CUT_BYTES, Table
from tests.wire.said import SAID, Said
from tests.wire.sdk import validate
from tollgate.errors import ERROR_CLASSES
from tollgate.events import Dialect
from tollgate.wire.exchange import PROTOCOLS

if not recordings.exists():
    pytest.skip(recordings.MISSING, allow_module_level=True)

# What cannot pass, and why
_OTHER = "an answer of the compatible endpoint, which its source keeps among those of the native one"
EXCEPTIONS = {"fd7869f7708c705e": _OTHER}


class Answer(NamedTuple):
    """A recorded answer, as bytes that a provider sends and as its payloads."""

    id: str
    model: str
    status: int
    headers: dict[str, str]
    body: bytes
    is_stream: bool
    came: list[Any]


def answers(name: str) -> list[Answer]:
    found = []
    for line in (recordings.FOLDER / f"{name}.jsonl").read_bytes().splitlines():
        row = orjson.loads(line)
        text = row["response_body"]
        body = base64.b64decode(text) if row["response_encoding"] == "base64" else text.encode()
        if row["fidelity"] == "response-only-chunks":  # the members of a stream without their frames
            body = frames(*(orjson.loads(member) for member in text.splitlines()))
        is_stream = "stream" in row["features"]
        came = READ[name.partition(".")[0]](body, is_stream) if row["status"] < 300 else []
        headers = row["response_headers"] or {}
        found.append(Answer(row["id"], row["model"] or "", row["status"], headers, body, is_stream, came))
    return found


def bedrock_payloads(body: bytes, is_stream: bool) -> list[Any]:
    return unframed(body) if is_stream else [orjson.loads(body)]


def mistral_payloads(body: bytes, is_stream: bool) -> list[Any]:
    return payloads(body.rstrip(b"\r\n") + b"\n\n") if is_stream else [orjson.loads(body)]


def ollama_payloads(body: bytes, is_stream: bool) -> list[Any]:
    return [orjson.loads(line) for line in body.splitlines() if line.strip()]


READ = {"bedrock": bedrock_payloads, "mistral": mistral_payloads, "ollama": ollama_payloads}


# What was said ------------------------------------------------------------------------------------------------------


def bedrock_said(came: list[Any]) -> Said:
    blocks: dict[int, dict[str, Any]] = {}
    for event in came:
        if "output" in event:
            blocks = dict(enumerate(map(_flat, event["output"]["message"]["content"])))
        for kind, payload in event.items():
            if kind == "contentBlockStart":
                blocks[payload["contentBlockIndex"]] = {**payload["start"].get("toolUse", {"other": ""}), "input": ""}
            elif kind == "contentBlockDelta":
                block = blocks.setdefault(payload["contentBlockIndex"], {})
                for field, value in _flat(payload["delta"]).items():
                    block[field] = block.get(field, "") + value if isinstance(value, str) else value
    mine = [block for block in blocks.values() if block.get("type") != "server_tool_use"]
    calls = tuple((block["name"], _object(block["input"])) for block in mine if "name" in block)
    return Said("".join(block.get("text", "") for block in mine), _thoughts(mine), calls)


def _thoughts(blocks: list[dict[str, Any]]) -> str:
    return "".join(block.get("thought", "") for block in blocks)


def _flat(block: dict[str, Any]) -> dict[str, Any]:
    match block:
        case {"toolUse": dict(call)}:
            return call
        case {"reasoningContent": {"reasoningText": {"text": text}}} | {"reasoningContent": {"text": text}}:
            return {"thought": text}
        case {"citationsContent": {"content": list(content)}}:
            return {"text": "".join(one["text"] for one in content)}
        case {"text": text}:
            return {"text": text}
    return {}


def _object(arguments: Any) -> Any:
    return orjson.loads(arguments or "{}") if isinstance(arguments, str) else arguments


FILES: dict[str, tuple[Dialect, Any]] = {
    "bedrock.converse": ("bedrock", bedrock_said),
    "bedrock.converse_stream": ("bedrock", bedrock_said),
    "mistral.chat": ("mistral", SAID["openai"]),
    "ollama.chat": ("ollama", SAID["ollama"]),
    "ollama.generate": ("ollama", SAID["ollama"]),
}


@pytest.mark.parametrize("name", FILES)
def test_every_recorded_answer_is_told_in_every_dialect(name, record_property):
    protocol, said = FILES[name]
    table = Table(name, EXCEPTIONS)
    for answer in answers(name):
        if answer.status >= 300:
            error = PROTOCOLS[protocol].provider_error(answer.status, answer.headers, answer.body)
            assert error.error_class in ERROR_CLASSES
            continue
        for client in DIALECTS:

            def tell(client=client, answer=answer):
                if answer.is_stream:
                    out, _ = stream(client, protocol, [answer.body])
                    told = payloads(out)
                else:
                    told = [unary(client, protocol, answer.body)[0]]
                assert SAID[client](told) == said(answer.came)
                for payload in told:
                    validate(client, payload, is_stream=answer.is_stream)

            def cut(client=client, answer=answer):
                whole, one = stream(client, protocol, [answer.body])
                pieces, other = stream(client, protocol, by_byte(answer.body))
                assert pieces == whole
                assert one.meter == other.meter

            table.check(client, answer, tell)
            if answer.is_stream and len(answer.body) <= MAX_CUT_BYTES:
                table.check(f"{client} cut", answer, cut)
    record_property(SUMMARY, str(table))
    assert not table.failures, "\n" + "\n".join(table.failures)


@pytest.mark.parametrize("name", FILES)
def test_every_answer_that_says_what_it_used_is_metered(name):
    protocol, _ = FILES[name]
    for answer in answers(name):
        if answer.status >= 300 or answer.id in EXCEPTIONS:
            continue
        exchange = (stream if answer.is_stream else unary)("openai", protocol, _whole(answer))[1]
        stated = re.search(rb'"(inputTokens|prompt_tokens|prompt_eval_count|eval_count)":', answer.body)
        assert (exchange.meter.usage is not None) == bool(stated), answer.id


def _whole(answer: Answer) -> Any:
    return [answer.body] if answer.is_stream else answer.body
