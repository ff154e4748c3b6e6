"""How an IRC connection logs in: capabilities, nick and user, passwords, and new accounts.

    CAP LS 302 -> ... CAP REQ -> ACK, AUTHENTICATE PLAIN -> ... 903, CAP END
    NICK, USER                                                          -> 001 to 005, MOTD

A nick is a username. The password of an account comes with SASL, REGISTER or PASS; without one the nick is a guest's.
After NICK, USER and the end of CAP, the connection enters. A refused nick leaves it as it was, so that the client may
try another one; after any other refusal the connection ends.
"""

from __future__ import annotations

import binascii
import re
from typing import TYPE_CHECKING, Final

from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.limits import IRC_LINE_MAX_BYTES, PASSWORD_MAX_BYTES, REALNAME_MAX_BYTES, USERNAME_MAX_BYTES
from chatprotocol.requests import (
    Authenticate,
    Barrier,
    ChangeEncoding,
    Enter,
    EnterLobby,
    Leave,
    Quit,
    Rename,
    Watch,
)
from chatprotocol.rules import LOBBY, check_username, name_key
from chatprotocol.wire.irc_capabilities import (
    ACCOUNT_REGISTRATION,
    EXTENDED_MONITOR,
    SASL_MECHANISMS,
    Encoding,
    letters_of,
)
from chatprotocol.wire.irc_commands import finish_entering
from chatprotocol.wire.irc_events import channel, is_inside
from chatprotocol.wire.irc_lines import LINE_END_BYTES, clip, format_line, wrap_words

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from chatprotocol.events import Refused
    from chatprotocol.requests import Request
    from chatprotocol.wire.irc_connection import Handler, IrcConnection
    from chatprotocol.wire.irc_lines import Command

# Version of the negotiation whose clients know values.
_CAP_VERSION: Final = 302
# The list in a line of CAP; the rest has the names of the server and the client.
_LIST_BYTES: Final = 400
# An answer of SASL comes in pieces of this size; a shorter one is the last.
_SASL_PIECE_BYTES: Final = 400
# Two names and a password, in base64.
_SASL_MAX_BYTES: Final = (2 * USERNAME_MAX_BYTES + 2 + PASSWORD_MAX_BYTES) * 4 // 3 + 4
_SASL_PARTS: Final = 3
# Everything else has a meaning in sources or masks.
_NOT_IN_IDENT: Final = re.compile("[^A-Za-z0-9._-]")


# --- capabilities ---


def cap(connection: IrcConnection, command: Command) -> Iterator[Request]:
    """CAP: list, request or end the negotiation."""
    match command.param(0).upper():
        case "":
            connection.reply("461", "CAP", "Not enough parameters")
        case "LS":
            version = command.param(1)
            if version.isascii() and version.isdigit() and int(version[:9]) >= _CAP_VERSION:
                connection.knows_302 = True
                connection.enabled.add("cap-notify")
            connection.is_negotiating = not connection.is_registered
            _list(connection, "LS", [_shown(connection, name) for name in connection.offered])
        case "LIST":
            _list(connection, "LIST", sorted(connection.enabled))
        case "REQ":
            connection.is_negotiating = not connection.is_registered
            yield from _request(connection, command.param(1))
        case "END":
            if connection.sasl is not None:
                connection.sasl = None
                connection.reply("906", "SASL authentication aborted")
            connection.is_negotiating = False
            yield from _enter(connection)
        case _:
            connection.reply("410", command.param(0), "Invalid CAP command")


def _shown(connection: IrcConnection, name: str) -> str:
    value = connection.offered[name].value
    return f"{name}={value}" if value and connection.knows_302 else name


def _list(connection: IrcConnection, kind: str, words: list[str]) -> None:
    """Answer with a list, in one line: some bots know no others. A star is in the place of a nick that is too long."""
    line, short = (_cap_line(connection, "CAP", each, kind, " ".join(words)) for each in (connection.target, "*"))
    is_too_long = len(line.encode()) + LINE_END_BYTES > IRC_LINE_MAX_BYTES
    connection.put(short if is_too_long else line)


