"""A transcript: what was typed and shown, line by line, and waiting for a line with a deadline."""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

# Long enough for a machine that is busy with other things; a story that passes waits for milliseconds.
EXPECT_SECONDS = 20.0
# Who comes and goes is told up to a tenth of a second later, so it can be the next line anywhere.
_NOT_PRESENCE = re.compile(r"^(?!\[(joined|left)\] )")
# How much of a transcript an error quotes; all of it follows in the report.
_QUOTED_LINES = 12

Wanted = str | re.Pattern[str]


class StoryError(AssertionError):
    """Something was told otherwise than the story has it. The text says what was expected and what came."""


class Entry(NamedTuple):
    """One line, when it came (seconds since the story began), and what it is: typed, shown, or a note of ours."""

    seconds: float
    mark: str
    text: str


class Transcript:
    """Written by the thread that reads a program's output and by the one that types; waited on by the latter."""

    def __init__(self, who: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._who = who
        self._clock = clock
        # Guards everything below; notified when a line was shown, and at the end.
        self._changed = threading.Condition()
        self._entries: list[Entry] = []
        self._lines: list[str] = []
        self._used = 0
        self._ended = False

    # --- writing ---

    def typed(self, line: str) -> None:
        """Somebody typed a line."""
        self._write(">", line)

    def note(self, text: str) -> None:
        """Something else happened that explains what follows."""
        self._write("*", text)

    def shown(self, line: str) -> None:
        """The program printed a line."""
        with self._changed:
            self._entries.append(Entry(self._clock(), " ", line))
            self._lines.append(line)
            self._changed.notify_all()

    def begin(self) -> None:
        """The program was started, or started again: what it showed before is used up."""
        with self._changed:
            self._ended = False
            self._used = len(self._lines)

    def end(self) -> None:
        """Nothing more will be shown."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    # --- reading ---

    def expect(self, wanted: Wanted, seconds: float = EXPECT_SECONDS) -> re.Match[str]:
        """Wait for a line with this in it; it and all before it are used up."""
        __tracebackhide__ = True
        pattern = _pattern(wanted)
        return self._await(lambda: self._take(pattern), _named(wanted), seconds)

    def expect_next(self, wanted: Wanted, seconds: float = EXPECT_SECONDS) -> re.Match[str]:
        """The next line that is not about who comes and goes must have this in it."""
        __tracebackhide__ = True
        line = self._await(lambda: self._take(_NOT_PRESENCE), _named(wanted), seconds).string
        found = _pattern(wanted).search(line)
        if found is None:
            raise StoryError(f"{self._who} was expected to show {_named(wanted)} next, but showed {line!r}")
        return found

    def expect_somewhere(self, wanted: Wanted, seconds: float = EXPECT_SECONDS) -> re.Match[str]:
        """Wait until any line, used up or not, has this in it; nothing is used up."""
        __tracebackhide__ = True
        pattern = _pattern(wanted)
        return self._await(lambda: self._find(pattern), _named(wanted), seconds)

    def matches(self, wanted: Wanted) -> list[re.Match[str]]:
        """Every line so far with this in it, used up or not."""
        pattern = _pattern(wanted)
        with self._changed:
            lines = list(self._lines)
        return [found for line in lines if (found := pattern.search(line))]

    def never_saw(self, wanted: Wanted) -> None:
        """No line so far has this in it: of use after a fence."""
        __tracebackhide__ = True
        found = self.matches(wanted)
        if found:
            raise StoryError(f"{self._who} should never have seen {_named(wanted)}, but saw {found[0].string!r}")

    def saw_once(self, wanted: Wanted) -> None:
        """Exactly one line so far has this in it: of use after a fence."""
        __tracebackhide__ = True
        found = [match.string for match in self.matches(wanted)]
        if len(found) != 1:
            raise StoryError(
                f"{self._who} should have seen {_named(wanted)} once, but saw it {len(found)} times: {found}"
            )

    def __str__(self) -> str:
        with self._changed:
            entries = list(self._entries)
        return "\n".join(f"{entry.seconds:7.3f} {entry.mark} {entry.text}" for entry in entries)

    def _write(self, mark: str, text: str) -> None:
        with self._changed:
            self._entries.append(Entry(self._clock(), mark, text))

    def _await(self, look: Callable[[], re.Match[str] | None], wanted: str, seconds: float) -> re.Match[str]:
        """Look until something is found; ``look`` is called with the lock held."""
        __tracebackhide__ = True
        found: list[re.Match[str] | None] = []

        def is_settled() -> bool:
            found.append(look())
            return found[-1] is not None or self._ended

        with self._changed:
            in_time = self._changed.wait_for(is_settled, seconds)
            rest = self._lines[self._used :][-_QUOTED_LINES:]
        if found[-1] is not None:
            return found[-1]
        why = "it ended" if in_time else f"{seconds:g} s passed"
        came = "".join(f"\n    {line}" for line in rest) or " nothing"
        raise StoryError(f"{self._who} was expected to show {wanted}, but {why}. Since the last match came:{came}")

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """The lock is held."""
        for number in range(self._used, len(self._lines)):
            if found := pattern.search(self._lines[number]):
                self._used = number + 1
                return found
        return None

    def _find(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """The lock is held."""
        return next((found for line in self._lines if (found := pattern.search(line))), None)


def _pattern(wanted: Wanted) -> re.Pattern[str]:
    return re.compile(re.escape(wanted)) if isinstance(wanted, str) else wanted


def _named(wanted: Wanted) -> str:
    return repr(wanted if isinstance(wanted, str) else wanted.pattern)
