"""Which models are served here, as the configuration lists them."""

import difflib
import re
from collections.abc import Mapping
from functools import lru_cache

from tollgate.config import Config, Provider
from tollgate.errors import Refusal

MAX_REMEMBERED = 4096  # answers to "is it served?": a list of many patterns is not gone through for every request
MAX_SUGGESTIONS = 3

_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,255}")
_STEPS = frozenset({"", ".", ".."})  # parts of a path that lead elsewhere
_WILDCARD = re.compile(r"[*?\[]")


class Catalogue:
    """The models of all providers."""

    def __init__(self, config: Config) -> None:
        self.use(config)

    def use(self, config: Config) -> None:
        """From now on the models are those of this configuration."""
        self.providers = config.providers
        self._owners = _owners(config.providers)
        self._known = lru_cache(MAX_REMEMBERED)(self._is_served)

    def listed(self) -> list[tuple[str, str]]:
        """(model, provider) for every model that is known by name; what only a pattern covers is served unlisted."""
        return list(self._owners.items())

    def owner(self, model: str) -> str:
        """The provider that a served model is listed under."""
        if model in self._owners:
            return self._owners[model]
        prefix, slash, bare = model.partition("/")
        if slash and prefix in self.providers and self.providers[prefix].serves(bare):
            return prefix
        return next(name for name, provider in self.providers.items() if provider.serves(model))

    def check(self, model: str) -> None:
        """Raise `Refusal` (404) for a model that nobody serves; it names those that are spelt nearly so."""
        if self._known(model):
            return
        close = [] if len(model) > 256 else difflib.get_close_matches(model, self._owners, MAX_SUGGESTIONS)
        names = " or ".join(f"'{name}'" for name in close)
        hint = f"Did you mean {names}?" if close else "GET /v1/models lists those that are."
        raise Refusal(404, "model_not_found", f"The model {model[:256]!a} is not served here. {hint}", param="model")

    def _is_served(self, model: str) -> bool:
        if _MODEL_NAME.fullmatch(model) is None or not _STEPS.isdisjoint(model.split("/")):
            return False  # it becomes a header, a metric and a part of URLs
        prefix, slash, bare = model.partition("/")
        if slash and prefix in self.providers and self.providers[prefix].serves(bare):
            return True
        return any(provider.serves(model) for provider in self.providers.values())


def _owners(providers: Mapping[str, Provider]) -> dict[str, str]:
    """Each model that is listed by name, under the provider that is tried first. The sandbox goes by its own name."""
    owners: dict[str, str] = {}
    for provider in sorted(providers.values(), key=lambda provider: provider.priority):
        for name in (provider.builtin,) if provider.builtin else provider.models:
            if not _WILDCARD.search(name):
                owners.setdefault(name, provider.name)
    return owners
