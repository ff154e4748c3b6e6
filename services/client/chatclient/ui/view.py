"""Events and notices as lines ``[kind ...] text``. Pure. The client's README describes the format."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from chatclient import notices
from chatclient.ui.text import action_of
from chatclient.ui.text import escape_control_characters as escape
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
        case events.History(messages):
            return [f"[history {len(messages)}]", *(message_line(each, "history") for each in messages)]
        case events.Found(words, messages, upto):
            head = f"[found {len(messages)}] up to #{upto}: {escape(words)}"
            return [head, *(message_line(each, "history") for each in messages)]
        case events.Users(joined=joined, left=left):
            return [*(f"[joined] {escape(name)}" for name in joined), *(f"[left] {escape(name)}" for name in left)]
        case notices.Help(help_lines):
            return [f"[help] {line}" for line in help_lines]
        case _:
            line = _line(shown)
            return [] if line is None else [line]


def _line(shown: ClientEvent | UiNotice) -> str | None:  # noqa: C901, PLR0912 - one case for each event
    match shown:
        case events.PublicMessage() | events.DirectMessage():
            return message_line(shown)
        case events.Forwarded(sender, text):
            return f"[message] {_sender_and_text(sender, text)}"
        case events.Welcome(account=account, username=username, users=users):
            online = f"; online: {_names(users)}" if users else ""
            return f"[welcome {account}] {escape(username)}{online}"
        case events.Online(users):
            return f"[users {len(users)}] {_names(users)}".rstrip()
        case events.Sent(message_id, status):
            return f"[{status} #{message_id}] {sent_remark(shown)}".rstrip()
        case events.Refused(code, reason):
            return f"[error {code}] {escape(reason)}"
        case events.PasswordChanged():
            return "[password changed]"
        case events.Bye(reason):
            return f"[bye] {escape(reason)}".rstrip()
        case PossibleGap(has_history=True):
            return f"[error lost] more may have been missed than this; CH {HISTORY_MAX_MESSAGES} shows more"
        case PossibleGap():
            return "[error lost] messages may have been missed"
        case DeliveryUnknown(message, has_history):
            how = "stored, look at CH" if has_history else "delivered"
            return f"[error lost] it is not known whether this was {how}: {escape(message.text)}"
        case Outcome(message, has_come):
            to = f"@{escape(message.to)}" if isinstance(message, Whisper) else f"@{EVERYONE}"
            if has_come:
                return f"[delivered] {to}"
            is_direct = isinstance(message, Whisper)
            why = "no such user, or not acknowledged" if is_direct else "not acknowledged by all users"
            return f"[error not_delivered] {to}: {why} in time"
        case notices.Ask(question):
            return f"[ask] {escape(question.text)}"
        case notices.ErrorNotice(code, text):
            return f"[error {code}] {escape(text)}"
        case notices.ConnectionLost(reason):
            return f"[lost] {escape(reason)}; connecting again"
        case notices.Reconnected(username):
            return f"[back] {escape(username)}"
        case notices.ScriptLine(text):
            return f"> {escape(text)}"
        case _:
            return None


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
        to = escape(message.recipient) or "?"
        return (
            f"[{kind or 'direct'} #{message.id} {time}] {_sender_and_text(message.sender, message.text, f' -> {to}')}"
        )
    return f"[{kind or 'public'} #{message.id} {time}] {_sender_and_text(message.sender, message.text)}"


def _sender_and_text(sender: str, text: str, to: str = "") -> str:
    """``bob: hello``, ``bob -> alice: hello``; for ``/me waves``: ``* bob waves``, ``* bob -> alice waves``."""
    if (action := action_of(text)) is not None:
        return f"* {escape(sender)}{to} {escape(action)}"
    return f"{escape(sender)}{to}: {escape(text)}"


def _time(time_ms: int) -> str:
    """The time in seconds. A time outside of the calendar is shown as the number that the server sent."""
    try:
        return f"{_EPOCH + timedelta(seconds=time_ms // 1000):%Y-%m-%dT%H:%M:%SZ}"
    except OverflowError:
        return f"{time_ms}ms"


def _names(names: Iterable[str]) -> str:
    return " ".join(sorted(map(escape, names), key=str.lower))
