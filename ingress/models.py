"""`GET /v1/models`: what is served here, as each dialect lists it."""

from typing import Any

import orjson

from tollgate.ingress.catalogue import Catalogue
from tollgate.ingress.http import Answer, Incoming
from tollgate.wire.exchange import WIRES


class Models:
    """The list of models; `created_s`, which the dialects want, is when this gateway started."""

    def __init__(self, catalogue: Catalogue, *, created_s: int) -> None:
        self._catalogue = catalogue
        self._created_s = created_s

    async def list(self, incoming: Incoming) -> Answer:
        """`GET /v1/models`."""
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
