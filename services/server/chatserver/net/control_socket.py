"""The server's end of the control socket; see chatserver.control."""

from __future__ import annotations

import os
import selectors
import socket
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from chatserver.control import ANSWER_MAX_BYTES, CONTROL_FILE, address_in, fallback_address, open_folder
from chatserver.net.selector_thread import SelectorThread

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_log = structlog.get_logger()

# Maximum size of a request: it is one word.
_REQUEST_MAX_BYTES = 256


class FolderSocket(ABC):
    """A Unix socket in the data folder, and the thread that answers on it.

    This process holds the lock of the data folder, so an existing socket was left by a killed server and is replaced.
    If no socket can be created, a warning is logged, and the thread does not run.
    """

    def __init__(self, folder: Path, file: str, kind: int, thread_name: str, on_crash: Callable[[str], None]) -> None:
        self._file = file
        self._thread = SelectorThread(thread_name, self._run, on_crash)
        self._folder = open_folder(folder)
        self._socket = bind_in(folder, self._folder, file, kind)

    def start(self) -> None:
        if self._socket is not None:
            self._thread.start()

    def close(self) -> None:
        """Stop and join the thread, after the request that it answers, and remove the socket."""
        self._thread.stop()
        if self._socket is not None:
            self._socket.close()
        with suppress(OSError):
            os.unlink(self._file, dir_fd=self._folder)
        os.close(self._folder)

    @abstractmethod
    def _run(self) -> None:
        """Answer requests until the thread is to stop."""


class ControlSocket(FolderSocket):
    """Answers requests in its own thread, one after the other. Without a socket the health check fails."""

    def __init__(self, folder: Path, answer: Callable[[str], str], on_crash: Callable[[str], None]) -> None:
        """``answer`` returns the answer to a request. It may be slow, because the asking program has a time limit."""
        self._answer = answer
        super().__init__(folder, CONTROL_FILE, socket.SOCK_DGRAM, "control", on_crash)

    def _run(self) -> None:
        assert self._socket is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._thread, selectors.EVENT_READ)
            while self._thread not in [key.fileobj for key, _ in selector.select()]:
                with suppress(OSError):  # the asking program has ended, or does not read its answers
                    request, address = self._socket.recvfrom(_REQUEST_MAX_BYTES)
                    if address:  # an unbound socket can't be answered
                        answer = self._answer(request.decode(errors="replace"))
                        self._socket.sendto(answer.encode()[:ANSWER_MAX_BYTES], address)


def bind_in(folder: Path, descriptor: int, file: str, kind: int) -> socket.socket | None:
    """A bound socket in the folder, for its owner only; None if the system can't create one, which is logged."""
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.setblocking(False)
    os.fchmod(sock.fileno(), 0o600)  # the mode of the file to be created
    try:
        with suppress(FileNotFoundError):
            os.unlink(file, dir_fd=descriptor)
        sock.bind(address_in(folder, descriptor, file))
    except OSError as problem:
        try:
            sock.bind(fallback_address(descriptor, file))
        except OSError:
            sock.close()
            reason = problem.strerror or str(problem)
            _log.warning("control socket unavailable", folder=str(folder), file=file, error=reason)
            return None
    return sock
