"""Parses typed lines to actions, in one line or in several steps. Pure.

States. InputParser.next_line is the meaning of the next line:

    OPERATION    --PM-------------------> PUBLIC_TEXT
    OPERATION    --DM-------------------> RECIPIENT
    OPERATION    --DM USER, @USER-------> DIRECT_TEXT
    OPERATION    --any other line-------> OPERATION
    RECIPIENT    --a name---------------> DIRECT_TEXT
    DIRECT_TEXT  --error of the server--> RECIPIENT; the text of a direct message must not become public
    any          --any other line-------> OPERATION; an empty line cancels

Lines. The first word of an operation is looked up in the table of commands, which also makes the help and the
completions. At a terminal any other line is a public message, unless it looks like a typing error: it is better to ask
than to send a direct message to all users. In a pipe any other line is an error.

Rooms. A message that is typed in two steps goes to the room in which it was begun, which the question names. The
controller sets the rooms and the users that are known.
"""

import difflib
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Final, NamedTuple, TypeAlias, get_args

from chatclient.cli import moderation, modes
from chatclient.cli.words import InputError, checked, checked_recipient, checked_room, checked_user, first_word
from chatclient.notices import ASK_RECIPIENT, Asked, Question
from chatclient.ui.text import ACTION
from chatprotocol import requests, rules
from chatprotocol.errors import RequestError
from chatprotocol.keywords import WORDS, Keywords
from chatprotocol.limits import HISTORY_MAX_MESSAGES
from chatprotocol.rules import EVERYONE, LOBBY
from chatprotocol.wire.base import Action, OpenDirect, OpenPublic


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
    # The room that becomes the current one; empty for the lobby.
    enters: str | None = None


class Completes(Enum):
    """The kind of an argument of a command, which Tab completes."""

    USER = "users online"
    OWN_ROOM = "rooms that the user is in"
    TARGET = "the same, and the lobby"
    VISIBLE_ROOM = "the same as OWN_ROOM, and rooms that the user is not in"
    MODE = "modes of a room"


class Command(NamedTuple):
    """One row of the command table: syntax, help text and function."""

    word: str
    arguments: str
    help_text: str
    run: Callable[[str], ParsedInput]
    # The kinds of the arguments, for Tab.
    completes: tuple[Completes, ...] = ()
    # Aliases in lower case. One that begins with @ is for the help only, because such lines are parsed earlier.
    aliases: str = ""


# Commands that only json has, those for a terminal, and those that need no server.
_ROOM_COMMANDS: Final = frozenset(
    {
        *("/join", "/part", "/rooms", "/room", "/topic", "/invite", "/op", "/deop"),
        *("/voice", "/devoice", "/modes"),
    }
)
_MODERATION_COMMANDS: Final = frozenset(
    {
        *("/kick", "/ban", "/unban", "/mute", "/unmute", "/bans", "/delete", "/report", "/audit"),
        *("/ignore", "/unignore", "/ignored"),
    }
)
_JSON_COMMANDS: Final = _ROOM_COMMANDS | _MODERATION_COMMANDS | {"/search", "/password", "/sessions", "/revoke"}
_TERMINAL_COMMANDS: Final = frozenset({"/ids", "/joins", "/quiet"})
_LOCAL_COMMANDS: Final = frozenset({"/room", "/ids", "/joins", "/quiet", "/help"})
# Arguments in which any word may be a name.
_TEXTS: Final = ("ACTION", "[MESSAGE]")
# Removes the topic of a room.
_NO_TOPIC: Final = "-"
# Commands of other programs, and our command. Alone on a line such a word is probably not meant as a message.
_FOREIGN_WORDS: Final = {"EXIT": "/quit", "QUIT": "/quit", "LOGOUT": "/quit", "HELP": "/help", "?": "/help"}
_LEAVE: Final = ParsedInput(requests.Leave())
# Requests of an operator of a room about a user, in the order of their commands.
_AboutUser: TypeAlias = (
    requests.Invite | requests.MakeOperator | requests.MakeMember | requests.GiveVoice | requests.TakeVoice
)
_ABOUT_USER: Final[tuple[type[_AboutUser], ...]] = get_args(_AboutUser)


