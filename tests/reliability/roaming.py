"""Users of json on several servers: each talks, and moves to another server at random, or when its own is gone.

A client names the newest message of each conversation that it knows in ``since``. It repeats unconfirmed messages on
each new connection if they have a nonce. The others may be stored or not, but not twice. So it must be told each
message once, in order.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections import defaultdict, deque
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from integration.room import Peer
from reliability.cluster_check import DIRECT, LOBBY, Told, View, place_of
from reliability.history import Content, content_of

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping, Sequence

    from reliability.cluster import ChatServer
    from reliability.cluster_faults import Timeline

PASSWORD = "secret"
# Time without any input, despite pings, after which a client leaves its server; and without a confirmation: some
# clients stay long enough to see how a server answers that had no quorum for a while.
SILENCE_SECONDS = 3.0
UNCONFIRMED_MIN_SECONDS = 4.0
UNCONFIRMED_MAX_SECONDS = 20.0
# A user that left is in no list of users after this time, and a user that came is in all.
LIST_SECONDS = 15.0
# An election of a leader of the log takes up to ten seconds. Until then no server can find that another one is gone.
ELECTION_SECONDS = 12.0
_PING_SECONDS = 1.0
_POLL_SECONDS = 0.05
_RETRY_SECONDS = 0.1
_UNCONFIRMED_MAX = 2
# Shares: of the clients that log out before they move, and that move after a refusal; of the messages with a nonce; and
# of those with one that are not repeated after a refusal.
_POLITE_SHARE = 0.5
_LEAVE_SHARE = 0.5
_NONCE_SHARE = 0.7
_GIVE_UP_SHARE = 0.5
# Errors that mean: it had no effect, try again, perhaps on another server.
_TRY_AGAIN = ("unavailable", "shutting_down")


class Habits(NamedTuple):
    """The behaviour of the clients."""

    # Mean pause between two messages.
    pause_seconds: float = 0.3
    # Longest time on a server.
    stay_max_seconds: float = 20.0
    # Share of the moves after which a user stays away for a while.
    absent_share: float = 0.1
    absent_max_seconds: float = 25.0
    direct_share: float = 0.2


class Mistake(NamedTuple):
    """A user who is wrongly in a list of users, or is missing."""

    username: str
    # True if the user is there, and since when.
    is_there: bool
    since: float


class Presence:
    """When each user came or left. For any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        # By user: True if it is there, on a server that is whole, and since when.
        self._state: dict[str, tuple[bool, ChatServer | None, float]] = {}

    def come(self, username: str, server: ChatServer) -> None:
        with self._lock:
            self._state[username] = (True, server, self.clock())

    def leave(self, username: str) -> None:
        with self._lock:
            self._state[username] = (False, None, self.clock())

    def find_mistakes(self, listed: Sequence[str], observed_at: float) -> set[Mistake]:
        """The mistakes in a list of a server that has had no fault since ``observed_at``."""
        now = self.clock()
        mistakes = set()
        with self._lock:
            for username, (is_there, server, since) in self._state.items():
                settled_at = max(since, observed_at)
                if server is not None:
                    healthy_since = server.healthy_since
                    if healthy_since is None:
                        continue
                    settled_at = max(settled_at, healthy_since)
                if now > settled_at + LIST_SECONDS and is_there != (username in listed):
                    mistakes.add(Mistake(username, is_there, since))
        return mistakes


class ListWatch:
    """Looks at the lists of users that a client gets. For the thread of the client.

    A mistake counts when it is found again, at the next look: a server may tell the client that a user has left before
    the thread of that user notes it in ``presence``.
    """

    def __init__(self, presence: Presence) -> None:
        self._presence = presence
        self._mistakes: set[Mistake] = set()

    def look(self, listed: Sequence[str], observed_at: float, log_broken_at: float = -math.inf) -> list[str]:
        """Compare a list of a server that has had no fault since ``observed_at``. Returns the problems.

        A server of the log had its last fault at ``log_broken_at``.
        """
        observed_at = max(observed_at, log_broken_at + ELECTION_SECONDS - LIST_SECONDS)
        before, self._mistakes = self._mistakes, self._presence.find_mistakes(listed, observed_at)
        now = self._presence.clock()
        return [
            f"{username} {'came' if is_there else 'left'} {now - since:.1f} s ago, and the list is {sorted(listed)}"
            for username, is_there, since in self._mistakes & before
        ]


@dataclass
class Record:
    """All answers and messages of all clients. For any thread."""

    timeline: Timeline
    lock: threading.Lock = field(default_factory=threading.Lock)
    presence: Presence = field(default_factory=Presence)
    confirmed: list[tuple[int, Content]] = field(default_factory=list)
    refused: list[Content] = field(default_factory=list)
    seen: dict[int, Content] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    # There is a problem.
    failed: threading.Event = field(default_factory=threading.Event)
    # Clients say nothing new, and don't move, any more.
    quiet: threading.Event = field(default_factory=threading.Event)

    def note_seen(self, message_id: int, content: Content) -> None:
        with self.lock:
            first = self.seen.setdefault(message_id, content)
        if first != content:
            self.note_problem(f"{message_id} was told as {content}, and as {first}")

    def note_problem(self, text: str) -> None:
        with self.lock:
            self.problems.append(text)
        self.timeline.note(f"PROBLEM: {text}", is_main=True)
        self.failed.set()


