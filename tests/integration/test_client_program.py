"""The program ``chatclient`` with pipes: its input and output, signals, exit codes, and each protocol from outside."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from integration.client_process import ClientProcess, environment, run_client
from integration.proxies import UdpProxy
from integration.room import DEADLINE_SECONDS, MALFORMED, NOT_SENT, Peer, message_to, sent
from reliability.program import Program

from chatclient import ChatClient, RefusedError
from ops.nats_servers import bind_free_port
from ops.window import until_full

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from integration.room import Room

    # Starts the program as alice, at a port, with a protocol.
    Start = Callable[..., ClientProcess]

# Questions at a pipe.
STEP = "[ask] operation (PM, DM, CH, EX)"
FOR_ALL = "[ask] message for all users"
TO_WHOM = "[ask] @USER MESSAGE or @ALL MESSAGE"
GUEST = ("[welcome guest] alice", TO_WHOM)
LOST = "[lost] the server closed the connection; connecting again"


@pytest.fixture
def clients() -> Iterator[ExitStack]:
    with ExitStack() as clients:
        yield clients


@pytest.fixture
def start(clients: ExitStack) -> Start:
    def start(port: int, protocol: str, *arguments: str, **settings: str) -> ClientProcess:
        words = ["127.0.0.1", str(port), "alice", "--dialect", protocol, *arguments]
        return clients.enter_context(ClientProcess(*words, **settings))

    return start


def said_by(port: int, sender: str) -> list[str]:
    """The texts of this user in the history, oldest first."""
    peer = Peer(port)
    peer.login("historian")
    peer.ask(command="CH", limit=500)
    messages = peer.next("history")["messages"]
    peer.close()
    return [each["message"] for each in messages if each["from"] == sender]


def shell(command: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    """Run a shell command in which ``chatclient`` is the program, as alice with a password."""
    return subprocess.run(
        ["sh", "-c", command.replace("chatclient", f"'{sys.executable}' -m chatclient")],
        env=environment(CHAT_PASSWORD="x", CHAT_USER="alice"),
        input=typed,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


# --- settings ---


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0)[:2], family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_client_connects_over_ipv6(open_room: Callable[..., Room]) -> None:
    port = open_room(host="::1").server.port
    for arguments in (f"::1 {port} alice", f"-hn [::1]:{port} alice --udp"):
        ended = shell(f"chatclient {arguments}", typed="PM hello\n")
        assert (ended.returncode, ended.stderr) == (0, "")
        assert "[sent #" in ended.stdout


def test_client_of_a_pipe_does_not_load_the_terminal() -> None:
    """prompt_toolkit would add half to the time of the start."""
    code = "import sys, chatclient.cli.app; sys.exit('prompt_toolkit' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=DEADLINE_SECONDS).returncode == 0


def test_env_file_of_another_program_is_ignored(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("if true; then\n  echo 'hello\nfi\n")
    ended = shell(f"cd '{tmp_path}' && chatclient --version")
    reason = "The file .env in this folder is not used; line 1 is not NAME=VALUE."
    assert (ended.returncode, ended.stderr) == (0, f"chatclient: {reason}\n")


def test_byte_order_mark_of_files_and_pipes_is_ignored(room: Room, tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    password, script = tmp_path / "password", tmp_path / "script"
    password.write_bytes(mark + b"secret\r\n")
    script.write_bytes(mark + b"PM from a script\n")
    run_client(room.server.port, "--password-file", str(password), "--script", str(script))
    run_client(room.server.port, typed="\ufeffPM from a pipe\n", CHAT_PASSWORD="secret")
    assert said_by(room.server.port, "alice") == ["from a script", "from a pipe"]


def test_unknown_setting_is_reported_with_a_suggestion(shared_room: Room) -> None:
    ended = run_client(
        shared_room.server.port, CHAT_USER="x", CHAT_PASSWORD="x", CHAT_DIALEKT="frames", CHAT_GUESTS="off"
    )
    assert ended.returncode == 0
    hint = "chatclient: the variable CHAT_DIALEKT is not a setting, and is ignored; did you mean CHAT_DIALECT?\n"
    assert ended.stderr == hint


# --- exit codes ---


def test_exit_codes_have_their_reasons(open_room: Callable[..., Room], clients: ExitStack, tmp_path: Path) -> None:
    """0 is for a client that leaves; see the signals."""
    room = open_room(guests="off")
    room.enter("alice")
    port, script = room.server.port, tmp_path / "script"
    script.write_text("# a comment\nPM hello\n%wait 0.1 never said\n")
    unused = clients.enter_context(bind_free_port())  # it does not listen, and keeps other tests from the port
    nowhere = unused.getsockname()[1]
    unreachable = f"can't reach 127.0.0.1:{nowhere}"
    cases: list[tuple[str, int, str]] = [
        (f"127.0.0.1 {nowhere} alice", 1, f"[error lost] {unreachable}: Connection refused"),
        (f"127.0.0.1 {nowhere} alice --udp", 1, f"[error lost] {unreachable} over UDP: Connection refused"),
        (f"127.0.0.1 {port} alice --script {tmp_path}", 2, f"chatclient: The script file {tmp_path} can't be read"),
        (f"127.0.0.1 {port} alice", 3, "[error wrong_password] "),
        (f"127.0.0.1 {port} alice --dialect register", 3, "[error not_logged_in] The server rejected alice "),
        (
            f"127.0.0.1 {port} bob --script {script}",
            4,
            "[error script] line 3: 'never said' did not appear within 0.1 s",
        ),
    ]
    started = [clients.enter_context(ClientProcess(*case[0].split(), CHAT_PASSWORD="wrong")) for case in cases]
    for client, (_, code, beginning) in zip(started, cases, strict=True):
        lines = [client.line()]
        while lines[-1]:
            lines.append(client.line())
        assert any(line.startswith(beginning) for line in lines), lines
        client.expect_exit(code)


def test_password_of_a_script_is_not_printed(shared_room: Room, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("very secret\nPM hello\n")
    ended = run_client(shared_room.server.port, "-u", "scripted", "--script", str(script))
    assert ended.returncode == 0, ended.stdout
    assert "> ***\n" in ended.stdout
    assert "> PM hello\n" in ended.stdout
    assert "very secret" not in ended.stdout


def test_server_of_another_protocol_is_one_line(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = start(listening.getsockname()[1], "json", CHAT_PASSWORD="x")
        connection, _ = listening.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            assert client.line().startswith("[error lost] ")
            client.expect_exit(1)


# --- standard streams ---


@pytest.mark.parametrize(("protocol", "count"), [("json", 5_000), ("datagram", 300)])
def test_lines_of_a_pipe_are_sent_in_order(room: Room, protocol: str, count: int) -> None:
    """Also more lines than any buffer holds. The first one is the password; the end of the input leaves."""
    watcher = room.enter("watcher")
    texts = [f"{number} {'x' * 200}" for number in range(count)]
    typed = "secret\n" + "".join(f"PM {text}\n" for text in texts)
    ended = run_client(room.server.port, "--dialect", protocol, typed=typed)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.count("[sent #") == count
    assert ended.stdout.splitlines()[-1] == "[bye] you left"
    assert [watcher.next("broadcast")["message"] for _ in texts] == texts


def test_closed_and_full_streams_are_no_traceback(shared_room: Room) -> None:
    client = f"chatclient 127.0.0.1 {shared_room.server.port}"
    ended = shell(f"{client} <&-")
    assert (ended.returncode, ended.stderr) == (0, ""), "a closed input is an empty one"
    ended = shell(f"{client} >/dev/full", "PM hello\n")
    assert ended.returncode == 1
    assert ended.stderr == "chatclient: can't write the output: No space left on device\n"
    ended = shell(f"{client} | head -1", "PM 1\nPM 2\nPM 3\n")
    assert ended.stdout.startswith("[welcome existing] alice")
    assert ended.stderr == ""


def test_second_interrupt_ends_a_client_whose_output_is_blocked(shared_room: Room) -> None:
    pipe = subprocess.PIPE
    words = [sys.executable, "-m", "chatclient", "127.0.0.1", str(shared_room.server.port), "blocked"]
    with subprocess.Popen(words, env=environment(CHAT_PASSWORD="x"), stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(9) == b"[welcome "
        process.stdin.write(b"/help\n" * 500)
        process.stdin.flush()
        until_full(process.pid)
        give_up_at = time.monotonic() + DEADLINE_SECONDS
        while process.poll() is None:  # signals that come together are one
            assert time.monotonic() < give_up_at
            process.send_signal(signal.SIGINT)
            time.sleep(0.1)
        assert process.returncode == 1
        assert b"the output is not read" in process.stderr.read()


# --- signals ---


NAMES = "SIGINT SIGTERM SIGHUP SIGQUIT SIGUSR1 SIGUSR2 SIGALRM SIGXCPU"
ENDING_SIGNALS = [signal.Signals[name] for name in NAMES.split()]


def test_signal_ends_with_a_goodbye_and_0(room: Room, start: Start) -> None:
    """The client handles all ENDING_SIGNALS, except those that a parent process such as nohup has set to ignored."""
    bob = room.enter("bob")
    client = start(room.server.port, "datagram", CHAT_PASSWORD="x")
    assert client.line().startswith("[welcome new] alice")
    status = Path(f"/proc/{client.pid}/status").read_text(encoding="ascii")
    caught = int(re.search(r"SigCgt:\s*([0-9a-f]+)", status)[1], 16)  # type: ignore[index]
    handled = [each for each in ENDING_SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
    assert [each for each in handled if not caught >> (each - 1) & 1] == []
    client.send_signal(signal.SIGUSR1)
    client.until("[bye] you left")
    client.expect_exit(0)
    while "alice" not in bob.next("users")["left"]:
        pass


def test_crash_of_the_client_writes_no_core() -> None:
    """It would contain the password."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        with ClientProcess("--dialect", "register") as client:
            client.expect("[ask] server, HOST or HOST PORT (localhost 9999)")
            assert resource.prlimit(client.pid, resource.RLIMIT_CORE)[0] == 0
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)


