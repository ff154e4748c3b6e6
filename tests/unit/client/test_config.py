"""The client's settings: where each comes from, and one line for each that can't be used."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from chatclient.cli.config import Config, ConfigError, FrontendKind, load_config

# A flag, a variable, the setting that both are, and two values.
SETTINGS: list[tuple[str, str, str, str, str]] = [
    ("--hostname", "CHAT_SERVER", "server", "one.example", "two.example"),
    ("-hn", "CHAT_SERVER", "server", "one.example", "two.example"),
    ("--port", "CHAT_PORT", "port", "1111", "2222"),
    ("-p", "CHAT_PORT", "port", "1111", "2222"),
    ("--username", "CHAT_USER", "user", "bob", "carol"),
    ("-u", "CHAT_USER", "user", "bob", "carol"),
    ("--dialect", "CHAT_DIALECT", "protocol", "json", "frames"),
    ("--dialect", "CHAT_DIALECT", "protocol", "register", "json"),
    ("--dialect", "CHAT_DIALECT", "protocol", "datagram", "frames"),
    ("--dialect", "CHAT_DIALECT", "protocol", "frames", "datagram"),
    ("--register-length", "CHAT_REGISTER_LENGTH", "register_length", "bytes", "characters"),
    ("--ops", "CHAT_OPS", "ops", "bm-pm", "pm-dm"),
    ("--retry-seconds", "CHAT_RETRY_SECONDS", "retry_seconds", "5", "7"),
    ("--silence-seconds", "CHAT_SILENCE_SECONDS", "silence_seconds", "5", "7"),
]


def load(*arguments: str, env: Mapping[str, str | None] | None = None) -> Config:
    return load_config(arguments, {"CHAT_USER": "alice", **(env or {})})


def test_a_username_is_all_that_must_be_given() -> None:
    assert load_config(["alice"], {}) == Config(
        server="localhost",
        port=9999,
        user="alice",
        password=None,
        protocol="json",
        register_length="bytes",
        ops="pm-dm",
        script=None,
        retry_seconds=60.0,
        silence_seconds=60.0,
        frontend=FrontendKind.PLAIN,
        is_quiet=False,
        shows_joins=True,
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ("localhost", 9999, "alice")),
        (["bob"], ("localhost", 9999, "bob")),
        (["chat.example", "1234"], ("chat.example", 1234, "alice")),
        (["chat.example", "1234", "bob"], ("chat.example", 1234, "bob")),
        (["chat.example:1234", "bob"], ("chat.example", 1234, "bob")),
        (["chat.example:1234"], ("chat.example", 1234, "alice")),
        (["::1"], ("::1", 9999, "alice")),
        (["[::1]"], ("::1", 9999, "alice")),
        (["[::1]:1234"], ("::1", 1234, "alice")),
        (["[::1]:1234", "bob"], ("::1", 1234, "bob")),
        (["[::1]", "1234", "bob"], ("::1", 1234, "bob")),
        (["fe80::1%eth0", "1234", "bob"], ("fe80::1%eth0", 1234, "bob")),
        (["-hn", "[::1]", "bob"], ("::1", 9999, "bob")),
        (["-hn", "::1", "-p", "1234"], ("::1", 1234, "alice")),
        (["-hn", "[::1]:1234"], ("::1", 1234, "alice")),
        (["-hn", "[::1]:1234", "-p", "1"], ("::1", 1, "alice")),
        (["::1", "1234", "bob"], ("::1", 1234, "bob")),
    ],
)
def test_words_are_host_port_and_username_or_the_username_alone(
    words: list[str], expected: tuple[str, int, str]
) -> None:
    config = load(*words)

    assert (config.server, config.port, config.user) == expected


def test_the_variable_may_name_the_port_as_well() -> None:
    config = load(env={"CHAT_SERVER": "[::1]:1234", "CHAT_PORT": "1"})

    assert (config.server, config.port) == ("::1", 1234)


@pytest.mark.parametrize(
    "arguments",
    [
        ["chat.example", "1234", "bob", "--udp", "--ops", "bm-pm"],
        ["chat.example", "--udp", "1234", "--ops", "bm-pm", "bob"],
        ["--udp", "chat.example", "1234", "--ops", "bm-pm", "bob"],
        ["--ops", "bm-pm", "--udp", "chat.example", "1234", "bob"],
    ],
)
def test_flags_may_stand_among_the_words(arguments: list[str]) -> None:
    config = load(*arguments)

    found = (config.server, config.port, config.user, config.protocol, config.ops)
    assert found == ("chat.example", 1234, "bob", "datagram", "bm-pm")


def text_of(config: Config, setting: str) -> str:
    value: Any = getattr(config, setting)
    return f"{value:g}" if isinstance(value, float) else str(value)


@pytest.mark.parametrize(("flag", "variable", "setting", "one", "two"), SETTINGS)
def test_a_flag_wins_over_the_environment(flag: str, variable: str, setting: str, one: str, two: str) -> None:
    assert text_of(load(flag, one, env={variable: two}), setting) == one


@pytest.mark.parametrize(("flag", "variable", "setting", "one", "two"), SETTINGS)
def test_the_environment_wins_over_the_default(flag: str, variable: str, setting: str, one: str, two: str) -> None:
    del flag, one
    assert text_of(load(env={variable: two}), setting) == two


@pytest.mark.parametrize("variable", sorted({row[1] for row in SETTINGS} - {"CHAT_USER"}))
@pytest.mark.parametrize("nothing", ["", None])
def test_an_empty_variable_is_as_good_as_none(variable: str, nothing: str | None) -> None:
    assert load(env={variable: nothing}) == load()


def test_flags_win_over_words() -> None:
    config = load("-hn", "flag.example", "-p", "1", "-u", "flag", "word.example", "2", "word")

    assert (config.server, config.port, config.user) == ("flag.example", 1, "flag")


def test_the_password_comes_from_a_file_before_the_environment(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("from the flag\n")
    two.write_bytes(b"\xef\xbb\xbffrom the variable\r\n")  # as Windows' editors write it
    env = {"CHAT_PASSWORD": "from the environment", "CHAT_PASSWORD_FILE": str(two)}

    assert load(env={"CHAT_PASSWORD": " secret "}).password == " secret "
    assert load(env=env).password == "from the variable"
    assert load("--password-file", str(one), env=env).password == "from the flag"


def test_no_flag_takes_a_password_where_everybody_could_read_it() -> None:
    with pytest.raises(ConfigError):
        load("--password", "secret")


def test_an_empty_password_is_asked_for() -> None:
    assert load(env={"CHAT_PASSWORD": ""}).password is None


def test_a_script_is_named_by_a_flag() -> None:
    assert load("--script", "a/b.chat").script == Path("a/b.chat")


def test_a_username_that_is_not_given_is_asked_for_later() -> None:
    assert load(env={"CHAT_USER": ""}).user is None
    assert load_config(["-hn", "chat.example", "-p", "1234"], {}).user is None


def test_whoever_speaks_register_is_asked_for_the_server_where_none_is_named() -> None:
    """There is a port all the same: the one that is offered."""
    config = load_config(["--dialect", "register", "-p", "1234"], {})

    assert (config.server, config.port, config.user) == (None, 1234, None)


@pytest.mark.parametrize(
    ("words", "env"),
    [
        (["chat.example", "1234"], {}),
        (["-hn", "chat.example", "-p", "1234"], {}),
        ([], {"CHAT_SERVER": "chat.example", "CHAT_PORT": "1234"}),
    ],
)
def test_a_server_that_is_named_is_not_asked_for(words: list[str], env: dict[str, str]) -> None:
    config = load("--dialect", "register", *words, env=env)

    assert (config.server, config.port, config.user) == ("chat.example", 1234, "alice")


@pytest.mark.parametrize("name", ["not a name", "ALL", "server", "b\u00f6b", "x" * 33])
def test_whoever_speaks_register_is_told_later_that_a_name_cannot_be_one(name: str) -> None:
    """And is asked for another one then."""
    assert load("--dialect", "register", "-u", name).user == name
    assert load(env={"CHAT_USER": name, "CHAT_DIALECT": "register"}).user == name


@pytest.mark.parametrize(
    "arguments", [["--udp"], ["--udp", "--dialect", "datagram"], ["--dialect", "DATAGRAM", "--udp"]]
)
@pytest.mark.parametrize("variable", ["", "json", "register", "datagram"])
def test_udp_is_the_dialect_datagram_whatever_the_environment_says(arguments: list[str], variable: str) -> None:
    assert load(*arguments, env={"CHAT_DIALECT": variable}) == load("--dialect", "datagram")


def test_without_it_nobody_speaks_udp() -> None:
    assert load().protocol == "json"
    assert load("--dialect", "frames").protocol == "frames"


USAGE_ERRORS: list[tuple[list[str], dict[str, str], str]] = [
    (["a", "1", "b", "c"], {}, "4 words are too many"),
    (["-u", "not a name"], {}, "'not a name' can't be a username. A username is 1 to 32"),
    (["-u", "a\nb"], {}, r"'a\nb' can't be a username."),
    ([], {"CHAT_USER": "ALL"}, "The name ALL is reserved"),
    (["-p", "x"], {}, "The port is 'x'; it must be a whole number from 1 to 65535."),
    (["-p", "0"], {}, "The port is '0'"),
    (["-p", "65536"], {}, "The port is '65536'"),
    (["-p", "-1"], {}, "The port is '-1'"),
    (["-p", "\u0661"], {}, "The port is"),
    (["-p", "9" * 5000], {}, "The port is '999"),
    (["alice", "bob"], {}, "The port is 'bob'; it must be a whole number from 1 to 65535. Give HOST PORT USERNAME, "),
    (["::1:9999", "alice"], {}, "HOST:PORT USERNAME (as [::1]:9999 alice)"),
    ([], {"CHAT_PORT": "x"}, "The port is 'x'"),
    (["--retry-seconds", "x"], {}, "--retry-seconds is 'x'; it must be a number of seconds, 0 or more."),
    (["--silence-seconds=-1"], {}, "--silence-seconds is '-1'; it must be a number of seconds, 0 or more."),
    ([], {"CHAT_RETRY_SECONDS": "nan"}, "CHAT_RETRY_SECONDS is 'nan'; it must be a number of seconds, 0 or more."),
    (["--dialect", "morse"], {}, "--dialect is 'morse'; it must be one of json, frames, register, datagram."),
    (
        ["--udp", "--dialect", "frames"],
        {},
        "--udp means --dialect datagram, and --dialect is frames; give one of them.",
    ),
    (["--dialect", "json", "--udp"], {}, "--udp means --dialect datagram, and --dialect is json; give one of them."),
    (["--udp", "--dialect", "morse"], {}, "--udp means --dialect datagram, and --dialect is morse; give one of them."),
    (["--udp", "-u", "not a name"], {}, "'not a name' can't be a username."),
    (["--udp=yes"], {}, "ignored explicit argument 'yes'; see chatclient --help."),
    ([], {"CHAT_DIALECT": "udp"}, "CHAT_DIALECT is 'udp'; it must be one of json, frames, register, datagram."),
    (["--register-length", "words"], {}, "--register-length is 'words'; it must be one of bytes, characters."),
    ([], {"CHAT_REGISTER_LENGTH": "x"}, "CHAT_REGISTER_LENGTH is 'x'; it must be one of bytes, characters."),
    (["--dialect", "register", "-p", "x"], {}, "The port is 'x'"),
    (["--dialect", "register", "host", "port"], {}, "The port is 'port'"),
    ([], {"CHAT_OPS": "x-y"}, "CHAT_OPS is 'x-y'; it must be one of pm-dm, bm-pm."),
    (["--unknown"], {}, "nrecognized arguments: --unknown; see chatclient --help."),
    (["--host", "x"], {}, "nrecognized arguments"),
    ([], {"CHAT_QUIET": "maybe"}, "CHAT_QUIET is 'maybe'; it must be one of no, yes."),
    ([], {"CHAT_HIDE_JOINS": "1"}, "CHAT_HIDE_JOINS is '1'; it must be one of no, yes."),
    (["chat.example:x", "bob"], {}, "The port is 'x'"),
    (["--port"], {}, "expected one argument; see chatclient --help."),
    (["--password-file", "/nowhere/at all"], {}, "The password file /nowhere/at all can't be read: No such file"),
]


@pytest.mark.parametrize(("arguments", "env", "text"), USAGE_ERRORS)
def test_what_cannot_be_used_is_one_line_that_names_it(arguments: list[str], env: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(*arguments, env=env)

    assert text in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_password_file_that_is_no_text_is_one_line_too(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"h\xfc")

    with pytest.raises(ConfigError, match="it is not text in UTF-8"):
        load("--password-file", str(tmp_path / "secret"))


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_are_printed_and_end_well(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        load(flag)

    assert end.value.code == 0
    assert "chatclient" in capsys.readouterr().out


# --- the face ---


class BroadcastBuffer:
    """A standard stream that is a terminal, or is none."""

    def __init__(self, is_terminal: bool) -> None:
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


def sit(monkeypatch: pytest.MonkeyPatch, stdin: bool | None = True, stdout: bool | None = True) -> None:
    """Somebody starts the program: at a terminal, or with a pipe, or (None) with it closed."""
    for name, is_terminal in (("stdin", stdin), ("stdout", stdout)):
        monkeypatch.setattr(f"sys.{name}", None if is_terminal is None else BroadcastBuffer(is_terminal))


@pytest.mark.parametrize("term", ["xterm", "xterm-256color", "screen", "linux", "vt100"])
def test_at_a_terminal_there_is_a_prompt(monkeypatch: pytest.MonkeyPatch, term: str) -> None:
    sit(monkeypatch)

    assert load(env={"TERM": term}).frontend is FrontendKind.TERMINAL


@pytest.mark.parametrize("term", ["dumb", "unknown", "", None])
def test_a_terminal_that_can_not_move_its_cursor_has_lines(monkeypatch: pytest.MonkeyPatch, term: str | None) -> None:
    sit(monkeypatch)

    assert load(env={"TERM": term}).frontend is FrontendKind.PLAIN
    assert load().frontend is FrontendKind.PLAIN


@pytest.mark.parametrize(
    ("stdin", "stdout"), [(True, False), (False, True), (False, False), (None, True), (True, None), (None, None)]
)
def test_pipes_and_closed_streams_have_lines(
    monkeypatch: pytest.MonkeyPatch, stdin: bool | None, stdout: bool | None
) -> None:
    sit(monkeypatch, stdin, stdout)

    assert load(env={"TERM": "xterm"}).frontend is FrontendKind.PLAIN


@pytest.mark.parametrize("is_terminal", [True, False])
@pytest.mark.parametrize(
    ("arguments", "env", "frontend"),
    [
        (["--plain"], {}, FrontendKind.PLAIN),
        (["--json"], {}, FrontendKind.JSON),
        (["--json", "--plain"], {}, FrontendKind.JSON),
        (["--script", "file"], {}, FrontendKind.PLAIN),
        ([], {"CHAT_SCRIPT": "file"}, FrontendKind.PLAIN),
        (["--json", "--script", "file"], {}, FrontendKind.JSON),
    ],
)
def test_who_wants_lines_or_objects_gets_them_at_a_terminal_too(
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    env: dict[str, str],
    frontend: FrontendKind,
    is_terminal: bool,
) -> None:
    sit(monkeypatch, is_terminal, is_terminal)

    assert load(*arguments, env={"TERM": "xterm", **env}).frontend is frontend


@pytest.mark.parametrize(
    ("arguments", "seconds"), [([], math.inf), (["--retry-seconds", "5"], 5.0), (["--plain"], 60.0), (["--json"], 60.0)]
)
def test_a_person_is_connected_again_for_ever_and_a_program_for_a_minute(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], seconds: float
) -> None:
    sit(monkeypatch)

    assert load(*arguments, env={"TERM": "xterm"}).retry_seconds == seconds
    assert load(*arguments, env={"TERM": "xterm", "CHAT_RETRY_SECONDS": "7"}).retry_seconds == (
        5.0 if "--retry-seconds" in arguments else 7.0
    )


@pytest.mark.parametrize(
    ("arguments", "env", "is_quiet", "shows_joins"),
    [
        ([], {}, False, True),
        (["--quiet"], {}, True, True),
        (["--hide-joins"], {}, False, False),
        (["--quiet", "--hide-joins"], {}, True, False),
        ([], {"CHAT_QUIET": "yes"}, True, True),
        ([], {"CHAT_QUIET": "YES", "CHAT_HIDE_JOINS": "yes"}, True, False),
        ([], {"CHAT_QUIET": "no", "CHAT_HIDE_JOINS": "no"}, False, True),
        ([], {"CHAT_QUIET": "", "CHAT_HIDE_JOINS": ""}, False, True),
        (["--quiet"], {"CHAT_QUIET": "no"}, True, True),
        (["--hide-joins"], {"CHAT_HIDE_JOINS": "no"}, False, False),
    ],
)
def test_bell_and_joins_can_be_switched_off(
    arguments: list[str], env: dict[str, str], is_quiet: bool, shows_joins: bool
) -> None:
    config = load(*arguments, env=env)

    assert (config.is_quiet, config.shows_joins) == (is_quiet, shows_joins)
