"""Step by step: the exchange of the dialects in which an operation is a dialogue. Pure.

    PM ->    <- READY    the text ->    <- SENT 18

The wire of that is docs/wire/frames.md.
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


class GiveUp(NamedTuple):
    """Out of a dialogue that somebody has opened and left: an empty message, which is refused."""


# What a name in capitals might be taken for, in one of the dialects.
_RESERVED: Final = WORDS | {PING, COOKIE_WORD.decode()}
# How servers refuse what they don't know behind a name.
_NOT_UNDERSTOOD: Final = frozenset({ErrorCode.BAD_REQUEST, ErrorCode.BAD_USERNAME})
# What each wish is answered with in the end, if it is not refused.
_ANSWER: Final[dict[type, type]] = {
    OpenPublic: Ready,
    OpenDirect: Online,
    Say: Sent,
    Whisper: Sent,
    AskUsers: Online,
    AskHistory: History,
    Resume: History,
    Leave: Bye,
    GiveUp: Sent,
}


class FramesClient:
    """One operation after the other."""

    is_stepwise = True
    is_guest = False

    def __init__(self, ops: str) -> None:
        """``ops`` names the tradition of words."""
        self._ops = ops
        self._words = KEYWORD_SETS[ops]
        self._login = Login("")
        # For the first time that it is asked for.
        self._password: str | None = None
        self._has_been_in = False
        # Is the history's identity asked for behind the name? Some servers don't know that word.
        self._wants_history_id = True
        # Was the name sent, and nothing heard since?
        self._is_naming = False
        # The last message of which the text was sent: if it is not confirmed, it may be stored or not.
        self._on_its_way: Say | Whisper | None = None
        # What is not answered yet, and what is wished after it.
        self._asked: Action | Resume | GiveUp | None = None
        self._waiting: deque[Action] = deque()
        # What the server was told that somebody is about to do, while it waits for the rest.
        self._opened: OpenPublic | OpenDirect | None = None

    @property
    def is_busy(self) -> bool:
        """Until an operation has been answered."""
        return self._asked is not None

    @property
    def ping(self) -> Request | None:
        """In the middle of an operation it would be taken for the next step."""
        return Command(PING) if self._asked is None and self._opened is None else None

    def connect(self, login: Login, unconfirmed: Sequence[Say | Whisper]) -> Effects:
        """The name comes first; behind it the tradition where it is not the default one, and what else is wanted."""
        self._login = login
        self._password = login.password
        self._waiting = deque(unconfirmed)
        self._asked = self._opened = None
        self._is_naming = True
        return Effects((self._name(),))

    def request(self, action: Action) -> Effects:
        """Take the first step, once there is nothing before it."""
        if isinstance(action, Password):
            return Effects((Command(action.password),))
        self._waiting.append(action)
        return Effects(() if self.is_busy else self._begin_next())

    def handle_event(self, event: Event) -> Effects:
        """Take the next step, or be done."""
        was_naming, self._is_naming = self._is_naming, False
        match self._asked, event:
            case _, Refused(code) if was_naming and self._wants_history_id and code in _NOT_UNDERSTOOD:
                self._wants_history_id = False
                return Effects((self._name(),))
            case _, PasswordPrompt() if self._password is not None:
                password, self._password = self._password, None
                return Effects((Command(password),))
            case _, Welcome():
                return self._come_in(event)
            case Resume(), (PublicMessage() | DirectMessage()):
                self._asked.hold(self._complete(event))
                return Effects()
            case _, (PublicMessage() | DirectMessage()):
                return Effects(news=(self._complete(event),))
            case (Say() as said, Ready()) | (Whisper() as said, Online()):
                return Effects(self._last_steps(said))
            case asked, _ if asked is not None and isinstance(event, (Refused, _ANSWER[type(asked)])):
                return self._finish(asked, event)
            case None, Refused():
                self._opened = None  # whatever it is for, the server waits for an operation now
        return Effects(news=(event,))

    def _name(self) -> Command:
        """The first step of all."""
        words = [_as_name(self._login.username)]
        if self._ops != DEFAULT_KEYWORDS:
            words.append(self._ops)
        if self._wants_history_id:
            words.append(HISTORY_ID)
        return Command(" ".join(words))

    def _begin_next(self) -> tuple[Request, ...]:
        """The first steps of what comes next."""
        if not self._waiting:
            return ()
        opened, self._opened = self._opened, None
        match opened, self._waiting[0]:
            case (OpenPublic(), Say() as said) | (OpenDirect(), Whisper() as said):
                steps = self._last_steps(said)
            case None, action:
                steps = (Command(self._first_step(action)),)
            case _:
                self._asked = GiveUp()
                return (Data(""),) if isinstance(opened, OpenPublic) else (Command(""), Data(""))
        self._asked = self._waiting.popleft()
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
                raise TypeError(f"{action!r} is nothing that can be wished step by step.")

    def _last_steps(self, said: Say | Whisper) -> tuple[Request, ...]:
        """From now on it may be stored."""
        self._on_its_way = said
        return (Data(said.text),) if isinstance(said, Say) else (Command(_as_name(said.to)), Data(said.text))

    def _come_in(self, event: Welcome) -> Effects:
        """Whoever comes back looks for what was missed before anything else."""
        welcome = replace(event, username=event.username or self._login.username)
        if not self._has_been_in:
            self._has_been_in = True
            return Effects(news=(welcome,))
        is_other = is_other_history(self._login, welcome)
        self._asked = Resume(welcome, self._login.since, is_other=is_other)
        history = AskHistory(HISTORY_MAX_MESSAGES if is_other else HISTORY_DEFAULT_MESSAGES)
        return Effects((Command(self._first_step(history)),))

    def _finish(self, asked: Action | Resume | GiveUp, event: Event) -> Effects:
        """It has its answer."""
        news: tuple[ClientEvent, ...] = (event,)
        match asked, event:
            case GiveUp(), _:
                news = ()
            case Resume(), _:
                news = self._resume(asked, event)
            case ((OpenPublic() | OpenDirect()), (Ready() | Online())):
                self._opened = asked
            case ((Say(nonce=nonce) | Whisper(nonce=nonce)), (Sent() | Refused())):
                news = (replace(event, nonce=nonce),)
            case _, History(messages):
                news = (History(tuple(map(self._complete, messages))),)
            case _, Bye(""):
                news = (Bye(YOU_LEFT),)
        self._asked = None  # not before: between two steps nothing may look like an end
        return Effects(self._begin_next(), news)

    def _resume(self, resume: Resume, event: Event) -> tuple[ClientEvent, ...]:
        """What was missed; and what became of the messages that wait to be sent again."""
        history = [self._complete(message) for message in event.messages] if isinstance(event, History) else []
        resume.read(history)
        said = self._on_its_way
        if said is None or said not in self._waiting or (outcome := resume.complete(said)) is None:
            return (resume.welcome, *resume.missed())
        self._waiting.remove(said)
        return (resume.welcome, *resume.missed(), outcome)

    def _complete(self, message: Message) -> Message:
        """Whom a direct message is for is not told: it is we, unless it is from us."""
        username = self._login.username
        if (
            isinstance(message, DirectMessage)
            and not message.recipient
            and name_key(message.sender) != name_key(username)
        ):
            return replace(message, recipient=username)
        return message


def _as_name(name: str) -> str:
    """Names are compared without regard to case."""
    return name.lower() if name in _RESERVED else name
