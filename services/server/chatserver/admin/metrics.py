"""The pages of the metrics port: the metrics in the form that Prometheus reads, and two health checks.

The parts of the server count with plain numbers, which are read when Prometheus asks for them.
"""

from __future__ import annotations

import os
import platform
import threading
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

from chatprotocol.errors import ErrorCode
from chatserver import __version__
from chatserver.admin.metrics_server import MetricsServer, Page
from chatserver.store.database import DATABASE_FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from prometheus_client.metrics_core import Metric

    from chatprotocol.address import Address
    from chatserver.chat.delivery import AckedDelivery
    from chatserver.chat.local_users import LocalUsers
    from chatserver.chat.passwords import Passwords
    from chatserver.chat.presence import Presence
    from chatserver.counters import Counters, Histogram
    from chatserver.journal.base import Journal
    from chatserver.journal.monitor import LogMonitor
    from chatserver.net.certificates import Certificates
    from chatserver.net.connections import Connections
    from chatserver.net.sender import Sender


@dataclass(frozen=True)
class SharedLog:
    """The shared log, as this server sees it."""

    monitor: LogMonitor
    # The last record that is applied, and batches on their way.
    record: Callable[[], int]
    in_flight: Callable[[], int]
    # Empty if the log can be written.
    find_problem: Callable[[], str]
    # Number of servers that are not gone, with this one.
    servers: Callable[[], int]


@dataclass(frozen=True)
class Sources:
    """The parts of the server that the metrics are read from."""

    counters: Counters
    connections: Connections
    max_connections: int
    users: LocalUsers
    presence: Presence
    acked_delivery: AckedDelivery
    sender: Sender
    journal: Journal
    passwords: Passwords
    data: Path
    dropped_log_entries: Callable[[], int]
    # None without TLS.
    certificates: Certificates | None
    # None if this is the only server.
    log: SharedLog | None = None


