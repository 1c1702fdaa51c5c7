"""Keys: configured ones, and ones in files that change."""

from pathlib import Path

import pytest

from tollgate.errors import ProviderError
from tollgate.processors.upstream.credentials.keys import MAX_KEY_BYTES, KeyFile, NoKey, StaticKey

CALL = ("POST", "https://provider.test/v1", {}, b"{}")


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def changed(path: Path, text: str) -> None:
    """As a mounted secret changes: another file takes the place of the first at once."""
    other = path.with_suffix(".new")
    other.write_text(text)
    other.replace(path)


async def test_a_configured_key_is_a_header_and_no_key_is_none():
    assert await StaticKey(bearer("k")).headers(*CALL) == {"authorization": "Bearer k"}
    assert await NoKey().headers(*CALL) == {}


async def test_a_key_file_is_read_again_when_it_has_changed(tmp_path):
    path = tmp_path / "key"
    path.write_text("first\n")
    credential = KeyFile("p/main", str(path), bearer)
    assert await credential.headers(*CALL) == bearer("first")
    changed(path, "second")
    credential.rejected()
    assert await credential.headers(*CALL) == bearer("second")


@pytest.mark.parametrize("text", ["", "a\nb", "x" * (MAX_KEY_BYTES + 1)])
async def test_what_is_no_key_leaves_the_last_one_in_force_and_is_not_shown(tmp_path, caplog, text):
    path = tmp_path / "key"
    path.write_text("first")
    credential = KeyFile("p/main", str(path), bearer)
    changed(path, text)
    credential.rejected()
    assert await credential.headers(*CALL) == bearer("first")
    (record,) = caplog.records
    assert record.getMessage().startswith(f"the key file of p/main, {path}: ")
    assert "first" not in record.getMessage() and "xxx" not in record.getMessage()


async def test_a_file_that_was_never_there_fails_the_call_and_not_the_start(tmp_path):
    path = tmp_path / "key"
    credential = KeyFile("p/main", str(path), bearer)
    with pytest.raises(ProviderError) as failed:
        await credential.headers(*CALL)
    assert failed.value.error_class == "auth"
    path.write_text("late")
    assert await credential.headers(*CALL) == bearer("late")
