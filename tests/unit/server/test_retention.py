"""The daily removal of old messages, when the journal refuses it."""

from __future__ import annotations

from typing import Any, cast

from structlog.testing import capture_logs
from unit.server.helpers import eventually

from chatserver.admin.retention import Retention
from chatserver.journal.base import Journal, LogUnavailableError
from chatserver.journal.entries import Prune, Removed


class RefusingJournal:
    """A journal that refuses the first appends, and has nothing to remove after that."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.appends = 0

    def append(self, entries: list[Prune]) -> RefusingJournal:
        assert isinstance(entries[0], Prune)
        self.appends += 1
        return self

    def result(self) -> list[Removed]:
        if self.appends <= self.refusals:
            raise LogUnavailableError("NATS has no quorum")
        return [Removed(messages=0, after_id=None)]


def test_refused_removal_is_tried_again_soon_and_logged_once() -> None:
    """Promise: a shared log that is away for a moment does not cost a day."""
    journal, crashes = RefusingJournal(refusals=3), list[str]()
    retention = Retention(1, cast("Journal", journal), lambda: 10**12, crashes.append, retry_seconds=0.001)
    with capture_logs() as log:
        retention.start()
        eventually(lambda: journal.appends == 4)
        retention.stop()
    assert [each["event"] for each in cast("list[dict[str, Any]]", log)] == ["retention failed"]
    assert (journal.appends, crashes) == (4, [])
