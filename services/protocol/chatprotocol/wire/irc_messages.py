"""Messages of IRC in both directions: PRIVMSG, NOTICE, ACTION, and several lines as one message (draft/multiline).

A message of another protocol may have several lines, and more bytes than a line of IRC. It is shown in pieces, or as
one batch to clients that know draft/multiline. ``/me`` at its beginning is ACTION.

Most messages are one short line of ASCII. A batch of them takes one format string for each, and no other call. A read
that has only messages to the lobby is taken apart by a few calls: see :func:`read_plain_texts`.
"""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct

from chatprotocol import events
from chatprotocol.errors import ErrorCode
from chatprotocol.limits import BODY_MAX_BYTES, IRC_LINE_MAX_BYTES, IRC_MESSAGE_LINES_MAX
from chatprotocol.requests import Relay, Say, SayBatch, Whisper
from chatprotocol.rules import LOBBY, room_key
from chatprotocol.wire.irc_connection import Sending
from chatprotocol.wire.irc_events import event_line
from chatprotocol.wire.irc_lines import (
    ACTION_PREFIX,
    CTCP,
    LINE_END_BYTES,
    add_tag,
    cut_text,
    format_line,
    remove_formatting,
    tag_all,
)
from chatprotocol.wire.json import to_iso

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from chatprotocol.events import ChatHistoryItem, Message, PublicBatch, Refused
    from chatprotocol.requests import Request
    from chatprotocol.wire.irc_capabilities import Encoding
    from chatprotocol.wire.irc_connection import Handler, IrcConnection
    from chatprotocol.wire.irc_lines import Command

# Targets of one PRIVMSG or NOTICE.
TARGETS_MAX: Final = 4
_ACTION: Final = f"{CTCP}ACTION "
_CONCAT: Final = "draft/multiline-concat"
_MULTILINE: Final = "draft/multiline"
_SERVICES: Final = frozenset({"authserv", "chanserv", "memoserv", "nickserv", "operserv", "saslserv"})
# Client-only tags that are passed on; all others are denied (ISUPPORT CLIENTTAGDENY).
RELAYED_TAGS: Final = ("+typing", "+draft/typing")


# The beginning of a message to the lobby, as clients send it.
_TO_LOBBY: Final = f"PRIVMSG #{LOBBY} :".encode()
_LINE_END: Final = b"\r\n"
# Bytes that a line may have a meaning for: its ends, CTCP, formatting codes.
_CONTROLS: Final = bytes(range(0x20))


# --- events to lines ---


class _Form(NamedTuple):
    """The parts of a line that messages of one user to one target share.

    A line is ``before_id``, the id, ``after_id``, ``body`` and the text; without an id it is ``tags``, ``body`` and the
    text.
    """

    before_id: str
    after_id: str
    tags: str
    body: str
    # The limit of the text.
    limit_bytes: int
    prefix: str
    to: str
    has_id: bool

    def first(self, message_id: int) -> str:
        """The first line of a message, without its text."""
        return f"{self.tags_of(message_id)}{self.body}"

    def tags_of(self, message_id: int) -> str:
        """All tags of a message, with the space after them."""
        return f"{self.before_id}{message_id}{self.after_id}" if self.has_id else self.tags


def _form_of(encoding: Encoding, message: Message | PublicBatch) -> _Form:
    to = message.recipient if isinstance(message, events.DirectMessage) else f"#{message.room or LOBBY}"
    prefix = encoding.prefix(message.sender)
    tags = [f"time={to_iso(message.time_ms)}"] if encoding.has_time else []
    before_id = f"@{';'.join([*tags, 'msgid='])}"
    later_tags = _tags_of_sender(encoding, message.sender, is_guest=message.guest, is_bot=message.bot)
    body = f":{prefix} {'NOTICE' if message.notice else 'PRIVMSG'} {to} :"
    all_tags = tags + later_tags
    return _Form(
        before_id,
        f";{';'.join(later_tags)} " if later_tags else " ",
        f"@{';'.join(all_tags)} " if all_tags else "",
        body,
        IRC_LINE_MAX_BYTES - LINE_END_BYTES - len(body.encode(errors="replace")),
        prefix,
        to,
        encoding.has_tags,
    )


