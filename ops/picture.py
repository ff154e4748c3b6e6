"""Draws terminals for the README, from real runs: the client (terminal.svg), and WeeChat (weechat.svg).

WeeChat is Debian's weechat-curses: ``make irc-clients`` installs it. Without it, its picture is left as it is.
"""

from __future__ import annotations

import shutil
import tempfile
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, Final

from chatclient import ChatClient
from ops.demo import BIN, TOP, await_port, end, inherited, start
from ops.window import ENTER, Window

if TYPE_CHECKING:
    from pyte.screens import Char

    from ops.window import Place

PICTURES: Final = TOP / "docs" / "pictures"
COLUMNS: Final = 84
ROWS: Final = 24
PASSWORD: Final = "wonderland"  # noqa: S105 - for a server that lives a second

# Sizes in pixels. Text is stretched to the width of its columns, so the columns are straight in all fonts.
_CELL_WIDTH: Final = 8.4
_CELL_HEIGHT: Final = 18
_MARGIN: Final = 14
_TITLE_HEIGHT: Final = 34
_FONT: Final = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"
_BACKGROUND: Final = "#15181e"
_FOREGROUND: Final = "#d4d7dd"
# The usual colours of a terminal with a dark background.
_COLOURS: Final = {
    "default": _FOREGROUND,
    "black": "#30353f",
    "brightblack": "#7d8590",
    "red": "#ff6b68",
    "green": "#7ec07e",
    "brown": "#d8b45a",
    "blue": "#6f9cf0",
    "magenta": "#cf8ef4",
    "cyan": "#5fc4d6",
    "white": "#f0f2f5",
}


def main() -> int:
    """Run a conversation for each picture, and draw the terminal of alice at its end."""
    conversations = {"terminal.svg": _talk_in_chatclient}
    if shutil.which("weechat"):
        conversations["weechat.svg"] = _talk_in_weechat
    for name, talk in conversations.items():
        with tempfile.TemporaryDirectory(prefix="chatroom-picture-") as folder:
            server = start(folder, "chatserver", "0", "--host", "127.0.0.1", "--data", f"{folder}/data")
            try:
                drawn = talk(int(await_port(server, [])), folder)
            finally:
                end(server)
        (PICTURES / name).write_text(drawn, encoding="utf-8")
        print(f"Drawn: docs/pictures/{name}")
    return 0


# --- the conversation ---


def log_in(port: int, name: str) -> ChatClient:
    client = ChatClient("127.0.0.1", port)
    client.connect()
    client.login(name, PASSWORD)
    return client


