"""Sealed bodies open with their own key, for their own request, and never again once the key is deleted."""

import asyncio
from pathlib import Path

import pytest

from tollgate.sealed import HOUR_MS, FolderSeals, Sealer, SealError, SealGone
from tollgate.secret import Secret

ROOT = Secret("a root secret of the tests, long enough")
BODY = b'{"messages": [{"role": "user", "content": "what nobody else may read"}]}'
NOW_MS = 1_795_000_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "seals"


def sealer(folder: Path, root: Secret = ROOT) -> Sealer:
    """A sealer as another process, or the next life of this one, would have it."""
    return Sealer(root, FolderSeals(folder))


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_was_sealed_opens_in_another_process(folder: Path):
    seal_id, sealed = sealer(folder).seal("acme", "r1", BODY, NOW_MS)
    assert sealer(folder).open(seal_id, "acme", "r1", sealed) == BODY


def test_nothing_of_the_body_shows(folder: Path):
    _, sealed = sealer(folder).seal("acme", "r1", BODY, NOW_MS)
    assert b"nobody" not in sealed
    assert all(b"nobody" not in file.read_bytes() for file in files(folder))


def test_the_same_body_never_looks_the_same_twice(folder: Path):
    made = sealer(folder)
    assert made.seal("acme", "r1", BODY, NOW_MS)[1] != made.seal("acme", "r1", BODY, NOW_MS)[1]


@pytest.mark.parametrize(("org_id", "request_id"), [("other", "r1"), ("acme", "r2")])
def test_it_opens_for_no_other_organisation_and_no_other_request(folder: Path, org_id: str, request_id: str):
    made = sealer(folder)
    seal_id, sealed = made.seal("acme", "r1", BODY, NOW_MS)
    for each in (made, sealer(folder)):
        with pytest.raises(SealError):
            each.open(seal_id, org_id, request_id, sealed)


@pytest.mark.parametrize("place", [0, 12, -1])
def test_one_changed_byte_is_noticed(folder: Path, place: int):
    made = sealer(folder)
    seal_id, sealed = made.seal("acme", "r1", BODY, NOW_MS)
    altered = bytearray(sealed)
    altered[place] ^= 1
    with pytest.raises(SealError):
        made.open(seal_id, "acme", "r1", bytes(altered))


@pytest.mark.parametrize("sealed", [b"", b"short"])
def test_what_is_too_short_to_be_sealed_is_an_error_like_any_other(folder: Path, sealed: bytes):
    made = sealer(folder)
    seal_id, _ = made.seal("acme", "r1", BODY, NOW_MS)
    with pytest.raises(SealError):
        made.open(seal_id, "acme", "r1", sealed)


def test_another_root_secret_opens_nothing_and_is_named_as_the_likely_cause(folder: Path):
    seal_id, sealed = sealer(folder).seal("acme", "r1", BODY, NOW_MS)
    with pytest.raises(SealError, match="TOLLGATE_SECRET"):
        sealer(folder, Secret("another root secret, just as long")).open(seal_id, "acme", "r1", sealed)


def test_an_organisation_has_one_key_per_hour_and_shares_it_with_nobody(folder: Path):
    made = sealer(folder)
    first = made.seal("acme", "r1", BODY, NOW_MS)[0]
    assert made.seal("acme", "r2", BODY, NOW_MS)[0] == first
    assert made.seal("other", "r3", BODY, NOW_MS)[0] != first
    assert made.seal("acme", "r4", BODY, NOW_MS + HOUR_MS)[0] != first
    assert len(files(folder)) == 3


def test_keys_lie_in_files_that_only_the_owner_may_read(folder: Path):
    sealer(folder).seal("acme", "r1", BODY, NOW_MS)
    assert [file.stat().st_mode & 0o777 for file in files(folder)] == [0o600]
    assert folder.stat().st_mode & 0o077 == 0


