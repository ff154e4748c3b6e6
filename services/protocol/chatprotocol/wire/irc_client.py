"""The client's half of the wire protocol irc: the lobby, direct messages and history. Wire format: docs/wire/irc.md.

The decoder makes an IrcLine of each line; the state is in IrcClient, which belongs to the owner's thread.

    connect   CAP LS, NICK, USER; then CAP REQ, SASL or REGISTER if there is a password, CAP END
    001       JOIN #lobby. Welcome follows the list of names (366), and the end of the messages that were missed
    later     a message with labeled-response and echo-message is confirmed by its echo, which has the label

A server that does not echo confirms nothing: a message counts as sent when it is written, and has no id. A message
without msgid and server-time becomes Forwarded. Unknown lines are skipped.

Resume. After a reconnect the client asks for the lobby's messages after the last one that it knows, page by page, and
holds those that arrive meanwhile. An unconfirmed public message is among them, or is sent again. There is no such
question for a direct message, so its fate is DeliveryUnknown.
"""

from __future__ import annotations

import base64
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import astuple

from chatprotocol import events, requests
from chatprotocol.errors import ErrorCode, ProtocolError
from chatprotocol.events import YOU_LEFT, AccountKind, DirectMessage, PublicMessage, Sent, SentStatus
from chatprotocol.limits import HISTORY_MAX_MESSAGES
from chatprotocol.rules import is_lobby, name_key
from chatprotocol.wire.base import (
    DeliveryUnknown,
    Effects,
    Forwarded,
    IrcLine,
    Online,
    OpenDirect,
    OpenPublic,
    Outcome,
    Outgoing,
    OwnAnswer,
    PossibleGap,
    Ready,
)
from chatprotocol.wire.irc_lines import ACTION_PREFIX, CTCP, cut_text, encode_lines, format_line, parse_tags
from chatprotocol.wire.readers import LineBuffer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chatprotocol.events import Message
    from chatprotocol.wire.base import Action, ClientEvent

_CHANNEL: Final = "#lobby"
# Limit of a line of a server: 8,191 bytes of tags (IRCv3, message-tags) and 512 of the rest, twice for liberal servers.
EVENT_LINE_MAX_BYTES: Final = 16 * 1024
# Bytes of a text in one line: the server puts a prefix of at most 150 bytes, PRIVMSG and the target before it.
_TEXT_MAX_BYTES: Final = 300
# Limits of what a server can make the client keep: users of the lobby and their names, batches that are open, messages
# in them, and the size of all events that are kept: names and texts.
_USERS_MAX: Final = 30_000
_NICK_MAX_CHARACTERS: Final = 64
_KEPT_MAX_BYTES: Final = 16 * 1024 * 1024
_BATCHES_MAX: Final = 64
_BATCH_MAX_MESSAGES: Final = 5_000
# Messages in a page of missed ones, and of messages missed that are asked for: beyond, PossibleGap is told.
_PAGE_MESSAGES: Final = 500
_MISSED_MAX_MESSAGES: Final = 5_000
# Maximum length of a piece of a SASL answer (IRCv3, sasl-3.1).
_SASL_PIECE_BYTES: Final = 400
_REGISTRATION: Final = "draft/account-registration"
_WANTED: Final = (
    "batch",
    "draft/chathistory",
    "draft/message-redaction",
    "draft/multiline",
    "echo-message",
    "labeled-response",
    "message-tags",
    "sasl",
    "server-time",
)
_KNOWN: Final = frozenset((*_WANTED, _REGISTRATION))
_CODES: Final = {
    "263": ErrorCode.RATE_LIMITED,
    "401": ErrorCode.UNKNOWN_USER,
    "403": ErrorCode.UNKNOWN_ROOM,
    "404": ErrorCode.NOT_PERMITTED,
    "412": ErrorCode.EMPTY_MESSAGE,
    "417": ErrorCode.TOO_LONG,
    "432": ErrorCode.BAD_USERNAME,
    "433": ErrorCode.BAD_USERNAME,
    "436": ErrorCode.BAD_USERNAME,
    "464": ErrorCode.WRONG_PASSWORD,
    "465": ErrorCode.BANNED,
    "902": ErrorCode.WRONG_PASSWORD,
    "904": ErrorCode.WRONG_PASSWORD,
    "905": ErrorCode.TOO_LONG,
}
# Errors of commands that the client sends in passing.
_SKIPPED_ERRORS: Final = frozenset({"410", "421", "422", "451"})


