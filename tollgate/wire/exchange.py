"""One attempt between a client's dialect and a provider's protocol, and the table of protocols.

`exchange_for` chooses: the same dialect on both sides passes through, two different ones meet in the middle
(`tollgate.wire.neutral`). Pure.
"""

from collections.abc import Mapping

import msgspec
import orjson

from tollgate.errors import ProviderError, Refusal
from tollgate.events import Dialect
from tollgate.wire import (
    Body,
    ClientWire,
    Exchange,
    Extras,
    Meter,
    ProviderWire,
    Quirks,
    UpstreamRequest,
    anthropic,
    bedrock,
    fields,
    gemini,
    mistral,
    neutral,
    ollama,
    openai,
    responses,
)
from tollgate.wire.content import Choice, Finish, ToolCall
from tollgate.wire.failures import inband_error, refusal_of, unreadable
from tollgate.wire.names import ToolNames
from tollgate.wire.neutral import ClientCodec, Codec, Failing, Listening, Mark, Passing, ProviderCodec, parse, settled
from tollgate.wire.scope import Losses, NotCarried, fit
from tollgate.wire.sequence import Sequencer
from tollgate.wire.sse import Event

MAX_HELD_BYTES = 8 << 20  # of a stream: before its content, and from its finish on

_BOTH: Mapping[Dialect, Codec] = {
    "openai": openai,
    "anthropic": anthropic,
    "responses": responses,
    "gemini": gemini,
    "ollama": ollama,
}
_CLIENTS: Mapping[Dialect, ClientCodec] = {**_BOTH}
_PROVIDERS: Mapping[Dialect, ProviderCodec] = {
    **_BOTH,
    "bedrock": bedrock,
    "mistral": mistral,
}
_NAMES: Mapping[Dialect, str] = {
    "openai": "OpenAI",
    "anthropic": "Anthropic",
    "responses": "OpenAI Responses",
    "gemini": "Gemini",
    "ollama": "Ollama",
}
_NO_QUIRKS = Quirks()

WIRES: Mapping[Dialect, ClientWire] = _CLIENTS
PROTOCOLS: Mapping[Dialect, ProviderWire] = _PROVIDERS
__all__ = ["PROTOCOLS", "WIRES", "cannot_carry", "exchange_for", "least_output_tokens", "refusal_of"]


def exchange_for(
    dialect: Dialect,
    protocol: Dialect,
    body: Body,
    *,
    request_id: str,
    model: str,
    max_output_tokens: int | None,
    headers: Mapping[str, str],
    quirks: Quirks = _NO_QUIRKS,
) -> Exchange:
    """The exchange of one attempt at a request that `ask` has accepted.

    `model` is the provider's name for it. `max_output_tokens` is the cap to send, None to leave the client's own.
    `headers` are the client's, names in lower case. Raises what `cannot_carry` returns.
    """
    if dialect == protocol:
        both = _BOTH[dialect]
        losses = Losses({})
        sent = both.pass_on(body, model=model, max_output_tokens=max_output_tokens, quirks=quirks, losses=losses)
        request = _request(both, body, sent, model, both.request_headers(headers), quirks)
        return Passage(both, body, sent, request, quirks, losses.names)
    client, provider = _CLIENTS[dialect], _PROVIDERS[protocol]
    sent, dropped, names = _translate(
        client, provider, body, model=model, max_output_tokens=max_output_tokens, quirks=quirks
    )
    request = _request(provider, body, sent, model, provider.request_headers({}), quirks)
    return _Translation(client, provider, body, sent, request, quirks, dropped, names, request_id)


def _request(
    provider: ProviderCodec, body: Body, sent: Body, model: str, own_headers: Mapping[str, str], quirks: Quirks
) -> UpstreamRequest:
    stream = bool(body.get("stream"))
    return UpstreamRequest(
        method="POST",
        path=provider.call_path(model, sent=sent, stream=stream, quirks=quirks),
        headers={
            "content-type": "application/json",
            "accept": provider.stream_type if stream else "application/json",
            **own_headers,
        },
        body=orjson.dumps(sent),
        stream=stream,
    )


def cannot_carry(
    dialect: Dialect, protocol: Dialect, body: Body, *, model: str = "", quirks: Quirks = _NO_QUIRKS
) -> Refusal | None:
    """Why a request cannot go to a model behind `protocol`; None if it can. Names the field and the way out."""
    if dialect == protocol:
        return None
    try:
        _translate(_CLIENTS[dialect], _PROVIDERS[protocol], body, model=model, max_output_tokens=None, quirks=quirks)
    except Refusal as refused:
        return refused
    return None


