"""How many tokens a request would have, `POST /v1/messages/count_tokens`: free, and in the books all the same."""

from collections.abc import Mapping

import orjson

from tollgate.events import Usage
from tollgate.wire import Ask, Body, Exchange, Extras, Meter, Quirks, UpstreamRequest, anthropic, fields, neutral
from tollgate.wire.anthropic.ask import user
from tollgate.wire.exchange import Passage
from tollgate.wire.failures import unreadable
from tollgate.wire.services import JSON, JsonService, input_bound, without_extensions

PATH = "/v1/messages/count_tokens"


def counted(input_tokens: int) -> bytes:
    """The answer where the gateway has counted by itself, for models of other protocols."""
    return orjson.dumps({"input_tokens": input_tokens, "estimated": True})


class CountTokens(JsonService):
    path = PATH

    @staticmethod
    def ask(body: Body) -> Ask:
        fields.messages(body)
        return Ask(
            model=fields.model(body),
            stream=False,
            input_bound_tokens=input_bound(body),
            max_output_tokens=0,
            user=user(body),
            free=True,
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
        sent = without_extensions(body) | {"model": model}
        request = UpstreamRequest(
            method="POST",
            path=cls.path,
            headers={"content-type": JSON, "accept": JSON, **anthropic.request_headers(headers)},
            body=orjson.dumps(sent),
            stream=False,
        )
        return Passage(cls(body, quirks), body, sent, request, quirks, ())

    def read_answer(self, answer: Body, meter: Meter, quirks: Quirks) -> None:
        if not answer.get("error") and neutral.tokens(answer, "input_tokens") is None:
            raise unreadable("it has no 'input_tokens'")
        super().read_answer(answer, meter, quirks)

    def meter(self, answer: Body, meter: Meter) -> None:
        meter.usage = Usage()  # nothing is charged for
        meter.finish_reason = "counted"

    def add_extras(self, answer: Body, extras: Extras) -> None:
        anthropic.add_extras(answer, extras)
