"""Builds the server: creates and connects its parts (with cluster.py), and starts and stops the threads."""

from __future__ import annotations

import errno
import os
import select
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING

import structlog

from chatprotocol.address import format_address
from chatprotocol.errors import ErrorCode
from chatprotocol.events import Refused
from chatprotocol.limits import ROOMS_MAX
from chatprotocol.settings import ConfigError
from chatprotocol.udp.arq import SILENCE_SECONDS
from chatprotocol.wire import Datagram, Irc, Register, WebSocket, by_name, protocols_with
from chatprotocol.wire.irc_capabilities import Users
from chatprotocol.wire.irc_connection import IrcSettings
from chatprotocol.wire.irc_lines import read_motd
from chatserver import __version__
from chatserver.admin.retention import Retention
from chatserver.admin.target import RunningServer
from chatserver.chat.authentication import Authentication
from chatserver.chat.catch_up import CatchUp
from chatserver.chat.changes import ChangePublisher
from chatserver.chat.delivery import AckedDelivery
from chatserver.chat.delivery_marks import DeliveryMarks
from chatserver.chat.directory import Directory
from chatserver.chat.entering import Entering
from chatserver.chat.guests import Guests
from chatserver.chat.history_commands import HistoryCommands
from chatserver.chat.hub import Hub
from chatserver.chat.local_users import LocalUsers
from chatserver.chat.login import Login
from chatserver.chat.login_throttle import LoginThrottle
from chatserver.chat.missed import MissedMessages
from chatserver.chat.moderation import Moderation
from chatserver.chat.passwords import HashCost, Passwords, PasswordsFailedError
from chatserver.chat.presence import Presence
from chatserver.chat.rate_limit import RateLimit, UserLimits
from chatserver.chat.registration import Registration, RegistrationLimits
from chatserver.chat.room_commands import RoomCommands
from chatserver.chat.services import Services
from chatserver.chat.session import Session
from chatserver.chat.tokens import SessionTokens
from chatserver.clock import Clock, wall_ms
from chatserver.control import HEALTHY
from chatserver.counters import Counters
from chatserver.journal.apply import StoreLimits
from chatserver.journal.base import JournalClosedError
from chatserver.journal.entries import ServerStart, SetServerRole
from chatserver.journal.joining import refuse_shared
from chatserver.journal.local import LocalJournal
from chatserver.journal.starting import StartStoppedError
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
from chatserver.process import prepare_threads, raise_descriptor_limit, tune_interpreter
from chatserver.store.accounts import Accounts, Role
from chatserver.store.conversation_history import ConversationHistory
from chatserver.store.database import Database
from chatserver.store.disk import DiskReserve
from chatserver.store.identity import HistoryIdentity
from chatserver.store.indexer import Indexer
from chatserver.store.messages import Messages
from chatserver.store.moderation import ModerationRecords
from chatserver.store.read_marks import ReadMarks
from chatserver.store.reconcile import note_use, reconcile
from chatserver.store.rooms import Rooms
from chatserver.store.tokens import Tokens
from chatserver.threads import StartError
from chatserver.web.pages import read_pages

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from chatprotocol.wire import WireProtocol
    from chatserver.admin.metrics_server import MetricsServer
    from chatserver.cluster import Cluster
    from chatserver.config import Config
    from chatserver.journal.base import Journal

_log = structlog.get_logger()

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
# The acting user in the audit table for what the settings demand.
_SETTINGS = "the settings"
# Hosts that stand for all addresses of the machine.
_ALL_ADDRESSES = ("0.0.0.0", "::")
# The error for a connection without TLS, if TLS is required.
_TLS_REQUIRED = Refused(ErrorCode.TLS_REQUIRED, "The server requires TLS: connect with TLS (chatclient --tls).")


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


class _State(Enum):
    """The states of a server, in order."""

    # For the shared log: there is no database yet.
    WAITING = auto()
    # All parts are built.
    BUILT = auto()
    # All threads run.
    SERVING = auto()
    STOPPING = auto()


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
        self.connection_limits.change(
            config.exempt, config.address_connections, config.address_new_connections, config.address_pages
        )


