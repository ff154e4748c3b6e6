"""The reserve of the disk, with a disk and a clock that the tests move."""

import os
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from chatserver.journal.base import DiskFullError
from chatserver.journal.entries import DeliveryMark, NewAccount
from chatserver.journal.local import LocalJournal
from chatserver.store.accounts import Accounts
from chatserver.store.database import Database
from chatserver.store.disk import DiskReserve

from .helpers import register
from .udp_line import Clock

BLOCK_BYTES = 4_096
RESERVE_BYTES = 100 * BLOCK_BYTES


class FakeDisk:
    """A disk with free blocks, of which only ``free`` are for this user."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.fault: OSError | None = None
        self.readings = 0

    def __call__(self, _: Path) -> Any:
        self.readings += 1
        if self.fault is not None:
            raise self.fault
        return os.statvfs_result((512, BLOCK_BYTES, 10_000, self.free + 500, self.free, 0, 0, 0, 0, 255))


def test_reserve_is_used_and_restored_with_one_log_entry_each() -> None:
    """A little more than the reserve must be free again. The disk is asked once a second."""
    disk, clock = FakeDisk(free=100), Clock()
    reserve = DiskReserve(Path(), RESERVE_BYTES, disk, clock)
    states = []
    with capture_logs() as log:
        for free in (100, 99, 98, 100, 104, 99, 105, 100, 99):
            disk.free = free
            states.append(reserve.check())
            reserve.check()
            clock.now += 1.0
    assert states == [False, True, True, True, True, True, False, False, True]
    assert [entry["event"] for entry in log] == ["disk reserve used", "disk reserve restored", "disk reserve used"]
    assert disk.readings == len(states)
    disk.fault = OSError("gone")
    clock.now += 1.0
    assert reserve.check(), "the last reading counts"


def test_no_reserve_asks_nothing() -> None:
    disk = FakeDisk(free=0)
    assert not DiskReserve(Path(), 0, disk, Clock()).check()
    assert not disk.readings


def test_journal_refuses_what_needs_space_until_the_reserve_is_restored(database: Database) -> None:
    """Promise: the server never fills its disk. Entries that free space or are small are still applied."""
    disk, clock = FakeDisk(free=0), Clock()
    reserve = DiskReserve(Path(), RESERVE_BYTES, disk, clock)
    journal = LocalJournal(database, lambda: 1, lambda _: None, reserve=reserve)
    alice = register(database, "alice")
    journal.subscribe(lambda _: None, lambda _: None)
    journal.start()
    try:
        refused = journal.append([NewAccount("bob", "hash")])
        assert journal.append([DeliveryMark(alice.id, 7)]).result() == [None]
        with pytest.raises(DiskFullError):
            refused.result()
        assert journal.is_disk_full
        disk.free = 200
        clock.now += 1.0
        assert journal.append([NewAccount("bob", "hash")]).result()
        assert not journal.is_disk_full
    finally:
        journal.stop()
    assert Accounts(database).find("bob")
    found = Accounts(database).find("alice")
    assert found is not None
    assert found.delivered_id == 7