def _tags_of_sender(encoding: Encoding, sender: str, *, is_guest: bool, is_bot: bool) -> list[str]:
    tags = [f"account={sender}"] if encoding.has_account and not is_guest else []
    return [*tags, "bot"] if is_bot and encoding.has_tags else tags


def message_lines(encoding: Encoding, message: Message) -> list[str]:
    """The lines of a message."""
    return _lines(encoding, _form_of(encoding, message), message.id, message.text)


def batch_lines(encoding: Encoding, batch: PublicBatch) -> list[str]:
    """The lines of a batch of messages."""
    form, texts = _form_of(encoding, batch), batch.texts
    if _are_plain(texts, form.limit_bytes):
        if form.has_id:
            before_id, rest = form.before_id, form.after_id + form.body
            return [f"{before_id}{number}{rest}{text}" for number, text in enumerate(texts, batch.id)]
        start = form.tags + form.body
        return [start + text for text in texts]
    return [line for number, text in enumerate(texts, batch.id) for line in _lines(encoding, form, number, text)]


def _are_plain(texts: Sequence[str], limit_bytes: int) -> bool:
    """True if each text is surely one line as it is. A loop over the texts would take longer than their encoding."""
    joined = "\n".join(texts)
    # A character has at most four bytes.
    limit_characters = limit_bytes if joined.isascii() else limit_bytes // 4
    return (
        joined.count("\n") == len(texts) - 1
        and len(max(texts, key=len, default="")) <= limit_characters
        and not ("\r" in joined or "\0" in joined or CTCP in joined)
        and not (joined.startswith(ACTION_PREFIX) or f"\n{ACTION_PREFIX}" in joined)
    )


def _lines(encoding: Encoding, form: _Form, message_id: int, text: str) -> list[str]:
    if 0 < len(text) <= form.limit_bytes and text[0] != ACTION_PREFIX[0] and text.isascii() and text.isprintable():
        return [form.first(message_id) + text]
    if text.startswith(ACTION_PREFIX):
        return _action_lines(form, message_id, text)
    pieces = list(cut_text(text, form.limit_bytes))
    while len(pieces) > 1 and not pieces[-1].text:
        pieces.pop()
    if len(pieces) > 1 and encoding.has_multiline:
        batch = f"m{message_id}"
        inner = (
            f"@batch={batch}{';' + _CONCAT if piece.continues else ''} {form.body}{piece.text}" for piece in pieces
        )
        opening = f"{form.tags_of(message_id)}:{form.prefix} BATCH +{batch} {_MULTILINE} {form.to}"
        return [opening, *inner, f":{encoding.server_name} BATCH -{batch}"]
    # Nothing would be left of a message of bytes of CTCP alone.
    shown = [piece.text for piece in pieces if piece.text] or [" "]
    return [form.first(message_id) + shown[0], *(f"{form.tags}{form.body}{piece}" for piece in shown[1:])]


def _action_lines(form: _Form, message_id: int, text: str) -> list[str]:
    """The first line of the text is the action. The others follow as they are."""
    action, _, rest = text.removeprefix(ACTION_PREFIX).partition("\n")
    limit_bytes = form.limit_bytes - len(_ACTION) - len(CTCP)
    pieces = [f"{_ACTION}{piece.text}{CTCP}" for piece in cut_text(action, limit_bytes) if piece.text]
    pieces += [piece.text for piece in cut_text(rest, form.limit_bytes) if piece.text]
    first, *others = pieces or [f"{_ACTION}{CTCP}"]
    return [form.first(message_id) + first, *(f"{form.tags}{form.body}{piece}" for piece in others)]


def relayed_lines(encoding: Encoding, event: events.Relayed) -> list[str]:
    """The line of something that is passed on to the programs of others; TAGMSG is for those who know tags."""
    if event.kind == "TAGMSG" and not encoding.has_tags:
        return []
    to = event.to if event.room is None else f"#{event.room}"
    params = (to or "*", event.text) if event.text else (to or "*",)
    tags = [f"time={to_iso(event.time_ms)}"] if encoding.has_time else []
    tags += _tags_of_sender(encoding, event.sender, is_guest=event.guest, is_bot=event.bot)
    tags += [event.tags] if event.tags and encoding.has_tags else []
    return [format_line(encoding.prefix(event.sender), event.kind, *params, tags=";".join(tags))]


