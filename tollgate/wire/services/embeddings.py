"""OpenAI's embeddings, `POST /v1/embeddings`: vectors as numbers, or as base64 of 32-bit floats in little-endian order.

A client gets the form that it asked for, also from a provider that knows only the other.
"""

import base64
import binascii
import sys
from array import array

from tollgate.events import Usage
from tollgate.wire import Ask, Body, Extras, Meter, Quirks, fields, neutral
from tollgate.wire.failures import unreadable
from tollgate.wire.services import input_bound, vectors
from tollgate.wire.services.embedding import Embedding
from tollgate.wire.stated import stated_cost_pusd

_FORMATS = ("float", "base64")
_NEUTRAL = frozenset({"dimensions", "encoding_format", "input", "input_type", "model", "truncation", "user"})


class Embeddings(Embedding):
    path = "/embeddings"
    dialect = "openai"
    form = vectors.OPENAI

    @staticmethod
    def ask(body: Body) -> Ask:
        if body.get("input") is None:
            raise fields.missing("input")
        if not isinstance(body["input"], str | list):
            raise fields.wrong_type("input", "a string or a list", body["input"])
        wanted = fields.text(body, "encoding_format")
        if wanted not in (None, *_FORMATS):
            raise fields.invalid("encoding_format", f"must be one of {', '.join(_FORMATS)}")
        return Ask(
            model=fields.model(body),
            stream=False,
            input_bound_tokens=input_bound(body),
            max_output_tokens=0,
            user=fields.text(body, "user"),
            unbounded=_unbounded(body),
        )

    def read_answer(self, answer: Body, meter: Meter, quirks: Quirks) -> None:
        if not answer.get("error") and not isinstance(answer.get("data"), list):
            raise unreadable("it has no 'data'")
        super().read_answer(answer, meter, quirks)

    def meter(self, answer: Body, meter: Meter) -> None:
        wanted = self.body.get("encoding_format") or "float"
        for item in answer["data"]:
            if not isinstance(item, dict):
                raise unreadable("an embedding is not an object")
            if "embedding" in item:
                item["embedding"] = _as(wanted, item["embedding"])
        block = answer.get("usage")
        if not isinstance(block, dict):
            return
        counted = neutral.tokens(block, "prompt_tokens")
        counted = neutral.tokens(block, "total_tokens") if counted is None else counted  # Voyage has the total only
        if counted is not None:
            meter.usage = Usage(input_tokens=counted)
            meter.usage_raw = neutral.compact(block)
            meter.stated_cost_pusd = stated_cost_pusd(block) if self.quirks.states_cost else None

    def answer_body(self, found: vectors.Vectors, meter: Meter, texts: vectors.Texts) -> Body:
        answer = super().answer_body(found, meter, texts)
        wanted = self.body.get("encoding_format") or "float"
        for item in answer["data"]:
            item["embedding"] = _as(wanted, item["embedding"])
        return answer

    def add_extras(self, answer: Body, extras: Extras) -> None:
        super().add_extras(answer, extras)
        if isinstance(usage := answer.get("usage"), dict):  # the SDKs' types require both
            usage.setdefault("prompt_tokens", usage.get("total_tokens", 0))
            usage.setdefault("total_tokens", usage["prompt_tokens"])


def _unbounded(body: Body) -> str | None:
    """Text and tokens have no more tokens than bytes; what else a provider may take is not known."""
    items = body["input"]
    for at, item in enumerate(items if isinstance(items, list) else ()):
        if isinstance(item, dict):
            return f"input[{at}]"
    return fields.changes_price(body, _NEUTRAL, {})


def _as(wanted: str, vector: object) -> object:
    """The vector in the form that is wanted. One of another kind, such as of integers per type, is left as it is."""
    if wanted == "base64" and isinstance(vector, list) and all(isinstance(one, int | float) for one in vector):
        return base64.b64encode(_little_endian(array("f", vector)).tobytes()).decode()
    if wanted == "float" and isinstance(vector, str):
        try:
            floats = array("f", base64.b64decode(vector, validate=True))
        except (binascii.Error, ValueError):
            raise unreadable("an embedding is not base64 of 32-bit floats") from None
        return _little_endian(floats).tolist()
    return vector


def _little_endian(floats: "array[float]") -> "array[float]":
    if sys.byteorder == "big":
        floats.byteswap()
    return floats
