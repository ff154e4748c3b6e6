"""Parses typed lines to actions, in one line or in several steps. Pure.

InputParser keeps the state between lines in `next_line`.
"""

from __future__ import annotations

import difflib
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from chatclient.notices import ASK_RECIPIENT, Asked, Question
from chatclient.ui.text import ACTION
from chatprotocol.errors import RequestError
from chatprotocol.keywords import WORDS
from chatprotocol.limits import HISTORY_MAX_MESSAGES
from chatprotocol.requests import AskHistory, AskUser, AskUsers, Leave, Say, Search, Whisper
from chatprotocol.rules import EVERYONE, check_username, history_limit, is_everyone, name_key
from chatprotocol.wire.base import OpenDirect, OpenPublic

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatprotocol.keywords import Keywords
    from chatprotocol.wire.base import Action


class LineMeaning(Enum):
    """The meaning of the next line."""

    OPERATION = "operation"
    PUBLIC_TEXT = "message"
    RECIPIENT = "recipient"
    DIRECT_TEXT = "message to one user"


class ParsedInput(NamedTuple):
    """Result of a line: an action, an error or a local command, and the next question.

    If there is an action, the question is asked after the server's answer.
    """

    action: Action | None = None
    question: Question | None = None
    error: str | None = None
    wants_help: bool = False
    toggle: str | None = None
    changes_password: bool = False


class Command(NamedTuple):
    """One row of the command table: syntax, help text and function."""

    word: str
    arguments: str
    help_text: str
    run: Callable[[str], ParsedInput]
    # True if the command needs no server.
    is_local: bool = False
    # Aliases in lower case. An alias that begins with @ is for the help only, because such lines are parsed earlier.
    aliases: tuple[str, ...] = ()


# Commands of other programs, and our command. Alone on a line such a word is probably not meant as a message.
_FOREIGN_WORDS: Final = {"EXIT": "/quit", "QUIT": "/quit", "LOGOUT": "/quit", "HELP": "/help", "?": "/help"}


