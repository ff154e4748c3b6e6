"""The steps of the wire protocols frames and datagram, and the state machines of both sides.

In these protocols an operation takes several steps. A step is a command (C) or data (D) with a text. Its meaning
depends on the steps before it, and during the login on the server's answers:

    USERNAME      C name and options     -> Login               PasswordPrompt leads to PASSWORD
    PASSWORD      C password             -> Password            Welcome leads to OPERATION
    OPERATION     C CH, USERS, PING, EX  -> the request
                  C PM                   -> READY is sent       PUBLIC_TEXT
                  C DM                   -> AskUsers            RECIPIENT
    PUBLIC_TEXT   D text                 -> Say                 OPERATION
    RECIPIENT     C name                                        DIRECT_TEXT
    DIRECT_TEXT   D text                 -> Whisper             OPERATION

These are the states of the server's half, ServerSteps. An unexpected or unreadable step returns to USERNAME, PASSWORD
or OPERATION, whichever the login has reached.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple, TypeAlias

from msgspec.structs import replace

from chatprotocol import events, requests
from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.events import (
    YOU_LEFT,
    Bye,
    DirectMessage,
    History,
    PasswordPrompt,
    PublicMessage,
    Refused,
    Sent,
    Welcome,
)
from chatprotocol.keywords import DEFAULT_KEYWORDS, HISTORY_ID, KEYWORD_SETS, PING, WORDS
from chatprotocol.limits import HISTORY_DEFAULT_MESSAGES, HISTORY_MAX_MESSAGES
from chatprotocol.requests import AskHistory, AskUsers, Leave, Login, Password, Say, Whisper
from chatprotocol.rules import check_text, history_limit, name_key
from chatprotocol.udp.packet import COOKIE_WORD
from chatprotocol.wire.base import Effects, Online, OpenDirect, OpenPublic, Outgoing, Ready, is_other_history
from chatprotocol.wire.resume import Resume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from chatprotocol.events import Event, EventBatch, Message
    from chatprotocol.requests import Request
    from chatprotocol.wire.base import Action, ClientEvent, Decoder

COMMAND: Final = ord("C")
DATA: Final = ord("D")
# COMMAND or DATA, and the payload.
Step: TypeAlias = tuple[int, bytes]

# The step that answers PM.
READY_STEP: Final = COMMAND, b"READY"


# --- requests, decoded by the server ---


class State(Enum):
    """The step that the server expects."""

    USERNAME = auto()
    PASSWORD = auto()
    OPERATION = auto()
    PUBLIC_TEXT = auto()
    RECIPIENT = auto()
    DIRECT_TEXT = auto()


class ServerSteps:
    """The server's half of one connection. For its reader thread; after the login `login_events` is for any thread."""

    __slots__ = ("_keywords", "_reached", "_recipient", "_state", "_wants_history_id", "ready_count")

    def __init__(self) -> None:
        # Number of READY that were not sent yet.
        self.ready_count = 0
        self._state = State.USERNAME
        # The state that the login has reached: USERNAME, PASSWORD or OPERATION.
        self._reached = State.USERNAME
        self._keywords = KEYWORD_SETS[DEFAULT_KEYWORDS]
        self._wants_history_id = False
        self._recipient = ""

    def read(self, kind: int, payload: bytes) -> Request | None:
        """Decode a step. Returns the request that it completes, or None."""
        try:
            text = payload.decode()
        except UnicodeDecodeError as error:
            return self.unreadable(ErrorCode.BAD_REQUEST, f"The payload is not UTF-8, from byte {error.start} on.")
        return self.take(kind, text)

    def take(self, kind: int, text: str) -> Request | None:
        """Return the request that this step completes, or None."""
        state, self._state = self._state, self._reached
        expected, description, transition = self._TRANSITIONS[state]
        if kind == expected:
            return transition(self, text)
        code = ErrorCode.NOT_LOGGED_IN if state is State.USERNAME else ErrorCode.BAD_REQUEST
        reason = f"A {expected:c} frame was due, with {description}; this is a {kind:c} frame."
        return requests.Unreadable(code, reason)

    def read_public(self, keyword: str, texts: Sequence[str]) -> Iterator[Request]:
        """Read several times the keyword and a text: as one batch if they are valid public messages."""
        if self._state is State.OPERATION and keyword == self._keywords.public and _are_valid(texts):
            self.ready_count += len(texts)
            yield requests.SayBatch(texts)
            return
        for text in texts:
            for kind, word in ((COMMAND, keyword), (DATA, text)):
                request = self.take(kind, word)
                if request is not None:
                    yield request

    def unreadable(self, code: ErrorCode, reason: str, *, closes: bool = False) -> requests.Unreadable:
        """Drop the incomplete operation, and return the error."""
        self._state = self._reached
        return requests.Unreadable(code, reason, closes=closes)

    def login_events(self, said: Sequence[Event | EventBatch]) -> Sequence[Event | EventBatch]:
        """Follow the login in the events for this connection. Returns them as this client gets them.

        After the login this method changes nothing, so that any thread may encode.
        """
        if self._reached is State.OPERATION:
            return said
        found: list[Event | EventBatch] = []
        for each in said:
            event = each
            if isinstance(event, events.PasswordPrompt):
                self._state = self._reached = State.PASSWORD
            elif isinstance(event, events.Welcome):
                self._state = self._reached = State.OPERATION
                if not self._wants_history_id:
                    event = replace(event, history_id=None)
            found.append(event)
        return found

    # --- transitions for the expected step; they set _state only if the operation continues ---

    def _read_username(self, text: str) -> Request:
        """Parse a username and options: a keyword set, and the request for the history id."""
        if text == self._keywords.leave:
            return requests.Leave()
        if text in WORDS:  # an operation before the login
            reason = "You are not logged in; send your username in a C frame first."
            return requests.Unreadable(ErrorCode.NOT_LOGGED_IN, reason)
        name, _, options = text.strip().partition(" ")
        words = options.split()
        self._wants_history_id = HISTORY_ID in words
        if self._wants_history_id:
            words.remove(HISTORY_ID)
        keywords = KEYWORD_SETS.get(" ".join(words) or DEFAULT_KEYWORDS)
        if keywords is None:
            reason = f"After the username there may be {' or '.join(KEYWORD_SETS)}, and {HISTORY_ID}, nothing else."
            return requests.Unreadable(ErrorCode.BAD_REQUEST, reason)
        self._keywords = keywords
        return requests.StepLogin(name)

    def _read_operation(self, text: str) -> Request | None:
        """Parse an operation, case-insensitive. A limit may follow the keyword of the history."""
        operation, _, limit = text.strip().upper().partition(" ")
        words = self._keywords
        if operation == words.history:
            return _ask_history(limit.strip())
        match "" if limit else operation:
            case words.public:
                self.ready_count += 1
                self._state = State.PUBLIC_TEXT
                return None
            case words.direct:
                self._state = State.RECIPIENT
                return requests.AskUsers()
            case words.leave:
                return requests.Leave()
            case "USERS":
                return requests.AskUsers()
            case "PING":
                return requests.Ping()
        known = ", ".join([*words, "USERS", PING])
        reason = f"There is no operation {text[:32]!r}; there are {known}, each alone in its frame."
        return requests.Unreadable(ErrorCode.UNKNOWN_COMMAND, reason)

    def _read_recipient(self, text: str) -> None:
        """The recipient is checked with the complete request."""
        self._recipient = text.strip()
        self._state = State.DIRECT_TEXT

    # By state: the expected kind, its description for errors, and the method that reads it.
    _TRANSITIONS: ClassVar[dict[State, tuple[int, str, Callable[[ServerSteps, str], Request | None]]]] = {
        State.USERNAME: (COMMAND, "your username", _read_username),
        State.PASSWORD: (COMMAND, "your password", lambda _, text: requests.Password(text)),
        State.OPERATION: (COMMAND, "an operation", _read_operation),
        State.PUBLIC_TEXT: (DATA, "the message", lambda _, text: requests.Say(text)),
        State.RECIPIENT: (COMMAND, "the recipient", _read_recipient),
        State.DIRECT_TEXT: (DATA, "the message", lambda self, text: requests.Whisper(self._recipient, text)),
    }


