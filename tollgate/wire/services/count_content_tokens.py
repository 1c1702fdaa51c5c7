"""How many tokens a request of Google's dialect would have, `POST /v1beta/models/{model}:countTokens`: free, and in the
books all the same. What is counted is `contents`, or a whole `generateContentRequest`, which names the model too."""

from collections.abc import Mapping

import orjson

from tollgate.events import Usage
from tollgate.wire import Ask, Body, Exchange, Extras, Meter, Quirks, UpstreamRequest, gemini, neutral
from tollgate.wire.exchange import Passage
from tollgate.wire.failures import unreadable
from tollgate.wire.services import JSON, JsonService, input_bound, without_extensions

PATH = "/v1beta/models/{model}:countTokens"
_WHOLE = ("generateContentRequest", "generate_content_request")


class CountContentTokens(JsonService):
    path = PATH

    @staticmethod
    def ask(body: Body) -> Ask:
        bound = input_bound(body)
        whole = next((body[field] for field in _WHOLE if isinstance(body.get(field), dict)), body)
        gemini.contents(whole)
        return Ask(
            model=gemini.model_name(body), stream=False, input_bound_tokens=bound, max_output_tokens=0, free=True
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
        sent = {field: value for field, value in without_extensions(body).items() if field not in gemini.PATH_FIELDS}
        for field in _WHOLE:
            if isinstance(whole := sent.get(field), dict):
                sent[field] = whole | {"model": gemini.resource(model).removeprefix("/")}
        request = UpstreamRequest(
            method="POST",
            path=f"{gemini.resource(model)}:countTokens",
            headers={"content-type": JSON, "accept": JSON},
            body=orjson.dumps(sent),
            stream=False,
        )
        return Passage(cls(body, quirks), body, sent, request, quirks, ())

    def read_answer(self, answer: Body, meter: Meter, quirks: Quirks) -> None:
        if not answer.get("error") and neutral.tokens(answer, "totalTokens") is None:
            raise unreadable("it has no 'totalTokens'")
        super().read_answer(answer, meter, quirks)

    def meter(self, answer: Body, meter: Meter) -> None:
        meter.usage = Usage()  # nothing is charged for
        meter.finish_reason = "counted"

    def add_extras(self, answer: Body, extras: Extras) -> None:
        gemini.add_extras(answer, extras)