class InputParser:
    """Parses lines one by one, and remembers the meaning of the next one.

    With ``sends_plain_lines`` (at a terminal), a line that is no command is a public message. ``is_json`` enables the
    features of the protocol json: search, password change, and the lookup of a user.
    """

    # True if some operations ask for more input.
    _has_questions = True

    def __init__(self, words: Keywords, *, sends_plain_lines: bool = False, is_json: bool = False) -> None:
        self._words = words
        self.sends_plain_lines = sends_plain_lines
        self._is_json = is_json
        self.next_line = LineMeaning.OPERATION
        self._recipient = ""
        # Users online, and the sender of the last direct message. Set by the controller.
        self.names: tuple[str, ...] = ()
        self.last_sender = ""
        self._commands = {command.word: command for command in self._table()}
        self._aliases = {alias: command for command in self._commands.values() for alias in command.aliases}

    def parse_line(self, line: str) -> ParsedInput:
        """Parse one line, without its line break."""
        meaning, self.next_line = self.next_line, LineMeaning.OPERATION
        if meaning is LineMeaning.OPERATION:
            return self._operation(line.strip())
        if not line.strip():
            return ParsedInput(error="Nothing was typed; the operation is cancelled.")
        if meaning is LineMeaning.PUBLIC_TEXT:
            return ParsedInput(Say(line))
        if meaning is LineMeaning.RECIPIENT:
            return self._take_recipient(line.strip().removeprefix("@").rstrip())
        return self._addressed(self._recipient, line)

    def handle_refusal(self) -> Question | None:
        """Handle the server's error to the opened operation. Returns the next question.

        After an unknown recipient, a recipient is requested again: the text may be typed already, and must not become
        public.
        """
        self.next_line = LineMeaning.RECIPIENT if self.next_line is LineMeaning.DIRECT_TEXT else LineMeaning.OPERATION
        return ASK_RECIPIENT if self.next_line is LineMeaning.RECIPIENT else None

    def is_leave(self, line: str) -> bool:
        """True if this line, as the next operation, leaves."""
        return self.next_line is LineMeaning.OPERATION and line.strip().upper() in (self._words.leave, "/QUIT")

    def is_leave_at_question(self, line: str) -> bool:
        """True if this line leaves at the question for a server or a name. In lower case the keyword may be a name."""
        return line.strip() in (self._words.leave, "/quit")

    def is_local(self, line: str) -> bool:
        """True if this line can be handled now without the server."""
        word = line.strip().partition(" ")[0]
        if self.next_line is not LineMeaning.OPERATION:
            return False
        command = self._command(word)
        return command.is_local if command else word.startswith("/")

    def hint(self) -> str:
        """A short hint after the first login."""
        words = self._words
        if self.sends_plain_lines:
            return f"Type a message to all users, or {words.direct} USER MESSAGE to one; /help lists the commands."
        return f"Type {words.public}, {words.direct}, {words.history} or {words.leave}; /help lists the commands."

    def prompt(self) -> Question:
        """The question between two operations."""
        return Question(Asked.OPERATION, f"operation ({', '.join(self._words)})")

    def help(self) -> list[str]:
        """One line for each command."""
        lines = []
        for each in self._commands.values():
            aliases = f" (also: {', '.join(each.aliases)})" if each.aliases else ""
            lines.append(f"{f'{each.word} {each.arguments}'.rstrip():<19} {each.help_text}{aliases}")
        if self.sends_plain_lines and self._has_questions:
            lines.insert(0, f"{'MESSAGE':<19} any other line is a message to all users")
        cancel_line = f"{'':<19} an empty line cancels an operation"
        return [*lines, cancel_line] if self._has_questions else lines

    def expansion(self, line: str) -> str | None:
        """Replacement of this line's beginning, or None. It shows the recipient of a reply before the reply is sent."""
        if line in ("/reply", "/r") and self.next_line is LineMeaning.OPERATION and self.last_sender:
            return f"{self._words.direct} {self.last_sender} "
        return None

    def completions(self, before: str) -> tuple[int, list[str]]:
        """Length of the word before the cursor, and its completions."""
        first, _, last = before.rpartition(" ")
        if self.next_line in (LineMeaning.PUBLIC_TEXT, LineMeaning.DIRECT_TEXT):
            found = self._names_like(last, "")
        elif self.next_line is LineMeaning.RECIPIENT:
            found = [] if first.strip() else self._names_like(last, "")
        elif first.strip().upper() == self._words.direct:
            found = self._names_like(last, " ")
        elif first:
            found = [] if first.startswith("/") else self._names_like(last, "")
        elif last.startswith("@"):
            everyone = [f"@{EVERYONE} "] if EVERYONE.startswith(last[1:].upper()) else []
            found = everyone + [f"@{name}" for name in self._names_like(last[1:], " ")]
        else:
            words = [f"{word} " for word in self._commands if word[0] != "@" and word.upper().startswith(last.upper())]
            found = words + (self._names_like(last, ": ") if last and self.sends_plain_lines else [])
        return len(last), found

    def _names_like(self, beginning: str, end: str) -> list[str]:
        key = name_key(beginning)
        return [f"{name}{end}" for name in sorted(self.names, key=name_key) if name_key(name).startswith(key)]

    def _table(self) -> list[Command]:
        """All commands, in the order of the help."""
        words = self._words
        table = [
            Command(words.public, "[MESSAGE]", "a message to all users", self._public, aliases=(f"@{EVERYONE}",)),
            Command(
                words.direct,
                "[USER [MESSAGE]]",
                "a message to one user",
                self._direct,
                aliases=("@USER", "/msg", "/w"),
            ),
            Command(
                words.history, "[NUMBER]", "the last messages that you may see", partial(self._history, words.history)
            ),
            Command(words.leave, "", "leave", lambda _: ParsedInput(Leave())),
            Command("/me", "ACTION", "tell all users what you do, as in /me waves", self._me),
            Command("/users", "", "who is online", lambda _: ParsedInput(AskUsers()), aliases=("/who", "/names")),
            Command("/history", "[NUMBER]", f"the same as {words.history}", partial(self._history, "/history")),
        ]
        if self._is_json:
            table.append(
                Command("/search", "WORDS", "find messages with all words; word* matches a prefix", self._search)
            )
        table.append(
            Command("/reply", "[MESSAGE]", "answer the last direct message that you got", self._reply, aliases=("/r",))
        )
        if self._is_json:
            table.append(Command("/password", "", "change your password", lambda _: ParsedInput(changes_password=True)))
        if self.sends_plain_lines:
            table += [self._switch("joins", "show or hide joins and leaves"), self._quiet()]
        return [*table, *self._common()]

    def _quiet(self) -> Command:
        return self._switch("quiet", "switch bell and highlight off or on")

    def _switch(self, what: str, help_text: str) -> Command:
        return Command(f"/{what}", "", help_text, lambda _: ParsedInput(toggle=what), is_local=True)

    def _common(self) -> list[Command]:
        return [
            Command("/help", "", "this list", lambda _: ParsedInput(wants_help=True), is_local=True),
            Command(
                "/quit", "", f"the same as {self._words.leave}", lambda _: ParsedInput(Leave()), aliases=("/exit",)
            ),
        ]

    def _operation(self, line: str) -> ParsedInput:
        word, rest = _first_word(line)
        if not word:
            return ParsedInput()
        if word.startswith("@"):
            return self._addressed(word[1:], rest)
        if (command := self._command(word)) is not None and not (rest and self._is_sentence(word)):
            # At a terminal, a line with extra words may be meant as a message.
            is_strict = self.sends_plain_lines or not self._has_questions
            return self._unexpected_text(word) if rest and is_strict and not command.arguments else command.run(rest)
        if self.sends_plain_lines and (message := self._plain_line(line, word, rest)) is not None:
            return message
        return ParsedInput(error=self._error(word))

    def _command(self, word: str) -> Command | None:
        """Find a command by its name or alias, case-insensitively."""
        return self._commands.get(word.upper()) or self._commands.get(word.lower()) or self._aliases.get(word.lower())

    def _is_sentence(self, word: str) -> bool:
        """True for the keyword of a public message with a capital first letter, as in ``Pm works for me``.

        The whole line is then a public message. All other keywords are case-insensitive: a direct message must not
        become public because of its capital letters.
        """
        return self.sends_plain_lines and word == self._words.public.capitalize()

    def _plain_line(self, line: str, word: str, rest: str) -> ParsedInput | None:
        """Parse a line that is no command: a public message, unless it looks like a typing error."""
        words = self._words
        if self._is_sentence(word):
            return ParsedInput(Say(line))
        if word.startswith("/"):
            return None
        if intended := _FOREIGN_WORDS.get(line.upper()):
            return ParsedInput(
                error=f"Nothing was sent. Type {intended}, or {words.public} {line} to send it to all users."
            )
        if word.upper() in WORDS:
            return None
        recipient, text = _first_word(rest)
        is_known = name_key(recipient) in map(name_key, self.names)
        is_swapped = word == words.direct[::-1]
        if text and (is_swapped or (is_known and _is_typo(word.upper(), words.direct))):
            return ParsedInput(
                error=f"Nothing was sent. {words.direct} {recipient} ... writes to {recipient}, "
                f"{words.public} {word} {recipient} ... sends it to all users."
            )
        return ParsedInput(Say(line))

    def _unexpected_text(self, word: str) -> ParsedInput:
        say = f"{self._words.public} {word} ..."
        return ParsedInput(error=f"{word} takes no text, so nothing was done; {say} sends it to all users.")

    def _error(self, word: str) -> str:
        words = self._words
        like = difflib.get_close_matches(word.lower(), [each for each in self._commands if each[0] == "/"], 1, 0.75)
        if word.lower() in ("/search", "/password"):
            return f"There is no {word} in this wire format, so nothing was sent; json has it."
        if word.lower() in ("/joins", "/quiet") and not self.sends_plain_lines:
            return f"{word} works only at a terminal; nothing was done."
        if word.startswith("/") and like:
            return f"There is no {word}, so nothing was sent. Do you mean {like[0]}? /help lists the commands."
        if word.startswith("/") and self.sends_plain_lines:
            say = f"{words.public} {word} ... sends it to all users"
            return f"There is no {word}, so nothing was sent; {say}. /help lists the commands."
        return (
            f"{word} is no operation, so nothing was sent. There are {words.public} (to all users), "
            f"{words.direct} (to one user), {words.history} (history), {words.leave} (leave) and /help."
        )

    def _take_recipient(self, recipient: str) -> ParsedInput:
        if error := _error_about(recipient):
            return ParsedInput(error=error)
        self._recipient = recipient
        self.next_line = LineMeaning.DIRECT_TEXT
        known = map(name_key, (*self.names, self.last_sender))
        is_known = is_everyone(recipient) or name_key(recipient) in known
        # Without a terminal the next line is always the text, so the recipient is not looked up.
        action = AskUser(recipient) if self.sends_plain_lines and self._is_json and not is_known else None
        return ParsedInput(action, question=_text_for(recipient))

    def _public(self, text: str) -> ParsedInput:
        if text:
            return ParsedInput(Say(text))
        self.next_line = LineMeaning.PUBLIC_TEXT
        return ParsedInput(OpenPublic(), question=_text_for("all users"))

    def _direct(self, rest: str) -> ParsedInput:
        if not rest:
            self.next_line = LineMeaning.RECIPIENT
            return ParsedInput(OpenDirect(), question=ASK_RECIPIENT)
        recipient, text = _first_word(rest)
        return self._addressed(recipient.removeprefix("@"), text)

    def _reply(self, text: str) -> ParsedInput:
        if not self.last_sender:
            return ParsedInput(error="You have received no direct message yet; nothing was sent.")
        return self._addressed(self.last_sender, text)

    def _search(self, words: str) -> ParsedInput:
        if not words:
            return ParsedInput(error="Nothing was searched for; type /search WORDS.")
        return ParsedInput(Search(words))

    def _addressed(self, recipient: str, text: str) -> ParsedInput:
        if not text:
            return self._take_recipient(recipient)
        if error := _error_about(recipient):
            return ParsedInput(error=error)
        recipient = next((name for name in self.names if name_key(name) == name_key(recipient)), recipient)
        return ParsedInput(Say(text) if is_everyone(recipient) else Whisper(recipient, text))

    def _me(self, help_text: str) -> ParsedInput:
        """Send the line as typed. The receiving client decides how to show it (see text.action_of)."""
        if not help_text:
            return ParsedInput(error="Nothing was sent; type /me ACTION, as in /me waves.")
        return ParsedInput(Say(f"{ACTION}{help_text}"))

    def _history(self, word: str, rest: str) -> ParsedInput:
        try:
            return ParsedInput(AskHistory(history_limit(rest)))
        except RequestError:
            return ParsedInput(error=f"{word} takes a number from 1 to {HISTORY_MAX_MESSAGES}, not {rest[:32]!r}.")