def test_interrupt_at_a_question_ends_with_1() -> None:
    with ClientProcess("--dialect", "register") as client:
        client.expect("[ask] server, HOST or HOST PORT (localhost 9999)")
        client.send_signal(signal.SIGINT)
        client.expect_exit(1)


def test_interrupt_ends_the_reading_of_a_script_without_a_traceback(tmp_path: Path) -> None:
    script = tmp_path / "script"
    os.mkfifo(script)
    words = [sys.executable, "-m", "chatclient", "127.0.0.1", "1", "alice", "--script", str(script)]
    with subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        with script.open("wb"):  # as soon as the client has opened it, too
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=DEADLINE_SECONDS) == (b"", b"")
        assert process.returncode == 0


def test_interrupt_ends_a_login_that_the_server_does_not_answer(start: Start) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.settimeout(DEADLINE_SECONDS)
        client = start(silent.getsockname()[1], "datagram")
        silent.recv(2_048)
        client.send_signal(signal.SIGINT)
        client.expect_exit(1)


# --- a server that ends, is killed, or starts again ---


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Program]:
    with Program(tmp_path) as server:
        yield server


def restart_with(server: Program, *texts: str) -> None:
    """Start the killed server on another port, send texts as bob, and start it again on its own port."""
    port = server.port
    server.start()
    bob = Peer(server.port)
    bob.login("bob")
    for text in texts:
        bob.say(text)
    bob.close()
    server.kill()
    server.start(port)


