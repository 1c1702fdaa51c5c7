"""The environment variables: what each is for, and what it comes to.

`tollgate.app.settings` puts them in order with flags and the file; this module reads no file and loads nothing heavy.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from tollgate.errors import ConfigError

CONFIG_FILE = "gateway.yaml"
PRICING_FILE = "pricing.yaml"  # in the working directory, if there is one
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
    "TOLLGATE_SECRET": "The root of the pepper that hashes API keys and of the keys that seal bodies and credentials. "
    "Made on the first run on the embedded log (`secret.key` in the data folder), required on Kafka, the same for all "
    "processes, and required where credentials are set through the management API.",
    "TOLLGATE_URL": "The gateway that the commands talk to. Default: `http://127.0.0.1:$TOLLGATE_PORT`.",
    "TOLLGATE_KEY": "The key that the commands use. Default: the admin key in the data folder.",
}


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


def data_folder(env: Mapping[str, str]) -> Path:
    """Where everything is kept that must survive the process."""
    return Path(env.get("TOLLGATE_DATA") or DEFAULT_DATA)


def gateway_url(env: Mapping[str, str]) -> str:
    """The gateway that commands talk to, without a slash at the end."""
    url = env.get("TOLLGATE_URL") or f"http://127.0.0.1:{port(env, DEFAULT_PORT)}"
    if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", url):
        raise ConfigError("TOLLGATE_URL must be http(s)://host[:port], for instance http://127.0.0.1:8080")
    return url.rstrip("/")


def port(env: Mapping[str, str], otherwise: int) -> int:
    """TOLLGATE_PORT, or `otherwise` where it is not set."""
    text = env.get("TOLLGATE_PORT")
    if not text:
        return otherwise
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise ConfigError("TOLLGATE_PORT must be a port from 0 to 65535, for instance 8080")
    return int(text)
