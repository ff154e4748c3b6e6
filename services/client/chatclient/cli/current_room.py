"""The current room of a user who types: where messages go, and what is unread elsewhere. Pure.

The lobby is the empty name, and number 1. The other rooms have the numbers 2, 3, 4... in the order of Model.rooms.
"""

from chatclient.model import Model, Unread
from chatprotocol.events import Joined, Parted, PublicMessage
from chatprotocol.requests import Join, Part
from chatprotocol.rules import LOBBY, is_lobby, room_key


class CurrentRoomTracker:
    """For one thread.

    A requested join makes its room the target: lines that follow it are meant for the room. It becomes the current room
    when the server confirms it. After an error the current room stays the one that the prompt shows. With
    ``stays_after_error`` the room of the failed join stays the target, so that the server rejects the messages of a
    script or pipe that were meant for this room.
    """

    def __init__(self, model: Model, *, stays_after_error: bool) -> None:
        self._model = model
        self._stays_after_error = stays_after_error
        self.current = ""
        # The requested rooms that were not entered or refused yet.
        self._joining: str | None = None
        self._parting: str | None = None
        # Unread messages by room key; and keys of the rooms that were the current one.
        self._unread: dict[str, int] = {}
        self._visited: set[str] = set()

    @property
    def target(self) -> str:
        """The room that the next line is meant for."""
        return self.current if self._joining is None else self._joining

    def enter(self, room: str) -> bool:
        """Make it the current room. True at the first time."""
        self.current, self._joining = room, None
        key = room_key(room)
        self._unread.pop(key, None)
        is_first = key not in self._visited
        self._visited.add(key)
        return is_first

    def note_request(self, request: Join | Part) -> None:
        """The user asks to join or leave."""
        if isinstance(request, Join):
            self._joining = request.room
        else:
            self._parting = request.room

    def room_after(self, event: Joined | Parted) -> str | None:
        """The room that becomes the current one because the user asked for this event."""
        key = room_key(event.room)
        if isinstance(event, Joined):
            return event.room if self._joining is not None and room_key(self._joining) == key else None
        self._unread.pop(key, None)
        self._visited.discard(key)
        was_requested = self._parting is not None and room_key(self._parting) == key and event.by is None
        if was_requested:
            self._parting = None
        return "" if was_requested and room_key(self.current) == key else None

    def was_refused(self, room: str) -> bool:
        """True if this is the room that the user asked to join. The request is over then."""
        if self._joining is None or room_key(self._joining) != room_key(room):
            return False
        if self._stays_after_error:
            self.current = self._joining
        self._joining = None
        return True

    def by_number(self, number: int) -> str | None:
        """The room with this number."""
        rooms = ["", *(room.name for room in self._model.rooms.values())]
        return rooms[number - 1] if number <= len(rooms) else None

    @property
    def current_number(self) -> int | None:
        """The number of the current room; None if the user is not in it."""
        keys = ["", *self._model.rooms]
        key = room_key(self.current)
        return keys.index(key) + 1 if key in keys else None

    def count(self, message: PublicMessage) -> None:
        """Count a message of another room than the current one."""
        key = "" if is_lobby(message.room) else room_key(message.room or "")
        if key != room_key(self.current) and (not key or key in self._model.rooms) and not self._model.is_own(message):
            self._unread[key] = self._unread.get(key, 0) + 1

    def unread(self) -> tuple[Unread, ...]:
        """The rooms with unread messages, in the order of their numbers."""
        names = {"": LOBBY} | {key: room.name for key, room in self._model.rooms.items()}
        return tuple(
            Unread(number, name, self._unread[key])
            for number, (key, name) in enumerate(names.items(), 1)
            if key in self._unread
        )
