"""Images, `POST /v1/images/generations`: charged by the tokens that the answer counts, or by the image."""

import re

from tollgate.events import Usage
from tollgate.wire import Ask, Body, Meter, Quirks, fields, neutral
from tollgate.wire.failures import unreadable
from tollgate.wire.services import JsonService, input_bound, token_usage

MAX_IMAGES = 10
DEFAULT_MODEL = "dall-e-2"  # what the API takes when none is named
_MAX_WORD_CHARS = 32

_NEUTRAL = frozenset(
    {
        "background",
        "model",
        "moderation",
        "n",
        "output_compression",
        "output_format",
        "prompt",
        "quality",
        "response_format",
        "size",
        "stream",
        "style",
        "user",
    }
)
_NEUTRAL_AT: dict[str, tuple[object, ...]] = {"partial_images": (0, 1, 2, 3)}

# Tokens of one image, as OpenAI's guide to image generation tabulates them for the models before gpt-image-2
# (https://developers.openai.com/api/docs/guides/image-generation, "Cost and latency"). Of gpt-image-1.5, which also
# writes text, and of gpt-image-2 there is no such table. A preview on the way is so many tokens more.
_TABULATED = re.compile(r"gpt-image-1(-mini)?(-\d{4}-\d{2}-\d{2})?")
_TOKENS = {
    "low": {"1024x1024": 272, "1024x1536": 408, "1536x1024": 400},
    "medium": {"1024x1024": 1056, "1024x1536": 1584, "1536x1024": 1568},
    "high": {"1024x1024": 4160, "1024x1536": 6240, "1536x1024": 6208},
}
_PREVIEW_TOKENS = 100
_ANY = ("auto", None)  # whoever does not say leaves it to the model

# What was meant where neither request nor answer says it: these choose the price of an image
_DEFAULTS = {"quality": "standard", "size": "1024x1024"}


class Images(JsonService):
    path = "/images/generations"
    ends = frozenset({"image_generation.completed"})

    @staticmethod
    def ask(body: Body) -> Ask:
        if body.get("prompt") is None:
            raise fields.missing("prompt")
        fields.text(body, "prompt")
        count = fields.integer(body, "n", minimum=1, maximum=MAX_IMAGES) or 1
        return Ask(
            model=fields.model(body),
            stream=fields.boolean(body, "stream"),
            input_bound_tokens=input_bound(body),
            user=fields.text(body, "user"),
            unbounded=fields.changes_price(body, _NEUTRAL, _NEUTRAL_AT),
            limits=Usage(images=count),
            uncappable="size",  # it and the quality say how many tokens come out
        )

    @staticmethod
    def most_output_tokens(body: Body, model: str) -> int | None:
        if not _TABULATED.fullmatch(model):
            return None
        quality, size, previews = (body.get(name) for name in ("quality", "size", "partial_images"))
        found = [
            tokens
            for word, sizes in _TOKENS.items()
            for words, tokens in sizes.items()
            if (quality in _ANY or quality == word) and (size in _ANY or size == words)
        ]
        return max(found) + _PREVIEW_TOKENS * (previews if isinstance(previews, int) else 0) if found else None

    def read_answer(self, answer: Body, meter: Meter, quirks: Quirks) -> None:
        if not answer.get("error") and not isinstance(answer.get("data"), list):
            raise unreadable("it has no 'data'")
        super().read_answer(answer, meter, quirks)

    def meter(self, answer: Body, meter: Meter) -> None:
        data = answer.get("data")
        images = len(data) if isinstance(data, list) else 1  # the end of a stream holds one
        meter.usage = Usage(images=images)
        block = answer.get("usage")
        if isinstance(block, dict) and (usage := token_usage(block)) is not None:
            output = usage.output_image_tokens or usage.output_tokens
            text = usage.output_tokens if usage.output_image_tokens else 0
            meter.usage = Usage(
                input_tokens=usage.input_tokens,
                input_image_tokens=usage.input_image_tokens,
                output_tokens=text,
                output_image_tokens=output,
                images=images,
            )
            meter.usage_raw = neutral.compact(block)
        meter.price_context = {name: _said(name, answer, self.body) for name in _DEFAULTS}


def _said(name: str, answer: Body, body: Body) -> str:
    for source in (answer, body):
        value = source.get(name)
        if isinstance(value, str) and value != "auto" and len(value) <= _MAX_WORD_CHARS:
            return value
    return _DEFAULTS[name]
