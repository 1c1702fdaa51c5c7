"""Embeddings as any dialect asks for them, of a provider of any protocol that makes them."""

from collections.abc import Mapping
from typing import ClassVar

import msgspec
import orjson

from tollgate.errors import ProviderError, Refusal
from tollgate.events import Dialect
from tollgate.wire import Ask, Body, Exchange, Extras, Meter, Quirks, UpstreamRequest, failures, fields, gemini
from tollgate.wire.exchange import Passage
from tollgate.wire.failures import inband_error
from tollgate.wire.gemini.words import camel
from tollgate.wire.neutral import parse
from tollgate.wire.scope import Losses, NotCarried
from tollgate.wire.services import JSON, JsonService, input_bound, vectors, without_extensions
from tollgate.wire.services.vectors import Form, Texts, form_of
from tollgate.wire.stated import stated_cost_pusd


class Embedding(JsonService):
    """A request in one dialect. A provider of the same gets it as it is, any other what can be said of it there."""

    dialect: ClassVar[Dialect]
    form: ClassVar[Form]

    @classmethod
    def at_home(cls, protocol: Dialect, quirks: Quirks) -> bool:
        """Is the request passed on as it is?"""
        return protocol == cls.dialect and not quirks.embeds_by_prediction

    @classmethod
    def cannot_carry(cls, protocol: Dialect, body: Body, *, model: str, quirks: Quirks) -> Refusal | None:
        """Why it cannot go to a provider of `protocol`; None if it can."""
        try:
            if not cls.at_home(protocol, quirks):
                cls._carried(form_of(protocol, quirks), body, model)
        except Refusal as refused:
            return refused
        return None

    @classmethod
    def translation(cls, protocol: Dialect, body: Body, *, model: str, quirks: Quirks) -> Exchange:
        """One attempt in another protocol. Raises what `cannot_carry` returns."""
        provider = form_of(protocol, quirks)
        texts, sent, dropped = cls._carried(provider, body, model)
        request = UpstreamRequest(
            method="POST",
            path=provider.path(model),
            headers={"content-type": JSON, "accept": JSON},
            body=orjson.dumps(sent),
            stream=False,
        )
        return _Translation(cls(body, quirks), provider, texts, request, dropped)

    @classmethod
    def _carried(cls, provider: Form, body: Body, model: str) -> tuple[Texts, Body, tuple[str, ...]]:
        losses = Losses({})
        try:
            texts = cls.form.read(body, losses)
        except NotCarried as lost:
            problem = lost.problem or "is not carried to a provider of another protocol"
            raise fields.invalid(lost.param, problem, code="unsupported_parameter") from None
        return texts, provider.write(texts, model, losses), losses.names

    def meter(self, answer: Body, meter: Meter) -> None:
        self.form.vectors(answer, meter)

    def add_extras(self, answer: Body, extras: Extras) -> None:
        self.form.extras(answer, extras)

    def answer_body(self, found: vectors.Vectors, meter: Meter, texts: Texts) -> Body:
        """What the client gets of a provider of another protocol."""
        return self.form.answer(found, meter, texts)


class _Translation:
    """One attempt between two forms. Nothing streams."""

    content_type = JSON

    def __init__(
        self, client: Embedding, provider: Form, texts: Texts, request: UpstreamRequest, dropped: tuple[str, ...]
    ) -> None:
        self.request = request
        self.meter = Meter()
        self.dropped = dropped
        self._client = client
        self._provider = provider
        self._texts = texts
        self._vectors: vectors.Vectors = []

    def answer(self, body: bytes) -> None:
        answer = parse(body)
        if answer.get("error"):
            raise inband_error(answer)
        model = answer.get("model")
        if isinstance(model, str) and model:
            self.meter.served_model = model
        self._vectors = self._provider.vectors(answer, self.meter)
        block = answer.get("usage")
        if self._client.quirks.states_cost and isinstance(block, dict):
            self.meter.stated_cost_pusd = stated_cost_pusd(block)
        if len(self._vectors) != len(self._texts.texts):
            raise failures.unreadable(f"it has {len(self._vectors)} embeddings of {len(self._texts.texts)} texts")
        self.meter.finish_reason = "done"
        self.meter.content_started = self.meter.complete = True

    def feed(self, data: bytes) -> bytes:
        raise AssertionError("vectors come whole")

    def finish(self) -> None:
        raise AssertionError("vectors come whole")

    def final(self, extras: Extras) -> bytes:
        answer = self._client.answer_body(self._vectors, self.meter, self._texts)
        self._client.add_extras(answer, msgspec.structs.replace(extras, dropped=self.dropped))
        return orjson.dumps(answer)

    def said(self) -> list[str]:
        return []

    def failure(self, error: ProviderError | Refusal, request_id: str) -> bytes:
        raise AssertionError("nothing has been sent before the end")


