"""Rules for names, passwords, messages and nonces. Each check raises RequestError with advice."""

import re
import unicodedata

from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.limits import (
    BODY_MAX_BYTES,
    HISTORY_DEFAULT_MESSAGES,
    HISTORY_MAX_MESSAGES,
    NONCE_MAX_BYTES,
    PASSWORD_MAX_BYTES,
    REASON_MAX_BYTES,
    ROOM_KEY_MAX_BYTES,
    ROOM_NAME_MAX_CHARACTERS,
    TOKEN_LABEL_MAX_BYTES,
    TOPIC_MAX_BYTES,
    USERNAME_MAX_BYTES,
)

_USERNAME = re.compile(rf"[A-Za-z0-9]{{1,{USERNAME_MAX_BYTES}}}")
# Unicode categories that can't be in a topic or a reason: control characters, line and paragraph separators.
_NOT_IN_LINES = frozenset({"Cc", "Zl", "Zp"})
PORT_MAX = 65_535
_NUMBER = re.compile("[0-9]{1,9}")
# Messages up to this length are within the limit: a character has at most four bytes in UTF-8.
_BODY_SAFE_CHARACTERS = BODY_MAX_BYTES // 4

EVERYONE = "ALL"
RESERVED_NAMES = frozenset({"all", "server"})

# The room that every user is in. It can't be made, left or changed.
LOBBY = "lobby"
_ROOM_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{ROOM_NAME_MAX_CHARACTERS - 1}}}")
# "direct" stands beside the names of rooms in ``since``.
_RESERVED_ROOM_KEYS = frozenset({LOBBY, "direct"}) | RESERVED_NAMES


def name_key(username: str) -> str:
    """The key for case-insensitive comparison of names."""
    return username.lower()


def is_everyone(recipient: str) -> bool:
    """True if this recipient means all users."""
    return recipient.upper() == EVERYONE


def check_username(username: str) -> None:
    """A username has 1 to 32 ASCII letters and digits, and is not reserved."""
    if not _USERNAME.fullmatch(username):
        raise RequestError(
            ErrorCode.BAD_USERNAME, f"A username is 1 to {USERNAME_MAX_BYTES} letters and digits (A-Z, a-z, 0-9)."
        )
    if name_key(username) in RESERVED_NAMES:
        raise RequestError(ErrorCode.BAD_USERNAME, f"The name {username} is reserved; choose another one.")


def room_key(room: str) -> str:
    """The key for case-insensitive comparison of room names."""
    return room.lower()


def is_lobby(room: str | None) -> bool:
    """True if the member ``room`` of a request is absent or names the lobby."""
    return room is None or room_key(room) == LOBBY


def check_room_name(room: str) -> None:
    """A name that a room other than the lobby can have."""
    if not _ROOM_NAME.fullmatch(room):
        raise RequestError(
            ErrorCode.BAD_REQUEST,
            f"A room's name is 1 to {ROOM_NAME_MAX_CHARACTERS} letters, digits, dots, hyphens and underscores (A-Z, "
            "a-z, 0-9, . - _), and begins with a letter or digit.",
            room=room[: 2 * ROOM_NAME_MAX_CHARACTERS],
        )
    if room_key(room) in _RESERVED_ROOM_KEYS:
        raise RequestError(ErrorCode.BAD_REQUEST, f"The room name {room} is reserved; choose another one.", room=room)


def check_topic(topic: str) -> None:
    """A topic is one line without control characters, or empty."""
    _check_bytes("A topic", topic, TOPIC_MAX_BYTES)
    _check_line("A topic", topic)


def check_room_key(key: str) -> None:
    """The key of a room is a word, without a comma; empty for none."""
    _check_bytes("The key of a room", key, ROOM_KEY_MAX_BYTES)
    _check_line("The key of a room", key)
    if "," in key or len(key.split()) > 1 or key != key.strip():
        raise RequestError(
            ErrorCode.BAD_REQUEST, "The key of a room is a word without spaces and commas; nothing was done."
        )