class EventDecoder:
    """The client's reader of one connection. It answers PING by itself.

    001 and ERROR become Welcome and Bye, because the owner of the connection looks for them.
    """

    def __init__(self) -> None:
        self._buffer = LineBuffer(EVENT_LINE_MAX_BYTES)

    def decode(self, data: bytes) -> list[ClientEvent]:
        """The lines that the piece completes. Raises ProtocolError for a line over the limit."""
        found: list[ClientEvent] = []
        block = self._buffer.split(data)
        for line in block.split(b"\n"):
            if len(line) > EVENT_LINE_MAX_BYTES:
                raise _too_long()
            parsed = _read_line(line)
            if parsed is not None and parsed.name == "PING":
                found.append(OwnAnswer(encode_lines([format_line("", "PONG", *parsed.params[:1])])))
            elif parsed is not None and parsed.name == "PONG":
                found.append(events.Pong())
            elif parsed is not None and parsed.name == "ERROR":
                found.append(events.Bye(" ".join(parsed.params)))
            elif parsed is not None and parsed.name == "001" and parsed.params:
                found.append(
                    events.Welcome(account=AccountKind.EXISTING, username=parsed.params[0], users=(), last_id=None)
                )
            elif parsed is not None:
                found.append(parsed)
        if self._buffer.drop_overflow():
            raise _too_long()
        return found


def _too_long() -> ProtocolError:
    return ProtocolError(f"The server sent a line of more than {EVENT_LINE_MAX_BYTES:,} bytes.")


def _read_line(line: bytes) -> IrcLine | None:
    """A line of the server; bytes that are not UTF-8 become replacement characters. None for an empty line."""
    text, raw_tags, source = line.decode(errors="replace").strip("\r"), "", ""
    if text.startswith("@"):
        raw_tags, _, text = text[1:].partition(" ")
    text = text.lstrip(" ")
    if text.startswith(":"):
        source, _, text = text[1:].partition(" ")
    head, colon, trailing = text.lstrip(" ").partition(" :")
    words = [word for word in head.split(" ") if word]
    if not words:
        return None
    params = (*words[1:], trailing) if colon else tuple(words[1:])
    return IrcLine(words[0].upper(), params, source, parse_tags(raw_tags))


class _Batch(Struct):
    """A batch that is open: its first line, and what is in it."""

    opening: IrcLine
    label: str
    parent: str
    # The lines of a message: the first one, and each text with True if it goes on with the one before.
    first: IrcLine | None = None
    texts: list[tuple[str, bool]] = []
    messages: list[Message] = []
    size_bytes: int = 0


