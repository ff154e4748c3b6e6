"""The program ``chatclient``, or another client, with pipes instead of a terminal."""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Self

from integration.room import DEADLINE_SECONDS

if TYPE_CHECKING:
    import signal

# The time of a message in a line.
_TIME = re.compile(r" 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def environment(**settings: str) -> dict[str, str]:
    """The environment of the tests without the settings of a chat, and with these."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CHAT_")} | settings


def run_client(port: int, *arguments: str, typed: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the client as alice to the end of its input."""
    return subprocess.run(
        [sys.executable, "-m", "chatclient", "127.0.0.1", str(port), "alice", *arguments],
        env=environment(**settings),
        input=typed,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


class ClientProcess:
    """A running client. Every line that it prints is compared with an expected one. Leaving the context kills it."""

    program: tuple[str, ...] = (sys.executable, "-m", "chatclient")
    stderr = subprocess.STDOUT

    def __init__(self, *arguments: str, **settings: str) -> None:
        self._process = subprocess.Popen(
            [*self.program, *arguments],
            env=environment(**settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._output, selectors.EVENT_READ)
        self._unread = b""
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._selector.close()
        for pipe in (self._output, self._input, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def type(self, *lines: str, end: str = "\n") -> None:
        """Type lines, all in one write."""
        self._input.write(("\n".join(lines) + end).encode())
        self._input.flush()

    def end_input(self) -> None:
        self._input.close()

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def line(self) -> str:
        """The next line without times; empty after the end."""
        give_up_at = time.monotonic() + DEADLINE_SECONDS
        while b"\n" not in self._unread:
            assert self._selector.select(give_up_at - time.monotonic()), f"no more output than {self._unread!r}"
            data = os.read(self._output.fileno(), 65_536)
            if not data:
                break
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return _TIME.sub("", line.decode())

    def expect(self, *lines: str) -> None:
        """The next lines are these."""
        for expected in lines:
            assert self.line() == expected

    def until(self, last: str) -> list[str]:
        """All lines up to this one."""
        lines = [self.line()]
        while lines[-1] != last:
            assert lines[-1], f"the client ended after {lines}"
            lines.append(self.line())
        return lines

    def expect_exit(self, code: int, *lines: str) -> None:
        """The client prints these lines and exits."""
        self.expect(*lines)
        assert self.line() == ""
        assert self._process.wait(DEADLINE_SECONDS) == code

    def leave(self, code: int = 0) -> None:
        """Leave with EX."""
        self.type("EX")
        self.expect_exit(code, "[bye] you left")
