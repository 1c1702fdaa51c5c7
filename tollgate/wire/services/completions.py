"""Completions of a text, `POST /v1/completions`: the older form, for models that know no conversation."""

from tollgate.wire import Ask, Body, Extras, Meter, Quirks, failures, fields, neutral, sse
from tollgate.wire.content import Delta
from tollgate.wire.failures import unreadable
from tollgate.wire.neutral import Mark, Reader, parse
from tollgate.wire.openai import reply
from tollgate.wire.openai.usage import meter_usage
from tollgate.wire.openai.words import DONE, MAX_CHOICES, wants_usage
from tollgate.wire.services import JsonService, input_bound

MAX_PROMPTS = 2048  # in one request, as the API reference has it for inputs of its services

# Fields that leave the price of a token as it is, and the number of tokens within the bounds
_NEUTRAL = frozenset(
    {
        "best_of",
        "echo",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_tokens",
        "min_p",
        "model",
        "n",
        "presence_penalty",
        "prompt",
        "repetition_penalty",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "suffix",
        "temperature",
        "top_k",
        "top_p",
        "user",
    }
)


class Completions(JsonService):
    path = "/completions"

    @staticmethod
    def ask(body: Body) -> Ask:
        wants_usage(body)
        prompts = len(_prompts(body))
        n = fields.integer(body, "n", minimum=1, maximum=MAX_CHOICES) or 1
        best_of = fields.integer(body, "best_of", minimum=1, maximum=MAX_CHOICES) or 1
        return Ask(
            model=fields.model(body),
            stream=fields.boolean(body, "stream"),
            input_bound_tokens=input_bound(body),
            max_output_tokens=fields.integer(body, "max_tokens", minimum=0),
            choices=prompts * max(n, best_of),
            user=fields.text(body, "user"),
            unbounded=fields.changes_price(body, _NEUTRAL, {}),
        )

    def sent(self, *, model: str, max_output_tokens: int | None) -> Body:
        sent = super().sent(model=model, max_output_tokens=max_output_tokens)
        if max_output_tokens is not None:
            sent["max_tokens"] = max_output_tokens
        if self.is_stream:  # without it, a stream says nothing of what it used
            sent["stream_options"] = {**(sent.get("stream_options") or {}), "include_usage": True}
        return sent

    def read_answer(self, answer: Body, meter: Meter, quirks: Quirks) -> None:
        choices = answer.get("choices")
        if not answer.get("error") and not isinstance(choices, list):
            raise unreadable("it has no 'choices'")
        super().read_answer(answer, meter, quirks)

    def meter(self, answer: Body, meter: Meter) -> None:
        for choice in answer["choices"]:
            if not isinstance(choice, dict):
                raise unreadable("a choice is not an object")
            meter.output_bytes += neutral.text_bytes(choice.get("text"))
            if isinstance(reason := choice.get("finish_reason"), str):
                meter.finish_reason = reason
        meter_usage(meter, answer, answer.get("usage"), self.quirks)

    def reader(self, meter: Meter, body: Body, quirks: Quirks) -> Reader:
        return _Reader(meter, len(_prompts(self.body)) * (self.body.get("n") or 1), quirks)

    def write_tail(self, events: list[sse.Event], body: Body, extras: Extras) -> bytes:
        return reply.write_tail(events, body, extras)


class _Reader:
    """Chunks of a stream. The answer is finished when as many choices are as were asked for."""

    def __init__(self, meter: Meter, choices: int, quirks: Quirks) -> None:
        self._meter = meter
        self._choices = choices
        self._quirks = quirks
        self.deltas: list[Delta] = []
        self.finishes: dict[int, str] = {}

    def read(self, event: sse.Event) -> Mark:
        self.deltas = []
        if not event.data:
            return Mark.OTHER
        if event.data == DONE:
            return Mark.END
        chunk = parse(event.data)
        if chunk.get("error"):
            raise failures.inband_error(chunk)
        model, usage, choices = chunk.get("model"), chunk.get("usage"), chunk.get("choices")
        if isinstance(model, str) and model:
            self._meter.served_model = model
        meter_usage(self._meter, chunk, usage, self._quirks)
        if not choices:
            return Mark.CLOSING if usage else Mark.OTHER
        if not isinstance(choices, list):
            raise unreadable("'choices' is not a list")
        return max(self._read_choice(choice) for choice in choices)

    def _read_choice(self, choice: object) -> Mark:
        if not isinstance(choice, dict):
            raise unreadable("a choice is not an object")
        mark = Mark.OTHER
        if text := choice.get("text"):
            self._meter.content_started = True
            self._meter.output_bytes += neutral.text_bytes(text)
            self.deltas.append(Delta(text=str(text)))
            mark = Mark.CONTENT
        if reason := choice.get("finish_reason"):
            self._meter.finish_reason = str(reason)
            number = choice.get("index")
            self.finishes[number if isinstance(number, int) else 0] = str(reason)
            if len(self.finishes) >= self._choices:
                mark = Mark.CLOSING
        return mark


def _prompts(body: Body) -> list[object]:
    """The prompts: a string, a list of tokens, or a list of either. Without one the model begins by itself."""
    prompt = body.get("prompt")
    if prompt is None or isinstance(prompt, str):
        return [prompt]
    if not isinstance(prompt, list):
        raise fields.wrong_type("prompt", "a string or a list", prompt)
    if not prompt:
        raise fields.invalid("prompt", "must not be empty", code="empty_array")
    if isinstance(prompt[0], int):
        return [prompt]
    if len(prompt) > MAX_PROMPTS:
        raise fields.invalid("prompt", f"may have {MAX_PROMPTS} entries", code="array_above_max_length")
    return prompt
