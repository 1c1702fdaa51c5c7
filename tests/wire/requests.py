"""Requests of every dialect, by hand after the providers' references, that together use all that a request can hold.

What some targets refuse stands in requests of its own, so that the others are carried. `MODELS` names, for each
protocol, models whose requests differ.
"""

from typing import Any

from tollgate.events import Dialect
from tollgate.wire import Quirks

MODELS: dict[Dialect, tuple[str, ...]] = {
    "openai": ("gpt-4.1", "gpt-5.2"),
    "responses": ("gpt-4.1", "gpt-5.2"),
    "anthropic": ("claude-3-7-sonnet-20250219", "claude-sonnet-4-5", "claude-opus-4-8"),
    "gemini": ("gemini-2.5-flash", "gemini-3-pro"),
    "bedrock": ("us.anthropic.claude-sonnet-4-5-v1:0", "us.amazon.nova-2-lite-v1:0"),
    "mistral": ("mistral-large-latest", "magistral-medium-latest"),
    "ollama": ("qwen3",),
}
# As the presets of these providers have them
QUIRKS: dict[Dialect, Quirks] = {"openai": Quirks(cap_field="max_completion_tokens", strict_messages=True)}

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
CSV = "YSxiCjEsMgo="
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ANSWER = {**SCHEMA, "additionalProperties": False}


def _chat(*messages: Any, **fields: Any) -> Any:
    return {"model": "m", "messages": list(messages) or [_said("Hi")], **fields}


def _said(content: Any, role: str = "user", **fields: Any) -> Any:
    return {"role": role, "content": content, **fields}


_CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}
_TOOL = {"type": "function", "function": {"name": "weather", "description": "Of a city", "parameters": SCHEMA}}
_RESULT = {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "Rain"}]}

_OPENAI: dict[str, Any] = {
    "system texts": _chat(
        _said("Be brief.", "system"),
        _said([{"type": "text", "text": "Be kind."}], "developer"),
        _said("Hi"),
        _said([{"type": "text", "text": "Hello."}, {"type": "refusal", "refusal": "No more."}], "assistant"),
        _said("More", name="ann"),
    ),
    "sampling": _chat(temperature=0.5, top_p=0.9, top_k=7, max_completion_tokens=50),
    "where to stop": _chat(stop=["END", "STOP"]),
    "penalties and seed": _chat(presence_penalty=0.5, frequency_penalty=-0.5, seed=7),
    "who and how": _chat(user="ann", service_tier="priority", verbosity="low", safety_identifier="s", store=True),
    "stream": _chat(stream=True, stream_options={"include_usage": True, "include_obfuscation": False}),
    "choices": _chat(n=2),
    "logprobs": _chat(logprobs=True, top_logprobs=3),
    "logit bias": _chat(logit_bias={"50256": -100}),
    "tools": _chat(
        _said("Weather?"),
        _said("Let me see.", "assistant", tool_calls=[_CALL]),
        _RESULT,
        tools=[_TOOL, {"type": "function", "function": {"name": "now", "strict": True, "parameters": ANSWER}}],
    ),
    "a tool that must be called": _chat(
        tools=[_TOOL], tool_choice={"type": "function", "function": {"name": "weather"}}
    ),
    "tools of which one may be called": _chat(
        tools=[_TOOL, {"type": "function", "function": {"name": "now"}}],
        tool_choice={
            "type": "allowed_tools",
            "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "now"}}]},
        },
    ),
    "any tool must be called": _chat(tools=[_TOOL], tool_choice="required"),
    "no tool": _chat(_said("Weather?"), _said(None, "assistant", tool_calls=[_CALL]), _RESULT, tools=[_TOOL])
    | {"tool_choice": "none"},
    "one call at a time": _chat(tools=[_TOOL], parallel_tool_calls=False),
    "a signed call": _chat(
        _said("Weather?"),
        _said(
            None,
            "assistant",
            tool_calls=[_CALL | {"extra_content": {"google": {"thought_signature": "c2lnbmVk"}}}],
        ),
        _RESULT,
        tools=[_TOOL],
    ),
    "an image": _chat(
        _said([{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "low"}}])
    ),
    "an image on the web": _chat(_said([{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}])),
    "a file": _chat(
        _said(
            [
                {"type": "text", "text": "Read."},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PNG}"}},
            ]
        )
    ),
    "a table": _chat(
        _said([{"type": "file", "file": {"filename": "a.csv", "file_data": f"data:text/csv;base64,{CSV}"}}])
    ),
    "sound": _chat(_said([{"type": "input_audio", "input_audio": {"data": PNG, "format": "wav"}}])),
    "a form of the answer": _chat(
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "city", "description": "A city", "schema": ANSWER, "strict": True},
        }
    ),
    "any JSON": _chat(response_format={"type": "json_object"}),
    "thinking": _chat(reasoning_effort="high", max_completion_tokens=9000),
    "a budget of thoughts": _chat(reasoning={"max_tokens": 2000, "exclude": True}, max_tokens=9000),
    "thoughts": _chat(
        _said("Why?"),
        _said("So.", "assistant", reasoning_content="Because."),
        _said("And?"),
        _said(
            "Thus.",
            "assistant",
            reasoning_details=[
                {"type": "reasoning.text", "text": "Hm", "signature": "s", "format": "anthropic-claude-v1", "index": 0},
                {"type": "reasoning.encrypted", "data": "ZW4=", "format": "openai-responses-v1", "index": 1},
            ],
        ),
        _said("More"),
    ),
    "marks for the cache": _chat(
        _said([{"type": "text", "text": "Long", "cache_control": {"type": "ephemeral", "ttl": "1h"}}], "system"),
        _said("Hi"),
        tools=[_TOOL | {"cache_control": {"type": "ephemeral"}}],
    ),
}


