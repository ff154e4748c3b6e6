"""Client side of the protocols frames and datagram, in which an operation takes several steps. Pure.

   PM ->    <- READY    the text ->    <- SENT 18

One operation runs at a time; further actions wait in `_waiting`. `_state` is the server's state, as far as it is known:

    None              the server waits for an operation
    an action         the server runs this operation, and the answer follows
    Opened            the server has answered OpenPublic or OpenDirect, and waits for a recipient or a text

The owner's thread changes `_state`, each time in one assignment and before the requests of the new state are sent. The
receiver thread reads it in `ping`. Wire format: docs/wire/frames.md.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec.structs import replace

from chatclient.client_protocol import Effects, OpenDirect, OpenPublic, is_other_history
from chatclient.resume import Resume
from chatprotocol.errors import ErrorCode
from chatprotocol.events import (
    YOU_LEFT,
    Bye,
    DirectMessage,
    History,
    Online,
    PasswordPrompt,
    PublicMessage,
    Ready,
    Refused,
    Sent,
    Welcome,
)
from chatprotocol.keywords import DEFAULT_KEYWORDS, HISTORY_ID, KEYWORD_SETS, PING, WORDS
from chatprotocol.limits import HISTORY_DEFAULT_MESSAGES, HISTORY_MAX_MESSAGES
from chatprotocol.requests import AskHistory, AskUsers, Command, Data, Leave, Login, Password, Say, Whisper
from chatprotocol.rules import name_key
from chatprotocol.udp.packet import COOKIE_WORD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chatclient.client_protocol import Action, ClientEvent
    from chatprotocol.events import Event, Message
    from chatprotocol.requests import Request


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


class FramesClient:
    """Runs one operation at a time. For one thread, except `ping`."""

    is_stepwise = True
    is_guest = False

    def __init__(self, ops: str) -> None:
        """``ops`` is the name of a keyword set."""
        self._ops = ops
        self._words = KEYWORD_SETS[ops]
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
    def ping(self) -> Request | None:
        """The ping; None unless the server waits for an operation, because it would take the ping as the next step."""
        # The receiver thread reads `_state` without a lock of this class, under TcpLink's sending lock. One attribute
        # can't be a mixture of two states. If the state changes after the read, the new requests follow the ping.
        return Command(PING) if self._state is None else None

    def connect(self, login: Login, unconfirmed: Sequence[Say | Whisper]) -> Effects:
        """Send the name, then the keyword set unless it is the default, and the word that requests the history id."""
        self._login = login
        self._password = login.password
        self._waiting = deque(unconfirmed)
        self._state = None
        self._awaits_name_answer = True
        return Effects((self._name(),))

    def request(self, action: Action) -> Effects:
        """Queue the action, and begin it if no operation is running."""
        if isinstance(action, Password):
            return Effects((Command(action.password),))
        self._waiting.append(action)
        return Effects(() if self.is_busy else self._begin_next())

    def handle_event(self, event: Event) -> Effects:
        """Continue or finish the running operation."""
        was_awaiting_name_answer, self._awaits_name_answer = self._awaits_name_answer, False
        match self._state, event:
            case _, Refused(code) if was_awaiting_name_answer and self._wants_history_id and code in _NOT_UNDERSTOOD:
                self._wants_history_id = False
                return Effects((self._name(),))
            case _, PasswordPrompt() if self._password is not None:
                password, self._password = self._password, None
                return Effects((Command(password),))
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

    def _name(self) -> Command:
        """The first frame of a connection."""
        words = [_as_name(self._login.username)]
        if self._ops != DEFAULT_KEYWORDS:
            words.append(self._ops)
        if self._wants_history_id:
            words.append(HISTORY_ID)
        return Command(" ".join(words))

    def _begin_next(self) -> tuple[Request, ...]:
        """The first steps of the next action."""
        if not self._waiting:
            return ()
        match self._state, self._waiting[0]:
            case (Opened(OpenPublic()), Say() as message) | (Opened(OpenDirect()), Whisper() as message):
                steps = self._last_steps(message)
            case Opened(by), _:
                self._state = CancelOpened()
                return (Data(""),) if isinstance(by, OpenPublic) else (Command(""), Data(""))
            case _, action:
                steps = (Command(self._first_step(action)),)
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

    def _last_steps(self, message: Say | Whisper) -> tuple[Request, ...]:
        """The steps with recipient and text. The server may store the message after them."""
        self._last_sent = message
        return (
            (Data(message.text),) if isinstance(message, Say) else (Command(_as_name(message.to)), Data(message.text))
        )

    def _on_welcome(self, event: Welcome) -> Effects:
        """After a reconnect, request the history first, to find missed messages."""
        welcome = replace(event, username=event.username or self._login.username)
        if not self._was_logged_in:
            self._was_logged_in = True
            return Effects(events=(welcome,))
        is_other = is_other_history(self._login, welcome)
        self._state = Resume(welcome, self._login.since, is_other=is_other)
        history = AskHistory(HISTORY_MAX_MESSAGES if is_other else HISTORY_DEFAULT_MESSAGES)
        return Effects((Command(self._first_step(history)),))

    def _finish(self, asked: Action | Resume | CancelOpened, event: Event) -> Effects:
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

    def _resume(self, resume: Resume, event: Event) -> tuple[ClientEvent, ...]:
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
