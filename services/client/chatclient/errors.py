"""Errors of ChatClient, by cause.

ChatError
    UsageError     a fault of the program: a wrong argument, or a call that makes no sense now
    RefusedError   the server or a rule rejects the request; the client continues
    LostError      the server can't be reached, or the connection is lost for good
"""

from chatclient.ui.text import escape_control_characters


class ChatError(Exception):
    """Base class of all errors of ChatClient. Its text has no control characters: programs and tracebacks print it."""

    def __init__(self, reason: str) -> None:
        super().__init__(escape_control_characters(reason))


class UsageError(ChatError):
    """An invalid argument, or a call in the wrong state. Nothing was done: fix the program."""


class RefusedError(ChatError):
    """A rejected request. ``code`` is ``not_delivered`` or a code of docs/wire/json.md.

    ``reason`` is a sentence, as the server sent it. ``retry_seconds`` is the time after which
    the same request is accepted, if its rate is the reason; otherwise None.
    """

    def __init__(self, code: str, reason: str, retry_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.retry_seconds = retry_seconds


class LostError(ChatError):
    """There is no connection and no reconnect follows, or it is unknown whether a message was stored.

    ``code`` is ``banned``, ``kicked`` or ``replaced`` if the server ended the connection on purpose; otherwise None.
    """

    def __init__(self, reason: str, code: str | None = None) -> None:
        super().__init__(reason)
        self.code = code
