"""The controller of the command line client: handles typed lines, server events and connection signals in order.

Threads. One thread, the controller thread (App._react), calls Controller.begin and then Controller.react, one input at
a time. The inputs come from one queue, the Inbox of ChatClient:

    main thread      Frontend.run or script.play    -> Line, EndOfInput, Interrupt
    receiver thread  links.connection.Connection    -> Event, LinkUp, LinkDown, LinkLost

The controller thread alone changes Controller, ClientSession, Model and InputParser, so none of them has a lock. Other
threads read some of their attributes; each such read is explained at the attribute or property (session.py, exit
below, InputParser).

States. Model.connection_state:

    UNPLACED  --server typed-------------> UNNAMED, or AWAY if the user is known
    UNNAMED   --valid username typed-----> AWAY; connect() starts the receiver thread
    AWAY      --LinkUp-------------------> KNOCKING; the login is sent
    KNOCKING  --PasswordPrompt-----------> ASKED
    KNOCKING  --correctable Refused------> ASKED, if a password was requested before
    KNOCKING  --Refused, guest name------> UNNAMED, after the LinkLost that follows (_is_renaming)
    ASKED     --password typed-----------> KNOCKING; a new account types it twice (_chosen)
    KNOCKING, ASKED  --Welcome-----------> IN (Model.apply)
    KNOCKING, ASKED, IN  --LinkDown------> AWAY, if the user was logged in before

The client ends when exit is set. Reasons: Bye after the goodbye; LinkLost; LinkDown before the first login or during
the goodbye; a final login error; an interrupt or the end of input outside of IN.

Typed lines. A line is used when the state allows it: in UNPLACED, UNNAMED and ASKED it is the answer to the question,
in IN it is an operation once ClientSession.is_ready. Until then it waits in _lines. react() handles its input and then
uses waiting lines until one has to wait, so lines are used in the order in which they were typed. Passwords typed at a
terminal wait in _secrets instead, so that a password is never sent or shown as a message.

A connection that is lost while the user is typing a password is not reported (_is_thinking). _is_late records it, and
the password is then used on a new connection.
"""

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

# Login errors after which the password is requested again.
_CORRECTABLE = frozenset({ErrorCode.WRONG_PASSWORD, ErrorCode.BAD_REQUEST})
# Login errors after which the same login can't succeed.
_LOGIN_REFUSALS = frozenset(
    {
        ErrorCode.BAD_REQUEST,
        ErrorCode.BAD_USERNAME,
        ErrorCode.WRONG_PASSWORD,
        ErrorCode.TOO_MANY_ATTEMPTS,
        ErrorCode.TOO_LONG,
    }
)
# The questions before the login.
_QUESTIONS = {ConnectionState.UNNAMED: "username", ConnectionState.ASKED: "password"}
# The questions of a password change, in order. A frontend that does not hide passwords (a pipe) skips the last one.
_CHANGE_QUESTIONS = ("old password", "new password", "new password again")
_AGAIN = "password again"
# States in which a typed line answers a question.
_ASKING = frozenset({ConnectionState.UNPLACED, *_QUESTIONS})


class Line(NamedTuple):
    """A line, typed or from a script. The controller displays script lines, because no terminal echoed them."""

    text: str
    is_played: bool = False
    # True if the password prompt was active. The line is then used only as a password.
    is_secret: bool = False


class EndOfInput(NamedTuple):
    """The end of the input."""


class Interrupt(NamedTuple):
    """A request to end now: a signal, a failed script, or a failure of the main thread."""


Input = Line | EndOfInput | Interrupt | Event | LinkUp | LinkDown | LinkLost


class Frontend(Protocol):
    """The user interface. The controller thread calls all methods."""

    @property
    def is_person(self) -> bool:
        """True if a person reads the output and may need a hint."""

    @property
    def tells_secrets(self) -> bool:
        """True if Line.is_secret marks passwords. Otherwise the next line is the password, whenever it was typed."""

    @property
    def recent_messages(self) -> int:
        """Number of recent messages to request after the first login; 0 for none."""

    def display(self, shown: Sequence[ClientEvent | UiNotice]) -> None:
        """Show events and notices."""

    def ask_password(self) -> None:
        """Prepare for a password: the next line is not echoed."""

    def took_line(self) -> None:
        """Called for each typed line that was used. A frontend that limits its read-ahead may read one more."""

    def update(self, ui_state: UiState) -> None:
        """Show the new state. Called after every input."""


