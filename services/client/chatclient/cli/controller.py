"""The reactor: takes what was typed and what arrived, one after the other, and reacts."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

from chatclient.cli.exits import Exit
from chatclient.cli.input import Due
from chatclient.client_protocol import DeliveryUnknown
from chatclient.links.connection import LinkDown, LinkLost, LinkUp
from chatclient.model import ConnectionState, UiState
from chatclient.notices import Ask, ConnectionLost, ErrorNotice, Help, MessageQueued, Reconnected, ScriptLine, Toggle
from chatprotocol.address import read_address
from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.events import (
    AccountKind,
    Bye,
    Event,
    Online,
    PasswordChanged,
    PasswordPrompt,
    Ready,
    Refused,
    Users,
    Welcome,
)
from chatprotocol.limits import LOGIN_ATTEMPTS_MAX
from chatprotocol.requests import AskHistory, ChangePassword, Leave, Password, Say, Whisper
from chatprotocol.rules import check_username

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from chatclient.cli.input import InputParser, ParsedInput
    from chatclient.client_protocol import Action, ClientEvent
    from chatclient.links.connection import Signal
    from chatclient.notices import UiNotice
    from chatclient.session import ClientSession
    from chatprotocol.address import Address

# Refusals after which the person who was asked for the password is asked again.
_CORRECTABLE = frozenset({ErrorCode.WRONG_PASSWORD, ErrorCode.BAD_REQUEST})
# Refusals after which the same login can't succeed.
_LOGIN_REFUSALS = frozenset(
    {
        ErrorCode.BAD_REQUEST,
        ErrorCode.BAD_USERNAME,
        ErrorCode.WRONG_PASSWORD,
        ErrorCode.TOO_MANY_ATTEMPTS,
        ErrorCode.TOO_LONG,
    }
)
# What is asked outside of the room.
_QUESTIONS = {ConnectionState.UNNAMED: "username", ConnectionState.ASKED: "password"}
# What is asked for a new password, in this order. Where lines are shown as they are typed (in pipes), not the last.
_CHANGE_QUESTIONS = ("old password", "new password", "new password again")
_AGAIN = "password again"
# Where what is typed is an answer.
_ASKING = frozenset({ConnectionState.UNPLACED, *_QUESTIONS})


class Line(NamedTuple):
    """A line was typed; or played from a script, and is shown then, for nobody saw it being typed."""

    text: str
    is_played: bool = False
    # Was it typed where the password was asked for? Then it is used as nothing else.
    is_secret: bool = False


class EndOfInput(NamedTuple):
    """Nothing more will be typed."""


class Interrupt(NamedTuple):
    """The person, or whoever runs the client, wants it to end now."""


Input = Line | EndOfInput | Interrupt | Event | LinkUp | LinkDown | LinkLost


class Frontend(Protocol):
    """Where the person or the program is."""

    @property
    def is_person(self) -> bool:
        """Is it somebody who may want a hint?"""

    @property
    def tells_secrets(self) -> bool:
        """Does it say which line is a password? Else it is the next one, whatever was asked when it was typed."""

    @property
    def recent_messages(self) -> int:
        """How many of the last messages are shown after the login."""

    def display(self, shown: Sequence[ClientEvent | UiNotice]) -> None:
        """Show what happened."""

    def ask_password(self) -> None:
        """The next line is a password: don't echo it."""

    def took_line(self) -> None:
        """A typed line was used: there is room for one more."""

    def update(self, ui_state: UiState) -> None:
        """That is how it is now."""


