"""Builds the house: the only file that joins its rooms, starts its threads, and ends them in order."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import resource
import select
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import structlog

from chatprotocol.errors import ErrorCode
from chatprotocol.events import Refused
from chatprotocol.wire import Datagram, Register, by_name, protocols_with
from chatserver.chat.delivery import AckedDelivery
from chatserver.chat.delivery_marks import DeliveryMarks
from chatserver.chat.guest_session import GuestSession
from chatserver.chat.guests import Guests
from chatserver.chat.hub import Hub
from chatserver.chat.journal import LocalJournal
from chatserver.chat.login_throttle import LoginThrottle
from chatserver.chat.passwords import HashCost, Passwords, PasswordsFailedError
from chatserver.chat.presence import Presence
from chatserver.chat.services import Services
from chatserver.chat.session import Session
from chatserver.clock import Clock
from chatserver.control import WELL
from chatserver.memory import system_memory
from chatserver.net.broadcast import BroadcastBuffer
from chatserver.net.connection import ConnectionServices
from chatserver.net.connections import Connections
from chatserver.net.control_socket import ControlSocket
from chatserver.net.listener import Listener
from chatserver.net.read_turns import ReadTurns
from chatserver.net.sender import Sender
from chatserver.net.sockets import bind
from chatserver.net.udp_listener import UdpListener
from chatserver.store.accounts import Accounts
from chatserver.store.database import Database
from chatserver.store.identity import HistoryIdentity
from chatserver.store.indexer import Indexer
from chatserver.store.messages import Messages
from chatserver.store.reconcile import reconcile

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from chatserver.config import Config

_log = structlog.get_logger()

# A reader's frames of Python are on the heap; what is left for the stack is C: parsing, SQLite, hashing. Ten thousand
# stacks of the usual 8 MiB would be 80 GiB of addresses, and huge pages would make some of that memory.
_STACK_BYTES = 256 * 1024
# A thread that computes lets another one go on after this long. The usual 5 ms is how long a message would wait.
_SWITCH_SECONDS = 0.001
# What is made for a message is freed as soon as nobody refers to it. The collector is for objects that refer to each
# other, which come with errors only; it walks through all that is alive while nothing else runs, so it comes seldom.
_GARBAGE_OBJECTS = 100_000
# mallopt(3): the parameter's number.
_M_ARENA_MAX = -8
# The promise is 8 s from the signal to the exit; what the slowest receivers do not take in this time they get later.
_PARTING_SECONDS = 3.0
# Of that time so much is for users to answer what they were given.
_ANSWER_SECONDS = 2.0
# Who was cut off then is only to be closed.
_CLOSING_SECONDS = 1.0
# A disk that takes longer for one small commit is as bad as one that takes none. Less than the time limit of
# the health check.
_PROBE_SECONDS = 1.5
# The database, its readers, the listener, the doorbell, the log.
_OTHER_DESCRIPTORS = 128
# A stream remembers more than the slowest receiver may be behind, so that the limit is what disconnects it.
_KEPT_MARGIN_BYTES = 4 * 1024 * 1024


class StartError(Exception):
    """The server can't start. The text is one line that says why, and what to do."""

    @classmethod
    def no_threads(cls, error: RuntimeError) -> Self:
        """The system gives no threads, or no memory for their stacks."""
        return cls(f"The system gives no more threads ({error}); allow more (ulimit -u, the container's pids limit).")

    @classmethod
    def no_memory(cls) -> Self:
        """There is too little of it."""
        return cls("There is not enough memory to start; allow more (ulimit -v, the container's limit).")


