"""How many tokens a request would have: free, and in the books all the same."""

from collections.abc import Mapping
from typing import ClassVar

import orjson

from tollgate.events import Usage
from tollgate.wire import Ask, Body, Exchange, Meter, Quirks, UpstreamRequest, neutral
from tollgate.wire.exchange import Passage
from tollgate.wire.failures import unreadable
from tollgate.wire.services import JSON, JsonService, input_bound


class Counts(JsonService):
    """A count in one dialect. Of `total` the answer's number is the value."""

    total: ClassVar[str]

    @staticmethod
    def free(body: Body, *, model: str, user: str | None = None) -> Ask:
        """What admission must know of a request to count."""
        bound = input_bound(body)
        return Ask(model=model, stream=False, input_bound_tokens=bound, max_output_tokens=0, user=user, free=True)

    @classmethod
    def counting(cls, body: Body, sent: Body, *, path: str, headers: Mapping[str, str], quirks: Quirks) -> Exchange:
        request = UpstreamRequest(
            method="POST",
            path=path,
            headers={"content-type": JSON, "accept": JSON, **headers},
            body=orjson.dumps(sent),
            stream=False,
        )
        return Passage(cls(body, quirks), body, sent, request, quirks, ())

    @classmethod
    def counted(cls, input_tokens: int) -> bytes:
        """The answer where the gateway has counted by itself."""
        return orjson.dumps({cls.total: input_tokens, "estimated": True})

    def read_answer(self, answer: Body, meter: Meter, quirks: Quirks) -> None:
        if not answer.get("error") and neutral.tokens(answer, self.total) is None:
            raise unreadable(f"it has no '{self.total}'")
        super().read_answer(answer, meter, quirks)

    def meter(self, answer: Body, meter: Meter) -> None:
        meter.usage = Usage()  # nothing is charged for
        meter.finish_reason = "counted"
