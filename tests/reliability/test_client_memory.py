"""A server that sends without end does not make the real client grow without end."""

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
# The program itself, and what it may keep.
GROWTH_MAX_BYTES = 64 * 1024 * 1024


def joins(number: int) -> bytes:
    names = ",".join(f'"{"u" * 20}{number * 500 + each}"' for each in range(500))
    return f'{{"type":"users","count":1,"joined":[{names}],"left":[]}}\n'.encode()


def flood(number: int) -> bytes:
    time_ = '"2026-01-31T12:00:00.000Z"'
    message = f'{{"type":"broadcast","id":{number},"time":{time_},"from":"bob","message":"{"x" * 200}"}}\n'
    return (message * 200).encode()


def memory_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return int(fields["VmRSS"].strip().removesuffix(" kB")) * 1024


@pytest.mark.parametrize(("says", "is_read"), [(joins, True), (flood, False)], ids=["joins", "a flood nobody reads"])
def test_the_client_keeps_a_limited_amount(says: Callable[[int], bytes], is_read: bool) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        subprocess.Popen(
            [sys.executable, "-m", "chatclient", "127.0.0.1", str(listening.getsockname()[1]), "alice"],
            env={**own_environment(), "CHAT_PASSWORD": "x"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process,
    ):
        try:
            connection, _ = listening.accept()
            connection.settimeout(0.5)
            connection.recv(1_000)
            connection.sendall(WELCOME)
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"[welcome")
            before = memory_bytes(process.pid)
            reader = threading.Thread(target=process.stdout.read)
            if is_read:
                reader.start()
            ends_at, number = time.monotonic() + SECONDS, 0
            while time.monotonic() < ends_at:
                number += 1
                try:
                    connection.sendall(says(number))
                except TimeoutError:  # it reads no more, as it should
                    break
            grown = memory_bytes(process.pid) - before
        finally:
            process.kill()
        connection.close()
        if is_read:
            reader.join()
    print(f"grown by {grown:,} bytes after {number} pieces")
    assert grown < GROWTH_MAX_BYTES