def least_output_tokens(protocol: Dialect, quirks: Quirks = _NO_QUIRKS) -> int:
    """The lowest cap on output under which anything comes out."""
    return max(1, _PROVIDERS[protocol].scope(quirks).least_output_tokens)


def _translate(
    client: ClientCodec,
    provider: ProviderCodec,
    body: Body,
    *,
    model: str,
    max_output_tokens: int | None,
    quirks: Quirks,
) -> tuple[Body, tuple[str, ...], ToolNames]:
    """The provider's request, the client's names of what is not in it, and what its tools are called there."""
    losses = Losses(client.prompt_fields)
    scope = provider.scope(quirks)
    names = ToolNames(scope)
    try:
        prompt = names.replace(fit(client.read_prompt(body, losses), scope, model=model, losses=losses))
        sent = provider.write_prompt(
            prompt, model=model, max_output_tokens=max_output_tokens, quirks=quirks, losses=losses
        )
    except NotCarried as lost:
        param = client.prompt_fields.get(lost.param, lost.param)
        raise _not_carried(client, provider, param, lost.problem) from None
    return sent, losses.names, names


def _not_carried(client: ClientCodec, provider: ProviderCodec, param: str, problem: str | None) -> Refusal:
    dialect = _NAMES[client.name]
    problem = problem or f"is not carried from the {dialect} dialect to provider protocol {provider.name}"
    way_out = f"use a model served by a provider of the {dialect} protocol, or leave the field out"
    return fields.invalid(param, f"{problem}; {way_out}", code="unsupported_parameter")


class _Attempt:
    """What every exchange does alike: cut the stream into events, meter them, and say when it is over."""

    def __init__(
        self,
        failing: Failing,
        listening: Listening,
        body: Body,
        sent: Body,
        request: UpstreamRequest,
        quirks: Quirks,
        dropped: tuple[str, ...],
    ) -> None:
        self.request = request
        self.meter = Meter()
        self.content_type = _content_type(failing.stream_type) if request.stream else "application/json"
        self.dropped = dropped
        self._failing = failing
        self._listening = listening
        self._body = body
        self._quirks = quirks
        self._splitter = listening.splitter()
        self._reader = listening.reader(self.meter, sent, quirks)
        self._error: ProviderError | None = None
        self._late: list[bytes] = []  # what became ready only when the body was over
        self._answer: Body = {}
        self._said: list[str] = []  # in a stream

    def answer(self, body: bytes) -> None:
        self._answer = parse(body)
        self._listening.read_answer(self._answer, self.meter, self._quirks)
        self.meter.content_started = self.meter.complete = True

    def feed(self, data: bytes) -> bytes:
        if self.meter.complete:
            return b""
        out: list[bytes] = []
        try:
            for event in self._splitter.feed(data):
                mark = self._reader.read(event)
                self._said += [delta.text for delta in self._reader.deltas if delta.text]
                self._take(event, mark, out)
                if self.meter.complete:
                    break
        except ProviderError as error:
            if not out:
                raise
            self._error = error
            self.meter.complete = True
        return b"".join(out)

    def finish(self) -> None:
        if self._error is not None:
            raise self._error
        if not self.meter.complete and (rest := self._splitter.close()) is not None:
            self._take_rest(rest)
        if self.meter.finish_reason is None:
            if not self.meter.complete:
                raise ProviderError("cut", "the connection ended before the answer did")
            if not self.meter.content_started:
                raise unreadable("it ended before it began")
        self.meter.complete = True

    def said(self) -> list[str]:
        return self._said or neutral.answer_texts(self._answer)

    def failure(self, error: ProviderError | Refusal, request_id: str) -> bytes:
        refused = refusal_of(error) if isinstance(error, ProviderError) else error
        return self._failing.error_event(refused, request_id, self.meter.events)

    def _take(self, event: Event, mark: Mark, out: list[bytes]) -> None:
        raise NotImplementedError

    def _take_rest(self, rest: Event) -> None:
        """The last event of a server that forgot the blank line after it, or the half of one that was cut."""
        if not rest.data and rest.raw.startswith(b"{"):  # an error as plain JSON, in spite of the content type
            raise inband_error(_json_or_nothing(rest.raw))
        if rest.data == b"[DONE]" or _json_or_nothing(rest.data) is not None:
            self._take(rest, self._reader.read(rest), self._late)