def history_lines(connection: IrcConnection, messages: Iterable[ChatHistoryItem]) -> Iterator[str]:
    """The lines of an answer to CHATHISTORY, whose second parameter is the target."""
    batch = connection.new_batch() if "batch" in connection.enabled else ""
    target = connection.command.param(1, "*")
    if batch:
        yield format_line(connection.settings.name, "BATCH", f"+{batch}", "chathistory", target)
    for message in messages:
        if isinstance(message, events.RoomEvent):
            lines = [event_line(connection.encoding, message)]
        else:
            lines = message_lines(connection.encoding, message)
        yield from tag_all(lines, batch) if batch else lines
    if batch:
        yield connection.close_batch(batch)


# --- confirmations ---


def confirm(connection: IrcConnection, messages: Sequence[Message]) -> list[str]:
    """The lines for the next message that was stored: the echo, ``messages``, or else what its label needs."""
    sending = _next(connection)
    lines = [line for message in messages for line in message_lines(connection.encoding, message)]
    return _answer(connection, sending, lines)


def confirm_batch(connection: IrcConnection, count: int, echo: PublicBatch | None) -> list[str]:
    """The lines for the next ``count`` messages that were stored, and their echo."""
    sent = [_next(connection) for _ in range(count)]
    if any(each.label or each.batch for each in sent):
        echoes = [[message] for message in echo] if echo is not None else [[] for _ in sent]
        lines = []
        for sending, messages in zip(sent, echoes, strict=False):
            found = [line for message in messages for line in message_lines(connection.encoding, message)]
            lines += _answer(connection, sending, found)
        return lines
    return batch_lines(connection.encoding, echo) if echo is not None else []


def refuse(connection: IrcConnection, error: Refused) -> list[str]:
    """The lines for the next message, which was refused. Nothing answers a NOTICE, so that no two programs talk."""
    sending = _next(connection)
    return _answer(connection, sending, [] if sending.is_notice else [_error_line(connection, sending, error)])


def _next(connection: IrcConnection) -> Sending:
    return connection.sending.popleft() if connection.sending else Sending("*")


def _answer(connection: IrcConnection, sending: Sending, lines: list[str]) -> list[str]:
    """Give the lines the label of the message, or put them into the batch of the command."""
    if sending.batch:
        lines = tag_all(lines, sending.batch)
        return [*lines, connection.close_batch(sending.batch)] if sending.closes else lines
    if sending.label:
        return connection.label_lines(lines or [connection.ack()], sending.label)
    return lines


def _error_line(connection: IrcConnection, sending: Sending, error: Refused) -> str:
    target = sending.target
    match error.code:
        case ErrorCode.UNKNOWN_USER:
            return connection.numeric("401", target, "No such nick/channel")
        case ErrorCode.UNKNOWN_ROOM:
            return connection.numeric("403", target, "No such channel")
        case ErrorCode.BAD_REQUEST if target.startswith("#"):  # not the name of a room
            return connection.numeric("403", target, "No such channel")
        case ErrorCode.NOT_A_MEMBER | ErrorCode.NOT_PERMITTED | ErrorCode.MUTED | ErrorCode.BANNED:
            return connection.numeric("404", target, f"Cannot send to channel ({error.reason})")
        case ErrorCode.EMPTY_MESSAGE:
            return connection.numeric("412", "No text to send")
        case code:
            return connection.failure("PRIVMSG", code.name, target, error.reason)


def refused_relay(connection: IrcConnection, asked: Relay, error: Refused) -> list[str]:
    """The lines for a message for the recipient's program that could not be passed on."""
    target = f"#{asked.room}" if asked.room is not None else asked.to or "*"
    is_message = connection.command.name == "PRIVMSG"
    return [_error_line(connection, Sending(target), error)] if is_message else []


# --- commands to requests ---


