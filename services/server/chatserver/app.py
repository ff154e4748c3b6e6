"""Builds the server: the only module that creates and connects its parts, and starts and stops the threads."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import platform
import re
import resource
import select
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog

from chatprotocol.address import format_address
from chatprotocol.errors import ErrorCode
from chatprotocol.events import Refused
from chatprotocol.limits import ROOMS_MAX
from chatprotocol.settings import ConfigError
from chatprotocol.udp.arq import SILENCE_SECONDS
from chatprotocol.wire import Datagram, Register, by_name, protocols_with
from chatserver.admin.retention import Retention
from chatserver.admin.target import RunningServer
from chatserver.chat.delivery import AckedDelivery
from chatserver.chat.delivery_marks import DeliveryMarks
from chatserver.chat.guests import Guests
from chatserver.chat.hub import Hub
from chatserver.chat.login import Login
from chatserver.chat.login_throttle import LoginThrottle
from chatserver.chat.moderation import Moderation
from chatserver.chat.passwords import HashCost, Passwords, PasswordsFailedError
from chatserver.chat.peers import Peers
from chatserver.chat.presence import Presence
from chatserver.chat.rate_limit import RateLimit, UserLimits
from chatserver.chat.registration import Registration, RegistrationLimits
from chatserver.chat.room_commands import RoomCommands
from chatserver.chat.services import Services
from chatserver.chat.session import Session
from chatserver.clock import Clock, wall_ms
from chatserver.control import HEALTHY
from chatserver.counters import Counters
from chatserver.journal.apply import StoreLimits
from chatserver.journal.base import JournalClosedError
from chatserver.journal.entries import ServerStart, SetServerRole
from chatserver.journal.joining import adopt_log, prepare_folder, refuse_shared
from chatserver.journal.local import LocalJournal
from chatserver.journal.monitor import LogMonitor
from chatserver.journal.nats_settings import nats_settings
from chatserver.journal.snapshots import Snapshots
from chatserver.journal.starting import LogStart, StartStoppedError
from chatserver.memory import share_of_memory, system_memory
from chatserver.net.admin_socket import AdminSocket
from chatserver.net.broadcast import ROOM_LIMITS, BroadcastBuffer
from chatserver.net.certificates import CertificateError, Certificates
from chatserver.net.connection import ConnectionServices
from chatserver.net.connections import Connections, Slots
from chatserver.net.control_socket import ControlSocket
from chatserver.net.limits import ConnectionLimits, OpeningLimits
from chatserver.net.listener import Listener
from chatserver.net.read_turns import ReadTurns
from chatserver.net.sender import Sender
from chatserver.net.sockets import bind
from chatserver.net.tls import TlsAcceptor
from chatserver.net.udp_listener import UdpListener
from chatserver.store.accounts import Accounts, Role
from chatserver.store.database import Database
from chatserver.store.disk import DiskReserve
from chatserver.store.files import LOCK_FILE, lock
from chatserver.store.identity import HistoryIdentity
from chatserver.store.indexer import Indexer
from chatserver.store.log_position import count_servers, current_runs
from chatserver.store.messages import Messages
from chatserver.store.moderation import ModerationRecords
from chatserver.store.reconcile import note_use, reconcile
from chatserver.store.rooms import Rooms
from chatserver.threads import StartError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from chatprotocol.wire import WireProtocol
    from chatserver.admin import metrics
    from chatserver.admin.metrics_server import MetricsServer
    from chatserver.config import Config
    from chatserver.journal.base import Journal
    from chatserver.journal.nats_log import NatsLog
    from chatserver.journal.shared import SharedJournal

_log = structlog.get_logger()

# Stack size of a thread. Python's frames are on the heap; the stack only serves C code: parsing, SQLite, hashing.
# 10,000 stacks of the default 8 MiB would take 80 GiB of address space, and huge pages would make a part resident.
_STACK_BYTES = 256 * 1024
# Interval at which a computing thread yields the GIL. With the default of 5 ms a message would wait that long.
_SWITCH_SECONDS = 0.001
# Threshold of the garbage collector. Reference counting frees everything that a message allocates; only errors create
# reference cycles. A collection stops all threads while it walks the live objects, so it must be rare.
_GARBAGE_OBJECTS = 100_000
# Parameter number of mallopt(3).
_M_ARENA_MAX = -8
# Time to drain connections at shutdown, a part of the promised 8 s from signal to exit. Slow receivers get the rest
# after their next login.
_DRAIN_SECONDS = 3.0
# Part of that time for acknowledgements of delivered messages.
_ACK_SECONDS = 2.0
# Time for the hashes that run at shutdown. With a high cost, one hash takes longer; its login is then refused.
_HASH_SECONDS = 1.0
# Time for the sender to close the remaining sockets.
_CLOSING_SECONDS = 1.0
# Time limit of the commit that the health check tries; a slower disk counts as failed. Less than the time limit of the
# health check.
_PROBE_SECONDS = 1.5
_DAY_SECONDS = 86_400
# Descriptors besides connections: those of rooms with traffic, and some for the database, its readers, listeners,
# wakeup pipes and the server's log.
_OTHER_DESCRIPTORS = ROOMS_MAX * ROOM_LIMITS.descriptors_max + 128
# Bytes that a broadcast buffer keeps beyond the lag limit, so that a slow receiver reaches the limit first.
_KEPT_MARGIN_BYTES = 4 * 1024 * 1024
# Time that a login waits for messages that the client has seen on another server. Usually a server is behind for
# milliseconds. A client that is refused goes to another server.
_BEHIND_MAX_SECONDS = 5.0
# The acting user in the audit table for what the settings demand.
_SETTINGS = "the settings"
# The error for a connection without TLS, if TLS is required.
_TLS_REQUIRED = Refused(ErrorCode.TLS_REQUIRED, "The server requires TLS: connect with TLS (chatclient --tls).")


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


@dataclass(frozen=True)
class _Reloads:
    """The parts of the server whose settings can change while it runs: those of RELOADABLE."""

    registration: Registration
    registration_limits: RegistrationLimits
    guests: Guests
    rooms: RoomCommands
    user_limits: UserLimits
    connection_limits: ConnectionLimits

    def apply(self, config: Config) -> None:
        """Change all of these settings; an unchanged one has no effect."""
        self.registration.set_mode(config.registration)
        self.registration_limits.change(config.address_registrations, config.registrations)
        self.guests.set_allowed(allowed=config.guests_allowed)
        self.rooms.set_makers(config.rooms)
        self.user_limits.messages.change(config.message_burst, config.message_rate)
        self.user_limits.queries.change(config.query_burst, config.query_rate)
        self.user_limits.requests.change(config.request_burst, config.request_rate)
        self.connection_limits.change(config.exempt, config.address_connections, config.address_new_connections)


class Server:
    """The whole server. The constructor opens the database and binds the port. Raises StoreError, StartError.

    ``on_crash`` is called, in any thread, after the death of a worker thread. It must work without free memory.
    """

    def __init__(
        self,
        config: Config,
        on_crash: Callable[[], None],
        *,
        protocols: Callable[[Register], tuple[WireProtocol, ...]] = protocols_with,
        udp_silence_seconds: float = SILENCE_SECONDS,
        dropped_log_entries: Callable[[], int] = lambda: 0,
    ) -> None:
        self._config = config
        self._on_crash = on_crash
        self._crashed = False
        self._started = False
        self._stopping = False
        self._certificates: Certificates | None = None
        self._tls: TlsAcceptor | None = None
        self._control: ControlSocket | None = None
        self._metrics: MetricsServer | None = None
        self._listener: Listener | None = None
        self._udp_listener: UdpListener | None = None
        self._bound: tuple[socket.socket, socket.socket] | None = None
        # The shared log; None if this is the only server.
        self._shared_log: NatsLog | None = None
        self._shared_journal: SharedJournal | None = None
        # With a shared log: the start, which knows what the server waits for.
        self._log_start: LogStart | None = None
        self._monitor: LogMonitor | None = None
        self._peers: Peers | None = None
        self._log_threads: tuple[LogMonitor | Snapshots, ...] = ()
        self._is_built = False
        self._build_with = partial(self._build, config, protocols, udp_silence_seconds, dropped_log_entries)
        with _start_errors(config):
            if config.tls != "off" and config.tls_cert is not None and config.tls_key is not None:
                self._certificates = Certificates(config.tls_cert, config.tls_key, self._crash)
                self._tls = TlsAcceptor(self._certificates.context)
            if config.nats is None:
                self._open_database(None)
                self._bind()
            else:
                self._prepare_for_log(config)

    def _prepare_for_log(self, config: Config) -> None:
        """Make the parts that answer during the start: the control socket, and the port of the metrics.

        The database is opened later, because the folder may get a snapshot before. Its lock is tried, so that this
        server does not replace the control socket of a running one.
        """
        from chatserver.journal.nats_log import NatsLog  # noqa: PLC0415 -- a single server does not need the memory

        settings = nats_settings(config)
        config.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock(config.data / LOCK_FILE).close()
        self._open_metrics(config)
        self._control = ControlSocket(config.data, self._answer, self._crash)
        self._shared_log = NatsLog(settings, _server_name(config), self._crash)
        self._shared_log.on_broadcast(self._receive_broadcast)

    def _open_database(self, start: LogStart | None) -> None:
        """Open the database, and build all parts but the listeners. ``start`` is None if this is the only server."""
        open_database = partial(Database, self._config.data, syncs=start is None)
        self._database = open_database() if start is None else start.do("it opens its database", open_database)
        try:
            if start is None:
                refuse_shared(self._database)
            else:
                assert self._shared_log is not None
                start.do("it reads the shared log", partial(adopt_log, self._database, self._shared_log))
            self._build_with()
        except BaseException:
            self._database.close()
            raise
        self._is_built = True

    def _build(
        self,
        config: Config,
        protocols_with_register: Callable[[Register], tuple[WireProtocol, ...]],
        udp_silence_seconds: float,
        dropped_log_entries: Callable[[], int],
    ) -> None:
        self._counters = Counters()
        _raise_descriptor_limit(config.max_connections + _OTHER_DESCRIPTORS)
        memory = system_memory()
        messages = Messages(self._database, memory.claim)
        last_id = self._read_last_id()
        kept_bytes = config.lag_max_bytes + _KEPT_MARGIN_BYTES
        register = Register(config.register_delivered, config.register_length, config.register_forward_max)
        protocols = protocols_with_register(register)
        self._sender = Sender(
            config.lag_max_bytes,
            self._crash,
            memory.is_short,
            unread_max_bytes=share_of_memory(config.unread_percent),
            counters=self._counters,
        )
        # Guests, who use register, have no buffer: see AckedDelivery.
        buffers = {
            protocol.name: BroadcastBuffer(protocol.encode_all, kept_bytes)
            for protocol in protocols
            if protocol is not register
        }
        overflow = BroadcastBuffer(lambda _: b"", kept_bytes)
        for buffer in (*buffers.values(), overflow):
            self._sender.add_buffer(buffer)
        self._acked_delivery = AckedDelivery(config.lag_max_bytes, self._crash, register.split)
        self._journal = self._make_journal(config)
        marks = DeliveryMarks(self._journal.defer)
        self._presence = Presence(config.users_seconds, self._crash)
        self._hub = hub = Hub(
            buffers,
            partial(self._open_buffer, protocols, kept_bytes),
            self._sender.remove_buffer,
            self._acked_delivery,
            self._presence,
            last_id,
            marks,
            self._sender.wake,
            config.user_connections,
            self._counters,
        )
        self._journal.subscribe(hub.handle_applied, hub.gather)
        self._indexer = Indexer(config.data, messages, self._crash)
        cost = HashCost(config.hash_time_cost, config.hash_memory_kib, config.hash_parallelism)
        self._passwords = Passwords(cost, self._crash)
        self._operators = config.operator or ()
        self._accounts, rooms = Accounts(self._database), Rooms(self._database, memory.claim)
        accounts = self._accounts
        registration_limits = RegistrationLimits(
            config.address_registrations, config.registrations, self._counters, is_reserved=self._is_reserved
        )
        guests = Guests(
            accounts,
            self._journal,
            self._presence,
            self._acked_delivery,
            self._log_waiting,
            limits=registration_limits,
            allowed=config.guests_allowed,
            reserved=self._operators,
            server="" if self._shared_log is None else _server_name(config),
        )
        throttle = LoginThrottle()
        self._meet_peers(throttle, guests)
        registration = Registration(
            accounts=accounts,
            journal=self._journal,
            passwords=self._passwords,
            limits=registration_limits,
            is_guest=guests.is_claimed,
            mode=config.registration,
            operators=self._operators,
        )
        hub.on_moderation(guests.expel, self._indexer.note_deleted, self._indexer.note_pruned)
        records = ModerationRecords(self._database)
        self._login = login = Login(
            accounts=accounts,
            messages=messages,
            rooms=rooms,
            identity=HistoryIdentity(self._database),
            journal=self._journal,
            hub=hub,
            passwords=self._passwords,
            throttle=throttle,
            registration=registration,
            counters=self._counters,
            records=records,
            on_empty=self._log_waiting,
            behind_max_seconds=0.0 if self._shared_log is None else _BEHIND_MAX_SECONDS,
        )
        room_commands = RoomCommands(rooms, accounts, self._journal, hub, makers=config.rooms)
        user_limits = UserLimits(
            messages=RateLimit("message_rate", config.message_burst, config.message_rate, self._counters),
            message_delay_seconds=config.message_delay_seconds,
            queries=RateLimit("query_rate", config.query_burst, config.query_rate, self._counters),
            requests=RateLimit("request_rate", config.request_burst, config.request_rate, self._counters),
            rooms=RateLimit("rooms_per_day", config.rooms_per_day, config.rooms_per_day / _DAY_SECONDS, self._counters),
        )
        services = Services(
            accounts=accounts,
            messages=messages,
            indexer=self._indexer,
            journal=self._journal,
            hub=hub,
            presence=self._presence,
            login=login,
            guests=guests,
            rooms=room_commands,
            moderation=Moderation(records, accounts, guests, room_commands, self._journal),
            acked_delivery=self._acked_delivery,
            limits=user_limits,
            counters=self._counters,
            find_refusal=self._monitor.find_refusal if self._monitor is not None else lambda: "",
        )
        limits = ConnectionLimits(
            exempt=config.exempt,
            trusted_proxies=config.trusted_proxies,
            at_once_max=config.address_connections,
            new_max=config.address_new_connections,
        )
        connection_services = ConnectionServices(
            protocols=protocols,
            sender=self._sender,
            login_seconds=config.login_seconds,
            open_session=partial(Session, services),
            limits=limits,
            overflow=overflow,
            answer_max_bytes=config.answer_max_bytes,
            tls=self._tls,
            tls_required=_TLS_REQUIRED if config.tls == "required" else None,
            counters=self._counters,
        )
        self._connections = Connections(
            connection_services,
            Slots.of(config.max_connections, config.waiting_percent, config.reserved_percent),
            memory.claim,
        )
        # Before the parts that an error would leave open.
        self._bound = _listen(config) if self._shared_log is None else None
        # Without epoll, which only Linux has, each reader thread blocks in its own socket.
        self._turns = ReadTurns(self._crash) if hasattr(select, "epoll") else None
        self._protocols, self._limits, self._udp_silence_seconds = protocols, limits, udp_silence_seconds
        if self._control is None:
            self._control = ControlSocket(config.data, self._answer, self._crash)
        target = RunningServer(
            self._database,
            self._journal,
            self._connections,
            self._presence.is_elsewhere,
        )
        self._retention = Retention(config.retention_days, self._journal, wall_ms, self._crash)
        self._admin = AdminSocket(config.data, target.answer, self._crash)
        if self._metrics is None:
            self._open_metrics(config)
        self._register_metrics(config, dropped_log_entries)
        self._reloads = _Reloads(registration, registration_limits, guests, room_commands, user_limits, limits)

    def _read_last_id(self) -> int:
        """The highest id that a message ever had. Raises StoreError."""
        if self._shared_log is None:
            return reconcile(self._database)
        return note_use(self._database)  # the log has what a crash lost

    def _make_journal(self, config: Config) -> Journal:
        limits = StoreLimits(waiting_from_sender=config.waiting_from_sender, waiting_messages=config.waiting_messages)
        reserve = DiskReserve(config.data, config.disk_reserve)
        if self._shared_log is None:
            journal = LocalJournal(
                self._database, Clock().now_ms, self._crash, limits=limits, reserve=reserve, counters=self._counters
            )
            journal.defer(ServerStart, ServerStart())
            return journal
        from chatserver.journal.shared import SharedJournal  # noqa: PLC0415 -- a single server does not need the memory

        shared = SharedJournal(
            self._database,
            Clock().now_ms,
            self._crash,
            limits=limits,
            reserve=reserve,
            counters=self._counters,
            log=self._shared_log,
            server=_server_name(config),
            on_lost=self._end_without_log,
        )
        self._monitor = LogMonitor(self._shared_log, lambda: shared.position.number, self._crash)
        snapshots = Snapshots(config.data, self._shared_log, self._crash)
        shared.on_own_record(snapshots.note_own_record)
        self._log_threads = self._monitor, snapshots
        self._shared_journal = shared
        return shared

    def _meet_peers(self, throttle: LoginThrottle, guests: Guests) -> None:
        """Make the parts that talk to the other servers, if there is a shared log."""
        journal = self._shared_journal
        if journal is None or self._shared_log is None:
            return
        self._peers = Peers(
            server=journal.server,
            log=self._shared_log,
            journal=journal,
            presence=self._presence,
            throttle=throttle,
            find_run=lambda: journal.run,
            read_runs=partial(current_runs, self._database),
            checkpoints=journal.checkpoints,
            on_lost=self._end_without_log,
            on_crash=self._crash,
        )
        journal.subscribe(self._peers.handle_applied, lambda _: None)
        journal.on_new_run(guests.end_run)

    def _receive_broadcast(self, data: bytes) -> None:
        """Pass on a broadcast. For the thread of the shared log, which starts before the database is open."""
        if self._peers is not None:
            self._peers.receive(data)

    def _bind(self) -> None:
        """Make the listeners; bind the ports of the clients, if that was not done. Raises StartError."""
        config = self._config
        listening, bound = self._bound or _listen(config)
        # The bound port, which the system chose if the setting is 0.
        self.port = int(listening.getsockname()[1])
        self._listener = Listener(listening, self._connections, self._protocols, self._crash, self._turns)
        self._udp_listener = UdpListener(
            bound,
            self._connections,
            by_name(Datagram.name, self._protocols),
            OpeningLimits(self._limits.is_exempt, self._counters, each_max=config.udp_openings),
            self._crash,
            silence_seconds=self._udp_silence_seconds,
            tls_required=config.tls == "required",
        )

    def _open_metrics(self, config: Config) -> None:
        """Bind the port of the metrics, if there is a setting for it. Raises StartError."""
        if config.metrics is None:
            return
        from chatserver.admin import metrics  # noqa: PLC0415 - it takes 2 MiB of memory

        self._registry = metrics.new_registry()
        try:
            self._metrics = metrics.open_server(
                config.metrics, self._registry, self._find_problem, self._find_unreadiness, self._crash
            )
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            address = format_address(config.metrics)
            raise StartError(f"Can't serve metrics on {address}: {reason}; see --metrics.") from error

    def _register_metrics(self, config: Config, dropped_log_entries: Callable[[], int]) -> None:
        if self._metrics is None:
            return
        from chatserver.admin import metrics  # noqa: PLC0415 - see above

        sources = metrics.Sources(
            counters=self._counters,
            connections=self._connections,
            max_connections=config.max_connections,
            hub=self._hub,
            presence=self._presence,
            acked_delivery=self._acked_delivery,
            sender=self._sender,
            journal=self._journal,
            passwords=self._passwords,
            data=config.data,
            dropped_log_entries=dropped_log_entries,
            certificates=self._certificates,
            log=self._log_source(),
        )
        self._registry.register(metrics.ServerCollector(sources))

    def _log_source(self) -> metrics.SharedLog | None:
        from chatserver.admin import metrics  # noqa: PLC0415 - see above

        journal, log = self._shared_journal, self._shared_log
        if journal is None or log is None or self._monitor is None:
            return None
        return metrics.SharedLog(
            monitor=self._monitor,
            record=lambda: journal.position.number,
            in_flight=lambda: journal.in_flight,
            find_problem=log.find_problem,
            servers=partial(count_servers, self._database),
        )

    def _is_reserved(self) -> bool:
        """True if the free slots are for known users only. For any thread."""
        return self._connections.is_reserved()

    def _open_buffer(self, protocols: tuple[WireProtocol, ...], kept_bytes: int, protocol: str) -> BroadcastBuffer:
        """Open the buffer of a room. For any thread."""
        encode = by_name(protocol, protocols).encode_all
        buffer = BroadcastBuffer(encode, kept_bytes, ROOM_LIMITS, is_reserved=False)
        self._sender.add_buffer(buffer)
        return buffer

    @property
    def connections(self) -> int:
        """Number of open connections. For any thread."""
        return len(self._connections)

    def reload(self, config: Config) -> None:
        """Read the certificate again, for new connections, and apply the settings of RELOADABLE.

        ConfigError: the certificate can't be used. The one in use stays, and nothing has changed.
        """
        if self._certificates is not None:
            try:
                self._certificates.reload()
            except CertificateError as error:
                raise ConfigError(str(error)) from error
        self._reloads.apply(config)

    def start(self, pause: Callable[[float], bool] = _sleep) -> None:
        """Start all threads; the listeners follow the threads that serve their clients.

        A server that shares its log waits for NATS first, and then until it has caught up. ``pause`` waits some
        seconds, and returns true if the server must end: then ``start`` returns early.

        Raises StartError, StoreError, LogError. The caller calls ``stop`` in any case.
        """
        prepare_threads()
        sys.setswitchinterval(_SWITCH_SECONDS)
        gc.set_threshold(_GARBAGE_OBJECTS)
        with _start_errors(self._config):
            try:
                if self._shared_log is not None:
                    self._join_log(self._shared_log, LogStart(self._shared_log, pause))
                self._start_threads()
            except StartStoppedError:
                return
            except RuntimeError as error:
                raise StartError.no_threads(error) from error
        self._started = True
        self._log_waiting()

    def _join_log(self, log: NatsLog, start: LogStart) -> None:
        self._log_start = start
        self._start_answering()
        log.start()
        start.open()
        start.do("it looks for a snapshot", partial(prepare_folder, self._config.data, log))
        self._open_database(start)

    def _start_answering(self) -> None:
        assert self._control is not None
        self._control.start()
        if self._metrics is not None:
            self._metrics.start()
            _log.info("metrics served", address=format_address(self._metrics.address))

    def _start_threads(self) -> None:
        self._sender.start()
        if self._turns is not None:
            self._turns.start()
        self._journal.start()
        if self._log_start is not None and self._shared_journal is not None:
            self._log_start.catch_up(self._shared_journal)
            self._log_start.do("it appoints the operators", self._appoint_operators)
            self._bind()  # last: nothing may keep clients waiting
        else:
            self._appoint_operators()
        self._presence.start()
        if self._peers is not None:
            self._peers.start()
        self._acked_delivery.start()
        self._passwords.start()
        self._indexer.start()
        if self._certificates is not None and self._tls is not None:
            self._certificates.start()
            self._tls.start()
        for each in self._log_threads:
            each.start()
        assert self._listener is not None
        assert self._udp_listener is not None
        self._udp_listener.start()
        self._listener.start()
        if self._shared_log is None:
            self._start_answering()
        self._admin.start()
        self._retention.start()

    def _appoint_operators(self) -> None:
        """Make the users of the setting operators of the server, if they are registered."""
        for name in self._operators:
            account = self._accounts.find(name)
            if account is not None and account.role is not Role.OPERATOR:
                entry = SetServerRole(
                    by_id=0, by=_SETTINGS, account_id=account.id, username=account.name, role=Role.OPERATOR
                )
                # The journal has logged it; the next start tries again.
                with suppress(OSError, JournalClosedError):
                    self._journal.append([entry]).result()  # the first login must find the role
                    _log.info("operator appointed", user=account.name)

    def stop(self) -> bool:
        """Shut down in order: accepted messages are stored, delivered and confirmed. Returns False if a thread died."""
        self._stopping = True
        if self._is_built:
            self._stop_serving()
        elif self._shared_log is not None:
            self._shared_log.close(0.0)
        if self._control is not None:
            self._control.close()
        if self._metrics is not None:
            self._metrics.close()
        if self._peers is not None:
            self._peers.stop()  # after all users have left
        if self._is_built:
            self._journal.close()
            self._database.close()
        return not self._crashed

    def _stop_serving(self) -> None:
        self._stop_accepting()
        for each in self._log_threads:
            each.stop()
        self._journal.stop()  # messages are rejected from now on
        if self._shared_journal is not None:  # both may have waited for NATS until now
            self._admin.close()
            self._retention.stop()
        self._presence.stop()
        self._hub.track_newest()
        if self._tls is not None:
            self._tls.close()
        self._acked_delivery.shorten_timeouts(_ACK_SECONDS)
        connections = self._connections.drain(_DRAIN_SECONDS)
        if self._tls is not None:
            self._tls.stop()
        if self._turns is not None:
            self._turns.stop()
        self._acked_delivery.stop()
        if self._udp_listener is not None:
            self._udp_listener.stop()  # before the sender: it wakes the sender
        self._sender.stop(_CLOSING_SECONDS)
        if self._started:
            _log.info("stopped", connections=connections)

    def _stop_accepting(self) -> None:
        """End all that brings new work to the journal, but the connections."""
        if self._shared_journal is None:
            self._admin.close()
            self._retention.stop()
        if self._listener is not None:
            self._listener.close()
        if self._udp_listener is not None:
            self._udp_listener.close()
        self._login.stop_waiting()
        self._passwords.stop(_HASH_SECONDS)
        self._indexer.stop()
        if self._certificates is not None:
            self._certificates.stop()

    def _answer(self, request: str) -> str:
        """Answer a request on the control socket. For the thread of that socket."""
        if request != "health":
            return f"there is no request {request[:32]!r}"
        if problem := self._find_problem():
            return problem
        reason = self._find_cluster_problem()
        return f"{HEALTHY}: {reason}" if reason else HEALTHY

    def _find_problem(self) -> str:
        """Return why clients can't be served; empty if they can. It may wait for the disk. For any thread.

        A restart may help, so a server that waits for NATS has no problem.
        """
        if self._crashed:
            return "a thread died" if self._shared_log is None else "a thread died, or the shared log is lost"
        if self._stopping:
            return "it is shutting down"
        if self._shared_log is None:
            return self._journal.find_problem(_PROBE_SECONDS)
        return "it can't write to its disk" if self._is_built and self._journal.is_failing else ""

    def _find_cluster_problem(self) -> str:
        """Return why clients should prefer another server; empty if they need not, or if this is the only one."""
        if self._shared_log is None:
            return ""
        if not self._started or self._monitor is None:
            return (self._log_start.reason if self._log_start is not None else "") or "it starts"
        return self._monitor.find_problem()

    def _find_unreadiness(self) -> str:
        """Return why clients should go elsewhere, for now; empty if they are welcome. As _find_problem."""
        if reason := self._find_problem() or self._find_cluster_problem():
            return reason
        return "the reserve of its disk is used up" if self._journal.is_disk_full else ""

    def _log_waiting(self) -> None:
        """Log that no user is connected. For any thread."""
        if not self._stopping:
            _log.info("waiting for connection", port=self.port)

    def _end_without_log(self) -> None:
        """End the process: it can't follow the shared log. The journal has logged the reason. For its thread."""
        self._crashed = True
        self._on_crash()
        _log.error("shutting down", reason="shared_log_lost")

    def _crash(self, thread: str) -> None:
        """Handle the death of a worker thread: the process ends, and its supervisor may restart it.

        Called in the dying thread. ``on_crash`` comes before the log, because logging may fail without memory.
        """
        self._crashed = True
        self._on_crash()
        _log.error("shutting down", reason="thread_died", thread=thread)


