"""Thoughts in a client's request, where compatible servers have agreed to keep them, and signatures of calls."""

from tollgate.wire import Body, fields
from tollgate.wire.content import Reasoning
from tollgate.wire.openai.words import FORMATS
from tollgate.wire.scope import Losses


def drop_extra(call: Body, where: str, losses: Losses) -> None:
    """What is beside Google's signature in the place that it has made for itself."""
    extra, inside = call.get("extra_content"), f"{where}.extra_content"
    if isinstance(extra, dict):
        google = extra.get("google")
        losses.drop_others(extra, ("google",), inside)
        losses.drop_others(google if isinstance(google, dict) else {}, ("thought_signature",), f"{inside}.google")


def google_signature(call: Body) -> str | None:
    extra = call.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return signature if isinstance(signature, str) and signature else None


def read_thoughts(message: Body, where: str, losses: Losses) -> list[Reasoning]:
    details = message.get("reasoning_details")
    if isinstance(details, list) and details:
        here = f"{where}.reasoning_details"
        thoughts = [_read_detail(detail, here, losses) for detail in _joined(details)]
        if None in thoughts:
            losses.drop(here)
        return [thought for thought in thoughts if thought is not None]
    for field in ("reasoning_content", "reasoning"):
        if text := fields.text(message, field, path=f"{where}.{field}"):
            return [Reasoning(text=text, path=f"{where}.{field}")]
    return []


def _joined(details: list[object]) -> list[Body]:
    """The entries, without those that are none; fragments of a stream, which a client may hand back as they came, are
    put together by their type and index."""
    joined: dict[object, Body] = {}
    for at, detail in enumerate(details):
        if not isinstance(detail, dict):
            continue
        index = detail.get("index")
        key = (str(detail.get("type")), index) if isinstance(index, int) else at
        before = joined.setdefault(key, {})
        for field, value in detail.items():
            old = before.get(field)
            grows = field in ("text", "summary") and isinstance(old, str) and isinstance(value, str)
            before[field] = old + value if grows else value if value is not None else old
    return list(joined.values())


_DETAIL_FIELDS = frozenset({"type", "id", "index", "format", "text", "summary", "data", "signature"})


def _read_detail(detail: Body, where: str, losses: Losses) -> Reasoning | None:
    """An entry of `reasoning_details`; None where nobody could make anything of it."""
    losses.drop_others(detail, _DETAIL_FIELDS, where)
    kind, format = detail.get("type"), detail.get("format")
    origin = FORMATS.get(format) if isinstance(format, str) else None
    if kind == "reasoning.encrypted":
        data = detail.get("data")
        if not isinstance(data, str) or origin is None:
            return None
        return Reasoning(redacted=data, origin=origin, path=where)
    text, signature = detail.get("text" if kind == "reasoning.text" else "summary"), detail.get("signature")
    signature = signature if isinstance(signature, str) and signature and origin is not None else None
    text = text if isinstance(text, str) else ""
    if not text and signature is None:
        return None
    return Reasoning(text=text, signature=signature, origin=origin if signature is not None else None, path=where)
