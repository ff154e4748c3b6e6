"""The records that have arrived from NATS: each once, in order, without a gap."""

from __future__ import annotations

from chatserver.journal.nats_reading import Reading


def test_gap_is_noticed_and_nothing_is_added_after_it() -> None:
    """Promise: a record that was lost on the way is read again: the caller then asks from the gap on."""
    reading = Reading(1, lambda: None)
    assert reading.add(1, b"a")
    assert not reading.add(3, b"c")
    assert not reading.add(4, b"d")
    assert reading.add(1, b"a")
    assert reading.next == 2
    assert reading.add(2, b"b")
    assert reading.add(3, b"c")
    assert reading.take() == ([(1, b"a"), (2, b"b"), (3, b"c")], "")
