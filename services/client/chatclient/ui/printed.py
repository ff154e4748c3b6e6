"""The rows that were printed last, so that a tombstone replaces a deleted message. Pure.

All rows above the prompt are the client's own until something else prints: other programs after a suspension, or the
terminal itself when it rewraps rows for another width. forget() is called then, and rows from before stay as they are.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from chatclient.ui.layout import Row
from chatclient.ui.timeline import Entry, Text

# Number of entries to remember: more than fit in a window. Entries that scrolled out of the window can't be changed.
_ENTRIES_MAX: Final = 300
# The same in rows: one message of the longest has as many. The newest entry is remembered in any case.
_ROWS_MAX: Final = 5_000


class _Printed(NamedTuple):
    entry: Entry
    rows: list[Row]


class PrintedRows:
    """For one thread."""

    def __init__(self) -> None:
        self._printed: deque[_Printed] = deque(maxlen=_ENTRIES_MAX)
        # Number of the rows, or more: it is counted again when it is above the limit.
        self._rows_at_most = 0

    def add(self, entry: Entry, rows: list[Row]) -> None:
        self._printed.append(_Printed(entry, rows))
        self._rows_at_most += len(rows)
        if self._rows_at_most > _ROWS_MAX:
            self._rows_at_most = self.count
            while self._rows_at_most > _ROWS_MAX and len(self._printed) > 1:
                self._rows_at_most -= len(self._printed.popleft().rows)

    def forget(self) -> None:
        self._printed.clear()

    @property
    def count(self) -> int:
        """Number of the remembered rows."""
        return sum(len(each.rows) for each in self._printed)

    def last(self, count: int) -> list[Row]:
        """The last rows, at most ``count``."""
        rows = [row for each in self._printed for row in each.rows]
        return rows[-count:] if count > 0 else []

    def replace(self, tombstone: Text, rows_of: Callable[[Text], list[Row]], visible_rows: int) -> bool:
        """Put the tombstone in the place of its message, if that is among the last ``visible_rows`` rows.

        ``rows_of`` returns the rows of a message, without a rule. Returns false if the message is not visible.
        """
        is_found, below = False, 0
        for index in reversed(range(len(self._printed))):
            entry, rows = self._printed[index]
            if below >= visible_rows:
                break
            if isinstance(entry, Text) and entry.id == tombstone.id and not entry.deleted_by:
                is_found = True
                rule = rows[: len(rows) - len(rows_of(entry))]
                self._printed[index] = _Printed(tombstone, [*rule, *rows_of(tombstone)])
            below += len(rows)
        return is_found
