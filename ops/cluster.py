"""Shows a cluster on this machine: three NATS servers, three chat servers and three clients, of which some are killed.

The clients are the real ones, with the list of all three chat servers. This program types for them and reads their
output, so it knows when each of them shows a message. All data is in a temporary folder.
"""

from __future__ import annotations

import json
import os
import queue
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ops.demo import BIN, end, inherited, start
from ops.nats_servers import NatsError, NatsServers, bind_free_port

if TYPE_CHECKING:
    from collections.abc import Callable

COUNT: Final = 3
USERS: Final = ("alice", "bob", "carol")
READY_SECONDS: Final = 60.0
# Without its leader NATS stores nothing for 5 to 9 s, and a client waits some seconds between its attempts.
STEP_SECONDS: Final = 60.0
# A client takes a random server of its list, so it may need some attempts to find one for itself.
SEAT_ATTEMPTS: Final = 50
LOG_TAIL_LINES: Final = 15
TEXT_COLUMNS: Final = 62
_SLOW_MS: Final = 1000


class ClusterError(Exception):
    """The cluster does not do what it must. The text is the reason."""


class Style:
    """Escape sequences of a terminal; empty elsewhere, and with NO_COLOR."""

    def __init__(self) -> None:
        is_on = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self.bold, self.dim, self.red, self.green, self.plain = (
            f"\x1b[{code}m" if is_on else "" for code in ("1", "2", "1;31", "32", "0")
        )


STYLE: Final = Style()


def main() -> int:
    """Show the cluster. Returns 0 if everything was as it must be."""
    # SIGTERM ends the demo like Ctrl-C, so that its programs are ended as well.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    begins_at = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="chatroom-cluster-") as folder, ExitStack() as stack:
            Story(Path(folder), stack).run()
    except (ClusterError, NatsError) as error:
        _title(f"{STYLE.red}The cluster failed:{STYLE.plain} {error}")
        return 1
    except KeyboardInterrupt:
        _title("Interrupted; all programs have been ended")
        return 1
    _title(
        f"All programs have ended, after {time.monotonic() - begins_at:.0f} s. docs/cluster.md tells how to run one."
    )
    return 0


def _title(text: str) -> None:
    print(f"{STYLE.bold}==>{STYLE.plain} {text}", flush=True)


def _line(left: str, middle: str, text: str, note: str = "") -> None:
    note = f"  {STYLE.dim}{note:>7}{STYLE.plain}" if note else ""
    print(f"    {left:<6} {STYLE.dim}{middle:<8}{STYLE.plain} {text:<{TEXT_COLUMNS if note else 0}}{note}", flush=True)


def _seconds(since: float) -> str:
    ms = (time.monotonic() - since) * 1000
    return f"{ms:.0f} ms" if ms < _SLOW_MS else f"{ms / 1000:.1f} s"


class ChatServer:
    """A chat server with a folder and a port that it keeps."""

    def __init__(self, name: str, folder: Path, settings: dict[str, str]) -> None:
        self.name = name
        with bind_free_port() as reserved:
            self.port = str(reserved.getsockname()[1])
        self._folder = folder / name
        self._folder.mkdir()
        self._settings = settings
        self._log: list[str] = []
        self._changed = threading.Condition()  # guards the log
        self._reader: threading.Thread | None = None
        self._process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it. await_ready() waits."""
        folder = str(self._folder)
        arguments = ("--host", "127.0.0.1", "--port", self.port, "--data", folder, "--server-name", self.name)
        self._log.clear()
        self._process = start(folder, "chatserver", *arguments, **self._settings)
        self._reader = threading.Thread(target=self._read, name=f"log of {self.name}")
        self._reader.start()

    def await_ready(self) -> None:
        """Wait until it has read the log and accepts clients."""
        self.await_log("Waiting for connection on port", READY_SECONDS)

    def await_log(self, text: str, seconds: float) -> None:
        """Wait for a line of the log. Raises ClusterError."""

        def is_there() -> bool:
            return any(text in line for line in self._log)

        with self._changed:
            self._changed.wait_for(lambda: is_there() or not self._is_running, seconds)
            if is_there():
                return
        raise ClusterError(f"{self.name} does not say {text!r}. The end of its log:\n{self.log_tail()}")

    def count_logins(self, user: str) -> int:
        """How often this user has logged in here since the start, as far as its log has been read."""
        with self._changed:
            return sum(bool(re.search(rf"\blogin .*\b{user}\b", line)) for line in self._log)

    def log_tail(self) -> str:
        with self._changed:
            return "".join(self._log[-LOG_TAIL_LINES:])

    def kill(self) -> None:
        """End it with SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self.join()

    def stop(self) -> None:
        """End it like `docker stop`. Raises ClusterError if it fails."""
        assert self._process is not None
        end(self._process)
        self.join()
        if self._process.returncode:
            raise ClusterError(f"{self.name} ended with {self._process.returncode}\n{self.log_tail()}")

    def close(self) -> None:
        """End it in any way."""
        if self._process is not None:
            self.kill()

    def join(self) -> None:
        assert self._process is not None
        assert self._reader is not None
        self._process.wait()
        self._reader.join()

    @property
    def _is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._log.append(line)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()


