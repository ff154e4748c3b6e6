"""A session: one user of a server, over any number of connections. Below ChatClient and the command line client.

ClientSession connects four parts: the Model (state that survives a connection), the ClientProtocol (translates actions
to requests and server events to client events), the Connection (the receiver thread, which connects and reconnects),
and the link (the current connection). It computes only; the Connection and the link have the sockets.

Threads. One thread, the owner, calls all methods: the main thread of the command line client, the program's thread in
ChatClient. The receiver thread puts events and signals into the inbox. The owner takes them out and passes each to
handle(), which returns the events for the user. The receiver thread reads only `expected_answer` and `ping`, through
Watch. No lock is needed; the comments at these two properties have the reasons.

States. Model.connection_state:

    DISCONNECTED        --LinkUp, log_in()-----> LOGGING_IN; the login is sent. Before the first login: Connected
    LOGGING_IN          --PasswordPrompt-------> PASSWORD_REQUESTED
    LOGGING_IN          --Refused--------------> PASSWORD_REQUESTED, if the user was never logged in
    PASSWORD_REQUESTED  --send_password()------> LOGGING_IN
    LOGGING_IN          --Welcome--------------> LOGGED_IN (Model.apply)
    any                 --LinkDown, LinkLost---> DISCONNECTED

Outages. A loss is ConnectionLost once, until Reconnected follows. A refused login of a user who was logged in before is
tried again on the next connection, unless that can't succeed. Before the first login no reconnect follows, so a
LinkDown is not told: LinkLost follows, which is ConnectionEnded. A lost connection after leave() is Left, unless
messages are unconfirmed: then the session reconnects, and leaves again.

Several servers. They share one log, so ids, nonces and the history id hold on each of them, and a login on another
server resumes like one on the same server. While another server of the list is tried, neither the loss nor a server's
refusal is told (`tries_next`): Reconnected tells both servers in one event. ConnectionLost follows only if all servers
failed. The first login is repeated in the same way. A server that answers `unavailable` to a message or query has no
quorum or is still catching up: the session ends the connection, and repeats both on the next. With `tells_unavailable`
it stays with the last server of a round, where history can be read: the error is told, and the message is rejected.
Another server may be back meanwhile, so the first request that is refused after a pause begins another round. The pause
grows with each such round, until a message is confirmed.
A message is rejected only if each server that got it has refused it. Otherwise an earlier one may still store it
(`_in_doubt`), and it is repeated.

Messages. prepare() gives a message a nonce and stores it in model.unconfirmed. The message is removed when it is
confirmed, finally rejected, or its delivery is unknown. A login passes all unconfirmed messages to the ClientProtocol,
which sends them again after the login, or reports them as DeliveryUnknown if a duplicate is possible. Servers that
support nonces store a message once.

A message of this user may arrive with the text of an unconfirmed message. The two may be the same message, which the
server stored on an earlier connection and now delivers like any missed message. _apply_event() holds the new message in
_held. A confirmation with its id drops it. Otherwise it is returned as soon as no unconfirmed message can match. So
each message is returned once.

Rates. With `resends_limited` a message that the server refused for its rate (rate_limited, with a time) stays
unconfirmed, and RateLimited tells the time. No request can be made until all of these are confirmed: the owner calls
resend_limited() after the time, and after each confirmation. It sends one message at a time, in the order of typing.
From then on each message waits for the confirmation of the one before: a server refuses no client that does so.

Queries. users, history, search and the requests about rooms and moderation stay in _unanswered until their answer or an
error without a nonce arrives; after a reconnect they are requested again. The oldest query that an event can answer is
removed, because servers answer in order (see answers). A repeated request may have had its effect before the loss: to
kick, ban, mute, delete and ignore twice is as good as once; unban and unmute then get an error.

Deletions. A login repeats the deletions of messages that the client may have seen. Each is returned once, except as the
answer to a request. A held message that is deleted is dropped.

Rooms. A login names the newest message seen in each room. If the user is no longer in a room, because it was removed
while the connection was lost, the server's answer lacks the room, and an unknown_room error follows. Then Parted
follows Reconnected, and the error is dropped: _on_welcome_back(), _foreseen_errors.
"""

