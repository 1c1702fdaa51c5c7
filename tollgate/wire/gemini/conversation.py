"""The conversation of a request, written from the middle."""

import re
from collections.abc import Iterable, Mapping

from tollgate.wire import Body, neutral
from tollgate.wire.content import Audio, Document, Image, Part, Reasoning, Refused, Text, ToolCall, ToolResult, Turn
from tollgate.wire.gemini.parts import media_type_of
from tollgate.wire.gemini.words import BEFORE_3, HOME, pack_signature
from tollgate.wire.scope import Losses, NotCarried


def write_contents(turns: tuple[Turn, ...], model: str, losses: Losses) -> list[Body]:
    """Calls go without the ids of their providers where the model knows none; results then follow in the order of
    their calls, as they do anyway."""
    newest = not re.search(BEFORE_3, model)
    calls = [part.id for turn in turns for part in turn.parts if isinstance(part, ToolCall)]
    order = {id: at for at, id in enumerate(calls)}
    contents: list[Body] = []
    for turn in neutral.alternating(turns):
        if turn.role == "user":
            role, parts = "user", _write_parts(_in_order(turn.parts, order), losses)
        else:
            role, parts = "model", _write_spoken(turn.parts, losses)
        if parts:
            contents.append({"role": role, "parts": parts})
    if newest:
        _sign_calls(contents)
    else:
        _remove_ids(contents)
    return contents


def _in_order(parts: tuple[Part, ...], order: Mapping[str, int]) -> list[Part]:
    """A result holds text only: what else a tool has brought follows as the user's."""
    results = sorted(
        (part for part in parts if isinstance(part, ToolResult)), key=lambda part: order.get(part.call_id, len(order))
    )
    brought = [inner for result in results for inner in result.parts if not isinstance(inner, Text)]
    return [*results, *brought, *(part for part in parts if not isinstance(part, ToolResult))]


def _write_spoken(parts: tuple[Part, ...], losses: Losses) -> list[Body]:
    """What the model said. A signature that came with a text, and is kept beside it as a thought without words, goes
    back onto the text."""
    written: list[Body] = []
    text: Body | None = None
    signature: str | None = None
    for part in parts:
        if isinstance(part, Reasoning) and not part.text and part.redacted is None:
            signature = part.signature or signature
            continue
        bodies = _write_parts([part], losses)
        if isinstance(part, Text) and bodies:
            text = bodies[0]
        written += bodies
    if signature is not None and text is not None:
        text["thoughtSignature"] = signature
    elif signature is not None:
        written.append({"text": "", "thoughtSignature": signature})
    return written


# What the provider's page on thought signatures gives for calls that another model has made
_UNSIGNED = "skip_thought_signature_validator"


def _sign_calls(contents: list[Body]) -> None:
    """Since the user last spoke, the first call of each content must be signed, or the request is refused."""
    for content in reversed(contents):
        if content["role"] == "user" and any("functionResponse" not in part for part in content["parts"]):
            return
        call = next((part for part in content["parts"] if "functionCall" in part), None)
        if call is not None:
            call.setdefault("thoughtSignature", _UNSIGNED)


def _remove_ids(contents: list[Body]) -> None:
    for content in contents:
        for part in content["parts"]:
            for field in ("functionCall", "functionResponse"):
                if field in part:
                    part[field].pop("id", None)


def _write_parts(parts: Iterable[Part], losses: Losses) -> list[Body]:
    return [written for part in parts if (written := _write_part(part, losses)) is not None]


def _write_part(part: Part, losses: Losses) -> Body | None:
    """None for what says nothing: the protocol refuses an empty text."""
    match part:
        case Text() | Refused():
            return {"text": part.text} if part.text else None
        case Image():
            return _write_source(part.url, part.data, part.media_type, "image/jpeg")
        case Document() if part.text is not None:
            return {"text": neutral.document_text(part)}
        case Document():
            if part.name is not None:
                losses.drop(part.path, "name")
            return _write_source(part.url, part.data, part.media_type, "application/pdf")
        case Audio():
            return {"inlineData": {"mimeType": f"audio/{part.format}", "data": part.data}}
        case ToolCall():
            return write_call(part)
        case ToolResult():
            return _write_result(part)
        case Reasoning():
            thought: Body = {"text": part.text, "thought": True}
            return thought if part.signature is None else thought | {"thoughtSignature": part.signature}
        case _:
            raise NotCarried(part.path)


def write_call(call: ToolCall) -> Body:
    written: Body = {
        "functionCall": {"id": call.id, "name": call.name, "args": neutral.arguments_object(call.arguments)}
    }
    if call.signature is not None:
        written["thoughtSignature"] = pack_signature(call.signature, call.origin or HOME)
    return written


def _write_source(url: str | None, data: str | None, kind: str | None, otherwise: str) -> Body:
    if url is not None:
        return {"fileData": {"mimeType": kind or media_type_of(url) or otherwise, "fileUri": url}}
    return {"inlineData": {"mimeType": kind or otherwise, "data": data}}


def _write_result(result: ToolResult) -> Body:
    if not result.name:
        raise NotCarried(result.path, "answers no call of this conversation, and the Gemini protocol asks for its name")
    said = "\n".join(part.text for part in result.parts if isinstance(part, Text))
    if not said and result.parts:
        said = "(What this tool returned follows.)"
    response = {"error" if result.is_error else "output": said}
    return {"functionResponse": {"id": result.call_id, "name": result.name, "response": response}}
