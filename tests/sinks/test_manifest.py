"""Files and positions change in one step, for every reader at once, and only one writer can make it."""

import os
import threading
from pathlib import Path

import pytest

from tollgate.errors import Fenced
from tollgate.sinks.manifest import (
    KEEP_MS,
    LOG,
    TEMPORARY,
    Change,
    Compaction,
    Cursor,
    DataFile,
    Manifest,
    State,
    load,
)

NOW_MS = 2_000_000_000_000


def file(name: str, day: str = "2025-11-20", rows: int = 1) -> DataFile:
    return DataFile(f"usage/_live/{name}.parquet", "usage", day, rows)


def moved(offset: int, key: str = "completions/0") -> dict[str, Cursor]:
    return {key: Cursor(offset=offset)}


def on_disk(data: Path, name: str, touched_ms: int) -> Path:
    path = data / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"rows")
    os.utime(path, ns=(touched_ms * 10**6, touched_ms * 10**6))
    return path


def test_a_folder_without_a_manifest_holds_nothing(tmp_path: Path) -> None:
    assert load(tmp_path / "none") == State()


def test_a_change_adds_and_removes_files_and_moves_cursors_at_once() -> None:
    state = State().after(Change(add=(file("a"), file("b")), cursors=moved(5)))
    state = state.after(Change(add=(file("c"),), remove=(file("a").path,), cursors=moved(2, "audit/0")))
    assert (state.number, [each.path for each in state.files.values()]) == (2, [file("b").path, file("c").path])
    assert state.cursors == {**moved(5), **moved(2, "audit/0")}


def test_a_plan_stands_until_its_output_is_added() -> None:
    plan = Compaction(file("out", rows=2), (file("a").path, file("b").path))
    state = State().after(Change(add=(file("a"), file("b")))).after(Change(plan=plan))
    assert state.planned == {plan.output.path: plan}
    state = state.after(Change(add=(plan.output,), remove=plan.inputs))
    assert (state.planned, list(state.files)) == ({}, [plan.output.path])


def test_what_is_committed_is_seen_by_every_reader(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    state = manifest.commit(Change(add=(file("a"),), cursors={"audit/1": Cursor(3, 2, "ab", 7)}))
    assert load(tmp_path) == state == manifest.state == Manifest(tmp_path).state
    assert state.cursors == {"audit/1": Cursor(3, 2, "ab", 7)}


def test_of_two_writers_from_one_position_the_second_is_fenced(tmp_path: Path) -> None:
    first, second = Manifest(tmp_path), Manifest(tmp_path)
    first.commit(Change(add=(file("a"),), cursors=moved(5)))
    with pytest.raises(Fenced, match="completions/0 at 5, this one is at 0"):
        second.commit(Change(add=(file("b"),), cursors=moved(4)))
    assert list(load(tmp_path).files) == [file("a").path]


def test_a_writer_that_has_seen_the_other_s_commit_is_fenced_all_the_same(tmp_path: Path) -> None:
    """What counts is where its rows begin, not what it has read of the manifest since."""
    first, second = Manifest(tmp_path), Manifest(tmp_path)
    first.commit(Change(cursors=moved(5)))
    second.refresh()
    with pytest.raises(Fenced):
        second.commit(Change(cursors=moved(7)), base=moved(3))


def test_writers_of_different_partitions_do_not_stop_each_other(tmp_path: Path) -> None:
    writers = [Manifest(tmp_path) for _ in range(4)]

    def work(number: int) -> None:
        for offset in range(10):
            key = f"completions/{number}"
            writers[number].commit(Change(cursors=moved(offset + 1, key)), base=moved(offset, key))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    state = load(tmp_path)
    assert (state.number, {cursor.offset for cursor in state.cursors.values()}) == (40, {10})


def test_a_file_is_replaced_once(tmp_path: Path) -> None:
    first, second = Manifest(tmp_path), Manifest(tmp_path)
    first.commit(Change(add=(file("a"),)))
    first.commit(Change(add=(file("b"),), remove=(file("a").path,)))
    with pytest.raises(Fenced, match="replaced"):
        second.commit(Change(add=(file("c"),), remove=(file("a").path,)))


def test_no_two_plans_have_an_input_in_common(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.commit(Change(add=(file("a"), file("b"))))
    manifest.commit(Change(plan=Compaction(file("x"), (file("a").path,))))
    with pytest.raises(Fenced, match="compacting"):
        manifest.commit(Change(plan=Compaction(file("y"), (file("a").path, file("b").path))))


def test_a_checkpoint_stands_for_all_records_before_it(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path, checkpoint_every=10)
    for offset in range(15):
        manifest.commit(Change(add=(file(str(offset)),), cursors=moved(offset + 1)), base=moved(offset))
    for number in range(1, 10):
        (tmp_path / LOG / f"{number:020d}.json").unlink()
    assert load(tmp_path) == manifest.state
    assert len(load(tmp_path).files) == 15


def test_a_writer_asleep_while_its_records_were_pruned_is_fenced(tmp_path: Path) -> None:
    sleeper, manifest = Manifest(tmp_path), Manifest(tmp_path, checkpoint_every=10)
    for offset in range(15):
        manifest.commit(Change(cursors=moved(offset + 1)), base=moved(offset))
    assert manifest.sweep(NOW_MS)
    with pytest.raises(Fenced):
        sleeper.commit(Change(add=(file("late"),), cursors=moved(3)))
    assert load(tmp_path) == manifest.state


def test_the_sweep_takes_what_nobody_names_once_it_is_an_hour_old(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    old, new = NOW_MS - KEEP_MS - 1, NOW_MS - KEEP_MS + 1
    named = on_disk(tmp_path, file("named").path, old)
    output = on_disk(tmp_path, file("output").path, old)
    orphan = on_disk(tmp_path, file("orphan").path, old)
    young = on_disk(tmp_path, file("young").path, new)
    half = on_disk(tmp_path, f"{TEMPORARY}/half.tmp", old)
    closed = on_disk(tmp_path, "usage/dt=2025-11-19/part-1.parquet", old)
    manifest.commit(Change(add=(file("named"),)))
    manifest.commit(Change(plan=Compaction(file("output"), (file("named").path,))))
    assert set(manifest.sweep(NOW_MS)) == {orphan, half}
    assert all(path.exists() for path in (named, output, young, closed))


def test_the_sweep_knows_what_others_have_committed(tmp_path: Path) -> None:
    stale = Manifest(tmp_path)
    on_disk(tmp_path, file("a").path, 0)
    Manifest(tmp_path).commit(Change(add=(file("a"),)))
    assert stale.sweep(NOW_MS) == []
