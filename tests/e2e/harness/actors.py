"""The actors of a story: a client or a server that runs, and the one thread that reads what it prints."""

from __future__ import annotations

import re
import signal
import threading
import time
from typing import TYPE_CHECKING, Protocol

from .transcript import EXPECT_SECONDS, StoryError, Transcript

if TYPE_CHECKING:
    from collections.abc import Callable

    from .transcript import Wanted

READY = re.compile(r"^\[INFO\] Waiting for connection on port (\d+)\.\.\.")
SENT = re.compile(r"^\[(sent|stored) #(\d+)\]")


class Program(Protocol):
    """Something that can be started and talked to: a process or a container."""

    def start(self) -> None:
        """Start it, or start it again after it has ended."""

    def read(self) -> bytes:
        """Wait for output; nothing at its end. For the one thread that reads."""

    def write(self, data: bytes) -> None:
        """Give it input; OSError when it does not listen any more."""

    def end_input(self) -> None:
        """It gets no more input."""

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing happens if it has ended."""

    def wait(self, seconds: float) -> int:
        """Wait for its end and return the exit code. Raises TimeoutError."""

    def close(self) -> None:
        """End it, whatever it does, so that :meth:`read` ends. Several times, and before the start, too."""

    def release(self) -> None:
        """Give back what is left. After :meth:`close`, when nobody reads any more."""


class Actor:
    """A program, its transcript, and the thread that writes the latter."""

    def __init__(self, name: str, program: Program, clock: Callable[[], float]) -> None:
        self.name = name
        self.transcript = Transcript(name, clock)
        self._program = program
        self._reader: threading.Thread | None = None

    def launch(self) -> None:
        """Start the program, or start it again."""
        self._program.start()
        self.transcript.begin()
        self._reader = threading.Thread(target=self._read, name=f"reader of {self.name}")
        self._reader.start()

    def expect(self, wanted: Wanted, seconds: float = EXPECT_SECONDS) -> re.Match[str]:
        """Wait for a line with this in it; it and all before it are used up."""
        __tracebackhide__ = True
        return self.transcript.expect(wanted, seconds)

    def wait_exit(self, seconds: float = EXPECT_SECONDS) -> int:
        """Wait for the program's end; afterwards the transcript is complete. Returns the exit code."""
        __tracebackhide__ = True
        try:
            code = self._program.wait(seconds)
        except TimeoutError:
            raise StoryError(f"{self.name} was expected to end within {seconds:g} s, but still runs") from None
        self.join()
        self.transcript.note(f"ended with exit code {code}")
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.transcript.note(f"gets {number.name}")
        self._program.send_signal(number)

    def kill(self) -> None:
        """End it without a chance to say goodbye."""
        self.send_signal(signal.SIGKILL)
        self.wait_exit()

    def close(self) -> None:
        """The story is over: end the program and the thread."""
        self._program.close()
        self.join()
        self._program.release()

    def join(self) -> None:
        """Wait until everything that the program printed is in the transcript. After its end."""
        if self._reader is not None:
            self._reader.join()
            self._reader = None

    def _read(self) -> None:
        """Runs in the reader thread."""
        rest = b""
        while data := self._program.read():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self.transcript.shown(line.decode("utf-8", "backslashreplace"))
        if rest:
            self.transcript.shown(rest.decode("utf-8", "backslashreplace"))
        self.transcript.end()


class Client(Actor):
    """A client and the person who uses it."""

    def type(self, *lines: str) -> None:
        """Type lines, one after the other, without waiting for what comes of them."""
        __tracebackhide__ = True
        for line in lines:
            self.transcript.typed(line)
        try:
            self._program.write("".join(f"{line}\n" for line in lines).encode())
        except OSError as error:
            raise StoryError(f"{self.name} can't type {lines}: {error}") from error

    def asked(self, question: str) -> None:
        """Wait until the client asks for something."""
        __tracebackhide__ = True
        self.expect(f"[ask] {question}")

    def log_in(self, password: str, account: str | None = None) -> re.Match[str]:
        """Give the password when it is asked for; ``account`` is new or existing, if it matters."""
        __tracebackhide__ = True
        self.asked(f"password {account or ''}")
        self.type(password)
        who = rf"^\[welcome {account or '(new|existing)'}\] {self.name}"
        return self.expect(re.compile(rf"{who}(; online: (?P<online>.*))?$"))

    def knows(self, name: str) -> None:
        """Wait until the client has been told that somebody is online, were it a while ago."""
        __tracebackhide__ = True
        self.transcript.expect_somewhere(re.compile(rf"^(\[welcome \w+\] \w+; online:.* {name}\b|\[joined\] {name}$)"))

    def expect_next(self, wanted: Wanted, seconds: float = EXPECT_SECONDS) -> re.Match[str]:
        """The next line that is not about who comes and goes must have this in it."""
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

    def never_saw(self, wanted: Wanted) -> None:
        """No line so far has this in it: of use after a fence."""
        __tracebackhide__ = True
        self.transcript.never_saw(wanted)

    def saw_once(self, wanted: Wanted) -> None:
        """Exactly one line so far has this in it: of use after a fence."""
        __tracebackhide__ = True
        self.transcript.saw_once(wanted)

    def end_input(self) -> None:
        """Type nothing more: the end of standard input."""
        self.transcript.note("end of input")
        self._program.end_input()

    def leave(self) -> None:
        """Say goodbye with EX, and end well."""
        __tracebackhide__ = True
        self.type("EX")
        code = self.wait_exit()
        if code != 0:
            raise StoryError(f"{self.name} was expected to end with exit code 0 after EX, but it was {code}")


class Server(Actor):
    """The server."""

    def start(self) -> int:
        """Start it, or start it again, and wait until it takes connections; returns the port."""
        __tracebackhide__ = True
        self.launch()
        return int(self.expect(READY)[1])

    def ask_to_stop(self) -> None:
        """Send SIGTERM and don't wait."""
        self.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        """Stop it politely; returns the exit code."""
        __tracebackhide__ = True
        self.ask_to_stop()
        return self.wait_exit()

    def stop_within(self, seconds: float) -> int:
        """Stop it politely and see that it takes no longer than this; returns the exit code."""
        __tracebackhide__ = True
        began = time.monotonic()
        code = self.stop()
        took = time.monotonic() - began
        if took > seconds:
            raise StoryError(f"the server was expected to stop within {seconds:g} s, but took {took:.1f} s")
        return code

    def restart(self) -> None:
        """Stop it politely, and start it again with the same data at the same address."""
        __tracebackhide__ = True
        code = self.stop()
        if code != 0:
            raise StoryError(f"the server was expected to stop with exit code 0, but it was {code}")
        self.start()

    def log(self) -> str:
        """Everything that it has logged."""
        return str(self.transcript)
