"""The other servers of a shared log: their users, wrong passwords, clocks and checkpoints, and which of them are gone.

Theory of operation
-------------------

The log decides everything that must not be wrong: names, messages, which run of a server may write. This module has the
state that need not be stored: the users who are online on each server. The servers tell each other by broadcasts, which
may be lost, repeated or overtaken, so each of them can be repaired by a later one.

**State.** The users of a server have a version, which rises by one with each ``Changes``. ``State`` has all of them, in
parts, and counts as the version that it names: changes after that version are applied to it, and applying a change
twice has no effect. Each server broadcasts, as one run of itself:

* ``Changes`` after at most CHANGES_SECONDS;
* a ``Heartbeat`` with its version, after at most HEARTBEAT_SECONDS;
* ``State``, after a ``Request`` for it.

A receiver that has version n of a peer takes Changes n + 1. If they or a heartbeat show that it has missed a version,
it requests the state, and repeats the request after each further heartbeat. So a loss is repaired at the second
heartbeat at the latest, and nothing large is sent without need: the state of 10,000 users is a few hundred KiB. A state
is sent once in STATE_SECONDS at most, for all that request it.

**Runs.** The log says which run of a server is its present one, after the entries that were applied here
(``read_runs``). Broadcasts of any other run are ignored: they come too late, from a server that was taken for gone, or
too early, before this server has read about the run. When ServerGone or ServerStart is applied, the users of the
earlier run go offline, and the state of the new one is requested.

**Gone.** A server that shuts down broadcasts a state without users, and its journal ends the run. One that was silent
for SILENCE_SECONDS, and has no lease any more, is gone: each server that finds this appends ServerGone. It names the
run, so only the first of these entries has an effect, and the server itself reads it, if it was only paused. Silence is
measured by the clock of this server, from the last broadcast or from the begin of the run in the log. The time in which
this server did not run does not count: if a step of its thread is late, all peers get the whole time again. So it takes
at most SILENCE_SECONDS, the rest of a lease and a commit until the users of a killed server are offline everywhere: 15
s.

**Checkpoints.** A heartbeat has the last checkpoints of its journal: digests of all outcomes up to a record. If two
servers have different digests of one record, the data of one of them are wrong. After all servers have told theirs, or
after VOTE_SECONDS, a server stops unless more than half of those it knows agree with it.

**Throttle.** Each wrong password that was charged to a network or an account here is told to the others, which charge
it there: see ``login_throttle.py``. What was told by others is not told again. Until then, at most 0.1 s, each server
lets its own burst of tries pass.

Thread "peers" does everything in :meth:`Peers.step`. The other methods leave something in the inbox and wake it. The
inbox is bounded; what does not fit is lost, as on the way. ``_lock`` guards the inbox and nothing else.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
import structlog
from msgspec import Struct

from chatserver.chat.login_throttle import Failure  # noqa: TC001 -- msgspec evaluates it
from chatserver.chat.presence import RosterChange
from chatserver.clock import wall_ms
from chatserver.journal.base import JournalClosedError
from chatserver.journal.entries import GuestsGone, ServerGone, ServerStart
from chatserver.store.errors import StoreError
from chatserver.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from chatserver.chat.login_throttle import LoginThrottle
    from chatserver.chat.presence import Presence
    from chatserver.journal.base import Appended, Applied, Journal
    from chatserver.journal.log import Log

_log = structlog.get_logger()

# The first byte of a broadcast. It changes when older servers could not read it: they ignore it.
_FORMAT: Final = b"\x01"
# Changes are collected for this time.
CHANGES_SECONDS: Final = 0.1
HEARTBEAT_SECONDS: Final = 2.0
# The lease of a peer is looked up after this silence: several heartbeats may be lost.
SILENCE_SECONDS: Final = 10.0
# If a step is later than this, the process was paused, and may have missed broadcasts.
LATE_SECONDS: Final = 1.0
# Shortest pause between two states, between two requests to a peer, and between two looks at the lease of a silent one.
STATE_SECONDS: Final = 1.0
# NATS takes 1 MiB at most; and no other thread runs while a part is decoded, which takes some milliseconds.
PART_MAX_BYTES: Final = 64 * 1024
# A name beside its bytes in MessagePack, and a room with its name.
_NAME_BYTES: Final = 2
_ROOM_BYTES: Final = 64
# Maximum bytes of broadcasts that wait for the thread: the states of several large servers.
INBOX_MAX_BYTES: Final = 32 * 1024 * 1024
# Maximum wrong passwords in one broadcast. Hashes limit them to a few hundred a second.
FAILURES_MAX: Final = 1_000
# Difference of clocks that is reported, and the time for which it must last: a single broadcast may be late.
CLOCK_MS: Final = 5_000
CLOCK_SECONDS: Final = 10.0
# Time in which all servers should have broadcast their digest of a checkpoint.
VOTE_SECONDS: Final = 10.0


class _Broadcast(Struct, array_like=True, frozen=True):
    """The beginning of all broadcasts: the server that sent it, and its run."""

    server: str
    run: str


class Heartbeat(_Broadcast, frozen=True, tag=1):
    """The state of a server. ``checkpoints`` are its last ones: digests by the number of the record."""

    version: int
    # In milliseconds since 1970 UTC, by the clock of the server.
    time_ms: int
    checkpoints: dict[int, bytes]


class Changes(_Broadcast, frozen=True, tag=2):
    """The changes from the version before to this one."""

    version: int
    rosters: list[RosterChange]


class State(_Broadcast, frozen=True, tag=3):
    """A part of all users of this version. Several rosters may be about one room."""

    version: int
    part: int
    parts: int
    rosters: list[RosterChange]


class Request(_Broadcast, frozen=True, tag=4):
    """A request for the state of this peer."""

    peer: str


class Failures(_Broadcast, frozen=True, tag=5):
    """Wrong passwords."""

    failures: list[Failure]


_Any: TypeAlias = Heartbeat | Changes | State | Request | Failures

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[_Any] = msgspec.msgpack.Decoder(_Any)


class _Peer:
    """The present run of another server. For the thread."""

    def __init__(self, run: str, now: float) -> None:
        self.run = run
        self.heard_at = now
        # The version that presence has; None: nothing yet.
        self.version: int | None = None
        # The parts of a state that have arrived.
        self.parts: dict[int, list[RosterChange]] = {}
        self.parts_version = 0
        self.requested_at = float("-inf")
        self.looked_at = float("-inf")
        # The entry that ends the run.
        self.gone: Appended[GuestsGone | None] | None = None
        # Since when its clock differs; None: it does not.
        self.clock_since: float | None = None
        self.has_warned = False
        self.checkpoints: dict[int, bytes] = {}


class Peers:
    """Tells the other servers about this one, and this one about them. See the module's theory of operation."""

    def __init__(
        self,
        *,
        server: str,
        log: Log,
        journal: Journal,
        presence: Presence,
        throttle: LoginThrottle,
        find_run: Callable[[], str],
        read_runs: Callable[[], Mapping[str, str]],
        checkpoints: Callable[[], Mapping[int, bytes]],
        on_lost: Callable[[], None],
        on_crash: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        """``find_run`` returns the run of this server, empty before it begins.

        ``read_runs`` reads the present run of each server in the store; ``checkpoints`` returns the digests that this
        server knows, by the number of the record. ``on_lost`` is called if this server's data are wrong.
        """
        self._server = server
        self._shared_log = log
        self._journal = journal
        self._presence = presence
        self._throttle = throttle
        self._find_run = find_run
        self._read_runs = read_runs
        self._checkpoints = checkpoints
        self._on_lost = on_lost
        self._clock = clock
        self._now_ms = now_ms
        self._worker = Worker("peers", self._run, on_crash)
        # For the thread.
        self._peers: dict[str, _Peer] = {}
        self._version = 0
        self._stepped_at = clock()
        self._heartbeat_at = self._changes_at = self._state_at = float("-inf")
        self._is_requested = False
        # Since when the digest of a checkpoint differs from that of a peer.
        self._differs_since: dict[int, float] = {}
        self._has_lost = False
        # True after a broadcast that can't be read was reported.
        self._has_warned = False
        # Guards what follows; notified when the inbox gets something, and at the end.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._received: list[bytes] = []
        self._received_bytes = 0
        self._failures: list[Failure] = []
        # True if the runs must be read again.
        self._has_new_runs = True
        self._stopping = False
        throttle.on_failure(self.note_failure)

    def start(self) -> None:
        self._worker.start()

    def stop(self) -> None:
        """Join the thread, and tell the others that this server has no users any more. They must have left."""
        with self._lock:
            self._stopping = True
            self._changed.notify()
        self._worker.join()
        self._version += 1
        if run := self._find_run():
            self._broadcast(State(self._server, run, self._version, 0, 1, []))

    # --- for other threads ---

    def receive(self, data: bytes) -> None:
        """Take a broadcast from the log. Those of this server come back, too."""
        with self._lock:
            if self._received_bytes + len(data) <= INBOX_MAX_BYTES:
                self._received.append(data)
                self._received_bytes += len(data)
                self._changed.notify()

    def handle_applied(self, applied: Sequence[Applied]) -> None:
        """Note that a run has begun or ended. A subscriber of the journal."""
        for each in applied:
            if isinstance(each.entry, ServerStart | ServerGone):
                with self._lock:
                    self._has_new_runs = True
                    self._changed.notify()

    def note_failure(self, failure: Failure) -> None:
        """Tell the others of a wrong password, soon."""
        with self._lock:
            if len(self._failures) < FAILURES_MAX:
                self._failures.append(failure)

    # --- the thread, and tests in its place ---

    def _run(self) -> None:
        self._stepped_at = self._clock()
        while True:
            self.step()
            with self._lock:
                if not (self._received or self._has_new_runs or self._stopping):
                    self._changed.wait(CHANGES_SECONDS)
                if self._stopping:
                    return

    def step(self) -> None:
        """Handle the broadcasts that have arrived, send those that are due, and look up silent peers."""
        now = self._clock()
        if now - self._stepped_at > LATE_SECONDS:
            for peer in self._peers.values():
                peer.heard_at = now
        self._stepped_at = now
        with self._lock:
            received, self._received, self._received_bytes = self._received, [], 0
            has_new_runs, self._has_new_runs = self._has_new_runs, False
        if has_new_runs:
            self._follow_runs(now)
        for data in received:
            self._handle(data, now)
        run = self._find_run()
        if run:
            self._send(run, now)
        for server, peer in self._peers.items():
            if now - peer.heard_at > SILENCE_SECONDS and now - peer.looked_at >= STATE_SECONDS:
                peer.looked_at = now
                self._look_up(server, peer)
        self._compare_checkpoints(now)

    def _follow_runs(self, now: float) -> None:
        """Forget the users of runs that are over, and request those of new ones."""
        try:
            runs = {server: run for server, run in self._read_runs().items() if run and server != self._server}
        except StoreError:
            with self._lock:
                self._has_new_runs = True
            return
        for server, peer in list(self._peers.items()):
            if runs.get(server) != peer.run:
                del self._peers[server]
                self._presence.drop_peer(server)
                _log.info("peer run ended", server=server)
        for server, run in runs.items():
            if server not in self._peers:
                self._peers[server] = _Peer(run, now)
                _log.info("peer run began", server=server)
                self._request(server, now)

    def _handle(self, data: bytes, now: float) -> None:
        """Handle a broadcast."""
        broadcast = self._decode(data)
        if isinstance(broadcast, Request):
            self._is_requested = self._is_requested or broadcast.peer == self._server
        if broadcast is None or (peer := self._peers.get(broadcast.server)) is None or broadcast.run != peer.run:
            return
        peer.heard_at = now
        match broadcast:
            case Heartbeat():
                self._take_heartbeat(peer, broadcast, now)
            case Changes():
                if broadcast.version - 1 == peer.version:
                    self._presence.change_peer(broadcast.server, broadcast.rosters)
                    peer.version = broadcast.version
                elif peer.version is None or broadcast.version > peer.version:
                    self._request(broadcast.server, now)
            case State():
                self._take_part(peer, broadcast)
            case Failures():
                for failure in broadcast.failures[:FAILURES_MAX]:
                    self._throttle.charge_failure(failure, now)

    def _decode(self, data: bytes) -> _Any | None:
        """Read a broadcast; None if it can't be read, which is reported once."""
        try:
            if data[:1] == _FORMAT:
                return _decoder.decode(data[1:])
            error = "another version of the server sent it"
        except (msgspec.MsgspecError, UnicodeDecodeError) as found:
            error = str(found)
        if not self._has_warned:
            self._has_warned = True
            _log.warning("broadcast ignored", error=error)
        return None

    def _take_heartbeat(self, peer: _Peer, heartbeat: Heartbeat, now: float) -> None:
        """Request the state if a version was missed. Warn, once, if the clock of the peer differs for some time."""
        if heartbeat.version != peer.version:
            self._request(heartbeat.server, now)
        peer.checkpoints = heartbeat.checkpoints
        difference_ms = heartbeat.time_ms - self._now_ms()
        if abs(difference_ms) <= CLOCK_MS:
            peer.clock_since = None
            return
        peer.clock_since = now if peer.clock_since is None else peer.clock_since
        if now - peer.clock_since >= CLOCK_SECONDS and not peer.has_warned:
            peer.has_warned = True
            _log.warning("peer clock differs", server=heartbeat.server, seconds=round(difference_ms / 1000, 1))

    def _take_part(self, peer: _Peer, state: State) -> None:
        """Take a part of a state; after the last one, replace the users of the peer."""
        if peer.version is not None and state.version <= peer.version:
            return
        if state.version != peer.parts_version:
            peer.parts, peer.parts_version = {}, state.version
        peer.parts[state.part] = state.rosters
        if len(peer.parts) == state.parts:
            self._presence.replace_peer(state.server, [roster for part in peer.parts.values() for roster in part])
            peer.version, peer.parts = state.version, {}

    def _request(self, server: str, now: float) -> None:
        """Request the state of a peer, not too often."""
        peer, run = self._peers[server], self._find_run()
        if run and now - peer.requested_at >= STATE_SECONDS:
            peer.requested_at = now
            self._broadcast(Request(self._server, run, server))

    def _send(self, run: str, now: float) -> None:
        """Broadcast changes, a requested state, and the heartbeat, each in its interval."""
        if now - self._changes_at >= CHANGES_SECONDS:
            self._changes_at = now
            for rosters in _parts(self._presence.take_changes()):
                self._version += 1
                self._broadcast(Changes(self._server, run, self._version, rosters))
            with self._lock:
                failures, self._failures = self._failures, []
            if failures:
                self._broadcast(Failures(self._server, run, failures))
        if self._is_requested and now - self._state_at >= STATE_SECONDS:
            self._is_requested, self._state_at = False, now
            parts = list(_parts(self._presence.own_rosters())) or [[]]
            for number, rosters in enumerate(parts):
                self._broadcast(State(self._server, run, self._version, number, len(parts), rosters))
        if now - self._heartbeat_at >= HEARTBEAT_SECONDS:
            self._heartbeat_at = now
            checkpoints = dict(self._checkpoints())
            self._broadcast(Heartbeat(self._server, run, self._version, self._now_ms(), checkpoints))

    def _broadcast(self, broadcast: _Any) -> None:
        self._shared_log.broadcast(_FORMAT + _encoder.encode(broadcast))

    def _look_up(self, server: str, peer: _Peer) -> None:
        """End the run of a silent peer if its lease is over, or belongs to another run."""
        if peer.gone is not None and not peer.gone.is_complete:
            return
        try:
            if self._shared_log.find_lease(server) == peer.run:
                return
            _log.warning("peer lost", server=server)
            peer.gone = self._journal.append([ServerGone(server, peer.run)])
        except (OSError, JournalClosedError):  # the next look finds out
            return

    def _compare_checkpoints(self, now: float) -> None:
        """Stop this server if its data differ from those of the others."""
        for number, own in self._checkpoints().items():
            votes = {server: peer.checkpoints.get(number) for server, peer in self._peers.items()}
            others = [server for server, digest in votes.items() if digest not in (own, None)]
            if not others:
                self._differs_since.pop(number, None)
                continue
            since = self._differs_since.setdefault(number, now)
            if None in votes.values() and now - since < VOTE_SECONDS:
                continue
            known = Counter(digest for digest in (*votes.values(), own) if digest is not None)
            if 2 * known[own] > known.total():
                continue
            if not self._has_lost:
                self._has_lost = True
                reason = (
                    f"This server's data differ from those of {', '.join(sorted(others))} at record {number} of the "
                    "shared log; start it with an empty data folder."
                )
                _log.error("shared log lost", error=reason)
                self._on_lost()


def _parts(rosters: Sequence[RosterChange]) -> Iterator[list[RosterChange]]:
    """Divide rosters into parts of at most PART_MAX_BYTES."""
    part: list[RosterChange] = []
    size = 0
    for room_id, room, *both in rosters:
        for is_left, names in enumerate(both):
            taken: list[str] = []
            size += _ROOM_BYTES
            for name in names:
                needed = _NAME_BYTES + len(name)
                if size + needed > PART_MAX_BYTES:
                    part.append(_change(room_id, room, taken, is_left))
                    yield part
                    part, taken, size = [], [], _ROOM_BYTES
                taken.append(name)
                size += needed
            if taken:
                part.append(_change(room_id, room, taken, is_left))
    if part:
        yield part


def _change(room_id: int, room: str | None, names: list[str], is_left: int) -> RosterChange:
    return RosterChange(room_id, room, (), names) if is_left else RosterChange(room_id, room, names)