def _message(*messages: Any, **fields: Any) -> Any:
    return {"model": "m", "max_tokens": 9000, "messages": list(messages) or [_said("Hi")], **fields}


_USE = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris"}}
_CUSTOM = {"name": "weather", "description": "Of a city", "input_schema": SCHEMA}
_CACHED = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}


def _used(*content: Any, **result: Any) -> tuple[Any, ...]:
    back = {"type": "tool_result", "tool_use_id": "toolu_1", "content": list(content), **result}
    return _said("Weather?"), _said([{"type": "text", "text": "Let me see."}, _USE], "assistant"), _said([back])


_ANTHROPIC: dict[str, Any] = {
    "system texts": _message(_said("Hi"), system=[{"type": "text", "text": "Be brief."}]),
    "turns": _message(_said("Hi"), _said("Hello.", "assistant"), _said([{"type": "text", "text": "More"}])),
    "sampling": _message(temperature=0.5, top_p=0.9, top_k=7),
    "where to stop": _message(stop_sequences=["END"]),
    "who and how": _message(metadata={"user_id": "ann"}, service_tier="standard_only"),
    "stream": _message(stream=True),
    "tools": _message(*_used({"type": "text", "text": "Rain"}), tools=[_CUSTOM | {"strict": True, "type": "custom"}]),
    "a tool that failed": _message(*_used({"type": "text", "text": "No"}, is_error=True), tools=[_CUSTOM]),
    "a tool that shows": _message(
        *_used(
            {"type": "text", "text": "See"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        ),
        tools=[_CUSTOM],
    ),
    "a tool that must be called": _message(tools=[_CUSTOM], tool_choice={"type": "tool", "name": "weather"}),
    "any tool must be called": _message(tools=[_CUSTOM], tool_choice={"type": "any"}),
    "one call at a time": _message(tools=[_CUSTOM], tool_choice={"type": "auto", "disable_parallel_tool_use": True}),
    "no tool": _message(*_used(), tools=[_CUSTOM], tool_choice={"type": "none"}),
    "an image": _message(
        _said([{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}])
    ),
    "an image on the web": _message(
        _said([{"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}])
    ),
    "a document": _message(
        _said(
            [
                {
                    "type": "document",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": PNG},
                    "title": "a.pdf",
                    "context": "from the archive",
                    "citations": {"enabled": True},
                }
            ]
        )
    ),
    "a document on the web": _message(
        _said([{"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}, "title": "a.pdf"}])
    ),
    "a text": _message(
        _said(
            [
                {
                    "type": "document",
                    "source": {"type": "text", "media_type": "text/plain", "data": "Words"},
                    "title": "a.txt",
                }
            ]
        )
    ),
    "blocks that are a document": _message(
        _said(
            [
                {
                    "type": "document",
                    "source": {"type": "content", "content": [{"type": "text", "text": "Words"}]},
                }
            ]
        )
    ),
    "a finding": _message(
        _said(
            [
                {
                    "type": "search_result",
                    "source": "https://example.com",
                    "title": "Example",
                    "content": [{"type": "text", "text": "Found"}],
                }
            ]
        )
    ),
    "a form of the answer": _message(output_config={"format": {"type": "json_schema", "schema": ANSWER}}),
    "thinking": _message(thinking={"type": "adaptive", "display": "omitted"}, output_config={"effort": "high"}),
    "a budget of thoughts": _message(thinking={"type": "enabled", "budget_tokens": 2000}),
    "thoughts": _message(
        _said("Weather?"),
        _said(
            [
                {"type": "thinking", "thinking": "Hm", "signature": "s"},
                {"type": "redacted_thinking", "data": "ZW4="},
                {"type": "thinking", "thinking": "Oh", "signature": "tollgate:google:c2ln"},
                _USE,
            ],
            "assistant",
        ),
        _said([{"type": "tool_result", "tool_use_id": "toolu_1", "content": "Rain"}]),
        tools=[_CUSTOM],
        thinking={"type": "enabled", "budget_tokens": 2000},
    ),
    "marks for the cache": _message(
        _said([{"type": "text", "text": "Long", **_CACHED}]),
        system=[{"type": "text", "text": "Long", **_CACHED}],
        tools=[_CUSTOM | _CACHED],
    ),
}


def _input(*items: Any, **fields: Any) -> Any:
    return {"model": "m", "input": list(items) or "Hi", **fields}


_FUNCTION = {"type": "function", "name": "weather", "description": "Of a city", "parameters": SCHEMA, "strict": True}
_CALLED = {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city":"Paris"}'}


def _output(output: Any) -> Any:
    return {"type": "function_call_output", "call_id": "call_1", "output": output}


_RESPONSES: dict[str, Any] = {
    "system texts": _input(
        _said("Be kind.", "developer"),
        _said([{"type": "input_text", "text": "Hi"}]),
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [
                {"type": "output_text", "text": "Hello.", "annotations": [], "logprobs": []},
                {"type": "output_text", "text": "Yes?", "annotations": [], "logprobs": []},
            ],
        },
        _said("More"),
        _said([{"type": "refusal", "refusal": "No."}], "assistant"),
        _said("Please"),
        instructions="Be brief.",
    ),
    "sampling": _input(temperature=0.5, top_p=0.9, max_output_tokens=50),
    "penalties": _input(presence_penalty=0.5, frequency_penalty=-0.5),
    "who and how": _input(user="ann", service_tier="flex", text={"verbosity": "low"}, truncation="auto"),
    "stream": _input(stream=True, stream_options={"include_obfuscation": False}),
    "logprobs": _input(include=["message.output_text.logprobs"], top_logprobs=3),
    "tools": _input(_said("Weather?"), _CALLED, _output("Rain"), tools=[_FUNCTION]),
    "a tool that shows": _input(
        _said("Weather?"),
        _CALLED,
        _output(
            [
                {"type": "input_text", "text": "See"},
                {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "low"},
            ]
        ),
        tools=[_FUNCTION],
    ),
    "a tool of any text": _input(
        _said("Run"),
        {"type": "custom_tool_call", "call_id": "call_1", "name": "shell", "input": "ls"},
        {"type": "custom_tool_call_output", "call_id": "call_1", "output": "a.txt"},
        tools=[
            {
                "type": "custom",
                "name": "shell",
                "description": "Runs",
                "format": {"type": "grammar", "syntax": "regex", "definition": "[a-z]+"},
            }
        ],
    ),
    "tools of a namespace": _input(
        tools=[{"type": "namespace", "name": "sky", "description": "Above", "tools": [_FUNCTION]}]
    ),
    "an offered search": _input(tools=[_FUNCTION, {"type": "web_search"}]),
    "a tool that must be called": _input(tools=[_FUNCTION], tool_choice={"type": "function", "name": "weather"}),
    "any tool must be called": _input(tools=[_FUNCTION], tool_choice="required"),
    "one call at a time": _input(tools=[_FUNCTION], parallel_tool_calls=False),
    "an image": _input(_said([{"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "high"}])),
    "a file": _input(
        _said(
            [
                {"type": "input_file", "filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PNG}"},
                {"type": "input_text", "text": "Read."},
            ]
        )
    ),
    "a file on the web": _input(
        _said([{"type": "input_file", "filename": "a.pdf", "file_url": "https://example.com/a.pdf"}])
    ),
    "a form of the answer": _input(
        text={"format": {"type": "json_schema", "name": "city", "description": "A", "schema": ANSWER, "strict": True}}
    ),
    "any JSON": _input(text={"format": {"type": "json_object"}}),
    "thinking": _input(reasoning={"effort": "high", "summary": "auto"}, max_output_tokens=9000),
    "thoughts": _input(
        _said("Weather?"),
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "Hm"}],
            "encrypted_content": "ZW4=",
        },
        _CALLED,
        _output("Rain"),
        {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "tollgate:anthropic:redacted:ZW4="},
        _said("Rain.", "assistant"),
        _said("More"),
        tools=[_FUNCTION],
    ),
    "marks for the cache": _input(
        _said([{"type": "input_text", "text": "Long", "prompt_cache_breakpoint": {"mode": "explicit"}}])
    ),
}


def _contents(*contents: Any, **fields: Any) -> Any:
    return {"model": "m", "stream": False, "contents": list(contents) or [_parts({"text": "Hi"})], **fields}


def _parts(*parts: Any, role: str = "user") -> Any:
    return {"role": role, "parts": list(parts)}


_DECLARED = {"functionDeclarations": [{"name": "weather", "description": "Of a city", "parametersJsonSchema": SCHEMA}]}


def _answered(response: Any, signature: str = "c2lnbmVk") -> tuple[Any, ...]:
    call = {"id": "c1", "name": "weather", "args": {"city": "Paris"}}
    result = {"id": "c1", "name": "weather", "response": response}
    return (
        _parts({"text": "Weather?"}),
        _parts({"functionCall": call, "thoughtSignature": signature}, role="model"),
        _parts({"functionResponse": result}),
    )


_GEMINI: dict[str, Any] = {
    "where to stop": _contents(generationConfig={"stopSequences": ["END"]}),
    "system texts": _contents(
        _parts({"text": "Hi"}),
        _parts({"text": "Hello."}, role="model"),
        _parts({"text": "More"}),
        systemInstruction={"parts": [{"text": "Be brief."}]},
    ),
    "sampling": _contents(generationConfig={"temperature": 0.5, "topP": 0.9, "topK": 7, "maxOutputTokens": 50}),
    "penalties and seed": _contents(
        generationConfig={"presencePenalty": 0.5, "frequencyPenalty": -0.5, "seed": 7}, serviceTier="flex"
    ),
    "stream": _contents() | {"stream": True},
    "choices": _contents(generationConfig={"candidateCount": 2}),
    "logprobs": _contents(generationConfig={"responseLogprobs": True, "logprobs": 3}),
    "safety": _contents(
        safetySettings=[{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}], labels={"team": "a"}
    ),
    "tools": _contents(*_answered({"output": "Rain"}), tools=[_DECLARED]),
    "a tool that failed": _contents(*_answered({"error": "No"}), tools=[_DECLARED]),
    "a tool with an object": _contents(*_answered({"sky": "grey", "rain": True}), tools=[_DECLARED]),
    "a tool that must be called": _contents(
        tools=[_DECLARED],
        toolConfig={"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}},
    ),
    "no tool": _contents(tools=[_DECLARED], toolConfig={"functionCallingConfig": {"mode": "NONE"}}),
    "an old schema": _contents(
        tools=[
            {
                "functionDeclarations": [
                    {
                        "name": "weather",
                        "parameters": {
                            "type": "OBJECT",
                            "properties": {"city": {"type": "STRING", "nullable": True}},
                        },
                    }
                ]
            }
        ]
    ),
    "an image": _contents(_parts({"inlineData": {"mimeType": "image/png", "data": PNG}}, {"text": "See"})),
    "an image on the web": _contents(
        _parts({"fileData": {"mimeType": "image/png", "fileUri": "https://example.com/a.png"}})
    ),
    "a document": _contents(
        _parts({"inlineData": {"mimeType": "application/pdf", "data": PNG, "displayName": "a.pdf"}}, {"text": "Read"})
    ),
    "a table": _contents(_parts({"inlineData": {"mimeType": "text/csv", "data": CSV}})),
    "sound": _contents(_parts({"inlineData": {"mimeType": "audio/wav", "data": PNG}})),
    "a form of the answer": _contents(
        generationConfig={"responseMimeType": "application/json", "responseJsonSchema": ANSWER}
    ),
    "any JSON": _contents(generationConfig={"responseMimeType": "application/json"}),
    "thinking": _contents(
        generationConfig={"thinkingConfig": {"thinkingLevel": "HIGH", "includeThoughts": True}, "maxOutputTokens": 9000}
    ),
    "a budget of thoughts": _contents(
        generationConfig={"thinkingConfig": {"thinkingBudget": 2000}, "maxOutputTokens": 9000}
    ),
    "thoughts": _contents(
        _parts({"text": "Why?"}),
        _parts({"text": "Hm", "thought": True}, {"text": "So.", "thoughtSignature": "c2lnbmVk"}, role="model"),
        _parts({"text": "More"}),
    ),
}


def _local(*messages: Any, **fields: Any) -> Any:
    return {"model": "m", "stream": False, "messages": list(messages) or [_said("Hi")], **fields}


_LOCAL_CALL = {"id": "c1", "function": {"index": 0, "name": "weather", "arguments": {"city": "Paris"}}}
_LOCAL_RESULT = {"role": "tool", "tool_name": "weather", "tool_call_id": "c1", "content": "Rain"}

_OLLAMA: dict[str, Any] = {
    "system texts": _local(_said("Be brief.", "system"), _said("Hi"), _said("Hello.", "assistant"), _said("More")),
    "a prompt": {"model": "m", "stream": False, "system": "Be brief.", "prompt": "Hi", "images": [PNG]},
    "sampling": _local(options={"temperature": 0.5, "top_p": 0.9, "top_k": 7, "num_predict": 50}),
    "penalties and seed": _local(options={"presence_penalty": 0.5, "frequency_penalty": -0.5, "seed": 7}),
    "where to stop": _local(options={"stop": ["END"]}),
    "of its own": _local(keep_alive="5m", options={"num_ctx": 4096, "min_p": 0.1}),
    "stream": _local() | {"stream": True},
    "logprobs": _local(logprobs=True, top_logprobs=3),
    "tools": _local(
        _said("Weather?"),
        _said("Let me see.", "assistant", tool_calls=[_LOCAL_CALL]),
        _LOCAL_RESULT,
        tools=[_TOOL],
    ),
    "an image": _local(_said("See", images=[PNG])),
    "a form of the answer": _local(format=ANSWER),
    "any JSON": _local(format="json"),
    "thinking": _local(think="high"),
    "thoughts": _local(_said("Why?"), _said("So.", "assistant", thinking="Hm"), _said("More"), think=True),
}

_LOOK = {"function": {"name": "weather", "arguments": {"city": "Paris"}}}
_TIME = {"function": {"name": "time", "arguments": {}}}

_OLLAMA: dict[str, Any] = {
    "system texts": _chat({"role": "system", "content": "Be brief."}, _said("Hi")),
    "a stream": _chat(stream=True),
    "a prompt": {"model": "m", "prompt": "Hi", "system": "Be brief.", "suffix": "", "context": [], "raw": False},
    "sampling": _chat(options={"temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["x", "y"], "num_predict": 100}),
    "other sampling": _chat(options={"top_k": 3, "presence_penalty": 0.5, "frequency_penalty": 0.5}),
    "how the model is run": _chat(options={"num_ctx": 4096, "mirostat": 1}, keep_alive="5m", truncate=True),
    "calls and results": _chat(
        _said("?"),
        {"role": "assistant", "content": "", "thinking": "Hm", "tool_calls": [_LOOK, _TIME, {"id": "call_9", **_LOOK}]},
        {"role": "tool", "tool_call_id": "call_9", "content": "Snow"},
        {"role": "tool", "tool_name": "time", "content": "Noon"},
        {"role": "tool", "content": "Rain"},
        tools=[_TOOL],
    ),
    "results without names": _chat(
        _said("?"),
        {"role": "assistant", "content": "Let me see.", "tool_calls": [_LOOK]},
        {"role": "tool", "content": "Rain"},
        tools=[_TOOL],
    ),
    "an image": _chat({"role": "user", "content": "See", "images": [PNG]}),
    "a form of the answer": _chat(format=ANSWER),
    "any JSON": _chat(format="json"),
    "thinking": _chat(think="high", options={"num_predict": 9000}),
    "no thinking": _chat(think=False),
    "probabilities": _chat(logprobs=True, top_logprobs=2),
}

REQUESTS: dict[Dialect, dict[str, Any]] = {
    "openai": _OPENAI,
    "anthropic": _ANTHROPIC,
    "responses": _RESPONSES,
    "gemini": _GEMINI,
    "ollama": _OLLAMA,
}


# Each dialect with each protocol that is another
PAIRS: list[tuple[Dialect, Dialect]] = [
    (dialect, protocol) for dialect in REQUESTS for protocol in MODELS if protocol != dialect
]