class Controller:
    """Decides what is asked of the server and what is shown.

    One thread calls :meth:`begin`, then :meth:`react` with one input after another.

    Lines that are typed too early (before the login, in the middle of an answer) wait in it. ``connect`` is called when
    it is known where the server is and who wants to come in. Where no server is named, ``default`` is it.
    """

    def __init__(
        self,
        session: ClientSession,
        parser: InputParser,
        frontend: Frontend,
        default: Address,
        connect: Callable[[Address], None],
    ) -> None:
        self._session = session
        self._model = session.model
        self._client_protocol = session.client_protocol
        self._parser = parser
        self._frontend = frontend
        self._default = default
        self._connect = connect
        self._lines: deque[Line | EndOfInput] = deque()
        # What was typed as a password, perhaps before it was asked for.
        self._secrets: deque[Line] = deque()
        self._is_leaving = False
        self._was_interrupted = False
        # Is there a message of which nobody knows whether it was stored?
        self._has_doubts = False
        self._was_asked = False
        self._denials = 0
        # Of a new name, the password that is still to be typed a second time.
        self._is_new_name = False
        self._chosen: str | None = None
        # What was typed so far to change the password; and the new one, while it is not known whether it is that.
        self._change: list[str] | None = None
        self._new_password: str | None = None
        # Was the name refused? Another one is asked for when the connection has ended.
        self._is_renaming = False
        # Was it told that the connection is lost, and that a guest can't come back? Once is enough.
        self._has_told_loss = self._has_told_error = False
        # Has the connection gone while the person thought of a password? A new one is tried with it.
        self._is_late = False
        # Is the person waiting for the server's leave to go on, and was the person asked for the next operation?
        self._is_opening = False
        self._was_prompted = False
        # What to ask again after an answer or a lost connection: the next line is the answer to it.
        self._question = ""
        self.exit: Exit | None = None

    @property
    def _server_question(self) -> str:
        return f"server, HOST or HOST PORT ({self._default[0]} {self._default[1]})"

    def begin(self) -> None:
        """Connect, or ask first where the server is and who it is."""
        self._begin()
        self._frontend.update(self._ui_state())

    def _begin(self) -> None:
        model = self._model
        if model.server is None:
            model.connection_state = ConnectionState.UNPLACED
            self._ask(self._server_question)
        elif model.username:
            self._take_username(model.username)
        else:
            self._ask_username()

    def react(self, given: Input) -> None:
        """Take one input. Afterwards :attr:`exit` is set if that was the last one."""
        match given:
            case Line() | EndOfInput():
                self._take_parsed(given)
            case Interrupt():
                self._on_interrupt()
            case LinkUp() | LinkDown() | LinkLost():
                self._on_signal(given)
            case _:
                self._tell(self._session.handle_event(given))
        self._parser.names = self._model.online
        self._parser.correspondent = self._model.correspondent
        self._prompt()
        while self.exit is None and (line := self._next_line()) is not None:
            self._on_line(line)
            self._prompt()
        if self._model.connection_state is ConnectionState.AWAY and self._only_wants_to_leave():
            self.exit = Exit.OK
        self._frontend.update(self._ui_state())

    def _take_parsed(self, given: Line | EndOfInput) -> None:
        """A line waits for its turn. A person need not wait to leave, nor for what the server is not needed for."""
        connection_state = self._model.connection_state
        is_parsed_ahead = self._frontend.tells_secrets and self._may_be_secret()
        if isinstance(given, Line) and (given.is_secret or is_parsed_ahead):
            self._secrets.append(given)
            return
        if isinstance(given, EndOfInput) and self._frontend.tells_secrets and connection_state is ConnectionState.ASKED:
            self._leave()
            return
        if isinstance(given, EndOfInput):
            self._change = None
        if self._frontend.is_person and connection_state in (ConnectionState.AWAY, ConnectionState.KNOCKING):
            if isinstance(given, EndOfInput) or self._parser.is_leave(given.text):
                self._on_interrupt()
                return
            if not self._lines and self._model.has_been_in and self._parser.is_local(given.text):
                self._on_line(given)
                return
        self._lines.append(given)

    def _next_line(self) -> Line | EndOfInput | None:
        """The typed line that can be used now."""
        if self._frontend.tells_secrets and (
            self._model.connection_state is ConnectionState.ASKED or self._change is not None
        ):
            return self._secrets.popleft() if self._secrets else None
        return self._lines.popleft() if self._lines and self._is_ready() else None

    def _is_ready(self) -> bool:
        """Can a typed line be used now?"""
        if self._model.connection_state in _ASKING:
            return True
        return self._session.is_ready and not self._is_leaving

    def _ui_state(self) -> UiState:
        model = self._model
        question = self._question if self._parser.due is not Due.OPERATION else ""
        if model.connection_state is ConnectionState.UNPLACED:
            question = self._server_question
        elif self._change is not None:
            question = _CHANGE_QUESTIONS[len(self._change)]
        elif model.connection_state in _QUESTIONS:
            question = _QUESTIONS[model.connection_state] if self._chosen is None else _AGAIN
        return UiState(
            model.connection_state,
            model.username,
            model.server,
            None if self._client_protocol.is_stepwise else model.online_count,
            question,
            self._may_be_secret(),
            tuple(line.text for line in self._lines if isinstance(line, Line)),
            tuple(model.unconfirmed.values()),
        )

    def _may_be_secret(self) -> bool:
        """Is a password what is typed now, or about to be asked for, so that somebody may type it already?"""
        model = self._model
        if self._change is not None:
            return True
        if model.has_been_in or self._client_protocol.is_guest:
            return False
        is_underway = model.connection_state in (ConnectionState.AWAY, ConnectionState.KNOCKING)
        return model.connection_state is ConnectionState.ASKED or (
            is_underway and (self._was_asked or model.password is None)
        )

    def _prompt(self) -> None:
        """Where one operation is done before the next one, ask for the next."""
        is_due = self._client_protocol.is_stepwise and self._parser.due is Due.OPERATION
        if (
            is_due
            and not self._was_prompted
            and self._model.connection_state is ConnectionState.IN
            and self._is_ready()
        ):
            self._was_prompted = True
            self._ask(self._parser.prompt())

    def _only_wants_to_leave(self) -> bool:
        """Is there nothing to come back to the server for?"""
        if not self._model.has_been_in or self._model.unconfirmed or not self._lines:
            return False
        first = self._lines[0]
        return isinstance(first, EndOfInput) or self._parser.is_leave(first.text)

    def _on_interrupt(self) -> None:
        """Say goodbye where somebody hears it; otherwise end at once."""
        if self._model.connection_state is ConnectionState.IN:
            self._was_interrupted = True
            self._leave()
            return
        nothing_lost = not self._say_what_is_lost()
        self.exit = Exit.OK if nothing_lost and self._model.has_been_in else Exit.LOST

    # --- the connection ---

    def _on_signal(self, signal: Signal) -> None:
        match signal:
            case LinkUp(link):
                self._was_asked = self._was_prompted = False
                self._denials = 0
                self._tell(self._session.log_in(link))
            case LinkDown() | LinkLost() if self._is_thinking():
                self._is_late = True
            case LinkDown(reason):
                self._on_down(reason)
            case LinkLost() if self._is_renaming:
                self._is_renaming = False
                self._ask_username()
            case LinkLost(reason):
                self._report_error("lost", reason)
                self._say_what_is_lost()
                self.exit = Exit.LOST

    def _on_down(self, reason: str) -> None:
        model = self._model
        if self._is_renaming:
            return
        if self._is_leaving and not model.unconfirmed:
            self.exit = Exit.LOST if self._was_interrupted and self._say_what_is_lost() else Exit.OK
            return
        if not model.has_been_in:
            self._report_error("lost", reason)
            self._say_what_is_lost()
            self.exit = Exit.REFUSED if self._denials else Exit.LOST
            return
        self._session.connection_lost()
        self._is_opening = False
        self._change = None
        if not self._has_told_loss:
            self._has_told_loss = True
            self._frontend.display([ConnectionLost(reason)])

    # --- what arrived ---

    def _tell(self, news: Iterable[ClientEvent]) -> None:
        """What somebody wishes because of the news goes out behind."""
        for event in news:
            self._on_news(event)

    def _on_news(self, event: ClientEvent) -> None:
        is_in = self._model.connection_state is ConnectionState.IN
        match event:
            case PasswordPrompt() if not is_in:  # else what is typed next is a message
                self._on_prompt(event)
            case Welcome():
                self._on_welcome(event)
            case Refused() if not is_in:
                self._on_login_refused(event)
            case PasswordChanged():
                self._model.password, self._new_password = self._new_password or self._model.password, None
                self._frontend.display([event])
            case Bye() if self._is_leaving:
                self._on_bye(event)
            case Users():
                self._on_arrivals(event)
            case Ready() | Online():
                self._on_go_on(event)
            case Refused(nonce=None) if self._is_opening:
                self._is_opening = False
                self._frontend.display([event])
                self._question = self._parser.refuse()
                self._ask(self._question)
            case _:
                self._has_doubts |= isinstance(event, DeliveryUnknown)
                self._frontend.display([event])

    def _on_prompt(self, event: PasswordPrompt) -> None:
        self._was_asked = True
        self._is_new_name = event.account is AccountKind.NEW and self._frontend.tells_secrets
        if not self._is_new_name:
            self._chosen = None
        self._question = f"password {event.account}"
        self._ask_password()

    def _on_welcome(self, event: Welcome) -> None:
        model = self._model
        self._has_told_loss = self._has_told_error = False
        self._secrets.clear()
        if model.has_been_in:
            self._frontend.display([Reconnected(event.username, event.last_id)])
        else:
            model.has_been_in = True
            self._welcome(event)
        if self._is_leaving:
            self._action(Leave())
        elif self._parser.due is not Due.OPERATION:
            self._ask(self._question)

    def _welcome(self, event: Welcome) -> None:
        self._frontend.display([event])
        if self._frontend.is_person:
            self._frontend.display([Help((self._parser.hint(),))])
        recent = self._frontend.recent_messages
        if recent and not self._client_protocol.is_guest and not self._is_leaving:
            self._action(AskHistory(recent))

    def _is_thinking(self) -> bool:
        """Is somebody asked for a password, who may take longer for it than the server waits?"""
        return (
            self._frontend.tells_secrets
            and self._model.connection_state is ConnectionState.ASKED
            and not self._model.has_been_in
        )

    def _on_login_refused(self, event: Refused) -> None:
        if self._is_renaming:  # on a connection that is given up
            return
        if event.code is ErrorCode.NOT_LOGGED_IN and self._is_thinking():
            return
        if event.code is ErrorCode.WRONG_PASSWORD and self._new_password is not None:
            # The connection was lost before it was said that the password was changed.
            self._model.password, self._new_password = self._new_password, None
            self._session.shut()
            return
        if self._model.has_been_in and self._session.passes(event):
            if not self._has_told_error:
                self._has_told_error = True
                self._frontend.display([event])
            self._session.shut()
            return
        self._frontend.display([event])
        self._denials += event.code is ErrorCode.WRONG_PASSWORD
        if event.code in _CORRECTABLE and self._was_asked and self._denials < LOGIN_ATTEMPTS_MAX:
            self._ask_password()
        elif self._client_protocol.is_guest and event.code is ErrorCode.BAD_USERNAME:
            self._denials += 1
            self._is_renaming = True
            self._session.shut()
        elif event.code in _LOGIN_REFUSALS or self._client_protocol.is_guest:
            self.exit = Exit.REFUSED
        elif not self._model.has_been_in:
            self.exit = Exit.LOST

    def _on_go_on(self, event: Ready | Online) -> None:
        """The answer to what was asked; the person can go on."""
        self._is_opening = False
        self._frontend.display([event])
        self._ask(self._question)

    def _on_arrivals(self, event: Users) -> None:
        """Its own arrival is no news to a client."""
        joined = tuple(name for name in event.joined if name != self._model.username)
        if joined or event.left:
            self._frontend.display([Users(event.count, event.users, joined, event.left)])

    def _on_bye(self, event: Bye) -> None:
        """The server answered our goodbye, and everything before it."""
        self._frontend.display([event])
        if not self._was_interrupted:
            self._lines.clear()  # typed after the goodbye
        self.exit = Exit.LOST if self._say_what_is_lost() or self._has_doubts else Exit.OK

    def _say_what_is_lost(self) -> int:
        """How much was typed and not sent, or sent and not confirmed."""
        waiting = (line for line in self._lines if isinstance(line, Line))
        unsent = sum(not self._parser.is_leave(line.text) for line in waiting)
        unconfirmed = unsent + len(self._model.unconfirmed)
        if unconfirmed:
            what = "1 typed line was" if unconfirmed == 1 else f"{unconfirmed} typed lines were"
            texts = [line.text for line in self._lines if isinstance(line, Line)]
            texts = (
                [*(said.text for said in self._model.unconfirmed.values()), *texts]
                if self._frontend.tells_secrets
                else []
            )
            self._report_error("lost", "\n".join([f"{what} not confirmed", *texts]))
        return unconfirmed

    # --- what was typed ---

    def _on_line(self, line: Line | EndOfInput) -> None:
        if isinstance(line, EndOfInput):
            self._leave()
            return
        self._frontend.took_line()
        connection_state = self._model.connection_state
        if line.is_played:
            is_secret = connection_state is ConnectionState.ASKED or self._change is not None
            self._frontend.display([ScriptLine("***" if is_secret else line.text)])
        if connection_state in (ConnectionState.UNPLACED, ConnectionState.UNNAMED) and self._parser.is_farewell(
            line.text
        ):
            self._leave()
        elif connection_state is ConnectionState.UNPLACED:
            self._take_server(line.text)
        elif connection_state is ConnectionState.UNNAMED:
            self._take_username(line.text.strip())
        elif connection_state is ConnectionState.ASKED:
            self._take_password(line)
        elif self._change is not None:
            self._take_change([*self._change, line.text])
        else:
            self._was_prompted = False
            self._do(self._parser.parse_line(line.text))

    def _take_password(self, line: Line) -> None:
        if self._is_late:
            self._is_late = False
            self._model.password = None
            self._secrets.appendleft(line)  # for when it is asked for anew
            self._take_username(self._model.username)
            return
        if self._is_new_name and line.text:
            if self._chosen is None:  # what nobody saw being typed may be misspelt, and nobody could log in with it
                self._chosen = line.text
                self._frontend.ask_password()
                self._ask(_AGAIN)
                return
            chosen, self._chosen = self._chosen, None
            if chosen != line.text:
                self._report_error("usage", "The two passwords differ; choose one again.")
                self._ask_password()
                return
        self._model.password = line.text
        self._model.connection_state = ConnectionState.KNOCKING
        self._action(Password(line.text))

    def _take_change(self, parsed: list[str]) -> None:
        """One more of the passwords that a change needs. An empty line cancels it."""
        self._change = None
        needed = len(_CHANGE_QUESTIONS) if self._frontend.tells_secrets else len(_CHANGE_QUESTIONS) - 1
        if not parsed[-1]:
            self._report_error("usage", "Nothing was typed; the password was not changed.")
        elif len(parsed) < needed:
            self._ask_change(parsed)
        elif parsed[-1] != parsed[1]:
            self._report_error("usage", "The two new passwords differ; the password was not changed.")
        else:
            self._new_password = parsed[1]
            self._action(ChangePassword(parsed[0], parsed[1]))

    def _ask_change(self, parsed: list[str]) -> None:
        self._change = parsed
        self._frontend.ask_password()
        self._ask(_CHANGE_QUESTIONS[len(parsed)])

    def _take_server(self, line: str) -> None:
        try:
            self._model.server = read_address(line, self._default)
        except RequestError as error:
            self._report_error("usage", error.reason)
        self._begin()

    def _take_username(self, username: str) -> None:
        try:
            check_username(username)
        except RequestError as error:
            self._report_error(error.code, error.reason)
            self._ask_username()
            return
        assert self._model.server is not None
        self._model.username = username
        self._model.connection_state = ConnectionState.AWAY
        self._connect(self._model.server)

    def _ask_username(self) -> None:
        self._model.connection_state = ConnectionState.UNNAMED
        self._ask("username")

    def _do(self, parsed: ParsedInput) -> None:
        if parsed.error:
            self._report_error("usage", parsed.error)
        if parsed.wants_help:
            self._frontend.display([Help(tuple(self._parser.help()))])
        if parsed.changes_password:
            self._ask_change([])
        if parsed.toggle:
            self._frontend.display([Toggle(parsed.toggle)])
        self._question = parsed.question or ""
        match parsed.action:
            case None:
                self._ask(self._question)
            case Leave():
                self._leave()
            case Say() | Whisper() as said:
                self._post(said)
            case action:
                self._is_opening = bool(self._question)
                self._action(action)

    def _post(self, said: Say | Whisper) -> None:
        """Send a message, and again after a lost connection, until it is confirmed."""
        try:
            said = self._session.prepare(said)
        except RequestError as error:
            self._report_error(error.code, error.reason)
            return
        self._frontend.display([MessageQueued(said)])
        self._action(said)

    def _action(self, action: Action) -> None:
        self._tell(self._session.request(action))

    def _ask_password(self) -> None:
        self._model.connection_state = ConnectionState.ASKED
        self._frontend.ask_password()
        self._ask(self._question)

    def _ask(self, question: str) -> None:
        if question:
            self._frontend.display([Ask(question)])

    def _report_error(self, code: str, text: str) -> None:
        self._frontend.display([ErrorNotice(code, text)])

    def _leave(self) -> None:
        self._is_leaving = True
        match self._model.connection_state:
            case ConnectionState.ASKED:
                self._report_error("refused", "the input ended before the password was given")
                self.exit = Exit.REFUSED
            case ConnectionState.UNPLACED | ConnectionState.UNNAMED:
                what = "server" if self._model.server is None else "username"
                self._report_error("usage", f"the input ended before the {what} was given")
                self.exit = Exit.REFUSED if self._denials else Exit.USAGE
            case _:
                self._action(Leave())
