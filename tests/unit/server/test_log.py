"""The lines of the log, its writer thread, and entries that can't be written."""

import io
import json
import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
import structlog

from chatserver.log import LibraryLog, LineLimiter, LogWriter, _format_text, _quoted, configure_log

from .helpers import DEADLINE_SECONDS


def test_line_has_level_event_keys_and_time_and_then_a_traceback() -> None:
    event = {"level": "info", "event": "Something happened", "time": "noon", "connection": "1@here", "user": None}
    line = "[INFO] Something happened connection=1@here time=noon"
    assert _format_text(None, "", {**event}) == line
    assert _format_text(None, "", {**event, "exception": "Traceback...\n  ..."}) == f"{line}\nTraceback...\n  ..."


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
def test_value_can_not_forge_a_line(value: object, written: str) -> None:
    assert _quoted(value) == written


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The reading and the writing end of a pipe."""
    ends = os.pipe()
    yield ends
    for end in ends:
        with suppress(OSError):  # the test has closed it
            os.close(end)


def test_all_entries_are_written_in_order_before_the_end(pipe: tuple[int, int]) -> None:
    reader, end = pipe
    log = LogWriter(end, "text")
    log.start()
    for number in range(1_000):
        log.write(f"{number}\n")
    log.close(20.0)
    os.close(end)
    with os.fdopen(reader, closefd=False) as file:
        assert file.read().split() == [str(number) for number in range(1_000)]


@pytest.mark.parametrize("limit", [{"max_entries": 2_000}, {"max_characters": 2_000_000}])
def test_entries_that_are_not_read_are_dropped_and_counted(pipe: tuple[int, int], limit: dict[str, int]) -> None:
    """No thread waits for the reader, nor does the shutdown."""
    reader, end = pipe
    log = LogWriter(end, "text", **limit)
    log.start()
    entries = [f"{number:<999}\n" for number in range(5_000)]
    for entry in entries:
        log.write(entry)
    log.close(0.01)
    accounted = dropped = 0
    with os.fdopen(reader, closefd=False) as file:
        while accounted < len(entries):
            line = file.readline()
            if count := re.fullmatch(r"\[WARNING\] log entries dropped count=(\d+) time=\S+\n", line):
                dropped += int(count[1])
                accounted += int(count[1])
            else:  # in order, and the count stands where the gap is
                assert line == entries[accounted]
                accounted += 1
    # At most what is dropped if all that fits into queue and pipe is written, and nothing while they are put.
    assert 500 < dropped <= 3_000


def test_log_goes_on_after_a_failed_write(pipe: tuple[int, int]) -> None:
    """Such as on a full disk."""
    reader, end = pipe
    other_reader, other_end = os.pipe()
    os.close(reader)
    log = LogWriter(end, "text")
    log.start()
    log.write("lost\n")
    while not log.dropped:
        time.sleep(0.001)
    os.dup2(other_end, end)
    log.write("found\n")
    log.close(20.0)
    with os.fdopen(other_reader) as file:
        os.close(other_end)
        os.close(end)
        found, dropped = file.read().splitlines()
    assert found == "found"
    assert "dropped count=1" in dropped


def test_entry_may_be_logged_while_another_is_taken(pipe: tuple[int, int]) -> None:
    """A finalizer that fails is logged by the same thread."""
    reader, end = pipe
    log = LogWriter(end, "text")

    class Failing(str):
        __slots__ = ()

        def __len__(self) -> int:
            log.write("from the finalizer\n")
            return super().__len__()

    writer = threading.Thread(target=lambda: log.write(Failing("entry\n")), daemon=True)
    writer.start()
    writer.join(DEADLINE_SECONDS)
    assert not writer.is_alive()
    log.start()
    log.close(DEADLINE_SECONDS)
    assert "entry\n" in os.read(reader, 1_000).decode()


def test_entry_that_can_not_be_rendered_raises_nothing() -> None:
    class OutOfMemory:
        def __str__(self) -> str:
            raise MemoryError

    file = io.StringIO()
    configure_log("info", "text", file)
    structlog.get_logger().info("Something happened", key=OutOfMemory())
    structlog.get_logger().info("And then")
    structlog.reset_defaults()
    assert "Something" not in file.getvalue()
    assert "And then" in file.getvalue()


def test_library_logs_through_the_same_writer() -> None:
    file = io.StringIO()
    configure_log("info", "text", file)
    logger = logging.Logger("library")  # noqa: LOG001 -- one that no other test has
    logger.addHandler(LibraryLog())
    logger.warning("It is %s.", "late")
    structlog.reset_defaults()
    assert "[WARNING] library message logger=library text='It is late.'" in file.getvalue()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_traceback_does_not_show_variables(log_format: str) -> None:
    """They hold passwords and messages."""
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


class LimitedFile(io.StringIO):
    limiter: LineLimiter


class Lines:
    """A log with a limiter, whose clock the test moves."""

    def __init__(self, max_lines: int, **more: int) -> None:
        self.now = 1_000.0
        self.file = LimitedFile()
        self.limiter = self.file.limiter = LineLimiter(max_lines, lambda: self.now, **more)
        configure_log("info", "text", self.file)

    def taken(self) -> list[str]:
        """The lines since the last call, without their time."""
        lines = [line.rpartition(" time=")[0] for line in self.file.getvalue().splitlines()]
        self.file.truncate(0)
        self.file.seek(0)
        return lines


def test_entries_of_one_kind_about_one_address_are_limited_and_counted() -> None:
    """Promise: a peer can't fill the disk with the log."""
    lines = Lines(2)
    log = structlog.get_logger()
    for number in range(10):
        log.warning("request refused", code="wrong_password", connection=f"{number}@2001:db8::{number:x}")
    assert lines.taken() == [
        f"[WARNING] request refused code=wrong_password connection={number}@2001:db8::{number:x}" for number in range(2)
    ]
    log.warning("request refused", code="wrong_password", connection="1@2001:db8:0:1::1")
    log.warning("request refused", code="bad_json", connection="1@2001:db8::1")
    log.error("connection rejected", reason="silent", address="2001:db8::1")
    log.warning("refusing connections", reason="no_threads")
    assert len(lines.taken()) == 4, "other kinds, other addresses, and no address"
    for _ in range(10):
        log.info("login", user="alice", connection="1@2001:db8::1")
    assert len(lines.taken()) == 10
    lines.now += 59.0
    log.info("login")
    assert len(lines.taken()) == 1
    lines.now += 1.0
    log.info("login")
    assert lines.taken() == [
        "[WARNING] log entries left out like='request refused' reason=wrong_password address=2001:db8::/64 count=8",
        "[INFO] login",
    ]
    log.warning("request refused", code="wrong_password", connection="1@2001:db8::1")
    assert len(lines.taken()) == 1, "a new minute"


def test_numbers_of_left_out_entries_are_logged_at_the_end() -> None:
    lines = Lines(1)
    for _ in range(4):
        structlog.get_logger().warning("ack ignored", connection="1@192.0.2.1")
    lines.taken()
    lines.limiter.flush()
    assert lines.taken() == ["[WARNING] log entries left out like='ack ignored' address=192.0.2.1 count=3"]


def test_number_of_kinds_in_memory_is_limited() -> None:
    """The counts of those that are forgotten are logged."""
    lines = Lines(1, kinds_max=100)
    for number in range(1_000):
        for _ in range(2):
            structlog.get_logger().warning("ack ignored", connection=f"1@192.0.{number // 256}.{number % 256}")
    assert len(lines.limiter) <= 101
    lines.limiter.flush()
    assert sum("left out" in line for line in lines.taken()) == 1_000


def test_limit_of_0_is_no_limit() -> None:
    lines = Lines(0)
    for _ in range(100):
        structlog.get_logger().warning("ack ignored", connection="1@192.0.2.1")
    assert len(lines.taken()) == 100