class IrcClient:
    """The client's half. A message may follow another one that is unconfirmed; questions are asked one by one."""

    connections = 1
    is_stepwise = False

    def __init__(self) -> None:
        self.ping = Outgoing(encode_lines(["PING chatclient"]))
        self.probe = None
        # True if the login needs no password.
        self.is_guest = False
        self._login = requests.Login("")
        self._may_register = True
        self._was_logged_in = False
        self._again: tuple[requests.Say | requests.Whisper, ...] = ()
        self._start(requests.Login(""))

    def _start(self, login: requests.Login) -> None:
        """Forget the last connection."""
        self._login = login
        self._name = login.username
        self._is_new = self._is_registered = self._is_logged_in = self._is_leaving = False
        # The line that refused the password, while the name may be a new one.
        self._denial: IrcLine | None = None
        self._refusal: events.Refused | None = None
        self._offered: set[str] = set()
        self._enabled: set[str] = set()
        self._users: dict[str, None] = {}
        self._listed: dict[str, None] = {}
        self._batches: dict[str, _Batch] = {}
        # The question that is being answered. Unconfirmed messages by label, in the order in which they were sent.
        self._asked: requests.AskUsers | requests.AskHistory | OpenDirect | None = None
        self._sent: dict[str, requests.Say | requests.Whisper] = {}
        self._labels = 0
        # While missed messages are asked for: these, and those that have arrived since.
        self._missed: list[Message] = []
        self._held: list[ClientEvent] = []
        # The size of all this, and of the batches.
        self._kept_bytes = 0

    @property
    def is_busy(self) -> bool:
        """True until the list of users, or the history, has arrived."""
        return self._asked is not None

    def event_decoder(self) -> EventDecoder:
        return EventDecoder()

    def connect(
        self,
        login: requests.Login,
        unconfirmed: Sequence[requests.Say | requests.Whisper],
        host: str = "",  # noqa: ARG002
    ) -> Effects:
        """Begin the registration. A name that is taken is asked for its password, if the server has SASL."""
        self._start(login)
        self._again = tuple(unconfirmed)
        self.is_guest = login.password is None
        name = login.username
        return _send("CAP LS 302", format_line("", "NICK", name), format_line("", "USER", name, "0", "*", name))

    # --- requests ---

    def request(self, action: Action) -> Effects:
        """Translate an action. One that irc has no form of is refused."""
        if not is_lobby(getattr(action, "room", None)):
            return _refuse(action, "With --dialect irc the client has the lobby only; nothing was done.")
        match action:
            case requests.Say() | requests.Whisper():
                return self._say(action)
            case OpenPublic() | requests.AskUser():
                return Effects(events=(Ready(),))
            case OpenDirect() | requests.AskUsers():
                self._asked = action
                return _send(format_line("", "NAMES", _CHANNEL))
            case requests.AskHistory() if "draft/chathistory" in self._enabled:
                return self._ask_history(action)
            case requests.Delete() if "draft/message-redaction" in self._enabled:
                return _send(format_line("", "REDACT", _CHANNEL, str(action.id)))
            case requests.Password(password):
                self._login = requests.Login(self._login.username, password)
                return self._authenticate()
            case requests.Ping():
                return Effects((self.ping,))
            case requests.Leave():
                self._is_leaving = True
                return _send("QUIT")
            case _:
                return _refuse(
                    action, "There is no such command with --dialect irc, or on this server; nothing was done."
                )

    def _say(self, message: requests.Say | requests.Whisper) -> Effects:
        target = _CHANNEL if isinstance(message, requests.Say) else message.to
        command = "NOTICE" if message.notice else "PRIVMSG"
        label, tags = message.nonce or "", ""
        if self._is_confirming:
            self._labels += 1
            label = f"c{self._labels}"
            self._sent[label] = message
            if "labeled-response" in self._enabled:
                tags = f"label={label}"
        lines = _message_lines(
            command, target, message.text, tags, has_batches={"batch", "draft/multiline"} <= self._enabled
        )
        said = () if self._is_confirming else (Outcome(message, has_come=True),)
        return Effects((Outgoing(encode_lines(lines)),), said)

    def _ask_history(self, asked: requests.AskHistory) -> Effects:
        if not 1 <= asked.limit <= HISTORY_MAX_MESSAGES:  # a server of irc would return as many as it can
            reason = f"The limit is a number from 1 to {HISTORY_MAX_MESSAGES}; nothing was done."
            return _refuse(asked, reason, ErrorCode.BAD_REQUEST)
        self._asked = asked
        return _send(_history_line(asked))

    @property
    def _is_confirming(self) -> bool:
        return {"echo-message", "message-tags"} <= self._enabled

    # --- events ---

    def handle_event(self, event: ClientEvent) -> Effects:
        """Continue the registration, or handle a line of the server."""
        match event:
            case events.Welcome(username=name):
                self._is_registered, self._name = True, name[:_NICK_MAX_CHARACTERS]
                return _send(format_line("", "JOIN", _CHANNEL))
            case events.Bye(reason=reason):
                return self._on_end(reason)
            case IrcLine():
                return self._on_any_line(event)
            case _:
                return Effects(events=(event,))

    def _on_end(self, reason: str) -> Effects:
        """ERROR: the goodbye, or the refusal of the login unless an earlier line had it."""
        if self._is_logged_in or self._is_leaving:
            return Effects(events=(events.Bye(YOU_LEFT if self._is_leaving else reason),))
        if self._refusal is not None:
            return Effects()
        return Effects(events=(events.Refused(ErrorCode.INTERNAL, reason),))

    def _on_any_line(self, event: IrcLine) -> Effects:
        batch = self._batches.get(event.tags.get("batch", ""))
        if event.name == "BATCH" and event.params:
            return self._on_batch(event)
        if event.name in ("PRIVMSG", "NOTICE"):
            if batch is not None and "multiline" in "".join(batch.opening.params[1:2]):
                text = event.params[-1] if event.params else ""
                if len(batch.texts) < _BATCH_MAX_MESSAGES and self._may_keep(_size_of(text), batch):
                    batch.first = batch.first or event
                    batch.texts.append((text, "draft/multiline-concat" in event.tags))
                return Effects()
            return self._on_message(event, batch)
        label = event.tags.get("label") or (batch.label if batch else "")
        if not self._is_registered:
            return self._register(event)
        return self._on_line(event, label)

    def _register(self, line: IrcLine) -> Effects:  # noqa: C901, PLR0912 - one case for each line
        """The lines before the end of the registration."""
        match line.name, line.params:
            case "CAP", (_, "LS" | "NEW", *rest) if rest:
                self._offered |= _KNOWN.intersection(word.partition("=")[0] for word in rest[-1].split())
                if len(rest) > 1:  # further lines follow
                    return Effects()
                wanted = [name for name in _WANTED if name in self._offered]
                return _send(format_line("", "CAP", "REQ", " ".join(wanted))) if wanted else _send("CAP END")
            case "CAP", (_, "ACK", names):
                self._enabled |= _KNOWN.intersection(names.split())
                return self._authenticate() if self._login.password is not None else _send("CAP END")
            case "CAP", (_, "NAK", *_):
                return _send("CAP END")
            case "AUTHENTICATE", ("+", *_) if self._has_credentials:
                return Effects((Outgoing(encode_lines(_plain(self._login))),))
            case "903", _:  # after 433 the server has forgotten the nick
                return _send("CAP END", *([] if self._may_register else [format_line("", "NICK", self._name)]))
            case "904", _ if self._registers:
                self._may_register, self._denial = False, line
                return _send(format_line("", "REGISTER", "*", "*", self._login.password or ""))
            case "REGISTER", ("SUCCESS", *_):
                self._is_new = True
                return _send("CAP END")
            case "FAIL", ("REGISTER", code, *_):
                taken = code in ("ACCOUNT_EXISTS", "USERNAME_EXISTS")
                if taken:
                    return self._refuse_login(ErrorCode.WRONG_PASSWORD, self._denial or line)
                return self._refuse_login(ErrorCode.INVITATION_REQUIRED, line)
            case "433", _ if "sasl" in self._enabled and self._login.password is None and not self._was_logged_in:
                self.is_guest = self._may_register = False
                return Effects(events=(events.PasswordPrompt(account=AccountKind.EXISTING),))
            case "FAIL", (_, code, *_):
                return self._refuse_login(_code_of(code), line)
            case name, _ if name in _CODES:
                return self._refuse_login(_CODES[name], line)
            case _:
                return Effects()

    @property
    def _has_credentials(self) -> bool:
        """True if there is a password that this server may get."""
        return self._login.password is not None and "sasl" in self._enabled

    @property
    def _registers(self) -> bool:
        """True if the name may be a new one."""
        is_possible = _REGISTRATION in self._offered and self._has_credentials
        return is_possible and self._may_register and not self._was_logged_in

    def _authenticate(self) -> Effects:
        if "sasl" not in self._enabled:  # a server without accounts, and the password is not sent
            return _send("CAP END")
        return _send("AUTHENTICATE PLAIN")

    def _refuse_login(self, code: ErrorCode, line: IrcLine) -> Effects:
        self._refusal = events.Refused(code, line.params[-1] if line.params else line.name)
        return Effects(events=(self._refusal,))

    def _on_line(self, line: IrcLine, label: str) -> Effects:  # noqa: C901, PLR0912 - one case for each line
        """A line after the registration, except for messages and batches."""
        nick = line.source.partition("!")[0]
        match line.name, line.params:
            case "353", (_, _, channel, names) if _is_lobby_channel(channel):
                for name in names.split()[: _USERS_MAX - len(self._listed)]:
                    nick = name.lstrip("~&@%+").partition("!")[0]
                    if len(nick) <= _NICK_MAX_CHARACTERS:
                        self._listed[nick] = None
            case "366", (_, channel, *_) if _is_lobby_channel(channel):
                self._users, self._listed = self._listed, {}
                return self._on_names()
            case "JOIN", (channel, *_) if _is_lobby_channel(channel) and not self._is_me(nick):
                return self._on_moved((nick,), ())
            case "PART", (channel, *_) if _is_lobby_channel(channel) and not self._is_me(nick):
                return self._on_moved((), (nick,))
            case "KICK", (channel, kicked, *_) if _is_lobby_channel(channel) and not self._is_me(kicked):
                return self._on_moved((), (kicked,))
            case "QUIT", _ if not self._is_me(nick):
                return self._on_moved((), (nick,))
            case "NICK", (new, *_) if self._is_me(nick) and len(new) <= _NICK_MAX_CHARACTERS:
                self._name = new
            case "NICK", (new, *_):
                return self._on_moved((new,), (nick,))
            case "REDACT", (channel, number, *_) if _is_lobby_channel(channel) and _is_id(number):
                return self._show(events.Deleted(int(number), nick))
            case "FAIL", (command, code, *_):
                if command.upper() == "CHATHISTORY" and not self._is_logged_in:
                    return self._come_in(is_complete=False)
                return self._on_error(_code_of(code), line.params[-1], label)
            case name, (_, *words) if name.isdigit() and (name >= "400" or name == "263") and name < "600" and words:
                if name not in _SKIPPED_ERRORS:
                    if not self._is_logged_in:  # the lobby can't be joined
                        return self._refuse_login(_CODES.get(name, ErrorCode.NOT_PERMITTED), line)
                    return self._on_error(_CODES.get(name, ErrorCode.BAD_REQUEST), " ".join(words[-1:]), label)
        return Effects()

    def _on_error(self, code: ErrorCode, reason: str, label: str) -> Effects:
        """An error about a message or a question; without labels, about the oldest message."""
        if not label and "labeled-response" not in self._enabled and self._asked is None:
            label = next(iter(self._sent), "")
        message = self._sent.pop(label, None)
        if message is None:
            self._asked = None
        return self._show(events.Refused(code, reason, None if message is None else message.nonce))

    def _is_me(self, nick: str) -> bool:
        return name_key(nick) == name_key(self._name)

    def _on_names(self) -> Effects:
        """The list of users is complete."""
        if self._is_registered and not self._is_logged_in:
            since = self._login.since
            if isinstance(since, int) and "draft/chathistory" in self._enabled:
                return _send(_page_line(since))
            return self._come_in(is_complete=since is None)
        if isinstance(self._asked, requests.AskUsers | OpenDirect):
            self._asked = None
            return Effects(events=(Online(tuple(self._users)),))
        return Effects()

    def _on_moved(self, joined: tuple[str, ...], left: tuple[str, ...]) -> Effects:
        gone = tuple(name for name in left if self._users.pop(name, self) is None)
        is_possible = len(self._users) < _USERS_MAX and all(len(name) <= _NICK_MAX_CHARACTERS for name in joined)
        come = tuple(name for name in joined if name not in self._users and is_possible)
        self._users.update(dict.fromkeys(come))
        if not self._is_logged_in or not (come or gone):
            return Effects()
        return Effects(events=(events.Users(len(self._users), None, come, gone),))

    def _come_in(self, *, is_complete: bool) -> Effects:
        """The login is complete: Welcome, missed messages, and the unconfirmed ones."""
        self._is_logged_in = self._was_logged_in = True
        kind = AccountKind.NEW if self._is_new else AccountKind.EXISTING
        welcome = events.Welcome(
            account=AccountKind.GUEST if self.is_guest else kind,
            username=self._name,
            users=tuple(self._users),
            last_id=None,
        )
        gap = () if is_complete else (PossibleGap("draft/chathistory" in self._enabled),)
        # The history has what has arrived meanwhile, too. Direct messages that waited may be older than it.
        held = sorted((*self._missed, *self._held), key=lambda event: getattr(event, "id", 0))
        messages = {each.id: each for each in held if isinstance(each, PublicMessage | DirectMessage)}
        others = [each for each in held if not isinstance(each, PublicMessage | DirectMessage)]
        self._missed, self._held = [], []
        shown: list[ClientEvent] = []
        again: list[Outgoing] = []
        for message in self._again:
            stored = next((each for each in messages.values() if self._is_stored(each, message)), None)
            if stored is not None:
                del messages[stored.id]
                shown.append(Sent(stored.id, SentStatus.SENT, message.nonce))
            elif is_complete and isinstance(message, requests.Say):
                effects = self._say(message)
                again += effects.send
                shown += effects.events
            else:
                shown.append(DeliveryUnknown(message))
        self._kept_bytes = sum(batch.size_bytes for batch in self._batches.values())
        return Effects(tuple(again), (welcome, *gap, *messages.values(), *others, *shown))

    def _is_stored(self, message: Message, own_message: requests.Say | requests.Whisper) -> bool:
        is_public = isinstance(own_message, requests.Say)
        return is_public and self._is_me(message.sender) and message.text == own_message.text

    def _show(self, event: ClientEvent) -> Effects:
        """Show the event, or hold it until the missed messages have come."""
        if self._is_logged_in:
            return Effects(events=(event,))
        if len(self._held) < _MISSED_MAX_MESSAGES and self._may_keep(_event_size(event)):
            self._held.append(event)
        return Effects()

    def _may_keep(self, size_bytes: int, batch: _Batch | None = None) -> bool:
        """True if there is room for texts that are kept, in this batch or until the end of the login."""
        if self._kept_bytes + size_bytes > _KEPT_MAX_BYTES:
            return False
        self._kept_bytes += size_bytes
        if batch is not None:
            batch.size_bytes += size_bytes
        return True

    # --- messages ---

    def _on_message(self, line: IrcLine, batch: _Batch | None, text: str | None = None) -> Effects:
        label = line.tags.get("label") or (batch.label if batch else "")
        message = _read_message(line, text)
        if message is None:
            return Effects()
        if batch is not None and _is_history(batch) and not isinstance(message, Forwarded):
            if len(batch.messages) < _BATCH_MAX_MESSAGES and self._may_keep(_event_size(message), batch):
                batch.messages.append(message)
            return Effects()
        if self._is_me(message.sender) and not isinstance(message, Forwarded):
            if not label and "labeled-response" not in self._enabled:
                label = next(iter(self._sent), "")
            own_message = self._sent.pop(label, None)
            if own_message is not None:
                return self._show(Sent(message.id, SentStatus.SENT, own_message.nonce))
        return self._show(message)

    def _on_batch(self, line: IrcLine) -> Effects:
        sign, name = line.params[0][:1], line.params[0][1:]
        if sign == "+":
            parent = line.tags.get("batch", "")
            outer = self._batches.get(parent)
            label = line.tags.get("label") or (outer.label if outer else "")
            if len(self._batches) < _BATCHES_MAX and name not in self._batches:
                self._batches[name] = _Batch(line, label, parent)
            return Effects()
        batch = self._batches.pop(name, None)
        if batch is None:
            return Effects()
        self._kept_bytes -= batch.size_bytes
        first, target = batch.first, batch.opening.params[2:3]
        if first is not None:
            parts = [text if joins or not number else "\n" + text for number, (text, joins) in enumerate(batch.texts)]
            tags = {**batch.opening.tags, "label": batch.label}
            whole = IrcLine(first.name, (*target, ""), batch.opening.source or first.source, tags)
            return self._on_message(whole, self._batches.get(batch.parent), "".join(parts))
        return self._on_history(tuple(batch.messages)) if _is_history(batch) else Effects()

    def _on_history(self, messages: tuple[Message, ...]) -> Effects:
        """A page of missed messages, or the answer to AskHistory."""
        if not self._is_logged_in:
            self._missed += [message for message in messages if self._may_keep(_event_size(message))]
            if messages and len(self._missed) < _MISSED_MAX_MESSAGES:
                return _send(_page_line(messages[-1].id))
            return self._come_in(is_complete=not messages)
        asked, self._asked = self._asked, None
        if not isinstance(asked, requests.AskHistory):
            return Effects()
        return Effects(events=(events.History(messages, with_user=asked.with_user),))


