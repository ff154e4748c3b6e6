"""Byte streams split by line, by JSON object, and by header and body, with small limits.

The tests of json, frames and register have the literal bytes and the errors.
"""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatprotocol.errors import ErrorCode
from chatprotocol.wire.readers import LineBuffer, Section, SectionBuffer, nesting, split_objects

from .samples import any_pieces, held_bytes

LIMIT = 20

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
json_objects = st.dictionaries(st.text(max_size=6), json_values, max_size=4).map(
    lambda value: json.dumps(value).encode()
)


def lines_of(parts: list[bytes]) -> tuple[bytes, int, bytes]:
    """All complete lines, the number of overflows, and the incomplete line. The buffer keeps to its limit."""
    buffer = LineBuffer(LIMIT)
    lines = b""
    overflows = 0
    for part in parts:
        lines += buffer.split(part)
        overflows += buffer.drop_overflow()
        assert len(buffer.tail) <= LIMIT
    return lines, overflows, buffer.tail


@pytest.mark.parametrize(
    ("parts", "lines", "overflows", "tail"),
    [
        ([b"one\ntwo\nth"], b"one\ntwo\n", 0, b"th"),
        ([b"x" * LIMIT, b"\n"], b"x" * LIMIT + b"\n", 0, b""),
        ([b"x" * LIMIT, b"x", b"more", b"and more"], b"", 1, b""),
        ([b"x" * LIMIT, b"x", b"rest\nnext\n"], b"next\n", 1, b""),
        ([b"x" * LIMIT, b"x", b"rest\n" + b"y" * LIMIT, b"y"], b"", 2, b""),
        ([b"one\n" + b"x" * (LIMIT + 1)], b"one\n", 1, b""),
    ],
)
def test_line_over_the_limit_is_dropped_to_its_end(
    parts: list[bytes], lines: bytes, overflows: int, tail: bytes
) -> None:
    assert lines_of(parts) == (lines, overflows, tail)


@given(lines=st.lists(st.text("ab{}", max_size=LIMIT), max_size=8), data=st.data())
def test_lines_in_any_pieces_come_out_whole(lines: list[str], data: st.DataObject) -> None:
    stream = b"".join(line.encode() + b"\n" for line in lines)
    assert lines_of(data.draw(any_pieces(stream))) == (stream, 0, b"")


@given(
    objects=st.lists(json_objects, max_size=6),
    gaps=st.lists(st.sampled_from([b"", b" ", b"\t", b"\r"]), min_size=7, max_size=7),
    rest=st.sampled_from([b"", b"{", b"word", b'"x', b"}}}", b"[] {}"]),
)
def test_line_is_split_into_its_objects(objects: list[bytes], gaps: list[bytes], rest: bytes) -> None:
    """An incomplete object or rubbish after the last object is one more item."""
    line = b"".join(gap + each for gap, each in zip(gaps, objects, strict=False)) + gaps[-1] + rest
    assert split_objects(line) == [*objects, *([rest] if rest else [])]


@pytest.mark.parametrize(
    ("text", "levels"), [(b"1", 0), (b'{"a":[{}]}', 3), (b'{"a":"[[[["}', 1), (b"[" * 10_000, 10_000), (b"[]" * 9, 1)]
)
def test_nesting_is_measured_without_recursion(text: bytes, levels: int) -> None:
    assert nesting(text) == levels


# The longest header in bytes, with its empty line; and the longest body.
HEADER_LIMIT = 40
BODY_LIMIT = 8

GRIN = "\U0001f600"
GRIN_BYTES = b"\xf0\x9f\x98\x80"

either_count = pytest.mark.parametrize("characters", [False, True], ids=["bytes", "characters"])


def sections_of(parts: list[bytes], *, characters: bool = False) -> tuple[list[Section], bool, ErrorCode | None]:
    """All sections, whether one is incomplete, and the code of the problem. The buffer keeps to its limits."""
    buffer = SectionBuffer(frozenset({"PUT"}), HEADER_LIMIT, BODY_LIMIT, counts_characters=characters)
    empty_bytes = held_bytes(buffer)
    sections = []
    for part in parts:
        sections += buffer.split(part)
        if buffer.problem is None:
            assert held_bytes(buffer) - empty_bytes <= HEADER_LIMIT + BODY_LIMIT
    return sections, buffer.is_incomplete, buffer.problem.code if buffer.problem is not None else None


@pytest.mark.parametrize(
    ("parts", "bodies", "inside"),
    [
        ([bytes([each]) for each in GRIN_BYTES * 2], [GRIN * 2], False),
        ([GRIN_BYTES, GRIN_BYTES[:3]], [], True),
        # an invalid byte counts as one character, as soon as it is known to be invalid
        ([b"\xff\xff"], ["\udcff\udcff"], False),
        ([b"a\xe2", b"\nGET b\n\n"], ["a\udce2", None], False),
        ([b"\xf0\x9f", b"x"], ["\udcf0\udc9f"], True),
        ([b"\xed\xa0\x80"], ["\udced\udca0"], True),
    ],
)
def test_characters_are_counted_when_they_are_complete(
    parts: list[bytes], bodies: list[str | None], inside: bool
) -> None:
    sections, is_incomplete, problem = sections_of([b"PUT a\nContent-length: 2\n\n", *parts], characters=True)
    assert [section.body for section in sections] == bodies
    assert (is_incomplete, problem) == (inside, None)


# Parts of sections, and bytes near to them.
section_bits = (
    st.text("\n\r\t \0:-2x", max_size=3).map(str.encode),
    st.sampled_from([b"\xff", b"\xc3", b"\xa4", GRIN_BYTES, GRIN_BYTES[:2], GRIN_BYTES[2:]]),
    st.sampled_from([b"GET a", b"PUT a", b"\n\n", b"\n \n", b"\nContent-length: 2\n\n", b"\n content-Length:1\n\n"]),
    st.sampled_from([b"PUT\nContent-length: 2\n\n", b"PUT\n Content-length: 2\n\n", b"PUT\n Content-length: 1 \n \n "]),
    st.binary(max_size=8),
    st.builds(bytes.__mul__, st.sampled_from([b"x", b"\n", b"\xf0"]), st.integers(1, 60)),
)
section_streams = st.lists(st.one_of(section_bits), max_size=16).map(b"".join)


@either_count
@given(stream=section_streams, data=st.data())
def test_random_bytes_in_any_pieces_are_the_same_sections(stream: bytes, data: st.DataObject, characters: bool) -> None:
    whole = sections_of([stream], characters=characters)
    assert sections_of(data.draw(any_pieces(stream)), characters=characters) == whole
    assert sections_of([stream[at : at + 1] for at in range(len(stream))], characters=characters) == whole
