"""Sealed bodies: what lies on the log cannot be read once its data key is deleted.

A body is encrypted (AES-256-GCM) under a random data key of its organisation and hour. Data keys lie apart from the
log, themselves encrypted under a key derived from the gateway's secret. Deleting a data key makes every copy of its
bodies unreadable, wherever the log's files have gone.

Nonces are 96 random bits, which NIST SP 800-38D (8.3) allows for up to 2^32 encryptions under one key: more than a
million requests a second of one organisation for the whole hour.
"""

import contextlib
import os
import re
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tollgate.derive import derive
from tollgate.errors import TollgateError
from tollgate.ids import random_text
from tollgate.secret import Secret

HOUR_MS = 3_600_000
NONCE_BYTES = 12
MAX_OPEN_KEYS = 4096  # data keys held in memory, to seal and to open with; an older one is read again

_SEAL_ID = re.compile(r"(\d{1,9})\.([0-9A-Za-z]{22})")


class SealError(TollgateError):
    """A sealed body cannot be opened: it was altered, is another request's, or the gateway's secret is another."""


class SealGone(SealError):
    """The data key has been deleted; the body cannot be read any more, by anybody."""


class SealStore(Protocol):
    """Where data keys lie, each under the id of its seal. What is kept is encrypted already."""

    def save(self, seal_id: str, wrapped: bytes) -> None:
        """Keep a new key; when it returns, the key outlives a power cut."""
        ...

    def load(self, seal_id: str) -> bytes | None:
        """The key as it was saved; None when there is none."""
        ...

    def drop_before(self, hour: int) -> None:
        """Delete the keys of every hour before this one (hours since 1970, UTC)."""
        ...


class _DataKey(NamedTuple):
    seal_id: str
    hour: int
    cipher: AESGCM


class Sealer:
    """Seals and opens bodies. Belongs to one event loop, which waits while a new data key is written: once an hour
    for each organisation."""

    def __init__(self, root: Secret, store: SealStore) -> None:
        self._wrapping = AESGCM(derive(root, "seal wrapping v1"))
        self._store = store
        self._opened: OrderedDict[str, _DataKey] = OrderedDict()
        self._sealing: OrderedDict[str, _DataKey] = OrderedDict()

    def seal(self, org_id: str, request_id: str, body: bytes, now_ms: int) -> tuple[str, bytes]:
        """The id of the seal, and the body that only its key opens, for this organisation and request alone.

        When it returns, the data key is durable: what is appended afterwards can be opened.
        """
        hour = now_ms // HOUR_MS
        key = self._sealing.get(org_id)
        if key is None or key.hour != hour:
            key = self._make_key(org_id, hour)
            _remember(self._sealing, org_id, key)
        nonce = os.urandom(NONCE_BYTES)
        return key.seal_id, nonce + key.cipher.encrypt(nonce, body, _context(key.seal_id, org_id, request_id))

    def open(self, seal_id: str, org_id: str, request_id: str, ciphertext: bytes) -> bytes:
        """The body again. Raises `SealGone` when its key was deleted, `SealError` when it cannot be what was sealed."""
        key = self._opened.get(seal_id)
        if key is None:
            key = self._load_key(seal_id, org_id)
            _remember(self._opened, seal_id, key)
        try:
            nonce, sealed = ciphertext[:NONCE_BYTES], ciphertext[NONCE_BYTES:]
            return key.cipher.decrypt(nonce, sealed, _context(seal_id, org_id, request_id))
        except (InvalidTag, ValueError):
            raise SealError(f"the body of request {request_id} is not what was sealed under {seal_id!r}") from None

    def expire(self, now_ms: int, *, keep_ms: int) -> None:
        """Delete the data keys of every hour that ended more than `keep_ms` ago.

        `keep_ms` must cover the longest deadline of a request: until then its body may be needed.
        """
        first_kept = (now_ms - keep_ms) // HOUR_MS
        self._store.drop_before(first_kept)
        for keys in (self._opened, self._sealing):
            for name in [name for name, key in keys.items() if key.hour < first_kept]:
                del keys[name]

    def _make_key(self, org_id: str, hour: int) -> _DataKey:
        seal_id = f"{hour}.{random_text(22)}"
        data_key = AESGCM.generate_key(bit_length=256)
        nonce = os.urandom(NONCE_BYTES)
        self._store.save(seal_id, nonce + self._wrapping.encrypt(nonce, data_key, _context(seal_id, org_id)))
        key = _DataKey(seal_id, hour, AESGCM(data_key))
        _remember(self._opened, seal_id, key)
        return key

    def _load_key(self, seal_id: str, org_id: str) -> _DataKey:
        match = _SEAL_ID.fullmatch(seal_id)
        if match is None:
            raise SealError(f"{seal_id!r} does not name a seal")
        wrapped = self._store.load(seal_id)
        if wrapped is None:
            raise SealGone(f"the key of seal {seal_id} has been deleted: what it sealed cannot be read any more")
        try:
            data_key = self._wrapping.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], _context(seal_id, org_id))
        except (InvalidTag, ValueError):
            raise SealError(
                f"the key of seal {seal_id} does not open: TOLLGATE_SECRET is not the one that it was made under, "
                "or the seal belongs to another organisation"
            ) from None
        return _DataKey(seal_id, int(match[1]), AESGCM(data_key))


class FolderSeals:
    """Data keys as files of mode 0600, `<hour>/<rest of the id>`: an hour is forgotten by removing its folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def save(self, seal_id: str, wrapped: bytes) -> None:
        """See `SealStore.save`. Written beside its place and renamed: a crash leaves a whole key or none."""
        path = self._path(seal_id)
        if not path.parent.exists():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            _sync_folder(self._folder)
        draft = path.with_suffix(".new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(wrapped)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
        _sync_folder(path.parent)

    def load(self, seal_id: str) -> bytes | None:
        """See `SealStore.load`."""
        try:
            return self._path(seal_id).read_bytes()
        except FileNotFoundError:
            return None

    def drop_before(self, hour: int) -> None:
        """See `SealStore.drop_before`."""
        for folder in self._hours():
            if int(folder.name) < hour:
                for file in folder.iterdir():
                    file.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # another process is deleting it too
                    folder.rmdir()

    def _hours(self) -> Iterator[Path]:
        return (folder for folder in self._folder.iterdir() if folder.name.isdecimal())

    def _path(self, seal_id: str) -> Path:
        hour, _, rest = seal_id.partition(".")
        return self._folder / hour / rest


def _remember(keys: OrderedDict[str, _DataKey], name: str, key: _DataKey) -> None:
    keys[name] = key
    keys.move_to_end(name)
    if len(keys) > MAX_OPEN_KEYS:
        keys.popitem(last=False)


def _context(*parts: str) -> bytes:
    """What a ciphertext is bound to: it opens for these parts and no others."""
    return "\0".join(parts).encode()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
