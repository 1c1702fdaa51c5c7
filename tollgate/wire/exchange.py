"""One attempt between a client's dialect and a provider's protocol, and the table of protocols.

`exchange_for` chooses: the same dialect on both sides passes through, two different ones meet in the middle
(`tollgate.wire.neutral`). Pure.
"""

from collections.abc import Mapping

import orjson

from tollgate.errors import ProviderError, Refusal
from tollgate.events import Dialect
from tollgate.wire import Body, Exchange, Extras, Meter, Quirks, UpstreamRequest, Wire, anthropic, fields, openai
from tollgate.wire.failures import inband_error, refusal_of
from tollgate.wire.neutral import Codec, Finish, Mark, NotCarried, parse, uncarried, unreadable
from tollgate.wire.sse import Event, Splitter

MAX_HELD_BYTES = 8 << 20  # of a stream: before its content, and from its finish on

_CODECS: dict[Dialect, Codec] = {"openai": openai, "anthropic": anthropic}
_NAMES: dict[Dialect, str] = {"openai": "OpenAI", "anthropic": "Anthropic"}
_NO_QUIRKS = Quirks()

WIRES: Mapping[Dialect, Wire] = _CODECS
__all__ = ["WIRES", "cannot_carry", "exchange_for", "refusal_of"]


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
    client, provider = _CODECS[dialect], _CODECS[protocol]
    if client is provider:
        sent = provider.pass_on(body, model=model, max_output_tokens=max_output_tokens, quirks=quirks)
        own_headers = provider.request_headers(headers)
    else:
        sent = _translate(client, provider, body, model=model, max_output_tokens=max_output_tokens, quirks=quirks)
        own_headers = provider.request_headers({})
    stream = bool(body.get("stream"))
    request = UpstreamRequest(
        method="POST",
        path=provider.path,
        headers={
            "content-type": "application/json",
            "accept": "text/event-stream" if stream else "application/json",
            **own_headers,
        },
        body=orjson.dumps(sent),
        stream=stream,
    )
    if client is provider:
        return _Passage(client, provider, body, request)
    return _Translation(client, provider, body, request, request_id)


def cannot_carry(dialect: Dialect, protocol: Dialect, body: Body) -> Refusal | None:
    """Why a request cannot go to a provider of `protocol`; None if it can. Names the field and the way out."""
    if dialect == protocol:
        return None
    try:
        _translate(_CODECS[dialect], _CODECS[protocol], body, model="", max_output_tokens=None, quirks=_NO_QUIRKS)
    except Refusal as refused:
        return refused
    return None


def _translate(
    client: Codec, provider: Codec, body: Body, *, model: str, max_output_tokens: int | None, quirks: Quirks
) -> Body:
    try:
        prompt = client.read_prompt(body)
    except NotCarried as lost:
        raise _not_carried(client, provider, lost.param, lost.problem) from None
    try:
        return provider.write_prompt(prompt, model=model, max_output_tokens=max_output_tokens, quirks=quirks)
    except NotCarried as lost:
        param = client.prompt_fields.get(lost.param, lost.param)
        raise _not_carried(client, provider, param, lost.problem) from None


def _not_carried(client: Codec, provider: Codec, param: str, problem: str | None) -> Refusal:
    dialect = _NAMES[client.name]
    problem = problem or f"is not carried from the {dialect} dialect to provider protocol {provider.name}"
    way_out = f"use a model served by a provider of the {dialect} protocol, or leave the field out"
    return fields.invalid(param, f"{problem}; {way_out}", code="unsupported_parameter")


class _Attempt:
    """What every exchange does alike: cut the stream into events, meter them, and say when it is over."""

    def __init__(self, client: Codec, provider: Codec, body: Body, request: UpstreamRequest) -> None:
        self.request = request
        self.meter = Meter()
        self._client = client
        self._body = body
        self._splitter = Splitter()
        self._reader = provider.reader(self.meter, body)
        self._provider = provider
        self._error: ProviderError | None = None
        self._late: list[bytes] = []  # what became ready only when the body was over
        self._answer: Body = {}

    def answer(self, body: bytes) -> None:
        self._answer = parse(body)
        self._provider.read_answer(self._answer, self.meter)
        self.meter.content_started = self.meter.complete = True

    def feed(self, data: bytes) -> bytes:
        if self.meter.complete:
            return b""
        out: list[bytes] = []
        try:
            for event in self._splitter.feed(data):
                self._take(event, self._reader.read(event), out)
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

    def failure(self, error: ProviderError | Refusal, request_id: str) -> bytes:
        refused = refusal_of(error) if isinstance(error, ProviderError) else error
        return self._client.error_event(refused, request_id)

    def _take(self, event: Event, mark: Mark, out: list[bytes]) -> None:
        raise NotImplementedError

    def _take_rest(self, rest: Event) -> None:
        """The last event of a server that forgot the blank line after it, or the half of one that was cut."""
        if rest.raw.startswith(b"{"):  # an error as plain JSON, in spite of the content type
            raise inband_error(_json_or_nothing(rest.raw))
        if rest.data == b"[DONE]" or _json_or_nothing(rest.data) is not None:
            self._take(rest, self._reader.read(rest), self._late)

    def _finish_word(self) -> Finish:
        return self._provider.finish_words.get(self.meter.finish_reason or "", "stop")


class _Passage(_Attempt):
    """The same dialect on both sides: every event leaves in the bytes it came in, but for the one with the extras."""

    def __init__(self, client: Codec, provider: Codec, body: Body, request: UpstreamRequest) -> None:
        super().__init__(client, provider, body, request)
        self._open = False
        self._head: list[bytes] = []
        self._tail: list[Event] = []
        self._held_bytes = 0

    def final(self, extras: Extras) -> bytes:
        if self.request.stream:
            return b"".join(self._head + self._late) + self._client.write_tail(self._tail, self._body, extras)
        self._client.add_extras(self._answer, extras)
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
    """Two dialects: the provider's events are read into text, and the client's written from it."""

    def __init__(self, client: Codec, provider: Codec, body: Body, request: UpstreamRequest, request_id: str) -> None:
        super().__init__(client, provider, body, request)
        self._writer = client.writer(self.meter, body, request_id)
        self._text = ""

    def answer(self, body: bytes) -> None:
        super().answer(body)
        self._text = self._provider.answer_text(self._answer)

    def final(self, extras: Extras) -> bytes:
        if self.request.stream:
            return b"".join(self._late) + self._writer.end(self._finish_word(), extras)
        return self._writer.whole(self._text, self._finish_word(), extras)

    def _take(self, event: Event, mark: Mark, out: list[bytes]) -> None:
        if self._reader.uncarried is not None:
            raise uncarried(self._reader.uncarried)
        if self._reader.text:
            out.append(self._writer.text(self._reader.text))
        self.meter.complete = mark is Mark.END


def _json_or_nothing(data: bytes) -> Body | None:
    try:
        return parse(data)
    except ProviderError:
        return None
