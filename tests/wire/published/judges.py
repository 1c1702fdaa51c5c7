"""Requests held against what the providers publish: OpenAI's OpenAPI document, AWS's service model, and of the others
the types of their official SDKs.

A judge returns what is wrong as places and rules, never as content, for requests may be other people's conversations.
Fields that the publisher does not know are wrong too: some providers refuse them, and none of them reads them.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import orjson
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from mistralai.client.models import ChatCompletionRequest
from ollama._types import ChatRequest, Message
from pydantic import TypeAdapter, ValidationError

from tests.wire.sdk import validate_gemini_request
from tollgate.events import Dialect

OPENAI = Path(__file__).parent / "openai.json"


# JSON Schema --------------------------------------------------------------------------------------------------------


def _closed(schema: Any, named: Mapping[str, Any]) -> Any:
    """With every object limited to the fields that are known, and an object made of several (`allOf`) made one.

    `oneOf` is read as `anyOf`: of the kinds of a message several fit, where what tells them apart may be left out.
    """
    if isinstance(schema, list):
        return [_closed(one, named) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "allOf" in schema:
        schema = _merged(schema, named)
    closed = {
        {"oneOf": "anyOf"}.get(word, word): {name: _closed(one, named) for name, one in value.items()}
        if word in ("properties", "$defs")
        else _closed(value, named)
        for word, value in schema.items()
    }
    is_open = "properties" not in closed or closed.get("title") in _OPEN
    return closed if is_open else {"additionalProperties": False} | closed


# Ollama's SDK types of the schema of a tool what its server reads; any other is left to the model
_OPEN = frozenset({"Parameters", "Property"})


def _merged(schema: Any, named: Mapping[str, Any]) -> Any:
    whole: dict[str, Any] = {"type": "object", "properties": {}, "required": []}
    for one in schema["allOf"]:
        one = named[one["$ref"].rpartition("/")[2]] if "$ref" in one else one
        one = _merged(one, named) if "allOf" in one else one
        whole["properties"] |= one.get("properties", {})
        whole["required"] += one.get("required", ())
    return whole


def _judge_of(schema: Any) -> Callable[[Any], list[str]]:
    validator = Draft202012Validator(_closed(schema, schema.get("$defs", {})))

    def judge(body: Any) -> list[str]:
        if validator.is_valid(body):
            return []
        error = best_match(validator.iter_errors(body))
        return [f"{error.json_path}: {error.validator} {_rule(error.validator_value)}"]

    return judge


def _rule(value: Any) -> str:
    return str(value)[:80] if isinstance(value, str | int | float | list) else ""


@cache
def _openai(root: str) -> Callable[[Any], list[str]]:
    published = orjson.loads(OPENAI.read_bytes())["$defs"]
    # Where nothing is stored a thought has no id that anybody could look up: OpenAI's own Codex leaves it out
    published["ReasoningItem"]["required"].remove("id")
    return _judge_of({"$ref": f"#/$defs/{root}", "$defs": published})


@cache
def _sdk(type: Any) -> Callable[[Any], list[str]]:
    """By the schema of the SDK's type: pydantic itself looks at what is iterable only when it is read."""
    return _judge_of(TypeAdapter(type).json_schema())


# Bedrock ------------------------------------------------------------------------------------------------------------


@cache
def _converse() -> Any:
    model = Loader().load_service_model("bedrock-runtime", "service-2")
    return ServiceModel(model).operation_model("Converse").input_shape


def _bedrock(body: Any) -> list[str]:
    """botocore's validator, and the patterns and enumerations that it leaves to the server."""
    request = {"modelId": "m", **body}
    report = ParamValidator().validate(request, _converse())
    return [error[0] + " " + error[1] for error in report._errors] + list(_by_shape(request, _converse(), "$"))


def _by_shape(value: Any, shape: Any, where: str) -> Iterator[str]:
    if getattr(shape, "is_document_type", False):
        return
    match shape.type_name:
        case "structure":
            for name, member in shape.members.items():
                if isinstance(value, dict) and name in value:
                    yield from _by_shape(value[name], member, f"{where}.{name}")
        case "list":
            for one in value if isinstance(value, list) else ():
                yield from _by_shape(one, shape.member, f"{where}[]")
        case "string":
            if shape.enum and value not in shape.enum:
                yield f"{where}: not one of {shape.enum}"
            pattern = shape.metadata.get("pattern")
            if pattern and not re.fullmatch(pattern, value):
                yield f"{where}: not {pattern}"


# All ----------------------------------------------------------------------------------------------------------------


def _gemini(body: Any) -> list[str]:
    try:
        validate_gemini_request(body)
    except ValidationError as error:
        return [".".join(map(str, one["loc"])) + " " + one["type"] for one in error.errors()]
    except KeyError as unknown:
        return [f"{unknown} is not known"]
    return []


# What models up to Claude Opus 4.6 take, and the SDK from 2.0 on has in no type
_SAMPLING = frozenset({"temperature", "top_k", "top_p"})


def _anthropic(body: Any) -> list[str]:
    params = MessageCreateParamsStreaming if body.get("stream") else MessageCreateParamsNonStreaming
    return _sdk(params)({field: value for field, value in body.items() if field not in _SAMPLING})


def _ollama(body: Any) -> list[str]:
    """Its messages may be anything by the type of the request, and have a type of their own, in which an image is an
    object that writes itself as text."""
    wrong = _sdk(ChatRequest)(body)
    for message in body["messages"] if isinstance(body["messages"], list) else ():
        wrong += _sdk(Message)({field: value for field, value in message.items() if field != "images"})
        wrong += ["images: not texts" for image in message.get("images", ()) if not isinstance(image, str)]
    return wrong


def problems(protocol: Dialect, body: Any) -> list[str]:
    """What is wrong with a request to a provider of this protocol; nothing where it is valid."""
    match protocol:
        case "openai":
            return _openai("CreateChatCompletionRequest")(body)
        case "responses":
            return _openai("CreateResponse")(body)
        case "anthropic":
            return _anthropic(body)
        case "mistral":
            return _sdk(ChatCompletionRequest)(body)
        case "ollama":
            return _ollama(body)
        case "bedrock":
            return _bedrock(body)
        case "gemini":
            return _gemini(body)
