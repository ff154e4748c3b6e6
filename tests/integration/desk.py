"""People at windows: the real program in a terminal, at a server; a wire to it that can be cut; a stand-in for it."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import threading
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from integration.room import wait_for

from ops.window import Window

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Answers what is asked, with objects of the dialect json; None among them ends the connection.
Part: TypeAlias = "Callable[[dict[str, Any]], list[dict[str, Any] | None]]"

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
        joins: bool = False,
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
            joins=joins,
        )
        return self._windows.enter_context(window)

    def sit(
        self,
        name: str = "alice",
        *flags: str,
        columns: int = 100,
        rows: int = 30,
        port: int | None = None,
        joins: bool = False,
        **settings: str | None,
    ) -> Window:
        """The same with somebody who is in."""
        window = self.open(name, *flags, columns=columns, rows=rows, port=port, joins=joins, **settings)
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


def close_window(window: Window) -> None:
    """As a person does who is done with it: the terminal is gone, and the program has to end by itself."""
    window._program.ptyproc.fileobj.close()
    wait_for(lambda: not window._program.isalive(), "the program ends with its window")


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


def broadcast(number: int, sender: str, text: str, **members: str) -> dict[str, Any]:
    """A message, as a server sends it."""
    time = "2026-01-31T12:00:00.123Z"
    return {"type": "broadcast", "id": number, "time": time, "from": sender, "message": text} | members


def welcome(*users: str, last_id: int = 0) -> dict[str, Any]:
    """To the first of them."""
    return {"type": "login", "status": "ok", "account": "new", "username": users[0], "users": users, "last_id": last_id}


def refusal(code: str, nonce: str | None = None) -> dict[str, Any]:
    return {"type": "error", "code": code, "message": f"No: {code}."} | ({"nonce": nonce} if nonce else {})


def serves(request: dict[str, Any]) -> list[dict[str, Any] | None]:
    """The part of a server that does what it should; it has one message, of bob."""
    match request:
        case {"command": "login", "username": name}:
            return [welcome(name, last_id=7)]
        case {"command": "CH"}:
            return [{"type": "history", "messages": [broadcast(7, "bob", "of before")]}]
        case {"command": "PM", "nonce": nonce}:
            return [{"type": "sent", "id": 8, "status": "sent", "nonce": nonce}]
        case {"command": "users"}:
            return [{"type": "users", "users": ["alice"], "joined": [], "left": []}]
        case {"command": "EX"}:
            return [{"type": "bye", "reason": "You left."}, None]
        case _:
            raise AssertionError(f"nobody was expected to ask {request}")


def at(command: str, *answers: dict[str, Any] | None) -> Part:
    """The part of a server that serves until this is asked, and answers that so: where nothing is said, not at all."""
    return lambda request: [*answers] if request["command"] == command else serves(request)


class StandIn:
    """In the place of a server, for what one seldom does. For one client at a time.

    Each connection is served by the part that is next; the last part serves all that come after it.
    """

    def __init__(self, *parts: Part) -> None:
        self._parts = parts
        # What was asked on each connection.
        self.asked: list[list[dict[str, Any]]] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._connections: list[socket.socket] = []
        self._is_over = False
        self._thread = threading.Thread(target=self._serve, name="a stand-in")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._listening.shutdown(socket.SHUT_RDWR)
        for connection in [*self._connections]:
            with suppress(OSError):  # it has ended before
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listening.close()

    def asked_for(self, command: str) -> list[dict[str, Any]]:
        """All that was asked so, on whatever connection."""
        return [request for asked in self.asked for request in asked if request["command"] == command]

    def _serve(self) -> None:
        while not self._is_over:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self._connections.append(connection)
            part = self._parts[min(len(self.asked), len(self._parts) - 1)]
            self.asked.append([])
            with connection, suppress(OSError):
                self._play(connection, part)

    def _play(self, connection: socket.socket, part: Part) -> None:
        with connection.makefile("rb") as lines:
            for line in lines:
                request = json.loads(line)
                self.asked[-1].append(request)
                for answer in part(request):
                    if answer is None:
                        connection.shutdown(socket.SHUT_RDWR)
                        return
                    connection.sendall(json.dumps(answer).encode() + b"\n")
