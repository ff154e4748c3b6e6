"""The log of the tests keeps the promises of its interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from unit.server.fake_log import FakeLog, FakeStream

from chatserver.journal.log import LogError, LogRecord

if TYPE_CHECKING:
    from pathlib import Path

    from chatserver.journal.log import Log


def test_fake_log(tmp_path: Path) -> None:
    """Promise: records have one order for all logs; held, repeated and cut ones behave as with NATS."""
    stream = FakeStream()
    fakes = [FakeLog(stream), FakeLog(stream)]
    log, other = fakes[0], fakes[1]
    wakes: list[int] = []
    heard: list[bytes] = []
    interfaces: list[Log] = [*fakes]
    for index, each in enumerate(interfaces):
        each.on_broadcast(heard.append)
        each.start()
        each.read_after(0, lambda index=index: wakes.append(index))  # type: ignore[misc]
    assert log.read_first() is None
    assert [log.create_first(b"1"), other.create_first(b"2"), other.read_first()] == [True, False, b"1"]
    log.hold()
    for text in ("a", "b", "c"):
        log.publish(text, text.encode())
    assert other.take() == [LogRecord(1, b"1")]
    log.release([1, 0])
    assert other.take() == [LogRecord(2, b"b"), LogRecord(3, b"a")]
    log.loses_acknowledgements = True
    log.publish("d", b"d")
    stream.forget_ids()
    log.repeat()
    assert [each.data for each in other.take()] == [b"d", b"d"]
    other.cut()
    log.broadcast(b"hello")
    log.publish("e", b"e")
    assert (other.take(), other.find_problem(), heard) == ([], "it can't reach NATS", [b"hello"])
    with pytest.raises(OSError, match="reach"):
        other.find_lease("x")
    other.mend()
    assert [each.data for each in other.take()] == [b"e"]
    log.renew_lease("x", "run")
    assert other.find_lease("x") == "run"
    tmp_path.joinpath("in").write_text("snapshot")
    log.put_snapshot(6, tmp_path / "in")
    assert other.get_snapshot(tmp_path / "out") == 6
    log.close(0)
    assert other.find_lease("x") is None
    assert set(wakes) == {0, 1}
    stream.delete()
    with pytest.raises(LogError):
        other.take()
