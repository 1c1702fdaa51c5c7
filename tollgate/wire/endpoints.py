"""What can be asked: every endpoint, by its name in the events and the books.

An endpoint is a conversation, which goes between dialects (`tollgate.wire.exchange`), and whose answer any provider can
give. Providers say which endpoints they serve; a conversation that a provider does not serve as it was asked is
translated to the protocol that it speaks. Pure.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from tollgate.errors import Refusal
from tollgate.events import Dialect
from tollgate.wire import Ask, Body, Exchange, Quirks
from tollgate.wire.exchange import WIRES, cannot_carry, exchange_for

EndpointName = Literal["chat", "messages", "responses", "generate_content"]


class Endpoint(msgspec.Struct, frozen=True):
    """One kind of request. `path` is its name in events and books, `name` that in `gateway.yaml`."""

    name: EndpointName
    path: str
    dialect: Dialect

    def ask(self, body: Body) -> Ask:
        """What admission must know. Raises `Refusal` (400) for a field of the wrong type or a missing one."""
        return WIRES[self.dialect].ask(body)

    def protocol(self, protocol: Dialect, served: frozenset[EndpointName]) -> Dialect | None:
        """In which protocol a provider of `protocol` is asked that serves the endpoints `served`; None: it is not."""
        return self.dialect if self.name in served else protocol

    def cannot_carry(self, protocol: Dialect, body: Body, *, model: str, quirks: Quirks) -> Refusal | None:
        """Why a request cannot go to a model behind `protocol`; None if it can."""
        return cannot_carry(self.dialect, protocol, body, model=model, quirks=quirks)

    def exchange(
        self,
        protocol: Dialect,
        body: Body,
        *,
        request_id: str,
        model: str,
        max_output_tokens: int | None,
        headers: Mapping[str, str],
        quirks: Quirks,
    ) -> Exchange:
        """One attempt at a request that `ask` has accepted. Raises what `cannot_carry` returns."""
        return exchange_for(
            self.dialect,
            protocol,
            body,
            request_id=request_id,
            model=model,
            max_output_tokens=max_output_tokens,
            headers=headers,
            quirks=quirks,
        )


_ALL = (
    Endpoint("chat", "/v1/chat/completions", "openai"),
    Endpoint("messages", "/v1/messages", "anthropic"),
    Endpoint("responses", "/v1/responses", "responses"),
    Endpoint("generate_content", "/v1beta/models/{model}:generateContent", "gemini"),
)

ENDPOINTS: Mapping[str, Endpoint] = {endpoint.path: endpoint for endpoint in _ALL}

# What a provider serves that does not say, by the protocol that it speaks; nothing, where no client speaks it
SERVED: Mapping[Dialect, frozenset[EndpointName]] = {
    "openai": frozenset({"chat"}),
    "anthropic": frozenset({"messages"}),
    "responses": frozenset({"responses"}),
    "gemini": frozenset({"generate_content"}),
}
