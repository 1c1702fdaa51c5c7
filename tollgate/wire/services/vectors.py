"""Embeddings between the protocols: texts in, vectors out. Each form is a handful of functions over one middle. Pure.

OpenAI: https://platform.openai.com/docs/api-reference/embeddings. Google: https://ai.google.dev/api/embeddings, and the
prediction of Vertex AI (https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api).
Ollama: https://docs.ollama.com/api/embed. Nothing is lost without a word, as everywhere (`tollgate.wire.scope`).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from tollgate.events import Dialect, Usage
from tollgate.wire import Body, Extras, Meter, Quirks, fields, gemini, neutral, ollama
from tollgate.wire.failures import unreadable
from tollgate.wire.gemini.ask import parts
from tollgate.wire.gemini.words import camel
from tollgate.wire.openai import reply
from tollgate.wire.scope import Losses, NotCarried

Vectors = list[list[float]]


class Texts(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be embedded. `single`: the client asked for one vector, not for a list. `task` in Google's words."""

    texts: tuple[str, ...]
    single: bool = False
    dimensions: int | None = None
    task: str | None = None
    title: str | None = None


class Form(NamedTuple):
    """How one endpoint says it.

    `read` takes a client's request, `path` and `write` make a provider's, `vectors` reads its answer and fills in the
    meter, `answer` writes what the client gets, `extras` puts our fields into it.
    """

    read: Callable[[Body, Losses], Texts]
    path: Callable[[str], str]
    write: Callable[[Texts, str, Losses], Body]
    vectors: Callable[[Body, Meter], Vectors]
    answer: Callable[[Vectors, Meter, Texts], Body]
    extras: Callable[[Body, Extras], None]


# Reading ------------------------------------------------------------------------------------------------------------


def _read_openai(body: Body, losses: Losses) -> Texts:
    given = body["input"]
    if isinstance(given, list) and not all(isinstance(one, str) for one in given):
        raise NotCarried("input", "holds what is no text, which only a provider of this dialect takes")
    _drop(body, {"input", "model", "dimensions", "encoding_format"}, losses)
    return Texts(
        texts=(given,) if isinstance(given, str) else tuple(given),
        dimensions=fields.integer(body, "dimensions", minimum=1),
    )


def _read_ollama(body: Body, losses: Losses) -> Texts:
    old = "input" not in body  # of `/api/embeddings`
    given = body.get("prompt" if old else "input")
    texts = (given,) if isinstance(given, str) else fields.texts(fields.items(body, "input"), "input")
    _drop(body, {"input", "prompt", "model", "dimensions", "stream"}, losses)
    return Texts(texts=texts, single=old, dimensions=fields.integer(body, "dimensions", minimum=1))


def _read_google(body: Body, losses: Losses) -> Texts:
    return _read_content(camel(body), "", losses, single=True)


def _read_batch(body: Body, losses: Losses) -> Texts:
    requests = [camel(request) for request in requests_of(body)]
    read = [_read_content(request, f"requests[{at}].", losses) for at, request in enumerate(requests)]
    if any(msgspec.structs.replace(one, texts=()) != msgspec.structs.replace(read[0], texts=()) for one in read):
        raise NotCarried("requests", "differ in more than their texts, which only a provider of this dialect takes")
    return msgspec.structs.replace(read[0], texts=tuple(text for one in read for text in one.texts))


def requests_of(body: Body) -> list[Body]:
    """Those of a batch: at least one."""
    found: list[Body] = []
    for at, request in enumerate(fields.items(body, "requests")):
        if not isinstance(request, dict):
            raise fields.wrong_type(f"requests[{at}]", "an object", request)
        found.append(request)
    if not found:
        raise fields.missing("requests")
    return found


def _read_content(given: Body, where: str, losses: Losses, *, single: bool = False) -> Texts:
    said: list[str] = []
    content = fields.mapping(given, "content", path=f"{where}content")
    for at, part in enumerate(parts(content, f"{where}content")):
        text = fields.text(part, "text", path=f"{where}content.parts[{at}].text")
        if text is None:
            raise NotCarried(f"{where}content.parts[{at}]")
        said.append(text)
    if not said:
        raise fields.missing(f"{where}content")
    known = {"content", "model", "stream", "outputDimensionality", "taskType", "title"}
    _drop(given, known, losses, where)
    return Texts(
        texts=("\n".join(said),),
        single=single,
        dimensions=fields.integer(given, "outputDimensionality", minimum=1, path=f"{where}outputDimensionality"),
        task=fields.text(given, "taskType", path=f"{where}taskType"),
        title=fields.text(given, "title", path=f"{where}title"),
    )


def _drop(body: Body, known: set[str], losses: Losses, where: str = "") -> None:
    for field, value in body.items():
        if field not in known and value is not None and field not in fields.EXTENSION_FIELDS:
            losses.drop(f"{where}{field}")


# Writing ------------------------------------------------------------------------------------------------------------


def _write_openai(texts: Texts, model: str, losses: Losses) -> Body:
    _drop_hints(texts, losses)
    more = {} if texts.dimensions is None else {"dimensions": texts.dimensions}
    return {"model": model, "input": list(texts.texts), "encoding_format": "float", **more}


def _write_ollama(texts: Texts, model: str, losses: Losses) -> Body:
    _drop_hints(texts, losses)
    more = {} if texts.dimensions is None else {"dimensions": texts.dimensions}
    return {"model": model, "input": list(texts.texts), **more}


