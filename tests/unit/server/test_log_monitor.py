"""The lag of a server behind the shared log, and when it sends clients to the others."""

import pytest

from chatserver.journal.monitor import CUT_OFF_SECONDS, LAG_MAX_SECONDS, LogMonitor

from .fake_log import FakeLog, FakeStream


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Monitored:
    """A server that applies records when the test says so, and its monitor."""

    def __init__(self) -> None:
        self.applied = 0
        self.clock = Clock()
        self.stream = FakeStream()
        self.log = FakeLog(self.stream)
        self.monitor = LogMonitor(self.log, lambda: self.applied, lambda _: None, self.clock)

    def after(self, seconds: int, records: int = 0, applied: int = 0) -> None:
        """Let seconds pass, each with so many new records and applied ones."""
        for _ in range(seconds):
            for _ in range(records):
                self.stream.store(str(len(self.stream.records)), b"")
            self.applied += applied
            self.clock.now += 1
            self.monitor.note()


@pytest.fixture
def server() -> Monitored:
    return Monitored()


def test_lag_is_the_age_of_the_state(server: Monitored) -> None:
    """A busy server is not behind, although some records are in flight at any moment."""
    server.after(5, records=10)
    server.after(20, records=100, applied=100)
    assert server.monitor.lag_records == 50
    assert server.monitor.lag_seconds <= 1
    server.after(8, records=100)
    assert (server.monitor.lag_records, server.monitor.lag_seconds) == (850, 8)
    server.after(4, applied=100)
    assert server.monitor.lag_seconds == 8
    server.after(1, applied=450)
    assert (server.monitor.lag_records, server.monitor.lag_seconds) == (0, 0)


def test_lagging_server_sends_clients_elsewhere_until_it_has_caught_up(server: Monitored) -> None:
    server.after(int(LAG_MAX_SECONDS), records=1_000)
    assert server.monitor.find_problem() == server.monitor.find_refusal() == ""
    server.after(2, records=1_000)
    problem = "it is 7,000 records (6 s) behind the shared log"
    assert server.monitor.find_problem() == server.monitor.find_refusal() == problem
    server.after(1, applied=7_000)
    assert server.monitor.find_problem() == server.monitor.find_refusal() == ""


def test_server_without_the_log_is_not_ready_at_once_and_refuses_users_later(server: Monitored) -> None:
    """An election in NATS takes seconds; meanwhile users may log in, as there may be no better server."""
    server.log.set_problem("NATS has no quorum")
    server.after(int(CUT_OFF_SECONDS))
    assert server.monitor.find_problem() == "NATS has no quorum"
    assert server.monitor.find_refusal() == ""
    server.after(1)
    assert server.monitor.find_refusal() == "NATS has no quorum"
    server.log.set_problem("")
    server.after(1)
    assert server.monitor.find_problem() == server.monitor.find_refusal() == ""
