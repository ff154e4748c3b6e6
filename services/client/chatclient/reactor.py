"""The reactor: takes what was typed and what arrived, one after the other, and reacts."""

from __future__ import annotations

import secrets
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

from chatclient.connection import Down, Link, Lost, Up
from chatclient.exits import Exit
from chatclient.model import Model, Standing
from chatclient.typed import Dialogue, Step
from chatclient.view import event_lines, harmless
from chatprotocol.errors import ErrorCode, Refusal
from chatprotocol.events import Bye, Event, PasswordPrompt, Refused, Users, Welcome
from chatprotocol.requests import AskUsers, Leave, Password, Request, Say, Whisper
from chatprotocol.rules import check_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chatclient.connection import Signal
    from chatclient.typed import Typed, Words

# Lines that may be sent and not confirmed before the next one has to wait.
_UNCONFIRMED_MAX = 64

# Refusals after which the person who was asked for the password is asked again.
_CORRECTABLE = frozenset({ErrorCode.WRONG_PASSWORD, ErrorCode.BAD_REQUEST})
# Refusals after which the same login can't succeed.
_LOGIN_REFUSALS = frozenset(
    {
        ErrorCode.BAD_REQUEST,
        ErrorCode.BAD_USERNAME,
        ErrorCode.WRONG_PASSWORD,
        ErrorCode.TOO_MANY_ATTEMPTS,
        ErrorCode.TOO_LONG,
    }
)


class Line(NamedTuple):
    """A line was typed; or played from a script, and is shown then, for nobody saw it being typed."""

    text: str
    is_played: bool = False


class EndOfInput(NamedTuple):
    """Nothing more will be typed."""


class Interrupt(NamedTuple):
    """The person, or whoever runs the client, wants it to end now."""


Input = Line | EndOfInput | Interrupt | Event | Up | Down | Lost


class Face(Protocol):
    """Where the person or the program is."""

    @property
    def is_person(self) -> bool:
        """Is it somebody who may want a hint?"""

    def show(self, lines: Iterable[str]) -> None:
        """Show lines of text."""

    def ask_password(self) -> None:
        """The next line is a password: don't echo it."""

    def took_line(self) -> None:
        """A typed line was used: there is room for one more."""