def _drop_hints(texts: Texts, losses: Losses) -> None:
    for field, value in (("taskType", texts.task), ("title", texts.title)):
        if value is not None:
            losses.drop(field)


def _write_batch(texts: Texts, model: str, losses: Losses) -> Body:
    hints = {"outputDimensionality": texts.dimensions, "taskType": texts.task, "title": texts.title}
    each = {"model": gemini.resource(model).removeprefix("/")} | _given(hints)
    return {"requests": [{"content": {"parts": [{"text": text}]}, **each} for text in texts.texts]}


def _write_predict(texts: Texts, model: str, losses: Losses) -> Body:
    hints = _given({"task_type": texts.task, "title": texts.title})
    sized = _given({"outputDimensionality": texts.dimensions})
    instances = [{"content": text, **hints} for text in texts.texts]
    return {"instances": instances} | ({"parameters": sized} if sized else {})


def _given(values: Mapping[str, object]) -> Body:
    return {field: value for field, value in values.items() if value is not None}


# Answers ------------------------------------------------------------------------------------------------------------


def _vectors(found: object, field: str, what: str) -> Vectors:
    """The lists at `field` of each item."""
    if not isinstance(found, list):
        raise unreadable(f"it has no '{what}'")
    vectors: Vectors = []
    for item in found:
        vector = item.get(field) if isinstance(item, dict) else item
        if not isinstance(vector, list) or not all(isinstance(one, int | float) for one in vector):
            raise unreadable("an embedding is no list of numbers")
        vectors.append(vector)
    return vectors


def _openai_vectors(answer: Body, meter: Meter) -> Vectors:
    block = answer.get("usage")
    counted = neutral.tokens(block, "prompt_tokens")
    counted = neutral.tokens(block, "total_tokens") if counted is None else counted
    _meter(meter, counted, block)
    return _vectors(answer.get("data"), "embedding", "data")


def _google_vectors(answer: Body, meter: Meter) -> Vectors:
    """Of one content, or of many."""
    block = answer.get("usageMetadata")
    _meter(meter, neutral.tokens(block, "promptTokenCount"), block)
    one = answer.get("embedding")
    return _vectors(answer.get("embeddings") if one is None else [one], "values", "embedding")


def _predicted_vectors(answer: Body, meter: Meter) -> Vectors:
    predictions = answer.get("predictions")
    found = (
        [one.get("embeddings") for one in predictions if isinstance(one, dict)]
        if isinstance(predictions, list)
        else None
    )
    counts = [neutral.tokens(one, "statistics", "token_count") for one in found or ()]
    if counts and None not in counts:
        _meter(meter, sum(count or 0 for count in counts), {"token_counts": counts})
    return _vectors(found, "values", "predictions")


def _ollama_vectors(answer: Body, meter: Meter) -> Vectors:
    _meter(meter, neutral.tokens(answer, "prompt_eval_count"), {"prompt_eval_count": answer.get("prompt_eval_count")})
    one = answer.get("embedding")
    return _vectors(answer.get("embeddings") if one is None else [one], "values", "embeddings")


def _meter(meter: Meter, counted: int | None, block: object) -> None:
    if counted is not None:
        meter.usage = Usage(input_tokens=counted)
        meter.usage_raw = neutral.compact(block)


def _openai_answer(vectors: Vectors, meter: Meter, texts: Texts) -> Body:
    data = [{"object": "embedding", "index": at, "embedding": vector} for at, vector in enumerate(vectors)]
    answer: Body = {"object": "list", "data": data, "model": meter.served_model or ""}
    if meter.usage is not None:
        count = meter.usage.input_tokens
        answer["usage"] = {"prompt_tokens": count, "total_tokens": count}
    return answer


def _google_answer(vectors: Vectors, meter: Meter, texts: Texts) -> Body:
    written = [{"values": vector} for vector in vectors]
    usage = {} if meter.usage is None else {"usageMetadata": {"promptTokenCount": meter.usage.input_tokens}}
    return ({"embedding": written[0]} if texts.single else {"embeddings": written}) | usage


def _ollama_answer(vectors: Vectors, meter: Meter, texts: Texts) -> Body:
    if texts.single:
        return {"embedding": vectors[0]}
    counts = {} if meter.usage is None else {"prompt_eval_count": meter.usage.input_tokens}
    return {"model": meter.served_model or "", "embeddings": vectors, **counts}


def _at(method: str) -> Callable[[str], str]:
    return lambda model: f"{gemini.resource(model)}:{method}"


OPENAI = Form(
    _read_openai, lambda model: "/embeddings", _write_openai, _openai_vectors, _openai_answer, reply.add_extras
)
BATCH = Form(_read_batch, _at("batchEmbedContents"), _write_batch, _google_vectors, _google_answer, gemini.add_extras)
SINGLE = BATCH._replace(read=_read_google, path=_at("embedContent"))
PREDICT = BATCH._replace(path=_at("predict"), write=_write_predict, vectors=_predicted_vectors)
OLLAMA = Form(
    _read_ollama, lambda model: "/api/embed", _write_ollama, _ollama_vectors, _ollama_answer, ollama.add_extras
)


def form_of(protocol: Dialect, quirks: Quirks) -> Form:
    """How a provider is asked in a protocol that may not be its client's."""
    if protocol == "gemini":
        return PREDICT if quirks.embeds_by_prediction else BATCH
    return OLLAMA if protocol == "ollama" else OPENAI
