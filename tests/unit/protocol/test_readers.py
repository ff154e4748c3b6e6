"""Byte streams split by line, by JSON object, by frame, and by header and body."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatprotocol.errors import ErrorCode
from chatprotocol.wire.readers import (
    HEADER_BYTES,
    FrameBuffer,
    LineBuffer,
    ObjectScanner,
    Section,
    SectionBuffer,
    frame,
    frame_header,
    nesting,
    split_objects,
)

from .samples import any_pieces, calls, held_bytes

LIMIT = 20

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
json_objects = st.dictionaries(st.text(max_size=6), json_values, max_size=4).map(
    lambda value: json.dumps(value).encode()
)

# --- LineBuffer ---


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


@given(parts=st.lists(st.text("ab\n", max_size=60).map(str.encode), max_size=12))
def test_line_buffer_keeps_to_its_limit(parts: list[bytes]) -> None:
    lines_of(parts)


def test_used_part_of_the_tail_is_dropped() -> None:
    """It then does not count for the limit."""
    buffer = LineBuffer(LIMIT)
    buffer.split(b"{}" * LIMIT)
    buffer.drop(2 * LIMIT - 1)

    assert not buffer.drop_overflow()
    assert buffer.split(b"{\n") == b"}{\n"


# --- ObjectScanner, split_objects, nesting ---


@pytest.mark.parametrize(("text", "end"), [(b'{"a":"\\', -1), (b"word", -1), (b"[1,[2]]", 7), (b"}", 1), (b"{[}", -1)])
def test_scanner_does_not_validate(text: bytes, end: int) -> None:
    """It finds the end of anything with brackets; the parser refuses it."""
    assert ObjectScanner().scan(text) == end


@given(before=st.binary(max_size=5), first=json_objects, rest=st.binary(max_size=20), cuts=st.sets(st.integers(0, 200)))
def test_scanner_finds_the_same_end_of_a_growing_object(
    before: bytes, first: bytes, rest: bytes, cuts: set[int]
) -> None:
    text = before + first + rest
    scanner = ObjectScanner()
    for size in [*sorted(at for at in cuts if at < len(first)), len(first) + len(rest)]:
        end = scanner.scan(text[: len(before) + size], len(before))

    assert end == len(before) + len(first)


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


def test_growing_object_is_scanned_once() -> None:
    """The cost is linear in the bytes, however small the pieces are."""
    text = b"{" + b'"a":1,' * 2_000

    def scan() -> None:
        scanner = ObjectScanner()
        for size in range(1, len(text)):
            scanner.scan(text[:size])

    assert calls(scan) < 15 * len(text)


# --- FrameBuffer ---

A, B = ord("A"), ord("B")
# The longest payload: with its header the frame has LIMIT bytes.
LONGEST = b"x" * 15


def frames_of(parts: list[bytes]) -> tuple[list[tuple[int, bytes]], bytes, ErrorCode | None]:
    """All frames, the incomplete one, and the code of the problem."""
    buffer = FrameBuffer(b"AB", LIMIT)
    frames = []
    for part in parts:
        frames += buffer.split(part)
        assert len(buffer.rest) < LIMIT
    return frames, buffer.rest, buffer.problem.code if buffer.problem is not None else None


@pytest.mark.parametrize(
    ("kind", "payload", "data"),
    [
        (A, b"", b"A\0\0\0\0"),
        (B, b"x" * 66_051, b"B\0\x01\x02\x03" + b"x" * 66_051),
        (255, b"\xff", b"\xff\0\0\0\x01\xff"),
    ],
    ids=lambda value: f"{value!r:.40}",
)
def test_frame_is_kind_length_and_payload(kind: int, payload: bytes, data: bytes) -> None:
    assert frame(kind, payload) == data
    assert frame_header(kind, len(payload)) == data[:HEADER_BYTES] == data[:5]


@pytest.mark.parametrize(
    ("stream", "frames", "problem", "said"),
    [
        (b"A\0\0\0\x0f" + LONGEST, [(A, LONGEST)], None, ()),
        (b"A\0\0\0\x03oneB\0\0\0\x10" + LONGEST + b"x", [(A, b"one")], ErrorCode.TOO_LONG, ("20 bytes", "21")),
        (b"A\0\0\0\x03onex\0\0\0\0", [(A, b"one")], ErrorCode.BAD_REQUEST, ("A or B", "0x78")),
    ],
)
def test_frames_are_read_up_to_an_invalid_header(
    stream: bytes, frames: list[tuple[int, bytes]], problem: ErrorCode | None, said: tuple[str, ...]
) -> None:
    """It is reported as soon as it is known, with the rule; nothing after it is read."""
    buffer = FrameBuffer(b"AB", LIMIT)
    assert buffer.split(stream) == frames
    assert (buffer.problem.code if buffer.problem else None) is problem
    assert all(each in buffer.problem.reason for each in said if buffer.problem)
    assert buffer.split(b"A\0\0\0\0") == ([] if problem else [(A, b"")])


@given(
    frames=st.lists(st.tuples(st.sampled_from([A, B]), st.binary(max_size=len(LONGEST))), max_size=8),
    rest=st.binary(max_size=8) | st.text("AB\0\x03\x0f\x10").map(str.encode),
    data=st.data(),
)
def test_frames_in_any_pieces_are_the_same(frames: list[tuple[int, bytes]], rest: bytes, data: st.DataObject) -> None:
    stream = b"".join(bytes([kind]) + len(payload).to_bytes(4, "big") + payload for kind, payload in frames) + rest

    whole = frames_of([stream])
    assert whole[0][: len(frames)] == frames
    assert frames_of(data.draw(any_pieces(stream))) == whole


# --- SectionBuffer ---

# The longest header in bytes, with its empty line; and the longest body.
HEADER_LIMIT = 40
BODY_LIMIT = 8
# The same limit if characters are counted, each of up to four bytes.
BODY_LIMIT_CHARACTERS = 2

GRIN = "\U0001f600"
GRIN_BYTES = b"\xf0\x9f\x98\x80"

either_count = pytest.mark.parametrize("characters", [False, True], ids=["bytes", "characters"])


def section_buffer(*, characters: bool) -> SectionBuffer:
    return SectionBuffer(frozenset({"PUT"}), HEADER_LIMIT, BODY_LIMIT, counts_characters=characters)


def sections_of(parts: list[bytes], *, characters: bool = False) -> tuple[list[Section], bool, ErrorCode | None]:
    """All sections, whether one is incomplete, and the code of the problem. The buffer keeps to its limits."""
    buffer = section_buffer(characters=characters)
    empty_bytes = held_bytes(buffer)
    sections = []
    for part in parts:
        sections += buffer.split(part)
        if buffer.problem is None:
            assert held_bytes(buffer) - empty_bytes <= HEADER_LIMIT + BODY_LIMIT
    return sections, buffer.is_inside, buffer.problem.code if buffer.problem is not None else None


@either_count
@pytest.mark.parametrize(
    ("stream", "sections", "inside"),
    [
        # any case of the word, further lines, white space around names and in empty lines
        (b"get A b\nmore\n\nGET\n\nGE", [("GET", "A b", None), ("GET", "", None)], True),
        (b"\n\nGET a \n\t\r \n\n \r\nGET b\r\n\r\n", [("GET", "a", None), ("GET", "b", None)], False),
        (b"G\xffT \xff\n\n", [("G\ufffdT", "\ufffd", None)], False),
        (b"PUT a\nContent-length: 2\n\n\n\nGET b\n\n", [("PUT", "a", "\n\n"), ("GET", "b", None)], False),
        (b"GET a\nContent-length: 2\n\n\xff\x80\n", [("GET", "a", "\udcff\udc80")], False),
        # an indented length: one space before the body is not counted
        (b"PUT a\n Content-length: 2\n\n hi", [("PUT", "a", "hi")], False),
        (b"PUT a\n Content-length: 2\n\nhi", [("PUT", "a", "hi")], False),
        (b"PUT a\n Content-length: 2\n\n  ", [], True),
    ],
)
def test_section_is_header_and_body(
    stream: bytes, sections: list[tuple[str, str, str | None]], inside: bool, characters: bool
) -> None:
    assert sections_of([stream], characters=characters) == (sections, inside, None)


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
    sections, is_inside, problem = sections_of([b"PUT a\nContent-length: 2\n\n", *parts], characters=True)

    assert [section.body for section in sections] == bodies
    assert (is_inside, problem) == (inside, None)


@either_count
@pytest.mark.parametrize(
    ("header", "code", "said"),
    [
        (b"PUT a\n\n", ErrorCode.BAD_REQUEST, ["none"]),
        (b"PUT\nContent-length: 1\ncontent-length:2\n\n", ErrorCode.BAD_REQUEST, ["2 different"]),
        (b"GET a\nContent-length: -12\n\n", ErrorCode.BAD_REQUEST, ["'-12'"]),
        (b"GET a\nContent-length: 1234\n\n", ErrorCode.TOO_LONG, ["8 bytes at most", "1,234"]),
        (b"GET " + b"a" * (HEADER_LIMIT - 3), ErrorCode.BAD_REQUEST, [f"{HEADER_LIMIT} bytes at most"]),
        (b"GET " + b"a" * (HEADER_LIMIT - 5) + b"\n\n", ErrorCode.BAD_REQUEST, [f"{HEADER_LIMIT} bytes at most"]),
    ],
)
def test_invalid_section_is_reported_and_nothing_after_it_is_read(
    header: bytes, code: ErrorCode, said: list[str], characters: bool
) -> None:
    longest = b"GET " + b"a" * (HEADER_LIMIT - 6) + b"\n\n"
    buffer = section_buffer(characters=characters)
    assert len(buffer.split(longest + header)) == 1
    assert buffer.problem is not None
    assert buffer.problem.code is code
    assert all(each in buffer.problem.reason for each in said)

    held = held_bytes(buffer)
    assert buffer.split(b"GET a\n\n" * 1_000) == []
    assert held_bytes(buffer) == held
    assert not buffer.is_inside


@pytest.mark.parametrize(("body", "in_characters"), [(b"12345678", False), (GRIN_BYTES * 2, False), (b"ab", True)])
def test_body_limit_counts_four_bytes_for_a_character(body: bytes, in_characters: bool) -> None:
    stream = b"PUT a\nContent-length: %d\n\n" % len(body) + body

    assert sections_of([stream]) == ([("PUT", "a", body.decode())], False, None)
    assert sections_of([stream], characters=True)[2] is (None if in_characters else ErrorCode.TOO_LONG)


names = st.text("abc\u00e4", max_size=2).map(lambda name: f"x{name}")
bodies = st.none() | st.text(st.sampled_from("ab \n\r\t\u00e4\u20ac\U0001f600"), max_size=BODY_LIMIT_CHARACTERS)


def section(name: str, body: str | None, *, characters: bool) -> bytes:
    if body is None:
        return b"GET " + name.encode() + b"\n\n"
    size = len(body) if characters else len(body.encode())
    return b"PUT " + name.encode() + b"\nContent-length:%d\n\n" % size + body.encode()


@either_count
@given(said=st.lists(st.tuples(names, bodies), max_size=8), data=st.data())
def test_sections_in_any_pieces_come_out_whole(
    said: list[tuple[str, str | None]], data: st.DataObject, characters: bool
) -> None:
    stream = b"".join(section(name, body, characters=characters) for name, body in said)
    sections = [("GET" if body is None else "PUT", name, body) for name, body in said]

    assert sections_of(data.draw(any_pieces(stream)), characters=characters) == (sections, False, None)


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
