"""The dialect json: how much work a line may cost, counted in calls and bytes and not by the clock."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from chatprotocol.requests import Ping, Say
from chatprotocol.wire import json as protocol
from chatprotocol.wire.readers import ObjectScanner

from .samples import decode, pieces


class Count:
    """Stands before a function, and counts its calls and the bytes that they were given."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.calls = 0
        self.bytes = 0

    def __call__(self, data: bytes, *others: Any) -> Any:
        self.calls += 1
        self.bytes += len(data)
        return self._function(data, *others)


@pytest.fixture
def parser(monkeypatch: pytest.MonkeyPatch) -> Count:
    """Counts what the parser of single objects is given."""
    count = Count(msgspec.json.decode)
    monkeypatch.setattr(msgspec.json, "decode", count)
    return count


@pytest.fixture
def scanned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How far each call of the scanner moved on."""
    moves: list[int] = []
    scan = ObjectScanner.scan

    def watched(self: ObjectScanner, text: bytes, start: int = 0) -> int:
        before = self._scanned
        end = scan(self, text, start)
        moves.append(self._scanned - before)
        return end

    monkeypatch.setattr(ObjectScanner, "scan", watched)
    return moves


@pytest.mark.parametrize(
    "line", [b'{"x":"' + b"a" * 60_000, b"{" + b'"a":1,' * 10_000, b"[" * 60_000, b'{"x":"' + b"\\" * 60_000]
)
def test_a_line_that_does_not_end_is_looked_at_once_and_not_parsed(
    line: bytes, parser: Count, scanned: list[int]
) -> None:
    assert decode(protocol.Json().request_decoder(), pieces(line, 10)) == []

    assert parser.calls == 0
    assert all(move >= 0 for move in scanned)
    assert sum(scanned) <= len(line)


def test_objects_without_line_ends_are_parsed_once_each(parser: Count) -> None:
    stream = b'{"command":"ping"}' * 1_000

    assert decode(protocol.Json().request_decoder(), pieces(stream, 7)) == [Ping()] * 1_000
    assert parser.calls == 1_000
    assert parser.bytes == len(stream)


def test_good_lines_are_parsed_all_at_once(monkeypatch: pytest.MonkeyPatch, parser: Count) -> None:
    lines = Count(protocol._COMMANDS.decode_lines)
    monkeypatch.setattr(protocol, "_COMMANDS", type("Commands", (), {"decode_lines": staticmethod(lines)}))

    found = protocol.Json().request_decoder().decode(b'{"command":"PM","message":"hello"}\n' * 1_000)

    assert found == [Say("hello")] * 1_000
    assert (lines.calls, parser.calls) == (1, 0)


@pytest.mark.parametrize("letter", [b"}", b"]", b"[]", b"}x"])
def test_one_line_of_rubbish_is_not_answered_with_megabytes(letter: bytes) -> None:
    """An answer to each bracket would make a hundred bytes of each that a peer sends (DESIGN.md, Back-pressure)."""
    line = letter * (60_000 // len(letter)) + b"\n"

    assert len(protocol.Json().request_decoder().decode(line)) <= 100


def test_one_line_of_rubbish_byte_by_byte_is_not_answered_with_megabytes() -> None:
    assert len(decode(protocol.Json().request_decoder(), pieces(b"}" * 10_000 + b"\n", 1))) <= 100
