"""A log in files: the format in which history moves from one log to another, and which anybody can read.

    tollgate-log.json                what follows, with counts and SHA-256
    completions-0.ndjson.zst         one file for each partition, zstd; a line for each record, in the order of offsets

A line is `{"offset":7,"time":1795000000000,"key":"acme","value":{...}}`: `time` is the log's, in Unix milliseconds, and
`value` the event, byte for byte as it lies on the log. A key that is not UTF-8 is in `key_base64`, a value that is not
one JSON object on one line in `value_base64`; a tombstone has no value, and `headers` are pairs of name and base64.
SHA-256 is that of the lines: `zstdcat completions-0.ndjson.zst | sha256sum`.
"""

import base64
import hashlib
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pyarrow as pa

from tollgate.errors import ConfigError, why

from . import Record

FORMAT = "tollgate-log"
VERSION = 1
MANIFEST = "tollgate-log.json"
TAR = ".tar"
READ_BYTES = 1 << 20
LONGEST_LINE = 128 << 20  # a record of the largest size in base64, and room


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One partition: `records` of the offsets `[start, end)`, between which there may be gaps.

    `start` is what retention had left. Amounts are of the ends and adjustments that count, whole pico-dollars as text,
    because they do not fit into the numbers of every reader of JSON.
    """

    topic: str
    partition: int
    file: str
    start: int
    end: int
    records: int
    sha256: str
    ends: int = 0
    cost_pusd: str = "0"
    bill_pusd: str = "0"

    @property
    def name(self) -> str:
        return f"{self.topic}/{self.partition}"


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What an archive holds. `partitions` are the counts of the topics that are in it."""

    format: str = FORMAT
    version: int = VERSION
    tollgate: str = ""
    made: str = ""  # RFC 3339
    source: str = ""  # embedded or kafka
    left_out: tuple[str, ...] = ()  # topics, in words
    partitions: dict[str, int]
    parts: tuple[Part, ...]

    @property
    def id(self) -> str:
        """What tells this archive from others."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:12]


class _Line(msgspec.Struct):
    offset: int
    time: int
    key: str | None = None
    key_base64: str | None = None
    value: msgspec.Raw = msgspec.Raw(b"")
    value_base64: str | None = None
    headers: tuple[tuple[str, str], ...] = ()


_line = msgspec.json.Decoder(_Line)
_any = msgspec.json.Decoder()


def line_of(record: Record) -> bytes:
    """The record as a line, without its end. Pure."""
    words = [b'{"offset":%d,"time":%d' % (record.offset, record.timestamp_ms)]
    if record.key is not None:
        try:
            words.append(b',"key":' + msgspec.json.encode(record.key.decode()))
        except UnicodeDecodeError:
            words.append(b',"key_base64":"' + base64.b64encode(record.key) + b'"')
    if record.headers:
        headers = [(name, base64.b64encode(content or b"").decode()) for name, content in record.headers]
        words.append(b',"headers":' + msgspec.json.encode(headers))
    if record.value is not None:
        if _is_one_object(record.value):
            words.append(b',"value":' + record.value)
        else:
            words.append(b',"value_base64":"' + base64.b64encode(record.value) + b'"')
    words.append(b"}")
    return b"".join(words)


def record_of(line: bytes, topic: str, partition: int) -> Record:
    """The record of a line. Raises `ValueError`. Pure."""
    found = _line.decode(line)
    key: bytes | None = None
    if found.key is not None:
        key = found.key.encode()
    elif found.key_base64 is not None:
        key = base64.b64decode(found.key_base64, validate=True)
    value: bytes | None = bytes(found.value) or None
    if found.value_base64 is not None:
        value = base64.b64decode(found.value_base64, validate=True)
    headers = tuple((name, base64.b64decode(content, validate=True)) for name, content in found.headers)
    return Record(topic, partition, found.offset, found.time, key, value, headers)


def _is_one_object(value: bytes) -> bool:
    """Can the value stand in a line as it is, and be taken out of it again as it was?"""
    if not (value.startswith(b"{") and value.endswith(b"}")) or b"\n" in value or b"\r" in value:
        return False
    try:
        _any.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


# Writing --------------------------------------------------------------------------------------------------------------


class Writer:
    """Writes the file of one partition: `add` its records, then `close`."""

    def __init__(self, path: Path) -> None:
        self._file = pa.CompressedOutputStream(str(path), "zstd")
        self._hash = hashlib.sha256()
        self.records = 0

    def add(self, records: Iterable[Record]) -> None:
        lines = [line_of(record) for record in records]
        text = b"".join([line + b"\n" for line in lines])
        self._hash.update(text)
        self._file.write(text)
        self.records += len(lines)

    def close(self) -> str:
        """Finish the file; return the SHA-256 of its lines."""
        self._file.close()
        return self._hash.hexdigest()


def digest(hash: Any, records: Iterable[Record]) -> int:
    """Add the records' lines to a hash as `Writer` does; return how many they were."""
    lines = [line_of(record) + b"\n" for record in records]
    hash.update(b"".join(lines))
    return len(lines)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write what makes a folder of files an archive: the last thing to be done."""
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    (folder / MANIFEST).write_bytes(text + b"\n")


# Reading --------------------------------------------------------------------------------------------------------------


class Source(Protocol):
    """Where the files of an archive are."""

    def open(self, name: str) -> Any: ...


class _Folder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, name: str) -> Any:
        return (self._folder / Path(name).name).open("rb")


class _Tar:
    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar

    def open(self, name: str) -> Any:
        try:
            found = self._tar.extractfile(name)
        except KeyError:
            found = None
        if found is None:
            raise FileNotFoundError(name)
        return found


class Archive:
    """An archive that is being read: manifest and records. Every error is a `ConfigError` that names the file."""

    def __init__(self, place: Path, source: Source) -> None:
        self._place = place
        self._source = source
        self.manifest = self._manifest()

    def records(self, part: Part) -> Iterator[list[Record]]:
        """The records of a partition, some at a time; fails at the end if they are not what the manifest says."""
        hash, count, before = hashlib.sha256(), 0, part.start - 1
        try:
            with self._source.open(part.file) as file:
                for lines in _lines(file):
                    hash.update(b"".join([line + b"\n" for line in lines]))
                    found = [record_of(line, part.topic, part.partition) for line in lines]
                    for record in found:
                        if not before < record.offset < part.end:
                            raise ValueError(f"offset {record.offset} is out of place")
                        before = record.offset
                    count += len(found)
                    yield found
        except (OSError, ValueError, pa.ArrowException, msgspec.MsgspecError, EOFError) as error:
            raise ConfigError(f"{self._place}: {part.file} is damaged after {count} records: {why(error)}") from None
        if count != part.records or hash.hexdigest() != part.sha256:
            raise ConfigError(
                f"{self._place}: {part.file} is damaged: it holds {count} records with SHA-256 {hash.hexdigest()}, "
                f"{MANIFEST} says {part.records} with {part.sha256}"
            )

    def _manifest(self) -> Manifest:
        try:
            with self._source.open(MANIFEST) as file:
                text = file.read()
            kind = msgspec.json.decode(text, type=dict[str, Any])
            if kind.get("format") != FORMAT:
                raise ConfigError(f"{self._place}: {MANIFEST} is not that of an exported log")
            if kind.get("version") != VERSION:
                raise ConfigError(
                    f"{self._place}: is of version {kind.get('version')}; this program reads version {VERSION}"
                )
            return msgspec.json.decode(text, type=Manifest)
        except FileNotFoundError:
            raise ConfigError(
                f"{self._place}: has no {MANIFEST}, so it is no exported log, or not a whole one"
            ) from None
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, tarfile.TarError) as error:
            raise ConfigError(f"{self._place}: {MANIFEST} cannot be read: {why(error)}") from None


@contextmanager
def open_archive(place: Path) -> Iterator[Archive]:
    """Read the archive in a folder or a tar file. Raises `ConfigError`."""
    if place.is_dir():
        yield Archive(place, _Folder(place))
        return
    try:
        tar = tarfile.open(place)  # noqa: SIM115 closed below
    except OSError as error:
        raise ConfigError(f"{place}: cannot be opened: {why(error)}") from None
    except tarfile.TarError:  # its words are a list of all that was tried
        raise ConfigError(
            f"{place}: is no tar file; name a folder or a file that 'tollgate log export' has made"
        ) from None
    with tar:
        yield Archive(place, _Tar(tar))


def _lines(file: Any) -> Iterator[list[bytes]]:
    """The whole lines of a compressed file, some at a time. Raises `ValueError` for one that does not end."""
    rest = b""
    with pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd") as stream:
        while piece := stream.read(READ_BYTES):
            *lines, rest = (rest + piece).split(b"\n")
            if len(rest) > LONGEST_LINE:
                raise ValueError(f"a line is longer than {LONGEST_LINE} bytes")
            if lines:
                yield lines
    if rest:
        raise ValueError("it ends in the middle of a line")
