"""`GET /v1/models`: what is served here, as each dialect lists it; and what Ollama's clients ask before they ask it."""

from typing import Any

import orjson

import tollgate
from tollgate.ingress.catalogue import Catalogue
from tollgate.ingress.guard import Load, check_body_head
from tollgate.ingress.http import Answer, Incoming, json_answer
from tollgate.ingress.parse import parse_object
from tollgate.wire import fields
from tollgate.wire.exchange import WIRES

MAX_SHOW_BYTES = 4096

# Clients compare it, and keep off servers that are older than what they use: the version whose API is spoken here
OLLAMA_VERSION = "0.12.11"

# What the gateway carries in this dialect. Whether the model behind it can is known to its provider alone.
_CAPABILITIES = ["completion", "tools", "vision", "thinking"]


class Models:
    """The list of models; `created_s`, which the dialects want, is when this gateway started."""

    def __init__(self, catalogue: Catalogue, load: Load, *, created_s: int) -> None:
        self._catalogue = catalogue
        self._load = load
        self._created_s = created_s

    async def list(self, incoming: Incoming) -> Answer:
        """`GET /v1/models`, `GET /api/tags`."""
        models = [(model, owner, self._created_s) for model, owner in self._catalogue.listed()]
        return Answer(200, WIRES[incoming.dialect].models_body(models))

    async def one(self, incoming: Incoming) -> Answer:
        """`GET /v1/models/{model}`, also of one that only a pattern covers. Raises `Refusal` (404)."""
        model = incoming.path_params["model"]
        self._catalogue.check(model)
        listing = WIRES[incoming.dialect].models_body([(model, self._catalogue.owner(model), self._created_s)])
        content: dict[str, Any] = orjson.loads(listing)
        (found,) = next(value for value in content.values() if isinstance(value, list))
        return Answer(200, orjson.dumps(found))

    async def show(self, incoming: Incoming) -> Answer:
        """`POST /api/show`, of a model named in the body. Raises `Refusal` (400, 404)."""
        check_body_head(incoming.headers, MAX_SHOW_BYTES)
        body = parse_object(await self._load.read_body(incoming, max_bytes=MAX_SHOW_BYTES))
        model = fields.model({"model": body.get("model") or body.get("name")})
        self._catalogue.check(model)
        owner = self._catalogue.owner(model)
        (listed,) = orjson.loads(WIRES["ollama"].models_body([(model, owner, self._created_s)]))["models"]
        shown = {"details": listed["details"], "modified_at": listed["modified_at"], "capabilities": _CAPABILITIES}
        return json_answer(200, shown | {"model_info": {"general.architecture": owner, "general.basename": model}})

    async def version(self, incoming: Incoming) -> Answer:
        """`GET /api/version`."""
        return json_answer(200, {"version": OLLAMA_VERSION, "tollgate": tollgate.__version__})
