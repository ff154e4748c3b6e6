"""A stack: where a story's server and clients run. Two kinds share this interface."""

from __future__ import annotations

import itertools
import os
import time
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from ops.window import Window

from .actors import Client, Server
from .stranger import Stranger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from .actors import Actor, Program

# A story must not wait for the hash of each of its passwords; one story runs with the default cost.
CHEAP_HASHES = {"CHAT_HASH_TIME_COST": "1", "CHAT_HASH_MEMORY_KIB": "8"}
# How many programs are started or ended at the same time.
_HANDS = 10

Given = TypeVar("Given")
Made = TypeVar("Made")


class Deployment(ABC):
    """The server as it is put into operation and taken out again, with all defaults."""

    @abstractmethod
    def up(self) -> Server:
        """Put it into operation; clients of the stack can reach it."""

    @abstractmethod
    def down(self, *, with_data: bool) -> None:
        """Take it out of operation; with its data, or so that they are found again."""


class Stack(ABC):
    """One story's server and clients. Everything that was started is ended by :meth:`close`."""

    def __init__(self) -> None:
        self.actors: list[Actor] = []
        self._strangers: list[Stranger] = []
        self._windows: list[Window] = []
        self._began = time.monotonic()
        self._fences = itertools.count(1)

    # --- what the kinds differ in ---

    @abstractmethod
    def start_server(self) -> Server:
        """Start the server with the story's data, and wait until it takes connections."""

    @property
    @abstractmethod
    def server_address(self) -> tuple[str, int]:
        """Where a client finds the server."""

    @property
    @abstractmethod
    def door(self) -> tuple[str, int]:
        """Where this process finds the server."""

    @abstractmethod
    def deployment(self) -> Deployment:
        """The server of a story that puts it up and takes it down itself."""

    @abstractmethod
    def script(self, text: str) -> str:
        """A file with this text; returns its path as a client sees it."""

    @abstractmethod
    def _client_program(self, arguments: Sequence[str], environment: Mapping[str, str]) -> Program:
        """A chatclient, not started, that knows where the server is."""

    @abstractmethod
    def _at_terminal(self, arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """The command that is a chatclient at a terminal, and its environment."""

    # --- what they share ---

    def window(self, name: str) -> Window:
        """A person's client at a terminal, which asks for the password."""
        command, environment = self._at_terminal([name])
        window = Window(command, environment={**environment, "TERM": "xterm-256color"})
        self._windows.append(window)
        return window

    def start_client(self, name: str, *arguments: str, password: str | None = None) -> Client:
        """Start a client that is not logged in yet; with a password, it is not asked for one."""
        environment = {} if password is None else {"CHAT_PASSWORD": password}
        return self._launch(name, [name, *arguments], environment)

    def start_nameless_client(self, *arguments: str) -> Client:
        """Start a client that has to ask for the username."""
        return self._launch("nameless", arguments, {})

    def start_lost_client(self, *arguments: str) -> Client:
        """Start a client that has to ask for the server and the username."""
        return self._launch("lost", arguments, {"CHAT_SERVER": ""})

    def stranger(self, name: str) -> Stranger:
        """Somebody else's client of the dialect register, who is in the room."""
        stranger = Stranger(name, self.door)
        self._strangers.append(stranger)
        return stranger

    def _launch(self, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Client:
        client = Client(name, self._client_program(arguments, environment), self.clock)
        self.actors.append(client)
        client.launch()
        return client

    def start_clients(self, names: Iterable[str]) -> list[Client]:
        """Start several clients at the same time."""
        return together(self.start_client, names)

    def client(self, name: str, *arguments: str) -> Client:
        """Start a client and log in with the password that the name has by default."""
        client = self.start_client(name, *arguments)
        client.log_in(password_of(name))
        return client

    def clients(self, *names: str) -> list[Client]:
        """Start several clients at the same time and log them in. Then all of them know of each other.

        Who comes and goes before that was told may not be worth a word.
        """
        clients = together(self.client, names)
        for client in clients:
            for name in names:
                client.knows(name)
        return clients

    def fence(self, sender: Client, *others: Client) -> None:
        """A message for everybody: who has seen it has seen all that came before."""
        __tracebackhide__ = True
        text = f"fence {next(self._fences)}."
        sender.say(text)
        for other in others:
            other.expect(text)

    def clock(self) -> float:
        """Seconds since the story began: the same for all transcripts."""
        return time.monotonic() - self._began

    def close(self) -> None:
        """End everything that was started."""
        for window in self._windows:
            print(window)  # shown when the story fails
            window.close()
        for stranger in self._strangers:
            stranger.close()
        together(lambda actor: actor.close(), self.actors)


def password_of(name: str) -> str:
    """The password that a name has where a story does not care."""
    return f"password of {name}"


def together(function: Callable[[Given], Made], things: Iterable[Given]) -> list[Made]:
    """Do the same with several things at the same time; all threads have ended on return."""
    with ThreadPoolExecutor(_HANDS, thread_name_prefix="hand") as hands:
        return list(hands.map(function, things))


def own_environment() -> dict[str, str]:
    """This process's environment without the settings of a chat room that the developer may have."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CHAT_")}
