"""The parts that only a server with a shared log has. ``app.py`` builds all others, with and without it.

A cluster begins in two steps, because its database may be a snapshot that another server has stored in the shared log:

1. ``open_database`` waits for NATS, prepares the data folder, and opens the database. While it waits, the health check
   and the metrics are served already; ``reason`` is what they say.
2. ``make_journal`` and ``meet_peers`` build the parts that use the database. After the start of the journal,
   ``catch_up`` waits until it has applied all that was confirmed before. Only then the server takes clients.

It ends with ``stop_threads``, ``leave`` and the journal's ``close``; or with ``abandon`` if there was no journal yet.
"""

from __future__ import annotations

import platform
import re
from functools import partial
from typing import TYPE_CHECKING, Final

from chatserver.chat.peers import Peers
from chatserver.clock import Clock
from chatserver.journal.joining import adopt_log, prepare_folder
from chatserver.journal.monitor import LogMonitor
from chatserver.journal.nats_log import NatsLog
from chatserver.journal.nats_settings import nats_settings
from chatserver.journal.shared import SharedJournal
from chatserver.journal.snapshots import Snapshots
from chatserver.journal.starting import LogStart
from chatserver.store.database import Database
from chatserver.store.files import LOCK_FILE, lock
from chatserver.store.log_position import count_servers, current_runs

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatserver.admin import metrics
    from chatserver.chat.guests import Guests
    from chatserver.chat.login_throttle import LoginThrottle
    from chatserver.chat.presence import Presence
    from chatserver.config import Config
    from chatserver.counters import Counters
    from chatserver.journal.apply import StoreLimits
    from chatserver.store.disk import DiskReserve


class Cluster:
    """The shared log of this server, and the parts that follow it. For the main thread, but the methods that find."""

    # Time that a login waits for messages that the client has seen on another server. Usually a server is behind for
    # milliseconds. A client that is refused goes to another server.
    behind_max_seconds: Final = 5.0

    # Set by make_journal.
    _database: Database
    _journal: SharedJournal
    _monitor: LogMonitor
    _snapshots: Snapshots

    def __init__(self, config: Config, on_crash: Callable[[str], None], on_lost: Callable[[], None]) -> None:
        """``on_lost`` is called if the server can't follow the log any more. Raises ConfigError, StoreError.

        The lock of the data folder is tried, because the caller replaces the control socket before ``open_database``.
        """
        settings = nats_settings(config)
        config.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock(config.data / LOCK_FILE).close()
        # The name of this server: of the setting, or of the machine, as far as NATS allows it.
        self.server = (
            config.server_name or re.sub("[^A-Za-z0-9_-]+", "-", platform.node().partition(".")[0])[:32] or "server"
        )
        self._data = config.data
        self._on_crash = on_crash
        self._on_lost = on_lost
        self._start: LogStart | None = None
        self._peers: Peers | None = None
        self._shared_log = NatsLog(settings, self.server, on_crash)
        self._shared_log.on_broadcast(self._receive_broadcast)

    def open_database(self, pause: Callable[[float], bool]) -> Database:
        """Wait for NATS, and open the database at its position in the log. Raises LogError, StoreError.

        ``pause`` waits some seconds, and returns true if the server must end. StartStoppedError: it did.
        """
        log = self._shared_log
        self._start = start = LogStart(log, pause)
        log.start()
        start.open()
        start.do("it looks for a snapshot", partial(prepare_folder, self._data, log))
        database = start.do("it opens its database", partial(Database, self._data, syncs=False))
        try:
            start.do("it reads the shared log", partial(adopt_log, database, log))
        except BaseException:
            database.close()
            raise
        return database

    def make_journal(
        self, database: Database, *, limits: StoreLimits, reserve: DiskReserve, counters: Counters
    ) -> SharedJournal:
        """Make the journal, its monitor and the maker of its snapshots. Raises StoreError."""
        self._database = database
        self._journal = journal = SharedJournal(
            database,
            Clock().now_ms,
            self._on_crash,
            limits=limits,
            reserve=reserve,
            counters=counters,
            log=self._shared_log,
            server=self.server,
            on_lost=self._on_lost,
        )
        self._monitor = LogMonitor(self._shared_log, lambda: journal.position.number, self._on_crash)
        self._snapshots = Snapshots(self._data, self._shared_log, self._on_crash)
        journal.on_own_record(self._snapshots.note_own_record)
        return journal

    def meet_peers(self, presence: Presence, throttle: LoginThrottle, guests: Guests) -> None:
        """Make the part that talks to the other servers. Call it before the start of the journal."""
        journal = self._journal
        self._peers = Peers(
            server=self.server,
            log=self._shared_log,
            journal=journal,
            presence=presence,
            throttle=throttle,
            find_run=lambda: journal.run,
            read_runs=partial(current_runs, self._database),
            checkpoints=journal.checkpoints,
            on_lost=self._on_lost,
            on_crash=self._on_crash,
        )
        journal.subscribe(self._peers.handle_applied, lambda _: None)
        journal.on_new_run(guests.end_run)

    def _receive_broadcast(self, data: bytes) -> None:
        """Pass on a broadcast. For the thread of the shared log, which starts before there are peers."""
        if self._peers is not None:
            self._peers.receive(data)

    def catch_up(self, then: Callable[[], None]) -> None:
        """Wait until the journal has caught up; then take the last step before clients, until it succeeds.

        Raises StartStoppedError, and the errors of the step but OSError.
        """
        assert self._start is not None
        self._start.catch_up(self._journal)
        self._start.do("it appoints the operators", then)

    def start_threads(self) -> None:
        """Start the threads, after those of the journal and the presence."""
        assert self._peers is not None
        self._peers.start()
        self._monitor.start()
        self._snapshots.start()

    def stop_threads(self) -> None:
        """Stop the threads that read this server's state. Those of the log and the peers end in ``leave``."""
        self._monitor.stop()
        self._snapshots.stop()

    def leave(self) -> None:
        """Tell the other servers that all users have left. Then close the journal, which closes the log."""
        assert self._peers is not None
        self._peers.stop()

    def abandon(self) -> None:
        """Close the log if the start ended before there was a journal."""
        self._shared_log.close(0.0)

    @property
    def reason(self) -> str:
        """Why the server takes no clients yet, as in "it waits for NATS: it is connecting". For any thread."""
        return (self._start.reason if self._start is not None else "") or "it starts"

    def find_problem(self) -> str:
        """Return why clients should prefer another server; empty if they need not. For any thread, after the start."""
        return self._monitor.find_problem()

    def find_refusal(self) -> str:
        """Return why new users are refused; empty if they are not. For any thread, after the start."""
        return self._monitor.find_refusal()

    def metrics_source(self) -> metrics.SharedLog:
        """The numbers of the shared log, for the metrics."""
        from chatserver.admin import metrics  # noqa: PLC0415 - it takes 2 MiB of memory

        journal = self._journal
        return metrics.SharedLog(
            monitor=self._monitor,
            record=lambda: journal.position.number,
            in_flight=lambda: journal.in_flight,
            find_problem=self._shared_log.find_problem,
            servers=partial(count_servers, self._database),
        )