def send(connection: IrcConnection, command: Command) -> Iterator[Request]:
    """PRIVMSG and NOTICE."""
    is_notice = command.name == "NOTICE"
    targets, text = command.param(0), command.param(1)
    if "batch" in command.tags and _MULTILINE in connection.enabled:
        _add_line(connection, command)
        return
    if not targets:
        if not is_notice:
            connection.reply("411", f"No recipient given ({command.name})")
        return
    text = text if text.startswith(CTCP) else remove_formatting(text)
    if not text:
        if not is_notice:
            connection.reply("412", "No text to send")
        return
    names = list(dict.fromkeys(filter(None, targets.split(","))))
    if len(names) > TARGETS_MAX:
        connection.reply("407", names[TARGETS_MAX], f"Too many targets; there are {TARGETS_MAX} at most")
        return
    head = f"{command.name} {max(names, key=len, default='')} :"
    if _bytes_for_others(connection, len(head.encode()) + len(text.encode())) > IRC_LINE_MAX_BYTES:
        connection.reply("417", "Input line was too long")
        return
    if text.startswith(CTCP):
        if not text.startswith(_ACTION):
            yield from _relay(connection, command, names, text)
            return
        text = ACTION_PREFIX + remove_formatting(text.removeprefix(_ACTION).removesuffix(CTCP))
    yield from _send(connection, names, text, is_notice=is_notice)


def _bytes_for_others(connection: IrcConnection, size_bytes: int) -> int:
    """The size of a line that others get, with the source before it and its end."""
    return len(f":{connection.prefix} ") + size_bytes + LINE_END_BYTES


def _send(connection: IrcConnection, targets: Sequence[str], text: str, *, is_notice: bool) -> Iterator[Request]:
    """Yield the requests of a message to several targets. Their answers come later: see IrcConnection."""
    accepted = [target for target in targets if may_send(connection, target)]
    batch = ""
    if len(targets) > 1:
        if len(accepted) == 0:
            connection.answer_in_batch()
        elif connection.has_label:
            batch = connection.open_later_batch()
    for target in targets:
        if target not in accepted and not is_notice:
            line = _not_sent(connection, target)
            connection.put(add_tag(line, f"batch={batch}") if batch else line)
    label = connection.take_label() if accepted else ""
    for target in accepted:
        sending = Sending(target, label, batch, closes=bool(batch) and target is accepted[-1], is_notice=is_notice)
        connection.sending.append(sending)
        if target.startswith("#"):
            room = target[1:]
            yield Say(text, None, None if room_key(room) == LOBBY else room, is_notice)
        else:
            yield Whisper(target, text, notice=is_notice)


def may_send(connection: IrcConnection, target: str) -> bool:
    """False for the lobby if this connection has not joined it, and for services. The server decides about the others.

    Users of other networks send passwords to services; here anybody may have such a name.
    """
    key = room_key(target)
    return LOBBY in connection.rooms if key == f"#{LOBBY}" else key not in _SERVICES


def _not_sent(connection: IrcConnection, target: str) -> str:
    """The error for a target of which :func:`may_send` is false."""
    if target.startswith("#"):
        return connection.numeric("404", target, "Cannot send to channel (join it first)")
    return connection.numeric("401", target, "No such nick: there are no services here; log in with SASL")


def _relay(connection: IrcConnection, command: Command, targets: Sequence[str], text: str) -> Iterator[Request]:
    """Pass a message for the recipient's program (CTCP) on."""
    if len(targets) > 1:
        connection.answer_in_batch()
    tags = relayed_tags(command)
    for target in targets:
        if not may_send(connection, target):
            if command.name == "PRIVMSG":
                connection.put(_not_sent(connection, target))
            continue
        room, to = (target[1:], None) if target.startswith("#") else (None, target)
        yield Relay(room=room, to=to, kind=command.name, tags=tags, text=text)


def relayed_tags(command: Command) -> str:
    """The tags of a line that are passed on to others, escaped."""
    if "+" not in command.raw_tags:
        return ""
    return ";".join(tag for tag in command.raw_tags.split(";") if tag.partition("=")[0] in RELAYED_TAGS)


# --- many messages in one read ---


