"""What a client gets: answers, written from the middle or the provider's own with our fields in them; and errors."""

from collections.abc import Mapping

import orjson

from tollgate.errors import Refusal
from tollgate.ids import request_time_ms
from tollgate.wire import Body, Extras, Meter, fields, neutral, sse
from tollgate.wire.content import Choice, Citation, Delta, Family, Finish, Part, Reasoning, Refused, Text, ToolCall
from tollgate.wire.neutral import parse
from tollgate.wire.openai.reply import error_body, models_body
from tollgate.wire.responses.request import OWN_ID
from tollgate.wire.responses.usage import write_usage
from tollgate.wire.responses.words import (
    CALL_SIGNATURE,
    CUSTOM_INPUT,
    HOME,
    INCOMPLETE,
    REDACTED,
    SIGNATURE,
    kind_of,
    namespaced,
)
from tollgate.wire.sequence import Streamed

__all__ = ["add_extras", "error_body", "error_event", "models_body", "write_tail", "writer"]

UNKNOWN_NUMBER = 2**31 - 1  # of an event that nobody has counted: after all others, whatever came before


class _ClientTool:
    """A tool as the client has named it, for calls that come back under another name."""

    def __init__(self, name: str, *, namespace: str | None = None, custom: bool = False) -> None:
        self.name = name
        self.namespace = namespace
        self.custom = custom


