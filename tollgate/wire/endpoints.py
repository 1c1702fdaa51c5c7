"""What can be asked: every endpoint, by its name in the events and the books.

An endpoint is a conversation, which goes between dialects (`tollgate.wire.exchange`), and whose answer any provider can
give; or a service (`tollgate.wire.services`), which is passed on to a provider that serves the same. Providers say
which endpoints they serve; a conversation that a provider does not serve as it was asked is translated to the protocol
that it speaks. Pure.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from tollgate.errors import Refusal
from tollgate.events import Dialect
from tollgate.wire import Ask, Body, Exchange, Quirks
from tollgate.wire.exchange import WIRES, cannot_carry, exchange_for
from tollgate.wire.services import Service
from tollgate.wire.services.completions import Completions
from tollgate.wire.services.count_content_tokens import CountContentTokens
from tollgate.wire.services.count_tokens import CountTokens
from tollgate.wire.services.counts import Counts
from tollgate.wire.services.embedding import BatchEmbedContents, EmbedContent, Embedding, OllamaEmbed, OllamaEmbeddings
from tollgate.wire.services.embeddings import Embeddings
from tollgate.wire.services.images import Images
from tollgate.wire.services.moderations import Moderations
from tollgate.wire.services.speech import Speech
from tollgate.wire.services.transcriptions import Transcriptions, Translations

EndpointName = Literal[
    "chat",
    "messages",
    "responses",
    "generate_content",
    "ollama_chat",
    "ollama_generate",
    "completions",
    "embeddings",
    "embed_content",
    "batch_embed_contents",
    "ollama_embed",
    "ollama_embeddings",
    "images",
    "moderations",
    "speech",
    "transcriptions",
    "translations",
    "count_tokens",
    "count_content_tokens",
]


class Endpoint(msgspec.Struct, frozen=True):
    """One kind of request. `path` is its name in events and books, `name` that in `gateway.yaml`.

    `service` is None for a conversation; a service is asked in the dialect of its clients only, but for embeddings.
    """

    name: EndpointName
    path: str
    dialect: Dialect
    service: type[Service] | None = None

    def ask(self, body: Body) -> Ask:
        """What admission must know. Raises `Refusal` (400) for a field of the wrong type or a missing one."""
        return WIRES[self.dialect].ask(body) if self.service is None else self.service.ask(body)

    def protocol(self, protocol: Dialect, served: frozenset[EndpointName]) -> Dialect | None:
        """In which protocol a provider of `protocol` is asked that serves the endpoints `served`; None: it is not."""
        if self.name in served:
            return self.dialect
        if self.service is not None and issubclass(self.service, Embedding):
            return next((dialect for name, dialect in _EMBEDDINGS.items() if name in served), None)
        return protocol if self.service is None else None

    @property
    def answered_here(self) -> bool:
        """Can the gateway answer by itself, where no provider of the model serves it?"""
        return self.service is not None and issubclass(self.service, Counts)

    def counted(self, input_tokens: int) -> bytes:
        """The gateway's own answer, as a provider's would be."""
        assert self.service is not None and issubclass(self.service, Counts)
        return self.service.counted(input_tokens)

    def most_output_tokens(self, body: Body, model: str) -> int | None:
        """The most that comes out where no cap can be sent; None: only the model's own limits say."""
        return None if self.service is None else self.service.most_output_tokens(body, model)

    def cannot_carry(self, protocol: Dialect, body: Body, *, model: str, quirks: Quirks) -> Refusal | None:
        """Why a request cannot go to a model behind `protocol`; None if it can."""
        if self.service is not None and issubclass(self.service, Embedding):
            return self.service.cannot_carry(protocol, body, model=model, quirks=quirks)
        if self.service is not None:
            return None
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
        service = self.service
        if service is not None and issubclass(service, Embedding) and not service.at_home(protocol, quirks):
            return service.translation(protocol, body, model=model, quirks=quirks)
        if self.service is not None:
            return self.service.exchange(
                body,
                request_id=request_id,
                model=model,
                max_output_tokens=max_output_tokens,
                headers=headers,
                quirks=quirks,
            )
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


# Who serves one of these makes embeddings, and is asked for them in this protocol
_EMBEDDINGS: Mapping[EndpointName, Dialect] = {
    "embeddings": "openai",
    "batch_embed_contents": "gemini",
    "ollama_embed": "ollama",
}

_ALL = (
    Endpoint("chat", "/v1/chat/completions", "openai"),
    Endpoint("messages", "/v1/messages", "anthropic"),
    Endpoint("responses", "/v1/responses", "responses"),
    Endpoint("generate_content", "/v1beta/models/{model}:generateContent", "gemini"),
    Endpoint("ollama_chat", "/api/chat", "ollama"),
    Endpoint("ollama_generate", "/api/generate", "ollama"),
    Endpoint("completions", "/v1/completions", "openai", Completions),
    Endpoint("embeddings", "/v1/embeddings", "openai", Embeddings),
    Endpoint("embed_content", "/v1beta/models/{model}:embedContent", "gemini", EmbedContent),
    Endpoint("batch_embed_contents", "/v1beta/models/{model}:batchEmbedContents", "gemini", BatchEmbedContents),
    Endpoint("ollama_embed", "/api/embed", "ollama", OllamaEmbed),
    Endpoint("ollama_embeddings", "/api/embeddings", "ollama", OllamaEmbeddings),
    Endpoint("images", "/v1/images/generations", "openai", Images),
    Endpoint("moderations", "/v1/moderations", "openai", Moderations),
    Endpoint("speech", "/v1/audio/speech", "openai", Speech),
    Endpoint("transcriptions", "/v1/audio/transcriptions", "openai", Transcriptions),
    Endpoint("translations", "/v1/audio/translations", "openai", Translations),
    Endpoint("count_tokens", "/v1/messages/count_tokens", "anthropic", CountTokens),
    Endpoint("count_content_tokens", "/v1beta/models/{model}:countTokens", "gemini", CountContentTokens),
)

COUNTER = "tollgate"  # who counts tokens where no provider does; no provider may have this name
ENDPOINTS: Mapping[str, Endpoint] = {endpoint.path: endpoint for endpoint in _ALL}

# What a provider serves that does not say, by the protocol that it speaks; nothing, where no client speaks it
SERVED: Mapping[Dialect, frozenset[EndpointName]] = {
    "openai": frozenset(
        {
            "chat",
            "completions",
            "embeddings",
            "images",
            "moderations",
            "speech",
            "transcriptions",
            "translations",
        }
    ),
    "anthropic": frozenset({"messages", "count_tokens"}),
    "responses": frozenset({"responses"}),
    "gemini": frozenset({"generate_content", "count_content_tokens", "embed_content", "batch_embed_contents"}),
    "ollama": frozenset({"ollama_chat", "ollama_generate", "ollama_embed", "ollama_embeddings"}),
}
