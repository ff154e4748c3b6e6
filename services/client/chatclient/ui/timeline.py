"""The timeline: events and notices as rows of styled text. Pure.

    12:00              bob | hello everyone
    12:01      bob » alice | psst
    12:02                * | carol joined

Rows fit the width of the window. Control characters in received text are escaped here, once.
"""

from __future__ import annotations

import re
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from chatclient import notices
from chatclient.client_protocol import DeliveryUnknown, Outcome, PossibleGap
from chatclient.model import ConnectionState
from chatclient.ui import view
from chatclient.ui.layout import Columns, Glyphs, clean, colour_of
from chatclient.ui.text import action_of, columns_of, wrap
from chatprotocol import events
from chatprotocol.address import format_address
from chatprotocol.requests import Whisper
from chatprotocol.rules import name_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import tzinfo

    from chatclient.client_protocol import ClientEvent
    from chatclient.model import UiState
    from chatclient.notices import UiNotice
    from chatclient.ui.layout import Row
    from chatprotocol.events import Message
    from chatprotocol.requests import Say

# Maximum number of rows for pending messages and lines.
_PENDING_ROWS_MAX: Final = 4
_PASSWORD_QUESTIONS: Final = {
    "password new": "This name is new: choose a password.",
    "password again": "The same password again, to be sure of it.",
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_STATE_TEXTS: Final = {
    ConnectionState.NO_SERVER: "not connected",
    ConnectionState.NO_NAME: "not connected",
    ConnectionState.DISCONNECTED: "connecting",
    ConnectionState.LOGGING_IN: "logging in",
    ConnectionState.PASSWORD_REQUESTED: "logging in",
    ConnectionState.LOGGED_IN: "connected",
}


class Timeline:
    """Converts events, in order, to rows. ``now`` is the clock, ``zone`` the user's time zone. For one thread."""

    def __init__(
        self,
        now: Callable[[], datetime],
        zone: tzinfo | None = None,
        glyphs: Glyphs = Glyphs(),  # noqa: B008 - it can't be changed
        *,
        is_quiet: bool = False,
        shows_joins: bool = True,
    ) -> None:
        self._now = now
        self._zone = zone
        self._glyphs = glyphs
        self.is_quiet = is_quiet
        self.shows_joins = shows_joins
        # True if a mention or direct message was shown. The caller resets it.
        self.needs_bell = False
        self._username = ""
        self._mention = re.compile("(?!)")
        self._columns = Columns(80, glyphs)
        self._day: tuple[int, int, int] | None = None
        self._newest_id = 0
        # Sent messages without outcome, by nonce.
        self._unconfirmed: dict[str, Say | Whisper] = {}
        # Messages that arrived after the login and before the recent history, which is shown first. None after that.
        self._held: dict[int, Message] | None = None
        # The seen id of the welcome, if the server sent it: messages with a greater id are new to the user.
        self._seen_id: int | None = None
        # Ids of recent own messages that were shown: a message may be both confirmed and received.
        self._own_ids: deque[int] = deque(maxlen=256)
        # After a reconnect: the highest id of a missed message, and true if a missed message was shown.
        self._missed_upto = 0
        self._has_missed = False
        self._lost_at: datetime | None = None
        # Reason of the server for ending the connection.
        self._goodbye = ""

    def rows_of(self, shown: ClientEvent | UiNotice, width: int) -> list[Row]:
        """The rows for an event or notice, in a window of this width."""
        self._columns = Columns(width, self._glyphs)
        match shown:
            case events.PublicMessage() | events.DirectMessage():
                return self._received_rows(shown)
            case events.Forwarded(sender, text):
                is_alert = self._is_mention(sender, text)
                return self._text_rows(self._now(), *self._sender_and_text(sender, text), is_alert=is_alert)
            case events.Sent() | Outcome() | DeliveryUnknown() | events.Refused():
                return self._outcome_rows(shown)
            case events.History() | events.Found():
                return self._history_rows(shown)
            case events.Welcome() | notices.Reconnected() | notices.ConnectionLost() | events.Bye() | PossibleGap():
                return self._connection_rows(shown)
            case events.Online() | events.Users():
                return self._users_rows(shown)
            case _:
                return self._other_rows(shown)

    # --- messages ---

    def must_show(self, message: events.PublicMessage) -> bool:
        """True if the message must be shown even in a flood: it was missed, or mentions the user."""
        return message.id <= self._missed_upto or self._is_mention(message.sender, message.text)

    def _received_rows(self, message: Message) -> list[Row]:
        if self._held is not None:
            self._held[message.id] = message
            return []
        if not self._is_first(message.id, message.sender):
            return []
        rows: list[Row] = []
        if message.id <= self._missed_upto and not self._has_missed:
            self._has_missed = True
            rows.append(self._columns.rule("what you missed"))
        return rows + self._end_of_missed_rows(message.id) + self._message_rows(message, is_new=True)

    def _end_of_missed_rows(self, message_id: int) -> list[Row]:
        """The rule after missed messages, before the first new one."""
        if not self._has_missed or message_id <= self._missed_upto:
            return []
        self._has_missed = False
        return [self._columns.rule("now")]

    def _is_first(self, message_id: int, sender: str) -> bool:
        """True if this message was not shown yet. Only own messages may arrive twice."""
        if name_key(sender) != name_key(self._username):
            return True
        is_first = message_id not in self._own_ids
        self._own_ids.append(message_id)
        return is_first

    def _message_rows(self, message: Message, *, is_new: bool) -> list[Row]:
        """A message, after a row with the date if the date has changed."""
        self._newest_id = max(self._newest_id, message.id)
        moment = self._moment(message.time_ms)
        if isinstance(message, events.DirectMessage):
            is_alert = name_key(message.sender) != name_key(self._username)
            sender_and_text = self._sender_and_text(message.sender, message.text, message.recipient or "?")
            return self._text_rows(moment, *sender_and_text, "class:direct", is_alert=is_alert, is_new=is_new)
        is_alert = self._is_mention(message.sender, message.text)
        return self._text_rows(
            moment, *self._sender_and_text(message.sender, message.text), is_alert=is_alert, is_new=is_new
        )

    def _is_mention(self, sender: str, text: str) -> bool:
        return name_key(sender) != name_key(self._username) and self._mention.search(text) is not None

    def _text_rows(
        self, moment: datetime, who: Row, text: str, style: str = "", *, is_alert: bool = False, is_new: bool = True
    ) -> list[Row]:
        if is_alert and not self.is_quiet:
            style = f"{style} class:alert"
            self.needs_bell |= is_new
        return [*self._day_rows(moment), *self._columns.fit(f"{moment:%H:%M}", who, text, style)]

    def _day_rows(self, moment: datetime) -> list[Row]:
        day = (moment.year, moment.month, moment.day)
        if day == self._day:
            return []
        self._day = day
        return [
            self._columns.rule(f"{_DAYS[moment.weekday()]}, {moment.day} {_MONTHS[moment.month - 1]} {moment.year}")
        ]

    def _moment(self, time_ms: int) -> datetime:
        """The local time. A time outside of the calendar is replaced by the current time."""
        try:
            return (_EPOCH + timedelta(milliseconds=time_ms)).astimezone(self._zone)
        except (OverflowError, ValueError, OSError):
            return self._now()

    def _outcome_rows(self, event: events.Sent | Outcome | DeliveryUnknown | events.Refused) -> list[Row]:
        """The outcome of an own message."""
        match event:
            case events.Sent(message_id, nonce=nonce):
                self._newest_id = max(self._newest_id, message_id)
                own_message = self._unconfirmed.pop(nonce or "", None)
                if not self._is_first(message_id, self._username):
                    return []
                return self._end_of_missed_rows(message_id) + self._own_rows(own_message, view.sent_remark(event))
            case Outcome(own_message, has_come):
                self._unconfirmed.pop(own_message.nonce or "", None)
                return self._own_rows(
                    own_message, "" if has_come else "not delivered: no such user, or not acknowledged in time"
                )
            case DeliveryUnknown(own_message):
                self._unconfirmed.pop(own_message.nonce or "", None)
                return self._own_rows(own_message, "the connection was lost: it is not known whether this was sent")
            case events.Refused(reason=reason, nonce=nonce):
                own_message = self._unconfirmed.pop(nonce or "", None)
                about = f" It was: {own_message.text}" if own_message else ""
                # An error without a nonce may be the answer to the history request, so the held messages are shown.
                return [
                    *([] if nonce else self._release_held()),
                    *self._notice_rows("!", reason + about, "class:error"),
                ]

    def _own_rows(self, own_message: Say | Whisper | None, remark: str) -> list[Row]:
        if own_message is None:
            return []
        if isinstance(own_message, Whisper):
            rows = self._text_rows(
                self._now(), *self._sender_and_text(self._username, own_message.text, own_message.to), "class:direct"
            )
        else:
            rows = self._text_rows(self._now(), *self._sender_and_text(self._username, own_message.text))
        return rows + (self._notice_rows("*", remark) if remark else [])

    # --- blocks of messages ---

    def _history_rows(self, answer: events.History | events.Found) -> list[Row]:
        """Old messages between two rules."""
        if isinstance(answer, events.Found):
            return self._found_rows(answer)
        messages = {message.id: message for message in answer.messages}
        held, self._held = self._held, None
        what = f"the last {len(messages)} messages" if len(messages) != 1 else "the last message"
        if held is None:
            return (
                self._ruled_rows(what, list(messages.values()))
                if messages
                else self._notice_rows("*", "There are no messages yet.")
            )
        everything = {**held, **messages}
        # Without a seen id, the held messages are new. A held direct message was stored while the user was offline, so
        # all later messages are new as well.
        new_ids = set(held) if self._seen_id is None else {*held, *(each for each in messages if each > self._seen_id)}
        first_new_id = min(new_ids, default=None)
        rows: list[Row] = []
        for message_id in sorted(everything):
            if message_id == first_new_id:
                rows.append(self._columns.rule("new since you were here"))
            elif not rows:
                rows.append(self._columns.rule(what))
            rows += self._message_rows(everything[message_id], is_new=message_id in held)
        return [*rows, self._columns.rule("now")] if everything else rows

    def _found_rows(self, answer: events.Found) -> list[Row]:
        count = len(answer.messages)
        words = clean(answer.words)
        not_indexed = (
            self._notice_rows("*", "The newest messages are not indexed yet; try again.")
            if answer.upto < self._newest_id
            else []
        )
        if not count:
            return [*self._notice_rows("*", f"Nothing was found: {words}"), *not_indexed]
        what = f"{count} message{'s' if count > 1 else ''} found: {words}"
        return [*self._ruled_rows(what, answer.messages), *not_indexed]

    def _ruled_rows(self, what: str, messages: Sequence[Message]) -> list[Row]:
        self._day = None
        rows = [self._columns.rule(what)]
        for message in messages:
            rows += self._message_rows(message, is_new=False)
        return [*rows, self._columns.rule("now")]

    def _release_held(self) -> list[Row]:
        """The messages held for a history that does not arrive."""
        held, self._held = self._held or {}, None
        return [row for message_id in sorted(held) for row in self._message_rows(held[message_id], is_new=True)]

    # --- the connection, and other users ---

    def _connection_rows(
        self, event: events.Welcome | notices.Reconnected | notices.ConnectionLost | events.Bye | PossibleGap
    ) -> list[Row]:
        match event:
            case events.Welcome(account, username, users):
                self._set_username(username)
                is_guest = account is events.AccountKind.GUEST
                self._held = None if is_guest else {}
                self._seen_id = event.seen_id
                new = ", which is your name from now on" if account is events.AccountKind.NEW else ""
                rows = self._notice_rows("*", f"You are {username}{new}{', a guest' if is_guest else ''}.")
                return [*rows, *(self._online_rows(users) if users else [])]
            case notices.Reconnected(username, last_id):
                self._set_username(username)
                if (last_id or 0) < self._newest_id:  # the server's history was reset, and ids start again
                    self._own_ids.clear()
                    self._newest_id = last_id or 0
                self._missed_upto = last_id or 0
                self._has_missed = False
                seconds = (self._now() - self._lost_at).total_seconds() if self._lost_at else 0
                return self._notice_rows("*", f"Connected again, after {_duration(seconds)}.")
            case notices.ConnectionLost(reason):
                self._lost_at = self._now()
                goodbye, self._goodbye = self._goodbye, ""
                lost = f"The connection is lost ({goodbye or reason}). Reconnecting; lines that you type wait."
                return [*self._release_held(), *self._notice_rows("!", lost, "class:error")]
            case events.Bye(events.YOU_LEFT):
                return self._notice_rows("*", "You left.")
            case events.Bye(reason):
                self._goodbye = reason  # shown with the lost connection that follows
                return []
            case PossibleGap(has_history):
                self._own_ids.clear()  # after a restore the ids may belong to other messages
                more = "; CH 500 shows more" if has_history else ""
                return self._notice_rows("!", f"More may have been missed than is shown{more}.", "class:error")

    def _set_username(self, username: str) -> None:
        self._username = username
        self._mention = re.compile(rf"(?<![A-Za-z0-9]){re.escape(username)}(?![A-Za-z0-9])", re.IGNORECASE)

    def _users_rows(self, event: events.Online | events.Users) -> list[Row]:
        if isinstance(event, events.Online):
            return self._online_rows(event.users)
        if not self.shows_joins:
            return []
        changes = [(event.joined, "joined"), (event.left, "left")]
        return [row for names, verb in changes if names for row in self._name_rows(names, f" {verb}")]

    def _online_rows(self, users: Sequence[str]) -> list[Row]:
        return self._name_rows(users, "", f"{len(users)} online: ")

    def _name_rows(self, names: Iterable[str], end: str, start: str = "") -> list[Row]:
        text = start + ", ".join(sorted(map(clean, names), key=str.lower)) + end
        return self._notice_rows("*", text)

    # --- the rest ---

    def _other_rows(self, notice: ClientEvent | UiNotice) -> list[Row]:
        match notice:
            case notices.ErrorNotice(code, text):
                return [*(self._release_held() if code == "lost" else []), *self._notice_rows("!", text, "class:error")]
            case notices.Help():
                return [row for line in notice.lines for row in self._notice_rows("*", line)]
            case notices.MessageQueued(own_message):
                self._unconfirmed[own_message.nonce or ""] = own_message
                return []
            case notices.Toggle(what):
                return self._toggle_rows(what)
            case notices.Ask(question) if question.startswith("password"):
                return self._notice_rows("*", _PASSWORD_QUESTIONS.get(question, "This name has a password."))
            case events.PasswordChanged():
                return self._notice_rows("*", "Your password is changed.")
            case _:
                return []

    def _toggle_rows(self, what: str) -> list[Row]:
        if what == "quiet":
            self.is_quiet = not self.is_quiet
            return self._notice_rows(
                "*", "No bell and no highlight from now on." if self.is_quiet else "Bell and highlight are on."
            )
        self.shows_joins = not self.shows_joins
        return self._notice_rows("*", f"Joins and leaves are {'shown' if self.shows_joins else 'hidden'} from now on.")

    # --- rows ---

    def _notice_rows(self, mark: str, text: str, style: str = "class:notice") -> list[Row]:
        moment = self._now()
        return [*self._day_rows(moment), *self._columns.fit(f"{moment:%H:%M}", [(style, mark)], text, style)]

    def _who(self, sender: str, recipient: str = "") -> Row:
        """The sender, and the recipient of a direct message."""
        if not recipient:
            return [self._coloured_name(sender)]
        return [self._coloured_name(sender), ("class:direct", f" {self._glyphs.to} "), self._coloured_name(recipient)]

    def _sender_and_text(self, sender: str, text: str, recipient: str = "") -> tuple[Row, str]:
        """The sender column and the text: ``*`` and ``alice waves`` for a public ``/me waves``."""
        action = action_of(text)
        if action is None:
            return self._who(sender, recipient), text
        if recipient:
            return self._who(sender, recipient), f"* {sender} {action}"
        return [self._coloured_name(sender, "*")], f"{sender} {action}"

    def _coloured_name(self, name: str, shown: str = "") -> tuple[str, str]:
        """A name, or ``shown``, in the name's colour. The user's own name has a special style."""
        is_own = name_key(name) == name_key(self._username)
        return ("class:own" if is_own else colour_of(name)), clean(shown or name)

    # --- pending messages, prompt and status line ---

    def pending(self, ui_state: UiState, width: int) -> list[Row]:
        """Pending messages and lines, one row each; the newest if there are too many."""
        waits = "waits" if ui_state.connection_state is ConnectionState.LOGGED_IN else "waits for the connection"
        texts = [(self._pending_text(own_message), "not confirmed yet") for own_message in ui_state.unconfirmed]
        texts += [(line, waits) for line in ui_state.waiting]
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

    def _pending_text(self, message: Say | Whisper) -> str:
        return f"@{message.to} {message.text}" if isinstance(message, Whisper) else message.text

    def prompt(self, ui_state: UiState) -> str:
        """The text before the input."""
        if ui_state.is_secret and not ui_state.question:
            return ""  # the password was not requested yet
        return f"{clean(ui_state.question)}: " if ui_state.question else f"{clean(ui_state.username)}> "

    def status(self, ui_state: UiState, protocol: str, width: int) -> Row:
        """User, server, protocol, users online and connection state, as far as they fit."""
        connection_state = _STATE_TEXTS[ui_state.connection_state]
        is_up = ui_state.connection_state is ConnectionState.LOGGED_IN
        if ui_state.connection_state is ConnectionState.DISCONNECTED and self._lost_at is not None:
            connection_state = "connection lost, trying again"
        server = ""
        if ui_state.server is not None:
            server = clean(format_address(ui_state.server))
        count = ui_state.online_count
        online = f"{count} online" if count is not None and is_up else ""
        switched = "quiet" if self.is_quiet else ""
        dot = f" {self._glyphs.dot} "
        words = [(clean(ui_state.username), 5), (server, 3), (protocol, 2), (online, 4), (switched, 1)]
        for least in range(7):
            left = dot.join(word for word, weight in words if word and weight >= least)
            if columns_of(left + dot + connection_state) < width:
                break
        left = left + dot if left else left
        return [
            ("class:status", left),
            ("class:status.up" if is_up else "class:status.down", connection_state[: max(width - 1, 1)]),
        ]


def _duration(seconds: float) -> str:
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 100:  # noqa: PLR2004 - then minutes say enough
        return f"{max(1, round(seconds))} s"
    return f"{minutes} min" if minutes < 100 else f"{hours} h"  # noqa: PLR2004 - the same