@dataclass
class _Said:
    content: Content
    # None: the message is not repeated.
    nonce: str | None
    said_at: float
    # On the present connection.
    sent_at: float = 0.0
    connections: int = 0


class RoamingClient:
    """A user in a thread of its own. ``rooms`` are those that it is in, besides the lobby."""

    def __init__(
        self,
        username: str,
        servers: Sequence[ChatServer],
        others: Sequence[str],
        rooms: Sequence[str],
        record: Record,
        chance: random.Random,
        habits: Habits,
    ) -> None:
        self.username = username
        self.views: dict[str, list[int]] = {place: [] for place in (LOBBY, DIRECT, *rooms)}
        self.is_connected = False
        # Tells it to end.
        self.leaving = threading.Event()
        # By text.
        self.unconfirmed: dict[str, _Said] = {}
        # When each message was said, and the time until its confirmation; and the number of connections.
        self.waits: list[tuple[float, float]] = []
        self.connections = 0
        self.listed: list[str] = []
        self._watch = ListWatch(record.presence)
        self._servers = servers
        self._others = others
        self._rooms = rooms
        self._record = record
        self._chance = chance
        self._habits = habits
        # On the present connection, in the order of the messages.
        self._unanswered: deque[_Said] = deque()
        self._history_id = ""
        self._said = 0
        self._heard_at = self._next_at = self._patience_seconds = 0.0
        self.thread = threading.Thread(target=self._run, name=username)

    @property
    def is_settled(self) -> bool:
        """True if it is connected, and all its messages are confirmed."""
        return self.is_connected and not self.unconfirmed

    def told(self) -> list[View]:
        return [View(self.username, place, ids) for place, ids in self.views.items()]

    def enter(self) -> None:
        """Register, and join the rooms, before the thread starts."""
        server = self._chance.choice(self._servers)
        with closing(Peer(server.port)) as peer:
            welcome = peer.login(self.username, PASSWORD, rooms=True)
            self._history_id = welcome["history_id"]
            for room in self._rooms:
                peer.ask(command="join", room=room)
                peer.next("joined")

    def _run(self) -> None:
        never = threading.Event()
        server = self._chance.choice(self._servers)
        try:
            while not self.leaving.is_set():
                reason = self._visit(server)
                self.is_connected = False
                self._record.timeline.note(f"{self.username} left {server.name}: {reason}")
                if reason == "moving" and self._chance.random() < self._habits.absent_share:
                    self._record.quiet.wait(self._chance.uniform(0, self._habits.absent_max_seconds))
                else:
                    never.wait(_RETRY_SECONDS * self._chance.random())
                server = self._chance.choice(self._servers)
        except Exception as error:
            self._record.note_problem(f"{self.username} on {server.name}: {error!r}")

    def _visit(self, server: ChatServer) -> str:
        """Stay on a server for a while. Returns the reason of the end."""
        try:
            with closing(Peer(server.port)) as peer:
                try:
                    peer.socket.settimeout(SILENCE_SECONDS)
                    if reason := self._log_in(peer, server):
                        return reason
                    self.is_connected = True
                    self.connections += 1
                    peer.socket.settimeout(_POLL_SECONDS)
                    return self._talk(peer, server)
                finally:
                    self._record.presence.leave(self.username)  # before the server may learn it
        except TimeoutError:
            return "no answer to the login"
        except OSError as error:
            return f"{error}"

    def _log_in(self, peer: Peer, server: ChatServer) -> str:
        """Returns the reason if it can't log in now."""
        since = {place: max(ids, default=0) for place, ids in self.views.items()}
        self._record.presence.come(self.username, server)
        peer.ask(command="login", username=self.username, password=PASSWORD, since=since, history_id=self._history_id)
        if not (line := peer.line()):
            return "closed at the login"
        answer = json.loads(line)
        if answer["type"] in ("error", "bye"):
            assert answer.get("code") in (*_TRY_AGAIN, None), answer
            return f"refused at the login: {answer}"
        assert answer["type"] == "login", answer
        assert answer["account"] == "existing", "an account is lost"
        assert answer["history_id"] == self._history_id, "another history"
        assert "since" not in answer, f"{since} was not accepted: {answer['since']}"
        assert {each["room"] for each in answer["rooms"]} == set(self._rooms), f"a membership is lost: {answer}"
        self.listed = answer["users"]
        self._watch = ListWatch(self._record.presence)
        self._unanswered.clear()
        self.unconfirmed = {text: said for text, said in self.unconfirmed.items() if said.nonce is not None}
        for said in self.unconfirmed.values():
            self._send(peer, said)
        return ""

    def _talk(self, peer: Peer, server: ChatServer) -> str:
        now = self._heard_at = time.monotonic()
        leave_at = now + self._chance.uniform(0, self._habits.stay_max_seconds)
        ping_at = now + _PING_SECONDS
        self._patience_seconds = self._chance.uniform(UNCONFIRMED_MIN_SECONDS, UNCONFIRMED_MAX_SECONDS)
        while not self.leaving.is_set():
            now = time.monotonic()
            if reason := self._find_fault(now):
                return reason
            if now >= ping_at:
                peer.ask(command="ping")
                ping_at = now + _PING_SECONDS
            if not self._record.quiet.is_set():
                if now >= leave_at:
                    if self._chance.random() < _POLITE_SHARE:
                        self._record.presence.leave(self.username)
                        peer.ask(command="EX")
                    return "moving"
                if now >= self._next_at and len(self.unconfirmed) < _UNCONFIRMED_MAX:
                    self._say(peer)
            try:
                line = peer.line()
            except TimeoutError:
                continue
            if reason := self._handle(json.loads(line), server) if line else "closed":
                return reason
        return "the end"

    def _find_fault(self, now: float) -> str:
        """Returns a reason to leave the server."""
        if now > self._heard_at + SILENCE_SECONDS:
            return "silence"
        if any(now > said.sent_at + self._patience_seconds for said in self.unconfirmed.values()):
            return "no confirmation"
        return ""

    def _say(self, peer: Peer) -> None:
        self._said += 1
        recipient = room = None
        if self._chance.random() < self._habits.direct_share:
            recipient = self._chance.choice(self._others)
        else:
            room = self._chance.choice((None, *self._rooms))
        text = f"{self.username} says {self._said}"
        nonce = f"n{self._said}" if self._chance.random() < _NONCE_SHARE else None
        now = time.monotonic()
        said = self.unconfirmed[text] = _Said(Content(self.username, recipient, text, room), nonce, now)
        self._next_at = now + self._chance.uniform(0, 2 * self._habits.pause_seconds)
        self._send(peer, said)

    def _send(self, peer: Peer, said: _Said) -> None:
        said.sent_at = time.monotonic()
        said.connections += 1
        _, recipient, text, room = said.content
        to = {"command": "PM", "room": room or LOBBY} if recipient is None else {"command": "DM", "to": recipient}
        nonce = {} if said.nonce is None else {"nonce": said.nonce}
        self._unanswered.append(said)
        peer.ask(**to, message=text, **nonce)

    def _handle(self, answer: Mapping[str, Any], server: ChatServer) -> str:
        """Returns a reason to leave the server."""
        self._heard_at = time.monotonic()
        match answer["type"]:
            case "broadcast" | "direct":
                content = content_of(dict(answer))
                self._record.note_seen(answer["id"], content)
                self.views.setdefault(place_of(content), []).append(answer["id"])
            case "sent":
                self._confirm(answer["id"], self._next_answered(answer))
            case "users" if "room" not in answer:
                self.listed = answer["users"]
            case "pong":
                self._check_list(server)
            case "error":
                assert answer["code"] in _TRY_AGAIN, answer
                self._be_refused(self._next_answered(answer))
                if self._chance.random() < _LEAVE_SHARE:
                    return f"refused: {answer}"
            case "bye":
                return f"{answer}"
            case "users":
                pass
            case _:
                raise AssertionError(f"unexpected: {answer}")
        return ""

    def _next_answered(self, answer: Mapping[str, Any]) -> _Said:
        """The message that this answers."""
        said = self._unanswered.popleft()
        assert answer.get("nonce") == said.nonce, f"{answer} does not answer {said}"
        return said

    def _confirm(self, message_id: int, said: _Said) -> None:
        del self.unconfirmed[said.content.text]
        view = self.views[place_of(said.content)]
        if message_id not in view[-1_000:]:  # it may have been heard after an earlier connection
            view.append(message_id)
        self.waits.append((said.said_at, time.monotonic() - said.said_at))
        with self._record.lock:
            self._record.confirmed.append((message_id, said.content))

    def _be_refused(self, said: _Said) -> None:
        """Give the message up, if it can't have been stored before; or try it again after a while."""
        if said.connections == 1 and (said.nonce is None or self._chance.random() < _GIVE_UP_SHARE):
            del self.unconfirmed[said.content.text]
            with self._record.lock:
                self._record.refused.append(said.content)
        # Otherwise it has no confirmation after a while, and the client goes to another server.

    def _check_list(self, server: ChatServer) -> None:
        observed_at = server.healthy_since
        if observed_at is None:
            return
        for problem in self._watch.look(self.listed, observed_at, server.log_broken_at):
            self._record.note_problem(f"{self.username} on {server.name}: {problem}")


def told_of(record: Record, clients: Sequence[RoamingClient]) -> Told:
    """All answers and messages of the clients."""
    views = [view for client in clients for view in client.told()]
    return Told(record.confirmed, record.refused, record.seen, views)


def members_of(clients: Sequence[RoamingClient], rooms: Mapping[str, Sequence[str]]) -> dict[str, frozenset[str]]:
    """The members of each room."""
    members: dict[str, set[str]] = defaultdict(set)
    for client in clients:
        for room in rooms[client.username]:
            members[room].add(client.username)
    return {room: frozenset(names) for room, names in members.items()}
