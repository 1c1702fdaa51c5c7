"""The commands' side of the management API: one call at a time, over the standard library's HTTP.

Neither a proxy nor a redirect is followed: the key goes to the gateway that was named and nowhere else.
"""

import ipaddress
import json
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from tollgate.environment import data_folder, gateway_url
from tollgate.errors import ConfigError, TollgateError, UsageError
from tollgate.secret import Secret, check_strength, read_admin_key

TIMEOUT_S = 30
MAX_ANSWER_BYTES = 64 << 20

# Statuses that blame the words of the command; any other failure lies with the gateway or the way to it.
WRONG_WORDS = frozenset({400, 409, 422})


class GatewayError(TollgateError):
    """The gateway could not be reached, or did not do what was asked."""


def is_own_gateway(env: Mapping[str, str]) -> bool:
    """Is the gateway that commands talk to the one of this data folder? It took its admin key."""
    return not env.get("TOLLGATE_KEY") and _is_loopback(gateway_url(env))


class NotFound(UsageError):
    """The gateway has nothing under that name."""


def call(method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """The gateway's answer to one request, decoded from JSON.

    Raises `UsageError` when it refuses what was asked, `GatewayError` when it cannot be reached or fails,
    `ConfigError` when there is no key to ask with.
    """
    url = gateway_url(os.environ)
    status, content = _exchange(method, url, path, body, _key(url, os.environ))
    try:
        answer = json.loads(content) if content else None
    except ValueError:
        answer = None
    if 200 <= status < 300:
        return answer
    message = _message(answer) or f"{method} {path} was answered {status} by {url}"
    if status == 401:
        asked_with = "TOLLGATE_KEY" if os.environ.get("TOLLGATE_KEY") else "the admin key of this machine"
        raise GatewayError(f"{message.rstrip('.')} (it was {asked_with}, shown to {url})")
    if status == 404:
        raise NotFound(message)
    raise UsageError(message) if status in WRONG_WORDS else GatewayError(message)


def _exchange(method: str, url: str, path: str, body: Mapping[str, Any] | None, key: Secret) -> tuple[int, bytes]:
    import http.client  # 25 ms, which `--help` need not wait for

    address = urlsplit(url)
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    connection = kind(address.netloc, timeout=TIMEOUT_S)
    headers = {"authorization": f"Bearer {key.reveal()}", "accept": "application/json"}
    if body is not None:
        headers["content-type"] = "application/json"
    try:
        connection.request(method, address.path + path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, response.read(MAX_ANSWER_BYTES)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise GatewayError(
            f"no answer from {url}: {reason}; start it with 'tollgate serve', or name another one with TOLLGATE_URL"
        ) from error
    finally:
        connection.close()


def _key(url: str, env: Mapping[str, str]) -> Secret:
    """TOLLGATE_KEY, else this machine's admin key, which is shown to no gateway but this machine's own."""
    if env.get("TOLLGATE_KEY"):
        return _given(env["TOLLGATE_KEY"])
    if not _is_loopback(url):
        raise ConfigError(f"{url} is on another machine; set TOLLGATE_KEY to a key of that gateway")
    if env.get("TOLLGATE_ADMIN_KEY"):
        return check_strength("TOLLGATE_ADMIN_KEY", env["TOLLGATE_ADMIN_KEY"])
    key = read_admin_key(data_folder(env))
    if key is None:
        raise ConfigError(
            f"no key: {data_folder(env)} holds no admin.key; run this where the gateway's data folder is, "
            "name that with TOLLGATE_DATA, or set TOLLGATE_KEY"
        )
    return key


def _given(text: str) -> Secret:
    """A key of any kind. Raises `ConfigError`, which does not show it, for what no header can carry."""
    try:
        key = Secret(text.strip())
    except ValueError as error:
        raise ConfigError(f"TOLLGATE_KEY {error}; set it to a key, or unset it to use the admin key") from None
    if not text.isascii():
        raise ConfigError("TOLLGATE_KEY holds a character that no key has; set it to a key as it was shown")
    return key


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _message(answer: Any) -> str | None:
    """The text of an error in OpenAI's or Anthropic's shape: both have it at `error.message`."""
    match answer:
        case {"error": {"message": str(message)}}:
            return message
        case _:
            return None
