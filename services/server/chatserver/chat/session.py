"""The session of one connection: a state machine over its requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import structlog

from chatprotocol import requests
from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.events import YOU_LEFT, Bye, PasswordPrompt, Pong, Ready, Refused
from chatprotocol.limits import LOGIN_ATTEMPTS_MAX
from chatserver.chat import commands
from chatserver.chat.errors import REQUEST_ERRORS, ErrorLog, to_request_error
from chatserver.chat.frames_machine import FramesMachine
from chatserver.chat.journal import JournalClosedError
from chatserver.chat.login import LoginAbortedError, account_kind, authenticate, join, leave
from chatserver.chat.states import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chatprotocol.requests import Request
    from chatserver.chat.batch import MessageBatch
    from chatserver.chat.member import Member, SendQueue
    from chatserver.chat.services import Services

    _Transitions = dict[type, Callable[[Any, Any], "State"]]

_log = structlog.get_logger()

# Steps of a request in the protocols frames and datagram, alone or as a batch.
_STEPS = frozenset({requests.Command, requests.Data, requests.CommandBatch})


class Session:
    """Answers the requests of one connection. For its reader thread only, except :meth:`send_bye`."""

    __slots__ = (
        "_address",
        "_errors",
        "_label",
        "_login",
        "_machine",
        "_member",
        "_send_queue",
        "_services",
        "_state",
        "_wrong_passwords",
    )

    def __init__(self, services: Services, send_queue: SendQueue, label: str, address: str) -> None:
        self._services = services
        self._send_queue = send_queue
        self._address = address
        self._label = label
        self._state = State.NOT_LOGGED_IN
        self._machine = FramesMachine()
        self._login: requests.Login | None = None
        self._wrong_passwords = 0
        self._errors = ErrorLog(label)
        self._member: Member | None = None

    @property
    def is_logged_in(self) -> bool:
        """True after the login. The login timeout then no longer applies."""
        return self._state is State.LOGGED_IN

    def handle(self, incoming: Sequence[Request]) -> bool:
        """Answer the requests in order. False if the connection ends.

        Consecutive messages are appended to the journal together. Other requests wait until the peer has read enough of
        the earlier replies. An error is sent after the confirmations of all earlier messages.
        """
        batches: list[MessageBatch] = []
        for received in incoming:
            request = received
            if type(received) in _STEPS:
                if isinstance(received, requests.CommandBatch):
                    if not self._handle_batch(received, batches):
                        return False
                    continue
                completed = self._machine.handle_step(received, self._state)  # type: ignore[arg-type]
                if completed is None:
                    continue
                request = completed
            member = self._member
            add_message = commands.MESSAGE_COMMANDS.get(type(request))
            if add_message is not None and member is not None:
                try:
                    add_message(self._services, member, request, batches)
                except REQUEST_ERRORS as error:
                    self._append_batches(batches)
                    if not self._send_queue.wait_for_room():
                        return False
                    self._refuse_request(request, error)
            else:
                self._append_batches(batches)
                if not self._send_queue.wait_for_room() or not self._answer(request):
                    return False
        self._append_batches(batches)
        return True

    def _handle_batch(self, batch: requests.CommandBatch, batches: list[MessageBatch]) -> bool:
        """Handle the batch as a whole if it consists of valid public messages, else step by step."""
        if self._member is not None and self._machine.is_public(batch):
            try:
                commands.say_all(self._member, batch.data, batches)
            except RequestError:
                pass  # step by step: valid messages are accepted, each invalid one is rejected
            else:
                self._machine.ready_count += len(batch.data)
                return True
        self._append_batches(batches)
        return self.handle(list(batch))

    def _append_batches(self, batches: list[MessageBatch]) -> None:
        """Send pending Ready events, append the batches to the journal, and clear the list."""
        if self._machine.ready_count:
            self._send_queue.put([Ready()] * self._machine.ready_count, wake=not batches)
            self._machine.ready_count = 0
        if batches:
            try:
                commands.append_batches(self._services, batches)
            except JournalClosedError as error:
                for batch in batches:
                    for nonce in batch.nonces:
                        self._refuse(to_request_error(error, self._label), nonce)
            batches.clear()

    def _answer(self, request: Request) -> bool:
        """Answer one request other than a message. False if the connection ends."""
        try:
            transition = self._TRANSITIONS[self._state].get(type(request))
            if transition is None:
                raise _not_allowed(self._state, request)
            self._state = transition(self, request)
        except REQUEST_ERRORS as error:
            self._refuse_request(request, error)
        return self._state is not State.CLOSED

    def time_out(self) -> None:
        """Handle the timeout of the login or of an incomplete request."""
        limit = f"{self._services.login_seconds:g} s"
        if self._state is State.LOGGED_IN:
            reason = f"The rest of what you began did not come within {limit}."
            self._answer_unreadable(requests.Unreadable(ErrorCode.BAD_REQUEST, reason, closes=True))
        else:
            self._refuse(RequestError(ErrorCode.NOT_LOGGED_IN, f"Nobody logged in within {limit} of connecting."), None)
            self._send_queue.put([Bye("not logged in")])

    def end(self) -> None:
        """End the session after the peer's last request: wait for its messages, then leave."""
        if self._member is None:
            return
        try:
            commands.wait_for_pending(self._services, self._member)
        finally:
            # Messages that reached the peer must count as delivered before its next login.
            self._send_queue.check_acknowledged()
            _log.info("logout", user=self._member.name, connection=self._label)
            leave(self._services, self._member)
            self._send_queue.check_acknowledged()
            self._member = None

    def send_bye(self) -> None:
        """Send the last event, at shutdown. For any thread."""
        self._send_queue.finish([Bye("the server is shutting down")])

    # --- transitions: each answers the request and returns the next state ---

    def _log_in(self, request: requests.Login) -> State:
        if request.password is None:
            self._send_queue.put([PasswordPrompt(account_kind(self._services, request.username))])
            self._login = request
            return State.PASSWORD_REQUESTED
        return self._authenticate(request, request.password)

    def _take_password(self, request: requests.Password) -> State:
        assert self._login is not None
        return self._authenticate(self._login, request.password)

    def _authenticate(self, login: requests.Login, password: str) -> State:
        try:
            account, kind = authenticate(self._services, login.username, password, self._address)
        except RequestError as error:
            if error.code is ErrorCode.WRONG_PASSWORD:
                return self._note_wrong_password(error)
            raise
        try:
            self._member = join(self._services, self._send_queue, account, kind, login)
        except LoginAbortedError as error:
            # A new login is the only way to get the rest.
            cause = str(error.__cause__) or str(error)
            _log.error("login aborted", user=account.name, connection=self._label, error=cause)
            self._send_queue.put([Bye(str(error))])
            return State.CLOSED
        _log.info("login", user=account.name, account=kind.value, connection=self._label)
        return State.LOGGED_IN

    def _note_wrong_password(self, error: RequestError) -> State:
        self._wrong_passwords += 1
        if self._wrong_passwords < LOGIN_ATTEMPTS_MAX:
            raise error
        reason = f"{error.reason} That was try {LOGIN_ATTEMPTS_MAX}; the connection is closed."
        self._refuse(RequestError(ErrorCode.TOO_MANY_ATTEMPTS, reason), None)
        self._send_queue.put([Bye("too many wrong passwords")])
        return State.CLOSED

    def _run_command(self, request: Request) -> State:
        assert self._member is not None
        commands.COMMANDS[type(request)](self._services, self._member, self._send_queue, request)
        return State.LOGGED_IN

    def _answer_ping(self, _: requests.Ping) -> State:
        self._send_queue.put([Pong()])
        return self._state

    def _leave(self, _: requests.Leave) -> State:
        self.end()
        self._send_queue.put([Bye(YOU_LEFT)])
        return State.CLOSED

    def _answer_unreadable(self, request: requests.Unreadable) -> State:
        self._machine.reset()
        self._refuse(RequestError(request.code, request.reason), request.nonce)
        if not request.closes:
            return self._state
        self._send_queue.put([Bye("the connection can't be read any further")])
        return State.CLOSED

    _IN_ANY_STATE: ClassVar[_Transitions] = {
        requests.Ping: _answer_ping,
        requests.Leave: _leave,
        requests.Unreadable: _answer_unreadable,
    }

    # Transitions by state and request type. All other requests are rejected.
    _TRANSITIONS: ClassVar[dict[State, _Transitions]] = {
        State.NOT_LOGGED_IN: {requests.Login: _log_in, **_IN_ANY_STATE},
        State.PASSWORD_REQUESTED: {requests.Login: _log_in, requests.Password: _take_password, **_IN_ANY_STATE},
        State.LOGGED_IN: {**dict.fromkeys(commands.COMMANDS, _run_command), **_IN_ANY_STATE},
        State.CLOSED: {},
    }

    def _refuse_request(self, request: Request, error: Exception) -> None:
        self._refuse(to_request_error(error, self._label), getattr(request, "nonce", None))

    def _refuse(self, error: RequestError, nonce: str | None) -> None:
        if self._member is not None:
            commands.wait_for_pending(self._services, self._member)
        self._errors.log_refusal(error, self._member.name if self._member else None)
        self._send_queue.put([Refused(error.code, error.reason, nonce, error.about)])


def _not_allowed(state: State, request: Request) -> RequestError:
    """The error for a request that is not allowed in this state."""
    if isinstance(request, requests.Password):
        return RequestError(ErrorCode.BAD_REQUEST, "No password was asked for; send a login with a username first.")
    if state is State.LOGGED_IN:
        return RequestError(
            ErrorCode.BAD_REQUEST, "You are logged in already; open another connection for another user."
        )
    return RequestError(ErrorCode.NOT_LOGGED_IN, "You are not logged in; send a login first.")