class _Writer:
    """Writes the event grammar of the Responses API: items one after another, each with its parts, and each told again
    whole when it is over; then the whole response. Events are numbered from 0.

    The dialect knows one answer only: parts of another choice, which nobody can have asked for, are not written.
    """

    def __init__(self, meter: Meter, body: Body, request_id: str) -> None:
        self._meter = meter
        self._body = body
        self._request_id = request_id.replace("-", "")
        self._created = request_time_ms(request_id) // 1000
        self._tools = _client_tools(body)
        self._begun = False
        self._output: list[Body] = []  # items that are over
        self._message: Body | None = None  # the message that is open
        self._parts: list[Body] = []  # of it
        self._text = ""  # of the part that is open
        self._logprobs: list[Body] = []
        self._citations: list[Body] = []

    def open(self, part: Streamed) -> bytes:
        if part.choice:
            return b""
        out = self._begin()
        self._text = ""
        if part.kind in ("text", "refusal"):
            return out + self._open_part(part)
        out += self._close_message()
        if part.kind == "reasoning":
            return out + self._open_reasoning(part)
        if part.signature is not None and part.origin is not None:
            sealed = neutral.tagged(CALL_SIGNATURE + part.signature, part.origin, HOME)
            out += self._whole_item({**self._reasoning(""), "encrypted_content": sealed})
        return out + self._added(self._call(part.id, part.name, "", "in_progress"))

    def more(self, part: Streamed, delta: Delta) -> bytes:
        if part.choice:
            return b""
        self._text += delta.text
        match part.kind:
            case "text":
                return self._more_text(delta)
            case "refusal":
                return self._of_part("response.refusal.delta", {"delta": delta.text})
            case "reasoning":
                return self._more_reasoning(part, delta)
            case _:
                if self._tool(part.name).custom:  # its input is inside JSON, and is told when that is whole
                    return b""
                return self._of_item("response.function_call_arguments.delta", {"delta": delta.text})

    def close(self, part: Streamed) -> bytes:
        if part.choice:
            return b""
        match part.kind:
            case "text" | "refusal":
                return self._close_part(part)
            case "reasoning":
                return self._close_reasoning(part)
            case _:
                return self._close_call(part)

    def end(self, finishes: Mapping[int, Finish], extras: Extras) -> bytes:
        out = self._begin() + self._close_message()
        finish = finishes.get(0, "stop")
        response = self._response(self._output, finish=finish, extras=extras)
        return out + self._event(f"response.{response['status']}", {"response": response})

    def whole(self, choices: tuple[Choice, ...], finishes: Mapping[int, Finish], extras: Extras) -> bytes:
        choice = choices[0]
        output: list[Body] = []
        said: list[Body] = []
        logprobs = list(choice.logprobs)
        for part in choice.parts:
            if isinstance(part, Text | Refused):
                said.append(_part_of(part, logprobs))
                logprobs = []
                continue
            self._add_message(output, said)
            said = []
            output += self._items(part, len(output))
        self._add_message(output, said)
        return orjson.dumps(self._response(output, finish=finishes[0], extras=extras))

    # Items ----------------------------------------------------------------------------------------------------------

    def _open_part(self, part: Streamed) -> bytes:
        out = b""
        if self._message is None:
            self._message = self._said([], "in_progress", len(self._output))
            self._parts = []
            out = self._added(self._message)
        self._logprobs, self._citations = [], []
        return out + self._of_part("response.content_part.added", {"part": _content_part(part.kind, "")})

    def _more_text(self, delta: Delta) -> bytes:
        out = b""
        if delta.text or delta.logprobs:
            logprobs = _short(delta.logprobs)
            self._logprobs += delta.logprobs
            out = self._of_part("response.output_text.delta", {"delta": delta.text, "logprobs": logprobs})
        for citation in delta.citations:
            written = _write_citation(citation, len(self._text) - len(delta.text), len(self._text))
            said = {"annotation_index": len(self._citations), "annotation": written}
            self._citations.append(written)
            out += self._of_part("response.output_text.annotation.added", said)
        return out

    def _close_part(self, part: Streamed) -> bytes:
        content = _content_part(part.kind, self._text, self._citations, self._logprobs)
        if part.kind == "text":
            done = {"text": self._text, "logprobs": _short(tuple(self._logprobs))}
            out = self._of_part("response.output_text.done", done)
        else:
            out = self._of_part("response.refusal.done", {"refusal": self._text})
        out += self._of_part("response.content_part.done", {"part": content})
        self._parts.append(content)
        return out

    def _close_message(self) -> bytes:
        if self._message is None:
            return b""
        item = {**self._message, "content": self._parts, "status": "completed"}
        self._message = None
        return self._done(item)

    def _open_reasoning(self, part: Streamed) -> bytes:
        out = self._added(self._reasoning(""))
        if part.redacted is not None:
            return out
        summary = {"summary_index": 0, "part": {"type": "summary_text", "text": ""}}
        return out + self._of_item("response.reasoning_summary_part.added", summary)

    def _more_reasoning(self, part: Streamed, delta: Delta) -> bytes:
        if delta.signature is not None:
            part.signature, part.origin = delta.signature, delta.origin
        if not delta.text:
            return b""
        said = {"summary_index": 0, "delta": delta.text}
        return self._of_item("response.reasoning_summary_text.delta", said)

    def _close_reasoning(self, part: Streamed) -> bytes:
        if part.redacted is not None:
            return self._done({**self._reasoning(""), "encrypted_content": _seal(part.redacted, part.origin, REDACTED)})
        item = self._reasoning(self._text)
        if part.signature is not None:
            item["encrypted_content"] = _seal(part.signature, part.origin, SIGNATURE)
        summary = {"type": "summary_text", "text": self._text}
        return (
            self._of_item("response.reasoning_summary_text.done", {"summary_index": 0, "text": self._text})
            + self._of_item("response.reasoning_summary_part.done", {"summary_index": 0, "part": summary})
            + self._done({**item, "summary": [summary]})
        )

    def _close_call(self, part: Streamed) -> bytes:
        item = self._call(part.id, part.name, self._text, "completed")
        if item["type"] == "custom_tool_call":
            out = self._of_item("response.custom_tool_call_input.delta", {"delta": item["input"]})
            out += self._of_item("response.custom_tool_call_input.done", {"input": item["input"]})
        else:
            done = {"arguments": self._text, "name": item["name"]}
            out = self._of_item("response.function_call_arguments.done", done)
        return out + self._done(item)

    def _items(self, part: Part, index: int) -> list[Body]:
        match part:
            case Reasoning():
                item = self._reasoning(part.text, index)
                if part.redacted is not None:
                    item["encrypted_content"] = _seal(part.redacted, part.origin, REDACTED)
                elif part.signature is not None:
                    item["encrypted_content"] = _seal(part.signature, part.origin, SIGNATURE)
                return [item]
            case ToolCall() if part.signature is not None and part.origin is not None:
                sealed = neutral.tagged(CALL_SIGNATURE + part.signature, part.origin, HOME)
                call = self._call(part.id, part.name, part.arguments, "completed", index + 1)
                return [{**self._reasoning("", index), "encrypted_content": sealed}, call]
            case ToolCall():
                return [self._call(part.id, part.name, part.arguments, "completed", index)]
            case _:
                return []

    def _add_message(self, output: list[Body], said: list[Body]) -> None:
        if said:
            output.append(self._said(said, "completed", len(output)))

    def _said(self, content: list[Body], status: str, index: int) -> Body:
        return {
            "id": self._item_id("msg", index),
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def _reasoning(self, text: str, index: int | None = None) -> Body:
        summary = [{"type": "summary_text", "text": text}] if text else []
        return {"id": self._item_id("rs", index), "type": "reasoning", "summary": summary}

    def _call(self, id: str, name: str, arguments: str, status: str, index: int | None = None) -> Body:
        tool = self._tool(name)
        called: Body = {"call_id": id, "name": tool.name}
        if tool.namespace is not None:
            called["namespace"] = tool.namespace
        if tool.custom:
            said = _custom_input(arguments) if status == "completed" else ""
            custom = {"id": self._item_id("ctc", index), "type": "custom_tool_call", "status": status}
            return {**custom, **called, "input": said}
        item = {"id": self._item_id("fc", index), "type": "function_call", "status": status}
        return {**item, **called, "arguments": arguments}

    def _tool(self, name: str) -> _ClientTool:
        return self._tools.get(name) or _ClientTool(name)

    def _item_id(self, prefix: str, index: int | None = None) -> str:
        number = len(self._output) if index is None else index
        return f"{prefix}_{OWN_ID}{self._request_id}{number}"

    # Events ---------------------------------------------------------------------------------------------------------

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        response = self._response([])
        return self._event("response.created", {"response": response}) + self._event(
            "response.in_progress", {"response": response}
        )

    def _added(self, item: Body) -> bytes:
        self._item_id_now = item["id"]
        return self._event("response.output_item.added", {"output_index": len(self._output), "item": item})

    def _done(self, item: Body) -> bytes:
        out = self._event("response.output_item.done", {"output_index": len(self._output), "item": item})
        self._output.append(item)
        return out

    def _whole_item(self, item: Body) -> bytes:
        return self._added(item) + self._done(item)

    def _of_item(self, name: str, said: Body) -> bytes:
        return self._event(name, {"item_id": self._item_id_now, "output_index": len(self._output), **said})

    def _of_part(self, name: str, said: Body) -> bytes:
        return self._of_item(name, {"content_index": len(self._parts), **said})

    def _event(self, name: str, said: Body) -> bytes:
        number, self._meter.events = self._meter.events, self._meter.events + 1
        return sse.write(orjson.dumps({"type": name, "sequence_number": number, **said}), name)

    def _response(self, output: list[Body], *, finish: Finish | None = None, extras: Extras | None = None) -> Body:
        """The response object: what was asked for, and what has come so far."""
        reason = None if finish is None else INCOMPLETE.get(finish)
        status = "in_progress" if finish is None else "completed" if reason is None else "incomplete"
        response = {
            "id": f"resp_{self._request_id}",
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": None if reason is None else {"reason": reason},
            "model": self._meter.served_model or self._body.get("model"),
            "output": output,
            **_echo(self._body),
            "usage": None,
        }
        if extras is not None:
            response |= extras.fields()
            if self._meter.usage is not None:
                response["usage"] = {**write_usage(self._meter.usage), "cost": extras.cost}
        return response


_ECHOED = (
    "instructions",
    "max_output_tokens",
    "metadata",
    "prompt_cache_key",
    "reasoning",
    "safety_identifier",
    "temperature",
    "text",
    "top_logprobs",
    "top_p",
    "truncation",
    "user",
)


def _echo(body: Body) -> Body:
    """The fields of the request that its response repeats. The SDKs' types require three of them."""
    tools = [
        {"parameters": None, "strict": None, **tool} if kind_of(tool) == "function" else tool
        for tool in fields.items(body, "tools")
        if isinstance(tool, dict)
    ]
    return {
        **{field: body.get(field) for field in _ECHOED},
        "background": False,
        "parallel_tool_calls": body.get("parallel_tool_calls") is not False,
        "previous_response_id": None,
        "store": False,
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": tools,
    }


def _client_tools(body: Body) -> dict[str, _ClientTool]:
    """The tools that are called something else, or in another way, than where they are plain functions."""
    found: dict[str, _ClientTool] = {}
    for tool in fields.items(body, "tools"):
        if not isinstance(tool, dict):
            continue
        namespace = tool.get("name") if kind_of(tool) == "namespace" else None
        for inner in fields.items(tool, "tools") if namespace is not None else [tool]:
            name = inner.get("name") if isinstance(inner, dict) else None
            custom = kind_of(inner) == "custom"
            if isinstance(name, str) and (custom or namespace is not None):
                found[namespaced(namespace, name)] = _ClientTool(name, namespace=namespace, custom=custom)
    return found


def _custom_input(arguments: str) -> str:
    """What a custom tool is called with; arguments that are not what was asked for are given as they are."""
    found = neutral.arguments_object(arguments).get(CUSTOM_INPUT)
    return found if isinstance(found, str) else arguments


def _seal(value: str, origin: Family | None, mark: str) -> str:
    """A signature or a sealed thought in `encrypted_content`; that of the dialect's own family as it is."""
    return value if origin in (None, HOME) else neutral.tagged(mark + value, origin or HOME, HOME)


def _content_part(
    kind: str, text: str, citations: list[Body] | None = None, logprobs: list[Body] | None = None
) -> Body:
    if kind == "refusal":
        return {"type": "refusal", "refusal": text}
    return {"type": "output_text", "text": text, "annotations": citations or [], "logprobs": logprobs or []}


def _part_of(part: Text | Refused, logprobs: list[Body]) -> Body:
    if isinstance(part, Refused):
        return _content_part("refusal", part.text)
    citations = [_write_citation(citation, 0, len(part.text)) for citation in part.citations]
    return _content_part("text", part.text, citations, [_full(entry) for entry in logprobs])


def _write_citation(citation: Citation, start: int, end: int) -> Body:
    return {
        "type": "url_citation",
        "start_index": start if citation.start is None else citation.start,
        "end_index": end if citation.end is None else citation.end,
        "title": citation.title,
        "url": citation.url,
    }


def _short(entries: tuple[Body, ...]) -> list[Body]:
    """Logprobs as events have them: without bytes."""
    return [
        {
            "token": entry.get("token"),
            "logprob": entry.get("logprob"),
            "top_logprobs": [
                {"token": top.get("token"), "logprob": top.get("logprob")} for top in entry.get("top_logprobs") or []
            ],
        }
        for entry in entries
    ]


def _full(entry: Body) -> Body:
    return {
        **_measured(entry),
        "top_logprobs": [_measured(top) for top in entry.get("top_logprobs") or []],
    }


def _measured(entry: Body) -> Body:
    return {"token": entry.get("token"), "logprob": entry.get("logprob"), "bytes": entry.get("bytes") or []}


def writer(meter: Meter, body: Body, request_id: str) -> _Writer:
    return _Writer(meter, body, request_id)


def add_extras(answer: Body, extras: Extras) -> None:
    answer.update(extras.fields())
    if isinstance(usage := answer.get("usage"), dict):
        usage["cost"] = extras.cost


def write_tail(events: list[sse.Event], body: Body, extras: Extras) -> bytes:
    """The last event, which holds the whole response: the extras go into that."""
    pieces: list[bytes] = []
    for event in events:
        payload = parse(event.data) if event.data not in (b"", b"[DONE]") else {}
        response = payload.get("response")
        if isinstance(response, dict):
            add_extras(response, extras)
            pieces.append(sse.write(orjson.dumps(payload), payload["type"]))
        elif event.data != b"[DONE]":
            pieces.append(event.raw)
    return b"".join(pieces)


# The codes of `response.error`, by what a refusal says; every other is the server's
_ERROR_CODES: Mapping[int, str] = {400: "invalid_prompt", 429: "rate_limit_exceeded"}


def error_event(refusal: Refusal, request_id: str, number: int | None = None) -> bytes:
    """`error`, which the SDKs raise, and `response.failed`, which other clients wait for; nothing follows them."""
    first = UNKNOWN_NUMBER - 1 if number is None else number
    said = {"code": refusal.code, "message": refusal.message, "param": refusal.param}
    error = {"type": "error", "sequence_number": first, **said, "error": {"type": refusal.type, **said}}
    response = {
        "id": f"resp_{request_id.replace('-', '')}",
        "object": "response",
        "created_at": request_time_ms(request_id) // 1000,
        "status": "failed",
        "error": {"code": _ERROR_CODES.get(refusal.status, "server_error"), "message": refusal.message},
        "incomplete_details": None,
        "model": "",
        "output": [],
        **_echo({}),
        "usage": None,
    }
    failed = {"type": "response.failed", "sequence_number": first + 1, "response": response}
    return sse.write(orjson.dumps(error), "error") + sse.write(orjson.dumps(failed), "response.failed")
