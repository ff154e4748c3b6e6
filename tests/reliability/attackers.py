"""Attackers, each a program in a process of its own, so that it takes no time of the users whom a test measures.

The program calls one of the functions below, with the arguments that its input has as a JSON object. Its output is a
line that says that the attack has begun, and the function's result as JSON. Addresses of attackers are in 127.1.0.0/16.
"""

from __future__ import annotations

import json
import math
import resource
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_READ_BYTES = 65_536
_SEND_BYTES = 8_192


class Attacker:
    """The program, for a test: it runs an attack of this module. Leaving the context ends it."""

    def __init__(self, attack: Callable[..., Any], **arguments: Any) -> None:
        self._job = {"attack": attack.__name__, "arguments": arguments}

    def __enter__(self) -> Self:
        """Returns when the attack has begun."""
        command = [sys.executable, __file__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._process.stdin as stdin:
            json.dump(self._job, stdin)
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def is_over(self) -> bool:
        return self._process.poll() is not None

    def result(self) -> Any:
        """Wait for the end of the attack."""
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.read())


def address_of(number: int) -> str:
    return f"127.1.{number // 200}.{number % 200 + 1}"


def hold(port: int, addresses: int, each: int, pulse_seconds: float = math.inf) -> None:
    """Connections that say nothing, as many of each address. Refused or closed ones are opened again.

    At each pulse, all of them send a byte in the same moment.
    """
    selector = selectors.DefaultSelector()

    def connect(address: str) -> None:
        with suppress(OSError):
            selector.register(_connect(port, address), selectors.EVENT_READ, address)

    for number in range(addresses * each):
        connect(address_of(number % addresses))
    _say_ready()
    pulse_at = time.monotonic() + pulse_seconds
    while True:
        left_seconds = pulse_at - time.monotonic()
        if left_seconds <= 0:
            pulse_at += pulse_seconds
            for key in list(selector.get_map().values()):
                with suppress(OSError):
                    _socket(key).send(b"{")
        for key, _ in selector.select(None if pulse_seconds == math.inf else max(left_seconds, 0.0)):
            if not _read(key):
                selector.unregister(key.fileobj)
                _socket(key).close()
                connect(key.data)


def flood(port: int, flooders: Sequence[tuple[str, str, str]]) -> None:
    """Connections that send the same text again and again, as fast as the server reads.

    ``flooders``: the address of each connection, what it sends first, and what it repeats. What is first is answered
    before the flood begins. Both may be empty.
    """
    selector = selectors.DefaultSelector()
    for address, first, repeated in flooders:
        sock = _connect(port, address)
        if first:
            sock.sendall(first.encode())
            assert sock.recv(_READ_BYTES)
        sock.setblocking(False)
        data = repeated.encode()
        data *= _SEND_BYTES // max(1, len(data)) + 1
        selector.register(sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if data else 0), data)
    _say_ready()
    while True:
        for key, events in selector.select():
            if events & selectors.EVENT_READ and not _read(key):
                selector.unregister(key.fileobj)
                _socket(key).close()
            elif events & selectors.EVENT_WRITE:
                # The rest of a partial send follows, so that what is repeated stays whole.
                with suppress(OSError):
                    sent = _socket(key).send(key.data)
                    selector.modify(key.fileobj, key.events, key.data[sent:] + key.data[:sent])


def send_direct(port: int, address: str, name: str, to: str, count: int) -> dict[str, int]:
    """A user who sends numbered direct messages without a pause. Returns the number of answers by type or code."""
    sock = _connect(port, address)
    login = {"command": "login", "username": name, "password": "secret"}
    messages = [{"command": "DM", "to": to, "message": f"message {number}"} for number in range(count)]
    data = b"".join(json.dumps(each).encode() + b"\n" for each in messages)
    lines = sock.makefile("rb")
    sock.sendall(json.dumps(login).encode() + b"\n")
    assert json.loads(lines.readline())["type"] == "login"
    _say_ready()
    sending = threading.Thread(target=sock.sendall, args=(data,), name="send")
    sending.start()
    answers: Counter[str] = Counter()
    while answers.total() < count and (line := lines.readline()):
        answer = json.loads(line)
        if answer["type"] in {"sent", "error"}:
            answers[answer.get("code", "sent")] += 1
    sending.join()
    return answers


