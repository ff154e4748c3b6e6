"""The program ``chatserver``: how it starts, how it refuses to, and how it ends."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import ssl
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from integration.room import DEADLINE_SECONDS, Peer, deadline
from reliability.peers import NarrowPeer
from reliability.program import Program, own_environment

from ops.nats_servers import bind_free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

    from certificates import Authority


REPOSITORY = Path(__file__).resolve().parents[2]
# Limit of an end: at most 8 s on a machine that does not stall. A server that waits for a client needs a minute.
END_SECONDS = 20.0


@pytest.fixture
def environment() -> dict[str, str]:
    return own_environment()


def refused(folder: Path, environment: dict[str, str], *arguments: str, under: Sequence[str] = ()) -> str:
    """Run the program, ``under`` another command, where it can't start. Returns the one line that it prints."""
    process = subprocess.run(
        [*under, sys.executable, "-m", "chatserver", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert process.returncode == 2, process.stdout + process.stderr
    assert process.stdout == ""
    assert process.stderr.count("\n") == 1, process.stderr
    assert process.stderr.startswith("chatserver: ")
    return process.stderr


# A test runner may ignore some, and its children inherit that.
DEFAULT_SIGNALS = ("env", "--default-signal")
NAMES = "SIGTERM SIGINT SIGHUP SIGQUIT SIGUSR1 SIGUSR2 SIGALRM SIGXCPU"


def send_together(server: Program, *names: str) -> None:
    """Send signals, which the server gets at the same time, also on a machine that stalls."""
    server.suspend()
    for name in names:
        server.process.send_signal(signal.Signals[name])
    server.resume()


def test_signal_ends_with_0_and_a_goodbye(tmp_path: Path) -> None:
    """All these signals are handled. More of them until the end, also SIGHUP, do not change the exit code."""
    with Program(tmp_path, under=DEFAULT_SIGNALS) as server:
        status = Path(f"/proc/{server.process.pid}/status").read_text(encoding="ascii")
        caught = int(re.search(r"SigCgt:\s*([0-9a-f]+)", status)[1], 16)  # type: ignore[index]
        assert [name for name in NAMES.split() if not caught >> (signal.Signals[name] - 1) & 1] == []
        alice, stranger = Peer(server.port), Peer(server.port)
        alice.login("alice")
        stranger.ask(command="ping")
        send_together(server, "SIGQUIT", "SIGTERM", "SIGHUP")
        for peer in (alice, stranger):
            assert peer.next("bye")["reason"] == "the server is shutting down"
            assert peer.is_closed()
            peer.close()
        assert server.process.wait(DEADLINE_SECONDS) == 0


# Runs ``python -m`` with a Ctrl-C when it imports a module: in a callback, as those of the import system, which loses
# exceptions.
INTERRUPTED = """
import runpy, signal, sys, weakref
module, program, *arguments = sys.argv[1:]
class Interrupt:
    def find_spec(self, name, *_):
        if name == module:
            reference = weakref.ref(Interrupt(), lambda _: signal.raise_signal(signal.SIGINT))
sys.meta_path.insert(0, Interrupt())
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = [program, *arguments]
runpy.run_module(program, run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("module", "command", "code"),
    [
        ("chatserver.program", "chatserver", 0),
        ("chatserver.app", "chatserver", 0),
        ("chatserver.program", "chatserver admin users", 1),
        ("chatserver.admin.commands", "chatserver admin users", 1),
        ("chatclient.cli.program", "chatclient", 0),
        ("chatclient.cli.app", "chatclient", 0),
        ("trustme", "ops demo", 130),
    ],
)
def test_interrupt_of_an_import_ends_without_a_traceback(
    module: str, command: str, code: int, tmp_path: Path, environment: dict[str, str]
) -> None:
    words = [sys.executable, "-c", INTERRUPTED, module, *command.split()]
    path = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {**environment, "PYTHONPATH": os.pathsep.join(path)}
    process = subprocess.run(words, cwd=tmp_path, env=variables, capture_output=True, timeout=30, check=False)
    assert (process.returncode, process.stdout, process.stderr) == (code, b"", b"")


def test_closed_standard_streams_become_dev_null(tmp_path: Path) -> None:
    """Otherwise a fatal error could be written into the database, opened under descriptor 2."""
    with Program(tmp_path, under=("sh", "-c", 'exec "$@" <&- 2>&-', "sh")) as server:
        descriptors = Path(f"/proc/{server.process.pid}/fd")
        assert [str((descriptors / number).readlink()) for number in "02"] == ["/dev/null"] * 2


def test_unknown_setting_is_logged_with_a_suggestion(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CHAT_REGISTRATON=closed\nCHAT_PUBLISH=127.0.0.1\n")
    with Program(tmp_path, CHAT_GEUSTS="off", CHAT_QUIET="yes") as server:
        warnings = [line.partition(" time=")[0] for line in server.log().splitlines() if "[WARNING]" in line]

    assert warnings == [
        "[WARNING] unknown setting ignored name=CHAT_GEUSTS did_you_mean=CHAT_GUESTS",
        "[WARNING] unknown setting ignored name=CHAT_REGISTRATON did_you_mean=CHAT_REGISTRATION",
    ]


def test_second_signal_within_a_second_is_ignored_and_a_later_one_kills(tmp_path: Path) -> None:
    """timeout(1) and some supervisors send two signals. The end would take 3 s, because a client does not read."""
    with (
        Program(tmp_path, under=DEFAULT_SIGNALS) as server,
        closing(NarrowPeer(server.port)) as deaf,
        closing(Peer(server.port)) as alice,
    ):
        deaf.login("deaf")
        alice.login("alice")
        for _ in range(100):
            alice.say("x" * 8_000)
        send_together(server, "SIGTERM", "SIGQUIT")
        assert alice.next("bye")["reason"] == "the server is shutting down"
        server.suspend()  # otherwise the end could be complete before the next signal
        time.sleep(1.0)
        server.process.send_signal(signal.SIGTERM)
        server.resume()
        assert server.process.wait(DEADLINE_SECONDS) == -signal.SIGTERM


def test_sighup_applies_what_can_change_and_names_the_rest(tmp_path: Path) -> None:
    """After an invalid value nothing has changed, and the server goes on."""
    settings = tmp_path / ".env"
    settings.write_text("CHAT_EXEMPT=none\n")
    with Program(tmp_path, under=DEFAULT_SIGNALS) as server:

        def reload(text: str, expected: str) -> None:
            settings.write_text(f"CHAT_EXEMPT=none\n{text}")
            server.process.send_signal(signal.SIGHUP)
            server.wait_until(lambda: expected in server.log(), expected)

        reload("", "[INFO] settings reloaded changed=none")
        alice = Peer(server.port)
        alice.login("alice")
        reload("CHAT_REGISTRATION=closed\nCHAT_LOG_LEVEL=loud\n", "reload failed error=\"CHAT_LOG_LEVEL is 'loud'")
        assert result(server, "bob") == "login"
        server.wait_until(lambda: "login user=bob" in server.log(), "the entry in the log")
        reload(
            "CHAT_REGISTRATION=closed\nCHAT_ROOMS=off\nCHAT_QUERY_BURST=1\nCHAT_QUERY_RATE=0.1\nCHAT_MESSAGE_BURST=1\n"
            "CHAT_MESSAGE_RATE=0.01\nCHAT_LOG_LEVEL=warning\nCHAT_LOGIN_SECONDS=9\nCHAT_LOG_FORMAT=json\n",
            "[WARNING] restart needed settings='login_seconds, log_format'",
        )
        assert result(server, "carol") == "wrong_password"
        alice.ask(command="join", room="den")
        assert alice.next("error")["code"] == "unknown_room"
        alice.ask(command="CH")
        assert alice.next("error")["code"] == "rate_limited"
        alice.say("the only one")
        alice.ask(command="PM", message="one more")
        assert alice.next("error")["code"] == "rate_limited"
        reload("", "changed='registration, rooms, message_burst, message_rate, query_burst, query_rate, log_level'")
        assert result(server, "carol") == "login"
        alice.ask(command="join", room="den")
        assert alice.next("joined", "error")["type"] == "joined"
        server.wait_until(lambda: "login user=carol" in server.log(), "the entry in the log")
        assert re.findall(r"login user=(\w+)", server.log()) == ["alice", "bob", "carol"]
        alice.close()
        assert server.stop() == 0


def result(server: Program, name: str) -> str:
    """The type of the answer to a login, or the code of the error."""
    with closing(Peer(server.port)) as peer:
        peer.ask(command="login", username=name, password="secret")
        answer = peer.next("login", "error")
        return str(answer.get("code", answer["type"]))


def test_sighup_reads_the_certificate_again(authority: Authority, tmp_path: Path) -> None:
    """If it can't be used, the old one stays, and no setting has changed."""
    files = authority.write(tmp_path)
    settings = tmp_path / ".env"
    with Program(tmp_path, CHAT_TLS_CERT=str(files.certificate), CHAT_TLS_KEY=str(files.key)) as server:
        old = served_certificate(server.port)
        authority.write(tmp_path)
        server.process.send_signal(signal.SIGHUP)
        server.wait_until(lambda: "settings reloaded" in server.log(), "the reload")
        new = served_certificate(server.port)
        assert new != old
        files.certificate.write_text("rubbish")
        settings.write_text("CHAT_REGISTRATION=closed\n")
        server.process.send_signal(signal.SIGHUP)
        server.wait_until(lambda: "[ERROR] reload failed error='The file " in server.log(), "the error")
        assert served_certificate(server.port) == new
        assert result(server, "alice") == "login"


def served_certificate(port: int) -> bytes:
    """The certificate that the server shows."""
    return ssl.get_server_certificate(("127.0.0.1", port), timeout=DEADLINE_SECONDS).encode()


def test_sigusr1_logs_the_stacks_of_all_threads(tmp_path: Path) -> None:
    """Equal stacks are one entry. The server goes on."""
    with Program(tmp_path, under=DEFAULT_SIGNALS) as server:
        peers = [Peer(server.port) for _ in range(20)]
        for peer in peers:
            peer.ask(command="ping")
            peer.next("pong")
        server.process.send_signal(signal.SIGUSR1)
        server.wait_until(lambda: "stacks logged" in server.log(), "the stacks")
        log = server.log()
        sender = r"\[WARNING\] stack count=1 threads=sender time=\S+\n(?:  \S+:\d+ \S+\n)*  \S+/sender.py:"
        assert re.search(sender, log)
        assert re.search(r"\[WARNING\] stack count=\d+ threads='reader \d+@", log)
        assert log.count("[WARNING] stack ") < len(peers)
        for peer in peers:
            peer.close()
        assert server.stop() == 0


def test_crash_writes_no_core(tmp_path: Path) -> None:
    """It would contain passwords."""
    with Program(tmp_path, under=("prlimit", "--core=unlimited")) as server:
        assert resource.prlimit(server.process.pid, resource.RLIMIT_CORE)[0] == 0


def test_client_that_does_not_read_delays_the_end_by_seconds_only(tmp_path: Path) -> None:
    with Program(tmp_path) as server:
        deaf, alice = Peer(server.port), Peer(server.port)
        deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        deaf.login("deaf")
        alice.login("alice")
        for _ in range(800):
            alice.say("x" * 8_000)
        with deadline(END_SECONDS, "the shutdown"):
            assert server.stop() == 0
        for peer in (deaf, alice):
            peer.close()


def test_env_file_is_read_and_a_taken_port_is_named(tmp_path: Path, environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        (tmp_path / ".env").write_text(f"CHAT_PORT={port}\n")
        assert f"port {port}" in refused(tmp_path, environment, "--host", "127.0.0.1")
        assert f"127.0.0.1:{port}" in refused(tmp_path, environment, "0", "--metrics", f"127.0.0.1:{port}")


def test_env_file_that_is_a_pipe_is_refused(tmp_path: Path, environment: dict[str, str]) -> None:
    os.mkfifo(tmp_path / ".env")
    told = refused(tmp_path, environment, "0")
    assert "The file .env can't be used: it is not a file of at most 65,536 bytes. Correct or remove it" in told


def test_invalid_setting_is_one_line_that_names_it(tmp_path: Path, environment: dict[str, str]) -> None:
    """The settings are a variable, and an address that is not this machine's."""
    assert "CHAT_LOG_LEVEL" in refused(tmp_path, environment | {"CHAT_LOG_LEVEL": "loud"})
    assert "192.0.2.1" in refused(tmp_path, environment, "0", "--host", "192.0.2.1")


def damage_page(database: Path) -> None:
    data = bytearray(database.read_bytes())
    data[4_096 + 100 : 3 * 4_096] = b"\xaa" * (2 * 4_096 - 100)
    database.write_bytes(data)


def test_damaged_database_is_refused_and_not_changed(tmp_path: Path, environment: dict[str, str]) -> None:
    with Program(tmp_path) as server:
        alice = Peer(server.port)
        alice.login("alice")
        for _ in range(50):
            alice.say("x" * 1_000)
        alice.close()
        server.stop()
    database = tmp_path / "data" / "chat.db"
    healthy = database.read_bytes()
    damage_page(database)
    damaged = database.read_bytes()
    assert str(database) in refused(tmp_path, environment, "0", "--data", str(tmp_path / "data"))
    assert database.read_bytes() == damaged != healthy


def test_data_folder_that_can_not_be_created_is_named(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert "file" in refused(tmp_path, environment, "0", "--data", str(tmp_path / "file"))


@pytest.mark.parametrize(
    ("limit", "advice"),
    [
        ("--nofile=12", "can't be used"),  # for the database
        ("--as=60000000", "Allow more memory"),  # for a hash
    ],
)
def test_low_resource_limit_is_one_line(tmp_path: Path, environment: dict[str, str], limit: str, advice: str) -> None:
    environment["CHAT_HASH_MEMORY_KIB"] = "65536"
    assert advice in refused(tmp_path, environment, "0", under=("prlimit", limit))


@pytest.fixture
def ordinary_user() -> list[str]:
    """The command that runs another one as a user without root's privileges."""
    if os.geteuid():
        pytest.skip("only root can change the owner of a file")
    return ["setpriv", "--reuid=61234", "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


def test_low_thread_limit_is_one_line(tmp_path: Path, environment: dict[str, str], ordinary_user: list[str]) -> None:
    tmp_path.chmod(0o777)
    limited = [*ordinary_user, "prlimit", "--nproc=5"]
    assert "refuses a thread" in refused(tmp_path, environment, "0", under=limited)


def test_database_of_another_user_is_named(
    tmp_path: Path, environment: dict[str, str], ordinary_user: list[str]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "chat.db").touch(0o600)
    os.chown(tmp_path / "data", 61234, -1)
    problem = refused(tmp_path, environment, "0", "--data", str(tmp_path / "data"), under=ordinary_user)
    assert f"{tmp_path / 'data' / 'chat.db'} belongs to user 0" in problem


def test_second_server_on_a_data_folder_is_refused(tmp_path: Path, environment: dict[str, str]) -> None:
    """Also without the lock file, which a person may take for a leftover. The json log has the same sentence."""
    with Program(tmp_path) as server:
        assert "Another server uses" in refused(tmp_path, environment, "0", "--data", str(server.data))
        (server.data / "chat.lock").unlink()
        command = [sys.executable, "-m", "chatserver", "0", "--data", str(server.data), "--log-format", "json"]
        ended = subprocess.run(command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True)
    event = json.loads(ended.stdout)
    assert (ended.returncode, event["event"], event["level"]) == (2, "start failed", "error")
    assert "Another server uses" in ended.stderr == f"chatserver: {event['error']}\n"


def health(folder: Path, environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    """The exit code and standard error of the health check."""
    check = [sys.executable, "-m", "chatserver.health", *arguments]
    ended = subprocess.run(
        check, cwd=folder, env=environment, check=False, capture_output=True, text=True, timeout=DEADLINE_SECONDS
    )
    assert ended.stderr.count("\n") == bool(ended.returncode), ended.stderr
    return ended.returncode, ended.stderr


def wait_for_health(server: Program, environment: dict[str, str], *arguments: str) -> None:
    """A machine that stalls delays the answer over its limit."""
    folder = server.data.parent
    server.wait_until(lambda: health(folder, environment, *arguments) == (0, ""), "its health")


def wait_for_pages(server: Program, status: int, text: str) -> None:
    """The same for its pages, which try to write, too."""
    pages = [(status, text)] * 2
    server.wait_until(lambda: [server.page(path) for path in ("healthz", "readyz")] == pages, text)


def test_health_check_finds_the_server_by_its_data_folder(tmp_path: Path, environment: dict[str, str]) -> None:
    """With any host and port, and with the server's own arguments. It leaves no line in the log."""
    (tmp_path / ".env").write_text("CHAT_DATA=data\n")
    with Program(tmp_path, CHAT_MAX_CONNECTIONS="1") as server:
        peer = Peer(server.port)
        wait_for_health(server, environment)
        wait_for_health(server, environment | {"CHAT_DATA": "elsewhere"}, "1", "--data", str(server.data))
        code, problem = health(tmp_path, environment | {"CHAT_DATA": "elsewhere"})
        assert (code, "elsewhere" in problem) == (1, True)
        peer.close()
        server.stop()
        assert [line.split()[1] for line in server.log().splitlines()] == ["Waiting", "web", "shutting", "stopped"]
    assert health(tmp_path, environment)[0] == 1


def test_health_check_fails_if_the_server_can_not_commit(tmp_path: Path, environment: dict[str, str]) -> None:
    environment["CHAT_DATA"] = str(tmp_path / "data")
    with Program(tmp_path, CHAT_METRICS="127.0.0.1:0") as server:
        wait_for_pages(server, 200, "ok\n")
        alice = Peer(server.port)
        alice.login("alice")
        _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (4_096, hard))
        server.wait_until(lambda: "can't write" in health(tmp_path, environment)[1], "the problem")
        wait_for_pages(server, 503, "it can't write to its disk\n")
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        wait_for_health(server, environment)
        alice.close()


def test_health_check_with_an_invalid_setting_ends_with_1(tmp_path: Path, environment: dict[str, str]) -> None:
    """Docker reserves all codes but 0 and 1."""
    code, problem = health(tmp_path, environment | {"CHAT_PORT": "http"})
    assert (code, "CHAT_PORT is 'http'" in problem) == (1, True)


def test_server_runs_without_an_output(tmp_path: Path, environment: dict[str, str]) -> None:
    """Its output is a pipe whose reader is gone."""
    kept = bind_free_port()
    port, data = kept.getsockname()[1], tmp_path / "data"
    command = f'exec "{sys.executable}" -m chatserver {port} --host 127.0.0.1 --data "{data}"'
    with (
        kept,
        subprocess.Popen(["sh", "-c", command], cwd=tmp_path, env=environment, stdout=subprocess.PIPE) as server,
    ):
        try:
            assert server.stdout is not None
            server.stdout.close()
            alice = connect_when_it_listens(port)
            alice.login("alice")
            assert alice.say("hello")["id"] == 1
            alice.close()
            server.terminate()
            assert server.wait(DEADLINE_SECONDS) == 0
        finally:
            server.kill()


# Log lines: a pipe holds about 500 of them.
MANY_LINES = 3_000


def test_blocked_log_does_not_block_the_server(tmp_path: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "chatserver", "0", "--host", "127.0.0.1", "--data", str(tmp_path / "data")]
    command += ["--log-lines-per-address", "0"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as server:
        try:
            assert server.stdout is not None
            port = int(re.search(rb"port (\d+)", server.stdout.readline())[1])  # type: ignore[index]
            for _ in range(MANY_LINES // 100):
                peer = Peer(port)
                peer.send(b'{"command":"login"}\n' * 100)
                peer.until_fence()
                peer.close()
            alice, bob = Peer(port), Peer(port)
            alice.login("alice")
            bob.login("bob")
            alice.say("hello")
            assert bob.next("broadcast")["message"] == "hello"
            server.terminate()
            for peer in (alice, bob):
                assert peer.next("bye")
                assert peer.is_closed()
                peer.close()
            assert server.wait(DEADLINE_SECONDS) == 0
        finally:
            server.kill()


def connect_when_it_listens(port: int) -> Peer:
    give_up_at = time.monotonic() + 20
    while True:
        try:
            return Peer(port)
        except ConnectionRefusedError:
            assert time.monotonic() < give_up_at, "it never listened"
