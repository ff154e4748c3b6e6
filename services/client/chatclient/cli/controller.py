"""The controller of the command line client: handles typed lines, server events and connection signals in order.

Threads. One thread, the controller thread (App._run_controller), calls Controller.begin and then Controller.react, one
input at a time. The inputs come from one queue, the Inbox of ChatClient:

    main thread      Frontend.run or script.play    -> Line, EndOfInput, Interrupt
    receiver thread  links.connection.Connection    -> Event, LinkUp, LinkDown, LinkLost

Only the controller thread changes Controller, ClientSession, Model and InputParser, so these have no locks. Other
threads read some of their attributes. Each such attribute or property has a comment about these reads (session.py,
``exit`` below, InputParser).

States. Model.connection_state:

    NO_SERVER           --server typed-------------> NO_NAME, or DISCONNECTED if the user is known
    NO_NAME             --valid username typed-----> DISCONNECTED; connect() starts the receiver thread
    DISCONNECTED        --LinkUp-------------------> LOGGING_IN; the login is sent
    LOGGING_IN          --PasswordPrompt-----------> PASSWORD_REQUESTED
    LOGGING_IN          --correctable Refused------> PASSWORD_REQUESTED, if a password was requested before
    LOGGING_IN          --Refused, guest name------> NO_NAME, after the LinkLost that follows (_is_renaming)
    PASSWORD_REQUESTED  --password typed-----------> LOGGING_IN; a new account types it twice (_first_password)
    LOGGING_IN, PASSWORD_REQUESTED             --Welcome---> LOGGED_IN (Model.apply)
    LOGGING_IN, PASSWORD_REQUESTED, LOGGED_IN  --LinkDown--> DISCONNECTED, if the user was logged in before

The client ends when exit is set. Reasons: Bye after the goodbye; LinkLost; LinkDown before the first login or during
the goodbye; a final login error; an interrupt or the end of input outside of LOGGED_IN.

Typed lines. A line waits in _lines until the state allows its use. In NO_SERVER, NO_NAME and PASSWORD_REQUESTED the
line is the answer to the question. In LOGGED_IN it is an operation, and is used while ClientSession.is_ready. react()
handles its input and then uses waiting lines until one has to wait, so lines are used in the order in which they were
typed. Passwords that are typed at a terminal wait in _secrets, so that a password is never sent or shown as a message.

If the connection is lost while the user is typing a password (_is_typing_password), the loss is not reported.
_password_is_late is set, and the password is used on a new connection.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

from chatclient.cli.exits import Exit
from chatclient.cli.input import LineMeaning
from chatclient.client_protocol import DeliveryUnknown
from chatclient.links.connection import LinkDown, LinkLost, LinkUp
from chatclient.model import ConnectionState, UiState
from chatclient.notices import (
    ASK_USERNAME,
    Ask,
    Asked,
    ConnectionLost,
    ErrorNotice,
    Help,
    MessageQueued,
    Question,
    Reconnected,
    ScriptLine,
    Toggle,
)
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
_FINAL_LOGIN_ERRORS = frozenset(
    {
        ErrorCode.BAD_REQUEST,
        ErrorCode.BAD_USERNAME,
        ErrorCode.WRONG_PASSWORD,
        ErrorCode.TOO_MANY_ATTEMPTS,
        ErrorCode.TOO_LONG,
    }
)
# The questions for the password of an account, and for that of a new one.
_PASSWORD = Question(Asked.PASSWORD, "password existing")
_PASSWORD_NEW_ACCOUNT = Question(Asked.PASSWORD_NEW_ACCOUNT, "password new")
_PASSWORD_AGAIN = Question(Asked.PASSWORD_AGAIN, "password again")
# The questions of a password change, in order. Without hidden input (a pipe), the last question is skipped.
_CHANGE_QUESTIONS = (
    Question(Asked.CHANGE_OLD, "old password"),
    Question(Asked.CHANGE_NEW, "new password"),
    Question(Asked.CHANGE_AGAIN, "new password again"),
)
# States in which a typed line answers a question.
_ASKING = frozenset({ConnectionState.NO_SERVER, ConnectionState.NO_NAME, ConnectionState.PASSWORD_REQUESTED})


class Line(NamedTuple):
    """A line, typed or from a script. The controller displays script lines, because no terminal echoed them."""

    text: str
    is_from_script: bool = False
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
    def marks_passwords(self) -> bool:
        """True if Line.is_secret marks passwords. Otherwise the next line is the password, even if typed earlier."""

    @property
    def recent_messages(self) -> int:
        """Number of recent messages to request after the first login; 0 for none."""

    def display(self, shown: Sequence[ClientEvent | UiNotice]) -> None:
        """Show events and notices."""

    def ask_password(self) -> None:
        """Prepare for a password: the next line is not echoed."""

    def line_used(self) -> None:
        """Called for each typed line that was used. A frontend with a limit of unused lines may then read one more."""

    def update(self, ui_state: UiState) -> None:
        """Show the new state. Called after every input."""


class Controller:
    """Decides about requests to the server and about the output. The module's docstring has the states and threads.

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
        self._delivery_unknown = False
        self._was_asked = False
        self._login_refusals = 0
        # A new account types its password twice. _first_password is the first input until the second one is typed.
        self._is_new_name = False
        self._first_password: str | None = None
        # Input of the current password change, or None. _new_password is the new password until the server confirms it.
        self._change: list[str] | None = None
        self._new_password: str | None = None
        # True if the guest name was rejected. A new name is requested when the connection has ended.
        self._is_renaming = False
        # True if the lost connection, or the rejected login after it, was already shown. Each is shown once per outage.
        self._loss_shown = self._error_shown = False
        # True if the connection was lost during the password prompt. The typed password is used on a new connection.
        self._password_is_late = False
        # _is_opening: the parser's next question waits for the server's answer. _was_prompted: "operation" was shown.
        self._is_opening = False
        self._was_prompted = False
        # The parser's current question, shown after the server's answer and again after a reconnect.
        self._question: Question | None = None
        # Set by the controller thread. App.run reads it in the main thread without a lock: after the join, and after a
        # failed script, if the client had not ended before. In a race both answers are right.
        self.exit: Exit | None = None

    @property
    def _server_question(self) -> Question:
        return Question(Asked.SERVER, f"server, HOST or HOST PORT ({self._default[0]} {self._default[1]})")

    def begin(self) -> None:
        """Connect, or first ask for the server and the username."""
        self._begin()
        self._frontend.update(self._ui_state())

    def _begin(self) -> None:
        model = self._model
        if model.server is None:
            model.connection_state = ConnectionState.NO_SERVER
            self._ask(self._server_question)
        elif model.username:
            self._use_username(model.username)
        else:
            self._ask_username()

    def react(self, item: Input) -> None:
        """Handle one input, then all waiting lines that can be used. Sets :attr:`exit` if the client must end."""
        match item:
            case Line() | EndOfInput():
                self._queue_input(item)
            case Interrupt():
                self._on_interrupt()
            case LinkUp() | LinkDown() | LinkLost():
                self._on_signal(item)
            case _:
                self._handle_events(self._session.handle_event(item))
        self._parser.names = self._model.online
        self._parser.last_sender = self._model.last_sender
        self._ask_operation()
        while self.exit is None and (line := self._next_line()) is not None:
            self._on_line(line)
            self._ask_operation()
        if self._model.connection_state is ConnectionState.DISCONNECTED and self._only_leave_waits():
            self.exit = Exit.OK
        self._frontend.update(self._ui_state())

    def _queue_input(self, item: Line | EndOfInput) -> None:
        """Queue a line. A person who is not connected can leave, and use local commands, without waiting."""
        connection_state = self._model.connection_state
        is_typed_ahead = self._frontend.marks_passwords and self._may_be_secret()
        if isinstance(item, Line) and (item.is_secret or is_typed_ahead):
            self._secrets.append(item)
            return
        if (
            isinstance(item, EndOfInput)
            and self._frontend.marks_passwords
            and connection_state is ConnectionState.PASSWORD_REQUESTED
        ):
            self._leave()
            return
        if isinstance(item, EndOfInput):
            self._change = None
        if self._frontend.is_person and connection_state in (ConnectionState.DISCONNECTED, ConnectionState.LOGGING_IN):
            if isinstance(item, EndOfInput) or self._parser.is_leave(item.text):
                self._on_interrupt()
                return
            if not self._lines and self._model.was_logged_in and self._parser.is_local(item.text):
                self._on_line(item)
                return
        self._lines.append(item)

    def _next_line(self) -> Line | EndOfInput | None:
        """Remove and return the next line that can be used now, or None."""
        if self._frontend.marks_passwords and (
            self._model.connection_state is ConnectionState.PASSWORD_REQUESTED or self._change is not None
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
        question = self._question if self._parser.next_line is not LineMeaning.OPERATION else None
        if model.connection_state is ConnectionState.NO_SERVER:
            question = self._server_question
        elif self._change is not None:
            question = _CHANGE_QUESTIONS[len(self._change)]
        elif model.connection_state is ConnectionState.NO_NAME:
            question = ASK_USERNAME
        elif model.connection_state is ConnectionState.PASSWORD_REQUESTED:
            question = self._question if self._first_password is None else _PASSWORD_AGAIN
        return UiState(
            model.connection_state,
            model.username,
            model.server,
            None if self._client_protocol.is_stepwise else model.online_count,
            question,
            self._may_be_secret(),
            tuple(line.text for line in self._lines if isinstance(line, Line)),
            tuple(model.unconfirmed.values()),
            model.was_logged_in,
        )

    def _may_be_secret(self) -> bool:
        """True if the current input is a password, or may be one because the password prompt can follow soon."""
        model = self._model
        if self._change is not None:
            return True
        if model.was_logged_in or self._client_protocol.is_guest:
            return False
        is_underway = model.connection_state in (ConnectionState.DISCONNECTED, ConnectionState.LOGGING_IN)
        return model.connection_state is ConnectionState.PASSWORD_REQUESTED or (
            is_underway and (self._was_asked or model.password is None)
        )

    def _ask_operation(self) -> None:
        """Ask for the next operation once, in protocols that run one operation at a time."""
        expects_operation = self._client_protocol.is_stepwise and self._parser.next_line is LineMeaning.OPERATION
        if (
            expects_operation
            and not self._was_prompted
            and self._model.connection_state is ConnectionState.LOGGED_IN
            and self._is_ready()
        ):
            self._was_prompted = True
            self._ask(self._parser.prompt())

    def _only_leave_waits(self) -> bool:
        """True if the next line only leaves and no message is unconfirmed: reconnecting has no purpose."""
        if not self._model.was_logged_in or self._model.unconfirmed or not self._lines:
            return False
        first = self._lines[0]
        return isinstance(first, EndOfInput) or self._parser.is_leave(first.text)

    def _on_interrupt(self) -> None:
        """Say goodbye if logged in; otherwise end immediately."""
        if self._model.connection_state is ConnectionState.LOGGED_IN:
            self._was_interrupted = True
            self._leave()
            return
        nothing_lost = not self._report_unsent()
        self.exit = Exit.OK if nothing_lost and self._model.was_logged_in else Exit.LOST

    # --- the connection ---

    def _on_signal(self, signal: Signal) -> None:
        match signal:
            case LinkUp(link):
                self._was_asked = self._was_prompted = False
                self._login_refusals = 0
                self._handle_events(self._session.log_in(link))
            case LinkDown() | LinkLost() if self._is_typing_password():
                self._password_is_late = True
            case LinkDown(reason):
                self._on_link_down(reason)
            case LinkLost() if self._is_renaming:
                self._is_renaming = False
                self._ask_username()
            case LinkLost(reason):
                self._report_error("lost", reason)
                self._report_unsent()
                self.exit = Exit.LOST

    def _on_link_down(self, reason: str) -> None:
        model = self._model
        if self._is_renaming:
            return
        if self._is_leaving and not model.unconfirmed:
            self.exit = Exit.LOST if self._was_interrupted and self._report_unsent() else Exit.OK
            return
        if not model.was_logged_in:
            self._report_error("lost", reason)
            self._report_unsent()
            self.exit = Exit.REFUSED if self._login_refusals else Exit.LOST
            return
        self._session.connection_lost()
        self._is_opening = False
        self._change = None
        if not self._loss_shown:
            self._loss_shown = True
            self._frontend.display([ConnectionLost(reason)])

    # --- what arrived ---

    def _handle_events(self, events: Iterable[ClientEvent]) -> None:
        """Handle the events in order. Requests that they cause are sent in between."""
        for event in events:
            self._on_event(event)

    def _on_event(self, event: ClientEvent) -> None:
        is_logged_in = self._model.connection_state is ConnectionState.LOGGED_IN
        match event:
            case PasswordPrompt() if not is_logged_in:  # later the next line is a message and must not be hidden
                self._on_prompt(event)
            case Welcome():
                self._on_welcome(event)
            case Refused() if not is_logged_in:
                self._on_login_refused(event)
            case PasswordChanged():
                self._model.password, self._new_password = self._new_password or self._model.password, None
                self._frontend.display([event])
            case Bye() if self._is_leaving:
                self._on_bye(event)
            case Users():
                self._on_users(event)
            case Ready() | Online():
                self._on_step_answer(event)
            case Refused(nonce=None) if self._is_opening:
                self._is_opening = False
                self._frontend.display([event])
                self._question = self._parser.handle_refusal()
                self._ask(self._question)
            case _:
                self._delivery_unknown |= isinstance(event, DeliveryUnknown)
                self._frontend.display([event])

    def _on_prompt(self, event: PasswordPrompt) -> None:
        self._was_asked = True
        self._is_new_name = event.account is AccountKind.NEW and self._frontend.marks_passwords
        if not self._is_new_name:
            self._first_password = None
        self._question = _PASSWORD_NEW_ACCOUNT if event.account is AccountKind.NEW else _PASSWORD
        self._ask_password()

    def _on_welcome(self, event: Welcome) -> None:
        model = self._model
        self._loss_shown = self._error_shown = False
        self._secrets.clear()
        if model.was_logged_in:
            self._frontend.display([Reconnected(event.username, event.last_id)])
        else:
            model.was_logged_in = True
            self._show_welcome(event)
        if self._is_leaving:
            self._request(Leave())
        elif self._parser.next_line is not LineMeaning.OPERATION:
            self._ask(self._question)

    def _show_welcome(self, event: Welcome) -> None:
        self._frontend.display([event])
        if self._frontend.is_person:
            self._frontend.display([Help((self._parser.hint(),))])
        recent = self._frontend.recent_messages
        if recent and not self._client_protocol.is_guest and not self._is_leaving:
            self._request(AskHistory(recent))

    def _is_typing_password(self) -> bool:
        """True if a person is typing a password before the first login. The server may time out before."""
        return (
            self._frontend.marks_passwords
            and self._model.connection_state is ConnectionState.PASSWORD_REQUESTED
            and not self._model.was_logged_in
        )

    def _on_login_refused(self, event: Refused) -> None:
        if self._is_renaming:  # this connection is closing
            return
        if event.code is ErrorCode.NOT_LOGGED_IN and self._is_typing_password():
            return
        if event.code is ErrorCode.WRONG_PASSWORD and self._new_password is not None:
            # The connection was lost before the confirmation of a password change: try the other password.
            self._model.password, self._new_password = self._new_password, None
            self._session.close_link()
            return
        if self._model.was_logged_in and self._session.may_retry(event):
            if not self._error_shown:
                self._error_shown = True
                self._frontend.display([event])
            self._session.close_link()
            return
        self._frontend.display([event])
        self._login_refusals += event.code is ErrorCode.WRONG_PASSWORD
        if event.code in _CORRECTABLE and self._was_asked and self._login_refusals < LOGIN_ATTEMPTS_MAX:
            self._ask_password()
        elif self._client_protocol.is_guest and event.code is ErrorCode.BAD_USERNAME:
            self._login_refusals += 1
            self._is_renaming = True
            self._session.close_link()
        elif event.code in _FINAL_LOGIN_ERRORS or self._client_protocol.is_guest:
            self.exit = Exit.REFUSED
        elif not self._model.was_logged_in:
            self.exit = Exit.LOST

    def _on_step_answer(self, event: Ready | Online) -> None:
        """Show the answer, and ask the next question."""
        self._is_opening = False
        self._frontend.display([event])
        self._ask(self._question)

    def _on_users(self, event: Users) -> None:
        """Show other users who joined or left. The user's own arrival is not shown."""
        joined = tuple(name for name in event.joined if name != self._model.username)
        if joined or event.left:
            self._frontend.display([Users(event.count, event.users, joined, event.left)])

    def _on_bye(self, event: Bye) -> None:
        """End the client. The answer to the goodbye comes after the answers to all earlier requests."""
        self._frontend.display([event])
        if not self._was_interrupted:
            self._lines.clear()  # typed after the goodbye
        self.exit = Exit.LOST if self._report_unsent() or self._delivery_unknown else Exit.OK

    def _report_unsent(self) -> int:
        """Report lines that were not sent or not confirmed. Returns their number."""
        waiting = (line for line in self._lines if isinstance(line, Line))
        unsent = sum(not self._parser.is_leave(line.text) for line in waiting)
        unconfirmed = unsent + len(self._model.unconfirmed)
        if unconfirmed:
            what = "1 typed line was" if unconfirmed == 1 else f"{unconfirmed} typed lines were"
            texts = [line.text for line in self._lines if isinstance(line, Line)]
            texts = (
                [*(message.text for message in self._model.unconfirmed.values()), *texts]
                if self._frontend.marks_passwords
                else []
            )
            self._report_error("lost", "\n".join([f"{what} not confirmed", *texts]))
        return unconfirmed

    # --- what was typed ---

    def _on_line(self, line: Line | EndOfInput) -> None:
        if isinstance(line, EndOfInput):
            self._leave()
            return
        self._frontend.line_used()
        connection_state = self._model.connection_state
        if line.is_from_script:
            is_secret = connection_state is ConnectionState.PASSWORD_REQUESTED or self._change is not None
            self._frontend.display([ScriptLine("***" if is_secret else line.text)])
        if connection_state in (
            ConnectionState.NO_SERVER,
            ConnectionState.NO_NAME,
        ) and self._parser.is_leave_at_question(line.text):
            self._leave()
        elif connection_state is ConnectionState.NO_SERVER:
            self._use_server(line.text)
        elif connection_state is ConnectionState.NO_NAME:
            self._use_username(line.text.strip())
        elif connection_state is ConnectionState.PASSWORD_REQUESTED:
            self._use_password(line)
        elif self._change is not None:
            self._use_password_change([*self._change, line.text])
        else:
            self._was_prompted = False
            self._run_parsed(self._parser.parse_line(line.text))

    def _use_password(self, line: Line) -> None:
        if self._password_is_late:
            self._password_is_late = False
            self._model.password = None
            self._secrets.appendleft(line)  # used at the next password prompt
            self._use_username(self._model.username)
            return
        if self._is_new_name and line.text:
            if self._first_password is None:  # a hidden password may contain a typing error, so it is typed twice
                self._first_password = line.text
                self._frontend.ask_password()
                self._ask(_PASSWORD_AGAIN)
                return
            first_password, self._first_password = self._first_password, None
            if first_password != line.text:
                self._report_error("usage", "The two passwords differ; choose one again.")
                self._ask_password()
                return
        self._model.password = line.text
        self._model.connection_state = ConnectionState.LOGGING_IN
        self._request(Password(line.text))

    def _use_password_change(self, parsed: list[str]) -> None:
        """Handle one of the inputs of a password change. An empty line cancels."""
        self._change = None
        needed = len(_CHANGE_QUESTIONS) if self._frontend.marks_passwords else len(_CHANGE_QUESTIONS) - 1
        if not parsed[-1]:
            self._report_error("usage", "Nothing was typed; the password was not changed.")
        elif len(parsed) < needed:
            self._ask_change(parsed)
        elif parsed[-1] != parsed[1]:
            self._report_error("usage", "The two new passwords differ; the password was not changed.")
        else:
            self._new_password = parsed[1]
            self._request(ChangePassword(parsed[0], parsed[1]))

    def _ask_change(self, parsed: list[str]) -> None:
        self._change = parsed
        self._frontend.ask_password()
        self._ask(_CHANGE_QUESTIONS[len(parsed)])

    def _use_server(self, line: str) -> None:
        try:
            self._model.server = read_address(line, self._default)
        except RequestError as error:
            self._report_error("usage", error.reason)
        self._begin()

    def _use_username(self, username: str) -> None:
        try:
            check_username(username)
        except RequestError as error:
            self._report_error(error.code, error.reason)
            self._ask_username()
            return
        assert self._model.server is not None
        self._model.username = username
        self._model.connection_state = ConnectionState.DISCONNECTED
        self._connect(self._model.server)

    def _ask_username(self) -> None:
        self._model.connection_state = ConnectionState.NO_NAME
        self._ask(ASK_USERNAME)

    def _run_parsed(self, parsed: ParsedInput) -> None:
        if parsed.error:
            self._report_error("usage", parsed.error)
        if parsed.wants_help:
            self._frontend.display([Help(tuple(self._parser.help()))])
        if parsed.changes_password:
            self._ask_change([])
        if parsed.toggle:
            self._frontend.display([Toggle(parsed.toggle)])
        self._question = parsed.question
        match parsed.action:
            case None:
                self._ask(self._question)
            case Leave():
                self._leave()
            case Say() | Whisper() as message:
                self._send_message(message)
            case action:
                self._is_opening = bool(self._question)
                self._request(action)

    def _send_message(self, message: Say | Whisper) -> None:
        """Send a message. The session sends it again after a lost connection, until it is confirmed."""
        try:
            message = self._session.prepare(message)
        except RequestError as error:
            self._report_error(error.code, error.reason)
            return
        self._frontend.display([MessageQueued(message)])
        self._request(message)

    def _request(self, action: Action) -> None:
        self._handle_events(self._session.request(action))

    def _ask_password(self) -> None:
        self._model.connection_state = ConnectionState.PASSWORD_REQUESTED
        self._frontend.ask_password()
        self._ask(self._question)

    def _ask(self, question: Question | None) -> None:
        if question:
            self._frontend.display([Ask(question)])

    def _report_error(self, code: str, text: str) -> None:
        self._frontend.display([ErrorNotice(code, text)])

    def _leave(self) -> None:
        self._is_leaving = True
        match self._model.connection_state:
            case ConnectionState.PASSWORD_REQUESTED:
                self._report_error("refused", "the input ended before the password was given")
                self.exit = Exit.REFUSED
            case ConnectionState.NO_SERVER | ConnectionState.NO_NAME:
                what = "server" if self._model.server is None else "username"
                self._report_error("usage", f"the input ended before the {what} was given")
                self.exit = Exit.REFUSED if self._login_refusals else Exit.USAGE
            case _:
                self._request(Leave())