class Server:
    """The whole server. The constructor opens the database and binds the port. Raises StoreError, StartError.

    ``on_crash`` is called, in any thread, after the death of a worker thread. It must work without free memory.
    """

    def __init__(
        self,
        config: Config,
        on_crash: Callable[[], None],
        *,
        protocols: Callable[[Register, WebSocket, Irc], tuple[WireProtocol, ...]] = protocols_with,
        udp_silence_seconds: float = SILENCE_SECONDS,
        dropped_log_entries: Callable[[], int] = lambda: 0,
    ) -> None:
        self._config = config
        self._on_crash = on_crash
        self._make_protocols = protocols
        self._udp_silence_seconds = udp_silence_seconds
        self._dropped_log_entries = dropped_log_entries
        self._state = _State.WAITING
        self._crashed = False
        self._certificates: Certificates | None = None
        self._tls: TlsAcceptor | None = None
        self._control: ControlSocket | None = None
        self._metrics: MetricsServer | None = None
        self._listener: Listener | None = None
        self._udp_listener: UdpListener | None = None
        self._bound: tuple[socket.socket, socket.socket] | None = None
        # None if this is the only server.
        self._cluster: Cluster | None = None
        with _start_errors(config):
            if config.tls != "off" and config.tls_cert is not None and config.tls_key is not None:
                self._certificates = Certificates(config.tls_cert, config.tls_key, self._crash)
                self._tls = TlsAcceptor(self._certificates.context)
            if config.nats is not None:
                from chatserver.cluster import Cluster  # noqa: PLC0415 -- a single server does not need the memory

                self._cluster = Cluster(config, self._crash, self._end_without_log)
                self._open_metrics()
                self._control = ControlSocket(config.data, self._answer, self._crash)
                return  # the rest is built by start(), after the wait for NATS
            self._build_on(Database(config.data))
            self._bind()

    def _build_on(self, database: Database) -> None:
        """Build all parts but the listeners. The database is closed if that fails."""
        self._database = database
        try:
            if self._cluster is None:
                refuse_shared(database)
            self._build()
        except BaseException:
            database.close()
            raise
        self._state = _State.BUILT

    def _build(self) -> None:
        """Build all parts that need the database: each after those that it uses."""
        config, cluster = self._config, self._cluster
        raise_descriptor_limit(config.max_connections + _OTHER_DESCRIPTORS)
        memory = system_memory()
        self._counters = Counters()
        self._operators = config.operator or ()

        # The store. A crash of one of several servers may lose messages; the shared log has them.
        messages, rooms = Messages(self._database, memory.claim), Rooms(self._database, memory.claim)
        last_id = reconcile(self._database) if cluster is None else note_use(self._database)
        self._accounts = Accounts(self._database)
        self._indexer = Indexer(config.data, messages, self._crash)

        # The protocols.
        register = Register(config.register_delivered, config.register_length, config.register_forward_max)
        irc = Irc(_irc_settings(config, Users(self._ident_of, self._is_account, self._is_bot)))
        pages, origins = read_pages() if config.web == "on" else {}, config.web_origins or ()
        self._protocols = self._make_protocols(register, WebSocket(pages, origins, irc=irc), irc)
        behind_proxy = WebSocket(pages, origins, keeps_alive=False, irc=irc)

        # The sender and its buffers. Guests, who use register, have none: see AckedDelivery. Those of irc are opened
        # for each variant.
        kept_bytes = config.lag_max_bytes + _KEPT_MARGIN_BYTES
        buffers = {
            protocol.name: BroadcastBuffer(protocol.encode_all, kept_bytes)
            for protocol in self._protocols
            if protocol not in (register, irc)
        }
        overflow = BroadcastBuffer(lambda _: b"", kept_bytes)
        self._sender = Sender(
            config.lag_max_bytes,
            self._crash,
            memory.is_short,
            unread_max_bytes=share_of_memory(config.unread_percent),
            counters=self._counters,
        )
        for buffer in (*buffers.values(), overflow):
            self._sender.add_buffer(buffer)
        self._acked_delivery = AckedDelivery(config.lag_max_bytes, self._crash, register.split)

        # The journal, the users, and what their sessions call.
        self._journal = self._make_journal()
        self._presence = Presence(config.users_seconds, self._crash)
        self._users = LocalUsers(
            buffers,
            partial(self._open_buffer, kept_bytes),
            self._sender.remove_buffer,
            self._presence,
            DeliveryMarks(self._journal.defer),
            last_id,
            self._sender.wake,
            config.user_connections,
        )
        cost = HashCost(config.hash_time_cost, config.hash_memory_kib, config.hash_parallelism)
        self._passwords = Passwords(cost, self._crash, stored_costs=self._accounts.hash_costs())
        self._limits = _connection_limits(config)
        services = self._build_services(messages, rooms, memory.claim)
        self._authentication = services.authentication

        # What connects them to clients and administrators.
        self._build_connections(services, overflow, behind_proxy, memory.claim)
        self._build_administration()

    def _build_services(self, messages: Messages, rooms: Rooms, claim: Callable[[int], None]) -> Services:
        """Build what the sessions call, the hub, and ``_reloads``."""
        config, cluster, accounts, users = self._config, self._cluster, self._accounts, self._users
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
            server="" if cluster is None else cluster.server,
        )
        throttle = LoginThrottle()
        if cluster is not None:
            cluster.meet_peers(self._presence, throttle, guests)
        registration = Registration(
            accounts=accounts,
            journal=self._journal,
            passwords=self._passwords,
            limits=registration_limits,
            is_guest=guests.is_claimed,
            mode=config.registration,
            operators=self._operators,
        )
        hub = Hub(
            users,
            ChangePublisher(users, self._presence, guests.expel, self._indexer.note_deleted, self._indexer.note_pruned),
            self._acked_delivery,
            self._presence,
            self._sender.wake,
            self._counters,
            lambda room_id: rooms.roles([room_id]).get(room_id, {}),
            accounts.guests_among,
        )
        self._journal.subscribe(hub.handle_applied, hub.gather)
        records = ModerationRecords(self._database)
        tokens = SessionTokens(Tokens(self._database), self._journal)
        entering = Entering(users, rooms, messages)
        identity = HistoryIdentity(self._database)
        catch_up = CatchUp(0.0 if cluster is None else cluster.behind_max_seconds)
        authentication = Authentication(
            accounts=accounts,
            journal=self._journal,
            passwords=self._passwords,
            throttle=throttle,
            registration=registration,
            counters=self._counters,
            records=records,
            tokens=tokens,
            catch_up=catch_up,
        )
        login = Login(
            authentication=authentication,
            missed=MissedMessages(messages, identity),
            rooms=rooms,
            identity=identity,
            journal=self._journal,
            users=users,
            records=records,
            tokens=tokens,
            entering=entering,
            catch_up=catch_up,
            on_empty=self._log_waiting,
        )
        room_commands = RoomCommands(rooms, accounts, self._journal, users, makers=config.rooms, find_guest=guests.find)
        user_limits = _user_limits(config, self._counters)
        self._reloads = _Reloads(registration, registration_limits, guests, room_commands, user_limits, self._limits)
        return Services(
            accounts=accounts,
            messages=messages,
            indexer=self._indexer,
            journal=self._journal,
            users=users,
            presence=self._presence,
            authentication=authentication,
            login=login,
            guests=guests,
            rooms=room_commands,
            entering=entering,
            directory=Directory(
                users, self._presence, accounts, guests, rooms, room_commands, records, entering.counts
            ),
            history=HistoryCommands(
                ConversationHistory(self._database, messages, claim),
                messages,
                ReadMarks(self._database),
                accounts,
                room_commands,
                self._journal,
                users,
            ),
            moderation=Moderation(records, accounts, guests, room_commands, self._journal),
            tokens=tokens,
            acked_delivery=self._acked_delivery,
            limits=user_limits,
            counters=self._counters,
            find_refusal=cluster.find_refusal if cluster is not None else lambda: "",
        )

    def _build_connections(
        self,
        services: Services,
        overflow: BroadcastBuffer,
        behind_proxy: WebSocket,
        claim: Callable[[int], None],
    ) -> None:
        config = self._config
        connection_services = ConnectionServices(
            protocols=self._protocols,
            sender=self._sender,
            login_seconds=config.login_seconds,
            open_session=partial(Session, services),
            limits=self._limits,
            overflow=overflow,
            answer_max_bytes=config.answer_max_bytes,
            tls=self._tls,
            tls_required=_TLS_REQUIRED if config.tls == "required" else None,
            behind_proxy=(behind_proxy,),
            counters=self._counters,
        )
        self._connections = Connections(
            connection_services,
            Slots.of(config.max_connections, config.waiting_percent, config.reserved_percent),
            claim,
        )
        # Before the parts that an error would leave open.
        self._bound = _listen(config) if self._cluster is None else None
        # Without epoll, which only Linux has, each reader thread blocks in its own socket.
        self._turns = ReadTurns(self._crash) if hasattr(select, "epoll") else None

    def _build_administration(self) -> None:
        config = self._config
        if self._control is None:
            self._control = ControlSocket(config.data, self._answer, self._crash)
        target = RunningServer(self._database, self._journal, self._connections, self._presence.is_elsewhere)
        self._retention = Retention(config.retention_days, self._journal, wall_ms, self._crash)
        self._admin = AdminSocket(config.data, target.answer, self._crash)
        if self._metrics is None:
            self._open_metrics()
        self._register_metrics()

    def _make_journal(self) -> Journal:
        config = self._config
        limits = StoreLimits(waiting_from_sender=config.waiting_from_sender, waiting_messages=config.waiting_messages)
        reserve = DiskReserve(config.data, config.disk_reserve)
        if self._cluster is not None:
            return self._cluster.make_journal(self._database, limits=limits, reserve=reserve, counters=self._counters)
        journal = LocalJournal(
            self._database, Clock().now_ms, self._crash, limits=limits, reserve=reserve, counters=self._counters
        )
        journal.defer(ServerStart, ServerStart())
        return journal

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

    def _open_metrics(self) -> None:
        """Bind the port of the metrics, if there is a setting for it. Raises StartError."""
        config = self._config
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

    def _register_metrics(self) -> None:
        if self._metrics is None:
            return
        from chatserver.admin import metrics  # noqa: PLC0415 - see above

        sources = metrics.Sources(
            counters=self._counters,
            connections=self._connections,
            max_connections=self._config.max_connections,
            users=self._users,
            presence=self._presence,
            acked_delivery=self._acked_delivery,
            sender=self._sender,
            journal=self._journal,
            passwords=self._passwords,
            data=self._config.data,
            dropped_log_entries=self._dropped_log_entries,
            certificates=self._certificates,
            log=None if self._cluster is None else self._cluster.metrics_source(),
        )
        self._registry.register(metrics.ServerCollector(sources))

    def _is_reserved(self) -> bool:
        """True if the free slots are for known users only. For any thread."""
        return self._connections.is_reserved()

    def _ident_of(self, name: str) -> str:
        """Ask the users, which are made after the protocols. For any thread."""
        return self._users.tracking.ident_of(name)

    def _is_account(self, name: str) -> bool:
        return self._users.tracking.is_account(name)

    def _is_bot(self, name: str) -> bool:
        return self._users.tracking.is_bot(name)

    def _open_buffer(self, kept_bytes: int, variant: str) -> BroadcastBuffer:
        """Open the buffer of a room. For any thread."""
        encode = by_name(variant.partition("/")[0], self._protocols).encoder(variant)
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
        tune_interpreter()
        with _start_errors(self._config):
            try:
                if self._cluster is not None:
                    self._start_answering()  # why it waits
                    self._build_on(self._cluster.open_database(pause))
                self._start_threads()
            except StartStoppedError:
                return
            except RuntimeError as error:
                raise StartError.no_threads(error) from error
        self._state = _State.SERVING
        self._log_waiting()
        if self._config.web == "on":
            scheme = "https" if self._config.tls == "required" else "http"
            host = "localhost" if self._config.host in _ALL_ADDRESSES else self._config.host
            _log.info("web page served", address=f"{scheme}://{format_address((host, self.port))}/")

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
        if self._cluster is None:
            self._appoint_operators()
        else:
            self._cluster.catch_up(self._appoint_operators)
            self._bind()  # last: nothing may keep clients waiting
        self._presence.start()
        if self._cluster is not None:
            self._cluster.start_threads()
        self._acked_delivery.start()
        self._passwords.start()
        self._indexer.start()
        if self._certificates is not None and self._tls is not None:
            self._certificates.start()
            self._tls.start()
        assert self._listener is not None
        assert self._udp_listener is not None
        self._udp_listener.start()
        self._listener.start()
        if self._cluster is None:
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
        before, self._state = self._state, _State.STOPPING
        is_built = before is not _State.WAITING
        if is_built:
            connections = self._stop_serving()
            if before is _State.SERVING:
                _log.info("stopped", connections=connections)
        elif self._cluster is not None:
            self._cluster.abandon()
        if self._control is not None:
            self._control.close()
        if self._metrics is not None:
            self._metrics.close()
        if is_built:
            if self._cluster is not None:
                self._cluster.leave()  # after all users have left
            self._journal.close()
            self._database.close()
        return not self._crashed

    def _stop_serving(self) -> int:
        """Stop the threads, and return the number of connections that were open."""
        self._stop_accepting()
        if self._cluster is not None:
            self._cluster.stop_threads()
        self._journal.stop()  # messages are rejected from now on
        if self._cluster is not None:  # both may have waited for NATS until now
            self._admin.close()
            self._retention.stop()
        self._presence.stop()
        self._users.track_newest()
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
        return connections

    def _stop_accepting(self) -> None:
        """End all that brings new work to the journal, but the connections."""
        if self._cluster is None:
            self._admin.close()
            self._retention.stop()
        if self._listener is not None:
            self._listener.close()
        if self._udp_listener is not None:
            self._udp_listener.close()
        self._authentication.stop_waiting()
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
            return "a thread died" if self._cluster is None else "a thread died, or the shared log is lost"
        if self._state is _State.STOPPING:
            return "it is shutting down"
        if self._cluster is None:
            return self._journal.find_problem(_PROBE_SECONDS)
        return "it can't write to its disk" if self._state is not _State.WAITING and self._journal.is_failing else ""

    def _find_cluster_problem(self) -> str:
        """Return why clients should prefer another server; empty if they need not, or if this is the only one."""
        if self._cluster is None:
            return ""
        return self._cluster.find_problem() if self._state is _State.SERVING else self._cluster.reason

    def _find_unreadiness(self) -> str:
        """Return why clients should go elsewhere, for now; empty if they are welcome. As _find_problem."""
        if reason := self._find_problem() or self._find_cluster_problem():
            return reason
        return "the reserve of its disk is used up" if self._journal.is_disk_full else ""

    def _log_waiting(self) -> None:
        """Log that no user is connected. For any thread."""
        if self._state is not _State.STOPPING:
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


