"""Scripts: files of lines to type, with waits for printed lines and pauses.

    # a comment                     not typed
    PM hello everyone               typed, as at the prompt
    %wait hello alice               continue when a line with this text was printed, within 10 s
    %wait 30 hello alice            the same, within 30 s
    %pause 0.5                      continue after half a second

Each printed line ends at most one wait. A wait also finds earlier lines.
"""

import re
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

DEFAULT_WAIT_SECONDS = 10.0
# Limits of the remembered output: a client may run for months, and a line may be a long message.
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

    def error(self, when: str) -> ScriptError:
        """The text did not appear."""
        return ScriptError(f"line {self.line_number}: {self.text!r} did not appear {when}")


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


class ScriptPlayer:
    """Plays a script: a source of lines for PlainFrontend. For one thread."""

    is_script = True
    # There is nothing to read.
    descriptor = None

    def __init__(self, steps: Iterable[ScriptStep]) -> None:
        self._steps = deque(steps)
        # Lines that were shown and have not ended a wait.
        self._shown: deque[str] = deque()
        self._shown_characters = 0
        # The end of the current wait or pause.
        self.deadline: float | None = None

    @property
    def is_over(self) -> bool:
        """True if all steps were played."""
        return not self._steps

    def read(self) -> None:
        """Do nothing: there is no descriptor."""

    def note_shown(self, lines: Iterable[str]) -> None:
        """Add lines that were shown."""
        for line in lines:
            self._shown.append(line)
            self._shown_characters += len(line)
        while len(self._shown) > _REMEMBERED_LINES or self._shown_characters > _REMEMBERED_MAX_CHARACTERS:
            self._forget(0)

    def next_line(self, now: float) -> str | None:
        """The next line to type, or None during a wait or pause, and at the end. Raises ScriptError if a wait fails."""
        while self._steps:
            step = self._steps[0]
            if isinstance(step, Type):
                return self._steps.popleft().text  # type: ignore[union-attr]
            if isinstance(step, Pause) or not self._find(step.text):
                if self.deadline is None:
                    self.deadline = now + step.seconds
                if now < self.deadline:
                    return None
                if isinstance(step, Wait):
                    raise step.error(f"within {step.seconds:g} s")
            self._steps.popleft()
            self.deadline = None
        return None

    def end(self) -> None:
        """Play the waits up to the next line: the client has ended. Raises ScriptError if one of them fails."""
        for step in self._steps:
            if isinstance(step, Type):
                return
            if isinstance(step, Wait) and not self._find(step.text):
                raise step.error("before the client ended")

    def _find(self, text: str) -> bool:
        """Forget the first line with this text. Returns false if there is none."""
        for index, line in enumerate(self._shown):
            if text in line:
                self._forget(index)
                return True
        return False

    def _forget(self, index: int) -> None:
        self._shown_characters -= len(self._shown[index])
        del self._shown[index]
