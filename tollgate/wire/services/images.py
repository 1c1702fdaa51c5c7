"""Images, `POST /v1/images/generations`: charged by the tokens that the answer counts, or by the image."""

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
_NEUTRAL_AT: dict[str, tuple[object, ...]] = {"partial_images": (0,)}

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
            uncappable="size",  # it and the quality say how many tokens come out, by no published rule
        )

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
