"""A server of the protocol json that does what the real one seldom does."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

# Answers a request with objects. None among them ends the connection.
Answer: TypeAlias = "Callable[[dict[str, Any]], list[dict[str, Any] | None]]"


def broadcast(number: int, sender: str, text: str, **members: str) -> dict[str, Any]:
    time = "2026-01-31T12:00:00.123Z"
    return {"type": "broadcast", "id": number, "time": time, "from": sender, "message": text} | members


def welcome(*users: str, last_id: int = 0) -> dict[str, Any]:
    """The welcome of the first user."""
    return {"type": "login", "status": "ok", "account": "new", "username": users[0], "users": users, "last_id": last_id}


def error(code: str, nonce: str | None = None) -> dict[str, Any]:
    return {"type": "error", "code": code, "message": f"No: {code}."} | ({"nonce": nonce} if nonce else {})


def serve(request: dict[str, Any]) -> list[dict[str, Any] | None]:
    """Answer as the real server does. The history has one message of bob."""
    match request:
        case {"command": "ping"}:
            return [{"type": "pong"}]
        case {"command": "login", "username": name}:
            return [welcome(name, last_id=7)]
        case {"command": "CH"}:
            return [{"type": "history", "messages": [broadcast(7, "bob", "from before")]}]
        case {"command": "PM", "nonce": nonce}:
            return [{"type": "sent", "id": 8, "status": "sent", "nonce": nonce}]
        case {"command": "users"}:
            return [{"type": "users", "users": ["alice"], "joined": [], "left": []}]
        case {"command": "EX"}:
            return [{"type": "bye", "reason": "You left."}, None]
        case _:
            raise AssertionError(f"unexpected request: {request}")


def serve_but(command: str, *answers: dict[str, Any] | None) -> Answer:
    """Serve, but give these answers to one command."""
    return lambda request: [*answers] if request["command"] == command else serve(request)


class FakeServer:
    """Serves one connection after the other: each with the next answer function, the last one from then on."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = answers
        # The requests of each connection.
        self.requests: list[list[dict[str, Any]]] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, name="fake server")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        while self._thread.is_alive():  # it may have accepted one more
            for connection in [*self._connections]:
                with suppress(OSError):  # it has ended before
                    connection.shutdown(socket.SHUT_RDWR)
            self._thread.join(0.05)
        self._listening.close()

    def requested(self, command: str) -> list[dict[str, Any]]:
        """The requests with this command, of all connections."""
        return [request for each in self.requests for request in each if request["command"] == command]

    def _run(self) -> None:
        with suppress(OSError):  # accept() fails after the shutdown
            while True:
                connection, _ = self._listening.accept()
                self._connections.append(connection)
                answer = self._answers[min(len(self.requests), len(self._answers) - 1)]
                self.requests.append([])
                with connection, suppress(OSError):
                    self._serve(connection, answer)

    def _serve(self, connection: socket.socket, answer: Answer) -> None:
        with connection.makefile("rb") as lines:
            for line in lines:
                request = json.loads(line)
                self.requests[-1].append(request)
                for each in answer(request):
                    if each is None:
                        connection.shutdown(socket.SHUT_RDWR)
                        return
                    connection.sendall(json.dumps(each).encode() + b"\n")
