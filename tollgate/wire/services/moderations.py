"""Moderations, `POST /v1/moderations`: is a text or an image harmful? Free at OpenAI, priced elsewhere."""

from tollgate.wire import Ask, Body, Meter, Quirks, fields
from tollgate.wire.failures import unreadable
from tollgate.wire.openai.usage import meter_usage
from tollgate.wire.services import JsonService, input_bound

_NEUTRAL = frozenset({"input", "model"})


class Moderations(JsonService):
    path = "/moderations"

    @staticmethod
    def ask(body: Body) -> Ask:
        given = body.get("input")
        if given is None:
            raise fields.missing("input")
        if not isinstance(given, str | list):
            raise fields.wrong_type("input", "a string or a list", given)
        return Ask(
            model=fields.model(body),
            stream=False,
            input_bound_tokens=input_bound(body),
            max_output_tokens=0,
            unbounded=_image(given) or fields.changes_price(body, _NEUTRAL, {}),
        )

    def read_answer(self, answer: Body, meter: Meter, quirks: Quirks) -> None:
        if not answer.get("error") and not isinstance(answer.get("results"), list):
            raise unreadable("it has no 'results'")
        super().read_answer(answer, meter, quirks)

    def meter(self, answer: Body, meter: Meter) -> None:
        meter_usage(meter, answer, answer.get("usage"), self.quirks)


def _image(given: str | list[object]) -> str | None:
    for at, part in enumerate(given if isinstance(given, list) else ()):
        if isinstance(part, dict) and part.get("type") != "text":
            return f"input[{at}]"
    return None