def guess(
    port: int,
    guessers: Sequence[tuple[str, str]],
    seconds: float,
    *,
    reconnects: bool = False,
    password: str | None = None,
) -> Sequence[float]:
    """Connections that guess passwords. Returns the seconds after which the answer to each wrong one was read.

    The seconds count from before the first guess, and each answer is older than its number says. ``guessers``: the
    address and the name of each. It connects again after each login, for which ``password`` is the right one; and with
    ``reconnects`` after each try.
    """
    began_at = time.monotonic()
    selector = selectors.DefaultSelector()
    number = 0
    buffers: dict[object, bytes] = {}

    def send_guess(sock: socket.socket, name: str) -> None:
        nonlocal number
        number += 1
        login = {"command": "login", "username": name, "password": password or f"guess {number}"}
        with suppress(ConnectionError):
            sock.send(json.dumps(login).encode() + b"\n")

    def connect(address: str, name: str) -> None:
        with suppress(ConnectionError):
            sock = _connect(port, address)
            send_guess(sock, name)
            selector.register(sock, selectors.EVENT_READ, (address, name))

    for each in guessers:
        connect(*each)
    _say_ready()
    times: list[float] = []
    while time.monotonic() - began_at < seconds:
        for key, _ in selector.select(0.1):
            data = _read(key)
            now = time.monotonic() - began_at
            *lines, buffers[key.fileobj] = (buffers.pop(key.fileobj, b"") + data).split(b"\n")
            answers = [json.loads(line) for line in lines]
            errors = [answer for answer in answers if answer["type"] == "error"]
            is_logged_in = any(answer["type"] == "login" for answer in answers)
            is_last = any("That was try" in error["message"] for error in errors)
            times += [now] * (is_last or sum(error["code"] == "wrong_password" for error in errors))
            if not data or is_logged_in or (errors and reconnects):
                del buffers[key.fileobj]
                selector.unregister(key.fileobj)
                _socket(key).close()
                connect(*key.data)
            elif errors and not is_last:
                send_guess(_socket(key), key.data[1])
    return [at for at in times if at < seconds]


def reject(port: int, guests: Sequence[tuple[str, str]], answer: str) -> int:
    """Guests that answer each message with this text, or leave it unanswered, and return until they are refused.

    Returns how often they returned.
    ``guests``: the address and the name of each.
    """
    selector = selectors.DefaultSelector()

    def enter(address: str, name: str) -> bool:
        """True if the guest is in."""
        sides = [_connect(port, address) for _ in range(2)]
        with suppress(OSError):
            for sock, side in zip(sides, ("TOSEND", "TORECV"), strict=True):
                sock.sendall(f"REGISTER {side} {name}\n\n".encode())
                data = sock.recv(_READ_BYTES)
                if not data.startswith(b"REGISTERED "):
                    break
                if b"FORWARD " in data:  # a message at once
                    sock.send(answer.encode())
            else:
                selector.register(sides[1], selectors.EVENT_READ, (address, name, sides[0]))
                return True
        for sock in sides:
            sock.close()
        return False

    for each in guests:
        assert enter(*each)
    _say_ready()
    returned = 0
    while selector.get_map():
        for key, _ in selector.select():
            if _read(key):  # a whole one, because it is short and the next one waits for the answer
                with suppress(OSError):
                    _socket(key).send(answer.encode())
            else:
                address, name, sending = key.data
                selector.unregister(key.fileobj)
                _socket(key).close()
                sending.close()
                returned += enter(address, name)
    return returned


def open_sessions(port: int, rate: int, seconds: float) -> tuple[int, int, float]:
    """Openings over UDP from one address, at a rate. Returns their number, that of the answers, and the seconds."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address_of(0), 0))
    sock.connect(("127.0.0.1", port))
    sock.setblocking(False)
    _say_ready()
    sent = answers = 0
    began_at = time.monotonic()
    while (passed := time.monotonic() - began_at) < seconds:
        while sent < passed * rate:
            sent += 1
            with suppress(OSError):
                sock.send(b"C" + bytes(12) + b"flood%d" % sent + b" " * 18)
        with suppress(OSError):
            while sock.recv(2_000):
                answers += 1
        time.sleep(0.0005)
    return sent, answers, time.monotonic() - began_at


def _connect(port: int, address: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), source_address=(address, 0))


def _socket(key: selectors.SelectorKey) -> socket.socket:
    assert isinstance(key.fileobj, socket.socket)
    return key.fileobj


def _read(key: selectors.SelectorKey) -> bytes:
    """The data that has arrived; empty at the end."""
    with suppress(ConnectionError):
        return _socket(key).recv(_READ_BYTES)
    return b""


def _say_ready() -> None:
    print("ready", flush=True)


if __name__ == "__main__":
    _, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_hard, _hard))
    _job = json.load(sys.stdin)
    print(json.dumps(globals()[_job["attack"]](**_job["arguments"])))