def _are_valid(texts: Sequence[str]) -> bool:
    try:
        for text in texts:
            check_text(text)
    except RequestError:
        return False
    return True


def _ask_history(limit: str) -> Request:
    try:
        return requests.AskHistory(history_limit(limit))
    except RequestError as error:
        return requests.Unreadable(error.code, error.reason)


# --- the client ---


class CancelOpened(NamedTuple):
    """Cancels an opened message: sends an empty one, which the server rejects."""


class Opened(NamedTuple):
    """A message was opened, and its recipient or text is missing."""

    by: OpenPublic | OpenDirect


# Reserved words of the protocols. A name that is a reserved word is sent in lower case.
_RESERVED: Final = WORDS | {PING, COOKIE_WORD.decode()}
# Errors of servers that reject an additional word after the name.
_NOT_UNDERSTOOD: Final = frozenset({ErrorCode.BAD_REQUEST, ErrorCode.BAD_USERNAME})
# Final answer to each action, unless it is rejected.
_ANSWER: Final[dict[type, type]] = {
    OpenPublic: Ready,
    OpenDirect: Online,
    Say: Sent,
    Whisper: Sent,
    AskUsers: Online,
    AskHistory: History,
    Resume: History,
    Leave: Bye,
    CancelOpened: Sent,
}


