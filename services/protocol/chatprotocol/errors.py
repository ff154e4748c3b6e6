"""Errors and their codes.

RequestError     a client's request is rejected; the connection continues
ProtocolError    a server's bytes are invalid; the client closes the connection
"""

from enum import StrEnum


class ErrorCode(StrEnum):
    """The error codes of all wire protocols that have codes."""

    BAD_JSON = "bad_json"
    BAD_REQUEST = "bad_request"
    UNKNOWN_COMMAND = "unknown_command"
    NOT_LOGGED_IN = "not_logged_in"
    BAD_USERNAME = "bad_username"
    WRONG_PASSWORD = "wrong_password"  # noqa: S105 - a code, not a secret
    BAD_TOKEN = "bad_token"  # noqa: S105 - a code, not a secret
    TOO_MANY_ATTEMPTS = "too_many_attempts"
    UNKNOWN_USER = "unknown_user"
    UNKNOWN_ROOM = "unknown_room"
    NOT_A_MEMBER = "not_a_member"
    NOT_PERMITTED = "not_permitted"
    TOO_MANY_ROOMS = "too_many_rooms"
    WRONG_KEY = "wrong_key"
    ROOM_FULL = "room_full"
    EMPTY_MESSAGE = "empty_message"
    TOO_LONG = "too_long"
    RATE_LIMITED = "rate_limited"
    MAILBOX_FULL = "mailbox_full"
    DISK_FULL = "disk_full"
    UNAVAILABLE = "unavailable"
    BANNED = "banned"
    MUTED = "muted"
    KICKED = "kicked"
    REPLACED = "replaced"
    REVOKED = "revoked"
    UNKNOWN_MESSAGE = "unknown_message"
    INVITATION_REQUIRED = "invitation_required"
    PASSWORD_CHANGE_REQUIRED = "password_change_required"  # noqa: S105 - a code, not a secret
    TLS_REQUIRED = "tls_required"
    SERVER_FULL = "server_full"
    NO_SESSION = "no_session"
    SHUTTING_DOWN = "shutting_down"
    INTERNAL = "internal"

    @classmethod
    def _missing_(cls, _: object) -> "ErrorCode":
        """Read the codes of later servers as INTERNAL."""
        return cls.INTERNAL


class RequestError(Exception):
    """A request is rejected. ``reason`` is one sentence for the user: what was wrong and what to do."""

    def __init__(
        self,
        code: ErrorCode,
        reason: str,
        about: str | None = None,
        room: str | None = None,
        retry_seconds: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        # The rejected name, if the error is about one.
        self.about = about
        # The room as the client named it, if the error is about one.
        self.room = room
        # The time after which the same request is accepted, if a rate is the reason.
        self.retry_seconds = retry_seconds


class ProtocolError(Exception):
    """A server sent invalid bytes."""
