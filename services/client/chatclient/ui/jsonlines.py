"""Events and notices as JSON objects, one per line, for programs. Pure.

Server events have the format of the protocol json (docs/wire/json.md). The client's README describes the others.
"""

from typing import Any, Final

import msgspec
from msgspec.structs import replace

from chatclient import notices
from chatclient.notices import UiNotice
from chatclient.ui.text import escape_control_characters
from chatprotocol import events
from chatprotocol.requests import Say, Whisper
from chatprotocol.rules import EVERYONE, LOBBY
from chatprotocol.wire.base import ClientEvent, DeliveryUnknown, Forwarded, Online, Outcome, PossibleGap
from chatprotocol.wire.json import Json

_PROTOCOL: Final = Json()
# Code points above this need a surrogate pair.
_PLANE_MAX: Final = 0xFFFF
# The last millisecond of the year 9999.
_LAST_MS: Final = 253_402_300_799_999


def lines(shown: ClientEvent | UiNotice) -> list[str]:
    """The JSON lines for an event or notice. Characters that could affect a terminal are escaped."""
    if (members := _members(shown)) is not None:
        text = msgspec.json.encode(members).decode()
    else:
        text = _PROTOCOL.encode_all([_as_sent(shown)]).decode().removesuffix("\n")
    return ["".join(map(_escape, text)) if not text.isascii() or "\x7f" in text else text] if text else []


def _as_sent(shown: Any) -> Any:
    """The event of the protocol json. Times are limited to the range of the calendar: a server may send any number."""
    match shown:
        case Online(users, room):
            return events.Users(users=users, room=room)
        case events.PublicMessage() | events.DirectMessage() | events.AuditRow():
            return replace(shown, time_ms=_in_calendar(shown.time_ms))
        case events.SanctionState():
            return replace(shown, time_ms=_in_calendar(shown.time_ms), until=_in_calendar(shown.until))
        case events.Banned() | events.Muted() | events.Unbanned() | events.Unmuted():
            return replace(shown, until=_in_calendar(shown.until))
        case events.Bans(bans):
            return replace(shown, bans=tuple(map(_as_sent, bans)))
        case events.TokenState(created=created, used=used, expires=expires):
            times = {"created": created, "used": used, "expires": expires}
            return replace(shown, **{name: _in_calendar(time_ms) for name, time_ms in times.items()})
        case events.Tokens(tokens):
            return replace(shown, tokens=tuple(map(_as_sent, tokens)))
        case events.Audit(acts):
            return replace(shown, acts=tuple(map(_as_sent, acts)))
        case events.History(messages) | events.Found(messages=messages):
            return replace(shown, messages=tuple(map(_as_sent, messages)))
        case _:
            return shown


def _in_calendar(time_ms: int | None) -> events.TimeMs | None:
    """The time, or the nearest one that the calendar has; None for None."""
    return None if time_ms is None else events.TimeMs(min(max(time_ms, 0), _LAST_MS))


def _members(shown: ClientEvent | UiNotice) -> dict[str, Any] | None:  # noqa: C901 - one case for each event
    """The members of an object that the protocol json lacks; None if the protocol has it."""
    match shown:
        case DeliveryUnknown(message):
            return {"type": "unsettled", "to": _recipient(message), "message": message.text}
        case Outcome(message, has_come):
            return {"type": "outcome", "to": _recipient(message), "message": message.text, "delivered": has_come}
        case PossibleGap():
            return {"type": "gap"}
        case Forwarded(sender, text):
            return {"type": "message", "from": sender, "message": text}
        case notices.Ask(question):
            return {"type": "ask", "question": question.text}
        case notices.ErrorNotice(code, text):
            return {"type": "error", "code": code, "message": text}
        case notices.Help():
            return {"type": "help", "lines": shown.lines}
        case notices.ConnectionLost(reason):
            return {"type": "lost", "reason": reason}
        case notices.Reconnected(username, server=server, gone=gone):
            moved = {"server": server, "gone": gone} if server else {}
            return {"type": "back", "username": username, **moved}
        case notices.ScriptLine(text):
            return {"type": "typed", "line": text}
        case notices.CurrentRoom(room, topic):
            return {"type": "room", "room": room or LOBBY, "topic": topic}
        case _:
            return None


def _recipient(message: Say | Whisper) -> str:
    return message.to if isinstance(message, Whisper) else EVERYONE


def _escape(letter: str) -> str:
    """Escape a character. Non-ASCII characters occur only in JSON strings, so the meaning is unchanged."""
    if letter != "\x7f" and escape_control_characters(letter) == letter:
        return letter
    code = ord(letter)
    if code <= _PLANE_MAX:
        return f"\\u{code:04x}"
    high, low = divmod(code - _PLANE_MAX - 1, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
