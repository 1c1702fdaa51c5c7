"""The process around the gateway."""

import gc

import pytest

from tollgate.app import serve


def test_the_collector_spares_what_the_start_has_made_until_the_process_stops():
    thresholds, frozen = gc.get_threshold(), gc.get_freeze_count()

    with pytest.raises(KeyboardInterrupt), serve._little_garbage():
        assert gc.get_freeze_count() > frozen
        assert gc.get_threshold() == serve.COLLECT_AFTER
        raise KeyboardInterrupt

    assert (gc.get_threshold(), gc.get_freeze_count()) == (thresholds, frozen)
