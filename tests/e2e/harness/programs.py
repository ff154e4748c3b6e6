"""A running client or server, and the thread that reads its output."""

from __future__ import annotations

import re
import signal
import threading
from typing import TYPE_CHECKING, Protocol

from .transcript import EXPECT_SECONDS, ExpectationError, Transcript

if TYPE_CHECKING:
    from collections.abc import Callable

    from .transcript import Wanted

READY = re.compile(r"^\[INFO\] Waiting for connection on port \d+\.\.\.")
SENT = re.compile(r"^\[(sent|stored) #(\d+)\]")


class Runner(Protocol):
    """A process or a container."""

    def start(self) -> None:
        """Start it, or restart it after its end."""

    def read(self) -> bytes:
        """Wait for output; empty at its end. Called by the reader thread only."""

    def write(self, data: bytes) -> None:
        """Write to its standard input. Raises OSError if it no longer reads."""

    def end_input(self) -> None:
        """Close its standard input."""

    def send_signal(self, number: int) -> None:
        """Send a signal; no effect after its end."""

    def wait(self, seconds: float) -> int:
        """Wait for its end and return the exit code. Raises TimeoutError."""

    def close(self) -> None:
        """Kill it, so that :meth:`read` ends. Can be repeated, and called before the start."""

    def release(self) -> None:
        """Release the pipes or sockets. After :meth:`close` and the end of the reader thread."""


class Program:
    """A runner, its transcript, and the reader thread that fills the transcript."""

    def __init__(self, name: str, runner: Runner, clock: Callable[[], float]) -> None:
        self.name = name
        self.transcript = Transcript(name, clock)
        self._runner = runner
        self._reader: threading.Thread | None = None

    def launch(self) -> None:
        """Start the program, or restart it."""
        self._runner.start()
        self.transcript.begin()
        self._reader = threading.Thread(target=self._read, name=f"reader of {self.name}")
        self._reader.start()

    def expect(self, wanted: Wanted, seconds: float = EXPECT_SECONDS) -> re.Match[str]:
        """Wait for a line that contains ``wanted``. It and all lines before it are used up."""
        __tracebackhide__ = True
        return self.transcript.expect(wanted, seconds)

    def wait_exit(self, seconds: float = EXPECT_SECONDS) -> int:
        """Wait for the program's end and return the exit code. After that the transcript is complete."""
        __tracebackhide__ = True
        try:
            code = self._runner.wait(seconds)
        except TimeoutError:
            raise ExpectationError(f"{self.name} was expected to end within {seconds:g} s, but still runs") from None
        self._join_reader()
        self.transcript.note(f"exit code {code}")
        return code

    def send_signal(self, number: signal.Signals) -> None:
        self.transcript.note(number.name)
        self._runner.send_signal(number)

    def kill(self) -> None:
        """Send SIGKILL, and wait for the end."""
        self.send_signal(signal.SIGKILL)
        self.wait_exit()

    def close(self) -> None:
        """Kill the program if it runs, and end the reader thread."""
        self._runner.close()
        self._join_reader()
        self._runner.release()

    def _join_reader(self) -> None:
        if self._reader is not None:
            self._reader.join()
            self._reader = None

    def _read(self) -> None:
        """The reader thread."""
        rest = b""
        while data := self._runner.read():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self.transcript.printed(line.decode("utf-8", "backslashreplace"))
        if rest:
            self.transcript.printed(rest.decode("utf-8", "backslashreplace"))
        self.transcript.end()


class Client(Program):
    """A chatclient without a terminal."""

    def type(self, *lines: str) -> None:
        """Write lines, without waiting for their effect."""
        __tracebackhide__ = True
        for line in lines:
            self.transcript.typed(line)
        try:
            self._runner.write("".join(f"{line}\n" for line in lines).encode())
        except OSError as error:
            raise ExpectationError(f"{self.name} can't type {lines}: {error}") from error

    def expect_question(self, question: str) -> None:
        """Wait until the client asks for ``question``."""
        __tracebackhide__ = True
        self.expect(f"[ask] {question}")

    def log_in(self, password: str, account: str | None = None) -> re.Match[str]:
        """Type the password when the client asks for it. ``account`` is new or existing, if it matters."""
        __tracebackhide__ = True
        self.expect_question(f"password {account or ''}")
        self.type(password)
        welcome = rf"^\[welcome {account or '(new|existing)'}( operator)?\] {self.name}"
        return self.expect(re.compile(rf"{welcome}(; online: (?P<online>.*))?$"))

    def expect_online(self, name: str) -> None:
        """Wait until the client was told, now or earlier, that a user is online."""
        __tracebackhide__ = True
        self.transcript.expect_anywhere(re.compile(rf"^(\[welcome \w+\] \w+; online:.* {name}\b|\[joined\] {name}$)"))

    def expect_next(self, wanted: Wanted, seconds: float = EXPECT_SECONDS) -> re.Match[str]:
        """Wait for the next line that is no join or leave; it must contain ``wanted``."""
        __tracebackhide__ = True
        return self.transcript.expect_next(wanted, seconds)

    def expect_sent(self) -> int:
        """Wait for the confirmation of a message; returns its id."""
        __tracebackhide__ = True
        return int(self.expect(SENT)[2])

    def say(self, text: str) -> int:
        """Type a public message and wait for its confirmation; returns its id."""
        __tracebackhide__ = True
        self.type(f"PM {text}")
        return self.expect_sent()

    def assert_never(self, wanted: Wanted) -> None:
        """No line so far contains ``wanted``. Use it after a fence."""
        __tracebackhide__ = True
        if found := self.transcript.matches(wanted):
            raise ExpectationError(f"{self.name} should never have printed {wanted!r}, but printed {found[0].string!r}")

    def assert_once(self, wanted: Wanted) -> None:
        """Exactly one line so far contains ``wanted``. Use it after a fence."""
        __tracebackhide__ = True
        found = [match.string for match in self.transcript.matches(wanted)]
        if len(found) != 1:
            raise ExpectationError(f"{self.name} should have printed {wanted!r} once, but the lines are {found}")

    def end_input(self) -> None:
        """Close standard input."""
        self.transcript.note("end of input")
        self._runner.end_input()

    def leave(self) -> None:
        """Type EX; the exit code must be 0."""
        __tracebackhide__ = True
        self.type("EX")
        code = self.wait_exit()
        if code != 0:
            raise ExpectationError(f"{self.name} was expected to end with exit code 0 after EX, but it was {code}")


class Server(Program):
    """A chatserver."""

    def start(self) -> None:
        """Start it, or restart it, and wait until it accepts connections."""
        __tracebackhide__ = True
        self.launch()
        self.expect(READY)

    def stop(self) -> int:
        """Send SIGTERM, and wait for the end; returns the exit code."""
        __tracebackhide__ = True
        self.send_signal(signal.SIGTERM)
        return self.wait_exit()

    def restart(self) -> None:
        """Stop it with SIGTERM, and start it with the same data at the same address."""
        __tracebackhide__ = True
        code = self.stop()
        if code != 0:
            raise ExpectationError(f"the server was expected to stop with exit code 0, but it was {code}")
        self.start()

    def log(self) -> str:
        return str(self.transcript)