# --- lines ---


def _send(*lines: str) -> Effects:
    return Effects((Outgoing(encode_lines(list(lines))),))


def _refuse(action: Action, reason: str, code: ErrorCode = ErrorCode.UNKNOWN_COMMAND) -> Effects:
    nonce, room = getattr(action, "nonce", None), getattr(action, "room", None)
    return Effects(events=(events.Refused(code, reason, nonce, room),))


def _code_of(word: str) -> ErrorCode:
    """The code of a standard reply: a server of ours has its own codes in upper case."""
    return ErrorCode.__members__.get(word, ErrorCode.BAD_REQUEST)


def _size_of(text: str) -> int:
    return len(text.encode(errors="replace"))


def _event_size(event: ClientEvent) -> int:
    """The size of all texts in an event, in bytes. A server may send a long name or a long reason as well."""
    values = astuple(event) if isinstance(event, Struct) else event
    return sum(_size_of(value) for value in values if isinstance(value, str))


def _is_lobby_channel(name: str) -> bool:
    return name.lower() == _CHANNEL


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 19  # noqa: PLR2004 - digits of ID_MAX


def _is_history(batch: _Batch) -> bool:
    return batch.opening.params[1:2] in (("chathistory",), ("draft/chathistory",))


def _plain(login: requests.Login) -> list[str]:
    """The answer for SASL PLAIN, in pieces."""
    answer = base64.b64encode(f"\0{login.username}\0{login.password}".encode()).decode()
    pieces = [answer[at : at + _SASL_PIECE_BYTES] for at in range(0, len(answer) + 1, _SASL_PIECE_BYTES)]
    return [f"AUTHENTICATE {piece or '+'}" for piece in pieces]