def _cap_line(connection: IrcConnection, *params: str) -> str:
    """A line of CAP; its list has a colon, which some clients need even if it is one word."""
    *middle, last = params
    return f"{format_line(connection.settings.name, *middle)} :{last}"


def _request(connection: IrcConnection, text: str) -> Iterator[Request]:
    """Enable and disable all capabilities of the request, or none of them if one can't be."""
    words = text.split()
    enabled = set(connection.enabled)
    for word in words:
        name = word.removeprefix("-")
        is_fixed = name == "cap-notify" and word != name and connection.knows_302
        if name not in connection.offered or is_fixed:
            connection.put(_cap_line(connection, "CAP", connection.target, "NAK", clip(" ".join(words), _LIST_BYTES)))
            return
        (enabled.add if word == name else enabled.discard)(name)
    for line in wrap_words(words, _LIST_BYTES) or [""]:
        connection.put(_cap_line(connection, "CAP", connection.target, "ACK", line))
    before = (connection.variant, connection.echoes)
    is_watch_changed = EXTENDED_MONITOR in enabled.symmetric_difference(connection.enabled)
    connection.enabled = enabled
    connection.encoding = Encoding(connection.settings.name, letters_of(enabled), connection.settings.users)
    if connection.is_registered and before != (connection.variant, connection.echoes):
        yield ChangeEncoding(connection.variant, connection.echoes)
    if connection.watched and is_watch_changed:
        yield Watch(is_extended=EXTENDED_MONITOR in enabled)


# --- nick, user, password ---


def nick(connection: IrcConnection, command: Command) -> Iterator[Request]:
    """NICK: choose a name, or as a guest another one."""
    name = command.param(0)
    if not name:
        connection.reply("431", "No nickname given")
        return
    try:
        check_username(name)
    except RequestError as error:
        connection.reply("432", name, f"Erroneous nickname: {error.reason}")
        return
    if not connection.is_registered:
        connection.nick = name
        yield from _enter(connection)
    elif name == connection.nick:
        return
    elif connection.is_guest:
        yield Rename(name)
    else:
        connection.reply("447", name, "Can't change nickname: it is the name of your account")


def user(connection: IrcConnection, command: Command) -> Iterator[Request]:
    """USER: give an ident and a description. The ident proves nothing."""
    if connection.is_registered:
        connection.reply("462", "You may not reregister")
    elif len(command.params) < 4 or not (command.param(0) and command.param(3)):  # noqa: PLR2004 - and mode, unused
        connection.reply("461", "USER", "Not enough parameters")
    else:
        connection.user = _NOT_IN_IDENT.sub("", command.param(0))[:USERNAME_MAX_BYTES]
        connection.realname = clip(command.param(3), REALNAME_MAX_BYTES)
        yield from _enter(connection)


def give_password(connection: IrcConnection, command: Command) -> Iterator[Request]:
    """PASS: the password of the account, which NICK names or which stands before a colon."""
    if connection.is_registered:
        connection.reply("462", "You may not reregister")
    elif not command.params:
        connection.reply("461", "PASS", "Not enough parameters")
    else:
        connection.password = command.param(0)
    yield from ()


def _enter(connection: IrcConnection) -> Iterator[Request]:
    """Log in, if everything for it has been said."""
    if connection.is_registered or connection.is_negotiating or not connection.nick or connection.user is None:
        return
    connection.answer_in_batch()
    if connection.password is not None and not connection.account:
        name, colon, password = connection.password.partition(":")
        if not colon or not _is_username(name):
            name, password = connection.nick, connection.password
        yield Authenticate(username=name, password=password)
        if connection.was_refused:
            yield from close(connection, "Access denied")
            return
        _greet_account(connection)
    yield _entrance(connection)
    if connection.is_registered:
        for room in sorted(connection.rooms):
            yield from finish_entering(connection, room)
    elif connection.nick:
        yield from close(connection, "Access denied")


def _entrance(connection: IrcConnection) -> Enter:
    return Enter(
        username=connection.account or connection.nick,
        variant=connection.variant,
        realname=connection.realname or connection.nick,
        ident=connection.user or "",
        echoes=connection.echoes,
    )


