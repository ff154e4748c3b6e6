"""A session: one user in the chat room, over any number of connections. Pure.

ClientSession connects three parts: the Model (state that survives a connection), the ClientProtocol (translates
actions to requests and server events to client events), and the Link (the current connection).

Threads. One thread, the owner, calls all methods: the controller thread in the command line client, the program's
thread in ChatClient. The receiver thread reads only `expected_answer` and `ping`, through Watch. No lock is needed; the
comments at these two properties have the reasons.

States. Model.connection_state. log_in() sets LOGGING_IN, a Welcome sets LOGGED_IN (Model.apply), connection_lost() sets
DISCONNECTED. The controller sets the states before the login.

Messages. prepare() gives a message a nonce and stores it in model.unconfirmed. The message is removed when it is
confirmed, finally rejected, or its delivery is unknown. log_in() passes all unconfirmed messages to the ClientProtocol,
which sends them again after the login, or reports them as DeliveryUnknown if a duplicate is possible. Servers that
support nonces store a message once.

A message of this user may arrive with the text of an unconfirmed message. The two may be the same message, which the
server stored on an earlier connection and now delivers like any missed message. _apply_event() holds the new message in
_held. A confirmation with its id drops it. Otherwise it is returned as soon as no unconfirmed message can match. So
each message is returned once.

Queries. users, history and search stay in _unanswered until their answer or an error without a nonce arrives; after a
reconnect they are requested again. The oldest query of the answer's type is removed, because servers answer in order.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final, Protocol

from chatclient.links.watch import ExpectedAnswer
from chatclient.model import ConnectionState
from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.events import DirectMessage, Found, History, Online, PublicMessage, Refused, Welcome
from chatprotocol.requests import AskHistory, AskUsers, Leave, Say, Search, Whisper
from chatprotocol.rules import check_text, check_username, name_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatclient.client_protocol import Action, ClientEvent, ClientProtocol, Effects
    from chatclient.model import Model
    from chatprotocol.events import Event, Message
    from chatprotocol.requests import Request

# Login errors after which a reconnect can't succeed. All others are temporary, such as a server's shutdown or too many
# failed logins of another client.
_FINAL_REFUSALS: Final = frozenset(
    {ErrorCode.BAD_REQUEST, ErrorCode.BAD_USERNAME, ErrorCode.TOO_LONG, ErrorCode.WRONG_PASSWORD}
)
# Queries and their answers. A query is repeated if the connection is lost before its answer.
_ANSWERS: Final[dict[type, type]] = {AskUsers: Online, AskHistory: History, Search: Found}
# Maximum number of unconfirmed messages; further ones wait.
_UNCONFIRMED_MAX: Final = 64
# Maximum number of unanswered queries; further ones wait.
_UNANSWERED_MAX: Final = 64
_NONCE_BYTES: Final = 8


class Link(Protocol):
    """An open connection. Over UDP the first request opens the session. Requests sent after its end are dropped."""

    def send(self, request: Request) -> None:
        """Send a request without blocking. If that fails, the connection ends and the receiver thread reports it."""

    def shut_down(self) -> None:
        """End the connection. Its receiver thread closes it."""


def check_message(message: Say | Whisper) -> None:
    """Check text and recipient. Raises RequestError if the text can't be a message or the name can't be a username."""
    if isinstance(message, Whisper):
        check_username(message.to)
    check_text(message.text)
    check_unicode(message.text)


def check_unicode(text: str) -> None:
    """Raises RequestError if the text contains unpaired surrogates, which have no UTF-8 encoding."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(ErrorCode.BAD_REQUEST, "That is not text in Unicode; nothing was sent.") from error


def _new_nonce() -> str:
    return secrets.token_hex(_NONCE_BYTES)


