"""The client for programs: log in, send messages, make queries, and read events.

   with ChatClient("localhost", 9999) as client:
       client.login("echo", "secret")
       for event in client.events():
           if isinstance(event, PublicMessage):
               client.whisper(event.sender, event.text)

Errors: errors.py. Guide: docs/bots.md.
"""

import math
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeAlias, TypeVar

from chatclient.arguments import (
    check_choice,
    check_flag,
    check_port,
    check_seconds,
    check_servers,
    check_str,
    check_whole,
)
from chatclient.errors import ChatError, LostError, RefusedError, UsageError
from chatclient.inbox import Backlog
from chatclient.links.connection import Signal
from chatclient.links.tls import trusting
from chatclient.links.watch import SILENCE_SECONDS
from chatclient.model import Model
from chatclient.notices import ConnectionLost, Dropped, Reconnected
from chatclient.opening import new_session
from chatclient.session import (
    GOODBYE_SECONDS,
    Connected,
    ConnectionEnded,
    Left,
    LoginRefused,
    SessionEvent,
    answers,
    check_message,
    check_unicode,
)
from chatprotocol import events, requests
from chatprotocol.address import ban_network, is_address, read_addresses
from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.keywords import DEFAULT_KEYWORDS, KEYWORD_SETS
from chatprotocol.limits import HISTORY_DEFAULT_MESSAGES
from chatprotocol.rules import (
    check_label,
    check_reason,
    check_room_key,
    check_room_name,
    check_topic,
    check_username,
    is_lobby,
)
from chatprotocol.wire import JSON_DIALECTS, PROTOCOLS, Datagram
from chatprotocol.wire.base import Action, ClientEvent, DeliveryUnknown, Forwarded, Online, Outcome, PossibleGap
from chatprotocol.wire.json import Json
from chatprotocol.wire.register import LENGTH_UNITS

Answer = TypeVar("Answer")
Given = TypeVar("Given")
Checked = TypeVar("Checked")
# Types that events() yields; docs/bots.md describes them. Sent and the following types are late answers to a call that
# the program itself interrupted.
ProgramEvent: TypeAlias = (
    events.PublicMessage
    | events.DirectMessage
    | Forwarded
    | events.Users
    | events.Joined
    | events.Parted
    | events.TopicChanged
    | events.Modes
    | events.Invited
    | events.Kicked
    | events.RoleChanged
    | events.Banned
    | events.Muted
    | events.Unbanned
    | events.Unmuted
    | events.Deleted
    | events.Reported
    | ConnectionLost
    | Reconnected
    | PossibleGap
    | Dropped
    | events.History
    | events.Refused
    | events.Bye
    | events.Sent
    | Outcome
    | DeliveryUnknown
    | Online
    | events.Found
    | events.Conversations
    | events.Rooms
    | events.Bans
    | events.Audit
    | events.Ignored
    | events.Tokens
)

# Items of the receiver thread in the inbox; all others were injected.
_RECEIVED: Final = ClientEvent | Signal
# Events that end a login, and those that end the wait for a goodbye.
_LOGIN_ANSWERS: Final = events.Welcome | events.PasswordPrompt | events.Refused
_GOODBYES: Final = events.Bye | ConnectionLost | Left