def _page_line(message_id: int) -> str:
    return format_line("", "CHATHISTORY", "AFTER", _CHANNEL, f"msgid={message_id}", str(_PAGE_MESSAGES))


def _history_line(asked: requests.AskHistory) -> str:
    target, limit = asked.with_user or _CHANNEL, str(asked.limit)
    if asked.before is not None:
        return format_line("", "CHATHISTORY", "BEFORE", target, f"msgid={asked.before}", limit)
    if asked.after is not None:
        return format_line("", "CHATHISTORY", "AFTER", target, f"msgid={asked.after}", limit)
    return format_line("", "CHATHISTORY", "LATEST", target, "*", limit)


def _message_lines(command: str, target: str, text: str, tags: str, *, has_batches: bool) -> list[str]:
    """The lines of a message; several are one batch, or else several messages, of which the last has the label."""
    if text.startswith(ACTION_PREFIX) and "\n" not in text and len(text.encode()) <= _TEXT_MAX_BYTES:
        action = f"{CTCP}ACTION {text.removeprefix(ACTION_PREFIX).replace(CTCP, '')}{CTCP}"
        return [format_line("", command, target, action, tags=tags)]
    pieces = list(cut_text(text, _TEXT_MAX_BYTES))
    if len(pieces) == 1:
        return [format_line("", command, target, pieces[0].text, tags=tags)]
    if not has_batches:
        lines = [format_line("", command, target, piece.text) for piece in pieces if piece.text]
        return [*lines[:-1], f"@{tags} {lines[-1]}"] if tags and lines else lines
    lines = []
    for piece in pieces:
        joins = ";draft/multiline-concat" if piece.continues else ""
        lines.append(format_line("", command, target, piece.text, tags=f"batch=m{joins}"))
    opening = format_line("", "BATCH", "+m", "draft/multiline", target, tags=tags)
    return [opening, *lines, "BATCH -m"]


