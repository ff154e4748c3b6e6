"""What is shown: each thing that happens as one line, ``[kind ...] text``. Pure. Its form: the client's README."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from chatclient.exchange import Gap
from chatprotocol import events
from chatprotocol.limits import HISTORY_MAX_MESSAGES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chatclient.exchange import Unsettled
    from chatprotocol.events import Event, Message

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Format characters that text needs and that do nothing to a terminal: joiners of Persian, Hindi and emoji.
_HARMLESS_FORMATS = frozenset("\u200c\u200d")


def harmless(text: str) -> str:
    """The text with everything that could move a cursor, reorder or hide other text written out as an escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter if _is_harmless(letter) else _escape(letter) for letter in text)


def _is_harmless(letter: str) -> bool:
    return letter.isprintable() or letter in _HARMLESS_FORMATS or unicodedata.category(letter) == "Zs"


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def doubt_line(doubt: Gap | Unsettled) -> str:
    """The line that says what is not known after a lost connection."""
    if isinstance(doubt, Gap):
        return f"[error lost] more may have been missed than this; CH {HISTORY_MAX_MESSAGES} shows more"
    return f"[error lost] it is not known whether this was stored, look at CH: {harmless(doubt.said.text)}"


def event_lines(event: Event) -> list[str]:
    """The lines that show an event; those of its text are harmless."""
    match event:
        case events.PublicMessage() | events.DirectMessage():
            return [message_line(event)]
        case events.Welcome():
            online = f"; online: {_names(event.users)}" if event.users else ""
            return [f"[welcome {event.account}] {harmless(event.username)}{online}"]
        case events.Online():
            return [f"[users {len(event.users)}] {_names(event.users)}".rstrip()]
        case events.Users():
            return _arrivals(event)
        case events.Sent(status=events.SentStatus.STORED):
            return [f"[stored #{event.id}] not online; it is delivered at the next login"]
        case events.Sent():
            return [f"[sent #{event.id}]"]
        case events.History():
            lines = [f"[history {len(event.messages)}]"]
            return lines + [message_line(message, "history") for message in event.messages]
        case events.Refused():
            return [f"[error {event.code}] {harmless(event.reason)}"]
        case events.Bye():
            return [f"[bye] {harmless(event.reason)}".rstrip()]
        case _:
            return []


def message_line(message: Message, kind: str | None = None) -> str:
    """``[public #18 2026-01-31T12:00:00Z] bob: hello``; a direct one says to whom."""
    time = _time(message.time_ms)
    sender, text = harmless(message.sender), harmless(message.text)
    if isinstance(message, events.DirectMessage):
        # Some dialects don't tell the recipient of one's own messages.
        return f"[{kind or 'direct'} #{message.id} {time}] {sender} -> {harmless(message.recipient) or '?'}: {text}"
    return f"[{kind or 'public'} #{message.id} {time}] {sender}: {text}"


def _time(time_ms: int) -> str:
    """To the second; a time that no calendar has is shown as the number that the server sent."""
    try:
        return f"{_EPOCH + timedelta(seconds=time_ms // 1000):%Y-%m-%dT%H:%M:%SZ}"
    except OverflowError:
        return f"{time_ms}ms"


def _arrivals(event: events.Users) -> list[str]:
    joined = [f"[joined] {harmless(name)}" for name in event.joined]
    return joined + [f"[left] {harmless(name)}" for name in event.left]


def _names(names: Iterable[str]) -> str:
    return " ".join(sorted(map(harmless, names), key=str.lower))