def test_message_over_udp_is_stored_once_if_the_server_is_killed(server: Program, start: Start) -> None:
    """Promise: once. The confirmation is lost before."""
    with UdpProxy(server.port) as proxy:
        client = start(proxy.port, "datagram", CHAT_PASSWORD="x")
        client.expect("[welcome new] alice", STEP)
        client.type("PM before")
        client.expect("[sent #1]", STEP)
        client.type("PM")
        client.expect(FOR_ALL)
        bob = Peer(server.port)
        bob.login("bob")
        proxy.loses_answers = True
        client.type("hello")
        assert bob.next("broadcast")["message"] == "hello"
        bob.close()
        server.kill()
        restart_with(server, "missed")
        proxy.loses_answers = False
        assert client.line().startswith("[lost] ")
        client.expect("[back] alice", "[public #3] bob: missed", "[sent #2]", STEP)
        client.leave()
    assert said_by(server.port, "alice") == ["before", "hello"]


# --- register: a guest with two connections ---


class GuestServer:
    """The server's side of a guest's two connections, played by hand."""

    def __init__(self, connections: ExitStack) -> None:
        self._connections = connections
        self._listening = connections.enter_context(socket.create_server(("127.0.0.1", 0)))
        self._listening.settimeout(DEADLINE_SECONDS)
        self.port = int(self._listening.getsockname()[1])

    def accept(self, answer: bytes = b"REGISTERED TOSEND alice\n\n") -> tuple[socket.socket, socket.socket]:
        """Accept both connections, and answer the first registration. The second follows if it succeeded."""
        sending, receiving = (self._connections.enter_context(self._listening.accept()[0]) for _ in range(2))
        for each in (sending, receiving):
            each.settimeout(DEADLINE_SECONDS)
        expect_bytes(sending, b"REGISTER TOSEND alice\n\n")
        sending.sendall(answer)
        if answer.startswith(b"REGISTERED"):
            expect_bytes(receiving, b"REGISTER TORECV alice\n\n")
            receiving.sendall(b"REGISTERED TORECV alice\n\n")
        return sending, receiving