def read_plain_texts(connection: IrcConnection, block: bytes) -> Sequence[str]:
    """The texts of a block of lines, if each line is a message to the lobby with a plain text; else none.

    For other blocks :func:`send` gets line by line, which takes 25 times as long. The texts are those that it would get
    and accept.
    """
    if not (block.startswith(_TO_LOBBY) and block.endswith(_LINE_END)):
        return ()
    if not (connection.is_registered and LOBBY in connection.rooms):
        return ()
    texts = block[len(_TO_LOBBY) : -LINE_END_BYTES].split(_LINE_END + _TO_LOBBY)
    has_controls = len(block.translate(None, _CONTROLS)) != len(block) - LINE_END_BYTES * len(texts)
    if has_controls or _bytes_for_others(connection, len(_TO_LOBBY + max(texts, key=len))) > IRC_LINE_MAX_BYTES:
        return ()
    try:
        found = b"\n".join(texts).decode().split("\n")
    except UnicodeDecodeError:
        return ()
    return () if "" in found or any(map(str.isspace, found)) else found


def say_all(connection: IrcConnection, texts: Sequence[str]) -> Iterator[Request]:
    """Yield the request of several messages to the lobby."""
    connection.sending.extend(repeat(Sending(f"#{LOBBY}"), len(texts)))
    yield SayBatch(texts)


# --- several lines as one message ---


class _Draft(Struct):
    """A batch of lines that the client has begun."""

    name: str
    target: str
    label: str
    text: str = ""
    lines: int = 0
    size_bytes: int = 0
    is_notice: bool = False
    # The rest of a batch with an error is ignored.
    has_failed: bool = False


def batch(connection: IrcConnection, command: Command) -> Iterator[Request]:
    """BATCH: begin or send a message of several lines."""
    name, kind, target = command.param(0), command.param(1), command.param(2)
    if name.startswith("+"):
        if kind != _MULTILINE or not target or _MULTILINE not in connection.enabled or connection.draft is not None:
            connection.fail("BATCH", "MULTILINE_INVALID", "Only one batch of draft/multiline with a target is possible")
            return
        connection.draft = _Draft(name[1:], target, connection.take_label())
        return
    draft = connection.draft
    if draft is None or name != f"-{draft.name}":
        connection.fail("BATCH", "MULTILINE_INVALID", "There is no such batch")
        return
    connection.draft = None
    if draft.has_failed:
        return
    connection.restore_label(draft.label)
    text = remove_formatting(draft.text)
    if not text.strip():
        connection.fail("BATCH", "MULTILINE_INVALID", "The message is empty")
        return
    yield from _send(connection, [draft.target], text.replace(CTCP, ""), is_notice=draft.is_notice)


def _add_line(connection: IrcConnection, command: Command) -> None:
    """Add a line to a batch. It costs nothing yet, because the limits of the batch are small."""
    draft = connection.draft
    if draft is None:
        connection.fail("BATCH", "MULTILINE_INVALID", "There is no such batch")
        return
    if draft.has_failed:
        return
    target, text = command.param(0), command.param(1)
    is_first = draft.lines == 0
    joint = "" if is_first or _CONCAT in command.tags else "\n"
    draft.lines += 1
    draft.size_bytes += len(text.encode()) + len(joint)
    if command.tags["batch"] != draft.name:
        _fail(connection, draft, "INVALID", "There is no such batch")
    elif not text and _CONCAT in command.tags:
        _fail(connection, draft, "INVALID", "A blank line can't continue another one")
    elif room_key(target) != room_key(draft.target):
        _fail(connection, draft, "INVALID_TARGET", draft.target, target, "Invalid multiline target")
    elif not is_first and draft.is_notice != (command.name == "NOTICE"):
        _fail(connection, draft, "INVALID", "All lines have the same command")
    elif draft.size_bytes > BODY_MAX_BYTES:
        _fail(connection, draft, "MAX_BYTES", str(BODY_MAX_BYTES), "Multiline batch max-bytes exceeded")
    elif draft.lines > IRC_MESSAGE_LINES_MAX:
        _fail(connection, draft, "MAX_LINES", str(IRC_MESSAGE_LINES_MAX), "Multiline batch max-lines exceeded")
    else:
        draft.is_notice = command.name == "NOTICE"
        draft.text += joint + text
        connection.costs_nothing()


def _fail(connection: IrcConnection, draft: _Draft, code: str, *params: str) -> None:
    draft.has_failed = True
    connection.restore_label(draft.label)
    connection.fail("BATCH", f"MULTILINE_{code}", *params)


COMMANDS: Final[Mapping[str, Handler]] = {
    "PRIVMSG": send,
    "NOTICE": send,
    "BATCH": batch,
}
