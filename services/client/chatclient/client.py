"""The client for programs: come in, say something, ask for something, and read what happens.

    with ChatClient("localhost", 9999) as client:
        client.login("echo", "secret")
        for event in client.events():
            if isinstance(event, PublicMessage):
                client.whisper(event.sender, event.text)

Its errors are in errors.py. For programmers: docs/bots.md.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias, TypeVar

from chatclient.arguments import check_choice, check_port, check_seconds, check_str, check_whole
from chatclient.client_protocol import DeliveryUnknown, JsonClient, Outcome, PossibleGap
from chatclient.errors import ChatError, LostError, RefusedError, UsageError
from chatclient.frames_client import FramesClient
from chatclient.inbox import Backlog, Inbox
from chatclient.links.connection import Connection, LinkDown, LinkLost, LinkUp
from chatclient.links.tcp import connect
from chatclient.links.udp import UdpLink
from chatclient.links.watch import SILENCE_SECONDS, Due, Watch
from chatclient.model import ConnectionState, Model
from chatclient.notices import ConnectionLost, Dropped, Reconnected
from chatclient.register_client import RegisterClient
from chatclient.session import ClientSession, check_message, check_unicode
from chatprotocol.address import check_host
from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.events import (
    Bye,
    DirectMessage,
    Event,
    Forwarded,
    Found,
    History,
    Online,
    PasswordPrompt,
    PublicMessage,
    Refused,
    Sent,
    Users,
    Welcome,
)
from chatprotocol.keywords import DEFAULT_KEYWORDS, KEYWORD_SETS
from chatprotocol.limits import HISTORY_DEFAULT_MESSAGES
from chatprotocol.requests import AskHistory, AskUsers, Leave, Say, Search, Whisper
from chatprotocol.rules import check_username
from chatprotocol.wire import PROTOCOLS, Datagram, Frames, Register, by_name, protocols_with
from chatprotocol.wire.json import Json
from chatprotocol.wire.register import LENGTH_UNITS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType

    from chatclient.client_protocol import Action, ClientEvent, ClientProtocol
    from chatclient.links.connection import Signal
    from chatclient.session import Link
    from chatprotocol.address import Address
    from chatprotocol.events import Message
    from chatprotocol.requests import Request

Answer = TypeVar("Answer")
Given = TypeVar("Given")
Checked = TypeVar("Checked")
# What a program reads: what the server says, and what becomes of the connection. From Sent on: what became of
# something that the program itself has interrupted. docs/bots.md has a row for each.
Happening: TypeAlias = (
    PublicMessage
    | DirectMessage
    | Forwarded
    | Users
    | ConnectionLost
    | Reconnected
    | PossibleGap
    | Dropped
    | History
    | Refused
    | Bye
    | Sent
    | Outcome
    | DeliveryUnknown
    | Online
    | Found
)

# How long the server's goodbye is waited for.
_GOODBYE_SECONDS: Final = 5.0
# What a login is answered with, in the end.
_LOGIN_ANSWERS: Final = Welcome | PasswordPrompt | Refused | ConnectionLost


class ChatClient:
    """One user's client of one server. Nothing happens before :meth:`connect`, or the ``with`` that calls it.

    For one thread, but for :meth:`inject`. What arrives waits until that thread asks for something or reads
    :meth:`events`; meanwhile nothing is answered, and in the dialect register, where each message wants an answer,
    others are told that theirs did not come. A lost connection is tried again for ``retry_seconds``; what was missed
    comes behind :class:`Back`, each message once, and what was not confirmed is sent again, and stored once.

    ``dialect`` is one of json, frames, register and datagram; the docs say what each of them can't tell. ``ops`` and
    ``register_length`` are the settings ``--ops`` and ``--register-length``.
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = 9999,
        *,
        dialect: str = Json.name,
        ops: str = DEFAULT_KEYWORDS,
        register_length: str = LENGTH_UNITS[0],
        retry_seconds: float = 60.0,
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        """Raises UsageError for an argument that can't be right."""
        check_str("host", host)
        check_port("port", port)
        check_choice("dialect", dialect, [each.name for each in PROTOCOLS])
        check_choice("ops", ops, KEYWORD_SETS)
        check_choice("register_length", register_length, LENGTH_UNITS)
        check_seconds("retry_seconds", retry_seconds, math.inf)
        check_seconds("silence_seconds", silence_seconds, math.inf)
        spoken = by_name(dialect, protocols_with(Register(length=register_length)))
        open_link = UdpLink if dialect == Datagram.name else connect
        try:
            address = (check_host(host), port)
        except RequestError as error:
            raise UsageError(error.reason) from None
        self.session = ClientSession(Model(address, None, None), _client_protocol(dialect, ops))
        self._is_json = dialect == Json.name
        self._inputs = Inbox()
        watch = partial(Watch, _Debts(self.session, self._inputs), silence_seconds or math.inf)
        open_watched = partial(open_link, spoken, lambda: watch(time.monotonic()))
        self._connection = Connection(open_watched, retry_seconds, self._inputs.put_heard)
        self._link: Link | None = None
        self._has_knocked = False
        self._has_been_in = False
        # Was it told that the connection is lost? Once is enough until it stands again.
        self._is_cut = False
        # What happened while something else was waited for.
        self._happened = Backlog()
        self._end: ChatError | None = None
        self._is_closed = False

    # --- to come and go ---

    def __enter__(self) -> Self:
        """Connect."""
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave and close."""
        self.close()

    def connect(self) -> None:
        """Reach the server. Raises LostError where there is none; then it can be tried again."""
        self._check_open()
        if self._link is not None:
            raise UsageError("This client was connected before: `with ChatClient(...)` has done it.")
        assert self.session.model.server is not None  # only the faces have none
        self._end = None
        self.start(self.session.model.server)
        while self._link is None:
            self._keep(self._receive())

    def login(self, username: str, password: str = "") -> Welcome:
        """Come in; a name that nobody has is registered. Once for each client.

        Raises RefusedError. Where the server refused it, the client is of no more use: close it. A name that nobody can
        have is refused before anything is sent; then another one can be tried.
        """
        check_str("username", username)
        check_str("password", password)
        self._check_open()
        if self._link is None:
            raise UsageError("The client is not connected: connect() first, or use `with ChatClient(...)`.")
        if self._has_knocked:
            raise UsageError("This client has tried to log in before: make another ChatClient for another login.")
        _refused_as_error(check_username, username)
        _refused_as_error(check_unicode, password)
        self._has_knocked = True
        self.session.model.username = username
        self.session.model.password = password or None
        match self._await(self.session.log_in(self._link), lambda each: isinstance(each, _LOGIN_ANSWERS)):
            case Welcome() as welcome:
                self._has_been_in = True
                return welcome
            case Refused(code, reason):
                raise RefusedError(code, reason)
            case ConnectionLost(reason):
                raise LostError(reason)
            case _:
                raise RefusedError(ErrorCode.WRONG_PASSWORD, f"The name {username} needs a password.")

    def close(self) -> None:
        """Say goodbye, wait a little for the answer, and end the connection. Several times do no harm."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            if self.session.model.connection_state is ConnectionState.IN and self._end is None:
                self._part()
        finally:
            self.hang_up()

    def _part(self) -> None:
        give_up_at = time.monotonic() + _GOODBYE_SECONDS
        said: Sequence[Any] = self.session.request(Leave())
        while self._end is None and not any(isinstance(each, Bye | ConnectionLost) for each in said):
            try:
                said = self._take(self._inputs.get(max(0.0, give_up_at - time.monotonic())))
            except queue.Empty:
                return

    # --- to say and to ask ---

    def say(self, text: str) -> int | None:
        """Say it to everybody: returns the message's id when it is on the server's disk.

        None where the dialect tells no ids (register); there it has been delivered to all who are here.
        """
        check_str("text", text)
        return self._post(Say(text))

    def whisper(self, to: str, text: str) -> int | None:
        """Write to one user; the same. Who is not online gets it at the next login."""
        check_str("to", to)
        check_str("text", text)
        return self._post(Whisper(to, text))

    def users(self) -> tuple[str, ...]:
        """Who is online."""
        return self._ask(AskUsers(), Online).users

    def history(self, limit: int = HISTORY_DEFAULT_MESSAGES, before: int | None = None) -> tuple[Message, ...]:
        """The last messages that this user may see, oldest first. ``before``, an id, only in the dialect json."""
        _check_extent(limit, before)
        if before is not None and not self._is_json:
            raise RefusedError(ErrorCode.BAD_REQUEST, "In this dialect nobody can ask for what was before a message.")
        return self._ask(AskHistory(limit, before), History).messages

    def search(
        self, words: str, limit: int = HISTORY_DEFAULT_MESSAGES, before: int | None = None
    ) -> tuple[Message, ...]:
        """The newest messages with all these words that this user may see, oldest first. Only in the dialect json."""
        check_str("words", words)
        _check_extent(limit, before)
        if not self._is_json:
            raise RefusedError(ErrorCode.UNKNOWN_COMMAND, "This dialect has no word for a search; json has.")
        _refused_as_error(check_unicode, words)
        return self._ask(Search(words, limit, before), Found).messages

    def events(self, timeout_seconds: float | None = None) -> Iterator[Any]:
        """Everything that happens, in order: see ``Happening``, and what was injected. Each message comes once.

        Ends when nothing has happened for so long, or when the client was closed. Raises LostError when the connection
        is lost for good, RefusedError when the server does not let the user in again.
        """
        if timeout_seconds is not None:
            check_seconds("timeout_seconds", timeout_seconds, threading.TIMEOUT_MAX)
        self._check_logged_in()
        while not self._is_closed:
            if dropped := self._happened.take_dropped():
                yield Dropped(dropped)
            while self._happened:
                yield self._happened.pop_all()
            try:
                self._keep(self._receive(timeout_seconds))
            except queue.Empty:
                return

    def inject(self, given: object) -> None:
        """Let :meth:`events` yield this in its turn. For any thread: a timer, or somebody who types."""
        self._inputs.put(given)

    # --- for programs that have a loop of their own: the faces ---

    def start(self, address: Address) -> None:
        """Begin to connect; once more after it was lost for good, if that was wanted."""
        self._connection.start(address)

    def receive(self) -> Event | Signal | Any:
        """What comes next, as it is; to be given to the visit."""
        return self._inputs.get()

    def hang_up(self) -> None:
        """End the connection without a word. For any thread but that of :meth:`receive`."""
        self._inputs.close()
        self._connection.close()

    # --- whether this makes sense now ---

    def _check_open(self) -> None:
        if self._is_closed:
            raise UsageError("This client is closed: make another ChatClient.")

    def _check_logged_in(self) -> None:
        self._check_open()
        if not self._has_been_in:
            raise UsageError("Nobody is logged in with this client: login() first.")

    # --- waiting for something ---

    def _post(self, message: Say | Whisper) -> int | None:
        self._check_logged_in()
        _refused_as_error(check_message, message)
        self._wait_until_ready()
        said = _refused_as_error(self.session.prepare, message)
        match self._await(self.session.request(said), lambda each: _nonce_of(each) == said.nonce):
            case Sent(message_id):
                return message_id
            case Refused(code, reason):
                raise RefusedError(code, reason)
            case Outcome(has_come=True):
                return None
            case Outcome():
                raise RefusedError("not_delivered", "There is nobody of that name, or not everybody took it in time.")
            case _:
                raise LostError("The connection was lost, and nobody knows whether the message was stored.")

    def _ask(self, action: Action, kind: type[Answer]) -> Answer:
        """Ask; the visit asks again on every new connection, until there is an answer."""
        self._check_logged_in()
        if self.session.client_protocol.is_guest:
            raise RefusedError(ErrorCode.UNKNOWN_COMMAND, "The dialect register has no word for that.")
        self._wait_until_ready()
        answer = self._await(self.session.request(action), lambda each: isinstance(each, kind) or self._is_error(each))
        if isinstance(answer, Refused):
            raise RefusedError(answer.code, answer.reason)
        return answer  # type: ignore[no-any-return]

    def _is_error(self, happening: Any) -> bool:
        """Of something that is no message, and no return?"""
        is_in = self.session.model.connection_state is ConnectionState.IN
        return isinstance(happening, Refused) and happening.nonce is None and is_in

    def _wait_until_ready(self) -> None:
        """Until something can be asked: while the connection is lost, until it stands again."""
        while not self.session.is_ready:
            self._keep(self._receive())

    def _await(self, fresh: Sequence[Any], is_it: Callable[[Any], bool]) -> Any:
        """Of what happens from here on the first thing that is waited for; the others are for :meth:`events`."""
        while True:
            found = next(filter(is_it, fresh), None)
            self._keep(each for each in fresh if each is not found)
            if found is not None:
                return found
            fresh = self._receive()

    def _keep(self, happened: Iterable[Any]) -> None:
        for each in happened:
            self._happened.add(each)

    def _receive(self, timeout_seconds: float | None = None) -> Sequence[Any]:
        """What follows from what comes next. Raises queue.Empty when nothing does, and the error that is the end."""
        if self._end is not None and self._inputs.is_empty:
            raise self._end
        return self._take(self._inputs.get(timeout_seconds))

    def _take(self, given: Any) -> Sequence[Any]:
        match given:
            case LinkUp(link):
                self._link = link
                return [*self.session.log_in(link)] if self._has_been_in else []
            case LinkDown(reason):
                self.session.connection_lost()
                was_cut, self._is_cut = self._is_cut, True
                return [] if was_cut else [ConnectionLost(reason)]
            case LinkLost(reason):
                self.session.connection_lost()
                self._end = LostError(reason)
                return []
            case _ if isinstance(given, Event):
                return [self._noted(each) for each in self.session.handle_event(given)]
            case _:
                return [given]

    def _noted(self, news: ClientEvent) -> ClientEvent | Reconnected:
        """Coming back is another thing than coming in, and being refused then is the end."""
        if not self._has_been_in:
            return news
        match news:
            case Welcome(_, username, _, last_id):
                self._is_cut = False
                return Reconnected(username, last_id)
            case Refused() if self.session.model.connection_state is not ConnectionState.IN:
                if self.session.passes(news):
                    self.session.shut()  # and try again
                else:
                    self._end = RefusedError(news.code, news.reason)
        return news


