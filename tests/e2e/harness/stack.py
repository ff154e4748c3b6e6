"""The interface of the two stacks: the server and the clients of one test."""

from __future__ import annotations

import itertools
import os
import time
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from ops.window import Window

from .programs import Client
from .raw_guest import RawGuest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from .programs import Program, Runner, Server

# Password hashes with the default cost would take most of the time of the tests.
CHEAP_HASHES = {"CHAT_HASH_TIME_COST": "1", "CHAT_HASH_MEMORY_KIB": "8"}
# Time limit of an administrator's command.
ADMIN_SECONDS = 60
# Programs that are started or ended at the same time.
_THREADS = 10

Given = TypeVar("Given")
Made = TypeVar("Made")


class Stack(ABC):
    """The server and the clients of one test. :meth:`close` ends all of them."""

    def __init__(self) -> None:
        self.programs: list[Program] = []
        self._raw_guests: list[RawGuest] = []
        self._windows: list[Window] = []
        self._began = time.monotonic()
        self._fences = itertools.count(1)

    # --- what the two stacks differ in ---

    @abstractmethod
    def start_server(self, **settings: str) -> Server:
        """Start the server with these variables, and wait until it accepts connections.

        A later call is an upgrade: it starts another one with the data of the first, which has ended.
        """

    @abstractmethod
    def admin(self, *arguments: str, typed: bytes = b"", code: int = 0) -> bytes:
        """Run ``chatserver admin``, in the container of the server if that runs. Checks the exit code.

        Returns what it printed to standard output; errors of a failed command as well.
        """

    @abstractmethod
    def erase_data(self) -> None:
        """Erase the data folder, as ``docker compose down --volumes`` does. No server runs."""

    @property
    @abstractmethod
    def server_address(self) -> tuple[str, int]:
        """The address of the server for its clients."""

    @property
    @abstractmethod
    def published_address(self) -> tuple[str, int]:
        """The address of the server for the process of the tests."""

    @abstractmethod
    def script(self, text: str) -> str:
        """Write a script file; returns its path for a client."""

    @abstractmethod
    def _client_runner(self, arguments: Sequence[str], environment: Mapping[str, str]) -> Runner:
        """A chatclient that knows the server's address, not started."""

    @abstractmethod
    def _terminal_command(self, arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """The command that runs a chatclient in a terminal, and its environment."""

    # --- what they share ---

    def window(self, name: str) -> Window:
        """Start a client in a terminal."""
        command, environment = self._terminal_command([name])
        window = Window(command, environment={**environment, "TERM": "xterm-256color"})
        self._windows.append(window)
        return window

    def start_client(
        self, name: str, *arguments: str, password: str | None = None, environment: Mapping[str, str] | None = None
    ) -> Client:
        """Start a client, not logged in. With an empty name it has to ask for its username."""
        settings = {**({} if password is None else {"CHAT_PASSWORD": password}), **(environment or {})}
        runner = self._client_runner([*([name] if name else []), *arguments], settings)
        client = Client(name or "nameless", runner, self.clock)
        self.programs.append(client)
        client.launch()
        return client

    def client(self, name: str, *arguments: str) -> Client:
        """Start a client and log in with :func:`password_of` its name."""
        client = self.start_client(name, *arguments)
        client.log_in(password_of(name))
        return client

    def clients(self, *names: str) -> list[Client]:
        """Start several clients at the same time, log them in, and wait until each knows that all are online.

        A join and a leave that follow each other closely may not be announced at all.
        """
        clients = in_parallel(self.client, names)
        for client in clients:
            for name in names:
                client.expect_online(name)
        return clients

    def raw_guest(self, name: str) -> RawGuest:
        """Connect a guest from the process of the tests."""
        guest = RawGuest(name, self.published_address)
        self._raw_guests.append(guest)
        return guest

    def fence(self, sender: Client, *others: Client) -> None:
        """Send a public message and wait for it: each of ``others`` has then seen everything sent before it."""
        __tracebackhide__ = True
        text = f"fence {next(self._fences)}."
        sender.say(text)
        for other in others:
            other.expect(text)

    def clock(self) -> float:
        """Seconds since the start of the test, for all transcripts."""
        return time.monotonic() - self._began

    def close(self) -> None:
        """End everything that was started."""
        for window in self._windows:
            print(window)  # pytest shows it if the test fails
            window.close()
        for guest in self._raw_guests:
            guest.close()
        in_parallel(lambda program: program.close(), self.programs)


def check_exit(done: subprocess.CompletedProcess[bytes], code: int) -> bytes:
    """The output of a command that ended with this exit code."""
    __tracebackhide__ = True
    output = done.stdout + done.stderr if code else done.stdout
    assert done.returncode == code, f"{done.args} ended with {done.returncode}: {(done.stdout + done.stderr).decode()}"
    return output


def password_of(name: str) -> str:
    return f"password of {name}"


def in_parallel(function: Callable[[Given], Made], things: Iterable[Given]) -> list[Made]:
    """Call a function for several things in threads, which have ended on return."""
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="stack") as threads:
        return list(threads.map(function, things))


def own_environment() -> dict[str, str]:
    """The environment without the developer's CHAT_ settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CHAT_")}
