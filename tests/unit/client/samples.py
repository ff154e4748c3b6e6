"""Events and notices for the tests."""

from typing import TypeAlias

from chatclient import notices
from chatprotocol import events
from chatprotocol.errors import ErrorCode
from chatprotocol.requests import Say, Whisper
from chatprotocol.wire.base import ClientEvent, DeliveryUnknown, Forwarded, Online, Outcome, Ready

# All that a frontend shows.
Shown: TypeAlias = "ClientEvent | notices.UiNotice"
NOON_MS = events.TimeMs(1_769_860_800_123)


def public(message_id: int, text: str = "hello", sender: str = "bob", time_ms: int = NOON_MS) -> events.PublicMessage:
    return events.PublicMessage(message_id, time_ms, sender, text)


def in_room(message_id: int, text: str = "hello", sender: str = "bob", room: str = "dev") -> events.PublicMessage:
    return events.PublicMessage(message_id, NOON_MS, sender, text, room)


def direct(message_id: int, text: str = "psst", sender: str = "bob", recipient: str = "alice") -> events.DirectMessage:
    return events.DirectMessage(message_id, NOON_MS, sender, recipient, text)


def confirmation(message_id: int, nonce: str | None = None) -> events.Sent:
    return events.Sent(message_id, events.SentStatus.SENT, nonce)


HELLO = public(11)
SHOWS_HELLO = "[public #11 2026-01-31T12:00:00Z] bob: hello"
# Events that are only a step of an operation.
STEPS: list[ClientEvent] = [
    Ready(),
]


def room_events_with(text: str) -> list[Shown]:
    """Each event and notice of rooms, with this text in all of its members."""
    state = events.RoomState(text, text, 3, private=True, role=events.RoomRole.OWNER)
    welcome = events.Welcome(
        account=events.AccountKind.NEW, username=text, users=(), last_id=3, seen_id=2, rooms=(state,)
    )
    return [
        notices.CurrentRoom(text, text),
        events.Joined(text, text, (text,), 3, private=True, role=events.RoomRole.OPERATOR),
        events.Parted(text),
        events.Parted(text, text),
        events.TopicChanged(text, text, text),
        events.Modes(room=text, modes=events.RoomModes(key=text), by=text),
        events.Refused(ErrorCode.WRONG_KEY, text, None, text),
        events.Invited(text, text, text),
        events.Kicked(room=text, username=text, by=text),
        events.RoleChanged(room=text, username=text, role=events.RoomRole.OPERATOR, by=text),
        events.Rooms((events.RoomSummary(text, text, 3, joined=True, invited=True),)),
        events.PublicMessage(1, NOON_MS, text, text, text),
        events.PublicMessage(2, NOON_MS, text, f"/me {text}", text),
        events.Users(None, (text,), (text,), (text,), text),
        Online((text,), text),
        events.History((events.PublicMessage(1, NOON_MS, text, text, text),), text),
        events.History((), text),
        events.Found(text, (events.PublicMessage(1, NOON_MS, text, text, text),), 1, text),
        events.Found(text, (), 1, text),
        welcome,
    ]


def moderation_events_with(text: str) -> list[Shown]:
    """Each event of moderation, with this text in all of its members."""
    when = events.TimeMs(10**18)
    sanctions: tuple[type[events.Banned | events.Muted | events.Unbanned | events.Unmuted], ...] = (
        *(events.Banned, events.Muted),
        *(events.Unbanned, events.Unmuted),
    )
    ban = events.SanctionState(
        kind=events.SanctionKind.BAN, username=text, by=text, time_ms=when, until=when, reason=text
    )
    act = events.AuditRow(
        number=1, time_ms=when, action=text, by=text, target=text, room=text, reason=text, detail=text
    )
    return [
        *(kind(room=text, username=text, by=text, until=when, reason=text) for kind in sanctions),
        *(kind(address=text, by=text, until=NOON_MS) for kind in sanctions),
        events.Bans((ban,), text),
        events.Audit((act,)),
        events.Tokens((events.TokenState(id=text, label=text, created=when, used=when, expires=when),)),
        events.Deleted(1, text, text),
        events.Reported(id=1, room=text, by=text, reason=text),
        events.Reported(username=text, by=text, reason=text),
        events.Ignored((text,)),
        events.Kicked(username=text, by=text, reason=text),
        events.Parted(text, text, text),
        events.Bye(text, ErrorCode.KICKED),
        events.Refused(ErrorCode.RATE_LIMITED, text, "n2", retry_seconds=1e300),
    ]


def everything_with(text: str) -> list[Shown]:
    """Each event and notice that can have a text of others, with this text in all of its members."""
    return [
        events.PublicMessage(1, 0, text, text),
        events.DirectMessage(2, 0, text, text, text),
        Forwarded(text, text),
        events.Welcome(account=events.AccountKind.NEW, username=text, users=(text,), last_id=0),
        events.Users(None, (text,), (text,), (text,)),
        Online((text,)),
        events.History((events.PublicMessage(1, 0, text, text), events.DirectMessage(2, 0, text, text, text))),
        events.Found(text, (events.PublicMessage(1, 0, text, text),), 1),
        events.Found(text, (), 1),
        events.Refused(ErrorCode.INTERNAL, text, "n1"),
        events.Refused(ErrorCode.UNKNOWN_ROOM, text, None, text),
        *room_events_with(text),
        *moderation_events_with(text),
        events.Bye(text),
        DeliveryUnknown(Whisper(text, text, "n1")),
        DeliveryUnknown(Say(text), has_history=False),
        Outcome(Whisper(text, text, "n1"), has_come=False),
        Outcome(Whisper(text, text), has_come=True),
        notices.Ask(notices.Question(notices.Asked.TEXT, text)),
        notices.ErrorNotice("lost", text),
        notices.ConnectionLost(text),
        notices.Reconnected(text, 20),
        notices.Reconnected(text, 20, text, text),
        notices.ScriptLine(text),
    ]