class _Debts:
    """What the server owes, as far as everything that was heard has been looked at."""

    def __init__(self, session: ClientSession, inputs: Inbox) -> None:
        self._session = session
        self._inputs = inputs

    @property
    def due(self) -> Due:
        """An answer may be among what waits."""
        return self._session.due if self._inputs.is_empty else Due.UNKNOWN

    @property
    def ping(self) -> Request | None:
        """What waits may change that."""
        return self._session.ping if self._inputs.is_empty else None


def _client_protocol(protocol: str, ops: str) -> ClientProtocol:
    """The one that goes with the dialect."""
    match protocol:
        case Frames.name | Datagram.name:
            return FramesClient(ops)
        case Register.name:
            return RegisterClient()
        case _:
            return JsonClient()


def _check_extent(limit: int, before: int | None) -> None:
    check_whole("limit", limit)
    if before is not None:
        check_whole("before", before)


def _refused_as_error(check: Callable[[Given], Checked], given: Given) -> Checked:
    try:
        return check(given)
    except RequestError as error:
        raise RefusedError(error.code, error.reason) from None


def _nonce_of(happening: Any) -> str | None:
    match happening:
        case Sent(nonce=nonce) | Refused(nonce=nonce):
            return nonce
        case DeliveryUnknown(said) | Outcome(said):
            return said.nonce
        case _:
            return None