def _is_username(name: str) -> bool:
    try:
        check_username(name)
    except RequestError:
        return False
    return True


def close(connection: IrcConnection, reason: str) -> Iterator[Request]:
    """End the connection with an ERROR."""
    connection.closing = reason
    yield Leave()


def _greet_account(connection: IrcConnection) -> None:
    account = connection.account
    connection.reply("900", connection.offline_prefix, account, f"You are now logged in as {account}")


def refused_login(connection: IrcConnection, error: Refused) -> list[str]:
    """The lines for the refusal of Authenticate, Enter or Rename."""
    match connection.asked, error.code:
        case Authenticate(registers=True), code:
            account = connection.nick
            found = {ErrorCode.BAD_USERNAME: "ACCOUNT_EXISTS", ErrorCode.TOO_LONG: "UNACCEPTABLE_PASSWORD"}
            found[ErrorCode.BAD_REQUEST] = "UNACCEPTABLE_PASSWORD"
            words = ("REGISTER", found.get(code, "TEMPORARILY_UNAVAILABLE"), account, error.reason)
            return [format_line(connection.settings.name, "FAIL", *words)]
        case Authenticate(), _ if connection.command.name == "AUTHENTICATE":
            return [connection.numeric("904", f"SASL authentication failed: {error.reason}")]
        case Authenticate(), ErrorCode.WRONG_PASSWORD | ErrorCode.TOO_MANY_ATTEMPTS | ErrorCode.BAD_USERNAME:
            return [connection.numeric("464", f"Password incorrect: {error.reason}")]
        case Rename(name), ErrorCode.NOT_PERMITTED:
            return [connection.numeric("447", name, f"Can't change nickname: {error.reason}")]
        case Rename(name), _:
            return [connection.numeric("433", name, f"Nickname is already in use: {error.reason}")]
        case _, ErrorCode.BAD_USERNAME | ErrorCode.WRONG_PASSWORD:
            # The client may try another nick.
            name, connection.nick = connection.nick, ""
            return [connection.numeric("433", name, f"Nickname is already in use: {error.reason}")]
        case _, ErrorCode.BANNED:
            return [connection.numeric("465", f"You are banned from this server: {error.reason}")]
        case _:
            return [connection.failure("*", error.code.name, error.reason)]


# --- accounts ---


def authenticate(connection: IrcConnection, command: Command) -> Iterator[Request]:
    """AUTHENTICATE: SASL PLAIN (RFC 4616)."""
    word = command.param(0)
    if not word:
        connection.reply("461", "AUTHENTICATE", "Not enough parameters")
    elif word == "*":
        connection.sasl = None
        connection.reply("906", "SASL authentication aborted")
    elif connection.account:
        connection.reply("907", "You have already authenticated using SASL")
    elif connection.is_registered:
        connection.reply("462", "You may not reregister: reconnect, and log in before CAP END")
    elif connection.sasl is None:
        if word.upper() in SASL_MECHANISMS:
            connection.sasl = []
            connection.put(format_line(connection.settings.name, "AUTHENTICATE", "+"))
        else:
            connection.reply("908", ",".join(SASL_MECHANISMS), "are available SASL mechanisms")
            connection.reply("904", "SASL authentication failed: there is no such mechanism")
    else:
        yield from _take_sasl(connection, connection.sasl, word)


def _take_sasl(connection: IrcConnection, pieces: list[str], piece: str) -> Iterator[Request]:
    pieces.append("" if piece == "+" else piece)
    if len(piece) > _SASL_PIECE_BYTES or sum(map(len, pieces)) > _SASL_MAX_BYTES:
        connection.sasl = None
        connection.reply("905", "SASL message too long")
        return
    if len(piece) == _SASL_PIECE_BYTES:
        return
    connection.sasl = None
    found = _read_plain("".join(pieces))
    if found is None:
        connection.reply("904", "SASL authentication failed: this is not an answer for PLAIN")
        return
    yield from _log_in(connection, Authenticate(username=found[0], password=found[1]))
    if not connection.was_refused:
        connection.reply("903", "SASL authentication successful")


