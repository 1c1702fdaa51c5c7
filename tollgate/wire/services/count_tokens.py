"""How many tokens a request of Anthropic's dialect would have, `POST /v1/messages/count_tokens`."""

from collections.abc import Mapping

from tollgate.wire import Ask, Body, Exchange, Extras, Quirks, anthropic, fields
from tollgate.wire.anthropic.ask import user
from tollgate.wire.services import without_extensions
from tollgate.wire.services.counts import Counts

PATH = "/v1/messages/count_tokens"


class CountTokens(Counts):
    path = PATH
    total = "input_tokens"

    @staticmethod
    def ask(body: Body) -> Ask:
        fields.messages(body)
        return Counts.free(body, model=fields.model(body), user=user(body))

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
        own_headers = anthropic.request_headers(headers)
        return cls.counting(body, sent, path=PATH, headers=own_headers, quirks=quirks)

    def add_extras(self, answer: Body, extras: Extras) -> None:
        anthropic.add_extras(answer, extras)
