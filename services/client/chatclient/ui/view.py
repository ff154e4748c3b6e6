"""Events and notices as lines ``[kind ...] text``. Pure. The client's README describes the format."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from chatclient import notices
from chatclient.ui.text import action_of, escape_control_characters
from chatprotocol import events
from chatprotocol.limits import HISTORY_MAX_MESSAGES
from chatprotocol.requests import Whisper
from chatprotocol.rules import EVERYONE
from chatprotocol.wire.base import DeliveryUnknown, Outcome, PossibleGap

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chatclient.notices import UiNotice
    from chatprotocol.events import Message
    from chatprotocol.wire.base import ClientEvent

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def lines(shown: ClientEvent | UiNotice) -> list[str]:
    """The lines for an event or notice. Control characters are escaped."""
    match shown:
        case PossibleGap() | DeliveryUnknown():
            return [uncertainty_line(shown)]
        case Outcome():
            return [outcome_line(shown)]
        case notices.Ask(question):
            return [f"[ask] {escape_control_characters(question.text)}"]
        case notices.ErrorNotice(code, text):
            return [f"[error {code}] {escape_control_characters(text)}"]
        case notices.Help():
            return [f"[help] {line}" for line in shown.lines]
        case notices.ConnectionLost(reason):
            return [f"[lost] {escape_control_characters(reason)}; connecting again"]
        case notices.Reconnected():
            return [f"[back] {escape_control_characters(shown.username)}"]
        case notices.ScriptLine(text):
            return [f"> {escape_control_characters(text)}"]
        case notices.MessageQueued() | notices.Toggle():
            return []
        case _:
            return event_lines(shown)


def uncertainty_line(uncertain: PossibleGap | DeliveryUnknown) -> str:
    """The line that reports uncertainty after a lost connection."""
    match uncertain:
        case PossibleGap(has_history=True):
            return f"[error lost] more may have been missed than this; CH {HISTORY_MAX_MESSAGES} shows more"
        case PossibleGap():
            return "[error lost] messages may have been missed"
        case DeliveryUnknown(message, has_history=True):
            text = escape_control_characters(message.text)
            return f"[error lost] it is not known whether this was stored, look at CH: {text}"
        case DeliveryUnknown(message):
            return f"[error lost] it is not known whether this was delivered: {escape_control_characters(message.text)}"


def outcome_line(outcome: Outcome) -> str:
    """The line that reports whether a message was delivered. ``@ALL`` means all users."""
    message = outcome.said
    to = f"@{escape_control_characters(message.to)}" if isinstance(message, Whisper) else f"@{EVERYONE}"
    if outcome.has_come:
        return f"[delivered] {to}"
    why = "no such user, or not acknowledged" if isinstance(message, Whisper) else "not acknowledged by all users"
    return f"[error not_delivered] {to}: {why} in time"


def event_lines(event: ClientEvent) -> list[str]:
    """The lines for an event. Control characters are escaped."""
    match event:
        case events.PublicMessage() | events.DirectMessage():
            return [message_line(event)]
        case events.Forwarded():
            return [f"[message] {_sender_and_text(event.sender, event.text)}"]
        case events.Welcome() | events.Online() | events.Users():
            return _people_lines(event)
        case events.Sent():
            return [f"[{event.status} #{event.id}] {sent_remark(event)}".rstrip()]
        case events.History() | events.Found():
            return _block_lines(event)
        case events.Refused():
            return [f"[error {event.code}] {escape_control_characters(event.reason)}"]
        case events.PasswordChanged():
            return ["[password changed]"]
        case events.Bye():
            return [f"[bye] {escape_control_characters(event.reason)}".rstrip()]
        case _:
            return []


def _people_lines(event: events.Welcome | events.Online | events.Users) -> list[str]:
    match event:
        case events.Welcome():
            online = f"; online: {_names(event.users)}" if event.users else ""
            return [f"[welcome {event.account}] {escape_control_characters(event.username)}{online}"]
        case events.Online():
            return [f"[users {len(event.users)}] {_names(event.users)}".rstrip()]
        case _:
            return _arrivals(event)


def _block_lines(answer: events.History | events.Found) -> list[str]:
    """Old messages, after a header line."""
    head = f"[history {len(answer.messages)}]"
    if isinstance(answer, events.Found):
        head = f"[found {len(answer.messages)}] up to #{answer.upto}: {escape_control_characters(answer.words)}"
    return [head, *(message_line(message, "history") for message in answer.messages)]


def sent_remark(event: events.Sent) -> str:
    """Remark about a confirmation, or ""."""
    if event.status is events.SentStatus.STORED:
        return "not online; it is delivered at the next login"
    return "a guest can't see that this is a direct message" if event.looks_public else ""


def message_line(message: Message, kind: str | None = None) -> str:
    """``[public #18 2026-01-31T12:00:00Z] bob: hello``; a direct message also has its recipient."""
    time = _time(message.time_ms)
    if isinstance(message, events.DirectMessage):
        # Some protocols omit the recipient of the user's own messages.
        to = escape_control_characters(message.recipient) or "?"
        return (
            f"[{kind or 'direct'} #{message.id} {time}] {_sender_and_text(message.sender, message.text, f' -> {to}')}"
        )
    return f"[{kind or 'public'} #{message.id} {time}] {_sender_and_text(message.sender, message.text)}"


def _sender_and_text(sender: str, text: str, to: str = "") -> str:
    """``bob: hello``, ``bob -> alice: hello``; for ``/me waves``: ``* bob waves``, ``* bob -> alice waves``."""
    if (action := action_of(text)) is not None:
        return f"* {escape_control_characters(sender)}{to} {escape_control_characters(action)}"
    return f"{escape_control_characters(sender)}{to}: {escape_control_characters(text)}"


def _time(time_ms: int) -> str:
    """The time in seconds. A time outside of the calendar is shown as the number that the server sent."""
    try:
        return f"{_EPOCH + timedelta(seconds=time_ms // 1000):%Y-%m-%dT%H:%M:%SZ}"
    except OverflowError:
        return f"{time_ms}ms"


def _arrivals(event: events.Users) -> list[str]:
    joined = [f"[joined] {escape_control_characters(name)}" for name in event.joined]
    return joined + [f"[left] {escape_control_characters(name)}" for name in event.left]


def _names(names: Iterable[str]) -> str:
    return " ".join(sorted(map(escape_control_characters, names), key=str.lower))
