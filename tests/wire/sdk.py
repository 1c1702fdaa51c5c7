"""Answers judged by the types of the client's own official SDK, and requests to Google by those of Google's."""

from typing import Any

from anthropic.types import Message, RawMessageStreamEvent
from google.genai.types import Content, GenerateContentResponse, GenerationConfig, ServiceTier, Tool, ToolConfig
from ollama import ChatResponse, GenerateResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter, ValidationError

from tollgate.events import Dialect

_ANTHROPIC_EVENT: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)
_RESPONSES_EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
_RESPONSE = TypeAdapter(Response)
_NOT_TYPED = frozenset({"ping", "x_new"})  # events that the SDKs' types know nothing of

# What google-genai removes before it validates, as its types forbid what they do not know: our own fields, and what the
# provider has added since
_GEMINI_MORE = ("provider", "tollgate")


def validate(client: Dialect, payload: Any, *, is_stream: bool) -> None:
    """Raises `ValidationError`, or what the SDK's own validators do."""
    match client:
        case "openai":
            (ChatCompletionChunk if is_stream else ChatCompletion).model_validate(payload)
        case "anthropic" if not is_stream:
            Message.model_validate(payload)
        case "anthropic" if payload["type"] not in _NOT_TYPED:
            _ANTHROPIC_EVENT.validate_python(payload)
        case "responses" if not is_stream:
            _RESPONSE.validate_python(payload)
        case "responses" if payload["type"] not in _NOT_TYPED:
            _RESPONSES_EVENT.validate_python(payload)
        case "gemini":
            known = {field: value for field, value in payload.items() if field not in _GEMINI_MORE}
            if "usageMetadata" in known:
                known["usageMetadata"] = {
                    field: value for field, value in known["usageMetadata"].items() if field != "serviceTier"
                }
            GenerateContentResponse.model_validate(known)
        case "ollama":
            (GenerateResponse if "response" in payload else ChatResponse).model_validate(payload)


def is_valid(client: Dialect, payloads: list[Any], *, is_stream: bool) -> bool:
    try:
        for payload in payloads:
            validate(client, payload, is_stream=is_stream)
    except (ValidationError, AttributeError, UserWarning):  # google-genai's enumerations cannot be asked for a number
        return False
    return True


_GEMINI_REQUEST = {
    "contents": Content,
    "systemInstruction": Content,
    "tools": Tool,
    "toolConfig": ToolConfig,
    "generationConfig": GenerationConfig,
}


def validate_gemini_request(body: Any) -> None:
    """A request as the SDK would make it. Raises `ValidationError`, or `KeyError` for a field that it does not know."""
    for field, value in body.items():
        if field == "serviceTier":
            ServiceTier(value)
            continue
        for one in value if isinstance(value, list) else [value]:
            _GEMINI_REQUEST[field].model_validate(one)
