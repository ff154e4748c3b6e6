"""Users of json that send without a pause, also over lost connections: in the lobby, or also in rooms.

A user of rooms knows a conversation (a room, the lobby, or the direct messages) by *windows*: from the id that the
server told when it joined, to the last id that it saw before it left. A window must have each message of the room, once
and in order. A kick is between two messages of the kicker: no window of the kicked member goes on to the second one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reliability.history import Content, content_of, read_database

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from reliability.crowd import Answer, Crowd, Member
    from reliability.program import Program

# Unconfirmed messages of a sender: a kill hits several in each state.
WINDOW = 4


@dataclass
class Said:
    content: Content
    nonce: str | None
    is_repeated: bool = False
    # 0 without a confirmation.
    message_id: int = 0


@dataclass
class Record:
    """Answers of the server in all runs. Written by the crowd's thread."""

    registered: set[str] = field(default_factory=set)
    # Rooms, and members that another member has tried to remove.
    kicked: set[tuple[str, str]] = field(default_factory=set)
    # By id: messages whose sender got a confirmation, and messages that others saw.
    confirmed: dict[int, Content] = field(default_factory=dict)
    delivered: dict[int, Content] = field(default_factory=dict)
    answers: int = 0
    # The newest message at the start of this run.
    newest_before: int = 0

    def confirm(self, message_id: int, said: Said) -> None:
        assert self.confirmed.setdefault(message_id, said.content) == said.content, f"{message_id} was used twice"
        assert said.is_repeated or message_id > self.newest_before, f"{message_id} is older than this run"

    def deliver(self, message_id: int, content: Content) -> None:
        assert self.delivered.setdefault(message_id, content) == content, f"two messages were seen as {message_id}"


class Sender:
    """A user that sends without a pause, and after each kill repeats unconfirmed messages that have a nonce."""

    def __init__(self, name: str, record: Record, chance: random.Random) -> None:
        self.name = name
        self.unconfirmed: deque[Said] = deque()
        self.is_silent = False
        self._record = record
        self._chance = chance
        self._said = 0
        self._last_seen_id = 0
        self._member: Member | None = None

    @property
    def is_cut(self) -> bool:
        """True if it has to log in (again)."""
        return self._member is None or self._member.is_over

    def log_in(self, crowd: Crowd, port: int) -> None:
        self._member = crowd.connect(port, self.name)
        self._member.react = self._react
        self._member.ask(command="login", username=self.name, password="secret", since=self._since())

    def _since(self) -> Any:
        return self._last_seen_id

    def _react(self, member: Member, answer: Answer) -> None:
        self._record.answers += 1
        match answer["type"]:
            case "login":
                assert answer["account"] == "existing" or self.name not in self._record.registered, "an account is lost"
                self._record.registered.add(self.name)
                self._note_login(answer)
                self.unconfirmed = deque(said for said in self.unconfirmed if said.nonce is not None)
                for said in self.unconfirmed:
                    said.is_repeated = True
                    self._send(member, said)
            case "sent":
                said = self.unconfirmed.popleft()
                assert answer.get("nonce") == said.nonce, "confirmations have the order of the messages"
                said.message_id = answer["id"]
                self._record.confirm(answer["id"], said)
                self._note_sent(answer["id"], said)
            case "broadcast" | "direct":
                self._note_heard(answer["id"], content_of(answer))
                self._record.deliver(answer["id"], content_of(answer))
            case _:
                self._note_other(answer)
        if not self.is_silent:
            while len(self.unconfirmed) < WINDOW:
                self._say_next(member)

    def _note_login(self, answer: Answer) -> None:
        pass

    def _note_sent(self, message_id: int, said: Said) -> None:  # noqa: ARG002 - for rooms
        self._last_seen_id = max(self._last_seen_id, message_id)

    def _note_heard(self, message_id: int, content: Content) -> None:  # noqa: ARG002 - for rooms
        assert message_id > self._last_seen_id, "messages come once and in order, also after a kill"
        self._last_seen_id = message_id

    def _note_other(self, answer: Answer) -> None:
        assert answer["type"] == "users", answer

    def _say_next(self, member: Member) -> None:
        recipient = self._chance.choice(sorted(self._record.registered)) if self._chance.random() < 0.2 else None
        self._say(member, recipient, None, has_nonce=self._chance.random() < 0.5)

    def _say(self, member: Member, recipient: str | None, room: str | None, *, has_nonce: bool) -> Said:
        self._said += 1
        nonce = f"n{self._said}" if has_nonce else None
        said = Said(Content(self.name, recipient, f"{self.name} says {self._said}", room), nonce)
        self.unconfirmed.append(said)
        self._send(member, said)
        return said

    def _send(self, member: Member, said: Said) -> None:
        to: dict[str, str] = {"command": "PM"}
        if said.content.recipient is not None:
            to = {"command": "DM", "to": said.content.recipient}
        elif said.content.room is not None:
            to["room"] = said.content.room
        nonce = {} if said.nonce is None else {"nonce": said.nonce}
        member.ask(**to, message=said.content.text, **nonce)