def _read_message(line: IrcLine, text: str | None) -> Message | Forwarded | None:
    """The message of a line; None for one of the server, and for CTCP except ACTION."""
    if len(line.params) < 2 or "!" not in line.source:  # noqa: PLR2004 - target and text
        return None
    sender, target = line.source.partition("!")[0][:_NICK_MAX_CHARACTERS], line.params[0]
    text = line.params[-1] if text is None else text
    if text.startswith(CTCP):
        word, _, rest = text.strip(CTCP).partition(" ")
        if word.upper() != "ACTION":
            return None
        text = ACTION_PREFIX + rest
    number, time_ms = line.tags.get("msgid", ""), _read_time(line.tags)
    if not _is_id(number) or time_ms is None:
        return Forwarded(sender, text)
    is_notice = line.name == "NOTICE"
    if _is_lobby_channel(target):
        return PublicMessage(int(number), time_ms, sender, text, notice=is_notice)
    if target.startswith(("#", "&")):  # a room that the client has not joined
        return None
    return DirectMessage(int(number), time_ms, sender, target, text, notice=is_notice)


def _read_time(tags: Mapping[str, str]) -> events.TimeMs | None:
    with suppress(ValueError, OverflowError):
        return events.TimeMs(round(datetime.fromisoformat(tags.get("time", "")).timestamp() * 1000))
    return None
