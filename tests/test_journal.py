"""Validity: a record counts only in the epoch of the writer that wrote it."""

from hypothesis import given
from hypothesis import strategies as st

from tollgate.events import CancelRequested, Event, OwnerReleased, OwnerTook
from tollgate.journal import NO_EPOCH, epoch_after, valid


def said(epoch: int) -> OwnerReleased:
    return OwnerReleased(epoch=epoch)


def test_nothing_counts_before_the_first_owner() -> None:
    assert not valid(NO_EPOCH, said(0))
    assert not valid(NO_EPOCH, said(NO_EPOCH))


def test_the_owner_s_words_count_and_a_former_owner_s_do_not() -> None:
    assert valid(7, said(7))
    assert not valid(7, said(3))


def test_a_take_over_always_counts_and_makes_its_offset_the_epoch() -> None:
    took = OwnerTook(instance="a")
    assert valid(3, took)
    assert epoch_after(3, 9, took) == 9
    assert epoch_after(3, 9, said(3)) == 3


def test_an_event_of_another_topic_never_counts() -> None:
    assert not valid(3, CancelRequested(request_id="r", reason="gone"))


@given(st.lists(st.one_of(st.just(None), st.integers(0, 20))))
def test_exactly_the_records_of_the_last_owner_before_them_count(epochs: list[int | None]) -> None:
    """None is a take-over; a number is a record that claims this epoch."""
    epoch = NO_EPOCH
    for offset, claimed in enumerate(epochs):
        event: Event = OwnerTook(instance="x") if claimed is None else said(claimed)
        takeovers = [at for at, before in enumerate(epochs[:offset]) if before is None]
        assert valid(epoch, event) == (claimed is None or (bool(takeovers) and claimed == takeovers[-1]))
        epoch = epoch_after(epoch, offset, event)