class InputParser:
    """Parses lines one by one, and remembers the meaning of the next one.

    With ``sends_plain_lines`` (at a terminal), a line that is no command is a public message. ``is_json`` enables the
    features of the protocol json: rooms, search, password change, and the lookup of a user. Messages go to the current
    ``room``, and commands are about it; in the lobby it is empty.
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
        # Keys of the names of those who spoke in the current room, the last one first. Set by the controller.
        self.speakers: tuple[str, ...] = ()
        self.last_sender = ""
        # The current room, the rooms that the user is in, and others that are known. Set by the controller.
        self.room = ""
        self.rooms: tuple[str, ...] = ()
        self.other_rooms: tuple[str, ...] = ()
        # Id of the user's last message in the current room. Set by the controller.
        self.last_own_id: int | None = None
        # The room of the public message that was begun.
        self._begun_in = ""
        missing = {*(() if is_json else _JSON_COMMANDS), *(() if sends_plain_lines else _TERMINAL_COMMANDS)}
        self._commands = {command.word: command for command in self._table() if command.word not in missing}
        self._aliases = {alias: command for command in self._commands.values() for alias in command.aliases.split()}

    def parse_line(self, line: str) -> ParsedInput:
        """Parse one line, without its line break."""
        meaning, self.next_line = self.next_line, LineMeaning.OPERATION
        try:
            return self._operation(line.strip()) if meaning is LineMeaning.OPERATION else self._answer(meaning, line)
        except InputError as error:
            return ParsedInput(error=str(error))

    def _answer(self, meaning: LineMeaning, line: str) -> ParsedInput:
        if not line.strip():
            raise InputError("Nothing was typed; the operation is cancelled.")
        if meaning is LineMeaning.RECIPIENT:
            return self._take_recipient(line.strip().removeprefix("@").rstrip())
        if meaning is LineMeaning.PUBLIC_TEXT or rules.is_everyone(self._recipient):
            return ParsedInput(requests.Say(line, room=self._begun_in or None))
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

    def needs_confirmations(self, line: str) -> bool:
        """True if this line, as the next operation, is about the last message, whose id its confirmation has."""
        return self.next_line is LineMeaning.OPERATION and line.strip().lower() == "/delete"

    def is_leave_at_question(self, line: str) -> bool:
        """True if this line leaves at the question for a server or a name. In lower case the keyword may be a name."""
        return line.strip() in (self._words.leave, "/quit")

    def is_local(self, line: str) -> bool:
        """True if this line, as the next operation, needs no server."""
        word = line.strip().partition(" ")[0]
        command = self._command(word)
        is_local = command.word in _LOCAL_COMMANDS if command else word.startswith("/")
        return is_local and self.next_line is LineMeaning.OPERATION

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
            aliases = f" (also: {', '.join(each.aliases.split())})" if each.aliases else ""
            lines.append(f"{f'{each.word} {each.arguments}'.rstrip():<19} {each.help_text}{aliases}")
        if self.sends_plain_lines and self._has_questions:
            lines.insert(0, f"{'MESSAGE':<19} any other line is a message, as with {self._words.public}")
        cancel_line = f"{'':<19} an empty line cancels an operation"
        return [*lines, cancel_line] if self._has_questions else lines

    def expansion(self, line: str) -> str | None:
        """Replacement of this line's beginning, or None. It shows the recipient of a reply before the reply is sent."""
        if line in ("/reply", "/r") and self.next_line is LineMeaning.OPERATION and self.last_sender:
            return f"{self._words.direct} {self.last_sender} "
        return None

    def completions(self, before: str) -> tuple[int, list[str]]:
        """Length of the word before the cursor, and its completions.

        Names of users online, those who spoke in the room first, the last one at the top; the others by name. The page
        (completion.js) has the same order.
        """
        first, _, last = before.rpartition(" ")
        if self.next_line in (LineMeaning.PUBLIC_TEXT, LineMeaning.DIRECT_TEXT):
            found = self._names_like(last, "")
        elif self.next_line is LineMeaning.RECIPIENT:
            found = [] if first.strip() else self._names_like(last, "")
        elif (command := self._command(first.split(" ")[0])) is not None and command.completes:
            found = self._arguments_like(command.completes, len(first.split()) - 1, last)
        elif first.strip().upper() == self._words.direct:
            found = self._names_like(last, " ")
        elif first:
            is_text = not first.startswith("/") or (command is not None and command.arguments in _TEXTS)
            found = self._names_like(last, "") if is_text else []
        elif last.startswith("@"):
            everyone = [f"@{EVERYONE} "] if EVERYONE.startswith(last[1:].upper()) else []
            found = everyone + [f"@{name}" for name in self._names_like(last[1:], " ")]
        else:
            words = [f"{word} " for word in self._commands if word[0] != "@" and word.upper().startswith(last.upper())]
            found = words + (self._names_like(last, ": ") if last and self.sends_plain_lines else [])
        return len(last), found

    def _arguments_like(self, completes: tuple[Completes, ...], number: int, beginning: str) -> list[str]:
        """Completions of an argument of a command."""
        if number >= len(completes):
            return []
        end = " " if number + 1 < len(completes) else ""
        if completes[number] is Completes.USER:
            return self._names_like(beginning, end)
        if completes[number] is Completes.MODE:
            sign = beginning[:1] if beginning[:1] in ("+", "-") else ""
            word = beginning[len(sign) :].lower()
            return [f"{sign}{each}{end}" for each in modes.MODE_WORDS if each.startswith(word)]
        more = {Completes.TARGET: [LOBBY] if self.rooms else [], Completes.VISIBLE_ROOM: self.other_rooms}
        rooms = [*self.rooms, *more.get(completes[number], ())]
        mark = "#" if beginning.startswith("#") else ""
        key = rules.room_key(beginning.removeprefix("#"))
        return [
            f"{mark}{room}{end}" for room in sorted(rooms, key=rules.room_key) if rules.room_key(room).startswith(key)
        ]

    def _names_like(self, beginning: str, end: str) -> list[str]:
        key = rules.name_key(beginning)
        ranks = {speaker: rank for rank, speaker in enumerate(self.speakers)}
        names = {rules.name_key(name): name for name in self.names}
        found = sorted(names, key=lambda each: (ranks.get(each, len(ranks)), each))
        return [f"{names[each]}{end}" for each in found if each.startswith(key)]

    def _table(self) -> list[Command]:
        """All commands, in the order of the help; also those that this parser lacks."""
        public, direct, history, leave = self._words
        readers = "all users, or to your room" if self._is_json else "all users"
        by_key = " (also: Alt-1 to Alt-9)" if self.sends_plain_lines else ""
        own, target, visible = (Completes.OWN_ROOM,), (Completes.TARGET,), (Completes.VISIBLE_ROOM,)
        user = (Completes.USER, Completes.OWN_ROOM)
        invite, op, deop, voice, devoice = (partial(self._about_user, kind) for kind in _ABOUT_USER)
        at = partial(partial, self._moderate)
        ignore, unignore = (partial(self._ignore, kind) for kind in (requests.Ignore, requests.Unignore))
        person, someone = (Completes.USER,), (Completes.USER, Completes.TARGET)
        return [
            Command(public, "[MESSAGE]", f"a message to {readers}", self._public, aliases=f"@{EVERYONE}"),
            Command(direct, "[USER [MESSAGE]]", "a message to one user", self._direct, aliases="@USER /msg /w"),
            Command(history, "[NUMBER]", "the last messages that you may see", partial(self._history, history)),
            Command(leave, "", "leave", lambda _: _LEAVE),
            Command("/me", "ACTION", "tell all users what you do, as in /me waves", self._me),
            Command("/users", "", "who is online", self._users, aliases="/who /names"),
            Command("/history", "[NUMBER]", f"the same as {history}", partial(self._history, "/history")),
            Command("/search", "WORDS", "find messages with all words; word* matches a prefix", self._search),
            Command("/reply", "[MESSAGE]", "answer the last direct message that you got", self._reply, aliases="/r"),
            Command("/password", "", "change your password", lambda _: ParsedInput(changes_password=True)),
            Command(
                "/sessions", "", "list the devices that stay logged in", lambda _: ParsedInput(requests.AskTokens())
            ),
            Command("/revoke", "ID", "end one of them; /revoke all: all but this one", self._revoke),
            Command("/rooms", "", "list the rooms", lambda _: ParsedInput(requests.AskRooms())),
            Command("/join", "ROOM [KEY]", "enter or make a room; ROOM private: by invitation", self._join, visible),
            Command("/room", "[ROOM]", f"change to this room or the {LOBBY}{by_key}", self._room, target),
            Command("/part", "[ROOM]", "leave a room; ends your membership", self._part, own),
            Command("/topic", "[TEXT]", f"show the room's topic, or change it ({_NO_TOPIC} removes it)", self._topic),
            Command("/invite", "USER [ROOM]", "let a user join a room", invite, user),
            Command("/op", "USER [ROOM]", "make a member an operator of the room", op, user),
            Command("/deop", "USER [ROOM]", "make an operator an ordinary member", deop, user),
            Command("/voice", "USER [ROOM]", "let a member write in a moderated room", voice, user),
            Command("/devoice", "USER", "take this right back; also USER ROOM", devoice, user),
            Command(
                *("/modes", "[CHANGES]", "show or change the modes, as in /modes moderated -key"),
                *(self._modes, (Completes.MODE,) * len(modes.MODE_WORDS)),
            ),
            Command(
                "/kick",
                "USER [WHY]",
                "remove from the room; in the lobby: from the server",
                at(moderation.kick),
                someone,
            ),
            Command("/ban", "USER [7d WHY]", "the same, and keep out; also an address", at(moderation.ban), someone),
            Command("/unban", "USER", "end a ban", at(moderation.unban), someone),
            Command("/mute", "USER [7d WHY]", "refuse the messages of a user", at(moderation.mute), someone),
            Command("/unmute", "USER", "end a mute", at(moderation.unmute), someone),
            Command("/bans", "[ROOM]", "list the bans and mutes", at(moderation.bans), target),
            Command("/delete", "[NUMBER]", "delete your last message, or one by its number", self._delete),
            Command(
                "/report", "USER [WHY]", "report a user, or a message by its number", at(moderation.report), person
            ),
            Command(
                "/audit", "[NUMBER]", "the last acts of operators", lambda rest: ParsedInput(moderation.audit(rest))
            ),
            Command("/ignore", "USER", "see no more messages of a user", ignore, person),
            Command("/unignore", "USER", "see them again", unignore, person),
            Command("/ignored", "", "list the users whom you ignore", lambda _: ParsedInput(requests.AskIgnored())),
            Command("/ids", "", "show or hide the numbers of messages", lambda _: ParsedInput(toggle="ids")),
            Command("/joins", "", "show or hide joins and leaves", lambda _: ParsedInput(toggle="joins")),
            Command("/quiet", "", "switch bell and highlight off or on", lambda _: ParsedInput(toggle="quiet")),
            Command("/help", "", "this list", lambda _: ParsedInput(wants_help=True)),
            Command("/quit", "", f"the same as {leave}", lambda _: _LEAVE, aliases="/exit"),
        ]

    def _operation(self, line: str) -> ParsedInput:
        word, rest = first_word(line)
        if not word:
            return ParsedInput()
        if word.startswith("@"):
            return self._addressed(word[1:].rstrip(":,"), rest)
        if (command := self._command(word)) is not None and not (rest and self._is_sentence(word)):
            # At a terminal, a line with extra words may be meant as a message.
            if rest and not command.arguments and (self.sends_plain_lines or not self._has_questions):
                raise InputError(self._unexpected_text(word))
            return command.run(rest)
        if self.sends_plain_lines and (message := self._plain_line(line, word, rest)) is not None:
            return message
        raise InputError(self._error(word))

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
            return self._say(line)
        if word.startswith("/"):
            return None
        if intended := _FOREIGN_WORDS.get(line.upper()):
            raise InputError(
                f"Nothing was sent. Type {intended}, or {words.public} {line} to send it to {self._audience()}."
            )
        if word.upper() in WORDS:
            return None
        recipient, text = first_word(rest)
        is_known = rules.name_key(recipient) in map(rules.name_key, self.names)
        is_swapped = word == words.direct[::-1]
        if text and (is_swapped or (is_known and _is_typo(word.upper(), words.direct))):
            raise InputError(
                f"Nothing was sent. {words.direct} {recipient} ... writes to {recipient}, "
                f"{words.public} {word} {recipient} ... sends it to {self._audience()}."
            )
        return self._say(line)

    def _unexpected_text(self, word: str) -> str:
        if word == "/password":
            return "/password takes no text, so nothing was done; it asks for the passwords."
        say = f"{self._words.public} {word} ..."
        return f"{word} takes no text, so nothing was done; {say} sends it to {self._audience()}."

    def _error(self, word: str) -> str:
        words = self._words
        if hint := self._hint_for(word.lower()):
            return f"There is no {word}, so nothing was sent. {hint}"
        like = difflib.get_close_matches(word.lower(), [each for each in self._commands if each[0] == "/"], 1, 0.75)
        if word.lower() in _JSON_COMMANDS and not self._is_json:
            return f"There is no {word} in this wire format, so nothing was sent; json has it."
        if word.lower() in _TERMINAL_COMMANDS and not self.sends_plain_lines:
            return f"{word} works only at a terminal; nothing was done."
        if word.startswith("/") and like:
            return f"There is no {word}, so nothing was sent. Do you mean {like[0]}? /help lists the commands."
        if word.startswith("/") and self.sends_plain_lines:
            say = f"{words.public} {word} ... sends it to {self._audience()}"
            return f"There is no {word}, so nothing was sent; {say}. /help lists the commands."
        return (
            f"{word} is not an operation, so nothing was sent. There are {words.public} (to all users), "
            f"{words.direct} (to one user), {words.history} (history), {words.leave} (leave) and /help."
        )

    def _hint_for(self, word: str) -> str:
        """The command of this client that does what a command of another program does, or ""."""
        intended, does = {
            "/leave": ("/part", "leaves a room"),
            "/list": ("/rooms", "lists the rooms"),
            **dict.fromkeys(
                ("/dm", "/pm", "/whisper", "/tell"), (self._words.direct, "USER MESSAGE writes to one user")
            ),
            "/nick": ("/nick", ""),
        }.get(word, ("", ""))
        if word == "/nick":
            return "A name can't be changed; another name is another account."
        return f"{intended} {does}." if intended in self._commands else ""

    def _take_recipient(self, recipient: str) -> ParsedInput:
        self._recipient = checked_recipient(recipient)
        self._begun_in = self.room
        self.next_line = LineMeaning.DIRECT_TEXT
        known = map(rules.name_key, (*self.names, self.last_sender))
        is_known = rules.is_everyone(recipient) or rules.name_key(recipient) in known
        # Without a terminal the next line is always the text, so the recipient is not looked up.
        action = requests.AskUser(recipient) if self.sends_plain_lines and self._is_json and not is_known else None
        return ParsedInput(action, question=_text_for(recipient))

    def _say(self, text: str) -> ParsedInput:
        return ParsedInput(requests.Say(text, room=self.room or None))

    def _audience(self) -> str:
        """The receivers of a public message."""
        return f"#{self.room}" if self.room else "all users"

    def _public(self, text: str) -> ParsedInput:
        if text:
            return self._say(text)
        self.next_line = LineMeaning.PUBLIC_TEXT
        self._begun_in = self.room
        return ParsedInput(OpenPublic(), question=_text_for(self._audience()))

    def _direct(self, rest: str) -> ParsedInput:
        if not rest:
            self.next_line = LineMeaning.RECIPIENT
            return ParsedInput(OpenDirect(), question=ASK_RECIPIENT)
        recipient, text = first_word(rest)
        return self._addressed(recipient.removeprefix("@"), text)

    def _reply(self, text: str) -> ParsedInput:
        if not self.last_sender:
            raise InputError("You have received no direct message yet; nothing was sent.")
        return self._addressed(self.last_sender, text)

    def _search(self, words: str) -> ParsedInput:
        if not words:
            raise InputError("Nothing was searched for; type /search WORDS.")
        return ParsedInput(requests.Search(words, room=self.room or None))

    def _revoke(self, token_id: str) -> ParsedInput:
        if not token_id or " " in token_id:
            raise InputError("Nothing was done; type /revoke ID, as /sessions lists it, or /revoke all.")
        return ParsedInput(requests.Revoke(token_id))

    def _addressed(self, recipient: str, text: str) -> ParsedInput:
        if not text:
            return self._take_recipient(recipient)
        checked_recipient(recipient)
        recipient = next((name for name in self.names if rules.name_key(name) == rules.name_key(recipient)), recipient)
        return self._say(text) if rules.is_everyone(recipient) else ParsedInput(requests.Whisper(recipient, text))

    def _me(self, action: str) -> ParsedInput:
        """Send the line as typed. The receiving client decides how to show it (see text.action_of)."""
        if not action:
            raise InputError("Nothing was sent; type /me ACTION, as in /me waves.")
        return self._say(f"{ACTION}{action}")

    def _users(self, _: str) -> ParsedInput:
        return ParsedInput(requests.AskUsers(self.room or None))

    def _history(self, word: str, rest: str) -> ParsedInput:
        try:
            return ParsedInput(requests.AskHistory(rules.history_limit(rest), room=self.room or None))
        except RequestError:
            raise InputError(f"{word} takes a number from 1 to {HISTORY_MAX_MESSAGES}, not {rest[:32]!r}.") from None

    # --- rooms ---

    def _join(self, rest: str) -> ParsedInput:
        room, options = first_word(rest)
        room = room.removeprefix("#")
        if not room or len(options.split()) > 1:
            raise InputError("Nothing was done; type /join ROOM [KEY], or /join ROOM private for a new private room.")
        if rules.is_lobby(room):
            return ParsedInput(enters="")
        return ParsedInput(modes.join(checked_room(room), options))

    def _room(self, rest: str) -> ParsedInput:
        room = rest.removeprefix("#") or self.room
        if not room or rules.is_lobby(room):
            return ParsedInput(enters="")
        known = next((each for each in self.rooms if rules.room_key(each) == rules.room_key(room)), None)
        if known is None:
            raise InputError(f"You are not in #{room[:64]}; /join enters it, /rooms lists the rooms.")
        return ParsedInput(enters=known)

    def _part(self, rest: str) -> ParsedInput:
        room = rest.removeprefix("#") or self.room
        if not room or rules.is_lobby(room):
            raise InputError("Every user is in the lobby, and stays there. /part ROOM leaves another room.")
        return ParsedInput(requests.Part(checked_room(room)))

    def _topic(self, text: str) -> ParsedInput:
        if not self.room:
            raise InputError("The lobby has no topic. /room ROOM changes to another room.")
        if not text:
            return self._room(self.room)
        topic = checked(rules.check_topic, "" if text == _NO_TOPIC else text)
        return ParsedInput(requests.SetTopic(self.room, topic))

    def _modes(self, rest: str) -> ParsedInput:
        if not self.room:
            raise InputError("The lobby has no modes. /room ROOM changes to another room.")
        return ParsedInput(modes.set_modes(self.room, rest))

    def _about_user(self, request: type[_AboutUser], rest: str) -> ParsedInput:
        user, room = first_word(rest)
        user, room = user.removeprefix("@"), room.removeprefix("#") or self.room
        if not user:
            raise InputError("Nothing was done; name a user.")
        if not room or rules.is_lobby(room):
            raise InputError("Nothing was done; name a room after the user, because everyone is in the lobby.")
        return ParsedInput(request(username=checked_user(user), room=checked_room(room)))

    # --- moderation ---

    def _moderate(self, parse: Callable[[moderation.Place, str], Action], rest: str) -> ParsedInput:
        return ParsedInput(parse(moderation.Place(self.room, self.rooms), rest))

    def _ignore(self, request: type[requests.Ignore | requests.Unignore], rest: str) -> ParsedInput:
        return ParsedInput(request(checked_user(rest)))

    def _delete(self, rest: str) -> ParsedInput:
        return ParsedInput(moderation.delete(moderation.Place(self.room, self.rooms), rest, self.last_own_id))


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
        kept = (self._words.leave, "/quiet", "/help", "/quit")
        return [
            Command("@USER", "MESSAGE", "a message to one user", self._take_recipient),
            Command(f"@{EVERYONE}", "MESSAGE", "a message to all users", self._take_recipient),
            *(command for command in super()._table() if command.word in kept),
        ]

    def _plain_line(self, line: str, word: str, rest: str) -> None:
        """A guest's public message must be addressed explicitly."""

    def _take_recipient(self, _: str) -> ParsedInput:
        raise InputError(self._error(""))

    def _unexpected_text(self, word: str) -> str:
        return self._error(word)

    def _error(self, _: str) -> str:
        return f"Type {self.prompt().text}; nothing was sent. {self._words.leave} leaves."


def _text_for(recipients: str) -> Question:
    return Question(Asked.TEXT, f"message for {recipients}")


def _is_typo(word: str, intended: str) -> bool:
    """True if the words differ by one changed, missing or extra letter, or are permutations of each other."""
    if len(word) == len(intended):
        return sorted(word) == sorted(intended) or sum(a != b for a, b in zip(word, intended, strict=True)) == 1
    shorter, longer = sorted((word, intended), key=len)
    return len(longer) == len(shorter) + 1 and any(longer[:i] + longer[i + 1 :] == shorter for i in range(len(longer)))
