"""Runs a conversation: a server and three scripted clients, in containers or as plain processes."""

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
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import trustme

from ops.base_image import base_image

if TYPE_CHECKING:
    from collections.abc import Iterator

TOP = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
# The scripted clients of compose.yaml.
CLIENTS = ("alice", "bob", "carol")
# A Compose project of its own: the demo must not touch a running room or another demo.
PROJECT = f"chatroom-demo-{os.getpid()}"
# Limits for a busy machine. All of it takes seconds.
ENGINE_ANSWERS_SECONDS = 60
READY_SECONDS = 60
CONVERSATION_SECONDS = 120
STOP_SECONDS = 30
_TERMINAL_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_COMPOSE_PREFIX = re.compile(r"^([a-z]+)-1( +)\|")


class DemoError(Exception):
    """The demo cannot continue. The text is the reason."""


def main() -> int:
    """Show the conversation. Returns 0 if all programs ended with exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stack", choices=["auto", "docker", "process"], default="auto")
    parser.add_argument("--tls", action="store_true", help="encrypt all connections, with certificates for this demo")
    options = parser.parse_args()
    stack = options.stack
    bin_folder = BIN.relative_to(TOP) if BIN.is_relative_to(TOP) else BIN
    # SIGTERM ends the demo like Ctrl-C, so that its programs are ended as well.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if _uses_containers(stack):
            reason = ", because a Docker engine answers" if stack == "auto" else ""
            _show(f"The demo runs in containers (compose.yaml, project {PROJECT}){reason}.")
            with _certificates(options.tls) as certificates:
                failed = _run_containers(certificates)
            start_command, join_command = "docker compose up -d server", "docker compose run --rm client dave"
        else:
            reason = ", because no Docker engine with Compose answers" if stack == "auto" else ""
            _show(f"The demo runs as plain processes{reason}.")
            with _certificates(options.tls) as certificates:
                failed = _run_processes(certificates)
            start_command, join_command = f"{bin_folder}/chatserver", f"{bin_folder}/chatclient dave"
    except DemoError as error:
        _show(f"The demo failed: {error}")
        return 1
    except KeyboardInterrupt:
        _show("Interrupted; all programs have been ended")
        return 1
    if failed:
        _show(f"The demo failed: {', '.join(failed)}")
        return 1
    _show("alice, bob and carol joined, talked and left; the server stopped. All ended with exit code 0.")
    _show(f"Start a server of your own: {start_command}")
    _show(f"Then join it, in another terminal: {join_command}; or with a browser: http://localhost:9999/")
    return 0


def _show(text: str) -> None:
    print(f"==> {text}", flush=True)


class Certificates(NamedTuple):
    """The server's certificate and key, and the folder with the root that the clients trust."""

    server: Path
    trusted: Path

    @property
    def flags(self) -> list[str]:
        """The server's flags."""
        files = self.server / "cert.pem", self.server / "key.pem"
        return ["--tls", "required", "--tls-cert", str(files[0]), "--tls-key", str(files[1])]


@contextmanager
def _certificates(is_wanted: bool) -> Iterator[Certificates | None]:  # noqa: FBT001
    """Make certificates for this demo, and remove them at its end."""
    if not is_wanted:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="chatroom-demo-") as name:
        certificates = Certificates(Path(name) / "server", Path(name) / "trusted")
        for folder in certificates:
            folder.mkdir()
        authority = trustme.CA()
        issued = authority.issue_cert("localhost", "127.0.0.1", "server")
        authority.cert_pem.write_to_path(certificates.trusted / "root.pem")
        issued.cert_chain_pems[0].write_to_path(certificates.server / "cert.pem")
        issued.private_key_pem.write_to_path(certificates.server / "key.pem")
        # For the user of the containers. The files are of no use after the demo.
        Path(name).chmod(0o755)
        for file in Path(name).glob("*/*"):
            file.chmod(0o644)
        _show("All connections are encrypted (--tls required, --ca), with certificates that exist for this demo only.")
        yield certificates


# --- in containers ---


def _uses_containers(stack: str) -> bool:
    """Raises DemoError if containers are required, and there is no engine."""
    if stack == "process":
        return False
    if _engine_answers():
        return True
    if stack == "docker":
        raise DemoError("no Docker engine with Compose answers. Without containers: make demo STACK=process")
    return False


def _engine_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    try:
        for command in (["docker", "info"], ["docker", "compose", "version"]):
            subprocess.run(command, check=True, capture_output=True, timeout=ENGINE_ANSWERS_SECONDS)
    except (subprocess.SubprocessError, OSError):
        return False
    return True


