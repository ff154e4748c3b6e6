"""Rows of styled text for the entries of the timeline, the prompt, and the status line. Pure.

    12:00              bob | hello everyone
    12:01      bob » alice | psst
    12:02                * | carol joined
    12:03         bob #dev | a message in the room dev
    12:04          17 alice | with /ids: message 17
    12:04              bob | (deleted by alice)

Rows fit the width of the window. Control characters in received text are escaped here, once.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from chatclient.model import ConnectionState, UiState, Unread
from chatclient.notices import Asked
from chatclient.ui.layout import Columns, Glyphs, Row, clean, colour_of
from chatclient.ui.text import action_of, columns_of, wrap
from chatclient.ui.timeline import Deletion, Entry, Remark, Rule, Text
from chatprotocol.address import format_address
from chatprotocol.requests import Say, Whisper
from chatprotocol.rules import name_key

# Maximum number of rows for pending messages and lines.
_PENDING_ROWS_MAX: Final = 4
# Maximum number of rooms with unread messages in the status line.
_UNREAD_ROOMS_MAX: Final = 3
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Questions whose form in the prompt differs from that in lines of output.
_PROMPTS: Final = {Asked.PASSWORD: "password", Asked.PASSWORD_NEW_ACCOUNT: "password"}
_STATE_TEXTS: Final = {
    ConnectionState.DISCONNECTED: "connecting",
    ConnectionState.LOGGING_IN: "logging in",
    ConnectionState.PASSWORD_REQUESTED: "logging in",
    ConnectionState.LOGGED_IN: "connected",
}


class RowFormatter:
    """Formats entries, in order. ``now`` is the clock, ``zone`` the user's time zone. For one thread."""

    def __init__(
        self,
        now: Callable[[], datetime],
        zone: tzinfo | None = None,
        glyphs: Glyphs = Glyphs(),  # noqa: B008 - it can't be changed
    ) -> None:
        self._now = now
        self._zone = zone
        self._glyphs = glyphs
        # The day of the last row. A new one has a rule.
        self._day: tuple[int, int, int] | None = None

    def rows(self, entry: Entry, username: str, width: int, *, shows_ids: bool = False) -> list[Row]:
        """The rows for an entry in a window of this width, after a rule with the date if the day has changed."""
        columns = Columns(width, self._glyphs)
        if isinstance(entry, Rule):
            if entry.begins_block:
                self._day = None
            return [columns.rule(clean(entry.text))]
        moment, rows = self._fit(entry, username, columns, shows_ids=shows_ids)
        return [*self._day_rule(moment, columns), *rows]

    def rows_again(self, entry: Text, username: str, width: int, *, shows_ids: bool = False) -> list[Row]:
        """The rows for a message that stands among others, without a rule."""
        return self._fit(entry, username, Columns(width, self._glyphs), shows_ids=shows_ids)[1]

    def _fit(
        self, entry: Text | Deletion | Remark, username: str, columns: Columns, *, shows_ids: bool
    ) -> tuple[datetime, list[Row]]:
        """The time and the rows of an entry."""
        match entry:
            case Deletion(tombstone):
                moment, style = self._now(), "class:notice"
                then = f"{self._moment(tombstone.time_ms):%H:%M}"
                where = f" in #{tombstone.room}" if tombstone.room else ""
                text = f"{tombstone.deleted_by} deleted the message of {tombstone.sender} from {then}{where}."
                who: Row = [(style, "*")]
            case Remark(text, is_error):
                moment, style = self._now(), "class:error" if is_error else "class:notice"
                who = [(style, "!" if is_error else "*")]
            case _:
                moment = self._moment(entry.time_ms)
                who, text = self._sender_and_text(entry, username)
                if shows_ids and entry.id is not None:
                    who = [("class:time", f"{entry.id} "), *who]
                style = "class:direct" if entry.recipient else ""
                if entry.deleted_by:
                    style, text = "class:notice", f"(deleted by {entry.deleted_by})"
                if entry.is_alert:
                    style += " class:alert"
        return moment, columns.fit(f"{moment:%H:%M}", who, text, style)

    def _day_rule(self, moment: datetime, columns: Columns) -> list[Row]:
        day = (moment.year, moment.month, moment.day)
        if day == self._day:
            return []
        self._day = day
        return [columns.rule(f"{moment:%A}, {moment.day} {moment:%B} {moment.year}")]

    def _moment(self, time_ms: int | None) -> datetime:
        """The local time. A time outside of the calendar is replaced by the current time."""
        try:
            if time_ms is not None:
                return (_EPOCH + timedelta(milliseconds=time_ms)).astimezone(self._zone)
        except (OverflowError, ValueError, OSError):
            pass
        return self._now()

    def _sender_and_text(self, entry: Text, username: str) -> tuple[Row, str]:
        """The sender column and the text: ``*`` and ``alice waves`` for a public ``/me waves``."""
        action = action_of(entry.text)
        if action is not None and not entry.recipient:
            who = [_coloured_name(entry.sender, username, "*"), *_room_mark(entry.room)]
            return who, f"{entry.sender} {action}"
        who = [_coloured_name(entry.sender, username), *_room_mark(entry.room)]
        if entry.recipient:
            who += [("class:direct", f" {self._glyphs.to} "), _coloured_name(entry.recipient, username)]
        return who, entry.text if action is None else f"* {entry.sender} {action}"

    # --- pending messages, prompt and status line ---

    def pending(self, ui_state: UiState, width: int) -> list[Row]:
        """Pending messages and lines, one row each; the newest if there are too many."""
        waits = "waits" if ui_state.connection_state is ConnectionState.LOGGED_IN else "waits for the connection"
        texts = [(_pending_text(own_message), "not confirmed yet") for own_message in ui_state.unconfirmed]
        texts += [(_in_room(room, line), waits) for room, line in ui_state.waiting]
        hidden = len(texts) - _PENDING_ROWS_MAX
        rows: list[Row] = [[("class:waits", f"{self._glyphs.waits} {hidden} more")]] if hidden > 0 else []
        columns = Columns(width, self._glyphs)
        for text, how in texts[-_PENDING_ROWS_MAX:]:
            mark, end = f"{self._glyphs.waits} ", f" ({how})"
            room = width - columns_of(mark + end) - columns_of(self._glyphs.waits) - 1
            first, *others = wrap(clean(text), max(room, 1))
            row = mark + first + (self._glyphs.waits if others else "") + end
            rows.append([("class:waits", row if room > 1 else columns.cut(mark + clean(text)))])
        return rows

    def status(self, ui_state: UiState, protocol: str, width: int, *, is_quiet: bool = False) -> Row:
        """User, server, protocol, users online and connection state, as far as they fit."""
        connection_state = _state_text(ui_state)
        is_up = ui_state.connection_state is ConnectionState.LOGGED_IN
        server = ""
        if ui_state.server is not None:
            server = clean(format_address(ui_state.server))
        count = ui_state.online_count
        online = f"{count} online" if count is not None and is_up else ""
        dot = f" {self._glyphs.dot} "
        quiet = "quiet" if is_quiet else ""
        room, number = f"#{clean(ui_state.room)}" if ui_state.room else "", ui_state.room_number
        if room:
            room = f"{room} (not a member)" if number is None else f"[{number}] {room}"
        words = [(clean(ui_state.username), 5), (server, 3), (protocol, 2), (online, 4), (quiet, 1)]
        words += [(room, 6), (_unread_text(ui_state.unread), 7)]
        for least in range(9):
            left = dot.join(word for word, weight in words if word and weight >= least)
            if columns_of(left + dot + connection_state) < width:
                break
        left = left + dot if left else left
        return [
            ("class:status", left),
            ("class:status.up" if is_up else "class:status.down", connection_state[: max(width - 1, 1)]),
        ]