@dataclass
class Window:
    """A part of a conversation that a user saw: each message after ``after_id``, to the last one of ``ids``."""

    place: str
    after_id: int
    ids: list[int] = field(default_factory=list)
    # True if an event told that the user was removed. Otherwise a login showed it.
    is_kicked: bool = False
    # The ids that the last login was to send, from above the first to the second. A membership that ends meanwhile
    # ends the reading of them, so they may be missing before a removal or an own part. The event that tells it may be
    # lost with the connection, after newer messages; then the next login shows it.
    missed: tuple[int, int] = (0, 0)

    @property
    def last_id(self) -> int:
        return self.ids[-1] if self.ids else self.after_id


@dataclass
class Kick:
    """Between two messages of the kicker. ``is_done`` is set by the answer; it may also have happened without one."""

    room: str
    username: str
    before: Said
    after: Said
    is_done: bool = False

    def is_between(self, window: Window) -> bool:
        """True if the kicked user has seen the message before it, but not the one after it."""
        is_before = self.before.message_id <= max(window.last_id, window.missed[1])
        return is_before and (not self.is_done or window.last_id < self.after.message_id)


LOBBY, DIRECT = "lobby", "direct"


class RoomUser(Sender):
    """A user of rooms, which joins and parts, and kicks members of its own rooms, at random."""

    CHANGE_SHARE = 0.04

    def __init__(
        self, name: str, record: Record, chance: random.Random, rooms: Sequence[str], owned: dict[str, list[str]]
    ) -> None:
        """It is a member of ``rooms``. ``owned`` has the other members of its own ones. Nothing was said before."""
        super().__init__(name, record, chance)
        # By place: a room, the lobby, or the direct messages.
        self.open = {place: Window(place, 0) for place in (LOBBY, DIRECT, *rooms)}
        self.closed: list[Window] = []
        self.kicks: list[Kick] = []
        self.refused = 0
        # Rooms that it may have joined without learning it, because its connection was lost before the answer.
        self.uncertain: set[str] = set()
        self._rooms = rooms
        self._owned = owned
        # Unanswered requests on this connection, and rooms that it may have left because of earlier ones.
        self._joining: set[str] = set()
        self._parting: set[str] = set()
        self._kicking: deque[Kick] = deque()
        self._once_parting: set[str] = set()
        # Rooms of the last ``since`` that the user had been removed from.
        self._lost_rooms: set[str] = set()

    def _since(self) -> dict[str, int]:
        # A kick whose answer is lost may happen later. It is not tried again, so that no other one is taken for it.
        for kick in self._kicking:
            if kick.username in self._owned[kick.room]:
                self._owned[kick.room].remove(kick.username)
        self._kicking.clear()
        self.uncertain |= self._joining
        self._once_parting |= self._parting
        self._joining.clear()
        self._parting.clear()
        return {place: window.last_id for place, window in self.open.items()}

    def _note_login(self, answer: Answer) -> None:
        told = {each["room"]: each["last_id"] for each in answer["rooms"]}
        self._lost_rooms = self.open.keys() - told.keys() - {LOBBY, DIRECT}
        for room in self._lost_rooms:
            assert room in self._once_parting or (room, self.name) in self._record.kicked, (
                f"a membership of {room} is lost"
            )
            self._close(room)
        for window in self.open.values():
            window.missed = (window.last_id, answer["last_id"])
        for room in told.keys() - self.open.keys():
            assert room in self.uncertain, f"{room} was not joined"
            self.open[room] = Window(room, told[room])

    def has_seen(self, newest: dict[str | None, int]) -> bool:
        """True if it has the newest message of the lobby (None) and of each room that it is in."""
        return all(self.open[place].last_id >= newest.get(None if place == LOBBY else place, 0) for place in self.open)

    def _close(self, room: str) -> None:
        self.closed.append(self.open.pop(room))

    def _note_sent(self, message_id: int, said: Said) -> None:
        window = self.open.get(self._place(said.content))
        assert window or said.is_repeated, f"{message_id} was stored for a user who was not a member"
        if window and message_id > window.last_id:
            window.ids.append(message_id)

    def _note_heard(self, message_id: int, content: Content) -> None:
        place = self._place(content)
        assert place in self.open, f"message {message_id} of {place} reached a user who is not a member"
        window = self.open[place]
        if place == DIRECT and content.recipient == content.sender and window.last_id == message_id:
            return  # a direct message to oneself comes after its confirmation
        assert message_id > window.last_id, f"messages of {place} come once and in order"
        window.ids.append(message_id)

    @staticmethod
    def _place(content: Content) -> str:
        return DIRECT if content.recipient is not None else content.room or LOBBY

    def _note_other(self, answer: Answer) -> None:
        room = answer.get("room")
        match answer["type"]:
            case "joined":
                self._joining.discard(room)
                if room not in self.open:
                    self.open[room] = Window(room, answer["last_id"])
            case "parted":
                if "by" not in answer:  # otherwise the own request is still to be answered
                    self._parting.discard(room)
                if room in self.open:
                    self.open[room].is_kicked = "by" in answer
                    self._close(room)
            case "error":
                self._note_refusal(answer, room)
            case "invited":
                assert answer["username"] == self.name or room in self._owned, "an invitation reached another user"
            case "users" | "kicked" | "role" as other:
                assert room is None or room in self.open, f"{other} of {room} reached a user who is not a member"
                kick = self._kicking[0] if self._kicking else None
                if other == "kicked" and kick and (kick.room, kick.username) == (room, answer["username"]):
                    self._kicking.popleft().is_done = True
            case other:
                raise AssertionError(answer)

    def _note_refusal(self, answer: Answer, room: str) -> None:
        assert answer["code"] in ("unknown_room", "not_a_member"), answer
        if "nonce" in answer:
            said = self.unconfirmed.popleft()
            assert (answer["nonce"], room) == (said.nonce, said.content.room), "refusals have the order of the messages"
            assert room not in self.open, f"a message of a member of {room} was refused"
            self.refused += 1
        elif room in self._lost_rooms:
            assert answer["code"] == "unknown_room"
            self._lost_rooms.remove(room)
        elif room in self._owned:
            self._kicking.popleft()
        else:
            # An unanswered request of a lost connection may have come before this one.
            assert room in self._joining | self._parting | self._once_parting, answer
            (self._parting if room in self._parting else self._joining).discard(room)

    def _say_next(self, member: Member) -> None:
        if self._chance.random() < self.CHANGE_SHARE:
            self._change(member)
        elif self._chance.random() < 0.2:
            super()._say_next(member)
        else:
            rooms = sorted(self.open.keys() - {LOBBY, DIRECT})
            if rooms:
                self._say(member, None, self._chance.choice(rooms), has_nonce=True)
            else:
                super()._say_next(member)

    def _change(self, member: Member) -> None:
        """Join a room again, leave one, or remove a member of an own one: between two messages to it."""
        room = self._chance.choice([*self._owned] if self._owned and self._chance.random() < 0.5 else self._rooms)
        if room not in self.open:
            if room not in self._joining:
                self._joining.add(room)
                member.ask(command="join", room=room)
            return
        if room in self._parting or (room in self._owned and not self._owned[room]):
            return
        before = self._say(member, None, room, has_nonce=True)
        if room in self._owned:
            username = self._chance.choice(self._owned[room])
            self._record.kicked.add((room, username))
            member.ask(command="kick", room=room, username=username)
            kick = Kick(room, username, before, self._say(member, None, room, has_nonce=True))
            self.kicks.append(kick)
            self._kicking.append(kick)
            member.ask(command="invite", room=room, username=username)
        else:
            self._parting.add(room)
            member.ask(command="part", room=room)
            self._say(member, None, room, has_nonce=True)