def new_registry() -> CollectorRegistry:
    """A registry with the metrics of the process. Register a ServerCollector when there is a server."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    return registry


def open_server(
    address: Address,
    registry: CollectorRegistry,
    find_problem: Callable[[], str],
    find_unreadiness: Callable[[], str],
    on_crash: Callable[[str], None],
) -> MetricsServer:
    """Return the server of the pages. Raises OSError, UnicodeError: it can't listen on the address.

    ``find_problem`` returns the reason why the chat server does not work, and ``find_unreadiness`` why it can't serve
    clients now; empty if there is none.
    """

    def metrics(accept: str) -> Page:
        encode, content_type = choose_encoder(accept)
        return Page(HTTPStatus.OK, encode(registry), content_type)

    def health(find: Callable[[], str]) -> Page:
        problem = find()
        status = HTTPStatus.SERVICE_UNAVAILABLE if problem else HTTPStatus.OK
        return Page(status, f"{problem or 'ok'}\n".encode())

    pages = {
        "/metrics": metrics,
        "/healthz": lambda _: health(find_problem),
        "/readyz": lambda _: health(find_unreadiness),
    }
    return MetricsServer(address, pages, on_crash)


class ServerCollector(Collector):
    """Reads the metrics of the server. No label has a name of a user, a room or an address: those have no limit."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        yield from self._clients()
        yield from self._traffic()
        yield from self._refusals()
        yield from self._storage()
        yield from self._process()
        if self._sources.log is not None:
            yield from shared_log_metrics(self._sources.log, self._sources.counters.publish_seconds)

    def _clients(self) -> Iterator[Metric]:
        sources = self._sources
        yield _gauges(
            "chat_connections",
            "Open connections; the protocol none is not known yet.",
            "protocol",
            sources.connections.count(),
        )
        yield _gauge("chat_connections_max", "Maximum number of connections.", sources.max_connections)
        yield _counter("chat_connections_accepted", "Connections accepted.", sources.counters.accepted_connections)
        members = {**sources.users.count_members(), "register": sources.acked_delivery.guests}
        yield _gauges("chat_members", "Connections that are logged in; a guest counts once.", "protocol", members)
        yield _gauge("chat_users_online", "Users who are online, including guests.", sources.presence.own_count)
        yield _gauge(
            "chat_rooms_online", "Rooms with members who are online, including the lobby.", len(sources.users.rooms)
        )
        slow, unread_bytes = sources.sender.slow_peers()
        yield _gauge("chat_slow_clients", "Clients that are sent more than they read, at this moment.", slow)
        yield _gauge("chat_unread_bytes", "Bytes that wait for these clients.", unread_bytes)

    def _traffic(self) -> Iterator[Metric]:
        counters = self._sources.counters
        messages = {"public": counters.public_messages, "direct": counters.direct_messages}
        yield _counters("chat_messages", "Messages stored.", "kind", messages)
        yield _counter("chat_deliveries", "Messages passed to the connections of their receivers.", counters.deliveries)
        yield _counter("chat_received_bytes", "Bytes received from clients.", counters.received_bytes)
        yield _counter("chat_sent_bytes", "Bytes sent to clients.", counters.sent_bytes)
        yield _counter("chat_pages_served", "Files of the web page that browsers have fetched.", counters.files_sent)
        yield _histogram("chat_commit_seconds", "Time of a commit to the disk.", counters.commit_seconds)
        yield _histogram(
            "chat_confirmation_seconds",
            "Time from the arrival of the oldest message of a commit until the commit was published and confirmed.",
            counters.confirmation_seconds,
        )
        yield _histogram(
            "chat_delivery_seconds",
            "Time from the publication of a commit until it was offered to all receivers.",
            counters.delivery_seconds,
        )

    def _refusals(self) -> Iterator[Metric]:
        counters = self._sources.counters
        # With a zero for each code: Prometheus does not see the first event of a counter that was missing before.
        refusals = {code.value: counters.refusals[code.value] for code in ErrorCode}
        yield _counters("chat_requests_refused", "Requests refused, by error code.", "code", refusals)
        yield _counters(
            "chat_limits_hit", "Refusals and delays by a limit, by its setting.", "limit", counters.limits_hit
        )
        logins = {"ok": 0, ErrorCode.WRONG_PASSWORD.value: 0, **counters.logins}
        yield _counters("chat_logins", "Logins by result: ok, or an error code.", "result", logins)

    def _storage(self) -> Iterator[Metric]:
        sources = self._sources
        yield _gauge("chat_journal_queue_entries", "Entries that wait for the next commit.", sources.journal.pending)
        yield _gauge("chat_journal_failing", "1 while the disk refuses writes.", int(sources.journal.is_failing))
        is_full = int(sources.journal.is_disk_full)
        yield _gauge(
            "chat_disk_reserve_used", "1 while messages are refused, because the disk is almost full.", is_full
        )
        yield _gauge("chat_hash_queue_entries", "Passwords that wait for their hash.", sources.passwords.waiting)
        with suppress(OSError):
            status = os.statvfs(sources.data)
            free_bytes = status.f_bavail * status.f_frsize
            yield _gauge("chat_disk_free_bytes", "Bytes free on the disk of the data folder.", free_bytes)
        with suppress(OSError):
            size_bytes = (sources.data / DATABASE_FILE).stat().st_size
            yield _gauge("chat_database_bytes", "Size of the database file.", size_bytes)

    def _process(self) -> Iterator[Metric]:
        dropped = self._sources.dropped_log_entries()
        yield _counter("chat_log_entries_dropped", "Log entries that were not written.", dropped)
        yield _gauge("chat_threads", "Threads of the process.", threading.active_count())
        if self._sources.certificates is not None:
            yield _gauge(
                "chat_tls_certificate_expiry_timestamp_seconds",
                "The end of the validity of the certificate, in seconds since 1970.",
                self._sources.certificates.expires_at,
            )
        build = GaugeMetricFamily("chat_build_info", "The version of the server.", labels=("version", "python"))
        build.add_metric((__version__, platform.python_version()), 1)
        yield build


def shared_log_metrics(log: SharedLog, publish_seconds: Histogram) -> Iterator[Metric]:
    """The metrics that only one of several servers has."""
    yield _gauge("chat_cluster_log_up", "1 if the shared log can be written.", int(not log.find_problem()))
    yield _gauge("chat_cluster_record", "Number of the last record that is applied.", log.record())
    yield _gauge("chat_cluster_lag_records", "Records that exist and are not applied.", log.monitor.lag_records)
    yield _gauge("chat_cluster_lag_seconds", "Age of the state that this server shows.", log.monitor.lag_seconds)
    yield _gauge("chat_cluster_batches_in_flight", "Batches that are published and not applied.", log.in_flight())
    yield _gauge("chat_cluster_servers", "Servers of the shared log that are alive, with this one.", log.servers())
    yield _histogram(
        "chat_cluster_publish_seconds",
        "Time from the publication of a batch until it was stored by a quorum, and applied here.",
        publish_seconds,
    )


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(name, meaning, value=value)


def _gauges(name: str, meaning: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, meaning, labels=(label,))
    for its_label, value in values.items():
        family.add_metric((its_label,), value)
    return family


def _counter(name: str, meaning: str, value: float) -> Metric:
    return CounterMetricFamily(name, meaning, value=value)


def _counters(name: str, meaning: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=(label,))
    for its_label, value in dict(values).items():  # a copy, because other threads add names
        family.add_metric((its_label,), value)
    return family


def _histogram(name: str, meaning: str, histogram: Histogram) -> Metric:
    family = HistogramMetricFamily(name, meaning)
    family.add_metric((), *histogram.read())
    return family
