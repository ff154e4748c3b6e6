"""Scripts: files of lines to type, with waits for printed lines and pauses.

    # a comment                     not typed
    PM hello everyone               typed, as at the prompt
    %wait hello alice               continue when a line with this text was printed, within 10 s
    %wait 30 hello alice            the same, within 30 s
    %pause 0.5                      continue after half a second

Each printed line ends at most one wait. A wait also finds earlier lines.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

DEFAULT_WAIT_SECONDS = 10.0
# Limits of the transcript: a client may run for months, and a line may be a long message.
_REMEMBERED_LINES = 10_000
_REMEMBERED_MAX_CHARACTERS = 4 * 1024 * 1024


class ScriptError(Exception):
    """A script is invalid, or a wait timed out. The text is one line that names the line of the script."""


class Type(NamedTuple):
    """Type a line."""

    text: str


class Wait(NamedTuple):
    """Wait until a text is shown."""

    line_number: int
    text: str
    seconds: float


class Pause(NamedTuple):
    """Do nothing for a while."""

    seconds: float


ScriptStep = Type | Wait | Pause


def parse_script(text: str) -> list[ScriptStep]:
    """Parse a script. Raises ScriptError for an invalid line."""
    numbered = enumerate(text.replace("\r\n", "\n").split("\n"), 1)
    return [_parse_line(number, line) for number, line in numbered if line.strip() and not line.startswith("#")]


def _parse_line(number: int, line: str) -> ScriptStep:
    if not line.startswith("%"):
        return Type(line)
    word, _, rest = line[1:].strip().partition(" ")
    first, _, others = rest.strip().partition(" ")
    if word == "pause" and (seconds := _seconds(first)) is not None and not others:
        return Pause(seconds)
    if word == "wait" and rest.strip():
        seconds = _seconds(first)
        if seconds is None or not others.strip():
            return Wait(number, rest.strip(), DEFAULT_WAIT_SECONDS)
        return Wait(number, others.strip(), seconds)
    raise ScriptError(f"line {number}: {line!r} is neither %wait [SECONDS] TEXT nor %pause SECONDS")


def _seconds(word: str) -> float | None:
    return float(word) if re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?|\.[0-9]{1,6}", word) else None


class Transcript:
    """Lines that were shown and have not ended a wait. Written by the controller thread, read by the main thread."""

    def __init__(self) -> None:
        # Guards all attributes; notified about new lines and the end.
        self._changed = threading.Condition()
        self._lines: deque[str] = deque()
        self._characters = 0
        self._ended = False

    @property
    def has_ended(self) -> bool:
        """True if no more lines follow."""
        return self._ended  # lock-free: set once, and used only for the text of an error

    def add(self, lines: Iterable[str]) -> None:
        """Add lines that were shown."""
        with self._changed:
            for line in lines:
                if len(self._lines) == _REMEMBERED_LINES:
                    self._forget(0)
                self._lines.append(line)
                self._characters += len(line)
            while self._characters > _REMEMBERED_MAX_CHARACTERS:
                self._forget(0)
            self._changed.notify_all()

    def end(self) -> None:
        """End all waits: no more lines follow."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_for(self, text: str, seconds: float) -> bool:
        """Wait for a line with the text and remove it. Returns false at the timeout or the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._has(text), seconds)
            return self._remove(text)

    def pause(self, seconds: float) -> None:
        """Sleep until the timeout or the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended, seconds)

    def _has(self, text: str) -> bool:
        """Requires the lock."""
        return any(text in line for line in self._lines)

    def _remove(self, text: str) -> bool:
        """Requires the lock."""
        for index, line in enumerate(self._lines):
            if text in line:
                self._forget(index)
                return True
        return False

    def _forget(self, index: int) -> None:
        """Requires the lock."""
        self._characters -= len(self._lines[index])
        del self._lines[index]


def play(script: Iterable[ScriptStep], transcript: Transcript, type_line: Callable[[str], bool]) -> None:
    """Play a script until its end, or until ``type_line`` returns false. Raises ScriptError if a wait fails."""
    for action in script:
        match action:
            case Type(text):
                if not type_line(text):
                    return
            case Pause(seconds):
                transcript.pause(seconds)
            case Wait(line_number, text, seconds):
                if not transcript.wait_for(text, seconds):
                    when = "before the client ended" if transcript.has_ended else f"within {seconds:g} s"
                    raise ScriptError(f"line {line_number}: {text!r} did not appear {when}")
