"""Moderations, `POST /v1/moderations`: is a text or an image harmful? Free at OpenAI, priced elsewhere.

Who charges for it states the usage. Where none is stated nothing is counted, so that nobody pays for a guess.
"""

from collections.abc import Mapping

from tollgate.events import Usage
from tollgate.wire import Ask, Body, Exchange, Meter, Quirks, fields
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

    @classmethod
    def exchange(
        cls,
        body: Body,
        *,
        request_id: str,
        model: str,
        max_output_tokens: int | None,
        headers: Mapping[str, str],
        quirks: Quirks,
    ) -> Exchange:
        exchange = super().exchange(
            body,
            request_id=request_id,
            model=model,
            max_output_tokens=max_output_tokens,
            headers=headers,
            quirks=quirks,
        )
        exchange.meter.estimate = Usage()
        return exchange

    def read_answer(self, answer: Body, meter: Meter, quirks: Quirks) -> None:
        if not answer.get("error") and not isinstance(answer.get("results"), list):
            raise unreadable("it has no 'results'")
        super().read_answer(answer, meter, quirks)

    def meter(self, answer: Body, meter: Meter) -> None:
        meter_usage(meter, answer, answer.get("usage"), self.quirks)
        if meter.usage is not None:
            meter.estimate = None


def _image(given: str | list[object]) -> str | None:
    for at, part in enumerate(given if isinstance(given, list) else ()):
        if isinstance(part, dict) and part.get("type") != "text":
            return f"input[{at}]"
    return None
