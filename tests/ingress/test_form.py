"""Forms: what is sent with a file becomes the body that the rest of the gateway knows, or is refused."""

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ingress.support import Gateway
from tollgate.errors import Refusal
from tollgate.ingress import form
from tollgate.ingress.form import boundary_of, parse_form

PATH = "/v1/audio/transcriptions"
SOUND = b"RIFF\x00\xff\r\n--no boundary\r\n\r\n"


def part(name: str, content: bytes, more: bytes = b"") -> bytes:
    return b'--x\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n' % (name.encode(), more, content)


def file_part(name: str = "file", content: bytes = SOUND, filename: str = "a.wav") -> bytes:
    return part(name, content, b'; filename="%b"\r\nContent-Type: audio/wav' % filename.encode())


WHOLE = part("model", b"sandbox") + part("include[]", b"a") + part("include[]", b"b") + file_part() + b"--x--\r\n"


def test_fields_are_text_and_a_file_is_name_type_and_base64():
    assert parse_form(WHOLE, b"x") == {
        "model": "sandbox",
        "include[]": ["a", "b"],
        "file": {"filename": "a.wav", "content_type": "audio/wav", "data": base64.b64encode(SOUND).decode()},
    }


@pytest.mark.parametrize(
    ("header", "boundary"),
    [
        (b"multipart/form-data; boundary=x", b"x"),
        (b'Multipart/Form-Data; Boundary="a b"', b"a b"),
        (b"multipart/form-data", None),
        (b"multipart/form-data; boundary=", None),
        (b"multipart/mixed; boundary=x", None),
        (b"application/json", None),
    ],
)
def test_the_boundary_is_in_the_header(header: bytes, boundary: bytes | None):
    assert boundary_of(header) == boundary


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"--x--\r\n"[:-3],
        WHOLE[:-8],
        b"preamble" + WHOLE,
        b"--x\r\n\r\nno name\r\n--x--\r\n",
        b"--x\r\nContent-Disposition: attachment\r\n\r\na\r\n--x--\r\n",
        part("", b"a") + b"--x--",
        part("a" * 65, b"a") + b"--x--",
        part("a", b"\xff") + b"--x--",
        part("a", b"1", b"\r\nContent-Disposition: form-data; name=b") + b"--x--",
        part("a", b"1", b"\r\nno colon") + b"--x--",
        part("a", b"1", b"\r\nX: " + b"y" * 5000) + b"--x--",
        part("a", b"1", b'; filename="f"\r\nContent-Type: sound') + b"--x--",
        file_part() + file_part() + b"--x--",
        part("file", b"1") + file_part() + b"--x--",
        part("a", b"1") * 101 + b"--x--",
    ],
)
def test_what_two_parsers_could_read_in_two_ways_is_refused(raw: bytes):
    with pytest.raises(Refusal) as refused:
        parse_form(raw, b"x")
    assert (refused.value.status, refused.value.code) == (400, "invalid_form")


def test_a_form_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(form, "MAX_BYTES", 100)
    with pytest.raises(Refusal) as refused:
        parse_form(WHOLE, b"x")
    assert refused.value.status == 413


@given(st.binary(max_size=300))
def test_whatever_is_sent_is_read_or_refused(raw: bytes):
    try:
        assert isinstance(parse_form(raw, b"x"), dict)
    except Refusal as refused:
        assert refused.status == 400


@given(st.binary(max_size=300).filter(lambda content: b"\r\n--x" not in b"\r\n" + content))
def test_a_file_comes_through_whole(content: bytes):
    body = parse_form(file_part(content=content) + b"--x--", b"x")
    assert base64.b64decode(body["file"]["data"]) == content


async def test_a_form_becomes_an_event_like_any_other_request(gateway: Gateway):
    headers: dict[str, str | None] = {"content-type": "multipart/form-data; boundary=x"}
    response = await gateway.bearer("acme").request("POST", PATH, raw=WHOLE, headers=headers)

    assert response.status == 200
    (event,) = gateway.worker.accepted
    assert (event.request.endpoint, event.request.model) == (PATH, "sandbox")
    assert event.request.body_bytes == len(WHOLE)
    assert gateway.worker.body_of(event)["file"]["filename"] == "a.wav"


async def test_json_is_refused_where_a_form_is_wanted_and_a_form_where_json_is(gateway: Gateway):
    headers: dict[str, str | None] = {"content-type": "multipart/form-data; boundary=x"}
    for path, content, sent in ((PATH, b"{}", {}), ("/v1/embeddings", WHOLE, headers)):
        response = await gateway.bearer("acme").request("POST", path, raw=content, headers=sent)
        assert (response.status, response.error["code"]) == (415, "unsupported_content_type")
        assert re.search("multipart/form-data|application/json", response.error["message"])
