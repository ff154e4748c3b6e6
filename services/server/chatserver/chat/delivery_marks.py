"""Which messages have reached the users whom they are for."""

from __future__ import annotations

import threading


class DeliveryMarks:
    """For each account a message: a device of its user has it, and all older direct messages. For any thread.

    A message has reached a device when the device's system has acknowledged it. A mark is only moved by a connection
    that was given everything older, and never back: by a login, by direct messages, and when the connection ends, then
    up to the newest message of all. The journal saves it with its next commit. A login delivers the direct messages
    that are newer than the mark. It also tells the mark: what is newer came while nobody was there.
    """

    def __init__(self) -> None:
        # Guards everything below.
        self._lock = threading.Lock()
        # By account, since the server started.
        self._newest: dict[int, int] = {}
        # The accounts of which the disk does not know that yet.
        self._unsaved: set[int] = set()

    def note(self, account_id: int, message_id: int) -> None:
        """Note that the message, and all older ones of the account, have reached a device."""
        with self._lock:
            if message_id > self._newest.get(account_id, 0):
                self._newest[account_id] = message_id
                self._unsaved.add(account_id)

    def newest(self, account_id: int) -> int:
        """The account's mark; 0 if it has not moved since the server started."""
        with self._lock:
            return self._newest.get(account_id, 0)

    def unsaved(self) -> dict[int, int]:
        """The marks that are not on the disk yet, by account. For the journal thread."""
        with self._lock:
            return {account_id: self._newest[account_id] for account_id in self._unsaved}

    def note_saved(self, saved: dict[int, int]) -> None:
        """These are on the disk now. For the journal thread."""
        with self._lock:
            self._unsaved -= {account_id for account_id, upto in saved.items() if self._newest[account_id] == upto}
