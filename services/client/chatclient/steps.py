"""Step by step: the exchange of the dialects in which an operation is a dialogue. Pure.

    PM ->    <- READY    the text ->    <- SENT 18

The wire of that is docs/wire/frames.md.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from chatclient.exchange import OpenDirect, OpenPublic, Turn
from chatclient.resume import Resume
from chatprotocol.events import (
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
from chatprotocol.limits import HISTORY_DEFAULT_MESSAGES
from chatprotocol.operations import OPS
from chatprotocol.requests import AskHistory, AskUsers, Command, Data, Leave, Password, Say, Whisper

if TYPE_CHECKING:
    from chatclient.exchange import Wish
    from chatprotocol.events import Event, Message
    from chatprotocol.requests import Login, Request

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
}
_DEFAULT_OPS: Final = next(iter(OPS))


class StepByStep:
    """One operation after the other."""

    is_stepwise = True

    def __init__(self, ops: str) -> None:
        """``ops`` names the tradition of words."""
        self._ops = ops
        self._words = OPS[ops]
        self._username = ""
        self._password: str | None = None
        self._has_been_in = False
        # The newest message that was seen, own ones included.
        self._newest_id: int | None = None
        # What is not answered yet, and what is wished after it.
        self._asked: Wish | Resume | None = None
        self._waiting: deque[Wish] = deque()
        # What the server was told that somebody is about to do, while it waits for the rest.
        self._opened: OpenPublic | OpenDirect | None = None
        # So many refusals are the way out of dialogues that were given up.
        self._given_up = 0

    @property
    def is_busy(self) -> bool:
        """Until an operation has been answered."""
        return self._asked is not None

    def connect(self, login: Login) -> Turn:
        """The name comes first, and behind it the tradition where it is not the default one."""
        self._username, self._password = login.username, login.password
        self._asked = self._opened = None
        self._waiting.clear()
        self._given_up = 0
        return Turn((Command(login.username if self._ops == _DEFAULT_OPS else f"{login.username} {self._ops}"),))

    def ask(self, wish: Wish) -> Turn:
        """Take the first step, once there is nothing before it."""
        if isinstance(wish, Password):
            return Turn((Command(wish.password),))
        self._waiting.append(wish)
        return Turn(() if self.is_busy else self._begin_next())

    def take(self, event: Event) -> Turn:
        """Take the next step, or be done."""
        match event:
            case PasswordPrompt() if self._password is not None:
                return Turn((Command(self._password),))
            case Welcome():
                return self._come_in(event)
            case PublicMessage() | DirectMessage():
                return Turn(news=self._hear(event))
            case Refused() if self._given_up:
                self._given_up -= 1
                return Turn()
        match self._asked, event:
            case Say(text=text), Ready():
                return Turn((Data(text),))
            case Whisper(to=to, text=text), Online():
                return Turn((Command(to), Data(text)))
            case None, _:
                return Turn(news=(event,))
            case asked, _ if isinstance(event, (Refused, _ANSWER[type(asked)])):
                return self._finish(asked, event)
            case _:
                return Turn(news=(event,))

    def _begin_next(self) -> tuple[Request, ...]:
        """The first steps of what comes next."""
        if not self._waiting:
            return ()
        opened, self._opened = self._opened, None
        self._asked = wish = self._waiting.popleft()
        match opened, wish:
            case OpenPublic(), Say(text=text):
                return (Data(text),)
            case OpenDirect(), Whisper(to=to, text=text):
                return (Command(to), Data(text))
        return (*self._give_up(opened), Command(self._first_step(wish)))

    def _give_up(self, opened: OpenPublic | OpenDirect | None) -> tuple[Request, ...]:
        """The way out of a dialogue: an empty message, which is refused."""
        if opened is None:
            return ()
        self._given_up += 1
        return (Data(""),) if isinstance(opened, OpenPublic) else (Command(""), Data(""))

    def _first_step(self, wish: Wish) -> str:
        match wish:
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
                raise TypeError(f"{wish!r} is nothing that can be wished step by step.")

    def _come_in(self, event: Welcome) -> Turn:
        """Whoever comes back looks for what was missed before anything else."""
        welcome = replace(event, username=event.username or self._username)
        if not self._has_been_in:
            self._has_been_in = True
            return Turn(news=(welcome,))
        self._asked = Resume(self._username, self._newest_id)
        return Turn((Command(self._words.history),), (welcome,))

    def _hear(self, message: Message) -> tuple[Event, ...]:
        message = self._complete(message)
        if isinstance(self._asked, Resume):
            self._asked.hold(message)
            return ()
        self._see(message)
        return (message,)

    def _finish(self, asked: Wish | Resume, event: Event) -> Turn:
        """It has its answer."""
        self._asked = None
        news: tuple[Event, ...] = (event,)
        match asked, event:
            case Resume(), _:
                news = self._resume(asked, event)
            case ((OpenPublic() | OpenDirect()), (Ready() | Online())):
                self._opened = asked
            case ((Say(nonce=nonce) | Whisper(nonce=nonce)), (Sent() | Refused())):
                news = (replace(event, nonce=nonce),)
                if isinstance(event, Sent):
                    self._see(event)
            case _, History(messages):
                news = (History(tuple(map(self._complete, messages))),)
        return Turn(self._begin_next(), news)

    def _resume(self, resume: Resume, event: Event) -> tuple[Event, ...]:
        """What was missed; and what became of the messages that wait to be sent again."""
        history = [self._complete(message) for message in event.messages] if isinstance(event, History) else []
        news: list[Event] = []
        for message in resume.read(history):
            self._see(message)
            news.append(message)
        for wish in [*self._waiting]:
            if isinstance(wish, Say | Whisper) and (answer := resume.answer(wish)) is not None:
                self._waiting.remove(wish)
                news.append(answer)
        return tuple(news)

    def _complete(self, message: Message) -> Message:
        """Whom a direct message is for is not told: it is we, unless it is from us."""
        if isinstance(message, DirectMessage) and not message.recipient and message.sender != self._username:
            return replace(message, recipient=self._username)
        return message

    def _see(self, seen: Message | Sent) -> None:
        self._newest_id = max(seen.id, self._newest_id or 0)
