"""The log's lines, as people and programs read them."""

import io
import json
from typing import Any

import pytest
import structlog

from chatserver.log import _as_text, _quoted, _Unbreakable, configure_log


class BrokenPipe:
    """A text file whose reader has gone."""

    def write(self, _: str) -> None:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError


def line(**event: Any) -> str:
    return _as_text(None, "", {"level": "info", "event": "Something happened", "time": "noon", **event})


def test_a_line_says_its_level_what_happened_the_details_and_when() -> None:
    assert line(connection="1@here", code="too_long", user=None) == (
        "[INFO] Something happened connection=1@here code=too_long time=noon"
    )


def test_a_traceback_follows_on_lines_of_its_own() -> None:
    assert line(exception="Traceback...\n  ...") == "[INFO] Something happened time=noon\nTraceback...\n  ..."


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("word", "word"),
        (17, "17"),
        ("two words", "'two words'"),
        ("", "''"),
        ("a\nb", r"'a\nb'"),
        ("\x1b[2J", r"'\x1b[2J'"),
        ("\u202e", r"'\u202e'"),
    ],
)
def test_nobody_can_write_a_line_of_their_own_into_the_log(value: object, written: str) -> None:
    assert _quoted(value) == written


def test_the_room_goes_on_when_nobody_reads_its_log() -> None:
    log = _Unbreakable(BrokenPipe())  # type: ignore[arg-type]
    log.write("hello")
    log.flush()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_traceback_does_not_tell_what_the_variables_held(log_format: str) -> None:
    """Passwords and messages are in them."""
    file = io.StringIO()
    configure_log("info", log_format, file)
    password = "verysecret"
    try:
        int(password and "no number")
    except ValueError:
        structlog.get_logger().exception("Something failed")
    structlog.reset_defaults()

    assert "no number" in file.getvalue()
    assert password not in file.getvalue()
    if log_format == "json":
        assert json.loads(file.getvalue())["event"] == "Something failed"
