"""The parts of a conversation as a client of this dialect has them, read into the middle.

Calls and results are matched by name and order: the protocol has ids, but most clients leave them out.
"""

import mimetypes
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from tollgate.wire import Body, fields, neutral
from tollgate.wire.calls import Calls
from tollgate.wire.content import (
    Audio,
    Document,
    Image,
    Part,
    Reasoning,
    ResultPart,
    Text,
    ToolCall,
    ToolResult,
)
from tollgate.wire.gemini.words import standard_base64, unpack_signature
from tollgate.wire.scope import Losses, NotCarried

# What the provider's own tools left in the conversation: their findings are in the text that follows.
_OWN_TOOLS = frozenset({"codeExecutionResult", "executableCode", "toolCall", "toolResponse"})
_BESIDE = frozenset({"thought", "thoughtSignature"})


def read_part(part: Body, where: str, calls: Calls, losses: Losses) -> list[Part]:
    signature = fields.text(part, "thoughtSignature", path=f"{where}.thoughtSignature")
    for field, read in _READERS.items():
        if part.get(field) is not None:
            losses.drop_others(part, _BESIDE | {field}, where)
            return read(part, where, signature, calls, losses)
    for field in part:
        if field in _OWN_TOOLS:
            losses.drop(f"{where}.{field}")
            return []
    if signature:  # alone: it belongs to what the model has said
        return [_signed(signature, "", where)]
    if set(part) <= _BESIDE:
        return []
    raise NotCarried(f"{where}.{next(iter(part))}")


def _signed(signature: str, text: str, where: str) -> Reasoning:
    value, origin, redacted = unpack_signature(signature)
    if redacted:
        return Reasoning(redacted=value, origin=origin, path=where)
    return Reasoning(text=text, signature=value, origin=origin, path=where)


def _read_text(part: Body, where: str, signature: str | None, calls: Calls, losses: Losses) -> list[Part]:
    """A signature may lie on a thought, or on the text that follows unseen thoughts."""
    text = fields.required_text(part, "text", where)
    if part.get("thought") is True:
        return [_signed(signature, text, where) if signature else Reasoning(text=text, path=where)]
    said: list[Part] = [Text(text=text, path=f"{where}.text")] if text or not signature else []
    return [*said, _signed(signature, "", f"{where}.thoughtSignature")] if signature else said


def _read_call(part: Body, where: str, signature: str | None, calls: Calls, losses: Losses) -> list[Part]:
    inside = f"{where}.functionCall"
    call = fields.mapping(part, "functionCall", path=inside)
    losses.drop_others(call, ("id", "name", "args"), inside)
    name = fields.required_text(call, "name", inside)
    value, origin = None, None
    if signature:
        value, origin, _ = unpack_signature(signature)
    return [
        ToolCall(
            id=calls.call(name, fields.text(call, "id", path=f"{inside}.id")),
            name=name,
            arguments=neutral.compact(fields.mapping(call, "args", path=f"{inside}.args")),
            signature=value,
            origin=origin,
            path=where,
        )
    ]


def _read_result(part: Body, where: str, signature: str | None, calls: Calls, losses: Losses) -> list[Part]:
    """`output` alone is what the tool said, `error` alone that it failed; any other object says it as a whole."""
    inside = f"{where}.functionResponse"
    result = fields.mapping(part, "functionResponse", path=inside)
    losses.drop_others(result, ("id", "name", "response", "parts"), inside)
    name = fields.required_text(result, "name", inside)
    response = fields.mapping(result, "response", path=f"{inside}.response")
    key = next(iter(response), "") if len(response) == 1 else ""
    said = response.get(key) if key in ("output", "error") else response
    shown: list[ResultPart] = []
    if response:
        text = said if isinstance(said, str) else neutral.compact(said)
        shown.append(Text(text=text, path=f"{inside}.response"))
    for at, inner in enumerate(fields.items(result, "parts", path=f"{inside}.parts")):
        here = f"{inside}.parts[{at}]"
        if not isinstance(inner, dict):
            raise fields.wrong_type(here, "an object", inner)
        for read in read_part(inner, here, calls, losses):
            if not isinstance(read, ResultPart):
                raise NotCarried(here)
            shown.append(read)
    return [
        ToolResult(
            call_id=calls.result(name, fields.text(result, "id", path=f"{inside}.id") or None),
            name=name,
            parts=tuple(shown),
            is_error=key == "error",
            path=where,
        )
    ]


def _read_inline(part: Body, where: str, signature: str | None, calls: Calls, losses: Losses) -> list[Part]:
    inside = f"{where}.inlineData"
    blob = fields.mapping(part, "inlineData", path=inside)
    losses.drop_others(blob, ("mimeType", "data", "displayName"), inside)
    kind = fields.required_text(blob, "mimeType", inside)
    data = standard_base64(fields.required_text(blob, "data", inside))
    name = fields.text(blob, "displayName", path=f"{inside}.displayName")
    match kind.partition("/")[0]:
        case "image":
            return [Image(data=data, media_type=kind, path=where)]
        case "audio":
            return [Audio(data=data, format=_audio_format(kind), path=where)]
        case "video":
            raise NotCarried(inside)
        case _:
            return [Document(data=data, media_type=kind, name=name, path=where)]


def _audio_format(kind: str) -> str:
    name = kind.partition("/")[2].partition(";")[0].removeprefix("x-")
    return {"mpeg": "mp3", "wave": "wav"}.get(name, name)


def _read_file(part: Body, where: str, signature: str | None, calls: Calls, losses: Losses) -> list[Part]:
    """A file on the web. One that lies at the provider cannot be read from elsewhere."""
    inside = f"{where}.fileData"
    file = fields.mapping(part, "fileData", path=inside)
    losses.drop_others(file, ("mimeType", "fileUri", "displayName"), inside)
    url = fields.required_text(file, "fileUri", inside)
    kind = fields.text(file, "mimeType", path=f"{inside}.mimeType") or media_type_of(url) or ""
    at_provider = not url.startswith(("http://", "https://")) or (urlsplit(url).hostname or "") in _AT_THE_PROVIDER
    if at_provider or kind.startswith(("video/", "audio/")):
        raise NotCarried(f"{inside}.fileUri")
    if kind.startswith("image/"):
        return [Image(url=url, media_type=kind, path=where)]
    name = fields.text(file, "displayName", path=f"{inside}.displayName")
    return [Document(url=url, media_type=kind or None, name=name, path=where)]


_AT_THE_PROVIDER = frozenset(
    {"generativelanguage.googleapis.com", "youtube.com", "www.youtube.com", "m.youtube.com", "youtu.be"}
)


def media_type_of(url: str) -> str | None:
    """What the name at the end of a URL says of its content."""
    try:
        return mimetypes.guess_type(urlsplit(url).path)[0]
    except ValueError:  # not a URL, whatever it is
        return None


_Reader = Callable[[Body, str, str | None, Calls, Losses], list[Part]]
_READERS: Mapping[str, _Reader] = {
    "text": _read_text,
    "functionCall": _read_call,
    "functionResponse": _read_result,
    "inlineData": _read_inline,
    "fileData": _read_file,
}