import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from msgspec.structs import replace

from chatclient.links.connection import Connection, Link, LinkDown, LinkLost, LinkUp, Signal
from chatclient.links.servers import SERVER_REFUSALS
from chatclient.links.watch import ExpectedAnswer
from chatclient.model import ConnectionState, Model
from chatclient.notices import ConnectionLost, Reconnected
from chatprotocol import events, requests
from chatprotocol.address import Address, ban_network, format_address
from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.rules import LOBBY, check_room_name, check_text, check_username, is_lobby, name_key, room_key
from chatprotocol.wire.base import Action, ClientEvent, ClientProtocol, Effects, Online, Outgoing

# Login errors after which a reconnect can't succeed. All others are temporary, such as a server's shutdown or too many
# failed logins of another client.
FINAL_REFUSALS: Final = frozenset(
    {
        ErrorCode.BAD_REQUEST,
        ErrorCode.BAD_TOKEN,
        ErrorCode.BAD_USERNAME,
        ErrorCode.BANNED,
        ErrorCode.INVITATION_REQUIRED,
        ErrorCode.PASSWORD_CHANGE_REQUIRED,
        ErrorCode.TLS_REQUIRED,
        ErrorCode.TOO_LONG,
        ErrorCode.WRONG_PASSWORD,
    }
)
# Queries and their answers. A query is repeated if the connection is lost before its answer.
_ANSWERS: Final[dict[type, type]] = {
    requests.AskUsers: Online,
    requests.AskHistory: events.History,
    requests.Search: events.Found,
    requests.AskConversations: events.Conversations,
    requests.AskTokens: events.Tokens,
    requests.Revoke: events.Tokens,
    requests.AskRooms: events.Rooms,
    requests.Join: events.Joined,
    requests.Part: events.Parted,
    requests.SetTopic: events.TopicChanged,
    requests.Invite: events.Invited,
    requests.Kick: events.Kicked,
    requests.MakeOperator: events.RoleChanged,
    requests.MakeMember: events.RoleChanged,
    requests.GiveVoice: events.RoleChanged,
    requests.TakeVoice: events.RoleChanged,
    requests.SetModes: events.Modes,
    requests.Ban: events.Banned,
    requests.Unban: events.Unbanned,
    requests.Mute: events.Muted,
    requests.Unmute: events.Unmuted,
    requests.AskBans: events.Bans,
    requests.Delete: events.Deleted,
    requests.Report: events.Reported,
    requests.AskAudit: events.Audit,
    requests.Ignore: events.Ignored,
    requests.Unignore: events.Ignored,
    requests.AskIgnored: events.Ignored,
}
# Maximum number of unconfirmed messages; further ones wait.
_UNCONFIRMED_MAX: Final = 64
# Maximum number of unanswered queries; further ones wait.
_UNANSWERED_MAX: Final = 64
# Bounds of the time after which a message that was refused for its rate is sent again; a server may name any time.
_RESEND_MIN_SECONDS: Final = 0.1
_RESEND_MAX_SECONDS: Final = 60.0
_NONCE_BYTES: Final = 8
# Least time from an error that tells that all servers are unavailable to the next round: doubled each time, up to the
# maximum. A round takes the user from a server where history can be read, and each login of it costs a hash.
_FIRST_ROUND_PAUSE_SECONDS: Final = 5.0
_LONGEST_ROUND_PAUSE_SECONDS: Final = 60.0
# Maximum wait for the answer to the goodbye of a client that was told to end: the server may have stopped reading.
GOODBYE_SECONDS: Final = 5.0


class Connected(NamedTuple):
    """The first connection is open: log_in() can be called."""


class LoginRefused(NamedTuple):
    """The server refused a login."""

    error: events.Refused
    # True if the session does not try again. False: the user was logged in before, and the session reconnects.
    is_final: bool
    # True if an earlier refusal was told during this outage.
    is_repeated: bool = False


class RateLimited(NamedTuple):
    """The server refused a message for its rate. resend_limited() sends it again, after this time."""

    seconds: float


class Left(NamedTuple):
    """The connection ended after the goodbye."""


class ConnectionEnded(NamedTuple):
    """There is no connection, and no reconnect follows."""

    reason: str


