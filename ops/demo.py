"""The main job in one command: a server and three scripted clients, in containers or as plain processes."""

from __future__ import annotations

import argparse
import os
import queue
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from ops.base_image import base_image

if TYPE_CHECKING:
    from collections.abc import Iterator

TOP = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
# The scripted clients of compose.yaml.
CLIENTS = ("alice", "bob", "carol")
# A project of its own, so that neither a room that runs here already nor another demo is touched.
PROJECT = f"chatroom-demo-{os.getpid()}"
ENGINE_ANSWERS_SECONDS = 10
READY_SECONDS = 15
CONVERSATION_SECONDS = 120
STOP_SECONDS = 10
_TERMINAL_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_COMPOSE_PREFIX = re.compile(r"^([a-z]+)-1( +)\|")


class DemoError(Exception):
    """The demo can't go on. The text says why."""


def main() -> int:
    """Show the conversation; 0 when every client ended well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stack", choices=["auto", "docker", "process"], default="auto")
    stack = parser.parse_args().stack
    # So that what was started is ended, whoever ends the demo.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if stack == "docker" or (stack == "auto" and _engine_answers()):
            found = "A Docker engine answers: the" if stack == "auto" else "The"
            _say(f"{found} demo runs in containers (compose.yaml, as project {PROJECT}).")
            failed = _run_containers()
            follow_up = "docker compose up -d server && docker compose run --rm client dave"
        else:
            _say(
                "The demo runs as plain processes"
                + (", for no Docker engine with Compose answers." if stack == "auto" else ".")
            )
            failed = _run_processes()
            follow_up = f"{_shown(BIN)}/chatserver, and in another terminal: {_shown(BIN)}/chatclient dave"
    except DemoError as error:
        _say(f"The demo failed: {error}")
        return 1
    except KeyboardInterrupt:
        _say("Interrupted; everything was taken down")
        return 1
    if failed:
        _say(f"The demo failed: {', '.join(failed)}")
        return 1
    _say("alice, bob and carol came, talked and left; the server stopped. All ended with exit code 0.")
    _say(f"Come in yourself: {follow_up}")
    return 0


def _say(text: str) -> None:
    print(f"==> {text}", flush=True)


def _shown(path: Path) -> str:
    """A path as one would type it from the top of the repository."""
    return str(path.relative_to(TOP)) if path.is_relative_to(TOP) else str(path)


# --- in containers ---


def _engine_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    try:
        for command in (["docker", "info"], ["docker", "compose", "version"]):
            subprocess.run(command, check=True, capture_output=True, timeout=ENGINE_ANSWERS_SECONDS)
    except (subprocess.SubprocessError, OSError):
        return False
    return True


def _run_containers() -> list[str]:
    """Returns what failed, as text."""
    try:
        _say("Building the images (a minute the first time)")
        _compose("build", "--quiet")
        _say("Starting the server")
        _compose("up", "--detach", "--quiet-pull", "server")
        _say("The conversation; > marks what a client types")
        _compose("up", "--no-deps", *CLIENTS, shown=" | ")
        failed = [f"{name} ended with {code}" for name, code in _exit_codes() if code]
        _say("The server's log; stopping it")
        _compose("stop", "--timeout", str(STOP_SECONDS), "server")
        _compose("logs", "--no-log-prefix", "server", shown="")
        return failed + [f"{name} ended with {code}" for name, code in _exit_codes("server") if code]
    finally:
        # With the images, which are named after the project; the builder keeps their layers.
        _compose("down", "--volumes", "--remove-orphans", "--rmi", "all")


def _compose(*arguments: str, shown: str | None = None) -> None:
    """Run docker compose on the demo's own project, and print those of its lines that have the text ``shown``."""
    # The user's settings are not for the demo. Any free port: a room that runs here already may have the usual one.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CHAT_")}
    environment = {**base_image(), **inherited, "CHAT_PORT": "0"}
    with subprocess.Popen(
        ["docker", "compose", "--project-name", PROJECT, "--env-file", os.devnull, *arguments],
        cwd=TOP,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        output = []
        for line in _lines(process):
            # Compose moves the cursor and numbers the containers, even where nobody looks.
            output.append(_COMPOSE_PREFIX.sub(r"\1\2|", _TERMINAL_CONTROL.sub("", line)))
            if shown is not None and shown in output[-1]:
                print(output[-1], end="", flush=True)
    if process.returncode:
        problem = "".join(output[-20:])
        raise DemoError(f"docker compose {' '.join(arguments)} ended with {process.returncode}\n{problem}")


def _exit_codes(*names: str) -> Iterator[tuple[str, int]]:
    for name in names or CLIENTS:
        inspected = subprocess.run(
            ["docker", "inspect", "--format", "{{.State.ExitCode}}", f"{PROJECT}-{name}-1"],
            check=False,
            capture_output=True,
            text=True,
        )
        yield name, int(inspected.stdout.strip() or -1)


# --- as plain processes ---


def _run_processes() -> list[str]:
    """Returns what failed, as text."""
    with tempfile.TemporaryDirectory(prefix="chatroom-demo-") as data:
        _say("Starting the server on a free port, with a data folder of its own")
        server = _start(data, "chatserver", "0", "--host", "127.0.0.1", "--data", data)
        try:
            server_log: list[str] = []
            port = _await_port(server, server_log)
            collector = threading.Thread(target=lambda: server_log.extend(_lines(server)), name="server log")
            collector.start()
            _say("The conversation; > marks what a client types")
            failed = _converse(data, port)
        finally:
            _end(server)
        collector.join()
        _say("The server's log")
        print("".join(server_log), end="", flush=True)
        return failed + ([f"the server ended with {server.returncode}"] if server.returncode else [])


def _start(folder: str, program: str, *arguments: str, **settings: str) -> subprocess.Popen[str]:
    """Start a program in a folder where no .env of the user's is found."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CHAT_")}
    return subprocess.Popen(
        [BIN / program, *arguments],
        cwd=folder,
        env={**inherited, **settings, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:  # noqa: UP028 - yield from would close the pipe together with this generator
        yield line


def _await_port(server: subprocess.Popen[str], server_log: list[str]) -> str:
    alarm = threading.Timer(READY_SECONDS, server.kill)
    alarm.start()
    try:
        for line in _lines(server):
            server_log.append(line)
            if found := re.search(r"Waiting for connection on port (\d+)", line):
                return found.group(1)
    finally:
        alarm.cancel()
        alarm.join()
    raise DemoError("the server did not start\n" + "".join(server_log))


def _converse(folder: str, port: str) -> list[str]:
    """Run the three clients to their ends, and print their lines in the order in which they come."""
    scripts = TOP / "services" / "client" / "scripts"
    clients = {
        name: _start(
            folder,
            "chatclient",
            *("127.0.0.1", port, name, "--script", str(scripts / f"{name}.chat")),
            CHAT_PASSWORD=secrets.token_urlsafe(),
        )
        for name in CLIENTS
    }
    shown: queue.Queue[str | None] = queue.Queue()

    def collect(name: str, client: subprocess.Popen[str]) -> None:
        for line in _lines(client):
            shown.put(f"{name:<5} | {line}")
        shown.put(None)

    collectors = [threading.Thread(target=collect, args=item, name=f"{item[0]}'s lines") for item in clients.items()]
    for collector in collectors:
        collector.start()
    try:
        for _ in collectors:
            for line in iter(lambda: shown.get(timeout=CONVERSATION_SECONDS), None):
                print(line, end="", flush=True)
        return [f"{name} ended with {code}" for name, client in clients.items() if (code := client.wait())]
    except queue.Empty:
        return [f"nothing was said for {CONVERSATION_SECONDS} s"]
    finally:
        for client in clients.values():
            _end(client)
        for collector in collectors:
            collector.join()


def _end(process: subprocess.Popen[str]) -> None:
    """Ask it to end; insist after a while."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
