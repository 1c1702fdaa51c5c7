"""Providers that are known by name: where their API lies and how it departs from its protocol.

The data is `presets.yaml` beside this module; what it leaves out is what its protocol does. A provider that speaks a
known protocol is an entry there, or a few lines of gateway.yaml, never code.
"""

from collections.abc import Mapping
from functools import cache
from importlib import resources

import msgspec
import yaml

from tollgate.events import Dialect
from tollgate.wire import Quirks
from tollgate.wire.endpoints import EndpointName

NO_KEY = "none"


class Preset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of a provider. `base_url` is None where each customer has an address of its own.

    `prices` is its name in the price catalogue where that is another. `key` is the environment variable that its own
    clients read the key from, or `none`. `endpoints` None: those that its protocol is for.
    """

    protocol: Dialect = "openai"
    base_url: str | None = None
    prices: str | None = None
    key: str
    endpoints: tuple[EndpointName, ...] | None = None
    quirks: Quirks = Quirks()


@cache
def presets() -> Mapping[str, Preset]:
    """All of them, by name."""
    text = (resources.files("tollgate") / "presets.yaml").read_text("utf-8")
    return msgspec.convert(yaml.safe_load(text), dict[str, Preset])


def preset_at(base_url: str, protocol: Dialect) -> Preset | None:
    """The provider whose API lies at this address. Servers of one's own share theirs, and are not told by it."""
    known = (preset for preset in presets().values() if preset.key != NO_KEY)
    return next((preset for preset in known if (preset.base_url, preset.protocol) == (base_url, protocol)), None)
