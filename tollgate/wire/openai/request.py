"""The request that a provider gets: a client's own, passed on, or one written from the middle."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

import msgspec

from tollgate.wire import Body, Quirks, fields, neutral
from tollgate.wire.content import (
    Audio,
    Cache,
    Document,
    Effort,
    Family,
    Format,
    Image,
    Part,
    Prompt,
    Reasoning,
    Refused,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
)
from tollgate.wire.openai.shared import write_user
from tollgate.wire.openai.words import CAP_FIELDS, FORMATS_WRITTEN, TIERS_WRITTEN
from tollgate.wire.scope import Losses, NotCarried, Rule, Scope

stream_type = "text/event-stream"
MAX_STOPS = 4
MAX_CALL_ID_CHARS = 40
_NO_QUIRKS = Quirks()
_SAMPLING = frozenset({"temperature", "top_p", "presence_penalty", "frequency_penalty"})

_SCOPE = Scope(
    fields=_SAMPLING
    | {
        "format",
        "logit_bias",
        "logprobs",
        "n",
        "parallel_tool_calls",
        "seed",
        "service_tier",
        "stop",
        "thinking",
        "tool_choice",
        "tools",
        "top_logprobs",
        "user",
        "verbosity",
    },
    parts={
        "system": frozenset({Text}),
        "user": frozenset({Text, Image, Document, Audio, ToolResult}),
        "assistant": frozenset({Text, Refused, ToolCall}),
    },
    results=frozenset({Text, Image, Document}),
    image_sources=frozenset({"url", "data"}),
    document_sources=frozenset({"data", "text"}),
    part_fields=frozenset({"detail", "name"}),
    ranges={"temperature": (0, 2), "top_p": (0, 1), "presence_penalty": (-2, 2), "frequency_penalty": (-2, 2)},
    max_stops=MAX_STOPS,
    # OpenAI's model guides: reasoning models take neither sampling nor logprobs, from gpt-5.1 on only while they think
    rules=(
        Rule(models=r"\bo[134](-|$)", lacks=_SAMPLING | {"logprobs", "top_logprobs", "logit_bias"}),
        Rule(models=r"\bgpt-5(-(?!chat)|$)", lacks=_SAMPLING | {"logprobs", "top_logprobs", "logit_bias"}),
        Rule(
            models=r"\bgpt-5\.\d", lacks=frozenset({"temperature", "top_p", "logprobs", "top_logprobs"}), thinking=True
        ),
        Rule(models=r"\b(o3|o4-mini)\b", lacks=frozenset({"stop"})),
        Rule(models=r"\b(gpt-(3\.5|4)|chatgpt-4o|gpt-5-chat)", lacks=frozenset({"thinking"})),
    ),
)


@lru_cache(maxsize=64)
def scope(quirks: Quirks) -> Scope:
    return msgspec.structs.replace(
        _SCOPE,
        fields=(_SCOPE.fields | quirks.takes) - quirks.lacks,
        part_fields=_SCOPE.part_fields | {"cache"} if quirks.cache_marker else _SCOPE.part_fields,
        origins=quirks.origins,
        plain_reasoning=bool(quirks.thoughts_field),
    )


def call_path(model: str, *, sent: Body, stream: bool, quirks: Quirks) -> str:
    return quirks.call_path("/chat/completions", model)


def request_headers(client_headers: Mapping[str, str]) -> dict[str, str]:
    return {}


def auth_headers(api_key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {api_key}"}


def pass_on(body: Body, *, model: str, max_output_tokens: int | None, quirks: Quirks, losses: Losses) -> Body:
    sent = {field: value for field, value in body.items() if field not in fields.EXTENSION_FIELDS}
    sent["model"] = model
    if quirks.strict_messages:
        sent["messages"] = [_without_thoughts(message, losses) for message in body["messages"]]
    if max_output_tokens is not None:
        named = [field for field in CAP_FIELDS if body.get(field) is not None] or [quirks.cap_field]
        sent.update(dict.fromkeys(named, max_output_tokens))
    if body.get("stream"):
        _ask_for_usage(sent)
    return sent


_THOUGHTS_FIELDS = frozenset({"reasoning", "reasoning_content", "reasoning_details"})


def _without_thoughts(message: Body, losses: Losses) -> Body:
    """A message of the assistant without what compatible servers keep in it."""
    if message["role"] != "assistant":
        return message
    kept = {field: value for field, value in message.items() if field not in _THOUGHTS_FIELDS}
    for field in message.keys() - kept.keys():
        losses.drop(f"messages[].{field}")
    calls = message.get("tool_calls")
    if isinstance(calls, list) and any(isinstance(call, dict) and "extra_content" in call for call in calls):
        losses.drop("messages[].tool_calls[].extra_content")
        kept["tool_calls"] = [
            {field: value for field, value in call.items() if field != "extra_content"}
            if isinstance(call, dict)
            else call
            for call in calls
        ]
    return kept


def _ask_for_usage(sent: Body) -> None:
    """Without it, a stream says nothing of what it used."""
    sent["stream_options"] = {**(sent.get("stream_options") or {}), "include_usage": True}


def write_prompt(prompt: Prompt, *, model: str, max_output_tokens: int | None, quirks: Quirks, losses: Losses) -> Body:
    """`prompt` has been fitted to `scope`."""
    cap = prompt.max_output_tokens if max_output_tokens is None else max_output_tokens
    sent: Body = {
        "model": model,
        "messages": _write_messages(prompt.turns, quirks),
        quirks.cap_field: cap,
        "stop": list(prompt.stop) or None,
        "tools": [write_tool(tool, quirks) for tool in neutral.callable_tools(prompt)] or None,
        "tool_choice": _write_tool_choice(prompt),
        "parallel_tool_calls": prompt.parallel_tool_calls,
        "response_format": write_format(prompt.format),
        "n": prompt.n if prompt.n > 1 else None,
        "logprobs": prompt.logprobs or None,
        "top_logprobs": prompt.top_logprobs,
        "logit_bias": prompt.logit_bias,
        "temperature": prompt.temperature,
        "top_p": prompt.top_p,
        "top_k": prompt.top_k,
        "presence_penalty": prompt.presence_penalty,
        "frequency_penalty": prompt.frequency_penalty,
        "seed": prompt.seed,
        "service_tier": None if prompt.service_tier is None else TIERS_WRITTEN[prompt.service_tier],
        "user": None if prompt.user is None else write_user(prompt.user),
        "verbosity": prompt.verbosity,
        "stream": prompt.stream or None,
    }
    if prompt.thinking is not None:
        sent[quirks.thinking_field] = _write_thinking(prompt.thinking, quirks, losses)
    sent = {field: value for field, value in sent.items() if value is not None}
    if prompt.stream:
        _ask_for_usage(sent)
    return sent


def _write_messages(turns: Iterable[Turn], quirks: Quirks) -> list[Body]:
    """Results of tools come right after the calls, before whatever else the user says in the same breath."""
    messages: list[Body] = []
    results: list[Body] = []
    others: list[Body] = []
    for turn in turns:
        if turn.role == "user":
            _write_user_turn(turn, results, others, quirks)
            continue
        messages += results + others
        results, others = [], []
        if turn.role == "system":
            messages.append({"role": "system", "content": _write_content(turn.parts, quirks)})
        else:
            messages.append(_write_assistant(turn.parts, quirks))
    return messages + results + others


def _write_user_turn(turn: Turn, results: list[Body], others: list[Body], quirks: Quirks) -> None:
    said: list[Part] = []
    for part in turn.parts:
        if isinstance(part, ToolResult):
            results.append(_write_result(part, quirks))
            # a tool's message holds text only: what else it brought follows as the user's
            said += [shown for shown in part.parts if not isinstance(shown, Text)]
        else:
            said.append(part)
    if said or not turn.parts:
        others.append({"role": "user", "content": _write_content(said, quirks)})


def _write_result(result: ToolResult, quirks: Quirks) -> Body:
    texts = [part for part in result.parts if isinstance(part, Text)]
    if len(texts) < len(result.parts):
        texts.append(Text(text="(What this tool returned beside text follows in the next message of the user.)"))
    if texts and result.cache is not None:
        texts[-1] = msgspec.structs.replace(texts[-1], cache=result.cache)
    return {"role": "tool", "tool_call_id": _call_id(result.call_id), "content": _write_content(texts, quirks)}


def _write_assistant(parts: Iterable[Part], quirks: Quirks) -> Body:
    texts = [part for part in parts if isinstance(part, Text)]
    calls = [part for part in parts if isinstance(part, ToolCall)]
    refusals = [part.text for part in parts if isinstance(part, Refused)]
    message: Body = {
        "role": "assistant",
        "content": _write_content(texts, quirks) if texts or not (calls or refusals) else None,
    }
    if refusals:
        message["refusal"] = "".join(refusals)
    message |= write_thoughts([part for part in parts if isinstance(part, Reasoning)], quirks.thoughts_field)
    if calls:
        message["tool_calls"] = [write_call(call, id=_call_id(call.id)) for call in calls]
    return message


_CALL_ID = re.compile(r"[\w\-.:]+", re.ASCII)


def _call_id(id: str) -> str:
    return neutral.safe_id(id, allowed=_CALL_ID, longest=MAX_CALL_ID_CHARS)


def write_call(call: ToolCall, *, id: str) -> Body:
    written: Body = {
        "id": id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments or "{}"},
    }
    return written | write_signature(call.signature, call.origin)


def write_signature(signature: str | None, origin: Family | None) -> Body:
    return {} if signature is None else {"extra_content": {origin or "google": {"thought_signature": signature}}}


def write_thoughts(thoughts: list[Reasoning], field: str) -> Body:
    if not thoughts or not field:
        return {}
    if field == "reasoning_details":
        return {field: [write_detail(thought, at) for at, thought in enumerate(thoughts)]}
    text = "".join(thought.text for thought in thoughts)
    return {field: text} if text else {}


def write_detail(thought: Reasoning, index: int) -> Body:
    detail: Body = {"type": "reasoning.text", "text": thought.text}
    if thought.redacted is not None:
        detail = {"type": "reasoning.encrypted", "data": thought.redacted}
    if thought.signature is not None:
        detail["signature"] = thought.signature
    format = None if thought.origin is None else FORMATS_WRITTEN[thought.origin]
    return {**detail, "format": format, "index": index}


def _write_content(parts: Iterable[Part], quirks: Quirks) -> str | list[Body]:
    """A plain string where it says the same: not every compatible server takes parts."""
    parts = list(parts)
    if not parts:
        return ""
    if len(parts) == 1 and isinstance(parts[0], Text) and parts[0].cache is None:
        return parts[0].text
    return [_write_part(part) | _write_cache(part.cache, quirks) for part in parts]


def _write_part(part: Part) -> Body:
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case Image():
            image = {"url": part.url or f"data:{part.media_type or 'image/png'};base64,{part.data}"}
            return {"type": "image_url", "image_url": image | ({"detail": part.detail} if part.detail else {})}
        case Document() if part.text is not None:
            return {"type": "text", "text": neutral.document_text(part)}
        case Document():
            media_type = part.media_type or "application/pdf"
            data = f"data:{media_type};base64,{part.data}"
            return {"type": "file", "file": {"filename": part.name or "document.pdf", "file_data": data}}
        case Audio():
            return {"type": "input_audio", "input_audio": {"data": part.data, "format": part.format}}
        case _:
            raise NotCarried(part.path)


def _write_cache(cache: Cache | None, quirks: Quirks) -> Body:
    if cache is None or not quirks.cache_marker:
        return {}
    marker = {"mode": "explicit"} if quirks.cache_marker == "prompt_cache_breakpoint" else {"type": "ephemeral"}
    return {quirks.cache_marker: marker | ({"ttl": cache.ttl} if cache.ttl is not None else {})}


def write_tool(tool: Tool, quirks: Quirks = _NO_QUIRKS) -> Body:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.schema,
        "strict": tool.strict,
    }
    kept = {field: value for field, value in function.items() if value is not None}
    return {"type": "function", "function": kept} | _write_cache(tool.cache, quirks)


def _write_tool_choice(prompt: Prompt) -> str | Body | None:
    choice = prompt.tool_choice
    if choice is None:
        return None
    if choice.mode == "required" and len(choice.names) == 1:
        return {"type": "function", "function": {"name": choice.names[0]}}
    return choice.mode


def write_format(format: Format | None) -> Body | None:
    if format is None:
        return None
    if format.schema is None:
        return {"type": "json_object"}
    schema = {
        "name": format.name or "answer",
        "description": format.description,
        "schema": format.schema,
        "strict": format.strict,
    }
    return {
        "type": "json_schema",
        "json_schema": {field: value for field, value in schema.items() if value is not None},
    }


def _write_thinking(thinking: Thinking, quirks: Quirks, losses: Losses) -> str | Body | None:
    """Only `reasoning` can say whether the thoughts are to be shown; other servers show them, or do not."""
    effort: Effort | None = neutral.effort_of(thinking)
    is_shown = bool(quirks.thoughts_field)
    if quirks.thinking_field != "reasoning" and not thinking.off and thinking.visible is (not is_shown):
        losses.drop_field("thinking.visible")
    if quirks.thinking_field == "reasoning_effort":
        return effort
    if quirks.thinking_field == "thinking":
        return {"type": "disabled" if thinking.off else "enabled"}
    how: Body = {"effort": effort} if thinking.budget_tokens is None else {"max_tokens": thinking.budget_tokens}
    how = {"enabled": True} if how == {"effort": None} else how
    return how | ({"exclude": True} if thinking.visible is False else {})
