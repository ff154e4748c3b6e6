"""What can go wrong for a program that uses the client, by whose fault it is.

ChatError
    UsageError     a fault of the program: a wrong argument, or a call that makes no sense now
    RefusedError   the server, or a rule, does not allow it; the client goes on
    LostError      the server can't be reached, or the connection is lost for good
"""

from __future__ import annotations


class ChatError(Exception):
    """Something that was asked for did not happen."""


class UsageError(ChatError):
    """An argument that can't be right, or a call that makes no sense now. Nothing was done: mend the program."""


class RefusedError(ChatError):
    """It was refused: ``code`` is one of docs/wire/json.md (or ``not_delivered``), ``reason`` a sentence."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class LostError(ChatError):
    """There is no connection, and none will be tried any more; or nobody knows whether a message was stored."""
