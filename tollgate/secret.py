"""Values that must never be shown, and the two that a gateway cannot start without.

A `Secret` hides its text from `repr`, `str`, format strings, JSON and pickles; only `reveal()` gives it out.
On the embedded log the gateway makes its admin key and its secret on the first run; on Kafka, where several
processes must agree on them, both come from the environment.
"""

import contextlib
import hmac
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn

from tollgate.errors import ConfigError, why
from tollgate.ids import random_text

ADMIN_KEY_FILE = "admin.key"
SECRET_FILE = "secret.key"  # noqa: S105 - a file name

MIN_SECRET_CHARS = 22  # 22 characters of base 62 are 131 bits: more than 128
MIN_DISTINCT_CHARS = 8  # fewer than this is a key leaning on the keyboard, not a random one
MAX_SECRET_BYTES = 4096

# Words that stand in published examples; a key that holds one was copied, not made.
SAMPLE_WORDS = ("changeme", "change-me", "change_me", "example", "placeholder", "password", "replace", "your-", "your_")


class Secret:
    """Text that does not show itself: not in `repr`, `str`, format strings, JSON or pickles."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        """Raises `ValueError` when there is nothing in it, or a line break, which no header could carry."""
        if not text.strip():
            raise ValueError("is empty")
        if not text.isprintable():
            raise ValueError("holds a line break or another character that cannot be printed")
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the one place that needs it."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is neither pickled nor copied")


class Secrets(NamedTuple):
    """What a gateway cannot start without.

    `admin_key` may do everything on the management API. `secret` is the root of the pepper that hashes API keys and
    of the keys that seal bodies; both are the UTF-8 bytes of its text. `kept_apart` says that the secret came from the
    environment: it need not lie beside the log that it encrypts.
    """

    admin_key: Secret
    secret: Secret
    kept_apart: bool = False


def first_run_secrets(data: Path, env: Mapping[str, str], *, embedded: bool) -> Secrets:
    """The gateway's secrets: from the environment, else (embedded only) from the data folder, made if need be.

    When it returns on the embedded log, what the environment did not give lies in `admin.key` and `secret.key` of
    `data`, mode 0600, whole and on disk; two processes that start together get the same ones.
    Raises `ConfigError` for a weak value, a file that others may read, or (on Kafka) a variable that is not set.
    """
    if not embedded:
        _require_both(env)
    return Secrets(
        admin_key=_from_env(env, "TOLLGATE_ADMIN_KEY")
        or _from_file(data / ADMIN_KEY_FILE, make=lambda: f"sk-tollgate-admin-{random_text(32)}"),
        secret=_from_env(env, "TOLLGATE_SECRET") or _from_file(data / SECRET_FILE, make=lambda: _new_secret(data)),
        kept_apart=bool(env.get("TOLLGATE_SECRET")),
    )


def read_admin_key(data: Path) -> Secret | None:
    """The admin key that the first run left in `data`; None where there is none."""
    path = data / ADMIN_KEY_FILE
    return _read(path) if path.exists() else None


def check_strength(name: str, text: str) -> Secret:
    """`text` as a secret, if it can be one of 128 bits. Raises `ConfigError` that shows `name` and never `text`."""
    make = f'make one with: export {name}="$(openssl rand -hex 32)"'
    try:
        secret = Secret(text)
    except ValueError as error:
        raise ConfigError(f"{name} {error}; {make}") from None
    if len(text) < MIN_SECRET_CHARS or len(set(text)) < MIN_DISTINCT_CHARS:
        raise ConfigError(
            f"{name} is too weak: it needs {MIN_SECRET_CHARS} random characters (128 bits) or more; {make}"
        )
    if any(word in text.lower() for word in SAMPLE_WORDS):
        raise ConfigError(f"{name} looks like a value from an example, which anybody may know; {make}")
    return secret


def _require_both(env: Mapping[str, str]) -> None:
    missing = [name for name in ("TOLLGATE_ADMIN_KEY", "TOLLGATE_SECRET") if not env.get(name)]
    if missing:
        commands = "\n".join(f'  export {name}="$(openssl rand -hex 32)"' for name in missing)
        raise ConfigError(
            f"on Kafka every process must be given the same {' and '.join(missing)}; make them once, keep them in "
            f"your secret store, and set them wherever tollgate runs:\n{commands}"
        )


def _from_env(env: Mapping[str, str], name: str) -> Secret | None:
    text = env.get(name)
    return check_strength(name, text) if text else None


def _new_secret(data: Path) -> str:
    """Raises `ConfigError` where a log lies already: its keys and bodies belong to a secret that is gone."""
    from tollgate.log.embedded_folder import DATABASE  # only here: the commands need this module and not the log

    if (data / DATABASE).exists() or any(data.glob(f"*/{DATABASE}")):
        raise ConfigError(
            f"{data / SECRET_FILE} is gone, but {data} holds a log that was written with it; put it back or set "
            "TOLLGATE_SECRET to what it held, for no key works and no body can be read without it"
        )
    return secrets.token_urlsafe(32)


def _from_file(path: Path, *, make: Callable[[], str]) -> Secret:
    if not path.exists():
        _create(path, make())
    return check_strength(str(path), _read(path).reveal())


def _read(path: Path) -> Secret:
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path} may be read by others; make it yours alone with: chmod 600 {path}")
        with path.open("rb") as file:
            return Secret(file.read(MAX_SECRET_BYTES).decode().strip())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {why(error)}") from error


def _create(path: Path, text: str) -> None:
    """Put `text` at `path` in one step, durably; if another process was first, its file stays.

    Written elsewhere and linked into place: a crash half-way would otherwise leave an empty file that stops every
    later start, and a second process could read half a key.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}.{random_text(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink()
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ConfigError(f"{path} cannot be made: {why(error)}; choose a folder with TOLLGATE_DATA") from error