class Controller:
    """Decides what is requested from the server and what is shown. For states and threads see the module.

    Call :meth:`begin` once, then :meth:`react` for each input until :attr:`exit` is set, all in one thread.

    ``connect`` is called when the server and the username are known. ``default`` completes a typed server address.
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
        # Typed passwords, perhaps from before the prompt.
        self._secrets: deque[Line] = deque()
        self._is_leaving = False
        self._was_interrupted = False
        # True if the delivery of a message is unknown. The exit code is LOST then.
        self._has_doubts = False
        self._was_asked = False
        self._denials = 0
        # A new account types its password twice. _chosen is the first input until the second one is typed.
        self._is_new_name = False
        self._chosen: str | None = None
        # Input of the current password change, or None. _new_password is the new password until the server confirms it.
        self._change: list[str] | None = None
        self._new_password: str | None = None
        # True if the guest name was rejected. A new name is requested when the connection has ended.
        self._is_renaming = False
        # True if the lost connection, or the rejected login after it, was already shown. Each is shown once per outage.
        self._has_told_loss = self._has_told_error = False
        # True if the connection was lost during the password prompt. The typed password is used on a new connection.
        self._is_late = False
        # _is_opening: the parser's next question waits for the server's answer. _was_prompted: "operation" was shown.
        self._is_opening = False
        self._was_prompted = False
        # The parser's current question, shown after the server's answer and again after a reconnect.
        self._question = ""
        # Set by the controller thread. App.run reads it in the main thread without a lock: after a failed script, to
        # see whether the client was still running (in a race either answer is right), and after the join.
        self.exit: Exit | None = None

    @property
    def _server_question(self) -> str:
        return f"server, HOST or HOST PORT ({self._default[0]} {self._default[1]})"

    def begin(self) -> None:
        """Connect, or first ask for the server and the username."""
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
        """Handle one input, then all waiting lines that can be used. Sets :attr:`exit` if the client must end."""
        match given:
            case Line() | EndOfInput():
                self._take_input(given)
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

    def _take_input(self, given: Line | EndOfInput) -> None:
        """Queue a line. A person who is not connected can leave, and use local commands, without waiting."""
        connection_state = self._model.connection_state
        is_typed_ahead = self._frontend.tells_secrets and self._may_be_secret()
        if isinstance(given, Line) and (given.is_secret or is_typed_ahead):
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
        """Remove and return the next line that can be used now, or None."""
        if self._frontend.tells_secrets and (
            self._model.connection_state is ConnectionState.ASKED or self._change is not None
        ):
            return self._secrets.popleft() if self._secrets else None
        return self._lines.popleft() if self._lines and self._is_ready() else None

    def _is_ready(self) -> bool:
        """True if a typed line can be used now."""
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
        """True if the current input is a password, or may be one because the password prompt can follow soon."""
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
        """Ask for the next operation once, in protocols that run one operation at a time."""
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
        """True if the next line only leaves and no message is unconfirmed: reconnecting has no purpose."""
        if not self._model.has_been_in or self._model.unconfirmed or not self._lines:
            return False
        first = self._lines[0]
        return isinstance(first, EndOfInput) or self._parser.is_leave(first.text)

    def _on_interrupt(self) -> None:
        """Say goodbye if logged in; otherwise end immediately."""
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
        """Handle the events in order. Requests that they cause are sent in between."""
        for event in news:
            self._on_news(event)

    def _on_news(self, event: ClientEvent) -> None:
        is_in = self._model.connection_state is ConnectionState.IN
        match event:
            case PasswordPrompt() if not is_in:  # if logged in, the next line is a message and must not be hidden
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
        """True if a person is typing a password before the first login. It may take longer than the server waits."""
        return (
            self._frontend.tells_secrets
            and self._model.connection_state is ConnectionState.ASKED
            and not self._model.has_been_in
        )

    def _on_login_refused(self, event: Refused) -> None:
        if self._is_renaming:  # this connection is closing
            return
        if event.code is ErrorCode.NOT_LOGGED_IN and self._is_thinking():
            return
        if event.code is ErrorCode.WRONG_PASSWORD and self._new_password is not None:
            # The connection was lost before the confirmation of a password change: try the other password.
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
        """Show the answer, and ask the next question."""
        self._is_opening = False
        self._frontend.display([event])
        self._ask(self._question)

    def _on_arrivals(self, event: Users) -> None:
        """Show other users who joined or left. The user's own arrival is not shown."""
        joined = tuple(name for name in event.joined if name != self._model.username)
        if joined or event.left:
            self._frontend.display([Users(event.count, event.users, joined, event.left)])

    def _on_bye(self, event: Bye) -> None:
        """The server answered the goodbye, so it has answered everything sent before it."""
        self._frontend.display([event])
        if not self._was_interrupted:
            self._lines.clear()  # typed after the goodbye
        self.exit = Exit.LOST if self._say_what_is_lost() or self._has_doubts else Exit.OK

    def _say_what_is_lost(self) -> int:
        """Report lines that were not sent or not confirmed. Returns their number."""
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
            self._secrets.appendleft(line)  # used at the next password prompt
            self._take_username(self._model.username)
            return
        if self._is_new_name and line.text:
            if self._chosen is None:  # a hidden password may contain a typing error, so it is typed twice
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
        """Handle one of the inputs of a password change. An empty line cancels."""
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
        """Send a message. The session sends it again after a lost connection, until it is confirmed."""
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
