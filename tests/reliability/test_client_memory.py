"""The client program's memory is limited, however much the server sends."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from reliability.program import own_environment

if TYPE_CHECKING:
    from collections.abc import Callable

WELCOME = b'{"type":"login","status":"ok","account":"new","username":"alice","users":["alice"],"last_id":0}\n'
SECONDS = 2.0
GROWTH_MAX_BYTES = 64 * 1024 * 1024


def joins(number: int) -> bytes:
    names = ",".join(f'"{"u" * 20}{number * 500 + each}"' for each in range(500))
    return f'{{"type":"users","count":1,"joined":[{names}],"left":[]}}\n'.encode()


def messages(number: int) -> bytes:
    members = f'"id":{number},"time":"2026-01-31T12:00:00.000Z","from":"bob","message":"{"x" * 200}"'
    return (f'{{"type":"broadcast",{members}}}\n' * 200).encode()


def memory_bytes(pid: int) -> int:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines())
    return int(fields["VmRSS"].strip().removesuffix(" kB")) * 1024


@pytest.mark.parametrize(
    ("piece", "is_read"),
    [pytest.param(messages, False, id="unread output"), pytest.param(joins, True, id="joins", marks=pytest.mark.long)],
)
def test_client_memory_is_limited(piece: Callable[[int], bytes], is_read: bool) -> None:
    """``is_read`` is True if the program's output is read."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        subprocess.Popen(
            [sys.executable, "-m", "chatclient", "127.0.0.1", str(listening.getsockname()[1]), "alice"],
            env={**own_environment(), "CHAT_PASSWORD": "x"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process,
    ):
        assert process.stdout is not None
        reader = threading.Thread(target=process.stdout.read)
        try:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1_000)
                connection.settimeout(0.5)
                connection.sendall(WELCOME)
                assert process.stdout.readline().startswith(b"[welcome")
                before = memory_bytes(process.pid)
                if is_read:
                    reader.start()
                ends_at, number = time.monotonic() + SECONDS, 0
                while time.monotonic() < ends_at:
                    number += 1
                    try:
                        connection.sendall(piece(number))
                    except TimeoutError:  # it stops reading, as it should
                        break
                grown = memory_bytes(process.pid) - before
        finally:
            process.kill()
        if is_read:
            reader.join()
    print(f"grown by {grown:,} bytes after {number} pieces")
    assert grown < GROWTH_MAX_BYTES
