"""The program ``chatclient`` in pseudo-terminals."""

from __future__ import annotations

import os
import re
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from ops.window import Window

if TYPE_CHECKING:
    from pathlib import Path

_MAIN = "import sys; from chatclient.__main__ import main; sys.exit(main())"
_INHERITED = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "HOME")
_DEFAULTS = {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "TZ": "UTC", "CHAT_PASSWORD": "secret"}


class Terminals:
    """Opens clients of one server, each in a terminal. Leaving the context kills them."""

    def __init__(self, port: int, folder: Path) -> None:
        self._port = port
        self._folder = folder  # the current directory, without .env
        self._windows = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._windows.close()

    def open(
        self,
        name: str = "alice",
        *flags: str,
        columns: int = 100,
        rows: int = 30,
        port: int | None = None,
        joins: bool = False,
        **settings: str | None,
    ) -> Window:
        """Start a client. ``settings`` are variables of its environment; None removes one."""
        inherited = {each: os.environ[each] for each in _INHERITED if each in os.environ}
        environment = {key: value for key, value in {**inherited, **_DEFAULTS, **settings}.items() if value is not None}
        words = ["127.0.0.1", str(port or self._port), *([name] if name else []), *flags]
        window = Window(
            [sys.executable, "-m", "chatclient", *words],
            columns=columns,
            rows=rows,
            environment=environment,
            folder=str(self._folder),
            joins=joins,
        )
        return self._windows.enter_context(window)

    def log_in(self, name: str = "alice", *flags: str, **options: Any) -> Window:
        """Start a client as :meth:`open` does, and wait until it is connected."""
        window = self.open(name, *flags, **options)
        window.until(lambda: is_connected(window), "it is connected")
        window.until_line(f"{name}>")
        return window


def status(window: Window) -> str:
    """The row below the prompt; empty if the prompt is in the last row, before the status line is drawn."""
    return (window.rows()[window.cursor.row + 1 :] or [""])[0]


def is_connected(window: Window) -> bool:
    """True if the status line says so."""
    return any(re.search(r"(^|[·-] )connected$", row) for row in window.rows()[-1:] + window.everything()[-1:])


def rows_with(window: Window, text: str) -> list[str]:
    """All rows with this text, without their times."""
    return [re.sub(r"^\d\d:\d\d ", "", row) for row in window.everything() if text in row]


def texts_with(window: Window, text: str) -> list[str]:
    """The message column of the rows that have this text."""
    return [row.split("│ ", 1)[1] for row in window.everything() if text in row and "│ " in row]
