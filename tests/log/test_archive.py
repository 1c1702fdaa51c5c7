"""A log in files: every record comes back as it was, and whatever is damaged is named."""

import hashlib
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.errors import ConfigError
from tollgate.log import Record
from tollgate.log.archive import MANIFEST, Manifest, Part, Writer, line_of, open_archive, record_of, write_manifest

names = st.text(max_size=5)
objects = st.dictionaries(names, st.integers() | names, max_size=3)
values = (
    st.none()
    | st.binary(max_size=20)
    | objects.map(lambda value: json.dumps(value).encode())
    | objects.map(lambda value: json.dumps(value, indent=1, ensure_ascii=False).encode())
    | st.sampled_from([b"null", b"{}", b"{", b'{"a":1}{"a":2}', b'{"a":"\xff"}', b" {}", b'{"a":"x\\ny"}'])
)
records = st.builds(
    Record,
    st.just("completions"),
    st.just(3),
    st.integers(0, 2**40 - 1),
    st.integers(0, 2**45),
    st.none() | st.binary(max_size=9) | names.map(str.encode),
    values,
    st.lists(st.tuples(names, st.binary(max_size=5)), max_size=2).map(tuple),
)


@given(records)
def test_a_record_is_a_line_of_json_and_comes_back_as_it_was(record: Record) -> None:
    line = line_of(record)
    assert b"\n" not in line
    json.loads(line)
    assert record_of(line, "completions", 3) == record


def test_an_event_can_be_read_in_its_line() -> None:
    line = line_of(Record("completions", 0, 7, 9, b"acme", b'{"type":"owner_took.1","instance":"a"}'))
    assert json.loads(line) == {
        "offset": 7,
        "time": 9,
        "key": "acme",
        "value": {"type": "owner_took.1", "instance": "a"},
    }


def made(folder: Path, count: int = 50) -> Manifest:
    writer = Writer(folder / "costs-0.ndjson.zst")
    writer.add([Record("costs", 0, 2 * n, n, b"acme", b'{"n":%d}' % n) for n in range(count)])
    part = Part(
        topic="costs",
        partition=0,
        file="costs-0.ndjson.zst",
        start=0,
        end=2 * count,
        records=count,
        sha256=writer.close(),
    )
    manifest = Manifest(partitions={"costs": 1}, parts=(part,))
    write_manifest(folder, manifest)
    return manifest


def test_what_was_written_is_read_from_a_folder_and_from_a_tar_file(tmp_path: Path) -> None:
    manifest = made(tmp_path)
    packed = tmp_path / "all.tar"
    with tarfile.open(packed, "w") as tar:
        for name in (MANIFEST, "costs-0.ndjson.zst"):
            tar.add(tmp_path / name, arcname=name)
    for place in (tmp_path, packed):
        with open_archive(place) as archive:
            assert archive.manifest == manifest
            found = [record for batch in archive.records(manifest.parts[0]) for record in batch]
        assert [record.offset for record in found] == list(range(0, 100, 2))


def test_its_sha_256_is_that_of_the_lines(tmp_path: Path) -> None:
    manifest = made(tmp_path)
    with pa.CompressedInputStream(str(tmp_path / "costs-0.ndjson.zst"), "zstd") as stream:
        assert hashlib.sha256(stream.read()).hexdigest() == manifest.parts[0].sha256


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x55
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def write(path: Path, text: bytes) -> None:
    with pa.CompressedOutputStream(str(path), "zstd") as stream:
        stream.write(text)


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        cut,
        Path.unlink,
        lambda path: path.write_bytes(b"not zstd"),
        lambda path: write(path, b""),
        lambda path: write(path, b'{"offset":1,"time":1}'),
        lambda path: write(path, b'{"offset":1,"time":1}\n{"offset":1,"time":1}\n'),
        lambda path: write(path, b'{"offset":1000,"time":1}\n'),
        lambda path: write(path, b'{"offset":"x"}\n'),
        lambda path: write(path, b'{"offset":1,"time":1,"value_base64":"%%"}\n'),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    manifest = made(tmp_path)
    damage(tmp_path / "costs-0.ndjson.zst")
    with open_archive(tmp_path) as archive, pytest.raises(ConfigError, match=r"costs-0\.ndjson\.zst is damaged"):
        list(archive.records(manifest.parts[0]))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (None, "has no tollgate-log.json, so it is no exported log, or not a whole one"),
        (b"{", "tollgate-log.json cannot be read"),
        (b"{}", "is not that of an exported log"),
        (b'{"format":"tollgate-log","version":2}', "is of version 2; this program reads version 1"),
        (b'{"format":"tollgate-log","version":1}', "tollgate-log.json cannot be read"),
    ],
)
def test_what_is_no_archive_is_told(tmp_path: Path, text: bytes | None, what: str) -> None:
    if text is not None:
        (tmp_path / MANIFEST).write_bytes(text)
    with pytest.raises(ConfigError, match=what), open_archive(tmp_path):
        pass


def test_a_file_that_is_no_tar_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"x" * 1000)
    with pytest.raises(ConfigError, match=r"x\.tar: is no tar file"), open_archive(tmp_path / "x.tar"):
        pass
    with pytest.raises(ConfigError, match="cannot be opened"), open_archive(tmp_path / "nothing"):
        pass