def _user_limits(config: Config, counters: Counters) -> UserLimits:
    return UserLimits(
        messages=RateLimit("message_rate", config.message_burst, config.message_rate, counters),
        message_delay_seconds=config.message_delay_seconds,
        queries=RateLimit("query_rate", config.query_burst, config.query_rate, counters),
        requests=RateLimit("request_rate", config.request_burst, config.request_rate, counters),
        rooms=RateLimit("rooms_per_day", config.rooms_per_day, config.rooms_per_day / _DAY_SECONDS, counters),
    )


def _connection_limits(config: Config) -> ConnectionLimits:
    return ConnectionLimits(
        exempt=config.exempt,
        trusted_proxies=config.trusted_proxies,
        at_once_max=config.address_connections,
        new_max=config.address_new_connections,
        pages_max=config.address_pages,
    )


def _irc_settings(config: Config, users: Users) -> IrcSettings:
    """Read the settings of the protocol irc. Raises StartError if the message of the day can't be used."""
    motd: tuple[str, ...] = ()
    if config.motd is not None:
        try:
            motd = read_motd(config.motd.read_bytes())
        except (OSError, ValueError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or error
            raise StartError(f"The message of the day, {config.motd}, can't be used: {reason}.") from error
    has_registration = config.registration == "open"
    return IrcSettings(config.irc_name, motd, has_registration, f"chatserver-{__version__}", wall_ms, users)


def _listen(config: Config) -> tuple[socket.socket, socket.socket]:
    """Bind the TCP and the UDP socket. Raises StartError."""
    try:
        return bind(config.host, config.port, config.peer_timeout_seconds)
    except (OSError, UnicodeError) as error:
        code = getattr(error, "errno", None)
        reason = " ".join([os.strerror(code) if code and code > 0 else str(error), *getattr(error, "__notes__", [])])
        hint = " Stop the program that uses it, or choose another port." if code == errno.EADDRINUSE else ""
        raise StartError(f"Can't listen on {config.host} port {config.port}: {reason}.{hint}") from error
