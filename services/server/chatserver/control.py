"""The control socket: how a program on the same machine asks the running server something.

It is a Unix datagram socket in the data folder: a program that knows the folder finds the server, whatever host and
port it listens on, and only the server's own user (and root) may write to it. Datagrams, because they need no
connection: there is nothing to accept when the server is out of descriptors, and a silent peer can't keep it waiting.

A request is one word, an answer is one line of text. There is one request, ``health``.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

CONTROL_FILE: Final = "control.sock"
# An answer is a sentence; what is longer is cut.
ANSWER_MAX_BYTES: Final = 1_024
# The whole answer to ``health`` when nothing is wrong; anything else says what is.
WELL: Final = "ok"

# sockaddr_un has room for 108 bytes, with a zero at the end.
_PATH_MAX_BYTES: Final = 107


def open_folder(folder: Path) -> int:
    """A descriptor of the data folder, for the functions below. OSError."""
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)


def address_in(folder: Path, descriptor: int) -> str:
    """Where the socket is; by way of the descriptor if the path is too long for a socket's address."""
    path = str(folder / CONTROL_FILE)
    return path if len(os.fsencode(path)) <= _PATH_MAX_BYTES else f"/proc/self/fd/{descriptor}/{CONTROL_FILE}"


def fallback_address(descriptor: int) -> str:
    """For a folder on a file system that has no sockets: a name outside all file systems (Linux, unix(7))."""
    status = os.fstat(descriptor)
    return f"\0chatserver-{status.st_dev:x}-{status.st_ino:x}"


def ask(folder: Path, request: str, patience_seconds: float) -> str:
    """The answer of the server that uses this data folder. Raises OSError; TimeoutError if it does not answer."""
    descriptor = open_folder(folder)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind("")  # the system gives it an address to be answered at
            sock.settimeout(patience_seconds)
            try:
                sock.connect(address_in(folder, descriptor))
            except FileNotFoundError:
                sock.connect(fallback_address(descriptor))
            sock.send(request.encode())
            return sock.recv(ANSWER_MAX_BYTES).decode(errors="replace")
    finally:
        os.close(descriptor)