def check_reason(reason: str) -> None:
    """The reason of a kick, ban, mute or report is one line without control characters."""
    _check_bytes("A reason", reason, REASON_MAX_BYTES)
    _check_line("A reason", reason)


def check_label(label: str) -> None:
    """The label of a session token is one line without control characters, and more than white space."""
    if not label or label.isspace():
        raise RequestError(ErrorCode.BAD_REQUEST, "The label of a token is empty; name the device or the program.")
    _check_bytes("The label of a token", label, TOKEN_LABEL_MAX_BYTES)
    _check_line("The label of a token", label)


def check_port(text: str) -> int:
    """Parse a port from 1 to 65535."""
    if not (re.fullmatch("[0-9]{1,5}", text) and 0 < int(text) <= PORT_MAX):
        raise RequestError(
            ErrorCode.BAD_REQUEST, f"The port is {text!r}; it must be a whole number from 1 to {PORT_MAX}."
        )
    return int(text)


def check_password(password: str) -> None:
    """A password is not empty and within the limit."""
    if not password:
        raise RequestError(ErrorCode.BAD_REQUEST, "The password is empty; send at least one character.")
    _check_bytes("A password", password, PASSWORD_MAX_BYTES)


def check_text(text: str) -> None:
    """A message is within the limit, and contains more than white space."""
    if not text or text.isspace():
        raise RequestError(ErrorCode.EMPTY_MESSAGE, "The message is empty; nothing was sent.")
    if len(text) > _BODY_SAFE_CHARACTERS:
        _check_bytes("A message", text, BODY_MAX_BYTES)


def check_nonce(nonce: str) -> None:
    """A nonce is not empty and within the limit."""
    if not nonce:
        raise RequestError(
            ErrorCode.BAD_REQUEST, "The nonce is empty; leave it out, or send a new one for each message."
        )
    _check_bytes("A nonce", nonce, NONCE_MAX_BYTES)


def history_limit(text: str) -> int:
    """Parse the argument of CH; empty means the default."""
    if not text:
        return HISTORY_DEFAULT_MESSAGES
    if _NUMBER.fullmatch(text) and 1 <= int(text) <= HISTORY_MAX_MESSAGES:
        return int(text)
    raise RequestError(ErrorCode.BAD_REQUEST, f"CH takes a number from 1 to {HISTORY_MAX_MESSAGES}.")


def unknown_user(name: str, effect: str = "nothing was sent") -> RequestError:
    """Make the error for an unknown name. It quotes the first 64 characters, because a peer's name may be long."""
    about = name[:64]
    return RequestError(ErrorCode.UNKNOWN_USER, f"There is no user {about!r}; {effect}.", about)


def unknown_room(room: str) -> RequestError:
    """Make the error for a room that does not exist, or that the user may not know of: they can't be told apart."""
    name = room[: 2 * ROOM_NAME_MAX_CHARACTERS]
    return RequestError(
        ErrorCode.UNKNOWN_ROOM, f"There is no room {name!r} that you may enter; nothing was done.", room=name
    )


def not_a_member(room: str) -> RequestError:
    """Make the error for a public room that the user is not in."""
    return RequestError(ErrorCode.NOT_A_MEMBER, f"You are not in the room {room}; join it first.", room=room)


def _check_line(what: str, value: str) -> None:
    if any(unicodedata.category(character) in _NOT_IN_LINES for character in value):
        raise RequestError(
            ErrorCode.BAD_REQUEST, f"{what} is one line of text without control characters; nothing was done."
        )


def _check_bytes(what: str, value: str, limit_bytes: int) -> None:
    if len(value.encode()) > limit_bytes:
        raise RequestError(ErrorCode.TOO_LONG, f"{what} has {limit_bytes:,} bytes at most in UTF-8; nothing was done.")
