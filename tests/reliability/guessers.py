"""A program that guesses passwords over many connections at once, from addresses of its own.

Its input is one JSON object: the port, the seconds for which it runs, the address and the name of each connection,
whether it reconnects after each try, and the right password if it is known; each login is then followed by another.
Its output is one JSON list: the times at which the server has checked a password, in seconds since its start.
"""

from __future__ import annotations

import json
import selectors
import socket
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Guesser:
    """One connection that tries one password after the other."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        port: int,
        address: str,
        name: str,
        *,
        reconnects: bool,
        password: str | None,
    ) -> None:
        self._selector = selector
        self._port = port
        self._address = address
        self._name = name
        self._reconnects = reconnects
        self._password = password
        self._number = 0
        self._connect()

    def _connect(self) -> None:
        self._buffer = b""
        self._socket = socket.socket()
        self._socket.bind((self._address, 0))
        self._socket.connect(("127.0.0.1", self._port))
        self._socket.setblocking(False)
        self._selector.register(self._socket, selectors.EVENT_READ, self)
        self._guess()

    def _guess(self) -> None:
        self._number += 1
        login = {"command": "login", "username": self._name, "password": self._password or f"guess {self._number}"}
        self._socket.send(json.dumps(login).encode() + b"\n")

    def read(self) -> int:
        """Read answers, and continue. Returns the number of checked passwords."""
        data = b""
        with suppress(ConnectionError):
            data = self._socket.recv(65_536)
        checked = 0
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        answers = [json.loads(line) for line in lines]
        errors = [answer for answer in answers if answer["type"] == "error"]
        for error in errors:
            checked += error["code"] == "wrong_password" or "That was try" in error["message"]
        is_logged_in = any(answer["type"] == "login" for answer in answers)
        if not data or is_logged_in or (errors and self._reconnects):
            self._selector.unregister(self._socket)
            self._socket.close()
            with suppress(ConnectionError):
                self._connect()
        elif errors and "That was try" not in errors[-1]["message"]:
            with suppress(ConnectionError):
                self._guess()
        return checked


class Guessers:
    """The program, for a test. Leaving the context ends it."""

    def __init__(
        self,
        port: int,
        guessers: Sequence[tuple[str, str]],
        seconds: float,
        *,
        reconnects: bool = False,
        password: str | None = None,
    ) -> None:
        """``guessers``: the address and the name of each connection."""
        self._job = {
            "port": port,
            "guessers": guessers,
            "seconds": seconds,
            "reconnects": reconnects,
            "password": password,
        }
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(self._job))
        self._process.stdin.close()
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def times(self) -> list[float]:
        """Wait for its end; return the times of checked passwords."""
        assert self._process is not None
        assert self._process.stdout is not None
        times: list[float] = json.loads(self._process.stdout.read())
        return times


def _main(job: dict[str, Any]) -> None:
    selector = selectors.DefaultSelector()
    for address, name in job["guessers"]:
        _Guesser(selector, job["port"], address, name, reconnects=job["reconnects"], password=job["password"])
    print("ready", flush=True)
    began_at = time.monotonic()
    times: list[float] = []
    while (now := time.monotonic() - began_at) < job["seconds"]:
        for key, _ in selector.select(0.1):
            times += [now] * key.data.read()
    print(json.dumps(times))


if __name__ == "__main__":
    _main(json.load(sys.stdin))