SessionEvent: TypeAlias = (
    ClientEvent | Connected | ConnectionLost | Reconnected | LoginRefused | RateLimited | Left | ConnectionEnded
)


def check_message(message: requests.Say | requests.Whisper) -> None:
    """Check text and recipient. Raises RequestError if the text can't be a message or the name can't be a username."""
    if isinstance(message, requests.Whisper):
        check_username(message.to)
    elif message.room is not None and not is_lobby(message.room):
        check_room_name(message.room)
    check_text(message.text)
    check_unicode(message.text)


def check_unicode(text: str) -> None:
    """Raises RequestError if the text contains unpaired surrogates, which have no UTF-8 encoding."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(ErrorCode.BAD_REQUEST, "That is not text in Unicode; nothing was sent.") from error


def answers(action: Action, event: Any, username: str) -> bool:
    """True if this event of the server can be the answer to the query of this user, or its error.

    Other users cause the same events, so room, names, id and author must be those of the query.
    """
    room, target = getattr(action, "room", None), getattr(action, "username", None)
    message_id, address = getattr(action, "id", None), getattr(action, "address", None)
    if isinstance(event, events.Refused):
        return event.nonce is None and (event.room is None or _is_same_room(event.room, room))
    if not isinstance(event, _ANSWERS[type(action)]) or not _is_same_room(getattr(event, "room", None), room):
        return False
    if isinstance(event, events.Ignored | events.Tokens):  # it names all
        return True
    if target is not None and name_key(getattr(event, "username", None) or "") != name_key(target):
        # A guest has no account: it is banned by its address.
        return isinstance(event, events.Banned) and event.username is None and name_key(event.by) == name_key(username)
    if message_id is not None and getattr(event, "id", None) != message_id:
        return False
    if address is not None and not _is_same_network(getattr(event, "address", None), address):
        return False
    # A message that another user deletes at the same time is deleted as well.
    by = None if isinstance(event, events.Parted | events.Deleted) else getattr(event, "by", None)
    return by is None or name_key(by) == name_key(username)


def _is_same_room(one: str | None, other: str | None) -> bool:
    return room_key(one or LOBBY) == room_key(other or LOBBY)


def _is_same_network(one: str | None, other: str) -> bool:
    """True if both texts mean the same address or network. The server may write it in another form."""
    try:
        return one is not None and ban_network(one) == ban_network(other)
    except ValueError:
        return False


def _new_nonce() -> str:
    return secrets.token_hex(_NONCE_BYTES)


class ClientSession:
    """For one thread, except `expected_answer` and `ping`. Methods return the events to show, in order.

    The model has applied them. ``resends_limited``: see *Rates* above. ``tells_unavailable``: see *Several servers*.
    ``monotonic`` is a clock, in seconds.
    """

    def __init__(
        self,
        model: Model,
        client_protocol: ClientProtocol,
        connection: Connection,
        new_nonce: Callable[[], str] = _new_nonce,
        *,
        resends_limited: bool = False,
        tells_unavailable: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model = model
        self.client_protocol = client_protocol
        self._connection = connection
        # Events and signals of the receiver thread, for handle().
        self.inbox = connection.inbox
        self._new_nonce = new_nonce
        self._link: Link | None = None
        # Own messages that arrived and may equal an unconfirmed message, by id. No protocol sends the nonce with a
        # message, so only the confirmation, which has the id, decides.
        self._held: dict[int, events.Message] = {}
        # Nonces of unconfirmed messages that the server refused for their rate; and the limit of unconfirmed messages.
        self.resends_limited = resends_limited
        self._limited: set[str] = set()
        self._unconfirmed_max = _UNCONFIRMED_MAX
        # Unanswered queries, oldest first.
        self._unanswered: list[Action] = []
        # Keys of rooms that the login named and that the user is no longer in: an error about each follows.
        self._foreseen_errors: set[str] = set()
        # The new password until the server confirms it. If the confirmation is lost, a login tries both.
        self._new_password: str | None = None
        # The label of the token that the first login asks for.
        self._remember: str | None = None
        # True if the goodbye was requested. It is sent again after a reconnect.
        self.is_leaving = False
        self.is_closed = False
        # True if the loss of the connection, or the refusal of the next login, was told since the last login.
        self._loss_told = self._refusal_told = False
        # True if log_in() was called since connect(): later connections log in by themselves.
        self._wants_login = False
        # The server of a connection on which no login was sent yet.
        self._new_host = ""
        # True if another server is tried if this one refuses the login or a message. The server of the last login.
        self._tries_next = False
        self._served_by: Address | None = None
        # The reason why the session ended the connection to a server that is unavailable, or "".
        self._unavailable_reason = ""
        # After all servers were unavailable: the time from which a refused request begins another round; None after a
        # confirmation and in a round. The pause before the next such time.
        self._tells_unavailable = tells_unavailable
        self._monotonic = monotonic
        self._next_round_at: float | None = None
        self._round_pause_seconds = _FIRST_ROUND_PAUSE_SECONDS
        # Nonces of unconfirmed messages that this connection's server has refused as unavailable; and of those that a
        # server has got on an earlier connection, and neither refused nor confirmed.
        self._refused: set[str | None] = set()
        self._in_doubt: set[str] = set()

    @property
    def is_ready(self) -> bool:
        """True if the user is logged in and a request can be made now."""
        if not self.model.is_logged_in or self.client_protocol.is_busy:
            return False
        # After a lost connection, messages are sent again before queries. So a message to a room waits for the join.
        if any(isinstance(action, requests.Join) for action in self._unanswered):
            return False
        if self._limited:
            return False
        return len(self.model.unconfirmed) < self._unconfirmed_max and len(self._unanswered) < _UNANSWERED_MAX

    @property
    def is_limited(self) -> bool:
        """True if messages wait for resend_limited()."""
        return bool(self._limited)

    # Lock-free: the receiver thread reads the next properties. Every operand is one attribute, or the length or the
    # truth value of one container, and such a read is atomic in CPython. The result may be stale, or mix two states
    # while the owner handles an event. That is harmless, because Watch polls and counts from the last event or, after a
    # long UNKNOWN, from now. Only the receiver thread adds server events to the inbox, so no event arrives during its
    # read.

    @property
    def expected_answer(self) -> ExpectedAnswer:
        """The kind of answer that the server owes. UNKNOWN while the inbox has items: it may be among them."""
        if not self.inbox.is_empty:
            return ExpectedAnswer.UNKNOWN
        if self.model.connection_state is ConnectionState.LOGGING_IN:
            return ExpectedAnswer.LOGIN
        is_message_owed = len(self.model.unconfirmed) > len(self._limited)
        is_owed = is_message_owed or self._unanswered or self.client_protocol.is_busy or self.is_leaving
        return ExpectedAnswer.ANSWER if is_owed and self.model.is_logged_in else ExpectedAnswer.NOTHING

    @property
    def has_other_server(self) -> bool:
        """True if another server is tried if this one does not answer the login."""
        return self._tries_next

    @property
    def ping(self) -> Outgoing | None:
        """The bytes that test a silent server; None if they would disturb an operation."""
        # TcpLink sends the ping under its sending lock. A protocol becomes busy before _apply_effects sends the
        # request, so a ping from the idle state is sent before the operation's first step. UdpLink doesn't use this.
        is_possible = self.model.is_logged_in and self.inbox.is_empty
        return self.client_protocol.ping if is_possible else None

    def connect(self, servers: Sequence[Address]) -> None:
        """Start to connect to one of the servers. Can be called again after ConnectionEnded."""
        self._wants_login = False
        self._connection.start(servers)

    def log_in(self, new_password: str | None = None, remember: str | None = None) -> tuple[SessionEvent, ...]:
        """Log in on the current connection, and send the unconfirmed messages again.

        ``new_password`` replaces the password, if the login succeeds. ``remember`` is the label of a session token,
        which the Welcome of the first login then has.
        """
        self._wants_login = True
        self.model.connection_state = ConnectionState.LOGGING_IN
        self._foreseen_errors = set()
        self._limited.clear()
        login = self.model.login()
        if new_password is not None:
            self._new_password = new_password
            login = replace(login, new_password=new_password)
        self._remember = remember or self._remember
        if self._remember is not None:
            login = replace(login, remember=self._remember)
        host, self._new_host = self._new_host, ""
        effects = self.client_protocol.connect(login, [*self.model.unconfirmed.values()], host)
        if host and self._tries_next and self.client_protocol.probe is not None:
            effects = Effects((self.client_protocol.probe, *effects.send), effects.events)
        return self._apply_effects(effects)

    def send_password(self, password: str) -> tuple[SessionEvent, ...]:
        """Answer a PasswordPrompt, or try another password after a final LoginRefused."""
        self.model.password = password
        self.model.connection_state = ConnectionState.LOGGING_IN
        return self._apply_effects(self.client_protocol.request(requests.Password(password)))

    def leave(self) -> tuple[SessionEvent, ...]:
        """Say goodbye. Bye, Left or ConnectionLost follows: after GOODBYE_SECONDS the caller need not wait on."""
        self.is_leaving = True
        return self.request(requests.Leave())

    def close_link(self) -> None:
        """End the current connection. The Connection then opens a new one, if the user was logged in."""
        if self._link is not None:
            self._link.shut_down()

    def close(self) -> None:
        """End the connection without a goodbye. For any thread except the receiver thread."""
        self.is_closed = True
        self.inbox.close()
        self._connection.close()

    def handle(self, given: ClientEvent | Signal) -> tuple[SessionEvent, ...]:
        """Handle an event or signal from the inbox."""
        match given:
            case LinkUp(link, server, tries_next):
                self._link, self._tries_next = link, tries_next
                self.model.connected_to = server
                self._new_host = format_address(server)
                if self.model.was_logged_in:
                    return self.log_in()
                return self.log_in(self._new_password) if self._wants_login else (Connected(),)
            case LinkDown(reason, tries_next):
                return self._on_link_down(reason, tries_next=tries_next)
            case LinkLost(reason):
                self.model.connection_state = ConnectionState.DISCONNECTED
                return (ConnectionEnded(reason),)
            case _:
                return self._apply_effects(self.client_protocol.handle_event(given))

    def request(self, action: Action) -> tuple[SessionEvent, ...]:
        """Request an action."""
        effects = self.client_protocol.request(action)
        if type(action) in _ANSWERS and not any(isinstance(event, events.Refused) for event in effects.events):
            self._unanswered.append(action)
        if isinstance(action, requests.ChangePassword):
            self._new_password = action.new
        return self._apply_effects(effects)

    def prepare(self, message: requests.Say | requests.Whisper) -> requests.Say | requests.Whisper:
        """Return the message with a nonce, and keep it as unconfirmed. The caller must pass it to request().

        Raises RequestError: see check_message.
        """
        check_message(message)
        nonce = self._new_nonce()
        if isinstance(message, requests.Say):
            message = requests.Say(message.text, nonce, message.room)
        else:
            message = requests.Whisper(message.to, message.text, nonce)
        self.model.unconfirmed[nonce] = message
        return message

    def resend_limited(self) -> tuple[SessionEvent, ...]:
        """Send the oldest message that was refused for its rate again, unless another message is on its way."""
        unconfirmed = self.model.unconfirmed
        if not self.model.is_logged_in or not self._limited or len(unconfirmed) > len(self._limited):
            return ()
        nonce = next(each for each in unconfirmed if each in self._limited)
        self._limited.remove(nonce)
        return self.request(unconfirmed[nonce])

    def _on_link_down(self, reason: str, *, tries_next: bool) -> tuple[SessionEvent, ...]:
        if self.model.is_logged_in:
            self._in_doubt |= self.model.unconfirmed.keys() - self._refused
            self._in_doubt &= self.model.unconfirmed.keys()
        self._refused.clear()
        self.model.connection_state = ConnectionState.DISCONNECTED
        reason, self._unavailable_reason = self._unavailable_reason or reason, ""
        if not self.model.was_logged_in:
            return ()
        if self.is_leaving and not self.model.unconfirmed:
            return (Left(),)
        if tries_next:
            return ()
        was_told, self._loss_told = self._loss_told, True
        return () if was_told else (ConnectionLost(reason),)

    def _apply_effects(self, effects: Effects) -> tuple[SessionEvent, ...]:
        if self._link is not None:
            for data, connection in effects.send:
                self._link.send(data, connection)
        shown = tuple(each for event in effects.events for each in self._apply_event(event))
        if any(isinstance(event, events.Welcome | Reconnected) for event in shown):
            again, self._unanswered = self._unanswered, []
            for action in [*again, requests.Leave()] if self.is_leaving else again:
                shown += self.request(action)
        return shown

    def _apply_event(self, event: ClientEvent) -> tuple[SessionEvent, ...]:  # noqa: C901, PLR0912 - one case for each event
        """Apply the event to the model. Returns the events to show: this event or none, and released held messages."""
        match event:
            case events.PublicMessage() | events.DirectMessage():
                if self.model.has_seen(event):
                    return ()
                # A held message arrives again after each reconnect until it is confirmed.
                has_room = event.id in self._held or len(self._held) < _UNCONFIRMED_MAX
                if has_room and self._may_be_unconfirmed(event):
                    self._held[event.id] = event
                    return ()
            case events.Deleted(message_id):
                self._held.pop(message_id, None)
                is_asked_for = any(answers(action, event, self.model.username) for action in self._unanswered)
                if self.model.was_deleted(message_id) and not is_asked_for:
                    return ()
            case events.Refused(code=ErrorCode.UNAVAILABLE) if self._is_repeated(event):
                if self._leaves_after(event):
                    self._refused.add(event.nonce)
                    self._unavailable_reason = event.reason.rstrip(".")
                    self.close_link()
                    return ()
            case events.Refused(nonce=nonce) if not self.model.is_logged_in and nonce not in self.model.unconfirmed:
                return self._on_login_refused(event)
            case events.Refused(code=ErrorCode.RATE_LIMITED, nonce=str(nonce), retry_seconds=float(seconds)) if (
                self.resends_limited and nonce in self.model.unconfirmed
            ):
                self._limited.add(nonce)
                self._unconfirmed_max = 1
                return (RateLimited(min(max(seconds, _RESEND_MIN_SECONDS), _RESEND_MAX_SECONDS)),)
            case events.PasswordPrompt() if not self.model.is_logged_in:
                self.model.connection_state = ConnectionState.PASSWORD_REQUESTED
            case events.PasswordChanged():
                self.model.password, self._new_password = self._new_password or self.model.password, None
            case events.Welcome() if self.model.was_logged_in:
                return self._on_welcome_back(event)
            case events.Welcome():
                self.model.password, self._new_password = self._new_password or self.model.password, None
                self.model.invitation = self._remember = None  # they are used up
                self._served_by = self.model.connected_to
            case events.Sent():  # an outage is over: in the next one the others are tried first
                self._tries_next = len(self.model.servers) > 1
                self._next_round_at, self._round_pause_seconds = None, _FIRST_ROUND_PAUSE_SECONDS
            case events.Refused(code=ErrorCode.UNKNOWN_ROOM, nonce=None, room=str(room)) if (
                room_key(room) in self._foreseen_errors
            ):
                self._foreseen_errors.remove(room_key(room))
                return ()
        self.model.apply(event)
        self._remove_answered(event)
        # A message that was rejected and stays unconfirmed is sent again later, so its error is not shown.
        is_sent_again = isinstance(event, events.Refused) and event.nonce in self.model.unconfirmed
        return (*(() if is_sent_again else (event,)), *self._release_held())

    def _on_welcome_back(self, welcome: events.Welcome) -> tuple[SessionEvent, ...]:
        """Apply the answer to a later login. Parted tells of each room that the user is no longer in."""
        self._loss_told = self._refusal_told = False
        before, self._served_by = self._served_by, self.model.connected_to
        known = self.model.rooms
        self.model.apply(welcome)
        lost = [events.Parted(room.name) for key, room in known.items() if key not in self.model.rooms]
        self._foreseen_errors = {room_key(parted.room) for parted in lost}
        for parted in lost:
            self._remove_answered(parted)
        back = Reconnected(welcome.username, welcome.last_id)
        if before is not None and self._served_by is not None and before != self._served_by:
            back = back._replace(server=format_address(self._served_by), gone=format_address(before))
        return (back, *lost, *self._release_held())

    def _remove_answered(self, event: ClientEvent) -> None:
        """Remove the oldest query that this event answers."""
        for action in self._unanswered:
            if answers(action, event, self.model.username):
                self._unanswered.remove(action)
                break

    def _on_login_refused(self, error: events.Refused) -> tuple[SessionEvent, ...]:
        """Decide if the login is tried again.

        A guest's always is: the server may not have noticed yet that the previous connection was lost.
        """
        is_guest = self.client_protocol.is_guest
        # A guest gets no other code if the server is full.
        is_about_server = error.code in SERVER_REFUSALS or (is_guest and error.code is ErrorCode.NOT_LOGGED_IN)
        if self._tries_next and is_about_server:
            self.close_link()
            return ()
        if error.code is ErrorCode.WRONG_PASSWORD and self._new_password is not None:
            # The connection was lost before the confirmation of a password change: try the other password.
            self.model.password, self._new_password = self._new_password, None
            self.close_link()
            return ()
        if not self.model.was_logged_in:
            self.model.connection_state = ConnectionState.PASSWORD_REQUESTED
            return (LoginRefused(error, is_final=True),)
        if error.code is ErrorCode.BAD_REQUEST and self.model.rooms:
            # A server that does not know rooms, such as one of an earlier version, can't read an id for each room.
            lost, self.model.rooms = self.model.rooms, {}
            self.close_link()
            return tuple(events.Parted(room.name) for room in lost.values())
        if not is_guest and error.code in FINAL_REFUSALS:
            return (LoginRefused(error, is_final=True),)
        self.close_link()
        was_told, self._refusal_told = self._refusal_told, True
        return (LoginRefused(error, is_final=False, is_repeated=was_told),)

    def _is_repeated(self, error: events.Refused) -> bool:
        """True if this error is about a message or query that the next connection repeats."""
        if error.nonce is not None:
            return error.nonce in self.model.unconfirmed
        # A change of the password is not repeated, so its user must see the error.
        return self.model.is_logged_in and bool(self._unanswered) and self._new_password is None

    def _leaves_after(self, error: events.Refused) -> bool:
        """True if the request is repeated elsewhere after this error; false to tell the error."""
        if self._tries_next or not self._tells_unavailable or error.nonce in self._in_doubt:
            return True
        now = self._monotonic()
        if self._next_round_at is None:
            self._next_round_at = now + self._round_pause_seconds
            self._round_pause_seconds = min(2 * self._round_pause_seconds, _LONGEST_ROUND_PAUSE_SECONDS)
        if len(self.model.servers) == 1 or now < self._next_round_at:
            return False
        self._next_round_at = None
        self._tries_next = True  # for further errors of this connection
        return True

    def _may_be_unconfirmed(self, message: events.Message) -> bool:
        """True if this message may be an unconfirmed one that the server stored on an earlier connection."""
        if not self.model.unconfirmed or not self.model.is_own(message):
            return False
        return any(self._matches(message, own_message) for own_message in self.model.unconfirmed.values())

    def _matches(self, message: events.Message, own_message: requests.Say | requests.Whisper) -> bool:
        if own_message.text != message.text:
            return False
        if isinstance(own_message, requests.Say) and isinstance(message, events.PublicMessage):
            return _is_same_room(own_message.room, message.room)
        if isinstance(own_message, requests.Say) or isinstance(message, events.PublicMessage):
            return False
        # Some protocols omit the recipient. A message to oneself is never held: it is shown and confirmed separately.
        to, username = name_key(own_message.to), name_key(self.model.username)
        return name_key(message.recipient) in ("", to) and to != username

    def _release_held(self) -> tuple[events.Message, ...]:
        """Drop held messages that were confirmed. Return those that no unconfirmed message can match any more."""
        shown: list[events.Message] = []
        for message in list(self._held.values()):
            is_known = self.model.has_seen(message)
            if is_known or not self._may_be_unconfirmed(message):
                del self._held[message.id]
            if message.id not in self._held and not is_known:
                self.model.apply(message)
                shown.append(message)
        return tuple(shown)