class Reactor:
    """Decides what is sent and shown. One thread calls :meth:`react`, with one input after the other.

    Lines that are typed too early (before the login, in the middle of an answer) wait in it.
    """

    def __init__(self, model: Model, words: Words, face: Face) -> None:
        self._model = model
        self._dialogue = Dialogue(words)
        self._face = face
        self._link: Link | None = None
        self._lines: deque[Line | EndOfInput] = deque()
        self._awaits_users = False
        self._is_leaving = False
        self._was_asked = False
        # What to ask again after an answer or a lost connection: the next line is the answer to it.
        self._question = ""
        self.exit: Exit | None = None

    def react(self, given: Input) -> None:
        """Take one input. Afterwards :attr:`exit` is set if that was the last one."""
        match given:
            case Line() | EndOfInput():
                self._lines.append(given)
            case Interrupt():
                self._on_interrupt()
            case Up() | Down() | Lost():
                self._on_signal(given)
            case _:
                self._on_event(given)
        while self._lines and self.exit is None and self._is_ready():
            self._on_line(self._lines.popleft())
        if self._model.standing is Standing.AWAY and self._only_wants_to_leave():
            self.exit = Exit.OK

    def _is_ready(self) -> bool:
        """Can a typed line be used now?"""
        standing = self._model.standing
        if standing is Standing.ASKED:
            return True
        if standing is not Standing.IN or self._awaits_users or self._is_leaving:
            return False
        return len(self._model.unconfirmed) < _UNCONFIRMED_MAX

    def _only_wants_to_leave(self) -> bool:
        """Is there nothing to come back to the server for?"""
        if not self._model.has_been_in or self._model.unconfirmed or not self._lines:
            return False
        first = self._lines[0]
        return isinstance(first, EndOfInput) or self._dialogue.is_leave(first.text)

    def _on_interrupt(self) -> None:
        """Say goodbye where somebody hears it; otherwise end at once."""
        if self._model.standing is Standing.IN:
            self._leave()
            return
        nothing_lost = not self._say_what_is_lost()
        self.exit = Exit.OK if nothing_lost and self._model.has_been_in else Exit.LOST

    # --- the connection ---

    def _on_signal(self, signal: Signal) -> None:
        model = self._model
        match signal:
            case Up(link):
                self._link = link
                model.standing = Standing.KNOCKING
                self._was_asked = False
                self._send(model.login())
            case Down(reason):
                self._on_down(reason)
            case Lost(reason):
                self._face.show([f"[error lost] {harmless(reason)}"])
                self._say_what_is_lost()
                self.exit = Exit.LOST

    def _on_down(self, reason: str) -> None:
        model = self._model
        if self._is_leaving and not model.unconfirmed:
            self.exit = Exit.OK
            return
        if not model.has_been_in:
            self._face.show([f"[error lost] {harmless(reason)}"])
            self.exit = Exit.LOST
            return
        model.standing = Standing.AWAY
        self._awaits_users = False
        self._face.show([f"[lost] {harmless(reason)}; connecting again"])

    # --- what arrived ---

    def _on_event(self, event: Event) -> None:
        self._model.apply(event)
        match event:
            case PasswordPrompt():
                self._on_prompt(event)
            case Welcome():
                self._on_welcome(event)
            case Refused() if self._model.standing is not Standing.IN:
                self._on_login_refused(event)
            case Bye() if self._is_leaving:
                self._on_bye(event)
            case Users(joined=(), left=()):
                self._on_user_list(event)
            case Users():
                self._on_arrivals(event)
            case _:
                self._face.show(event_lines(event))

    def _on_prompt(self, event: PasswordPrompt) -> None:
        self._was_asked = True
        self._question = f"password {event.account}"
        self._ask_password()

    def _on_welcome(self, event: Welcome) -> None:
        model = self._model
        if model.has_been_in:
            self._face.show([f"[back] {harmless(event.username)}"])
        else:
            model.has_been_in = True
            self._face.show(event_lines(event))
            if self._face.is_person:
                self._face.show([f"[help] {self._dialogue.hint()}"])
        for request in model.unconfirmed.values():
            self._send(request)
        if self._is_leaving:
            self._send(Leave())
        elif self._dialogue.step is not Step.OPERATION:
            self._ask(self._question)

    def _on_login_refused(self, event: Refused) -> None:
        self._face.show(event_lines(event))
        if event.code in _CORRECTABLE and self._was_asked:
            self._ask_password()
        elif event.code in _LOGIN_REFUSALS:
            self.exit = Exit.REFUSED
        elif not self._model.has_been_in:
            self.exit = Exit.LOST

    def _on_user_list(self, event: Users) -> None:
        """The answer to a question of ours, or the server's repetition of what is known."""
        if self._awaits_users and event.users is not None:
            self._awaits_users = False
            self._face.show(event_lines(event))
            self._ask(self._question)

    def _on_arrivals(self, event: Users) -> None:
        """Its own arrival is no news to a client."""
        joined = tuple(name for name in event.joined if name != self._model.username)
        if joined or event.left:
            self._face.show(event_lines(Users(event.count, event.users, joined, event.left)))

    def _on_bye(self, event: Bye) -> None:
        """The server answered our goodbye, and everything before it."""
        self._face.show(event_lines(event))
        self._lines.clear()  # typed after the goodbye
        self.exit = Exit.LOST if self._say_what_is_lost() else Exit.OK

    def _say_what_is_lost(self) -> int:
        """How much was typed and not sent, or sent and not confirmed."""
        waiting = (line for line in self._lines if isinstance(line, Line))
        unsent = sum(not self._dialogue.is_leave(line.text) for line in waiting)
        unconfirmed = unsent + len(self._model.unconfirmed)
        if unconfirmed:
            self._face.show([f"[error lost] {unconfirmed} typed lines were not confirmed"])
        return unconfirmed

    # --- what was typed ---

    def _on_line(self, line: Line | EndOfInput) -> None:
        if isinstance(line, EndOfInput):
            self._leave()
            return
        self._face.took_line()
        is_password = self._model.standing is Standing.ASKED
        if line.is_played:
            self._face.show([f"> {'***' if is_password else harmless(line.text)}"])
        if is_password:
            self._model.password = line.text
            self._model.standing = Standing.KNOCKING
            self._send(Password(line.text))
            return
        self._do(self._dialogue.feed(line.text))

    def _do(self, typed: Typed) -> None:
        if typed.complaint:
            self._face.show([f"[error usage] {harmless(typed.complaint)}"])
        if typed.wants_help:
            self._face.show(f"[help] {line}" for line in self._dialogue.help())
        self._question = typed.question or ""
        match typed.request:
            case None:
                self._ask(self._question)
            case Leave():
                self._leave()
            case Say(text=text):
                self._post(Say(text, secrets.token_hex(8)))
            case Whisper(to=to, text=text):
                self._post(Whisper(to, text, secrets.token_hex(8)))
            case request:
                # In a dialogue, who is online is shown before the question is asked.
                self._awaits_users = isinstance(request, AskUsers)
                self._send(request)

    def _post(self, request: Say | Whisper) -> None:
        """Send a message, and again after a lost connection, until it is confirmed."""
        assert request.nonce is not None
        try:
            check_text(request.text)
        except Refusal as refusal:
            self._face.show([f"[error {refusal.code}] {refusal.reason}"])
            return
        self._model.unconfirmed[request.nonce] = request
        self._send(request)

    def _send(self, request: Request) -> None:
        if self._link is not None:
            self._link.send(request)

    def _ask_password(self) -> None:
        self._model.standing = Standing.ASKED
        self._face.ask_password()
        self._ask(self._question)

    def _ask(self, question: str) -> None:
        if question:
            self._face.show([f"[ask] {harmless(question)}"])

    def _leave(self) -> None:
        self._is_leaving = True
        if self._model.standing is Standing.ASKED:
            self._face.show(["[error refused] the input ended before the password was given"])
            self.exit = Exit.REFUSED
        else:
            self._send(Leave())
