"""The controller of the command line client: handles typed lines, server events and connection signals in order.

Threads. The main thread calls Controller.begin and then Controller.react, one input at a time: lines of the user, and
what the receiver thread (links/connection.py) has put into the inbox. So Controller, ClientSession, Model and
InputParser have no locks.

States. The login dialogue is LoginFlow's, the connection ClientSession's. The controller has the queue of lines. A
line waits in _lines until it can be used: as the answer to a question of LoginFlow, or after the login as an operation,
while ClientSession.is_ready. react() handles its input and then uses waiting lines until one has to wait, so lines are
used in the order in which they were typed. Passwords that are typed at a terminal wait in _secrets, so that a password
is never sent or shown as a message.

Rooms. Messages go to the current room: see current_room.py. It changes on a command of the user, and when a room that
the user asked to join is entered. No other event changes it, so a line that is being typed reaches only the users that
it was meant for. For the same reason, a line that a person typed keeps the room in which it was typed.

Moderation. After a login the users whom this user ignores are requested, without a word about it. What the user should
not see is left out in _visible(), except for programs. The line /delete alone waits until all messages are confirmed.

Rates. Messages of a script or pipe that the server refused for their rate are sent again: the frontend passes Resend
at `resend_at`. So a script or pipe leaves after all messages are confirmed. A person reads the error, and decides.

The client ends when exit is set. Reasons: Bye or Left after the goodbye; ConnectionEnded; a final login error; an
interrupt or the end of input before the login or during an outage. After an interrupt, the goodbye has a time limit:
the frontend calls on_deadline() at `deadline`.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from msgspec.structs import replace

from chatclient import notices
from chatclient.cli.current_room import CurrentRoomTracker
from chatclient.cli.exits import Exit
from chatclient.cli.frontend import EndOfInput, Frontend, Input, Interrupt, Line, Resend, SelectRoom
from chatclient.cli.input import InputParser, LineMeaning, ParsedInput
from chatclient.cli.login_flow import LoginFlow, LoginState
from chatclient.model import ConnectionState, UiState
from chatclient.session import (
    GOODBYE_SECONDS,
    ClientSession,
    Connected,
    ConnectionEnded,
    Left,
    LoginRefused,
    RateLimited,
    SessionEvent,
)
from chatprotocol import events, requests
from chatprotocol.address import Address
from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.rules import room_key
from chatprotocol.wire.base import ClientEvent, DeliveryUnknown, Online, Ready

# The questions of a password change, in order. Without hidden input (a pipe), the last question is skipped.
_CHANGE_QUESTIONS: Final = tuple(
    notices.Question(notices.Asked.PASSWORD_CHANGE, text)
    for text in ("old password", "new password", "new password again")
)
# Number of recent messages to request after the first login at a terminal.
_RECENT_MESSAGES: Final = 20
# Maximum time from the end of the connection to the receiver thread's report.
_CLOSE_SECONDS: Final = 1.0


class Controller:
    """Decides about requests to the server and about the output. The module's docstring has the states and threads.

    Call :meth:`begin` once, then :meth:`react` for each input until :attr:`exit` is set, all in one thread.

    ``default`` completes a typed server address. ``monotonic`` is the clock of :attr:`deadline`.
    """

    def __init__(
        self,
        session: ClientSession,
        parser: InputParser,
        frontend: Frontend,
        default: Address,
        monotonic: Callable[[], float],
    ) -> None:
        self._session = session
        self._model = session.model
        self._parser = parser
        self._frontend = frontend
        self._monotonic = monotonic
        self._login = LoginFlow(session, frontend, default)
        self._rooms = CurrentRoomTracker(session.model, stays_after_error=not frontend.is_person)
        self._lines: deque[Line | EndOfInput] = deque()
        # Typed passwords, perhaps from before the prompt.
        self._secrets: deque[Line] = deque()
        # Input of the current password change, or None.
        self._change: list[str] | None = None
        # The parser's current question, shown after the server's answer and again after a reconnect; and the question
        # that was shown since the last line. While they differ, an answer is awaited.
        self._question: notices.Question | None = None
        self._asked: notices.Question | None = None
        # True if the delivery of a message is unknown. The exit code is LOST then.
        self._delivery_unknown = False
        # True while the list of ignored users, which the client itself requested, has not arrived.
        self._awaits_ignored = False
        # True if the server ended the connection on purpose. The exit code is REFUSED then.
        self._was_put_out = False
        # The time to pass Resend, or None.
        self.resend_at: float | None = None
        # The time to call on_deadline(), or None: set by an interrupt.
        self.deadline: float | None = None
        self.exit: Exit | None = None

    @property
    def waiting_lines(self) -> int:
        """Number of lines that can't be used yet."""
        return len(self._lines) + len(self._secrets)

    def begin(self) -> None:
        self._login.begin()
        self._frontend.update(self._ui_state())

    def react(self, item: Input) -> None:  # noqa: C901 - one case for each input
        """Handle one input, then all waiting lines that can be used. Sets :attr:`exit` if the client must end."""
        match item:
            case Line() | EndOfInput():
                self._queue_input(item)
            case SelectRoom(number):
                if (room := self._rooms.by_number(number)) not in (None, self._rooms.current):
                    self._enter_room(room)
            case Resend():
                self.resend_at = None
            case Interrupt():
                if self.deadline is not None:
                    self.on_deadline()  # the second one ends the wait for the goodbye
                else:
                    self.deadline = self._monotonic() + GOODBYE_SECONDS
                    self._on_interrupt()
            case _:
                self._handle_events(self._session.handle(item))
        if not self._session.is_limited:
            self.resend_at = None
        elif self.resend_at is None:
            self._handle_events(self._session.resend_limited())
        self._inform_parser()
        self._ask_operation()
        while self.exit is None and (line := self._next_line()) is not None:
            self._on_line(line)
            self._ask_operation()
        if self._model.connection_state is ConnectionState.DISCONNECTED and self._only_leave_waits():
            self.exit = Exit.OK
        self._frontend.update(self._ui_state())

    def _inform_parser(self) -> None:
        model, parser = self._model, self._parser
        parser.names, parser.last_sender = model.online, model.last_sender
        parser.room, parser.other_rooms = self._rooms.target, model.other_rooms
        parser.rooms = tuple(room.name for room in model.rooms.values())
        parser.speakers = model.speakers(parser.room)

    def on_deadline(self) -> None:
        """End the connection if the goodbye was not answered in time, and the client if that is not reported."""
        if self._session.is_closed:
            self.exit = Exit.LOST
            return
        self.deadline = self._monotonic() + _CLOSE_SECONDS
        self._session.close()

    def _queue_input(self, item: Line | EndOfInput) -> None:
        """Queue a line. A person who is not connected can leave, and use local commands, without waiting."""
        is_password = self._change is not None or self._login.may_want_password
        if isinstance(item, Line) and (item.is_secret or (self._frontend.is_terminal and is_password)):
            self._secrets.append(item)
            return
        if isinstance(item, EndOfInput):
            self._change = None
        elif self._frontend.is_person and self._login.question is None and self._change is None:
            if self._model.was_logged_in and self._parser.is_local(item.text):
                self._on_line(item)  # also if earlier lines wait: they keep their rooms
                return
            item = item._replace(room=self._rooms.target)
        leaves = isinstance(item, EndOfInput) or self._parser.is_leave(item.text)
        if leaves and self._frontend.is_person and self._login.question is None and not self._model.is_logged_in:
            self._on_interrupt()
        else:
            self._lines.append(item)

    def _next_line(self) -> Line | EndOfInput | None:
        """Remove and return the next line that can be used now, or None."""
        if self._frontend.is_terminal and (self._login.wants_password or self._change is not None):
            return self._secrets.popleft() if self._secrets else None
        if not self._lines or not self._is_ready():
            return None
        line = self._lines[0]
        return None if self._model.unconfirmed and self._needs_confirmations(line) else self._lines.popleft()

    def _needs_confirmations(self, line: Line | EndOfInput) -> bool:
        """True if the line waits until all messages are confirmed.

        A script or pipe leaves only then, because refused messages are sent again.
        """
        leaves = isinstance(line, EndOfInput) or self._parser.is_leave(line.text)
        if leaves:
            return self._session.resends_limited
        return isinstance(line, Line) and self._parser.needs_confirmations(line.text)

    def _is_ready(self) -> bool:
        return self._login.question is not None or (self._session.is_ready and not self._session.is_leaving)

    def _current_question(self) -> notices.Question | None:
        if self._login.question is not None:
            return self._login.question
        if self._change is not None:
            return _CHANGE_QUESTIONS[len(self._change)]
        return self._question if self._parser.next_line is not LineMeaning.OPERATION else None

    def _ui_state(self) -> UiState:
        model = self._model
        return UiState(
            model.connection_state,
            model.username,
            model.server,
            None if self._session.client_protocol.is_stepwise else model.online_count,
            self._current_question(),
            self._change is not None or self._login.may_want_password,
            tuple((line.room or "", line.text) for line in self._lines if isinstance(line, Line)),
            tuple(model.unconfirmed.values()),
            model.was_logged_in,
            self._rooms.current,
            self._rooms.current_number,
            self._rooms.unread(),
        )

    def _ask_operation(self) -> None:
        """Ask for the next operation once, in protocols that run one operation at a time."""
        if (
            self._session.client_protocol.is_stepwise
            and self._parser.next_line is LineMeaning.OPERATION
            and self._model.is_logged_in
            and (self._asked is None or self._asked.kind is not notices.Asked.OPERATION)
            and self._is_ready()
        ):
            self._ask(self._parser.prompt())

    def _only_leave_waits(self) -> bool:
        """True if the next line only leaves and no message is unconfirmed: reconnecting has no purpose."""
        if not self._model.was_logged_in or self._model.unconfirmed or not self._lines:
            return False
        first = self._lines[0]
        return isinstance(first, EndOfInput) or self._parser.is_leave(first.text)

    def _on_interrupt(self) -> None:
        if self._model.is_logged_in:
            self._handle_events(self._session.leave())
            return
        nothing_lost = not self._report_unsent()
        self.exit = Exit.OK if nothing_lost and self._model.was_logged_in else Exit.LOST

    # --- what arrived ---

    def _handle_events(self, happened: Iterable[SessionEvent]) -> None:
        """Handle the events in order. Requests that they cause are sent in between.

        A lost connection cancels a change of the password.
        """
        for event in happened:
            self._on_event(event)
        if self._model.connection_state is ConnectionState.DISCONNECTED:
            self._change = None

    def _on_event(self, event: SessionEvent) -> None:  # noqa: C901, PLR0912 - one case for each event
        """Handle an event that is not shown as it is, or show it."""
        match event:
            case events.PublicMessage():  # the most frequent one first
                self._show(event)
            case Connected():
                self._handle_events(self._login.on_connected())
            case events.PasswordPrompt() if not self._model.is_logged_in:  # else it would hide a message that is typed
                self._handle_events(self._login.on_prompt(event))
            case LoginRefused():
                self.exit = self._login.on_refused(event) or self.exit
            case Left():
                self._end()
            case ConnectionEnded() if self._was_put_out:
                self._report_unsent()
                self.exit = Exit.REFUSED
            case ConnectionEnded(reason):
                end = Exit.LOST if self._login.state is LoginState.DONE else self._login.on_ended()
                if end is not None:
                    self._report_error("lost", reason)
                    self._report_unsent()
                    self.exit = end
            case events.Users():
                self._on_users(event)
            case RateLimited(seconds):
                if self.resend_at is None:
                    self._report_error(
                        "rate_limited",
                        f"The server takes no more messages now; they are sent again in {seconds:.1f} s.",
                    )
                self.resend_at = max(self.resend_at or 0.0, self._monotonic() + seconds)
            case events.Ignored() | events.Refused(ErrorCode.UNKNOWN_COMMAND, nonce=None) if self._awaits_ignored:
                self._awaits_ignored = False
            case _:
                self._show(event)

    def _show(self, event: ClientEvent | notices.ConnectionLost | notices.Reconnected) -> None:
        """Show an event, and then handle it."""
        if (visible := self._visible(event)) is not None:
            self._frontend.display(visible)
            self._on_shown(visible)

    def _visible(self, event: ClientEvent | notices.ConnectionLost | notices.Reconnected) -> Any:
        """The event as the user should see it; None to hide it.

        Public messages of ignored users are left out, and deletions of messages that this client has not shown.
        """
        model = self._model
        if self._frontend.is_for_programs:
            return event
        match event:
            case events.PublicMessage() if model.is_hidden(event):
                return None
            case events.History(messages) | events.Found(messages=messages) if any(map(model.is_hidden, messages)):
                return replace(event, messages=tuple(each for each in messages if not model.is_hidden(each)))
            case events.Deleted(message_id, by) if not model.has_seen_id(message_id) and not model.is_me(by):
                return None
        return event

    def _on_shown(self, event: ClientEvent | notices.ConnectionLost | notices.Reconnected) -> None:  # noqa: C901
        match event:
            case events.Welcome() | notices.Reconnected():
                self._on_logged_in(event)
            case events.Bye() if self._session.is_leaving:
                self._end()
            case events.Bye(code=code):
                self._was_put_out = code is not None
            case events.PublicMessage():
                self._rooms.count(event)
            case events.Joined() | events.Parted():
                if (room := self._rooms.room_after(event)) is not None:
                    self._enter_room(room, was_joined=isinstance(event, events.Joined))
            case Ready() | Online():
                self._ask(self._question)
            case events.Refused(nonce=None, room=str(room)) if self._rooms.was_refused(room):
                pass
            case events.Refused(nonce=None) if self._question is not None and self._asked is None:
                self._question = self._parser.handle_refusal()
                self._ask(self._question)
            case DeliveryUnknown():
                self._delivery_unknown = True

    def _on_logged_in(self, event: events.Welcome | notices.Reconnected) -> None:
        self._login.on_logged_in()
        self._secrets.clear()
        self._asked = None
        if self._model.knows_rooms and not self._awaits_ignored:  # after a reconnect the session repeats it
            self._awaits_ignored = True
            self._handle_events(self._session.request(requests.AskIgnored()))
        if isinstance(event, events.Welcome):
            if self._frontend.is_person:
                self._frontend.display(notices.Help((self._parser.hint(),)))
            if self._frontend.is_terminal and not self._session.client_protocol.is_guest:
                self._handle_events(self._session.request(requests.AskHistory(_RECENT_MESSAGES)))
        elif self._parser.next_line is not LineMeaning.OPERATION and not self._session.is_leaving:
            self._ask(self._question)

    def _on_users(self, event: events.Users) -> None:
        """Show other users who joined or left. The user's own arrival is not shown."""
        joined = tuple(name for name in event.joined if name != self._model.username)
        left = tuple(name for name in event.left if name != self._model.username) if event.room else event.left
        if joined or left:
            self._frontend.display(events.Users(event.unlisted_count, event.users, joined, left, event.room))

    def _end(self) -> None:
        """End the client after the goodbye. Its answer comes after the answers to all earlier requests."""
        if self.deadline is None:
            self._lines.clear()  # typed after the goodbye
        self.exit = Exit.LOST if self._report_unsent() or self._delivery_unknown else Exit.OK

    def _report_unsent(self) -> int:
        """Report lines that were not sent or not confirmed. Returns their number."""
        texts = [line.text for line in self._lines if isinstance(line, Line)]
        unsent = sum(not self._parser.is_leave(text) for text in texts)
        count = unsent + len(self._model.unconfirmed)
        if count:
            what = "1 typed line was" if count == 1 else f"{count} typed lines were"
            unconfirmed = [message.text for message in self._model.unconfirmed.values()]
            lost = [*unconfirmed, *texts] if self._frontend.is_terminal else []
            self._report_error("lost", "\n".join([f"{what} not confirmed", *lost]))
        return count

    # --- what was typed ---

    def _on_line(self, line: Line | EndOfInput) -> None:
        question = self._current_question()
        if isinstance(line, EndOfInput):
            self._leave()
            return
        if line.is_from_script:
            self._frontend.display(notices.ScriptLine("***" if question and question.is_secret else line.text))
        if question is not None and question == self._login.question:
            if not question.is_secret and self._parser.is_leave_at_question(line.text):
                self._leave()
            else:
                self._handle_events(self._login.handle_line(line.text))
        elif self._change is not None:
            self._use_password_change([*self._change, line.text])
        else:
            self._asked = None
            self._parser.room = self._rooms.target if line.room is None else line.room
            self._parser.last_own_id = self._model.last_own_id(self._parser.room)
            self._run_parsed(self._parser.parse_line(line.text))
            self._inform_parser()

    def _use_password_change(self, parsed: list[str]) -> None:
        """Handle one of the inputs of a password change. An empty line cancels."""
        self._change = None
        needed = len(_CHANGE_QUESTIONS) if self._frontend.is_terminal else len(_CHANGE_QUESTIONS) - 1
        if not parsed[-1]:
            self._report_error("usage", "Nothing was typed; the password was not changed.")
        elif len(parsed) < needed:
            self._ask_change(parsed)
        elif parsed[-1] != parsed[1]:
            self._report_error("usage", "The two new passwords differ; the password was not changed.")
        else:
            self._handle_events(self._session.request(requests.ChangePassword(parsed[0], parsed[1])))

    def _ask_change(self, parsed: list[str]) -> None:
        self._change = parsed
        self._ask(_CHANGE_QUESTIONS[len(parsed)])

    def _run_parsed(self, parsed: ParsedInput) -> None:
        if parsed.error:
            self._report_error("usage", parsed.error)
        if parsed.wants_help:
            self._frontend.display(notices.Help(tuple(self._parser.help())))
        if parsed.changes_password:
            self._ask_change([])
        if parsed.toggle:
            self._frontend.display(notices.Toggle(parsed.toggle))
        if parsed.enters is not None:
            self._enter_room(parsed.enters)
        self._question = parsed.question
        match parsed.action:
            case None:
                self._ask(self._question)
            case requests.Join() | requests.Part():
                self._rooms.note_request(parsed.action)
                self._handle_events(self._session.request(parsed.action))
            case requests.Leave():
                self._leave()
            case requests.Say() | requests.Whisper() as message:
                self._send_message(message)
            case action:
                self._handle_events(self._session.request(action))

    def _enter_room(self, room: str, *, was_joined: bool = False) -> None:
        """Make it the current room. At a terminal the first visit shows its recent messages."""
        is_first = self._rooms.enter(room)
        known = self._model.rooms.get(room_key(room))
        self._frontend.display(notices.CurrentRoom(room, known.topic if known else "", was_joined))
        shows_recent = is_first and self._frontend.is_terminal and self._model.is_logged_in
        if shows_recent and known and known.last_seen_id:
            self._handle_events(self._session.request(requests.AskHistory(_RECENT_MESSAGES, room=known.name)))

    def _send_message(self, message: requests.Say | requests.Whisper) -> None:
        """Send a message. The session sends it again after a lost connection, until it is confirmed."""
        try:
            message = self._session.prepare(message)
        except RequestError as error:
            self._report_error(error.code, error.reason)
            return
        self._frontend.display(notices.MessageQueued(message))
        self._handle_events(self._session.request(message))

    def _leave(self) -> None:
        if self._login.question is not None:
            self.exit = self._login.leave()
        else:
            self._handle_events(self._session.leave())

    def _ask(self, question: notices.Question | None) -> None:
        if question is not None:
            self._asked = question
            self._frontend.display(notices.Ask(question))

    def _report_error(self, code: str, text: str) -> None:
        self._frontend.display(notices.ErrorNotice(code, text))