def _run_containers(certificates: Certificates | None) -> list[str]:
    """Returns the programs that failed, as text."""
    settings = {}
    if certificates is not None:
        settings = {
            "CHAT_TLS": "required",
            "CHAT_TLS_CERT": "/certificates/cert.pem",
            "CHAT_TLS_KEY": "/certificates/key.pem",
            "CHAT_CERTIFICATES": str(certificates.server),
            "CHAT_TRUSTED": str(certificates.trusted),
            "CHAT_CA": "/trusted/root.pem",
        }
    try:
        _show("Building the images (a minute the first time)")
        try:
            _compose("build", "--quiet")
        except DemoError as error:
            hint = "If the image registry can't be reached: make demo STACK=process (without containers)"
            raise DemoError(f"{error}{hint}") from error
        _show("Starting the server")
        _compose("up", "--detach", "--quiet-pull", "server", **settings)
        _show("The conversation; > marks the input of a client")
        _compose("up", "--no-deps", *CLIENTS, shown=" | ", **settings)
        failed = [f"{name} ended with {code}" for name, code in _exit_codes() if code]
        _show("The server's log; stopping it")
        _compose("stop", "--timeout", str(STOP_SECONDS), "server")
        _compose("logs", "--no-log-prefix", "server", shown="")
        failed += [f"{name} ended with {code}" for name, code in _exit_codes("server") if code]
    except BaseException:
        with suppress(DemoError):  # the first error is the cause
            _take_down()
        raise
    _take_down()
    return failed


def _take_down() -> None:
    # The images are named after the project. The builder keeps their layers.
    _compose("down", "--volumes", "--remove-orphans", "--rmi", "all")


def _compose(*arguments: str, shown: str | None = None, **settings: str) -> None:
    """Run docker compose on the demo's project, and print the output lines that contain ``shown``."""
    # On any free port, because a running room may have the default port.
    environment = {**base_image(), **inherited(), "CHAT_PORT": "0", **settings}
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
            # Compose moves the cursor and numbers the containers, even if its output is no terminal.
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


def _run_processes(certificates: Certificates | None) -> list[str]:
    """Returns the programs that failed, as text."""
    with tempfile.TemporaryDirectory(prefix="chatroom-demo-") as data:
        _show("Starting the server on a free port with an empty data folder")
        tls = () if certificates is None else certificates.flags
        server = start(data, "chatserver", "0", "--host", "127.0.0.1", "--data", data, *tls)
        try:
            server_log: list[str] = []
            port = await_port(server, server_log)
            reader = threading.Thread(target=lambda: server_log.extend(_lines(server)), name="server log")
            reader.start()
            _show("The conversation; > marks the input of a client")
            failed = _run_clients(data, port, certificates)
        finally:
            end(server)
        reader.join()
        _show("The server's log")
        print("".join(server_log), end="", flush=True)
        return failed + ([f"the server ended with {server.returncode}"] if server.returncode else [])


def inherited() -> dict[str, str]:
    """The environment without the user's settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CHAT_")}


def start(folder: str, program: str, *arguments: str, **settings: str) -> subprocess.Popen[str]:
    """Start a program in a folder without the user's .env."""
    return subprocess.Popen(
        [BIN / program, *arguments],
        cwd=folder,
        env={**inherited(), **settings, "PYTHONUNBUFFERED": "1"},
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


def await_port(server: subprocess.Popen[str], server_log: list[str]) -> str:
    """Wait until the server listens; returns its port."""
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


def _run_clients(folder: str, port: str, certificates: Certificates | None) -> list[str]:
    """Run the three clients, and print their lines in the order of arrival. Returns the clients that failed."""
    scripts = TOP / "services" / "client" / "scripts"
    settings = {} if certificates is None else {"CHAT_CA": str(certificates.trusted / "root.pem")}
    clients = {
        name: start(
            folder,
            "chatclient",
            *("127.0.0.1", port, name, "--script", str(scripts / f"{name}.chat")),
            CHAT_PASSWORD=secrets.token_urlsafe(),
            **settings,
        )
        for name in CLIENTS
    }
    lines: queue.Queue[str | None] = queue.Queue()

    def read(name: str, client: subprocess.Popen[str]) -> None:
        for line in _lines(client):
            lines.put(f"{name:<5} | {line}")
        lines.put(None)

    readers = [threading.Thread(target=read, args=item, name=f"output of {item[0]}") for item in clients.items()]
    for reader in readers:
        reader.start()
    try:
        for _ in readers:
            for line in iter(lambda: lines.get(timeout=CONVERSATION_SECONDS), None):
                print(line, end="", flush=True)
        return [f"{name} ended with {code}" for name, client in clients.items() if (code := client.wait())]
    except queue.Empty:
        return [f"no output for {CONVERSATION_SECONDS} s"]
    finally:
        for client in clients.values():
            end(client)
        for reader in readers:
            reader.join()


def end(process: subprocess.Popen[str]) -> None:
    """Terminate a process; kill it after STOP_SECONDS."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
