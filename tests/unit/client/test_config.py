"""Settings of the client that depend on each other: words, server, password and frontend. See also test_settings.py."""

import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from chatclient.cli.config import Config, FrontendKind, load_config
from chatprotocol.address import format_address
from chatprotocol.settings import ConfigError


def load(*arguments: str, env: Mapping[str, str | None] | None = None) -> Config:
    return load_config(arguments, {"CHAT_USER": "alice", **(env or {})})


def test_defaults() -> None:
    """The defaults in a pipe. An empty variable counts as not set."""
    assert load_config(["alice"], {"CHAT_SERVER": "", "CHAT_PASSWORD": "", "CHAT_DIALECT": ""}) == Config(
        (("localhost", 9999),),
        9999,
        "alice",
        None,
        "json",
        None,
        "bytes",
        "pm-dm",
        None,
        60.0,
        60.0,
        FrontendKind.PLAIN,
        False,
        True,
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ("env.example", 5, "alice")),
        (["bob"], ("env.example", 5, "bob")),
        (["chat.example", "1234"], ("chat.example", 1234, "alice")),
        (["chat.example", "1234", "bob"], ("chat.example", 1234, "bob")),
        (["chat.example:1234", "bob"], ("chat.example", 1234, "bob")),
        (["[::1]:1234"], ("::1", 1234, "alice")),
        (["::1"], ("::1", 5, "alice")),
        (["fe80::1%eth0", "1234", "bob"], ("fe80::1%eth0", 1234, "bob")),
        (["-hn", "[::1]:1234", "-p", "1"], ("::1", 1, "alice")),
        (["-hn", "flag.example", "-p", "1", "-u", "flag", "word.example", "2", "word"], ("flag.example", 1, "flag")),
        (["chat.example", "--udp", "1234", "--ops", "bm-pm", "bob"], ("chat.example", 1234, "bob")),
    ],
)
def test_words_are_host_port_and_username(arguments: list[str], expected: tuple[str, int, str]) -> None:
    """Flags win over words, words over variables. Flags may stand among the words."""
    config = load(*arguments, env={"CHAT_SERVER": "env.example", "CHAT_PORT": "5"})
    assert (config.servers, config.user) == ((expected[:2],), expected[2])
    config = load_config([], {"CHAT_SERVER": "[::1]:1234", "CHAT_PORT": "1"})
    assert (config.servers, config.user) == ((("::1", 1234),), None)


@pytest.mark.parametrize(
    ("arguments", "server"),
    [
        (["-p", "1234"], None),
        (["chat.example", "1234"], "chat.example"),
        (["-hn", "chat.example", "-p", "1234"], "chat.example"),
    ],
)
def test_server_is_asked_for_in_register_if_it_is_missing(arguments: list[str], server: str | None) -> None:
    """The client also asks for a valid username if the given one is invalid."""
    config = load("--dialect", "register", *arguments, env={"CHAT_USER": "not a name"})
    assert config.servers == (((server, 1234),) if server else ())
    assert (config.port, config.user) == (1234, "not a name")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "a.example:1,b.example:5"),
        (["chat.example:1,[::1]:2", "bob"], "chat.example:1,[::1]:2"),
        (["chat.example,::1"], "chat.example:5,[::1]:5"),
        (["chat.example,::1", "1234", "bob"], "chat.example:1234,[::1]:1234"),
        (["-hn", "chat.example:1,::1", "-p", "1234"], "chat.example:1234,[::1]:1234"),
        (["--dialect", "register"], "a.example:1,b.example:5"),
    ],
)
def test_several_servers_are_separated_by_commas(arguments: list[str], expected: str) -> None:
    """A separate port holds for all; CHAT_PORT for those without one."""
    config = load(*arguments, env={"CHAT_SERVER": "a.example:1, b.example", "CHAT_PORT": "5"})
    assert ",".join(map(format_address, config.servers)) == expected
    assert config.user == ("bob" if "bob" in arguments else "alice")


@pytest.mark.parametrize("arguments", [["--udp"], ["--dialect", "DATAGRAM", "--udp"]])
def test_udp_is_the_dialect_datagram(arguments: list[str]) -> None:
    """The flag wins over the variable."""
    assert load(*arguments, env={"CHAT_DIALECT": "json"}) == load("--dialect", "datagram")


def test_password_file_wins_over_the_password(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("from the flag\n")
    two.write_bytes(b"\xef\xbb\xbffrom the variable\r\n")  # as editors of Windows write it
    env = {"CHAT_PASSWORD": "from the environment", "CHAT_PASSWORD_FILE": str(two)}
    assert load(env={"CHAT_PASSWORD": " secret "}).password == " secret "
    assert load(env=env).password == "from the variable"
    assert load("--password-file", str(one), env=env).password == "from the flag"


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"h\xfc", "it is not text in UTF-8"), (b"\n", "is empty"), (None, "can't be read: No such file")],
)
def test_bad_password_file_is_an_error(tmp_path: Path, content: bytes | None, error: str) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    with pytest.raises(ConfigError, match=error):
        load("--password-file", str(tmp_path / "secret"))


