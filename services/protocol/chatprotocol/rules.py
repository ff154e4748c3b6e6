"""Rules for names, passwords, messages and nonces. Each check raises RequestError with advice."""

import re

from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.limits import (
    BODY_MAX_BYTES,
    HISTORY_DEFAULT_MESSAGES,
    HISTORY_MAX_MESSAGES,
    NONCE_MAX_BYTES,
    PASSWORD_MAX_BYTES,
    USERNAME_MAX_BYTES,
)

_USERNAME = re.compile(rf"[A-Za-z0-9]{{1,{USERNAME_MAX_BYTES}}}")
PORT_MAX = 65_535
_NUMBER = re.compile("[0-9]{1,9}")
# Messages up to this length are within the limit: a character has at most four bytes in UTF-8.
_BODY_SAFE_CHARACTERS = BODY_MAX_BYTES // 4

EVERYONE = "ALL"
RESERVED_NAMES = frozenset({"all", "server"})


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


def unknown_user(name: str) -> RequestError:
    """Make the error for an unknown name. It quotes the first 64 characters, because a peer's name may be long."""
    about = name[:64]
    return RequestError(ErrorCode.UNKNOWN_USER, f"There is no user {about!r}; nothing was sent.", about)


def _check_bytes(what: str, value: str, limit_bytes: int) -> None:
    if len(value.encode()) > limit_bytes:
        raise RequestError(ErrorCode.TOO_LONG, f"{what} has {limit_bytes:,} bytes at most in UTF-8; nothing was done.")
