"""Delivery marks: the messages that have reached each account."""

from __future__ import annotations

import threading


class DeliveryMarks:
    """One mark per account: a device of the user has this message and all older direct messages. For any thread.

    A message has reached a device when the device's operating system has acknowledged it. Only a connection that was
    sent all older messages moves the mark, and only forward: at its login, after each direct message, and at its end.
    At its end the mark moves to the newest message. The journal saves marks with its next commit. A login delivers the
    direct messages that are newer than the mark. It also reports the mark, because all newer messages arrived while the
    user was offline.
    """

    def __init__(self) -> None:
        # Guards everything below.
        self._lock = threading.Lock()
        # Marks by account id, since the server started.
        self._marks: dict[int, int] = {}
        # Accounts whose mark is not on the disk yet.
        self._unsaved: set[int] = set()

    def advance(self, account_id: int, message_id: int) -> None:
        """Move the mark up to the message; a mark never moves back."""
        with self._lock:
            if message_id > self._marks.get(account_id, 0):
                self._marks[account_id] = message_id
                self._unsaved.add(account_id)

    def mark_of(self, account_id: int) -> int:
        """Return the account's mark; 0 if it has not moved since the server started."""
        with self._lock:
            return self._marks.get(account_id, 0)

    def unsaved(self) -> dict[int, int]:
        """Return the marks not on the disk yet, by account. For the journal thread, or after its end."""
        with self._lock:
            return {account_id: self._marks[account_id] for account_id in self._unsaved}

    def mark_saved(self, saved: dict[int, int]) -> None:
        """Record that these marks are on the disk. For the journal thread."""
        with self._lock:
            self._unsaved -= {account_id for account_id, upto in saved.items() if self._marks[account_id] == upto}