class EmbedContent(Embedding):
    """Google's `:embedContent`: one content, one vector."""

    path = "/v1beta/models/{model}:embedContent"
    dialect = "gemini"
    form = vectors.SINGLE

    @staticmethod
    def ask(body: Body) -> Ask:
        return _ask(
            body, [camel(body)], fixed={"content", "model", "outputDimensionality", "stream", "taskType", "title"}
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
        named = gemini.resource(model).removeprefix("/")
        sent = {field: value for field, value in without_extensions(body).items() if field not in gemini.PATH_FIELDS}
        if isinstance(requests := sent.get("requests"), list):
            sent["requests"] = [one | {"model": named} if isinstance(one, dict) else one for one in requests]
        request = UpstreamRequest(
            method="POST",
            path=cls.form.path(model),
            headers={"content-type": JSON, "accept": JSON},
            body=orjson.dumps(sent),
            stream=False,
        )
        return Passage(cls(body, quirks), body, sent, request, quirks, ())


class BatchEmbedContents(EmbedContent):
    """Google's `:batchEmbedContents`: several such requests to the same model."""

    path = "/v1beta/models/{model}:batchEmbedContents"
    form = vectors.BATCH

    @staticmethod
    def ask(body: Body) -> Ask:
        requests = [camel(request) for request in vectors.requests_of(body)]
        return _ask(body, requests, fixed={"model", "requests", "stream"})


def _ask(body: Body, requests: list[Body], *, fixed: set[str]) -> Ask:
    unbounded = fields.changes_price(camel(body), frozenset(fixed), {})
    for request in requests:
        content = fields.mapping(request, "content")
        for part in fields.items(content, "parts", path="content.parts"):
            if not isinstance(part, dict) or set(part) != {"text"}:
                unbounded = unbounded or "content.parts"
    if not any(request.get("content") for request in requests):
        raise fields.missing("content")
    return Ask(
        model=gemini.model_name(body),
        stream=False,
        input_bound_tokens=input_bound(body),
        max_output_tokens=0,
        unbounded=unbounded,
    )


_OLLAMA_NEUTRAL = frozenset({"dimensions", "input", "keep_alive", "model", "options", "prompt", "stream", "truncate"})


class OllamaEmbed(Embedding):
    """Ollama's `/api/embed`."""

    path = "/api/embed"
    dialect = "ollama"
    form = vectors.OLLAMA

    @staticmethod
    def ask(body: Body) -> Ask:
        given = body.get("input", body.get("prompt"))
        name = "prompt" if "input" not in body and "prompt" in body else "input"
        if given is None or given == []:
            raise fields.missing(name)
        if not isinstance(given, str):
            fields.texts(fields.items(body, name), name)
        return Ask(
            model=fields.model(body),
            stream=False,
            input_bound_tokens=input_bound(body),
            max_output_tokens=0,
            unbounded=fields.changes_price(body, _OLLAMA_NEUTRAL, {}),
        )


class OllamaEmbeddings(OllamaEmbed):
    """The older `/api/embeddings`: one `prompt`, one vector."""

    path = "/api/embeddings"
