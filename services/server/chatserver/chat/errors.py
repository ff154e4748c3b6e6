"""Request errors: the replies to the peer, and their log lines."""

from __future__ import annotations

import structlog

from chatprotocol.errors import ErrorCode, RequestError
from chatserver.chat.passwords import AbandonedError, PasswordsBusyError, PasswordsClosedError, PasswordsFailedError
from chatserver.journal.base import JournalClosedError, UnfinishedError
from chatserver.memory import ShortOfMemoryError
from chatserver.store.errors import RemovedError, StoreError
from chatserver.store.indexer import SearchClosedError, SearchFailedError

_log = structlog.get_logger()

# Exceptions that fail a request and keep the connection open.
REQUEST_ERRORS = (
    RequestError,
    StoreError,
    RemovedError,
    PasswordsFailedError,
    SearchFailedError,
    JournalClosedError,
    PasswordsClosedError,
    PasswordsBusyError,
    AbandonedError,
    SearchClosedError,
    ShortOfMemoryError,
)
# Time until a client may try again if too many logins wait: half of them are checked by then.
_BUSY_SECONDS = 10.0
# Codes whose reasons are not logged: they repeat the peer's input, which may be a mistyped message or password.
_QUOTING_CODES = frozenset({ErrorCode.UNKNOWN_USER, ErrorCode.UNKNOWN_ROOM, ErrorCode.UNKNOWN_COMMAND})


def log_refusal(error: RequestError, user: str | None, connection: str) -> None:
    """Log a rejected request. ``user`` is None before the login."""
    detail = None if error.code in _QUOTING_CODES else error.reason
    _log.warning("request refused", code=error.code.value, user=user, connection=connection, detail=detail)


def to_request_error(error: Exception, connection: str) -> RequestError:
    """Convert an exception of REQUEST_ERRORS to the reply for the peer; server faults are logged."""
    match error:
        case RequestError():
            return error
        case StoreError():
            _log.error("database read failed", connection=connection, error=str(error))
            return RequestError(ErrorCode.INTERNAL, "The server can't read its disk; nothing was done.")
        case RemovedError():  # the connection ends, because a part of the answer was sent
            return RequestError(ErrorCode.INTERNAL, "Some of these messages were removed meanwhile; ask again.")
        case PasswordsFailedError():
            _log.error("password check failed", connection=connection, error=str(error))
            return RequestError(ErrorCode.INTERNAL, "The server can't check passwords now.")
        case PasswordsBusyError():
            reason = f"Too many logins already wait; try again in {_BUSY_SECONDS:.0f} s."
            return RequestError(ErrorCode.RATE_LIMITED, reason, retry_seconds=_BUSY_SECONDS)
        case AbandonedError():
            reason = "You closed your side of the connection while the login had to wait; nothing was done."
            return RequestError(ErrorCode.RATE_LIMITED, reason)
        case ShortOfMemoryError():
            return RequestError(ErrorCode.INTERNAL, "The server is short of memory; try again later.")
        case SearchFailedError():  # the indexer has logged the reason
            return RequestError(ErrorCode.INTERNAL, "The server can't search now; try again a little later.")
        case UnfinishedError():
            return RequestError(ErrorCode.SHUTTING_DOWN, "The server is shutting down; perhaps this was done.")
        case _:
            return RequestError(ErrorCode.SHUTTING_DOWN, "The server is shutting down; nothing was done.")