def expect_bytes(connection: socket.socket, expected: bytes) -> None:
    """These bytes are the next; an empty value is the end."""
    heard = b""
    while len(heard) < len(expected) and (data := connection.recv(len(expected) - len(heard))):
        heard += data
    assert heard == expected if expected else connection.recv(1) == b""


@pytest.fixture
def guest_server() -> Iterator[GuestServer]:
    with ExitStack() as connections:
        yield GuestServer(connections)


def test_guest_sends_on_one_connection_and_acknowledges_on_the_other(guest_server: GuestServer, start: Start) -> None:
    """Each connection is read independently: two guests that write to each other must not wait for each other."""
    client = start(guest_server.port, "register", "--register-length", "characters")
    sending, receiving = guest_server.accept()
    client.expect(*GUEST)
    text = "Content-length: 5\n\nGrüße".encode()
    client.type("@bob Grüße", "@bob second")
    expect_bytes(sending, b"SEND bob\n" + text)
    receiving.sendall(b"FORWARD bob\n" + text[:10])
    sending.sendall(NOT_SENT)
    why = "no such user, or not acknowledged in time"
    client.expect(f"[error not_delivered] @bob: {why}", TO_WHOM)
    expect_bytes(sending, message_to("bob", "second"))
    receiving.sendall(text[10:] + b"FORWARD carol\n" + text)
    expect_bytes(receiving, b"RECEIVED bob\n\nRECEIVED carol\n\n")
    client.expect("[message] bob: Grüße", "[message] carol: Grüße")
    client.type("EX")
    sending.sendall(sent("bob"))
    client.expect_exit(0, "[delivered] @bob", TO_WHOM, "[bye] you left")
    expect_bytes(sending, b"")
    expect_bytes(receiving, b"")