def check_stored(program: Program, record: Record, after_id: int) -> int:
    """Compares the stored messages after this id with the record. Returns the newest id."""
    stored = read_database(program.data, after_id)
    for told in (record.confirmed, record.delivered):
        assert {message_id: content for message_id, content in told.items() if message_id > after_id}.items() <= (
            stored.items()
        )
    assert max(Counter(content.text for content in stored.values()).values(), default=1) == 1, "stored twice"
    return max(stored, default=after_id)


def check_windows(users: Sequence[RoomUser], stored: dict[int, Content]) -> None:
    """Each user saw all messages of its windows, once and in order, and none of a room after it was removed."""
    ids: dict[str, list[int]] = {}
    for message_id, content in stored.items():
        if content.recipient is None:
            ids.setdefault(content.room or LOBBY, []).append(message_id)
        else:
            for name in {content.sender, content.recipient}:
                ids.setdefault(f"{DIRECT} {name}", []).append(message_id)
    kicks: dict[tuple[str, str], list[Kick]] = {}
    for kick in (kick for user in users for kick in user.kicks):
        kicks.setdefault((kick.room, kick.username), []).append(kick)
    for user in users:
        for window in (*user.closed, *user.open.values()):
            of_place = ids.get(f"{DIRECT} {user.name}" if window.place == DIRECT else window.place, [])
            first, end = bisect_right(of_place, window.after_id), bisect_right(of_place, window.last_id)
            missing = set(of_place[first:end]).difference(window.ids)
            assert window.ids == [each for each in of_place[first:end] if each not in missing]
            is_open = window is user.open.get(window.place)
            after_id, upto_id = (0, 0) if is_open else window.missed
            assert all(after_id < each <= upto_id for each in missing), f"{user.name} misses {missing} in {window}"
            assert not is_open or end == len(of_place), f"{user.name} misses the end of {window.place}"
            of_user = kicks.get((window.place, user.name), [])
            for kick in of_user:
                if kick.is_done and window.after_id < kick.before.message_id:
                    assert window.last_id < kick.after.message_id, f"{user.name} read on in {window.place} after {kick}"
            assert not window.is_kicked or any(kick.is_between(window) for kick in of_user), (
                f"{user.name} misses a message in {window} before one of {of_user}"
            )
