"""The environment variables, and the one place where flags, environment, file and defaults are put in order.

A flag beats the environment, the environment beats `gateway.yaml`, the file beats the default.
"""

import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from msgspec.structs import replace

from tollgate.config import Config, check_broker, load_config
from tollgate.errors import ConfigError, UsageError

Role = Literal["all"]

CONFIG_FILE = "gateway.yaml"
DEFAULT_DATA = "data"
DEFAULT_PORT = 8080

# name → what it is for; docs/settings.md prints this table
VARIABLES = {
    "TOLLGATE_CONFIG": "The configuration file. Default: `gateway.yaml` in the working directory, if there is one.",
    "TOLLGATE_DATA": "The data folder. Default: `./data`.",
    "TOLLGATE_PORT": "The port to listen on, and where the other commands look for the gateway. Default: `8080`.",
    "TOLLGATE_INSTANCE": "The name of this process among its peers; its own state lies in `instances/NAME/` of the "
    "data folder. Default: `main` on the embedded log, the host's name on Kafka.",
    "TOLLGATE_ADMIN_KEY": "The key that may do everything on the management API, 128 random bits or more. Made on the "
    "first run on the embedded log (`admin.key` in the data folder), required on Kafka.",
    "TOLLGATE_SECRET": "The root of the pepper that hashes API keys and of the keys that seal bodies. Made on the "
    "first run on the embedded log (`secret.key` in the data folder), required on Kafka, the same for all processes.",
    "TOLLGATE_URL": "The gateway that the commands talk to. Default: `http://127.0.0.1:$TOLLGATE_PORT`.",
    "TOLLGATE_KEY": "The key that the commands use. Default: the admin key in the data folder.",
}

_INSTANCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Settings(NamedTuple):
    """All that a process needs to know before it starts."""

    config: Config
    data: Path
    host: str
    port: int
    instance: str


def resolve(
    env: Mapping[str, str],
    *,
    config: Path | None = None,
    data: Path | None = None,
    host: str | None = None,
    port: int | None = None,
    broker: str | None = None,
    instance: str | None = None,
) -> Settings:
    """The settings of a process; the arguments are its flags, None where one was not given.

    Raises `ConfigError` for what the environment or the file says, `UsageError` for a flag.
    """
    loaded = load_config(config_file(env, config), env)
    if broker is not None:
        try:
            loaded = replace(loaded, log=replace(loaded.log, broker=check_broker(broker)))
        except ValueError as error:
            raise UsageError(f"--broker {error}") from None
    return Settings(
        config=loaded,
        data=data_folder(env, data),
        host=host or loaded.server.host,
        port=port if port is not None else _port(env, loaded.server.port),
        instance=_instance(env, instance, embedded=loaded.log.embedded),
    )


def config_file(env: Mapping[str, str], flag: Path | None = None) -> Path | None:
    """The configuration file, or None where there is none. One that was named must exist."""
    named = flag or (Path(env["TOLLGATE_CONFIG"]) if env.get("TOLLGATE_CONFIG") else None)
    if named is None:
        usual = Path(CONFIG_FILE)
        return usual if usual.exists() else None
    if not named.exists():
        source = "--config" if flag else "TOLLGATE_CONFIG"
        raise ConfigError(f"{named}: no such file; {source} names it, correct that or create the file")
    return named


def data_folder(env: Mapping[str, str], flag: Path | None = None) -> Path:
    """Where everything is kept that must survive the process."""
    return flag or Path(env.get("TOLLGATE_DATA") or DEFAULT_DATA)


def gateway_url(env: Mapping[str, str]) -> str:
    """The gateway that commands talk to, without a slash at the end."""
    url = env.get("TOLLGATE_URL") or f"http://127.0.0.1:{_port(env, DEFAULT_PORT)}"
    if not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", url):
        raise ConfigError("TOLLGATE_URL must be http(s)://host[:port], for instance http://127.0.0.1:8080")
    return url.rstrip("/")


def _port(env: Mapping[str, str], otherwise: int) -> int:
    text = env.get("TOLLGATE_PORT")
    if not text:
        return otherwise
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise ConfigError("TOLLGATE_PORT must be a port from 0 to 65535, for instance 8080")
    return int(text)


def _instance(env: Mapping[str, str], flag: str | None, *, embedded: bool) -> str:
    name = flag or env.get("TOLLGATE_INSTANCE") or ("main" if embedded else socket.gethostname())
    if not _INSTANCE.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot name an instance: use letters, digits, '.', '_' and '-' (--instance, TOLLGATE_INSTANCE)"
        )
    return name