class StepClient:
    """The client's half. It runs one operation at a time; further actions wait in `_waiting`.

    `_state` is the server's state, as far as it is known:

        None          the server waits for an operation
        an action     the server runs this operation, and the answer follows
        Opened        the server has answered OpenPublic or OpenDirect, and waits for a recipient or a text

    The owner's thread changes `_state`, each time in one assignment and before the bytes of the new state are sent. The
    receiver thread reads it in `ping`.
    """

    connections = 1
    is_stepwise = True
    is_guest = False
    probe = None

    def __init__(
        self,
        keywords: str,
        encode: Callable[[int, bytes], bytes],
        event_decoder: Callable[[], Decoder[ClientEvent]],
        *,
        pings_anywhere: bool = False,
    ) -> None:
        """``keywords`` is the name of a keyword set, ``encode`` encodes a step.

        ``pings_anywhere``: PING is no step but a keepalive request at any time, so it can't be a password.
        """
        self._keywords = keywords
        self._words = KEYWORD_SETS[keywords]
        self._encode = encode
        self.event_decoder = event_decoder
        self._pings_anywhere = pings_anywhere
        self._login = Login("")
        # Sent once, at the first password prompt of a connection.
        self._password: str | None = None
        self._was_logged_in = False
        # True if the history id is requested with the name. Some servers reject that word.
        self._wants_history_id = True
        # True from sending the name until the first event.
        self._awaits_name_answer = False
        # The last message whose text was sent. While unconfirmed, it may or may not be stored.
        self._last_sent: Say | Whisper | None = None
        self._state: Action | Resume | CancelOpened | Opened | None = None
        self._waiting: deque[Action] = deque()

    @property
    def is_busy(self) -> bool:
        """True while an operation is unanswered."""
        return not isinstance(self._state, Opened | None)

    @property
    def ping(self) -> Outgoing | None:
        """The ping; None unless the server waits for an operation, because it would take the ping as the next step."""
        # The receiver thread reads `_state` without a lock of this class, under TcpLink's sending lock. One attribute
        # can't be a mixture of two states. If the state changes after the read, the new requests follow the ping.
        return self._send((COMMAND, PING))[0] if self._state is None else None

    def connect(self, login: Login, unconfirmed: Sequence[Say | Whisper], host: str = "") -> Effects:  # noqa: ARG002
        """Send the name, then the keyword set unless it is the default, and the word that requests the history id."""
        self._login = login
        self._password = login.password
        self._waiting = deque(unconfirmed)
        self._state = None
        self._awaits_name_answer = True
        return Effects(self._send_name())

    def request(self, action: Action) -> Effects:
        """Queue the action, and begin it if no operation is running."""
        if isinstance(action, Password):
            return self._send_password(action.password)
        self._waiting.append(action)
        return Effects(() if self.is_busy else self._begin_next())

    def handle_event(self, event: ClientEvent) -> Effects:
        """Continue or finish the running operation."""
        was_awaiting_name_answer, self._awaits_name_answer = self._awaits_name_answer, False
        match self._state, event:
            case _, Refused(code) if was_awaiting_name_answer and self._wants_history_id and code in _NOT_UNDERSTOOD:
                self._wants_history_id = False
                return Effects(self._send_name())
            case _, PasswordPrompt() if self._password is not None:
                password, self._password = self._password, None
                return self._send_password(password)
            case _, Welcome():
                return self._on_welcome(event)
            case Resume(), (PublicMessage() | DirectMessage()):
                self._state.hold(self._complete(event))
                return Effects()
            case _, (PublicMessage() | DirectMessage()):
                return Effects(events=(self._complete(event),))
            case (Say() as message, Ready()) | (Whisper() as message, Online()):
                return Effects(self._last_steps(message))
            case ((Opened() | None), Refused()):
                self._state = None  # after any error the server waits for an operation
            case ((Opened() | None), _):
                pass
            case asked, _ if isinstance(event, (Refused, _ANSWER[type(asked)])):
                return self._finish(asked, event)
        return Effects(events=(event,))

    def _send(self, *steps: tuple[int, str]) -> tuple[Outgoing]:
        return (Outgoing(b"".join([self._encode(kind, text.encode()) for kind, text in steps])),)

    def _send_password(self, password: str) -> Effects:
        if self._pings_anywhere and password.strip() == PING:
            reason = f"In the wire format datagram, {PING} is the keepalive request; it can't be a password."
            return Effects(events=(Refused(ErrorCode.BAD_REQUEST, reason),))
        return Effects(self._send((COMMAND, password)))

    def _send_name(self) -> tuple[Outgoing]:
        """The first step of a connection."""
        words = [_as_name(self._login.username)]
        if self._keywords != DEFAULT_KEYWORDS:
            words.append(self._keywords)
        if self._wants_history_id:
            words.append(HISTORY_ID)
        return self._send((COMMAND, " ".join(words)))

    def _begin_next(self) -> tuple[Outgoing, ...]:
        """The first steps of the next action."""
        if not self._waiting:
            return ()
        match self._state, self._waiting[0]:
            case (Opened(OpenPublic()), Say() as message) | (Opened(OpenDirect()), Whisper() as message):
                steps = self._last_steps(message)
            case Opened(by), _:
                self._state = CancelOpened()
                return self._send((DATA, "")) if isinstance(by, OpenPublic) else self._send((COMMAND, ""), (DATA, ""))
            case _, action:
                steps = self._send((COMMAND, self._first_step(action)))
        self._state = self._waiting.popleft()
        return steps

    def _first_step(self, action: Action) -> str:
        match action:
            case OpenPublic() | Say():
                return self._words.public
            case OpenDirect() | Whisper():
                return self._words.direct
            case AskHistory(limit=limit):
                is_default = limit == HISTORY_DEFAULT_MESSAGES
                return self._words.history if is_default else f"{self._words.history} {limit}"
            case AskUsers():
                return "USERS"
            case Leave():
                return self._words.leave
            case _:
                raise TypeError(f"{action!r} can't be sent step by step.")

    def _last_steps(self, message: Say | Whisper) -> tuple[Outgoing]:
        """The steps with recipient and text. The server may store the message after them."""
        self._last_sent = message
        if isinstance(message, Say):
            return self._send((DATA, message.text))
        return self._send((COMMAND, _as_name(message.to)), (DATA, message.text))

    def _on_welcome(self, event: Welcome) -> Effects:
        """After a reconnect, request the history first, to find missed messages."""
        welcome = replace(event, username=event.username or self._login.username)
        if not self._was_logged_in:
            self._was_logged_in = True
            return Effects(events=(welcome,))
        is_other = is_other_history(self._login, welcome)
        # This protocol has the lobby only, and one id.
        since = self._login.since if isinstance(self._login.since, int) else None
        self._state = Resume(welcome, since, is_other=is_other)
        history = AskHistory(HISTORY_MAX_MESSAGES if is_other else HISTORY_DEFAULT_MESSAGES)
        return Effects(self._send((COMMAND, self._first_step(history))))

    def _finish(self, asked: Action | Resume | CancelOpened, event: ClientEvent) -> Effects:
        """Finish the operation with its answer, and begin the next one."""
        events: tuple[ClientEvent, ...] = (event,)
        opened: Opened | None = None
        match asked, event:
            case CancelOpened(), _:
                events = ()
            case Resume(), _:
                events = self._resume(asked, event)
            case ((OpenPublic() | OpenDirect()), (Ready() | Online())):
                opened = Opened(asked)
            case ((Say(nonce=nonce) | Whisper(nonce=nonce)), (Sent() | Refused())):
                events = (replace(event, nonce=nonce),)
            case _, History(messages):
                events = (History(tuple(map(self._complete, messages))),)
            case _, Bye(""):
                events = (Bye(YOU_LEFT),)
        self._state = opened
        return Effects(self._begin_next(), events)

    def _resume(self, resume: Resume, event: ClientEvent) -> tuple[ClientEvent, ...]:
        """Return missed messages, and the outcome of the message whose text was sent."""
        history = [self._complete(message) for message in event.messages] if isinstance(event, History) else []
        resume.read(history)
        own_message = self._last_sent
        if (
            own_message is None
            or own_message not in self._waiting
            or (outcome := resume.outcome_of(own_message)) is None
        ):
            return (resume.welcome, *resume.missed())
        self._waiting.remove(own_message)
        return (resume.welcome, *resume.missed(), outcome)

    def _complete(self, message: Message) -> Message:
        """Add the recipient, which these protocols omit: it is this user, unless this user is the sender."""
        username = self._login.username
        if (
            isinstance(message, DirectMessage)
            and not message.recipient
            and name_key(message.sender) != name_key(username)
        ):
            return replace(message, recipient=username)
        return message


def _as_name(name: str) -> str:
    """The name in a spelling that is not a reserved word. Names are case-insensitive."""
    return name.lower() if name in _RESERVED else name