class ChatClient:
    """One user's connection to a server. :meth:`connect`, or the ``with`` statement, opens it.

    For one thread, except :meth:`inject`. Events wait until that thread makes a request or reads
    :meth:`events`. Until then received messages are not acknowledged: in the protocol register, their senders get the
    answer that the message was not delivered. After a lost connection the client tries to reconnect for
    ``retry_seconds``. Missed messages follow :class:`Reconnected`, each once. Unconfirmed messages are sent again, and
    stored once.

    ``host`` is a server, as ``"a.example.org"`` or ``"a.example.org:9999"``; or the servers of one cluster, as a list
    of such texts, or one text with commas. The client uses one of them, chosen at random, and another if it is gone.
    ``port`` is that of servers without one.

    ``invitation`` is the code with which a new name registers, on a server that needs one (json only). ``token`` is a
    session token, with which :meth:`login` needs neither a name nor a password (json only).
    With ``tls`` the connection is encrypted, and the server's certificate and name are checked. ``ca`` is a file with
    the certificates that are trusted instead of the system's; it implies ``tls``.

    ``dialect`` is json, websocket, irc, frames, register or datagram; docs/wire/ has the limits of each. ``ops`` and
    ``register_length`` are the settings ``--ops`` and ``--register-length``.
    """

    def __init__(
        self,
        host: str | Sequence[str] = "localhost",
        port: int = 9999,
        *,
        dialect: str = Json.name,
        ops: str = DEFAULT_KEYWORDS,
        register_length: str = LENGTH_UNITS[0],
        retry_seconds: float = 60.0,
        silence_seconds: float = SILENCE_SECONDS,
        invitation: str = "",
        token: str = "",
        tls: bool = False,
        ca: str | PathLike[str] | None = None,
    ) -> None:
        """Raises UsageError for an invalid argument."""
        servers = check_servers("host", host)
        check_port("port", port)
        check_choice("dialect", dialect, [each.name for each in PROTOCOLS])
        check_choice("ops", ops, KEYWORD_SETS)
        check_choice("register_length", register_length, LENGTH_UNITS)
        check_seconds("retry_seconds", retry_seconds, math.inf)
        check_seconds("silence_seconds", silence_seconds, math.inf)
        check_str("invitation", invitation)
        check_str("token", token)
        if token and dialect not in JSON_DIALECTS:
            raise UsageError("Only the dialects json and websocket have tokens.")
        check_flag("tls", tls)
        if ca is not None and not isinstance(ca, str | PathLike):
            raise UsageError(f"ca is of the type {type(ca).__name__}; it must be a path (str or os.PathLike).")
        if (tls or ca is not None) and dialect == Datagram.name:
            raise UsageError("The dialect datagram has no encryption; use another one with tls.")
        try:
            self._servers = read_addresses(servers, ("localhost", port))
            context = trusting(None if ca is None else Path(ca)) if tls or ca is not None else None
        except RequestError as error:
            raise UsageError(error.reason) from None
        except ValueError as error:
            raise UsageError(str(error)) from None
        self._session = new_session(
            Model(self._servers, None, None),
            dialect=dialect,
            ops=ops,
            register_length=register_length,
            retry_seconds=retry_seconds,
            silence_seconds=silence_seconds,
            tls=context,
        )
        self._session.model.invitation = invitation or None
        self._session.model.token = token or None
        self._is_json = dialect in JSON_DIALECTS
        self._is_connected = self._has_tried_login = False
        # Events that happened during a call, for events().
        self._backlog = Backlog()
        self._final_error: ChatError | None = None
        # The code of the server's goodbye, if it ended the connection on purpose.
        self._goodbye_code: ErrorCode | None = None
        self._is_closed = False

    # --- to come and go ---

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def connect(self) -> None:
        """Connect to a server. Raises LostError if that fails; the call can then be repeated."""
        self._check_open()
        if self._is_connected:
            raise UsageError("This client was connected before: `with ChatClient(...)` has done it.")
        self._final_error = self._goodbye_code = None
        self._session.connect(self._servers)
        self._wait_for_event((), lambda each: isinstance(each, Connected))
        self._is_connected = True

    def login(
        self, username: str = "", password: str = "", new_password: str = "", remember: str = ""
    ) -> events.Welcome:
        """Log in; an unused name is registered. Once per client. With the token of the client: ``login()``.

        ``new_password`` replaces the password, for example after the error password_change_required (json only).
        ``remember`` asks for a session token, and labels it: see ``token`` of the answer (json only).
        Raises LostError if the connection is lost, and RefusedError if the login is rejected: the client must then be
        closed. An invalid name is rejected before anything is sent; another name can then be tried.
        """
        check_str("username", username)
        check_str("password", password)
        check_str("new_password", new_password)
        check_str("remember", remember)
        self._check_open()
        if not self._is_connected:
            raise UsageError("The client is not connected: connect() first, or use `with ChatClient(...)`.")
        if self._has_tried_login:
            raise UsageError("This client has tried to log in before: make another ChatClient for another login.")
        has_token = self._session.model.token is not None
        if has_token and (password or new_password or remember):
            raise UsageError("A client with a token logs in without a password, new_password and remember.")
        if username or not has_token:
            _refused_as_error(check_username, username)
        _refused_as_error(check_unicode, password)
        _refused_as_error(check_unicode, new_password)
        if remember:
            self._check_json("tokens")
            _refused_as_error(check_unicode, remember)
            _refused_as_error(check_label, remember)
        self._has_tried_login = True
        self._session.model.username = username
        self._session.model.password = password or None
        match self._wait_for_event(
            self._session.log_in(new_password or None, remember or None), lambda each: isinstance(each, _LOGIN_ANSWERS)
        ):
            case events.Welcome() as welcome:
                return welcome
            case events.Refused() as error:
                raise _error_of(error)
            case _:
                raise RefusedError(ErrorCode.WRONG_PASSWORD, f"The name {username} needs a password.")

    def close(self) -> None:
        """Say goodbye, wait up to 5 s for the answer, and end the connection. Can be called more than once."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            if self._session.model.is_logged_in and self._final_error is None:
                self._say_goodbye()
        finally:
            self._session.close()

    def _say_goodbye(self) -> None:
        deadline = time.monotonic() + GOODBYE_SECONDS
        happened: Sequence[Any] = self._session.leave()
        while self._final_error is None and not any(isinstance(each, _GOODBYES) for each in happened):
            try:
                happened = self._handle(self._session.inbox.get(max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                return

    # --- to say and to ask ---

    def say(self, text: str, room: str | None = None) -> int | None:
        """Send a public message, in the lobby or another room. Returns its id after the server has stored it on disk.

        Returns None in the protocol register, which has no ids, after all users online have received it.
        """
        check_str("text", text)
        self._check_room(room)
        return self._send_message(requests.Say(text, room=room))

    def whisper(self, to: str, text: str) -> int | None:
        """Send a direct message. Returns like say(). A recipient who is offline receives it at the next login."""
        check_str("to", to)
        check_str("text", text)
        return self._send_message(requests.Whisper(to, text))

    def users(self, room: str | None = None) -> tuple[str, ...]:
        """The names of the users online, or of the members of a room who are online."""
        self._check_room(room)
        return self._query(requests.AskUsers(room), Online).users

    def history(
        self,
        limit: int = HISTORY_DEFAULT_MESSAGES,
        before: int | None = None,
        room: str | None = None,
        *,
        after: int | None = None,
        with_user: str | None = None,
    ) -> tuple[events.Message, ...]:
        """The newest messages visible to this user, oldest first. The members but ``limit`` are for json only.

        ``before``: only older than this id. ``after``: the oldest ones after this id. Without a room: those of the
        lobby and direct messages. ``with_user``: the direct messages with this user only.
        """
        _check_range(limit, before, after)
        self._check_place(room, with_user)
        if before is not None and after is not None:
            raise UsageError("Only one of before and after is possible.")
        if not self._is_json and (before, after, with_user) != (None, None, None):
            raise RefusedError(ErrorCode.BAD_REQUEST, "Only the wire format json has a part of the history.")
        return self._query(requests.AskHistory(limit, before, room, after, with_user), events.History).messages

    def search(
        self,
        words: str,
        limit: int = HISTORY_DEFAULT_MESSAGES,
        before: int | None = None,
        room: str | None = None,
        *,
        with_user: str | None = None,
    ) -> tuple[events.Message, ...]:
        """The newest messages visible to this user that contain all words, oldest first. Only in the protocol json.

        Without a room: those of the lobby and direct messages. ``with_user``: the direct messages with this user only.
        """
        check_str("words", words)
        _check_range(limit, before)
        self._check_place(room, with_user)
        if not self._is_json:
            raise RefusedError(ErrorCode.UNKNOWN_COMMAND, "Only the wire format json has a search.")
        _refused_as_error(check_unicode, words)
        return self._query(requests.Search(words, limit, before, room, with_user), events.Found).messages

    def conversations(self) -> tuple[events.Conversation, ...]:
        """The users with whom this one has direct messages, newest first, 200 at most. Only in the protocol json."""
        self._check_json("conversations")
        return self._query(requests.AskConversations(), events.Conversations).conversations

    # --- session tokens: only in the protocol json ---

    def tokens(self) -> tuple[events.TokenState, ...]:
        """The session tokens of this user, the one that was used last first."""
        self._check_json("tokens")
        return self._query(requests.AskTokens(), events.Tokens).tokens

    def revoke(self, token_id: str) -> tuple[events.TokenState, ...]:
        """Revoke the token of this id, or ("all") all but that of this client. Returns the tokens that are left.

        The connections that use it end. That of this client ends too if it is its own: LostError with the code revoked.
        """
        check_str("token_id", token_id)
        self._check_json("tokens")
        _refused_as_error(check_unicode, token_id)
        return self._query(requests.Revoke(token_id), events.Tokens).tokens

    # --- rooms: only in the protocol json ---

    def rooms(self) -> tuple[events.RoomSummary, ...]:
        """The public rooms, and the private ones that this user is in or invited to; without the lobby."""
        self._check_json()
        return self._query(requests.AskRooms(), events.Rooms).rooms

    def join(self, room: str, *, private: bool = False, key: str | None = None) -> events.Joined:
        """Become a member of a room. An unused name makes one; ``private`` applies only then.

        ``key`` is the word that a room with a key demands. Raises RefusedError if the room can't be entered or made. A
        private room can't be told from a missing one.
        """
        return self._ask_about(requests.Join(room, bool(private), key), events.Joined)

    def part(self, room: str) -> None:
        """Leave a room. A room ends when its last member leaves."""
        self._ask_about(requests.Part(room), events.Parted)

    def set_topic(self, room: str, topic: str) -> None:
        """Replace the topic of a room; an empty one removes it.

        This method and the next ones are for the owner and the operators of the room.
        """
        check_str("topic", topic)
        _refused_as_error(check_unicode, topic)
        _refused_as_error(check_topic, topic)
        self._ask_about(requests.SetTopic(room, topic), events.TopicChanged)

    def invite(self, room: str, username: str) -> None:
        """Let a user join a room."""
        self._ask_about(requests.Invite(room, username), events.Invited)

    def op(self, room: str, username: str) -> None:
        """Make a member an operator of the room."""
        self._ask_about(requests.MakeOperator(room, username), events.RoleChanged)

    def deop(self, room: str, username: str) -> None:
        """Take the role of an operator from a member."""
        self._ask_about(requests.MakeMember(room, username), events.RoleChanged)

    def voice(self, room: str, username: str) -> None:
        """Let a member write in a moderated room."""
        self._ask_about(requests.GiveVoice(room, username), events.RoleChanged)

    def devoice(self, room: str, username: str) -> None:
        """Take this right from a member."""
        self._ask_about(requests.TakeVoice(room, username), events.RoleChanged)

    def modes(
        self,
        room: str,
        *,
        private: bool | None = None,
        moderated: bool | None = None,
        open_topic: bool | None = None,
        key: str | None = None,
        members_max: int | None = None,
    ) -> events.RoomModes:
        """Change the modes of a room, and return all of them. Without a change anybody in the room may ask.

        ``key`` is a word that users must know to join (``""``: none), ``members_max`` a limit (0: none).
        """
        if members_max is not None:
            check_whole("members_max", members_max)
        given = {"private": private, "moderated": moderated, "open_topic": open_topic}
        switches = {name: bool(value) for name, value in given.items() if value is not None}
        action = requests.SetModes(room=room, key=key, members_max=members_max, **switches)
        return self._ask_about(action, events.Modes).modes

    # --- moderation: only in the protocol json ---

    # Operators of the server need no room: without one, kick, bans and mutes are about the whole server. A request that
    # was repeated after a lost connection can raise RefusedError although the server had done it before.

    def kick(self, room: str | None, username: str, reason: str = "") -> None:
        """Remove a member from a room, or take back an invitation; without a room: end all connections of a user.

        Raises RefusedError (not_a_member) also if the connection was lost after the server had done it.
        """
        self._moderate(requests.Kick(room=room, username=username, reason=reason), events.Kicked)

    def ban(self, target: str, room: str | None = None, *, seconds: int | None = None, reason: str = "") -> None:
        """Keep a user, an address or a network (192.0.2.0/24) out, for some seconds or for ever.

        The connections of the user end; a member is removed from the room. Addresses can't be banned from a room.
        """
        username, address = _user_or_network(target)
        action = requests.Ban(room=room, username=username, address=address, seconds=seconds, reason=reason)
        self._moderate(action, events.Banned)

    def unban(self, target: str, room: str | None = None) -> None:
        """End a ban."""
        username, address = _user_or_network(target)
        self._moderate(requests.Unban(room=room, username=username, address=address), events.Unbanned)

    def mute(self, username: str, room: str | None = None, *, seconds: int | None = None, reason: str = "") -> None:
        """Refuse a user's messages, for some seconds or for ever."""
        action = requests.Mute(room=room, username=username, seconds=seconds, reason=reason)
        self._moderate(action, events.Muted)

    def unmute(self, username: str, room: str | None = None) -> None:
        """End a mute."""
        self._moderate(requests.Unmute(room=room, username=username), events.Unmuted)

    def bans(self, room: str | None = None) -> tuple[events.SanctionState, ...]:
        """The bans and mutes, oldest first."""
        return self._moderate(requests.AskBans(room=room), events.Bans).bans

    def delete(self, message_id: int, room: str | None = None) -> None:
        """Delete an own message, or as an operator any public one. ``room`` is the room of the message."""
        check_whole("message_id", message_id)
        self._moderate(requests.Delete(message_id, room), events.Deleted)

    def report(self, about: int | str, room: str | None = None, *, reason: str = "") -> None:
        """Tell the operators of the server about a message (its id) or a user (the name)."""
        if not isinstance(about, str):
            check_whole("about", about)
            action = requests.Report(id=about, room=room, reason=reason)
        else:
            action = requests.Report(username=about, room=room, reason=reason)
        self._moderate(action, events.Reported)

    def audit(self, limit: int = HISTORY_DEFAULT_MESSAGES, before: int | None = None) -> tuple[events.AuditRow, ...]:
        """The newest acts of moderation, oldest first, for operators of the server. ``before``: below this number."""
        _check_range(limit, before)
        return self._moderate(requests.AskAudit(limit, before), events.Audit).acts

    def ignore(self, username: str) -> tuple[str, ...]:
        """Get no more direct messages of a user. Returns all users whom this user ignores.

        Public messages of these users still arrive: a program that shows messages leaves them out.
        """
        return self._moderate(requests.Ignore(username), events.Ignored).users

    def unignore(self, username: str) -> tuple[str, ...]:
        """Stop ignoring a user. Returns all users whom this user ignores."""
        return self._moderate(requests.Unignore(username), events.Ignored).users

    def ignored(self) -> tuple[str, ...]:
        """The users whom this user ignores."""
        return self._moderate(requests.AskIgnored(), events.Ignored).users

    # --- events ---

    def events(self, timeout_seconds: float | None = None) -> Iterator[Any]:
        """Yield events (see ``ProgramEvent``) and injected objects in order. Each message is yielded once.

        Ends if no event arrives within ``timeout_seconds``, and after close(). Raises LostError if the connection is
        lost permanently, and RefusedError if the server rejects the login after a reconnect.
        """
        if timeout_seconds is not None:
            check_seconds("timeout_seconds", timeout_seconds, threading.TIMEOUT_MAX)
        self._check_logged_in()
        while not self._is_closed:
            if dropped := self._backlog.take_dropped():
                yield Dropped(dropped)
            while self._backlog:
                yield self._backlog.pop_oldest()
            try:
                self._keep_for_events(self._receive(timeout_seconds))
            except queue.Empty:
                return

    def inject(self, given: object) -> None:
        """Queue an object that :meth:`events` yields in order. For any thread, such as a timer."""
        self._session.inbox.put(given)

    # --- checks of arguments and of the call order ---

    def _check_json(self, what: str = "rooms") -> None:
        if not self._is_json:
            raise RefusedError(ErrorCode.UNKNOWN_COMMAND, f"Only the wire format json has {what}.")

    def _check_room(self, room: str | None) -> None:
        """Check the room of a message or query: None is the lobby."""
        if room is None:
            return
        check_str("room", room)
        self._check_json()
        if not is_lobby(room):
            _refused_as_error(check_room_name, room)

    def _check_place(self, room: str | None, with_user: str | None) -> None:
        """Check where a query looks: in a room, or in the direct messages with a user."""
        self._check_room(room)
        if with_user is not None:
            check_str("with_user", with_user)
            if room is not None:
                raise UsageError("Only one of room and with_user is possible.")

    def _check_open(self) -> None:
        if self._is_closed:
            raise UsageError("This client is closed: make another ChatClient.")

    def _check_logged_in(self) -> None:
        self._check_open()
        if not self._session.model.was_logged_in:
            raise UsageError("This client is not logged in: call login() first.")

    # --- waiting for answers ---

    def _send_message(self, message: requests.Say | requests.Whisper) -> int | None:
        self._check_logged_in()
        _refused_as_error(check_message, message)
        self._wait_until_ready()
        prepared = _refused_as_error(self._session.prepare, message)
        match self._wait_for_event(self._session.request(prepared), lambda each: _nonce_of(each) == prepared.nonce):
            case events.Sent(message_id):
                return message_id
            case events.Refused() as error:
                raise _error_of(error)
            case Outcome(has_come=True):
                return None
            case Outcome():
                raise RefusedError(
                    "not_delivered", "There is no such user, or not all users acknowledged the message in time."
                )
            case _:
                raise LostError("The connection was lost; it is unknown whether the message was stored.")

    def _moderate(self, action: requests.ModerationRequest, kind: type[Answer]) -> Answer:
        """Make a request of moderation, after the checks of its members."""
        room, reason, seconds = (getattr(action, each, None) for each in ("room", "reason", "seconds"))
        username = getattr(action, "username", None)
        for name, value in (("room", room), ("username", username), ("reason", reason)):
            if value is not None:
                check_str(name, value)
        if seconds is not None:
            check_whole("seconds", seconds)
        self._check_json("moderation")
        self._check_room(room)
        if username is not None:
            _refused_as_error(check_username, username)
        if reason is not None:
            _refused_as_error(check_unicode, reason)
            _refused_as_error(check_reason, reason)
        return self._query(action, kind)

    def _ask_about(self, action: requests.RoomRequest, kind: type[Answer]) -> Answer:
        """Make a request about a room, or about a user in a room."""
        check_str("room", action.room)
        username, key = (getattr(action, each, None) for each in ("username", "key"))
        if username is not None:
            check_str("username", username)
            _refused_as_error(check_username, username)
        if key is not None:
            check_str("key", key)
            _refused_as_error(check_unicode, key)
            _refused_as_error(check_room_key, key)
        self._check_json()
        _refused_as_error(check_room_name, action.room)
        return self._query(action, kind)

    def _query(self, action: Action, kind: type[Answer]) -> Answer:
        """Make a query. The session repeats it on every new connection until it is answered."""
        self._check_logged_in()
        if self._session.client_protocol.connections > 1:
            raise RefusedError(ErrorCode.UNKNOWN_COMMAND, "The wire format register has no such request.")
        self._wait_until_ready()
        answer = self._wait_for_event(self._session.request(action), lambda each: self._is_answer(action, kind, each))
        if isinstance(answer, events.Refused):
            raise _error_of(answer)
        return answer  # type: ignore[no-any-return]

    def _is_answer(self, action: Action, kind: type, event: Any) -> bool:
        """True for the answer to a query, and for an error that concerns neither a message nor a login."""
        model = self._session.model
        if isinstance(event, events.Refused) and not model.is_logged_in:
            return False
        return isinstance(event, kind | events.Refused) and answers(action, event, model.username)

    def _wait_until_ready(self) -> None:
        """Receive until a request can be made: after a lost connection, until the next login."""
        while not self._session.is_ready:
            self._keep_for_events(self._receive())

    def _wait_for_event(self, happened: Sequence[Any], matches: Callable[[Any], bool]) -> Any:
        """Return the first event that matches. All others are kept for :meth:`events`."""
        while True:
            found = next(filter(matches, happened), None)
            self._keep_for_events(each for each in happened if each is not found)
            if found is not None:
                return found
            happened = self._receive()

    def _keep_for_events(self, happened: Iterable[Any]) -> None:
        for each in happened:
            if not isinstance(each, Connected | ConnectionEnded | Left):
                self._backlog.add(each)

    def _receive(self, timeout_seconds: float | None = None) -> Sequence[Any]:
        """Handle the next input, and return its events. Raises queue.Empty at the timeout, and the final error."""
        if self._final_error is not None and self._session.inbox.is_empty:
            raise self._final_error
        return self._handle(self._session.inbox.get(timeout_seconds))

    def _handle(self, given: Any) -> Sequence[Any]:
        """The events that an item of the inbox causes; an injected object is its own event."""
        return [*map(self._read, self._session.handle(given))] if isinstance(given, _RECEIVED) else [given]

    def _read(self, event: SessionEvent) -> Any:
        """Keep the final error. For programs a refused login is an error like any other."""
        match event:
            case ConnectionEnded(reason):
                self._final_error = LostError(reason, self._goodbye_code)
            case events.Bye(code=code):
                self._goodbye_code = code
            case LoginRefused(error, is_final):
                if is_final and self._session.model.was_logged_in:
                    self._final_error = _error_of(error)
                return error
        return event


def _error_of(refused: events.Refused) -> RefusedError:
    return RefusedError(refused.code, refused.reason, refused.retry_seconds)


def _user_or_network(target: str) -> tuple[str | None, str | None]:
    """The username and the address of a ban: one of them is None. Raises UsageError and RefusedError."""
    check_str("target", target)
    if not is_address(target):
        return target, None
    try:
        return None, ban_network(target)
    except ValueError as error:
        raise RefusedError(ErrorCode.BAD_REQUEST, f"{error}.") from None


def _check_range(limit: int, before: int | None, after: int | None = None) -> None:
    check_whole("limit", limit)
    for name, number in (("before", before), ("after", after)):
        if number is not None:
            check_whole(name, number)


def _refused_as_error(check: Callable[[Given], Checked], given: Given) -> Checked:
    try:
        return check(given)
    except RequestError as error:
        raise RefusedError(error.code, error.reason) from None


def _nonce_of(event: Any) -> str | None:
    match event:
        case events.Sent(nonce=nonce) | events.Refused(nonce=nonce):
            return nonce
        case DeliveryUnknown(message) | Outcome(message):
            return message.nonce
        case _:
            return None
