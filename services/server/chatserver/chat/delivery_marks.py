"""Delivery marks: the messages that have reached each account."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from chatserver.journal.entries import DeliveryMark

if TYPE_CHECKING:
    from collections.abc import Callable


class DeliveryMarks:
    """One mark per account: a device of the user has this message and all older direct messages. For any thread.

    A message has reached a device when the device's operating system has acknowledged it. Only a connection that was
    sent all older messages moves the mark, and only forward: at its login, after each direct message, and at its end.
    At its end the mark moves to the newest message. The journal stores marks with its next commit. A login delivers the
    direct messages that are newer than the mark. It also reports the mark, because all newer messages arrived while the
    user was offline.
    """

    def __init__(self, defer: Callable[[int, DeliveryMark], None]) -> None:
        """``defer`` takes the account's newest mark, to be stored; it never blocks."""
        self._defer = defer
        # Guards the marks, and the order of the calls of ``defer``.
        self._lock = threading.Lock()
        # Marks by account id, since the server started.
        self._marks: dict[int, int] = {}

    def advance(self, account_id: int, message_id: int) -> None:
        """Move the mark up to the message; a mark never moves back."""
        with self._lock:
            if message_id > self._marks.get(account_id, 0):
                self._marks[account_id] = message_id
                self._defer(account_id, DeliveryMark(account_id, message_id))

    def mark_of(self, account_id: int) -> int:
        """Return the account's mark; 0 if it has not moved since the server started."""
        with self._lock:
            return self._marks.get(account_id, 0)