class ClientSession:
    """For one thread, except `expected_answer` and `ping`. Methods return the events to show, in order.

    The model has applied them.
    """

    def __init__(
        self, model: Model, client_protocol: ClientProtocol, new_nonce: Callable[[], str] = _new_nonce
    ) -> None:
        self.model = model
        self.client_protocol = client_protocol
        self._new_nonce = new_nonce
        self._link: Link | None = None
        # Own messages that arrived and may equal an unconfirmed message, by id. No protocol sends the nonce with a
        # message, so only the confirmation, which has the id, decides.
        self._held: dict[int, Message] = {}
        # Unanswered queries, oldest first.
        self._unanswered: list[Action] = []
        # True if the goodbye was sent on this connection.
        self._is_leaving = False

    @property
    def is_ready(self) -> bool:
        """True if the user is logged in and a request can be made now."""
        if self.model.connection_state is not ConnectionState.LOGGED_IN or self.client_protocol.is_busy:
            return False
        return len(self.model.unconfirmed) < _UNCONFIRMED_MAX and len(self._unanswered) < _UNANSWERED_MAX

    @property
    def expected_answer(self) -> ExpectedAnswer:
        """The kind of answer that the server owes. The receiver thread reads it, too."""
        # Lock-free: every operand is one attribute or the truth value of one container, and such a read is atomic in
        # CPython. The result may be stale, or mix two states while the owner handles an event. Watch tolerates both: it
        # polls, and a timeout needs the whole limit since the last event that counts as an answer. Events in the inbox
        # may change the result, so _SessionState (client.py) reports UNKNOWN until the inbox is empty.
        if self.model.connection_state is ConnectionState.LOGGING_IN:
            return ExpectedAnswer.LOGIN
        is_owed = self.model.unconfirmed or self._unanswered or self.client_protocol.is_busy or self._is_leaving
        return (
            ExpectedAnswer.ANSWER
            if is_owed and self.model.connection_state is ConnectionState.LOGGED_IN
            else ExpectedAnswer.NOTHING
        )

    @property
    def ping(self) -> Request | None:
        """The request that tests a silent server; None if it would disturb an operation. For the receiver thread."""
        # Lock-free: TcpLink reads this property and sends the ping under its sending lock. A protocol becomes busy
        # before _apply_effects sends the request, so a ping from the idle state is sent before the operation's first
        # step. UdpLink does not use this property.
        return self.client_protocol.ping if self.model.connection_state is ConnectionState.LOGGED_IN else None

    def log_in(self, link: Link) -> tuple[ClientEvent, ...]:
        """Log in on a new connection, and send the unconfirmed messages again."""
        self._link = link
        self._is_leaving = False
        self.model.connection_state = ConnectionState.LOGGING_IN
        return self._apply_effects(self.client_protocol.connect(self.model.login(), [*self.model.unconfirmed.values()]))

    def connection_lost(self) -> None:
        """Note the loss. Unconfirmed messages and queries are kept for the next log_in()."""
        self.model.connection_state = ConnectionState.DISCONNECTED

    def close_link(self) -> None:
        """End the current connection. Connection then opens a new one."""
        if self._link is not None:
            self._link.shut_down()

    def may_retry(self, error: Refused) -> bool:
        """True if a later login of a user who was logged in before can succeed after this error.

        Always true for guests: the server may not have noticed yet that the previous connection was lost.
        """
        return self.client_protocol.is_guest or error.code not in _FINAL_REFUSALS

    def handle_event(self, event: Event) -> tuple[ClientEvent, ...]:
        """Handle an event of the server. Returns the events to show."""
        return self._apply_effects(self.client_protocol.handle_event(event))

    def request(self, action: Action) -> tuple[ClientEvent, ...]:
        """Request an action. Returns the events to show."""
        self._is_leaving |= isinstance(action, Leave)
        if type(action) in _ANSWERS:
            self._unanswered.append(action)
        return self._apply_effects(self.client_protocol.request(action))

    def prepare(self, message: Say | Whisper) -> Say | Whisper:
        """Return the message with a nonce, and keep it as unconfirmed. The caller must pass it to request().

        Raises RequestError: see check_message.
        """
        check_message(message)
        nonce = self._new_nonce()
        message = Say(message.text, nonce) if isinstance(message, Say) else Whisper(message.to, message.text, nonce)
        self.model.unconfirmed[nonce] = message
        return message

    def _apply_effects(self, effects: Effects) -> tuple[ClientEvent, ...]:
        if self._link is not None:
            for request in effects.send:
                self._link.send(request)
        shown = tuple(each for event in effects.events for each in self._apply_event(event))
        if any(isinstance(event, Welcome) for event in shown):
            again, self._unanswered = self._unanswered, []
            for action in again:
                shown += self.request(action)
        return shown

    def _apply_event(self, event: ClientEvent) -> tuple[ClientEvent, ...]:
        """Apply the event to the model. Returns the events to show: this event or none, and released held messages."""
        if isinstance(event, PublicMessage | DirectMessage):
            if self.model.has_seen(event):
                return ()
            # A held message arrives again after each reconnect until it is confirmed.
            has_room = event.id in self._held or len(self._held) < _UNCONFIRMED_MAX
            if has_room and self._may_be_unconfirmed(event):
                self._held[event.id] = event
                return ()
        self.model.apply(event)
        is_refused = (
            isinstance(event, Refused)
            and event.nonce is None
            and self.model.connection_state is ConnectionState.LOGGED_IN
        )
        for action in self._unanswered:
            if is_refused or isinstance(event, _ANSWERS[type(action)]):
                self._unanswered.remove(action)
                break
        return (*(() if self._is_sent_again(event) else (event,)), *self._release_held())

    def _may_be_unconfirmed(self, message: Message) -> bool:
        """True if this message may be an unconfirmed one that the server stored on an earlier connection."""
        if not self.model.unconfirmed or not self.model.is_own(message):
            return False
        return any(self._matches(message, own_message) for own_message in self.model.unconfirmed.values())

    def _matches(self, message: Message, own_message: Say | Whisper) -> bool:
        if own_message.text != message.text:
            return False
        if isinstance(own_message, Say) or isinstance(message, PublicMessage):
            return isinstance(own_message, Say) and isinstance(message, PublicMessage)
        # Some protocols omit the recipient. A message to oneself is never held: it is shown and confirmed separately.
        to, username = name_key(own_message.to), name_key(self.model.username)
        return name_key(message.recipient) in ("", to) and to != username

    def _release_held(self) -> tuple[Message, ...]:
        """Drop held messages that were confirmed. Return those that no unconfirmed message can match any more."""
        shown: list[Message] = []
        for message in list(self._held.values()):
            is_known = self.model.has_seen(message)
            if is_known or not self._may_be_unconfirmed(message):
                del self._held[message.id]
            if message.id not in self._held and not is_known:
                self.model.apply(message)
                shown.append(message)
        return tuple(shown)

    def _is_sent_again(self, event: ClientEvent) -> bool:
        """True if the event rejects a message that stays unconfirmed: it is sent again later, and no error is shown."""
        return isinstance(event, Refused) and event.nonce in self.model.unconfirmed
