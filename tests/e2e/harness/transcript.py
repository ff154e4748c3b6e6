"""The lines that a program printed and the lines typed at it, and waiting for a line with a deadline."""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

# A deadline for busy machines. A test that passes waits for milliseconds.
EXPECT_SECONDS = 60.0
# Joins and leaves are announced up to 0.1 s later, so they can be the next line anywhere.
_NOT_PRESENCE = re.compile(r"^(?!\[(joined|left)\] )")
# Lines quoted in an error; the report of the test has all of them.
_QUOTED_LINES = 12

Wanted = str | re.Pattern[str]


class ExpectationError(AssertionError):
    """A program did not do what the test expected. The text has both."""


class Entry(NamedTuple):
    """A line, its time in seconds, and its kind: typed, printed, or a note."""

    seconds: float
    mark: str
    text: str


class Transcript:
    """The lines of one program. The thread that reads its output adds lines; the test waits for them."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        # Guards all attributes below. Notified after each printed line, and at the end.
        self._changed = threading.Condition()
        self._entries: list[Entry] = []
        self._lines: list[str] = []
        self._used = 0
        self._ended = False

    # --- writing ---

    def typed(self, line: str) -> None:
        self._write(">", line)

    def note(self, text: str) -> None:
        """Add an event that explains the lines after it."""
        self._write("*", text)

    def printed(self, line: str) -> None:
        with self._changed:
            self._entries.append(Entry(self._clock(), " ", line))
            self._lines.append(line)
            self._changed.notify_all()

    def begin(self) -> None:
        """The program was started or restarted: all lines so far are used up."""
        with self._changed:
            self._ended = False
            self._used = len(self._lines)

    def end(self) -> None:
        """The output has ended."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    # --- reading ---

    def expect(self, wanted: Wanted, seconds: float = EXPECT_SECONDS) -> re.Match[str]:
        """Wait for a line that contains ``wanted``. It and all lines before it are used up."""
        __tracebackhide__ = True
        pattern = _pattern(wanted)
        return self._await(lambda: self._take(pattern), _quote(wanted), seconds)

    def expect_next(self, wanted: Wanted, seconds: float = EXPECT_SECONDS) -> re.Match[str]:
        """Wait for the next line that is no join or leave; it must contain ``wanted``."""
        __tracebackhide__ = True
        line = self._await(lambda: self._take(_NOT_PRESENCE), _quote(wanted), seconds).string
        found = _pattern(wanted).search(line)
        if found is None:
            raise ExpectationError(f"{self._name} was expected to print {_quote(wanted)} next, but printed {line!r}")
        return found

    def expect_anywhere(self, wanted: Wanted, seconds: float = EXPECT_SECONDS) -> re.Match[str]:
        """Wait until any line, used up or not, contains ``wanted``. Uses up no line."""
        __tracebackhide__ = True
        pattern = _pattern(wanted)
        return self._await(lambda: self._find(pattern), _quote(wanted), seconds)

    def matches(self, wanted: Wanted) -> list[re.Match[str]]:
        """All lines so far that contain ``wanted``, used up or not."""
        pattern = _pattern(wanted)
        with self._changed:
            lines = list(self._lines)
        return [found for line in lines if (found := pattern.search(line))]

    def __str__(self) -> str:
        with self._changed:
            entries = list(self._entries)
        return "\n".join(f"{entry.seconds:7.3f} {entry.mark} {entry.text}" for entry in entries)

    def _write(self, mark: str, text: str) -> None:
        with self._changed:
            self._entries.append(Entry(self._clock(), mark, text))

    def _await(self, look: Callable[[], re.Match[str] | None], wanted: str, seconds: float) -> re.Match[str]:
        """Call ``look`` after each line, with the lock held, until it finds something."""
        __tracebackhide__ = True
        found: list[re.Match[str] | None] = []

        def is_finished() -> bool:
            found.append(look())
            return found[-1] is not None or self._ended

        with self._changed:
            in_time = self._changed.wait_for(is_finished, seconds)
            rest = self._lines[self._used :][-_QUOTED_LINES:]
        if found[-1] is not None:
            return found[-1]
        reason = "it ended" if in_time else f"{seconds:g} s passed"
        lines = "".join(f"\n    {line}" for line in rest) or " none"
        raise ExpectationError(f"{self._name} was expected to print {wanted}, but {reason}. Lines since then:{lines}")

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """The caller holds the lock."""
        for number in range(self._used, len(self._lines)):
            if found := pattern.search(self._lines[number]):
                self._used = number + 1
                return found
        return None

    def _find(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """The caller holds the lock."""
        return next((found for line in self._lines if (found := pattern.search(line))), None)


def _pattern(wanted: Wanted) -> re.Pattern[str]:
    return re.compile(re.escape(wanted)) if isinstance(wanted, str) else wanted


def _quote(wanted: Wanted) -> str:
    return repr(wanted if isinstance(wanted, str) else wanted.pattern)
