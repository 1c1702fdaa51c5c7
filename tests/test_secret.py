"""Secrets that do not show themselves, and the two that the first run makes."""

import copy
import json
import os
import pickle
import stat
import threading
from pathlib import Path

import pytest

from tollgate.errors import ConfigError
from tollgate.secret import Secret, Secrets, check_strength, first_run_secrets, read_admin_key

TEXT = "kZ3vQ9xL2mN8pR5tW7yB4cD6"
OTHER = "aB1cD2eF3gH4iJ5kL6mN7oP8"


def test_a_secret_shows_itself_to_nobody_who_does_not_ask():
    secret = Secret(TEXT)

    for shown in (repr(secret), str(secret), f"{secret}", f"{secret!r:>40}", f"{[secret]}", format(secret)):
        assert TEXT not in shown
    for leak in (json.dumps, pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            leak(secret)
    assert not hasattr(secret, "__dict__")
    assert secret.reveal() == TEXT


def test_secrets_are_equal_by_their_text():
    assert Secret(TEXT) == Secret(TEXT) != Secret(OTHER)
    assert len({Secret(TEXT), Secret(TEXT)}) == 1
    assert Secret(TEXT) != TEXT


@pytest.mark.parametrize("text", ["", "  ", "a\nb", "a\x00b"])
def test_what_no_header_could_carry_is_not_a_secret(text):
    with pytest.raises(ValueError, match=r"is empty|line break"):
        Secret(text)


def test_the_first_run_makes_both_and_the_next_one_finds_them(tmp_path):
    data = tmp_path / "new" / "data"

    first = first_run_secrets(data, {}, embedded=True)

    assert first_run_secrets(data, {}, embedded=True) == first
    assert first.admin_key != first.secret
    assert read_admin_key(data) == first.admin_key
    assert sorted(path.name for path in data.iterdir()) == ["admin.key", "secret.key"]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in data.iterdir())


def test_processes_that_start_together_agree(tmp_path):
    made, together = [], threading.Barrier(8)

    def start() -> None:
        together.wait()
        made.append(first_run_secrets(tmp_path, {}, embedded=True))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(made)) == 1
    assert len(made) == 8


def test_the_environment_goes_before_the_files_and_leaves_none(tmp_path):
    secrets = first_run_secrets(tmp_path, {"TOLLGATE_ADMIN_KEY": TEXT, "TOLLGATE_SECRET": OTHER}, embedded=True)

    assert secrets == Secrets(Secret(TEXT), Secret(OTHER), kept_apart=True)
    assert list(tmp_path.iterdir()) == []


def test_on_kafka_both_are_required_and_the_error_says_how_to_make_them(tmp_path):
    with pytest.raises(ConfigError) as caught:
        first_run_secrets(tmp_path, {"TOLLGATE_ADMIN_KEY": TEXT}, embedded=False)

    assert 'export TOLLGATE_SECRET="$(openssl rand -hex 32)"' in str(caught.value)
    assert "TOLLGATE_ADMIN_KEY" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (TEXT[:21], "too weak"),
        ("a" * 40, "too weak"),
        ("abcabcabcabcabcabcabcabcabc", "too weak"),
        ("changeme-changeme-changeme", "looks like a value from an example"),
        ("tg-Your-Admin-Key-goes-here-123", "looks like a value from an example"),
        ("kZ3vQ9xL2mN8pR5tW7yB\n4cD6", "line break"),
    ],
)
def test_a_weak_key_is_refused_without_showing_it(text, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        check_strength("TOLLGATE_ADMIN_KEY", text)

    assert text not in str(caught.value)
    assert 'export TOLLGATE_ADMIN_KEY="$(openssl rand -hex 32)"' in str(caught.value)


def test_22_random_characters_are_enough():
    assert check_strength("TOLLGATE_ADMIN_KEY", TEXT[:22]).reveal() == TEXT[:22]


def test_a_file_that_others_may_read_is_refused(tmp_path):
    first_run_secrets(tmp_path, {}, embedded=True)
    (tmp_path / "admin.key").chmod(0o640)

    with pytest.raises(ConfigError, match=r"may be read by others; .* chmod 600 .*admin\.key"):
        first_run_secrets(tmp_path, {}, embedded=True)


@pytest.mark.parametrize("place", ["log.db", "log/log.db"])
def test_a_lost_secret_is_not_replaced_where_a_log_needs_it(tmp_path, place):
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).touch()

    with pytest.raises(ConfigError, match=r"secret\.key is gone, but .* holds a log"):
        first_run_secrets(tmp_path, {}, embedded=True)
    assert first_run_secrets(tmp_path, {"TOLLGATE_SECRET": OTHER}, embedded=True).secret == Secret(OTHER)
    assert not (tmp_path / "secret.key").exists()


def test_an_empty_file_is_named(tmp_path):
    (tmp_path / "admin.key").touch(mode=0o600)

    with pytest.raises(ConfigError, match=r"admin\.key cannot be read: is empty"):
        first_run_secrets(tmp_path, {}, embedded=True)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "data").write_text("a file")

    with pytest.raises(ConfigError, match=r"cannot be made: .*; choose a folder with TOLLGATE_DATA"):
        first_run_secrets(tmp_path / "data", {}, embedded=True)


def test_a_run_that_is_killed_while_it_makes_them_leaves_nothing_that_stops_the_next(tmp_path: Path):
    child = os.fork()
    if child == 0:
        os.link = lambda *_: os._exit(9)  # type: ignore[assignment]
        first_run_secrets(tmp_path, {}, embedded=True)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9

    assert first_run_secrets(tmp_path, {}, embedded=True) == first_run_secrets(tmp_path, {}, embedded=True)
