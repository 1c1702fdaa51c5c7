"""How many tokens a request of Google's dialect would have, `POST /v1beta/models/{model}:countTokens`.

What is counted is `contents`, or a whole `generateContentRequest`, which names the model too.
"""

from collections.abc import Mapping

from tollgate.wire import Ask, Body, Exchange, Extras, Quirks, gemini
from tollgate.wire.services import without_extensions
from tollgate.wire.services.counts import Counts

PATH = "/v1beta/models/{model}:countTokens"
_WHOLE = ("generateContentRequest", "generate_content_request")


class CountContentTokens(Counts):
    path = PATH
    total = "totalTokens"

    @staticmethod
    def ask(body: Body) -> Ask:
        told = Counts.free(body, model=gemini.model_name(body))
        gemini.contents(next((body[field] for field in _WHOLE if isinstance(body.get(field), dict)), body))
        return told

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
        return cls.counting(body, sent, path=f"{gemini.resource(model)}:countTokens", headers={}, quirks=quirks)

    def add_extras(self, answer: Body, extras: Extras) -> None:
        gemini.add_extras(answer, extras)
