"""What an answer says, read by hand from a dialect's payloads: apart from the translators, to judge them by."""

from typing import Any, NamedTuple

import orjson


class Said(NamedTuple):
    """Text and refusals together, thoughts, and the calls as (name, arguments), all of the first choice."""

    text: str
    thoughts: str
    calls: tuple[tuple[str, Any], ...]


def openai_said(payloads: list[Any]) -> Said:
    """Of a completion, or of all chunks of one."""
    text, thoughts = "", ""
    calls: dict[Any, list[str]] = {}
    last: Any = None
    for payload in payloads:
        for choice in payload.get("choices") or []:
            if choice.get("index") not in (None, 0):
                continue
            whole = "message" in choice and len(payloads) == 1
            message = choice.get("message" if whole else "delta") or {}
            content = message.get("content") or ""
            if isinstance(content, list):
                text += "".join(part["text"] for part in content if part.get("type") == "text")
                inner = (part["thinking"] for part in content if part.get("type") == "thinking")
                thoughts += "".join(piece["text"] for pieces in inner for piece in pieces)
            else:
                text += content
            text += message.get("refusal") or ""
            details = message.get("reasoning_details") or []
            said = "".join(detail.get("text") or detail.get("summary") or "" for detail in details)
            thoughts += said or message.get("reasoning_content") or message.get("reasoning") or ""
            if function := message.get("function_call"):
                found = calls.setdefault("function_call", ["", "", ""])
                found[0] += function.get("name") or ""
                found[1] += function.get("arguments") or ""
            for at, call in enumerate(message.get("tool_calls") or []):
                key = call.get("index")
                if key is None:
                    key = at if whole else call.get("id") or last
                if call.get("id") and key in calls and calls[key][2] not in ("", call["id"]):
                    key = (key, call["id"])
                last = key
                found = calls.setdefault(key, ["", "", call.get("id") or ""])
                found[0] = found[0] or call["function"].get("name") or ""
                found[1] += call["function"].get("arguments") or ""
    return Said(text, thoughts, tuple((name, _json(arguments)) for name, arguments, _ in calls.values()))


def anthropic_said(payloads: list[Any]) -> Said:
    """Of a message, or of all events of one."""
    blocks: list[dict[str, Any]] = []
    by_index: dict[int, dict[str, Any]] = {}
    for payload in payloads:
        match payload.get("type"):
            case "message":
                blocks += payload["content"]
            case "content_block_start":
                by_index[payload["index"]] = block = dict(payload["content_block"])
                blocks.append(block)
            case "content_block_delta":
                block, delta = by_index[payload["index"]], payload["delta"]
                for field in ("text", "thinking", "partial_json"):
                    if field in delta:
                        block[field] = block.get(field, "") + delta[field]
    text = "".join(block["text"] for block in blocks if block["type"] == "text")
    thoughts = "".join(block["thinking"] for block in blocks if block["type"] == "thinking")
    calls = (
        (block["name"], _json(block["partial_json"]) if block.get("partial_json") else block["input"])
        for block in blocks
        if block["type"] == "tool_use"
    )
    return Said(text, thoughts, tuple(calls))


def responses_said(payloads: list[Any]) -> Said:
    """Of a response, or of all events of one: what came in pieces, or else what the end says."""
    last = payloads[-1]
    output = (last if last.get("object") == "response" else last["response"])["output"]
    pieces: dict[str, dict[Any, str]] = {}
    for payload in payloads:
        if isinstance(payload.get("delta"), str):
            place = payload["output_index"], payload.get("content_index"), payload.get("summary_index")
            found = pieces.setdefault(payload["type"], {})
            found[place] = found.get(place, "") + payload["delta"]
    text = thoughts = ""
    calls = []
    for at, item in enumerate(output):
        match item["type"]:
            case "message":
                text += "".join(part.get("text") or part.get("refusal") or "" for part in item["content"])
            case "reasoning":
                parts = item["summary"] or item.get("content") or []
                thoughts += "\n\n".join(part["text"] for part in parts)
            case "function_call":
                calls.append((item["name"], _json(item["arguments"])))
                told = pieces.get("response.function_call_arguments.delta", {}).get((at, None, None))
                assert told in (None, item["arguments"]), "the pieces of a call are not its whole"
    told = "".join(pieces.get("response.output_text.delta", {}).values())
    told_refused = "".join(pieces.get("response.refusal.delta", {}).values())
    assert told + told_refused in ("", text), "the pieces of the text are not its whole"
    return Said(text, thoughts, tuple(calls))


def gemini_said(payloads: list[Any]) -> Said:
    """Of an answer, or of all chunks of one."""
    parts = [
        part
        for payload in payloads
        for candidate in payload.get("candidates") or []
        if not candidate.get("index")
        for part in (candidate.get("content") or {}).get("parts") or []
    ]
    return Said(
        "".join(part.get("text") or "" for part in parts if not part.get("thought")),
        "".join(part.get("text") or "" for part in parts if part.get("thought")),
        tuple(
            (part["functionCall"]["name"], part["functionCall"].get("args") or {})
            for part in parts
            if "functionCall" in part
        ),
    )


def ollama_said(payloads: list[Any]) -> Said:
    """Of an answer, or of all lines of one, of a chat or a completion."""
    said = [payload.get("message") or {**payload, "content": payload.get("response")} for payload in payloads]
    return Said(
        "".join(one.get("content") or "" for one in said),
        "".join(one.get("thinking") or "" for one in said),
        tuple(
            (call["function"]["name"], call["function"]["arguments"])
            for one in said
            for call in one.get("tool_calls") or []
        ),
    )


SAID = {
    "openai": openai_said,
    "anthropic": anthropic_said,
    "responses": responses_said,
    "gemini": gemini_said,
    "ollama": ollama_said,
}


def _json(arguments: str) -> Any:
    try:
        return orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        return arguments