class Passage(_Attempt):
    """The same dialect on both sides: every event leaves in the bytes it came in, but for the one with the extras."""

    def __init__(
        self,
        codec: Passing,
        body: Body,
        sent: Body,
        request: UpstreamRequest,
        quirks: Quirks,
        dropped: tuple[str, ...],
    ) -> None:
        super().__init__(codec, codec, body, sent, request, quirks, dropped)
        self._codec = codec
        self._open = False
        self._head: list[bytes] = []
        self._tail: list[Event] = []
        self._held_bytes = 0

    def final(self, extras: Extras) -> bytes:
        extras = msgspec.structs.replace(extras, dropped=self.dropped)
        if self.request.stream:
            return b"".join(self._head + self._late) + self._codec.write_tail(self._tail, self._body, extras)
        self._codec.add_extras(self._answer, extras)
        return orjson.dumps(self._answer)

    def _take(self, event: Event, mark: Mark, out: list[bytes]) -> None:
        if self._tail or mark >= Mark.CLOSING:
            self._hold(event)
            self._tail.append(event)
            self.meter.complete = mark is Mark.END
        elif self._open:
            out.append(event.raw)
        elif mark is Mark.CONTENT:
            self._open = True
            out += self._head
            out.append(event.raw)
            self._head = []
        elif event.data:  # a comment before the content keeps nobody's connection alive
            self._hold(event)
            self._head.append(event.raw)

    def _hold(self, event: Event) -> None:
        self._held_bytes += len(event.raw)
        if self._held_bytes > MAX_HELD_BYTES:
            raise unreadable(f"more than {MAX_HELD_BYTES} bytes outside its content")


class _Translation(_Attempt):
    """Two dialects: the provider's events are read into parts, and the client's written from them."""

    def __init__(
        self,
        client: ClientCodec,
        provider: ProviderCodec,
        body: Body,
        sent: Body,
        request: UpstreamRequest,
        quirks: Quirks,
        dropped: tuple[str, ...],
        names: ToolNames,
        request_id: str,
    ) -> None:
        super().__init__(client, provider, body, sent, request, quirks, dropped)
        self._provider = provider
        self._names = names
        self._request_id = request_id
        self._writer = client.writer(self.meter, body, request_id)
        self._sequencer = Sequencer(self._writer, request_id)
        self._choices: tuple[Choice, ...] = ()

    def answer(self, body: bytes) -> None:
        super().answer(body)
        choices = self._provider.answer_choices(self._answer, self.meter) or (Choice(parts=()),)
        self._choices = self._names.restore_choices(settled(choices, self._request_id))

    def finish(self) -> None:
        super().finish()
        self._late.append(self._sequencer.end())

    def final(self, extras: Extras) -> bytes:
        extras = msgspec.structs.replace(extras, dropped=(*self.dropped, *sorted(self.meter.dropped)))
        if self.request.stream:
            words = self._reader.finishes or {0: ""}
            finishes = {
                choice: self._finish(word, called=self._sequencer.has_called(choice)) for choice, word in words.items()
            }
            return b"".join(self._late) + self._writer.end(finishes, extras)
        finishes = {
            index: self._finish(choice.finish, called=any(isinstance(part, ToolCall) for part in choice.parts))
            for index, choice in enumerate(self._choices)
        }
        return self._writer.whole(self._choices, finishes, extras)

    def _take(self, event: Event, mark: Mark, out: list[bytes]) -> None:
        for delta in self._reader.deltas:
            if written := self._sequencer.add(self._names.restore_delta(delta) if delta.name else delta):
                out.append(written)
        self.meter.complete = mark is Mark.END

    def _finish(self, word: str | None, *, called: bool) -> Finish:
        """Not every provider has a word for an answer that ends in calls."""
        finish = self._provider.finish_words.get(word or "", "stop")
        return "tool_calls" if called and finish == "stop" else finish


def _content_type(media_type: str) -> str:
    return f"{media_type}; charset=utf-8" if media_type.startswith("text/") else media_type


def _json_or_nothing(data: bytes) -> Body | None:
    try:
        return parse(data)
    except ProviderError:
        return None
