"""Proxies between a client and a server in this process: they cut connections and lose data when told to."""

from __future__ import annotations

import random
import socket
import threading
from contextlib import suppress
from typing import Self

from integration.room import DEADLINE_SECONDS
from reliability.relay import Faults, Relay


class TcpProxy:
    """Carries TCP connections to ``server_port``, which can be changed."""

    def __init__(self, server_port: int) -> None:
        self.server_port = server_port
        # True: data of the server is lost, until cut().
        self.loses_answers = False
        # True: new connections are closed at once.
        self.is_cut = False
        # Each piece of at most 64 KiB waits for this time.
        self.delay_seconds = 0.0
        self._flows = threading.Event()
        self._flows.set()
        self._is_closing = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._lock = threading.Lock()  # guards the sockets, and is_cut while one is added
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, name="proxy")]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._is_closing.set()
        self._flows.set()
        self.cut()
        for thread in self._threads:
            thread.join()
        for each in (self._listening, *self._sockets):
            each.close()

    def cut(self) -> None:
        """End all connections, and accept no more until mend()."""
        with self._lock:
            self.is_cut = True
            for each in self._sockets:
                with suppress(OSError):  # it has ended before
                    each.shutdown(socket.SHUT_RDWR)

    def pause(self) -> None:
        """Keep all connections open and carry no data, until mend()."""
        self._flows.clear()

    def mend(self) -> None:
        """Carry new connections, with all their data at once, and what a pause held back."""
        self.loses_answers = self.is_cut = False
        self.delay_seconds = 0.0
        self._flows.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            with self._lock:
                if self.is_cut:
                    client.close()
                    continue
                try:
                    server = socket.create_connection(("127.0.0.1", self.server_port), DEADLINE_SECONDS)
                except OSError:  # the server was killed
                    client.close()
                    continue
                server.settimeout(None)
                self._sockets += [client, server]
            for source, target, is_answer in ((client, server, False), (server, client, True)):
                thread = threading.Thread(target=self._carry, args=(source, target, is_answer), name="proxy")
                self._threads.append(thread)
                thread.start()

    def _carry(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if self.delay_seconds:
                    self._is_closing.wait(self.delay_seconds)
                self._flows.wait()
                if not (is_answer and self.loses_answers):
                    target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class UdpProxy(Relay):
    """Carries datagrams to a server and back, and loses those of the server when told to."""

    def __init__(self, server_port: int) -> None:
        super().__init__(server_port, random.Random(), Faults(0.0, 0.0, 0.0))
        self.loses_answers = False

    def loses(self, to: tuple[str, int], data: bytes) -> bool:  # noqa: ARG002 - it loses any data
        return self.loses_answers and to != self.server