class Client:
    """The program chatclient with the list of the servers. It reads lines, and writes its events as JSON."""

    def __init__(self, user: str, servers: str, password: str, folder: Path) -> None:
        self.user = user
        self.is_logged_in = False
        self.server = ""  # HOST:PORT, known after it went to another one
        # Ids of the messages that it has shown or sent, in the order of its output; the texts of those it has shown.
        self.ids: list[int] = []
        self.texts: list[str] = []
        self.sent_count = 0
        self.history: list[dict[str, Any]] | None = None
        self.errors: list[str] = []
        self._process = subprocess.Popen(
            [BIN / "chatclient", servers, user, "--json"],
            cwd=folder,
            env={**inherited(), "CHAT_PASSWORD": password, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._events: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, name=f"output of {user}")
        self._reader.start()

    def type(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def await_login(self) -> None:
        self.wait_until(lambda: self.is_logged_in, "the login")

    def await_text(self, text: str) -> None:
        """Wait until it has shown this message of another user."""
        self.wait_until(lambda: text in self.texts, f"the message {text!r}")

    def wait_until(self, holds: Callable[[], bool], what: str) -> None:
        """Take events until the condition holds. Raises ClusterError."""
        stop_at = time.monotonic() + STEP_SECONDS
        while not holds():
            try:
                line = self._events.get(timeout=max(0.0, stop_at - time.monotonic()))
            except queue.Empty:
                raise ClusterError(f"{self.user}: {what} did not happen within {STEP_SECONDS:.0f} s") from None
            if line is None:
                raise ClusterError(f"{self.user}'s client ended before {what}: {self.errors}")
            self._take(line)

    def leave(self) -> int:
        """Type EX. Returns the exit code."""
        self.type("EX")
        return self.close()

    def close(self) -> int:
        """Wait for the end of a client that leaves; end another one. Returns the exit code."""
        try:
            code = self._process.wait(STEP_SECONDS if self.is_logged_in else 0)
        except subprocess.TimeoutExpired:
            end(self._process)
            code = self._process.returncode
        self._reader.join()
        assert self._process.stdin is not None
        self._process.stdin.close()
        return code

    def kill(self) -> None:
        """End it in any way."""
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._events.put(line)
        self._events.put(None)

    def _take(self, line: str) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            self.errors.append(line.strip())
            return
        match event["type"]:
            case "login":
                self.is_logged_in = True
            case "broadcast" | "direct":
                self.ids.append(event["id"])
                self.texts.append(event["message"])
            case "sent":
                self.ids.append(event["id"])
                self.sent_count += 1
            case "history":
                self.history = event["messages"]
            case "back":
                self.server = event.get("server", self.server)
            case "error" | "lost":
                self.errors.append(line.strip())


class Story:
    """The conversation, and what happens meanwhile."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._nats: NatsServers
        self._servers: list[ChatServer] = []
        self._clients: dict[str, Client] = {}
        self._at: dict[str, ChatServer] = {}  # the server of each user
        self._passwords = {user: secrets.token_urlsafe() for user in USERS}

    def run(self) -> None:
        self._start()
        _title("A conversation over three servers. On the right: the time until the others show the message")
        self._say("alice", "Good evening from {server}. Where are you?")
        self._say("bob", "On {server}, and your message was here at once.")
        self._say("carol", "I am on {server}. Three machines, one room.")
        self._whisper("carol", "alice", "this is between us; bob can't see it")

        lost = self._at["bob"]
        _title(f"{STYLE.red}kill -9{STYLE.plain} {lost.name}, the chat server that bob is connected to")
        begins_at = time.monotonic()
        lost.kill()
        self._find_server("bob")
        _line("bob", self._at["bob"].name, "(the client has found this server by itself)", _seconds(begins_at))
        self._say("alice", "bob, your server was killed. Are you still there?")
        self._say("bob", "Yes, on {server}, and I missed nothing.")

        leader = self._nats.leader("chat")
        _title(f"{STYLE.red}kill -9{STYLE.plain} {leader.name}, the NATS server that leads the log")
        leader.kill()
        self._say("carol", "I write this while the two others elect a new leader.")
        self._say("alice", "And here it is: nothing is lost.")
        self._say("bob", "Two of three are enough.")

        _title(f"Starting {lost.name} and {leader.name} again, with their data")
        begins_at = time.monotonic()
        leader.start()
        lost.start()
        self._nats.await_ready()
        lost.await_ready()
        _line("", lost.name, "has read what it missed", _seconds(begins_at))
        self._say("bob", "All three are back. Good night!")
        self._end()

    def _start(self) -> None:
        _title("Starting three NATS servers and three chat servers on loopback; their data is in a temporary folder")
        self._nats = self._stack.enter_context(NatsServers(self._folder / "nats", COUNT))
        settings = {
            "CHAT_NATS": self._nats.url,
            "CHAT_NATS_MONITOR": ",".join(f"http://127.0.0.1:{each.monitor_port}" for each in self._nats.servers),
        }
        for number in range(1, COUNT + 1):
            server = ChatServer(f"server{number}", self._folder, settings)
            self._servers.append(server)
            self._stack.callback(server.close)
            server.start()
        for server in self._servers:
            server.await_ready()
        leader = self._nats.leader("chat").name
        names = [
            f"{each.name} :{each.port}" + (" (leads)" if each.name == leader else "") for each in self._nats.servers
        ]
        _line("NATS", "", "   ".join(names))
        _line("", "", "a message is confirmed when two of three have it on their disks")
        names = [f"{each.name} :{each.port}" for each in self._servers]
        _line("chat", "", "   ".join(names))
        _line("", "", "each has the whole history in a folder of its own")
        for user in USERS:
            self._seat(user)

    def _seat(self, user: str) -> None:
        """Start a client until it has a server for itself, because it takes any of them."""
        addresses = ",".join(each.address for each in self._servers)
        free = [server for server in self._servers if server not in self._at.values()]
        for _ in range(SEAT_ATTEMPTS):
            earlier = [server.count_logins(user) for server in self._servers]
            client = Client(user, addresses, self._passwords[user], self._folder)
            self._stack.callback(client.kill)
            client.await_login()
            server = self._find_login(user, earlier)
            if server in free:
                self._at[user] = server
                self._clients[user] = client
                return
            client.leave()
        raise ClusterError(f"{user} found no server of its own")

    def _find_login(self, user: str, earlier: list[int]) -> ChatServer:
        """The server with one more login of the user. Its log may be read a moment after the output of the client."""
        stop_at = time.monotonic() + STEP_SECONDS
        while time.monotonic() < stop_at:
            for server, count in zip(self._servers, earlier, strict=True):
                if server.count_logins(user) > count:
                    return server
            time.sleep(0.01)
        raise ClusterError(f"no server has logged the login of {user}")

    def _say(self, user: str, text: str) -> None:
        """Type a public message, wait until all others show it and the sender has the confirmation, and print it."""
        text = text.format(server=self._at[user].name)
        sender = self._clients[user]
        others = [client for client in self._clients.values() if client is not sender]
        self._send(sender, f"PM {text}", text, others)

    def _whisper(self, user: str, to: str, text: str) -> None:
        self._send(self._clients[user], f"DM {to} {text}", f"(to {to}) {text}", [self._clients[to]], text)

    def _send(self, sender: Client, line: str, shown: str, others: list[Client], text: str = "") -> None:
        text = text or shown
        count = sender.sent_count + 1
        begins_at = time.monotonic()
        sender.type(line)
        for client in others:
            client.await_text(text)
        sender.wait_until(lambda: sender.sent_count == count, f"the confirmation of {text!r}")
        _line(sender.user, self._at[sender.user].name, shown, _seconds(begins_at))

    def _find_server(self, user: str) -> None:
        """Wait until a client whose server is gone is on another one."""
        client = self._clients[user]
        client.wait_until(lambda: bool(client.server), "the connection to another server")
        self._at[user] = next(each for each in self._servers if each.address == client.server)

    def _end(self) -> None:
        """Compare the histories of all servers, and end everything."""
        _title("The history, as each of the three servers tells it to alice")
        self._clients.pop("alice").leave()
        histories = [self._read_history(server) for server in self._servers]
        for server, history in zip(self._servers, histories, strict=True):
            ids = [message["id"] for message in history]
            _line("", server.name, f"{len(ids)} messages, ids {ids[0]} to {ids[-1]}")
        if any(history != histories[0] for history in histories):
            raise ClusterError("the histories differ")
        expected = {message["id"] for message in histories[0] if message["type"] == "broadcast"}
        for user, client in self._clients.items():
            if client.ids != sorted(set(client.ids)) or not expected <= set(client.ids):
                raise ClusterError(f"{user} saw the messages {client.ids} instead of {sorted(expected)}")
        _line(
            "", "", f"{STYLE.green}Equal.{STYLE.plain} bob and carol saw each public message once, and in this order."
        )
        failed = [
            f"{user}'s client ended with {code}" for user, each in self._clients.items() if (code := each.leave())
        ]
        for server in self._servers:
            server.stop()
        if failed:
            raise ClusterError(", ".join(failed))

    def _read_history(self, server: ChatServer) -> list[dict[str, Any]]:
        client = Client("alice", server.address, self._passwords["alice"], self._folder)
        self._stack.callback(client.kill)
        client.await_login()
        client.type("CH 100")
        client.wait_until(lambda: client.history is not None, "the history")
        client.leave()
        return client.history or []
