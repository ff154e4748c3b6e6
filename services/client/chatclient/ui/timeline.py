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
_STANDINGS: Final = {
    ConnectionState.UNPLACED: "not connected",
    ConnectionState.UNNAMED: "not connected",
    ConnectionState.AWAY: "connecting",
    ConnectionState.KNOCKING: "logging in",
    ConnectionState.ASKED: "logging in",
    ConnectionState.IN: "connected",
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
        self.rings = False
        self._username = ""
        self._mention = re.compile("(?!)")
        self._columns = Columns(80, glyphs)
        self._day: tuple[int, int, int] | None = None
        self._newest_id = 0
        # Sent messages without outcome, by nonce.
        self._posted: dict[str, Say | Whisper] = {}
        # Messages that arrived between the login and the recent history, which is shown first. None: not waiting.
        self._held: dict[int, Message] | None = None
        # Id of the newest message at the end of the user's previous stay, if the server sent it.
        self._seen_id: int | None = None
        # Ids of recent own messages that were shown: a message may be both confirmed and received.
        self._own_ids: deque[int] = deque(maxlen=256)
        # After a reconnect: the highest id of a missed message, and whether one was shown.
        self._missed_upto = 0
        self._has_missed = False
        self._cut_at: datetime | None = None
        # Reason of the server for ending the connection.
        self._goodbye = ""

    def rows_of(self, shown: ClientEvent | UiNotice, width: int) -> list[Row]:
        """The rows for an event or notice, in a window of this width."""
        self._columns = Columns(width, self._glyphs)
        match shown:
            case events.PublicMessage() | events.DirectMessage():
                return self._arrived(shown)
            case events.Forwarded(sender, text):
                is_alert = self._is_mention(sender, text)
                return self._message(self._now(), *self._said(sender, text), is_alert=is_alert)
            case events.Sent() | Outcome() | DeliveryUnknown() | events.Refused():
                return self._settled(shown)
            case events.History() | events.Found():
                return self._block(shown)
            case events.Welcome() | notices.Reconnected() | notices.ConnectionLost() | events.Bye() | PossibleGap():
                return self._stay(shown)
            case events.Online() | events.Users():
                return self._people(shown)
            case _:
                return self._notice(shown)

    # --- messages ---

    def must_show(self, message: events.PublicMessage) -> bool:
        """True if it must be shown even in a flood: it was missed, or mentions the user."""
        return message.id <= self._missed_upto or self._is_mention(message.sender, message.text)

    def _arrived(self, message: Message) -> list[Row]:
        if self._held is not None:
            self._held[message.id] = message
            return []
        if not self._is_first(message.id, message.sender):
            return []
        rows: list[Row] = []
        if message.id <= self._missed_upto and not self._has_missed:
            self._has_missed = True
            rows.append(self._columns.rule("what you missed"))
        return rows + self._end_of_missed(message.id) + self._dated(message, is_new=True)

    def _end_of_missed(self, message_id: int) -> list[Row]:
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

    def _dated(self, message: Message, *, is_new: bool) -> list[Row]:
        """A message, after a row with the date if that has changed."""
        self._newest_id = max(self._newest_id, message.id)
        moment = self._moment(message.time_ms)
        if isinstance(message, events.DirectMessage):
            is_alert = name_key(message.sender) != name_key(self._username)
            said = self._said(message.sender, message.text, message.recipient or "?")
            return self._message(moment, *said, "class:direct", is_alert=is_alert, is_new=is_new)
        is_alert = self._is_mention(message.sender, message.text)
        return self._message(moment, *self._said(message.sender, message.text), is_alert=is_alert, is_new=is_new)

    def _is_mention(self, sender: str, text: str) -> bool:
        return name_key(sender) != name_key(self._username) and self._mention.search(text) is not None

    def _message(
        self, moment: datetime, who: Row, text: str, style: str = "", *, is_alert: bool = False, is_new: bool = True
    ) -> list[Row]:
        if is_alert and not self.is_quiet:
            style = f"{style} class:alert"
            self.rings |= is_new
        return [*self._new_day(moment), *self._columns.fit(f"{moment:%H:%M}", who, text, style)]

    def _new_day(self, moment: datetime) -> list[Row]:
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

    def _settled(self, news: events.Sent | Outcome | DeliveryUnknown | events.Refused) -> list[Row]:
        """The outcome of an own message."""
        match news:
            case events.Sent(message_id, nonce=nonce):
                self._newest_id = max(self._newest_id, message_id)
                said = self._posted.pop(nonce or "", None)
                if not self._is_first(message_id, self._username):
                    return []
                return self._end_of_missed(message_id) + self._own(said, view.sent_remark(news))
            case Outcome(said, has_come):
                self._posted.pop(said.nonce or "", None)
                return self._own(said, "" if has_come else "not delivered: no such user, or not acknowledged in time")
            case DeliveryUnknown(said):
                self._posted.pop(said.nonce or "", None)
                return self._own(said, "the connection was lost: it is not known whether this was sent")
            case events.Refused(reason=reason, nonce=nonce):
                said = self._posted.pop(nonce or "", None)
                about = f" It was: {said.text}" if said else ""
                # Without a nonce it may be the answer to the history request, so the held messages are shown.
                return [*([] if nonce else self._let_go()), *self._told("!", reason + about, "class:error")]

    def _own(self, said: Say | Whisper | None, remark: str) -> list[Row]:
        if said is None:
            return []
        if isinstance(said, Whisper):
            rows = self._message(self._now(), *self._said(self._username, said.text, said.to), "class:direct")
        else:
            rows = self._message(self._now(), *self._said(self._username, said.text))
        return rows + (self._told("*", remark) if remark else [])

    # --- blocks of messages ---

    def _block(self, answer: events.History | events.Found) -> list[Row]:
        """Old messages between two rules."""
        if isinstance(answer, events.Found):
            return self._found(answer)
        messages = {message.id: message for message in answer.messages}
        held, self._held = self._held, None
        what = f"the last {len(messages)} messages" if len(messages) != 1 else "the last message"
        if held is None:
            return (
                self._framed(what, list(messages.values()))
                if messages
                else self._told("*", "There are no messages yet.")
            )
        everything = {**held, **messages}
        # If no seen id is known, held messages are new: a stored direct message means that the user was offline since
        # then, so all later messages are new, too.
        new_ids = set(held) if self._seen_id is None else {*held, *(each for each in messages if each > self._seen_id)}
        first_new_id = min(new_ids, default=None)
        rows: list[Row] = []
        for message_id in sorted(everything):
            if message_id == first_new_id:
                rows.append(self._columns.rule("new since you were here"))
            elif not rows:
                rows.append(self._columns.rule(what))
            rows += self._dated(everything[message_id], is_new=message_id in held)
        return [*rows, self._columns.rule("now")] if everything else rows

    def _found(self, answer: events.Found) -> list[Row]:
        count = len(answer.messages)
        words = clean(answer.words)
        behind = (
            self._told("*", "The newest messages are not indexed yet; try again.")
            if answer.upto < self._newest_id
            else []
        )
        if not count:
            return [*self._told("*", f"Nothing was found: {words}"), *behind]
        what = f"{count} message{'s' if count > 1 else ''} found: {words}"
        return [*self._framed(what, answer.messages), *behind]

    def _framed(self, what: str, messages: Sequence[Message]) -> list[Row]:
        self._day = None
        rows = [self._columns.rule(what)]
        for message in messages:
            rows += self._dated(message, is_new=False)
        return [*rows, self._columns.rule("now")]

    def _let_go(self) -> list[Row]:
        """The messages held for a history that does not arrive."""
        held, self._held = self._held or {}, None
        return [row for message_id in sorted(held) for row in self._dated(held[message_id], is_new=True)]

    # --- the connection, and other users ---

    def _stay(
        self, news: events.Welcome | notices.Reconnected | notices.ConnectionLost | events.Bye | PossibleGap
    ) -> list[Row]:
        match news:
            case events.Welcome(account, username, users):
                self._be(username)
                is_guest = account is events.AccountKind.GUEST
                self._held = None if is_guest else {}
                self._seen_id = news.seen_id
                new = ", which is your name from now on" if account is events.AccountKind.NEW else ""
                rows = self._told("*", f"You are {username}{new}{', a guest' if is_guest else ''}.")
                return [*rows, *(self._online(users) if users else [])]
            case notices.Reconnected(username, last_id):
                self._be(username)
                if (last_id or 0) < self._newest_id:  # the server's history was reset, and ids start again
                    self._own_ids.clear()
                    self._newest_id = last_id or 0
                self._missed_upto = last_id or 0
                self._has_missed = False
                seconds = (self._now() - self._cut_at).total_seconds() if self._cut_at else 0
                return self._told("*", f"Connected again, after {_duration(seconds)}.")
            case notices.ConnectionLost(reason):
                self._cut_at = self._now()
                goodbye, self._goodbye = self._goodbye, ""
                lost = f"The connection is lost ({goodbye or reason}). Reconnecting; lines that you type wait."
                return [*self._let_go(), *self._told("!", lost, "class:error")]
            case events.Bye(events.YOU_LEFT):
                return self._told("*", "You left.")
            case events.Bye(reason):
                self._goodbye = reason  # shown with the lost connection that follows
                return []
            case PossibleGap(has_history):
                self._own_ids.clear()  # after a restore the ids may belong to other messages
                more = "; CH 500 shows more" if has_history else ""
                return self._told("!", f"More may have been missed than is shown{more}.", "class:error")

    def _be(self, username: str) -> None:
        self._username = username
        self._mention = re.compile(rf"(?<![A-Za-z0-9]){re.escape(username)}(?![A-Za-z0-9])", re.IGNORECASE)

    def _people(self, news: events.Online | events.Users) -> list[Row]:
        if isinstance(news, events.Online):
            return self._online(news.users)
        if not self.shows_joins:
            return []
        comings = [(news.joined, "joined"), (news.left, "left")]
        return [row for names, did in comings if names for row in self._list(names, f" {did}")]

    def _online(self, users: Sequence[str]) -> list[Row]:
        return self._list(users, "", f"{len(users)} online: ")

    def _list(self, names: Iterable[str], end: str, start: str = "") -> list[Row]:
        text = start + ", ".join(sorted(map(clean, names), key=str.lower)) + end
        return self._told("*", text)

    # --- the rest ---

    def _notice(self, notice: ClientEvent | UiNotice) -> list[Row]:
        match notice:
            case notices.ErrorNotice(code, text):
                return [*(self._let_go() if code == "lost" else []), *self._told("!", text, "class:error")]
            case notices.Help():
                return [row for line in notice.lines for row in self._told("*", line)]
            case notices.MessageQueued(said):
                self._posted[said.nonce or ""] = said
                return []
            case notices.Toggle(what):
                return self._switch(what)
            case notices.Ask(question) if question.startswith("password"):
                return self._told("*", _PASSWORD_QUESTIONS.get(question, "This name has a password."))
            case events.PasswordChanged():
                return self._told("*", "Your password is changed.")
            case _:
                return []

    def _switch(self, what: str) -> list[Row]:
        if what == "quiet":
            self.is_quiet = not self.is_quiet
            return self._told(
                "*", "No bell and no highlight from now on." if self.is_quiet else "Bell and highlight are on."
            )
        self.shows_joins = not self.shows_joins
        return self._told("*", f"Joins and leaves are {'shown' if self.shows_joins else 'hidden'} from now on.")

    # --- rows ---

    def _told(self, mark: str, text: str, style: str = "class:notice") -> list[Row]:
        moment = self._now()
        return [*self._new_day(moment), *self._columns.fit(f"{moment:%H:%M}", [(style, mark)], text, style)]

    def _who(self, sender: str, recipient: str = "") -> Row:
        """The sender, and the recipient of a direct message."""
        if not recipient:
            return [self._named(sender)]
        return [self._named(sender), ("class:direct", f" {self._glyphs.to} "), self._named(recipient)]

    def _said(self, sender: str, text: str, recipient: str = "") -> tuple[Row, str]:
        """The sender column and the text: ``*`` and ``alice waves`` for a public ``/me waves``."""
        action = action_of(text)
        if action is None:
            return self._who(sender, recipient), text
        if recipient:
            return self._who(sender, recipient), f"* {sender} {action}"
        return [self._named(sender, "*")], f"{sender} {action}"

    def _named(self, name: str, shown: str = "") -> tuple[str, str]:
        """A name, or ``shown``, in the name's colour. The user's own name has a style of its own."""
        is_own = name_key(name) == name_key(self._username)
        return ("class:own" if is_own else colour_of(name)), clean(shown or name)

    # --- pending messages, prompt and status line ---

    def pending(self, ui_state: UiState, width: int) -> list[Row]:
        """Pending messages and lines, one row each; the newest if there are too many."""
        waits = "waits" if ui_state.connection_state is ConnectionState.IN else "waits for the connection"
        texts = [(self._pending_text(said), "not confirmed yet") for said in ui_state.unconfirmed]
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

    def _pending_text(self, said: Say | Whisper) -> str:
        return f"@{said.to} {said.text}" if isinstance(said, Whisper) else said.text

    def prompt(self, ui_state: UiState) -> str:
        """The text before the input."""
        if ui_state.is_secret and not ui_state.question:
            return ""  # the password was not requested yet
        return f"{clean(ui_state.question)}: " if ui_state.question else f"{clean(ui_state.username)}> "

    def status(self, ui_state: UiState, protocol: str, width: int) -> Row:
        """User, server, protocol, users online and connection state, as far as they fit."""
        connection_state = _STANDINGS[ui_state.connection_state]
        is_up = ui_state.connection_state is ConnectionState.IN
        if ui_state.connection_state is ConnectionState.AWAY and self._cut_at is not None:
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
