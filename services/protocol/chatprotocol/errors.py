"""What can be wrong with a request, each with its code.

Refusal          the peer asked for something that it may not have: one request fails, the connection goes on
ProtocolError    the peer is a server whose bytes make no sense: the client gives the connection up
"""

from enum import StrEnum


class ErrorCode(StrEnum):
    """The codes that go over the wire, in every dialect that has codes."""

    BAD_JSON = "bad_json"
    BAD_REQUEST = "bad_request"
    UNKNOWN_COMMAND = "unknown_command"
    NOT_LOGGED_IN = "not_logged_in"
    BAD_USERNAME = "bad_username"
    WRONG_PASSWORD = "wrong_password"  # noqa: S105 - a code, not a secret
    TOO_MANY_ATTEMPTS = "too_many_attempts"
    UNKNOWN_USER = "unknown_user"
    EMPTY_MESSAGE = "empty_message"
    TOO_LONG = "too_long"
    RATE_LIMITED = "rate_limited"
    SERVER_FULL = "server_full"
    NO_SESSION = "no_session"
    SHUTTING_DOWN = "shutting_down"
    INTERNAL = "internal"


def code_of(word: str) -> ErrorCode:
    """The code that a server said; one that is not known stands for a fault of the server."""
    return ErrorCode(word) if word in ErrorCode.__members__.values() else ErrorCode.INTERNAL


class RequestError(Exception):
    """A request can't be granted. ``reason`` is one sentence for a person: what was wrong and what to do."""

    def __init__(self, code: ErrorCode, reason: str, about: str | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        # The name that was refused, where it was one.
        self.about = about


class ProtocolError(Exception):
    """What a server sent can't be read."""
