"""People at windows: the real program in a terminal, at a server; and a wire to it that can be cut."""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Self

from ops.window import Window

if TYPE_CHECKING:
    from pathlib import Path

_PASSED_ON = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "HOME")


class Desk:
    """Opens windows at the server with this port. Leaving the context closes them."""

    def __init__(self, port: int, folder: Path) -> None:
        self._port = port
        self._folder = folder  # where no .env of somebody is found
        self._windows = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._windows.close()

    def open(
        self,
        name: str = "alice",
        *flags: str,
        columns: int = 100,
        rows: int = 30,
        port: int | None = None,
        **settings: str | None,
    ) -> Window:
        """A window with the program; ``settings`` are variables of its environment, None leaves one out."""
        inherited = {each: os.environ[each] for each in _PASSED_ON if each in os.environ}
        usual = {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "TZ": "UTC", "CHAT_PASSWORD": "secret"}
        environment = {key: value for key, value in {**inherited, **usual, **settings}.items() if value is not None}
        words = ["127.0.0.1", str(port or self._port), *([name] if name else []), *flags]
        window = Window(
            [sys.executable, "-m", "chatclient", *words],
            columns=columns,
            rows=rows,
            environment=environment,
            folder=str(self._folder),
        )
        return self._windows.enter_context(window)

    def sit(
        self,
        name: str = "alice",
        *flags: str,
        columns: int = 100,
        rows: int = 30,
        port: int | None = None,
        **settings: str | None,
    ) -> Window:
        """The same with somebody who is in."""
        window = self.open(name, *flags, columns=columns, rows=rows, port=port, **settings)
        window.until(lambda: is_in(window), "it is connected")
        window.until_line(f"{name}>")
        return window


def status(window: Window) -> str:
    """The row below the prompt."""
    return window.rows()[window.cursor.row + 1]


def is_in(window: Window) -> bool:
    """Does the window's last row say so?"""
    return any(re.search(r"(^|[·-] )connected$", row) for row in window.rows()[-1:] + window.everything()[-1:])


def rows_of(window: Window, text: str) -> list[str]:
    """All rows with this text, without the time at their beginning."""
    return [re.sub(r"^\d\d:\d\d ", "", row) for row in window.everything() if text in row]


class Wire:
    """Carries connections to a port of this machine, until it is cut; it can be mended. For one client at a time."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._is_cut = False
        # Does it keep what the server says?
        self._is_deaf = False
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._listen, name="wire")]
        self._lock = threading.Lock()  # guards the ends and whether it is cut

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self.cut()
        for thread in self._threads:
            thread.join()
        self._listening.close()

    def cut(self) -> None:
        """End every connection, and let none stand."""
        with self._lock:
            self._is_cut = True
            for end in self._ends:
                with suppress(OSError):  # it has ended before
                    end.shutdown(socket.SHUT_RDWR)
            self._ends.clear()

    def deafen(self) -> None:
        """What the server says from now on is lost on the way, until the wire is mended."""
        self._is_deaf = True

    def mend(self) -> None:
        """Carry connections again."""
        with self._lock:
            self._is_cut = self._is_deaf = False

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            with self._lock:
                if self._is_cut:
                    client.close()
                    continue
                server = socket.create_connection(self._target, 20)
                self._ends += [client, server]
            for source, sink, is_answer in ((client, server, False), (server, client, True)):
                thread = threading.Thread(target=self._carry, args=(source, sink, is_answer), name="wire")
                self._threads.append(thread)
                thread.start()

    def _carry(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        source.settimeout(None)
        with suppress(OSError):
            while data := source.recv(65_536):
                if not (is_answer and self._is_deaf):
                    sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()
