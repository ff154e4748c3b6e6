"""The login dialogue: asks the user for the server, the name and the password. Without threads or sockets.

    SERVER          --server typed------------> NAME, or CONNECTING if the name is known
    NAME            --valid name typed--------> CONNECTING
    CONNECTING      --Connected---------------> CONNECTING; the login is sent
    CONNECTING      --PasswordPrompt----------> PASSWORD
    CONNECTING      --password rejected-------> PASSWORD, if it was asked for on this connection
    CONNECTING      --guest's name rejected---> RENAMING; the connection is closed
    RENAMING        --ConnectionEnded---------> NAME
    PASSWORD        --password typed----------> CONNECTING; of a new account at a terminal: PASSWORD_AGAIN
    PASSWORD_AGAIN  --same password typed-----> CONNECTING; another one: PASSWORD
    PASSWORD, PASSWORD_AGAIN  --ConnectionEnded, at a terminal--> LATE_PASSWORD
    LATE_PASSWORD   --password typed----------> CONNECTING, and the password answers the next prompt
    CONNECTING      --invitation_required-----> INVITATION, at a terminal and with json
    INVITATION      --code typed--------------> CONNECTING; the login is sent again, with the code; perhaps on a new
                                                connection
    CONNECTING      --password_change_required> PASSWORD, then PASSWORD_AGAIN, at a terminal and with json; the login is
                                                sent again, with the old and the new password
    any             --Welcome-----------------> DONE

The session makes later logins. The server may time out while a person types a password. This loss is not reported, and
the login begins again when the password is typed.
"""

from collections.abc import Sequence
from enum import Enum

from chatclient.cli.exits import Exit
from chatclient.cli.frontend import Frontend
from chatclient.model import ConnectionState
from chatclient.notices import ASK_USERNAME, Ask, Asked, ErrorNotice, Question
from chatclient.session import FINAL_REFUSALS, ClientSession, LoginRefused, SessionEvent
from chatprotocol.address import Address, read_addresses
from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.events import AccountKind, PasswordPrompt
from chatprotocol.limits import LOGIN_ATTEMPTS_MAX
from chatprotocol.rules import check_username
from chatprotocol.wire.json import JsonClient

# Login errors after which the password is requested again.
_CORRECTABLE = frozenset({ErrorCode.WRONG_PASSWORD, ErrorCode.BAD_REQUEST})
# Login errors after which the same login can't succeed.
_FINAL_ERRORS = FINAL_REFUSALS | {ErrorCode.TOO_MANY_ATTEMPTS}
_PASSWORD = Question(Asked.PASSWORD, "password existing")
_PASSWORD_NEW_ACCOUNT = Question(Asked.PASSWORD_NEW_ACCOUNT, "password new")
_PASSWORD_AGAIN = Question(Asked.PASSWORD_AGAIN, "password again")
_INVITATION = Question(Asked.INVITATION, "invitation code")
_NEW_PASSWORD = Question(Asked.PASSWORD_CHANGE, "new password")


class LoginState(Enum):
    """The login waits for this."""

    SERVER = "the user's server"
    NAME = "the user's name"
    CONNECTING = "the connection, or the server's answer"
    PASSWORD = "the user's password"  # noqa: S105 - a state, as the next ones
    PASSWORD_AGAIN = "the password of a new account again"  # noqa: S105
    LATE_PASSWORD = "the user's password, without a connection"  # noqa: S105
    RENAMING = "the end of the connection whose name was rejected"
    INVITATION = "the user's invitation code"
    DONE = "nothing"


_PASSWORD_STATES = frozenset({LoginState.PASSWORD, LoginState.PASSWORD_AGAIN, LoginState.LATE_PASSWORD})
# The state and question that follow an error, at a terminal.
_ASKING = {
    ErrorCode.INVITATION_REQUIRED: (LoginState.INVITATION, _INVITATION),
    ErrorCode.PASSWORD_CHANGE_REQUIRED: (LoginState.PASSWORD, _NEW_PASSWORD),
}