class Server:
    """The whole server. Building it opens the database and binds the port: raises StoreError, StartError.

    ``on_crash`` is called when a thread has died that it can't do without. It may be called when no memory is left.
    """

    def __init__(self, config: Config, on_crash: Callable[[], None]) -> None:
        self._on_crash = on_crash
        self._crashed = False
        self._started = False
        self._stopping = False
        try:
            self._database = Database(config.data)
            try:
                self._build(config)
            except BaseException:
                self._database.close()
                raise
        except MemoryError as error:
            raise StartError.no_memory() from error
        except PasswordsFailedError as error:
            reason = f"A password can't be hashed with --hash-memory-kib {config.hash_memory_kib}: {error}"
            raise StartError(f"{reason}. Allow more memory, or lower it.") from error
        except OSError as error:
            advice = " Allow more (ulimit -n)." if error.errno == errno.EMFILE else ""
            raise StartError(f"The server can't start: {error.strerror or error}.{advice}") from error

    def _build(self, config: Config) -> None:
        _allow_descriptors(config.max_connections + _OTHER_DESCRIPTORS)
        memory = system_memory()
        messages = Messages(self._database, memory.claim)
        last_id = reconcile(self._database)
        kept_bytes = config.lag_max_bytes + _KEPT_MARGIN_BYTES
        register = Register(config.register_delivered, config.register_length, config.register_forward_max)
        protocols = protocols_with(register)
        broadcasts = {protocol.name: BroadcastBuffer(protocol.encode_all, kept_bytes) for protocol in protocols}
        self._broadcasts = list(broadcasts.values())
        self._sender = Sender(self._broadcasts, config.lag_max_bytes, self._crash, memory.is_short)
        self._acked_delivery = AckedDelivery(config.lag_max_bytes, self._crash, register.split)
        deliveries = DeliveryMarks()
        hub = Hub([*self._broadcasts, self._acked_delivery], last_id, deliveries, self._sender.wake)
        guests = Guests()
        self._journal = LocalJournal(
            self._database, hub, deliveries, last_id, Clock().now_ms, guests.is_claimed, self._crash
        )
        self._indexer = Indexer(config.data, messages, self._crash)
        self._hub = hub
        self._presence = Presence(hub.announce, config.users_seconds, self._crash)
        cost = HashCost(config.hash_time_cost, config.hash_memory_kib, config.hash_parallelism)
        self._passwords = Passwords(cost, self._crash)
        services = Services(
            accounts=Accounts(self._database),
            messages=messages,
            identity=HistoryIdentity(self._database),
            indexer=self._indexer,
            journal=self._journal,
            hub=hub,
            presence=self._presence,
            passwords=self._passwords,
            login_throttle=LoginThrottle(time.monotonic),
            guests=guests,
            acked_delivery=self._acked_delivery,
            registration_open=config.registration == "open",
            guests_allowed=config.guests_allowed,
            login_seconds=config.login_seconds,
            on_empty=self._say_waiting,
        )
        connection_services = ConnectionServices(
            protocols=protocols,
            broadcasts=broadcasts,
            sender=self._sender,
            login_seconds=config.login_seconds,
            open_session=lambda protocol, *its: (GuestSession if protocol == Register.name else Session)(
                services, *its
            ),
        )
        full = Refused(ErrorCode.SERVER_FULL, "The server is full; try again later.")
        self._connections = Connections(connection_services, config.max_connections, memory.claim)
        listening, bound = _listen(config)
        # Epoll is Linux's; elsewhere each reader waits for its socket itself.
        self._turns = ReadTurns(self._crash) if hasattr(select, "epoll") else None
        self._listener = Listener(listening, self._connections, protocols, full, self._crash, self._turns)
        datagram = by_name(Datagram.name, protocols)
        self._datagram_listener = UdpListener(bound, self._connections, datagram, self._crash)
        self._control = ControlSocket(config.data, self._answer, self._crash)
        # The port that it listens on.
        self.port = int(listening.getsockname()[1])

    def start(self) -> None:
        """Start every thread, the one that lets clients in last. Raises StartError; stop it then, too."""
        prepare_threads()
        sys.setswitchinterval(_SWITCH_SECONDS)
        gc.set_threshold(_GARBAGE_OBJECTS)
        try:
            self._start_threads()
        except RuntimeError as error:
            raise StartError.no_threads(error) from error
        except MemoryError as error:
            raise StartError.no_memory() from error
        self._started = True
        self._say_waiting()

    def _start_threads(self) -> None:
        self._sender.start()
        if self._turns is not None:
            self._turns.start()
        self._journal.start()
        self._presence.start()
        self._acked_delivery.start()
        self._passwords.start()
        self._indexer.start()
        self._datagram_listener.start()
        self._listener.start()
        self._control.start()

    def stop(self) -> bool:
        """End in order: what was accepted is stored, delivered and confirmed. False if a thread had died before."""
        self._stopping = True
        self._listener.close()
        self._datagram_listener.close()
        self._passwords.stop()
        self._indexer.stop()
        self._journal.stop()  # what comes now is refused
        self._presence.stop()
        self._hub.end()
        self._acked_delivery.hurry(_ANSWER_SECONDS)
        connections = self._connections.drain(_PARTING_SECONDS)
        if self._turns is not None:
            self._turns.stop()
        self._acked_delivery.stop()
        self._datagram_listener.stop()  # which rings the courier
        self._sender.stop(_CLOSING_SECONDS)
        self._control.close()
        self._journal.save_deliveries()
        for broadcast in self._broadcasts:
            broadcast.close()
        self._database.close()
        if self._started:
            _log.info("Stopped", connections=connections)
        return not self._crashed

    def _answer(self, request: str) -> str:
        """The answer to a request on the control socket."""
        if request != "health":
            return f"there is no request {request[:32]!r}"
        if self._crashed:
            return "a thread died"
        if self._stopping:
            return "it is shutting down"
        return WELL if self._journal.probe(_PROBE_SECONDS) else "it can't write to its disk"

    def _say_waiting(self) -> None:
        """Nobody is in the room. For any thread."""
        if not self._stopping:
            _log.info(f"Waiting for connection on port {self.port}...")

    def _crash(self, thread: str) -> None:
        """A thread that the server can't do without has died: end, so that whoever runs it starts it anew."""
        self._crashed = True
        self._on_crash()
        _log.error("Shutting down because a thread died", thread=thread)


def _allow_descriptors(needed: int) -> None:
    """Raise the process's limit of open files as far as it may go: the usual 1,024 would be reached first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY in (soft, hard) or soft >= needed:
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, hard), hard))
    if hard < needed:
        _log.warning("The system's limit of open files allows fewer connections than configured", open_files=hard)


def prepare_threads() -> None:
    """Say what all threads have of memory. Before any is started; once more does no harm."""
    _share_heap()
    threading.stack_size(_STACK_BYTES)


def _listen(config: Config) -> tuple[socket.socket, socket.socket]:
    """Bind, or say why that can't be."""
    try:
        return bind(config.host, config.port, config.peer_timeout_seconds)
    except (OSError, UnicodeError) as error:
        code = getattr(error, "errno", None)
        reason = " ".join([os.strerror(code) if code and code > 0 else str(error), *getattr(error, "__notes__", [])])
        raise StartError(f"Can't listen on {config.host} port {config.port}: {reason}.") from error


def _share_heap() -> None:
    """Give all threads one heap.

    Of its own accord glibc makes up to eight for each processor, and keeps what each needed at its peak. Visitors come
    and go in new threads, and the memory of a small room grew to three times as much.
    """
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