class GuestInputParser(InputParser):
    """The parser for guests: every line names its recipient."""

    _has_questions = False

    def hint(self) -> str:
        """A short hint after the first login."""
        return f"Type @USER MESSAGE, @{EVERYONE} MESSAGE or {self._words.leave}."

    def prompt(self) -> Question:
        """The question between two messages."""
        return Question(Asked.OPERATION, f"@USER MESSAGE or @{EVERYONE} MESSAGE")

    def _table(self) -> list[Command]:
        table = [
            Command("@USER", "MESSAGE", "a message to one user", self._take_recipient),
            Command(f"@{EVERYONE}", "MESSAGE", "a message to all users", self._take_recipient),
            Command(self._words.leave, "", "leave", lambda _: ParsedInput(Leave())),
        ]
        return [*table, *([self._quiet()] if self.sends_plain_lines else []), *self._common()]

    def _unexpected_text(self, word: str) -> ParsedInput:
        return ParsedInput(error=self._error(word))

    def _plain_line(self, line: str, word: str, rest: str) -> ParsedInput | None:  # noqa: ARG002
        """A guest's public message must be addressed explicitly."""
        return None

    def _take_recipient(self, _: str) -> ParsedInput:
        return ParsedInput(error=self._error(""))

    def _error(self, _: str) -> str:
        return f"Type {self.prompt().text}; nothing was sent. {self._words.leave} leaves."


def _text_for(recipients: str) -> Question:
    return Question(Asked.TEXT, f"message for {recipients}")


def _first_word(line: str) -> tuple[str, str]:
    """The first word and the rest, which may have several lines."""
    word, *rest = line.split(maxsplit=1)[:2] or [""]
    return word, rest[0] if rest else ""


def _is_typo(word: str, intended: str) -> bool:
    """True if the words differ by one changed, missing or extra letter, or are permutations of each other."""
    if len(word) == len(intended):
        return sorted(word) == sorted(intended) or sum(a != b for a, b in zip(word, intended, strict=True)) == 1
    shorter, longer = sorted((word, intended), key=len)
    return len(longer) == len(shorter) + 1 and any(longer[:i] + longer[i + 1 :] == shorter for i in range(len(longer)))


def _error_about(recipient: str) -> str:
    """The reason why the name is invalid, or "". ALL is valid: it means all users."""
    try:
        if not is_everyone(recipient):
            check_username(recipient)
    except RequestError as refused:
        return f"{refused.reason} Nothing was sent."
    return ""