class LoginFlow:
    """The states of the login. Methods that send return the events that follow from it.

    ``default`` completes a typed server address.
    """

    def __init__(self, session: ClientSession, frontend: Frontend, default: Address) -> None:
        self._session = session
        self._model = session.model
        self._frontend = frontend
        self._default = default
        self.state = LoginState.CONNECTING
        # The question that the next line answers.
        self.question: Question | None = None
        # The password question of the current connection, or None before the prompt.
        self._password_question: Question | None = None
        # The password of a new account is typed twice: the first input until the second one is typed.
        self._first_password: str | None = None
        self._late_password: str | None = None
        self._refusals = 0

    @property
    def wants_password(self) -> bool:
        """True if the next line is a password."""
        return self.state in _PASSWORD_STATES

    @property
    def may_want_password(self) -> bool:
        """True if the next line is a password, or may be one because the prompt can follow soon."""
        is_possible = self._password_question is not None or (self._model.password is None and not self._model.token)
        is_underway = self.state is LoginState.CONNECTING and is_possible and not self._session.client_protocol.is_guest
        return self.wants_password or is_underway

    def begin(self) -> None:
        """Connect, or first ask for the server and the username."""
        if not self._model.servers:
            host, port = self._default
            self._enter(LoginState.SERVER, Question(Asked.SERVER, f"server, HOST or HOST PORT ({host} {port})"))
        elif self._model.username or self._model.token is not None:
            self._connect(self._model.username)
        else:
            self._enter(LoginState.NAME, ASK_USERNAME)

    def handle_line(self, line: str) -> Sequence[SessionEvent]:
        """Use a line as the answer to the question."""
        match self.state:
            case LoginState.SERVER:
                try:
                    self._model.servers = read_addresses(line, self._default)
                except RequestError as error:
                    self._report("usage", error.reason)
                self.begin()
            case LoginState.NAME:
                self._connect(line.strip())
            case LoginState.LATE_PASSWORD:
                self._late_password = line
                self._model.password = None
                self._connect(self._model.username)
            case LoginState.PASSWORD if line and self._is_typed_twice():
                self._first_password = line
                self._enter(LoginState.PASSWORD_AGAIN, _PASSWORD_AGAIN)
            case LoginState.PASSWORD_AGAIN if line != self._first_password:
                self._first_password = None
                self._report("usage", "The two passwords differ; choose one again.")
                self._enter(LoginState.PASSWORD, self._password_question)
            case LoginState.INVITATION:
                self._model.invitation = line.strip()
                if self._model.connection_state is ConnectionState.DISCONNECTED:
                    self._connect(self._model.username)
                else:
                    self._enter(LoginState.CONNECTING)
                    return self._session.log_in()
            case _:
                self._first_password = None
                self._enter(LoginState.CONNECTING)
                if self._password_question is _NEW_PASSWORD:
                    return self._session.log_in(line)
                return self._session.send_password(line)
        return ()

    def on_connected(self) -> Sequence[SessionEvent]:
        """The connection is open: log in."""
        self._password_question = None
        return self._session.log_in()

    def on_logged_in(self) -> None:
        """The login is complete."""
        self._enter(LoginState.DONE)
        self._password_question = None

    def on_prompt(self, prompt: PasswordPrompt) -> Sequence[SessionEvent]:
        """Ask for the password, or use the one that was typed without a connection."""
        self._password_question = _PASSWORD_NEW_ACCOUNT if prompt.account is AccountKind.NEW else _PASSWORD
        if not self._is_typed_twice():
            self._first_password = None
        if self._first_password is None:
            self._enter(LoginState.PASSWORD, self._password_question)
        else:
            self._enter(LoginState.PASSWORD_AGAIN, _PASSWORD_AGAIN)
        late_password, self._late_password = self._late_password, None
        return () if late_password is None else self.handle_line(late_password)

    def on_refused(self, refused: LoginRefused) -> Exit | None:
        """Show the error, and ask again. Returns the exit code if the client must end."""
        error, is_guest = refused.error, self._session.client_protocol.is_guest
        if self.state is LoginState.RENAMING or refused.is_repeated:
            return None
        if error.code is ErrorCode.NOT_LOGGED_IN and self._is_person_typing():
            return None  # the server's time for the login is over, and the connection ends
        self._frontend.display(error)
        if not refused.is_final:
            return None
        self._refusals += error.code is ErrorCode.WRONG_PASSWORD
        was_asked = self._password_question is not None
        if error.code in _CORRECTABLE and was_asked and self._refusals < LOGIN_ATTEMPTS_MAX:
            self._enter(LoginState.PASSWORD, self._password_question)
        elif is_guest and error.code is ErrorCode.BAD_USERNAME:
            self._refusals += 1
            self._enter(LoginState.RENAMING)
            self._session.close_link()
        elif error.code in _ASKING and self._can_ask() and self._refusals < LOGIN_ATTEMPTS_MAX:
            self._refusals += 1
            state, question = _ASKING[error.code]
            if state is LoginState.PASSWORD:
                self._password_question = question
            self._enter(state, question)
        else:
            return Exit.REFUSED if error.code in _FINAL_ERRORS or is_guest else Exit.LOST
        return None

    def on_ended(self) -> Exit | None:
        """The first connection has ended, or could not be opened. Returns the exit code if the client must end."""
        if self.state is LoginState.RENAMING:
            self._enter(LoginState.NAME, ASK_USERNAME)
        elif self._is_person_typing():  # the question stands
            self.state = LoginState.INVITATION if self.state is LoginState.INVITATION else LoginState.LATE_PASSWORD
        elif self._is_answered and len(self._model.servers) > 1:
            self._connect(self._model.username)  # with the password, so that no server asks again
        else:
            return self._exit(Exit.LOST)
        return None

    def leave(self) -> Exit:
        """End at a question."""
        if self.wants_password or self.state is LoginState.INVITATION:
            what = "password" if self.wants_password else "invitation code"
            self._report("refused", f"the input ended before the {what} was given")
            return Exit.REFUSED
        self._report("usage", f"the input ended before the {'username' if self._model.servers else 'server'} was given")
        return self._exit(Exit.USAGE)

    def _exit(self, code: Exit) -> Exit:
        return Exit.REFUSED if self._refusals else code

    def _is_typed_twice(self) -> bool:
        """True for a new password at a terminal: a hidden password may contain a typing error."""
        return self._password_question in (_PASSWORD_NEW_ACCOUNT, _NEW_PASSWORD) and self._frontend.is_terminal

    def _is_person_typing(self) -> bool:
        """True if the password or the code that a person types can be used on a later connection."""
        is_typing = self.state is LoginState.INVITATION or (
            self.wants_password and self._password_question is not _NEW_PASSWORD
        )
        return is_typing and self._frontend.is_terminal and not self._model.was_logged_in

    @property
    def _is_answered(self) -> bool:
        """True if the server has asked for the password, and got it."""
        return self.state is LoginState.CONNECTING and self._password_question is not None

    def _can_ask(self) -> bool:
        """True if an invitation or a new password can be typed and sent: programs and scripts have settings."""
        is_json = isinstance(self._session.client_protocol, JsonClient)
        return is_json and self._frontend.is_terminal and not self._model.was_logged_in

    def _connect(self, username: str) -> None:
        try:
            if username or self._model.token is None:
                check_username(username)
        except RequestError as error:
            self._report(error.code, error.reason)
            self._enter(LoginState.NAME, ASK_USERNAME)
            return
        self._model.username = username
        self._refusals = 0
        self._enter(LoginState.CONNECTING)
        self._session.connect(self._model.servers)

    def _enter(self, state: LoginState, question: Question | None = None) -> None:
        """Change the state, and ask."""
        self.state = state
        self.question = question
        if question is not None:
            self._frontend.display(Ask(question))

    def _report(self, code: str, text: str) -> None:
        self._frontend.display(ErrorNotice(code, text))
