"""The one place where flags, environment, file and defaults are put in order.

A flag beats the environment, the environment beats `gateway.yaml`, the file beats the default.
"""

import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from msgspec.structs import replace

from tollgate import environment
from tollgate.config import Config, check_broker, load_config
from tollgate.environment import config_file, data_folder
from tollgate.errors import ConfigError, UsageError

Role = Literal["all", "ingress", "worker", "sink"]

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
        data=data_folder(env),
        host=host or loaded.server.host,
        port=environment.port(env, loaded.server.port) if port is None else port,
        instance=_instance(env, instance, embedded=loaded.log.embedded),
    )


def check_role(role: Role, config: Config) -> None:
    """Raise `UsageError` for one role of several on the log of a single process."""
    if role != "all" and config.log.embedded:
        raise UsageError(
            f"--role {role} needs Kafka: the embedded log belongs to one process; add --broker kafka://..."
        )


def _instance(env: Mapping[str, str], flag: str | None, *, embedded: bool) -> str:
    name = flag or env.get("TOLLGATE_INSTANCE") or ("main" if embedded else socket.gethostname())
    if not _INSTANCE.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot name an instance: use letters, digits, '.', '_' and '-' (--instance, TOLLGATE_INSTANCE)"
        )
    return name
