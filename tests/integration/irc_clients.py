"""irssi, WeeChat and bots, started as docs/wire/irc.md tells their users. `make irc-clients` installs them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import pytest

from ops.window import ENTER, Window

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOP: Final = Path(__file__).parents[2]
# The programs of `make irc-clients` that are no packages of Debian.
INSTALLED: Final = _TOP / ".venv" / "irc"
TERMINAL_CLIENTS: Final = ("irssi", "weechat")
BOTS: Final = ("irc", "sopel")
_TITLES: Final = {"irssi": "irssi", "weechat": "WeeChat", "sopel": "sopel"}
# All that a test shows: these programs scroll a part of the window, and rows that leave it are lost.
_ROWS: Final = 120


def require(*programs: str | Path) -> None:
    """Skip the test if one of the programs is not installed; or fail, if CHAT_TEST_IRC_CLIENTS is ``required``."""
    for program in programs:
        if shutil.which(program) is None:
            reason = f"{program} is missing: see `make irc-clients`"
            (pytest.fail if os.environ.get("CHAT_TEST_IRC_CLIENTS") == "required" else pytest.skip)(reason)


def documented(client: str, port: int, name: str, password: str | None, *, tls: bool = False) -> list[str]:
    """What docs/wire/irc.md tells the users of this client to type, for this server and user."""
    page = (_TOP / "docs" / "wire" / "irc.md").read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith(f"| {_TITLES[client]} |"))
    commands = re.findall(r"`([^`]+)`", row)
    if password is None:
        commands = [re.sub(r"-sasl_\w+ \S+ ", "", each) for each in commands if "server.chat.sasl_" not in each]
    tls_option = _tls_option(client, tls=tls)
    values = {"chat.example.org": "localhost", "9999": str(port), "SECRET": password or "", " -tls": f" {tls_option}"}
    for word, value in {**values, "alice": name}.items():
        commands = [each.replace(word, value) for each in commands]
    return commands


def _tls_option(client: str, *, tls: bool) -> str:
    """What the page says about the versions of WeeChat; Debian 12 has 3.8."""
    if client == "weechat":
        version = subprocess.run(["weechat", "--version"], stdout=subprocess.PIPE, check=True).stdout
        if int(version.split(b".")[0]) < 4:
            return "-ssl" if tls else ""
        return "-tls" if tls else "-notls"
    return "-tls" if tls else ""


class TerminalClients:
    """irssi and WeeChat in pseudo-terminals, each with a configuration of its own. Leaving the context kills them."""

    def __init__(self, folder: Path, root_certificate: Path | None = None) -> None:
        """``root_certificate`` is the one that they trust, besides those of the system."""
        self._folder = folder
        self._root_certificate = root_certificate
        self._windows = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._windows.close()

    def start(self, program: str, port: int, name: str, password: str | None = None, *, tls: bool = False) -> Window:
        """Start a program, and type what connects it; the second time for a user, all is in its files."""
        require(program)
        folder = self._folder / f"{program}-{name}-{password}"
        is_new = not folder.exists()
        folder.mkdir(exist_ok=True)
        environment = {"TERM": "xterm", "LC_ALL": "C.UTF-8", "HOME": str(folder), "PATH": os.environ["PATH"]}
        commands = documented(program, port, name, password, tls=tls)
        if program == "irssi":
            arguments = [f"--home={folder}"]
            if is_new:
                (folder / "config").write_text(_IRSSI_CONFIG.replace("NAME", name), encoding="utf-8")
            else:
                commands = []  # it connects by itself: -auto
            if self._root_certificate is not None:
                environment["SSL_CERT_FILE"] = str(self._root_certificate)
        else:
            arguments = ["--dir", str(folder), "--plugins", "irc,buflist"]
            settings = (f"irc.server_default.username {name}", *_WEECHAT_SETTINGS)
            if self._root_certificate is not None:
                settings = (f"weechat.network.gnutls_ca_user {self._root_certificate}", *settings)
            arguments += [word for setting in settings for word in ("--run-command", f"/set {setting}")]
            if not is_new:
                commands = ["/connect chat"]
        command = [program, *arguments]
        window = Window(command, columns=160, rows=_ROWS, environment=environment, folder=str(folder))
        self._windows.enter_context(window)
        window.until_shows("Irssi v" if program == "irssi" else _WEECHAT_SETTINGS[-1].split()[0])
        for each in commands:
            window.type(each, ENTER)
        return window


# Nobody waits for the protection against floods, and a test types faster than a person.
_IRSSI_CONFIG: Final = """settings = {
  core = { user_name = "NAME"; };
  "irc/core" = { cmds_max_at_once = "1000"; cmd_queue_speed = "0"; };
};
"""
_WEECHAT_SETTINGS: Final = (
    "irc.look.server_buffer independent",
    "weechat.look.paste_max_lines -1",
    "irc.server_default.anti_flood_prio_high 0",
    "irc.server_default.anti_flood_prio_low 0",
)


_BOTS: Final = Path(__file__).parent / "irc_bots"
_STOP_SECONDS: Final = 20.0


@contextmanager
def running_bot(bot: str, folder: Path, port: int, root_certificate: Path) -> Iterator[None]:
    """Run sopel, or a bot of the package irc, as the account ``bot`` with the password ``secret``, over TLS.

    It joins #lobby, says "ready" there, and repeats what follows the word "echo". After "speak" it says "says" and its
    name; after "what was said?" the words that followed "says" in the messages of others, in order.
    """
    python = INSTALLED / "bin" / "python"
    require(python)
    if bot == "sopel":
        settings = documented("sopel", port, bot, "secret")
        files = [f"homedir = {folder}", f"logdir = {folder}/logs", f"extra = {_BOTS}", "enable = echo"]
        lines = [*settings, f"ca_certs = {root_certificate}", *files, "owner = bob"]
        (folder / "sopel.cfg").write_text("\n".join(["[core]", *lines, ""]), encoding="utf-8")
        command = [_BOTS / "sopel_bot.py", "start", "--config-dir", folder, "--config", folder / "sopel.cfg"]
    else:
        command = [_BOTS / "irc_bot.py", "localhost", str(port), bot, "secret", root_certificate]
    log_file = folder / f"{bot}.log"
    with log_file.open("w") as log, subprocess.Popen([python, *command], stdout=log, stderr=log) as process:
        try:
            yield
        finally:
            process.kill()
            process.wait(_STOP_SECONDS)
            print(log_file.read_text(encoding="utf-8"))  # shown when the test fails
