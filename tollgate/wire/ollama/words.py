"""Words that more than one side of the protocol uses."""

from collections.abc import Mapping

from tollgate.wire import Body
from tollgate.wire.content import Finish

# Fields of `Prompt` → their names among Ollama's options
OPTIONS: Mapping[str, str] = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "seed": "seed",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
CAP = "num_predict"
LEVELS = ("low", "medium", "high", "max")  # of thinking, beside yes and no

finish_words: Mapping[str, Finish] = {
    "stop": "stop",
    "length": "length",
    "load": "stop",
    "unload": "stop",
    "content_filter": "content_filter",
}

FINISH_WRITTEN: Mapping[Finish, str] = {
    "stop": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "tool_calls": "stop",  # the protocol has no word of its own for it
    "content_filter": "content_filter",  # nor for this, but nothing else says that the answer is not whole
}


def is_generate(body: Body) -> bool:
    """Is it a request of `/api/generate`, with a `prompt`, and not of `/api/chat`, with `messages`?"""
    return "messages" not in body
