"""The log on NATS: what is published is read by all, in one order, whatever fails."""

from __future__ import annotations

import itertools
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from integration.room import DEADLINE_SECONDS

from chatserver.journal.nats_log import NatsLog
from chatserver.journal.nats_settings import NatsSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ops.nats_servers import NatsServers

_streams = itertools.count(1)


class Reader:
    """A NatsLog and what was taken from it."""

    def __init__(self, settings: NatsSettings, name: str = "a") -> None:
        self.crashes: list[str] = []
        self.heard: list[bytes] = []
        self.taken: list[bytes] = []
        self._changed = threading.Event()
        self.log = NatsLog(settings, name, self.crashes.append)
        self.log.on_broadcast(self._hear)
        self.log.start()

    def _hear(self, data: bytes) -> None:
        self.heard.append(data)
        self._changed.set()

    def open(self) -> None:
        assert self.log.wait_until_open(DEADLINE_SECONDS)
        self.log.read_after(0, self._changed.set)

    def publish(self, *texts: str) -> None:
        for text in texts:
            self.log.publish(text, text.encode())

    def until(self, holds: Callable[[], bool]) -> None:
        """Take records until something holds; LogError as from take()."""
        stop = threading.Timer(DEADLINE_SECONDS, self._changed.set)
        stop.start()
        try:
            while True:
                self._changed.clear()
                for number, data in self.log.take():
                    assert number == len(self.taken) + 1
                    self.taken.append(data)
                if holds():
                    return
                assert stop.is_alive(), (self.taken, self.log.find_problem())
                self._changed.wait(0.05)
        finally:
            stop.cancel()

    def until_taken(self, *texts: str) -> None:
        expected = [text.encode() for text in texts]
        self.until(lambda: len(self.taken) >= len(expected))
        assert self.taken == expected


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@contextmanager
def opened(settings: NatsSettings, name: str = "a") -> Iterator[Reader]:
    reader = Reader(settings, name)
    try:
        yield reader
    finally:
        reader.log.close(0.0)
    assert reader.crashes == []


def settings_for(servers: NatsServers, **changes: Any) -> NatsSettings:
    """Settings with a stream of their own."""
    settings = NatsSettings(tuple(servers.urls), f"s{next(_streams)}", replicas=len(servers.servers))
    return NatsSettings(**{name: changes.get(name, getattr(settings, name)) for name in settings.__struct_fields__})


def test_records_leases_broadcasts_and_snapshots(nats: NatsServers, tmp_path: Path) -> None:
    """Promise: two servers read the same records in one order, and see each other's leases, words and snapshots."""
    settings = settings_for(nats)
    with opened(settings) as one, opened(settings, "b") as two:
        one.open()
        two.open()
        assert one.log.read_first() is None
        assert [each.log.create_first(text) for each, text in ((one, b"0"), (two, b"1"))] == [True, False]
        assert two.log.read_first() == b"0"
        one.publish(*"abc")
        one.until_taken("0", *"abc")
        two.until_taken("0", *"abc")
        assert (two.log.last_number(), two.log.find_problem()) == (4, "")
        two.log.renew_lease("b", "run")
        one.until(lambda: one.log.find_lease("b") == "run")
        one.log.broadcast(b"hello")
        two.until(lambda: two.heard == one.heard == [b"hello"])
        path = tmp_path / "snapshot"
        assert two.log.get_snapshot(path) is None
        for number in (3, 4):
            path.write_bytes(bytes([number]) * 300_000)
            one.log.put_snapshot(number, path)
        copy = tmp_path / "copy"
        assert two.log.get_snapshot(copy) == 4
        assert (copy.read_bytes(), copy.stat().st_mode & 0o777) == (path.read_bytes(), 0o600)
        two.log.close(DEADLINE_SECONDS)
        assert one.log.find_lease("b") is None