def _talk_in_chatclient(port: int, folder: str) -> str:
    bob, carol = log_in(port, "bob"), log_in(port, "carol")
    bob.say("Morning! The train is late again, I'll be there at ten.")
    carol.say("Take your time. Coffee is on me ☕")
    alice = log_in(port, "alice")  # she stays a member of the room
    for user in (alice, bob):
        user.join("trip")
    alice.close()
    environment = {**inherited(), "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "CHAT_PASSWORD": PASSWORD}
    environment.pop("NO_COLOR", None)
    command = [str(BIN / "chatclient"), "127.0.0.1", str(port), "alice"]
    with Window(command, columns=COLUMNS, rows=ROWS, environment=environment, folder=folder, is_shown=False) as window:
        window.until_shows("─── now ───", "3 online")
        carol.say("alice, did you see the pictures from Kyoto? 京都の秋はきれいです")
        window.until_shows("Kyoto")
        window.type("PM I did! The third one is my favourite.", ENTER)
        window.until_shows("alice │ I did!")
        bob.whisper("alice", "psst: it's carol's birthday on Friday, don't tell")
        window.until_shows("psst")
        window.type("DM bob not a word. Cake?", ENTER)
        window.until_shows("alice » bob │")
        mia = log_in(port, "mia")
        window.until_shows("mia joined")
        mia.say("What did I miss?\nAnd who has the tickets?")
        window.until_shows("tickets?")
        slip = mia.say("oops, wrong window")
        window.until_shows("oops")
        mia.delete(slip or 0)
        window.until_shows("(deleted by mia)")
        bob.say("the hotel is booked", room="trip")
        window.until_shows("#trip (1 new)")
        window.type("/search late train", ENTER)
        window.until_shows("message found")
        window.type("@mia bob has them, he is at the sta")
        window.until_line("alice> @mia bob has them, he is at the sta")
        # The port differs in each run. The picture has the default one.
        rows = [_replaced(row, f"127.0.0.1:{port}", "localhost:9999") for row in _cells(window)]
        drawn = _draw("chatclient", rows, window.cursor)
    for user in (bob, carol, mia):
        user.close()
    return drawn


def _talk_in_weechat(port: int, folder: str) -> str:
    settings = {
        "irc.server.chat.nicks": "alice",
        "irc.server.chat.sasl_username": "alice",
        "irc.server.chat.sasl_password": PASSWORD,
        "irc.server.chat.autojoin": "#lobby",
        "irc.look.server_buffer": "independent",
        "irc.look.smart_filter": "off",
        "weechat.look.buffer_time_format": "%H:%M",
        "weechat.look.prefix_align_max": "8",
        "weechat.bar.buflist.size": "13",
    }
    environment = {**inherited(), "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "HOME": folder}
    environment["NCURSES_NO_UTF8_ACS"] = "1"  # lines as letters, which the emulator knows
    bob, carol = log_in(port, "bob"), log_in(port, "carol")
    alice = log_in(port, "alice")
    for user in (alice, bob):
        user.join("trip")
    alice.set_topic("trip", "Kyoto in November")
    alice.close()
    command = ["weechat", "--dir", f"{folder}/weechat", "-r", f"/server add chat 127.0.0.1/{port}"]
    for name, value in settings.items():
        command += ["-r", f"/set {name} {value}"]
    command += ["-r", "/connect chat"]
    with Window(command, columns=COLUMNS, rows=14, environment=environment, folder=folder, is_shown=False) as window:
        window.until_shows("#trip", "#lobby")
        window.type("/buffer #lobby", ENTER)
        window.until_shows("3:#lobby")
        window.type("/buffer clear", ENTER)
        carol.say("alice, did you see the pictures from Kyoto? 京都の秋はきれいです")
        window.until_shows("Kyoto?")
        window.type("I did! The third one is my favourite.", ENTER)
        window.until_shows("I did!")
        carol.say("/me makes coffee")
        window.until_shows("makes coffee")
        bob.say("Three trains are late:\nthe 8:12, the 8:40,\nand mine")
        window.until_shows("and mine")
        bob.say("the hotel is booked", room="trip")
        bob.whisper("alice", "psst: it's carol's birthday on Friday")
        window.until_shows("5:bob")
        window.type("carol: what a pity, ")
        window.until(lambda: "what a pity," in window.cursor_row, "the line is typed")
        drawn = _draw("weechat", _cells(window), window.cursor)
    for user in (bob, carol):
        user.close()
    return drawn


# --- the picture ---


def _cells(window: Window) -> list[list[Char]]:
    return [[window.cell(row, column) for column in range(COLUMNS)] for row in range(len(window.rows()))]


def _replaced(cells: list[Char], old: str, new: str) -> list[Char]:
    """The row with ``old`` replaced by ``new``. The text after it moves."""
    start = "".join(cell.data or "\0" for cell in cells).find(old)
    if start < 0:
        return cells
    style, blank = cells[start], cells[-1]
    others = [*(style._replace(data=letter) for letter in new), *cells[start + len(old) :]]
    return [*cells[:start], *others, *[blank] * COLUMNS][:COLUMNS]


def _draw(title: str, rows: list[list[Char]], cursor: Place) -> str:
    width = round(COLUMNS * _CELL_WIDTH + 2 * _MARGIN)
    height = _TITLE_HEIGHT + len(rows) * _CELL_HEIGHT + 2 * _MARGIN
    row, column = cursor
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    about = f'role="img" aria-label="{title} in a terminal" font-family="{_FONT}" font-size="14"'
    bar = f"M0 {_TITLE_HEIGHT}V10A10 10 0 0 1 10 0H{width - 10}A10 10 0 0 1 {width} 10V{_TITLE_HEIGHT}Z"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {about}>',
        f'<rect width="{width}" height="{height}" rx="10" fill="{_BACKGROUND}"/>',
        f'<path d="{bar}" fill="#262b34"/>',
        *(
            f'<circle cx="{20 + 20 * number}" cy="17" r="6" fill="{colour}"/>'
            for number, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
        ),
        f'<text x="{width / 2:g}" y="22" fill="#9aa3af" text-anchor="middle" font-size="13">{title}</text>',
        f'<rect x="{_x(column)}" y="{_y(row) - 13}" width="{_CELL_WIDTH}" height="17" fill="{_FOREGROUND}"/>',
        *(line for number, cells in enumerate(rows) for line in _draw_row(number, cells)),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _draw_row(row: int, cells: list[Char]) -> list[str]:
    """A row as pieces of one style each. Each wide letter is a separate piece, so that no font moves other letters."""
    drawn = []
    for background, piece in groupby(enumerate(cells), lambda place: place[1].bg):
        columns = [column for column, _ in piece]
        if background != "default":
            size = f'width="{len(columns) * _CELL_WIDTH:g}" height="{_CELL_HEIGHT}"'
            fill = f'fill="{_colour(background)}" fill-opacity="0.4"'
            drawn.append(f'<rect x="{_x(columns[0])}" y="{_y(row) - 13}" {size} {fill}/>')
    for (is_wide, style), piece in groupby(
        enumerate(cells), lambda place: (_is_wide(cells, place[0]), _style(place[1]))
    ):
        places = list(piece)
        for part in [[place] for place in places if place[1].data] if is_wide else [places]:
            text = "".join(cell.data for _, cell in part)
            start = part[0][0] + len(text) - len(text.lstrip())
            if text.strip():
                width = 2 if is_wide else len(text.strip())
                drawn.append(
                    f'<text x="{_x(start)}" y="{_y(row)}" textLength="{width * _CELL_WIDTH:g}" '
                    f'lengthAdjust="spacingAndGlyphs" xml:space="preserve"{style}>{escape(text.strip())}</text>'
                )
    return drawn


def _is_wide(cells: list[Char], column: int) -> bool:
    """True for both columns of a letter with two columns."""
    return not all(cell.data for cell in cells[column : column + 2])


def _style(cell: Char) -> str:
    return f' fill="{_colour(cell.fg)}"' + ' font-weight="bold"' * cell.bold + ' font-style="italic"' * cell.italics


def _colour(name: str) -> str:
    """The colour of a name of pyte, which misspells one of the bright ones; these look like the others here."""
    plain = name.removeprefix("bright").removeprefix("bfight")
    return _COLOURS.get(name) or _COLOURS.get(plain, f"#{name}")


def _x(column: int) -> str:
    return f"{_MARGIN + column * _CELL_WIDTH:g}"


def _y(row: int) -> int:
    return _TITLE_HEIGHT + _MARGIN + row * _CELL_HEIGHT + 13
