"""Keys: one that was configured, and one in a file, as secrets are mounted by Kubernetes, Docker or a vault's agent."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from tollgate.errors import ProviderError
from tollgate.secret import Secret

LOOK_EVERY_S = 2.0
MAX_KEY_BYTES = 8 << 10

log = logging.getLogger(__name__)


class StaticKey:
    """A key that does not change."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers

    async def headers(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Mapping[str, str]:
        return self._headers

    def rejected(self) -> None:
        """There is no other."""

    async def keep_fresh(self) -> None:
        """Nothing changes."""


class NoKey(StaticKey):
    """For servers that ask for none."""

    def __init__(self) -> None:
        super().__init__({})


class Missing(StaticKey):
    """An account whose credential is set through the management API, and is not, or cannot be opened.

    Clients are told that the credentials were refused; the reason is for the operator, once.
    """

    def __init__(self, why: str) -> None:
        super().__init__({})
        self._why = why
        log.error("calls of an account fail: %s", why)

    async def headers(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Mapping[str, str]:
        raise ProviderError("auth", self._why)


class KeyFile:
    """A key in a file, read again when the file has changed. What cannot be read leaves the last key in force."""

    def __init__(self, name: str, path: str, write: Callable[[str], Mapping[str, str]]) -> None:
        """`write` makes the headers of a key."""
        self._name = name
        self._path = Path(path)
        self._write = write
        self._seen: tuple[int, int, int] | None = None  # the file that was read: inode, time, size
        self._headers: Mapping[str, str] | None = None
        self._look()

    async def headers(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Mapping[str, str]:
        if self._headers is None:
            self._look()
        if self._headers is None:
            raise ProviderError("auth", f"the key of {self._name} cannot be read from its file")
        return self._headers

    def rejected(self) -> None:
        self._look()

    async def keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self._look()

    def _look(self) -> None:
        """A look at a small local file; a secret's mount is memory."""
        try:
            status = self._path.stat()
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
            if seen == self._seen:
                return
            if status.st_size > MAX_KEY_BYTES:
                raise ValueError(f"is larger than {MAX_KEY_BYTES} bytes")
            self._headers = self._write(Secret(self._path.read_text("utf-8").strip()).reveal())
            self._seen = seen
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            log.error("the key file of %s, %s: %s", self._name, self._path, why)
