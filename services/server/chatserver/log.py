"""The log: one line for each thing that happened, for people or for programs. Never passwords, never messages."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO, cast

import structlog
import structlog.tracebacks

if TYPE_CHECKING:
    from structlog.types import EventDict, WrappedLogger


def configure_log(level: str, log_format: str, file: TextIO | None) -> None:
    """Send the log to the file, from this level on. Called once, at the start."""
    render: list[Any]
    if log_format == "json":
        # Local variables hold passwords and messages.
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        render = [structlog.processors.ExceptionRenderer(tracebacks), structlog.processors.JSONRenderer()]
    else:
        render = [structlog.processors.format_exc_info, _as_text]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            *render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _Unbreakable(file))),
        cache_logger_on_first_use=False,
    )


class _Unbreakable:
    """A text file whose reader may go away and whose disk may fill up: the room matters more than its log."""

    def __init__(self, file: TextIO | None) -> None:
        self._file = file

    def write(self, text: str) -> None:
        if self._file is not None:  # it is None where the program was started with its output closed
            with suppress(OSError):
                self._file.write(text)

    def flush(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.flush()


def _as_text(_: WrappedLogger, __: str, event: EventDict) -> str:
    """``[INFO] What happened. key=value ... time=...``; a traceback follows on lines of its own."""
    level = event.pop("level").upper()
    text = event.pop("event")
    traceback = event.pop("exception", None)
    time = event.pop("time")
    details = "".join(f" {key}={_quoted(value)}" for key, value in event.items() if value is not None)
    line = f"[{level}] {text}{details} time={time}"
    return f"{line}\n{traceback}" if traceback else line


def _quoted(value: object) -> str:
    """One word as it is, anything else in quotes with what is not printable escaped."""
    text = str(value)
    return text if text.isprintable() and text and " " not in text else repr(text)