def _read_plain(encoded: str) -> tuple[str, str] | None:
    """Name and password of an answer for PLAIN; None if it is invalid, or names two users."""
    try:
        parts = binascii.a2b_base64(encoded, strict_mode=True).decode().split("\0")
    except ValueError:
        return None
    if len(parts) != _SASL_PARTS or (parts[0] and name_key(parts[0]) != name_key(parts[1])):
        return None
    return parts[1], parts[2]


def _log_in(connection: IrcConnection, request: Authenticate) -> Iterator[Request]:
    connection.answer_in_batch()
    yield request
    if not connection.was_refused:
        _greet_account(connection)


def register(connection: IrcConnection, command: Command) -> Iterator[Request]:
    """REGISTER: make an account with the nick as its name (draft/account-registration)."""
    account, current = command.param(0), connection.nick
    if ACCOUNT_REGISTRATION not in connection.offered:
        connection.fail(
            "REGISTER",
            "TEMPORARILY_UNAVAILABLE",
            account or "*",
            "No new names here: get an account, or an invitation, from an operator",
        )
    elif len(command.params) < 3:  # noqa: PLR2004 - account, address, password
        connection.reply("461", "REGISTER", "Not enough parameters")
    elif connection.account:
        connection.fail("REGISTER", "ALREADY_AUTHENTICATED", connection.account, "You are logged in already")
    elif not current:
        connection.fail("REGISTER", "NEED_NICK", account, "Send NICK first")
    elif account != "*" and name_key(account) != name_key(current):
        connection.fail("REGISTER", "ACCOUNT_NAME_MUST_BE_NICK", account, "The name of an account is your nick")
    else:
        yield from _log_in(connection, Authenticate(username=current, password=command.param(2), registers=True))
        if connection.was_refused:
            return
        words = ("SUCCESS", connection.account, "Account registered")
        connection.put(format_line(connection.settings.name, "REGISTER", *words))
        if connection.is_registered:
            yield from _enter_again(connection)


def _enter_again(connection: IrcConnection) -> Iterator[Request]:
    """Log in a guest as the account of its name, which it has just registered. Its memberships are over."""
    was_in_lobby = is_inside(connection, None)
    for room in sorted(connection.rooms):
        connection.put(format_line(connection.offline_prefix, "PART", channel(room), "You have an account now"))
    connection.rooms.clear()
    yield _entrance(connection)
    if connection.was_refused:
        yield from close(connection, "Access denied")
        return
    if connection.watched:
        yield Watch(usernames=connection.watched, is_extended=EXTENDED_MONITOR in connection.enabled)
    if was_in_lobby:
        yield EnterLobby()
        yield from finish_entering(connection, LOBBY)


# --- the connection itself ---


def ping(connection: IrcConnection, command: Command) -> Iterator[Request]:
    """PING: the answer comes after the answers to all earlier messages."""
    if not command.params:
        connection.reply("409", "No origin specified")
    elif connection.is_registered:
        yield Barrier()
    else:
        connection.put(pong(connection))


def pong(connection: IrcConnection) -> str:
    """The answer to the PING that is being answered."""
    name = connection.settings.name
    return format_line(name, "PONG", name, connection.command.param(0))


def ignore(_connection: IrcConnection, _command: Command) -> Iterator[Request]:
    """PONG and ERROR have no answer."""
    yield from ()


def leave(connection: IrcConnection, command: Command) -> Iterator[Request]:
    """QUIT."""
    reason = command.param(0)
    connection.closing = f"Quit: {reason}" if reason else "Client Quit"
    yield Quit(reason) if connection.is_registered else Leave()


# Commands that are possible before the login.
COMMANDS: Final[Mapping[str, Handler]] = {
    "CAP": cap,
    "NICK": nick,
    "USER": user,
    "PASS": give_password,
    "AUTHENTICATE": authenticate,
    "REGISTER": register,
    "PING": ping,
    "PONG": ignore,
    "ERROR": ignore,
    "QUIT": leave,
}