def test_token_is_read_from_its_file(tmp_path: Path) -> None:
    """The wire format json alone has tokens."""
    (tmp_path / "token").write_text(" dG9rZW4\n")
    (tmp_path / "empty").write_text("\n")
    assert load("--token-file", str(tmp_path / "token")).token == "dG9rZW4"
    assert load(env={"CHAT_TOKEN_FILE": str(tmp_path / "token")}).token == "dG9rZW4"
    assert load().token is None
    for arguments, error in (
        (("empty",), "is empty"),
        (("missing",), "can't be read: No such file"),
        (("token", "--udp"), "needs the wire format json; --dialect is datagram"),
    ):
        with pytest.raises(ConfigError, match=error):
            load("--token-file", str(tmp_path / arguments[0]), *arguments[1:])


@pytest.mark.parametrize(
    ("arguments", "env", "error"),
    [
        (["a", "1", "b", "c"], {}, "4 words are too many"),
        (["-u", "a\nb"], {}, r"'a\nb' can't be a username. A username is 1 to 32"),
        ([], {"CHAT_USER": "ALL"}, "The name ALL is reserved"),
        (["-p", "65536"], {}, "The port is '65536'; it must be a whole number from 1 to 65535."),
        ([], {"CHAT_PORT": "x"}, "The port is 'x'"),
        (["a:1,b:x", "alice"], {}, "Server 2 in the list, 'b:x': The port is 'x'; it must be a whole number"),
        (["-hn", "a:1,a:2", "-p", "3"], {}, "The server a:3 is in the list twice."),
        (["alice", "bob"], {}, "The port is 'bob'; it must be a whole number from 1 to 65535. Give HOST PORT USERNAME"),
        (["::1:9999", "alice"], {}, "HOST:PORT USERNAME (as [::1]:9999 alice)"),
        (["--udp", "--dialect", "morse"], {}, "--udp means --dialect datagram, and --dialect is morse; give one of"),
        (["--udp", "--tls"], {}, "--tls and --ca need TCP; --udp (--dialect datagram) has no encryption."),
        (["--ca", "/nowhere/ca.pem"], {}, "The file /nowhere/ca.pem with trusted certificates can't be read: No such"),
        (["--ca", __file__], {}, "contains no certificates in the format PEM."),
        ([], {"CHAT_RETRY_SECONDS": "nan"}, "CHAT_RETRY_SECONDS is 'nan'; it must be a number of seconds, 0 or more."),
        (
            [],
            {"CHAT_DIALECT": "udp"},
            "CHAT_DIALECT is 'udp'; it must be one of json, websocket, frames, register, irc, datagram.",
        ),
        (["--json=1"], {}, "--json takes no value, and is given '1'; see chatclient --help."),
        (["-p"], {}, "--port needs a value; see chatclient --help."),
        (
            ["--password=secret"],
            {},
            "There is no flag --password; did you mean --password-file?",
        ),  # all users of the machine could read it
        ([], {"CHAT_PASSWORD": "\udcfc"}, "The password is not text in UTF-8."),
    ],
)
def test_invalid_setting_is_an_error_of_one_line(arguments: list[str], env: dict[str, str], error: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(*arguments, env=env)
    assert error in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_are_printed(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        load(flag)
    assert end.value.code == 0
    assert "chatclient" in capsys.readouterr().out


class Standard:
    """A standard stream, which may be a terminal."""

    def __init__(self, is_terminal: bool) -> None:
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


PLAIN, JSON, TERMINAL = FrontendKind.PLAIN, FrontendKind.JSON, FrontendKind.TERMINAL


@pytest.mark.parametrize(
    ("streams", "term", "arguments", "kind"),
    [
        ((True, True), "xterm-256color", [], TERMINAL),
        ((True, True), "dumb", [], PLAIN),
        ((True, True), None, [], PLAIN),
        ((True, False), "xterm", [], PLAIN),
        ((False, True), "xterm", [], PLAIN),
        ((None, True), "xterm", [], PLAIN),  # closed
        ((True, True), "xterm", ["--plain"], PLAIN),
        ((True, True), "xterm", ["--script", "a/b.chat"], PLAIN),
        ((True, True), "xterm", ["--json", "--script", "a/b.chat"], JSON),
        ((False, False), "xterm", ["--json", "--plain"], JSON),
    ],
)
def test_frontend_is_the_requested_one_or_fits_the_streams(
    monkeypatch: pytest.MonkeyPatch,
    streams: tuple[bool | None, bool | None],
    term: str | None,
    arguments: list[str],
    kind: FrontendKind,
) -> None:
    """A person at a terminal is reconnected without limit, a program for a minute. A setting wins over both."""
    for name, is_terminal in zip(("stdin", "stdout"), streams, strict=True):
        monkeypatch.setattr(f"sys.{name}", None if is_terminal is None else Standard(is_terminal))
    config = load(*arguments, env={"TERM": term})
    assert config.frontend is kind
    assert config.retry_seconds == (math.inf if kind is TERMINAL else 60.0)
    assert config.script == (Path("a/b.chat") if "--script" in arguments else None)
    assert load(*arguments, env={"TERM": term, "CHAT_RETRY_SECONDS": "7"}).retry_seconds == 7.0


def test_bell_and_joins_can_be_switched_off() -> None:
    config = load("--quiet", "--hide-joins", env={"CHAT_QUIET": "no", "CHAT_HIDE_JOINS": "no"})
    assert (config.is_quiet, config.shows_joins) == (True, False)
    config = load(env={"CHAT_QUIET": "YES", "CHAT_HIDE_JOINS": "yes"})
    assert (config.is_quiet, config.shows_joins) == (True, False)