def test_guest_reconnects_if_one_of_two_connections_ends(guest_server: GuestServer, start: Start) -> None:
    """The name may be taken for a while. A message without an answer is not sent again, and the exit code is 1."""
    client = start(guest_server.port, "register")
    connections = guest_server.accept()
    client.expect(*GUEST)
    client.type("@bob hello", "@bob typed after it")
    expect_bytes(connections[0], message_to("bob", "hello"))
    connections[1].close()
    expect_bytes(connections[0], b"")
    client.expect(LOST)
    for connection in guest_server.accept(MALFORMED):
        expect_bytes(connection, b"")
    client.expect("[error bad_username] The name alice is taken now; trying again.")
    sending, _ = guest_server.accept()
    unknown = "[error lost] it is not known whether this was delivered: hello"
    client.expect("[back] alice", "[error lost] messages may have been missed", unknown, TO_WHOM)
    expect_bytes(sending, message_to("bob", "typed after it"))
    sending.sendall(sent("bob"))
    client.expect("[delivered] @bob", TO_WHOM)
    client.leave(1)


# --- rooms ---


def test_script_and_pipe_write_to_rooms(room: Room, tmp_path: Path) -> None:
    """Lines of a room have it in their brackets. A failed join sends nothing to all users."""
    bob = room.enter("bob")
    script = tmp_path / "script"
    script.write_text(
        "/join dev\n%wait [room #dev]\nPM hello dev\n%wait bob: hello alice\nCH\n/topic tea\n%wait [topic #dev] alice\n"
        "/room lobby\nPM hello all\n/part dev\n%wait [parted #dev]\n"
    )
    with ClientProcess(
        "127.0.0.1", str(room.server.port), "alice", "--script", str(script), CHAT_PASSWORD="x"
    ) as alice:
        lines = alice.until("[sent #1]")
        assert lines[1:] == [
            "> /join dev", "[entered #dev owner] online: alice", "[room #dev]",
            "> PM hello dev", "[sent #1]",
        ]  # fmt: skip
        bob.ask(command="join", room="dev")
        bob.ask(command="PM", room="dev", message="hello alice")
        lines = alice.until("[bye] you left")
    assert [line for line in lines if line != "[joined #dev] bob"] == [
        "[public #2 #dev] bob: hello alice",
        "> CH", "> /topic tea",
        "[history 2 #dev]", "[history #1 #dev] alice: hello dev", "[history #2 #dev] bob: hello alice",
        "[topic #dev] alice: tea",
        "> /room lobby", "[room #lobby]", "> PM hello all", "> /part dev", "[sent #3]", "[parted #dev]",
        "[bye] you left",
    ]  # fmt: skip
    ended = run_client(room.server.port, typed="/room nosuch\n/join dev\nPM one\n", CHAT_PASSWORD="x")
    assert "[error usage] You are not in #nosuch; /join enters it, /rooms lists the rooms." in ended.stdout
    bob.ask(command="join", room="secret", private=True)
    ended = run_client(room.server.port, "--json", typed="/join secret\nPM two\n", CHAT_PASSWORD="x")
    codes = [each.get("code") for each in map(json.loads, ended.stdout.splitlines()) if each["type"] == "error"]
    assert codes == ["unknown_room", "unknown_room"]
    assert said_by(room.server.port, "alice") == ["hello all"]


def test_pipe_waits_for_the_rate_of_the_server(open_room: Callable[..., Room]) -> None:
    """All lines are sent, in their order. A program gets the time and decides."""
    room = open_room(exempt=(), message_burst=3, message_rate=2.0, message_delay_seconds=0.0)
    bob = room.enter("bob")
    lines = "".join(f"PM {number}\n" for number in range(6))
    result = run_client(room.server.port, typed=f"{lines}EX\n", CHAT_PASSWORD="x")
    assert result.returncode == 0
    assert result.stdout.count("[sent #") == 6
    assert [bob.next("broadcast")["message"] for _ in range(6)] == ["0", "1", "2", "3", "4", "5"]
    room.close()
    room = open_room(exempt=(), message_burst=3, message_rate=0.01, message_delay_seconds=0.0)
    with ChatClient("127.0.0.1", room.server.port) as client:
        client.login("alice", "x")
        with pytest.raises(RefusedError) as refused:
            list(map(client.say, ["hello"] * 5))
    assert refused.value.code == "rate_limited"
    assert 0.0 < (refused.value.retry_seconds or 0.0) <= 100.0
