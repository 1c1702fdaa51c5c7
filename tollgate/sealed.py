"""Sealed bodies: what lies on the log cannot be read once its data key is deleted.

A body is encrypted (AES-256-GCM) under a random data key of its organisation and hour. Data keys lie apart from the
log, themselves encrypted under a key derived from the gateway's secret. Deleting a data key makes every copy of its
bodies unreadable, wherever the log's files have gone.

Nonces are 96 random bits, which NIST SP 800-38D (8.3) allows for up to 2^32 encryptions under one key: more than a
million requests a second of one organisation for the whole hour.
"""

import asyncio
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
    """Where data keys lie, each under the id of its seal. What is kept is encrypted already.

    `save` may be called from several threads.
    """

    def save(self, seal_id: str, wrapped: bytes) -> None:
        """Keep a new key; when it returns, the key outlives a power cut. Called in a thread."""
        ...

    async def wait_for(self, seal_id: str, *, timeout_s: float) -> bool:
        """Wait until a key that another process made is here; False when it does not come."""
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
    """Seals and opens bodies. Belongs to one event loop."""

    def __init__(self, root: Secret, store: SealStore) -> None:
        self._wrapping = AESGCM(derive(root, "seal wrapping v1"))
        self._store = store
        self._opened: OrderedDict[str, _DataKey] = OrderedDict()
        self._sealing: OrderedDict[str, _DataKey] = OrderedDict()
        self._making: dict[str, asyncio.Task[None]] = {}

    def is_ready(self, org_id: str, now_ms: int) -> bool:
        """Can `seal` take the data key of this hour without making it?"""
        return self._key(org_id, now_ms) is not None

    async def prepare(self, org_id: str, now_ms: int) -> None:
        """Have the data key of this hour ready. `seal` would make it too, and the loop would wait for the disk.

        Raises `OSError` when it cannot be written.
        """
        if self.is_ready(org_id, now_ms):
            return
        making = self._making.get(org_id)
        if making is None:
            making = self._making[org_id] = asyncio.create_task(self._make_beside(org_id, now_ms // HOUR_MS))
            making.add_done_callback(lambda _: self._making.pop(org_id, None))
        await asyncio.shield(making)  # who waits may leave; the others need it still

    def seal(self, org_id: str, request_id: str, body: bytes, now_ms: int) -> tuple[str, bytes]:
        """The id of the seal, and the body that only its key opens, for this organisation and request alone.

        When it returns, the data key is durable: what is appended afterwards can be opened.
        """
        key = self._key(org_id, now_ms)
        if key is None:
            key = self._new_key(org_id, now_ms // HOUR_MS)
            self._adopt(org_id, key)
        nonce = os.urandom(NONCE_BYTES)
        return key.seal_id, nonce + key.cipher.encrypt(nonce, body, _context(key.seal_id, org_id, request_id))

    def knows(self, seal_id: str) -> bool:
        """Can bodies under this seal be opened here now?"""
        return seal_id in self._opened or self._store.load(seal_id) is not None

    async def wait_for(self, seal_id: str, *, timeout_s: float) -> bool:
        """Wait until they can; False when the key does not come."""
        return await self._store.wait_for(seal_id, timeout_s=timeout_s)

    def seal_under(self, seal_id: str, org_id: str, request_id: str, body: bytes) -> bytes:
        """Another body of a request whose seal is known. Raises `SealGone`, `SealError`."""
        key = self._opener(seal_id, org_id)
        nonce = os.urandom(NONCE_BYTES)
        return nonce + key.cipher.encrypt(nonce, body, _context(seal_id, org_id, request_id))

    def open(self, seal_id: str, org_id: str, request_id: str, ciphertext: bytes) -> bytes:
        """The body again. Raises `SealGone` when its key was deleted, `SealError` when it cannot be what was sealed."""
        key = self._opener(seal_id, org_id)
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

    def _key(self, org_id: str, now_ms: int) -> _DataKey | None:
        key = self._sealing.get(org_id)
        return key if key is not None and key.hour == now_ms // HOUR_MS else None

    async def _make_beside(self, org_id: str, hour: int) -> None:
        self._adopt(org_id, await asyncio.to_thread(self._new_key, org_id, hour))

    def _adopt(self, org_id: str, key: _DataKey) -> None:
        _remember(self._sealing, org_id, key)
        _remember(self._opened, key.seal_id, key)

    def _new_key(self, org_id: str, hour: int) -> _DataKey:
        """A data key that is kept already. Runs in a thread: touches nothing but the store."""
        seal_id = f"{hour}.{random_text(22)}"
        data_key = AESGCM.generate_key(bit_length=256)
        nonce = os.urandom(NONCE_BYTES)
        self._store.save(seal_id, nonce + self._wrapping.encrypt(nonce, data_key, _context(seal_id, org_id)))
        return _DataKey(seal_id, hour, AESGCM(data_key))

    def _opener(self, seal_id: str, org_id: str) -> _DataKey:
        key = self._opened.get(seal_id)
        if key is None:
            key = self._load_key(seal_id, org_id)
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
        """See `SealStore.save`. Written beside its place, synced and renamed: a crash leaves a whole key or none."""
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

    async def wait_for(self, seal_id: str, *, timeout_s: float) -> bool:
        """See `SealStore.wait_for`: no other process writes here."""
        return self.load(seal_id) is not None

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