@contextmanager
def _start_errors(config: Config) -> Iterator[None]:
    """Raise StartError for what can go wrong in the block."""
    try:
        yield
    except MemoryError as error:
        raise StartError.no_memory() from error
    except CertificateError as error:
        raise StartError(str(error)) from error
    except PasswordsFailedError as error:
        reason = f"A password can't be hashed with --hash-memory-kib {config.hash_memory_kib}: {error}"
        raise StartError(f"{reason}. Allow more memory, or lower it.") from error
    except OSError as error:
        advice = " Allow more (ulimit -n)." if error.errno == errno.EMFILE else ""
        raise StartError(f"The server can't start: {error.strerror or error}.{advice}") from error


def _server_name(config: Config) -> str:
    """The name of this server in its cluster: of the setting, or of the machine, as far as NATS allows it."""
    return config.server_name or re.sub("[^A-Za-z0-9_-]+", "-", platform.node().partition(".")[0])[:32] or "server"


def _raise_descriptor_limit(needed: int) -> None:
    """Raise the soft limit of open files towards ``needed``: the usual 1,024 is below ``max_connections``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY in (soft, hard) or soft >= needed:
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, hard), hard))
    if hard < needed:
        _log.warning("open file limit too low", limit=hard, needed=needed)


def prepare_threads() -> None:
    """Set the stack size and the heap of all threads. Call it before the first thread starts; repeats are harmless."""
    _use_one_heap()
    threading.stack_size(_STACK_BYTES)


def _listen(config: Config) -> tuple[socket.socket, socket.socket]:
    """Bind the TCP and the UDP socket. Raises StartError."""
    try:
        return bind(config.host, config.port, config.peer_timeout_seconds)
    except (OSError, UnicodeError) as error:
        code = getattr(error, "errno", None)
        reason = " ".join([os.strerror(code) if code and code > 0 else str(error), *getattr(error, "__notes__", [])])
        raise StartError(f"Can't listen on {config.host} port {config.port}: {reason}.") from error


def _use_one_heap() -> None:
    """Make all threads share one heap.

    By default glibc creates up to eight heaps per processor and keeps the peak size of each. Each connection has a new
    thread, and the memory of a small server tripled over time.
    """
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