def test_an_expired_key_is_gone_for_everybody_at_once(folder: Path):
    made = sealer(folder)
    seal_id, sealed = made.seal("acme", "r1", BODY, NOW_MS)
    made.expire(NOW_MS + 3 * HOUR_MS, keep_ms=HOUR_MS)
    for each in (made, sealer(folder)):
        with pytest.raises(SealGone):
            each.open(seal_id, "acme", "r1", sealed)
    assert files(folder) == []


def test_a_key_stays_until_the_last_deadline_of_its_hour_is_over(folder: Path):
    start_of_hour = NOW_MS // HOUR_MS * HOUR_MS
    made = sealer(folder)
    seal_id, sealed = made.seal("acme", "r1", BODY, start_of_hour)
    made.expire(start_of_hour + HOUR_MS + 599_999, keep_ms=600_000)
    assert sealer(folder).open(seal_id, "acme", "r1", sealed) == BODY
    made.expire(start_of_hour + HOUR_MS + 600_000, keep_ms=600_000)
    with pytest.raises(SealGone):
        sealer(folder).open(seal_id, "acme", "r1", sealed)


def test_sealing_goes_on_after_the_key_of_the_hour_was_deleted(folder: Path):
    made = sealer(folder)
    made.seal("acme", "r1", BODY, NOW_MS)
    made.expire(NOW_MS + 3 * HOUR_MS, keep_ms=0)
    seal_id, sealed = made.seal("acme", "r2", BODY, NOW_MS)
    assert sealer(folder).open(seal_id, "acme", "r2", sealed) == BODY


@pytest.mark.parametrize("seal_id", ["", "../../etc/passwd", "1.../x", "495000.short", "x.aaaaaaaaaaaaaaaaaaaaaa"])
def test_a_seal_that_could_name_another_file_is_refused(folder: Path, seal_id: str):
    with pytest.raises(SealError, match="does not name a seal"):
        sealer(folder).open(seal_id, "acme", "r1", b"x" * 40)


def test_a_key_cut_short_by_a_crash_is_an_error_and_no_body(folder: Path):
    seal_id, sealed = sealer(folder).seal("acme", "r1", BODY, NOW_MS)
    file = files(folder)[0]
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(SealError):
        sealer(folder).open(seal_id, "acme", "r1", sealed)


def test_no_more_keys_are_held_open_than_the_bound(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tollgate.sealed.MAX_OPEN_KEYS", 3)
    made = sealer(folder)
    sealed = {f"o{n}": made.seal(f"o{n}", "r", BODY, NOW_MS) for n in range(10)}
    assert len(made._opened) == len(made._sealing) == 3
    assert all(made.open(seal_id, org, "r", text) == BODY for org, (seal_id, text) in sealed.items())


# Made beside the loop ------------------------------------------------------------------------------------------------


async def test_a_key_prepared_in_time_is_the_one_that_seals(folder: Path):
    made = sealer(folder)
    await made.prepare("acme", NOW_MS)
    (file,) = files(folder)
    seal_id, sealed = made.seal("acme", "r1", BODY, NOW_MS)
    assert seal_id.endswith(file.name)
    assert sealer(folder).open(seal_id, "acme", "r1", sealed) == BODY


async def test_many_that_wait_for_one_key_get_one(folder: Path):
    made = sealer(folder)
    await asyncio.gather(*(made.prepare("acme", NOW_MS) for _ in range(20)))
    await made.prepare("acme", NOW_MS)
    assert len(files(folder)) == 1


async def test_whoever_stops_waiting_leaves_the_key_to_the_others(folder: Path):
    made = sealer(folder)
    leaving, staying = (asyncio.ensure_future(made.prepare("acme", NOW_MS)) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    await staying
    assert len(files(folder)) == 1


async def test_a_key_that_cannot_be_written_seals_nothing(folder: Path):
    made = sealer(folder)
    folder.rmdir()
    for _ in range(2):
        with pytest.raises(OSError):
            await made.prepare("acme", NOW_MS)
    folder.mkdir()
    await made.prepare("acme", NOW_MS)