def prompt(ui_state: UiState, width: int) -> str:
    """The text before the input. A room takes at most half of the window, to leave space for the input."""
    if (question := ui_state.question) is not None:
        return f"{clean(_PROMPTS.get(question.kind, question.text))}: "
    if ui_state.is_secret:
        return ""  # the password was not requested yet
    username = clean(ui_state.username)
    if not ui_state.room:
        return f"{username}> "
    room = f"#{clean(ui_state.room)}> "
    if columns_of(f"{username} {room}") <= width // 2:
        return f"{username} {room}"
    return room if columns_of(room) <= width // 2 else f"{wrap(room, max(width // 2 - 2, 1))[0]}> "


def _coloured_name(name: str, username: str, shown: str = "") -> tuple[str, str]:
    """A name, or ``shown``, in the name's colour. The user's own name has a special style."""
    is_own = name_key(name) == name_key(username)
    return ("class:own" if is_own else colour_of(name)), clean(shown or name)


def _state_text(ui_state: UiState) -> str:
    question = ui_state.question
    if ui_state.connection_state is ConnectionState.DISCONNECTED:
        if ui_state.was_logged_in:
            return "connection lost, trying again"
        if question is not None:  # the connection is opened after the answer
            return "logging in" if question.is_secret else "not connected"
    return _STATE_TEXTS[ui_state.connection_state]


def _pending_text(message: Say | Whisper) -> str:
    if isinstance(message, Whisper):
        return f"@{message.to} {message.text}"
    return _in_room(message.room or "", message.text)


def _in_room(room: str, text: str) -> str:
    return f"#{room} {text}" if room else text


def _room_mark(room: str) -> Row:
    """The room of a message, after its sender. In the text, senders could imitate it."""
    return [("class:room", f" #{clean(room)}")] if room else []


def _unread_text(unread: Sequence[Unread]) -> str:
    """``[1] lobby (2 new), [3] #ops (5 new)``: number, name and count of the rooms with unread messages."""
    rooms = [(each, "" if each.key_number == 1 else "#") for each in unread[:_UNREAD_ROOMS_MAX]]
    told = [f"[{each.key_number}] {mark}{clean(each.room)} ({each.messages} new)" for each, mark in rooms]
    more = len(unread) - len(told)
    return ", ".join([*told, *([f"{more} more"] if more > 0 else [])])
