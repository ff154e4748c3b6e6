"""The control socket: requests of a process that knows the data folder are answered, and no peer blocks the server."""

import socket
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from chatserver.control import CONTROL_FILE, HEALTHY, ask
from chatserver.health import main, server_arguments
from chatserver.net.control_socket import ControlSocket

WAIT_SECONDS = 10.0


@contextmanager
def answering(folder: Path, answer: Callable[[str], str] = str.upper) -> Iterator[None]:
    """A control socket that answers each request with the same word in capitals."""
    crashes: list[str] = []
    control = ControlSocket(folder, answer, crashes.append)
    control.start()
    try:
        yield
    finally:
        control.close()
    assert crashes == []


def descriptors() -> set[tuple[str, str]]:
    """The open ones, each with its file."""
    found = set()
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of this list
            found.add((each.name, str(each.readlink())))
    return found


def test_requests_are_answered_and_nothing_is_left(tmp_path: Path) -> None:
    """Only the user of the server may ask."""
    before = descriptors()
    with answering(tmp_path):
        assert stat.S_IMODE((tmp_path / CONTROL_FILE).stat().st_mode) == 0o600
        assert [ask(tmp_path, word, WAIT_SECONDS) for word in ("one", "two")] == ["ONE", "TWO"]
    assert list(tmp_path.iterdir()) == []
    assert descriptors() <= before
    with pytest.raises(OSError, match="refused"):
        ask(tmp_path, "three", WAIT_SECONDS)


def test_long_path_works(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    with answering(folder):
        assert ask(folder, "one", WAIT_SECONDS) == "ONE"
        assert (folder / CONTROL_FILE).is_socket()


def test_socket_of_a_killed_server_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as killed:
        killed.bind(str(tmp_path / CONTROL_FILE))
    with pytest.raises(ConnectionRefusedError):
        ask(tmp_path, "one", WAIT_SECONDS)
    with answering(tmp_path):
        assert ask(tmp_path, "one", WAIT_SECONDS) == "ONE"


def test_file_system_without_sockets_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another folder of the same name is not the server's."""
    bind = socket.socket.bind

    def bind_no_file(sock: socket.socket, address: str) -> None:
        if address.startswith("/"):
            raise PermissionError(1, "Operation not permitted")
        bind(sock, address)

    monkeypatch.setattr(socket.socket, "bind", bind_no_file)
    folder = tmp_path / "data"
    folder.mkdir()
    with answering(folder):
        assert not (folder / CONTROL_FILE).exists()
        assert ask(folder, "one", WAIT_SECONDS) == "ONE"
        folder.rename(tmp_path / "before")
        folder.mkdir()
        with pytest.raises(ConnectionRefusedError):
            ask(folder, "one", WAIT_SECONDS)


def test_peers_that_take_no_answer_do_not_block(tmp_path: Path) -> None:
    """Without an address, gone, or not reading."""
    address = str(tmp_path / CONTROL_FILE)
    with answering(tmp_path), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        for name in (None, ""):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as gone:
                if name is not None:
                    gone.bind(name)
                gone.sendto(b"gone", address)
        deaf.bind("")
        for _ in range(100):
            deaf.sendto(b"\xff" * 1_000, address)
        assert ask(tmp_path, "one", WAIT_SECONDS) == "ONE"


def test_hanging_server_is_given_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as hangs:
        hangs.bind(str(tmp_path / CONTROL_FILE))
        with pytest.raises(TimeoutError):
            ask(tmp_path, "one", 0.05)


@pytest.mark.parametrize(
    ("command_line", "arguments"),
    [
        (b"/opt/chat/bin/python3\0/opt/chat/bin/chatserver\0--data\0/srv\0009998\0", ["--data", "/srv", "9998"]),
        (b"python\0-m\0chatserver\0--host\0::1\0", ["--host", "::1"]),
        (b"/sbin/docker-init\0--\0chatserver\0", []),
        (b"/sbin/init\0splash\0", None),
        (b"", None),
    ],
)
def test_arguments_are_found_in_a_command_line(command_line: bytes, arguments: list[str] | None) -> None:
    assert server_arguments(command_line) == arguments


@pytest.mark.parametrize("answer", [HEALTHY, f"{HEALTHY}: it waits for NATS", "it has a cold"])
def test_health_check_without_arguments_asks_process_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str
) -> None:
    process_1, its_folder = tmp_path / "proc", tmp_path / "srv"
    (its_folder / "data").mkdir(parents=True)
    process_1.mkdir()
    (process_1 / "cmdline").write_bytes(b"python\0chatserver\0--data\0data\0")
    (process_1 / "cwd").symlink_to(its_folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["health"])
    with answering(its_folder / "data", lambda _: answer):
        assert main(process_1) == ("cold" in answer)
    complaint = "chatserver.health: The server with the data folder data is not well: it has a cold.\n"
    notes = {HEALTHY: "", "it has a cold": complaint}
    assert capsys.readouterr().err == notes.get(answer, "chatserver.health: it waits for NATS\n")
