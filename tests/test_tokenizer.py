"""Tokens are counted where nobody else has counted them."""

import asyncio
import gzip
import hashlib
from importlib import resources

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollgate import tokenizer
from tollgate.tokenizer import count, overhead, request_texts, rough
from tollgate.tokenizer.counter import Counter

TEXT = "The quick brown fox jumps over the lazy dog."


def test_the_ranks_are_those_that_openai_has_published():
    packed = (resources.files("tollgate.tokenizer") / "data" / "o200k_base.tiktoken.gz").read_bytes()

    assert hashlib.sha256(gzip.decompress(packed)).hexdigest() == (
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"  # as tiktoken expects it
    )
    assert len(packed) < 2 << 20


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("hello world", 2), (TEXT, 10), ("antidisestablishmentarianism", 6), ("Größe 🌍", 4), ("12345678", 3)],
)
def test_a_text_has_as_many_tokens_as_the_encoding_says(text, tokens):
    assert count([text]) == tokens


def test_a_text_that_would_exhaust_the_tokenizers_stack_is_counted():
    assert 0 < count([" " * 1_000_000]) < 1_000_000


def test_what_is_beyond_the_most_that_is_counted_is_taken_to_be_alike(monkeypatch):
    text = TEXT * 1000
    whole = count([text])
    monkeypatch.setattr(tokenizer, "MAX_CHARS", 16_000)

    assert count([text]) == pytest.approx(whole, rel=0.01)


@settings(max_examples=50)
@given(st.text(max_size=200))
def test_no_text_has_more_tokens_than_bytes(text):
    assert count([text]) <= len(text.encode()) or not text
    assert rough([text]) <= len(text.encode())


def test_what_a_model_reads_of_a_request_is_its_text():
    body = {
        "model": "not this",
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": "Look"}, {"type": "image", "source": {"data": "aGk="}}],
            },
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}]},
        ],
        "tools": [
            {"name": "weather", "input_schema": {"properties": {"city": {"type": "string", "description": "Where"}}}}
        ],
    }

    texts = request_texts(body)

    assert {"Look", "weather", "city", "Where"} <= set(texts)
    assert not {"not this", "aGk=", "user", "string"} & set(texts)
    assert overhead(body) == 3 + 2 * 4


def test_a_prompt_that_is_given_as_tokens_counts_as_many():
    assert overhead({"prompt": [[1, 2, 3], [4]]}) == 4
    assert overhead({"input": "text"}) == 3 + 4


async def test_a_process_counts_beside_the_loop_and_answers_in_turn():
    counter = Counter()
    try:
        assert await asyncio.gather(*(counter.count([TEXT] * times) for times in (1, 3, 2))) == [10, 30, 20]
        assert await counter.count([]) == 0
    finally:
        await counter.close()


async def test_what_cannot_be_counted_is_estimated_by_its_length():
    counter = Counter()
    try:
        assert await counter.count(["\ud83d"]) == 1  # half of a letter is no JSON
        assert await counter.count([TEXT]) == 10
        process = counter._process
        assert process is not None
        process.kill()
        await process.wait()
        assert await counter.count([TEXT]) == 10  # by another process
    finally:
        await counter.close()


async def test_a_counter_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr("tollgate.tokenizer.counter.PATIENCE_S", 0.0)
    counter = Counter()
    try:
        assert await counter.count([TEXT]) == rough([TEXT])
    finally:
        await counter.close()
