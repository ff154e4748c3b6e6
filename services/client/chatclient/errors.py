"""Errors of ChatClient, by cause.

ChatError
    UsageError     a fault of the program: a wrong argument, or a call that makes no sense now
    RefusedError   the server, or a rule, does not allow it; the client goes on
    LostError      the server can't be reached, or the connection is lost for good
"""

from __future__ import annotations


class ChatError(Exception):
    """Base class: the request was not carried out."""


class UsageError(ChatError):
    """An invalid argument, or a call in the wrong state. Nothing was done: fix the program."""


class RefusedError(ChatError):
    """Rejected: ``code`` is listed in docs/wire/json.md (or ``not_delivered``), ``reason`` is a sentence."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class LostError(ChatError):
    """There is no connection and no reconnect follows, or it is unknown whether a message was stored."""
