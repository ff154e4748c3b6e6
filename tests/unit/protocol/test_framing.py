"""Bytes to lines, objects, frames and sections."""

import itertools
import json

import pytest
from hypothesis import given, settings
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
    is_object,
    nesting,
    split_objects,
)

from .samples import held_bytes

LIMIT = 20

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
json_objects = st.dictionaries(st.text(max_size=6), json_values, max_size=4).map(
    lambda value: json.dumps(value).encode()
)


def cut(stream: bytes, cuts: set[int]) -> list[bytes]:
    edges = [0, *sorted(min(at, len(stream)) for at in cuts), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


def lines_of(parts: list[bytes]) -> tuple[bytes, int, bytes]:
    """Everything that a line buffer makes of the parts: all blocks, how often it overflowed, and the tail."""
    buffer = LineBuffer(LIMIT)
    blocks = b""
    overflows = 0
    for part in parts:
        blocks += buffer.split(part)
        overflows += buffer.drop_overflow()
    return blocks, overflows, buffer.tail


# --- LineBuffer ---


@pytest.mark.parametrize(
    ("parts", "block", "overflows", "tail"),
    [
        ([b"one\n"], b"one\n", 0, b""),
        ([b"one\ntwo\nth"], b"one\ntwo\n", 0, b"th"),
        ([b"o", b"n", b"e", b"\n"], b"one\n", 0, b""),
        ([b"\n\n"], b"\n\n", 0, b""),
        ([b"", b"one", b""], b"", 0, b"one"),
        ([b"x" * LIMIT], b"", 0, b"x" * LIMIT),
        ([b"x" * LIMIT, b"\n"], b"x" * LIMIT + b"\n", 0, b""),
        ([b"x" * LIMIT, b"x"], b"", 1, b""),
        ([b"x" * LIMIT, b"x", b"more", b"and more"], b"", 1, b""),
        ([b"x" * LIMIT, b"x", b"rest\nnext\n"], b"next\n", 1, b""),
        ([b"x" * LIMIT, b"x", b"rest\n" + b"y" * LIMIT, b"y"], b"", 2, b""),
        ([b"one\n" + b"x" * (LIMIT + 1)], b"one\n", 1, b""),
    ],
)
def test_a_line_buffer_gives_whole_lines_and_gives_up_long_ones(
    parts: list[bytes], block: bytes, overflows: int, tail: bytes
) -> None:
    assert lines_of(parts) == (block, overflows, tail)


def test_the_beginning_of_a_tail_can_be_used_before_its_line_has_ended() -> None:
    buffer = LineBuffer(LIMIT)
    buffer.split(b"{}{")

    buffer.drop(2)
    assert buffer.tail == b"{"
    assert buffer.split(b"}\n") == b"{}\n"


def test_a_long_tail_of_which_enough_was_used_is_not_over_the_limit() -> None:
    buffer = LineBuffer(LIMIT)
    buffer.split(b"{}" * LIMIT)
    buffer.drop(2 * LIMIT - 2)

    assert not buffer.drop_overflow()
    assert buffer.tail == b"{}"


@given(
    lines=st.lists(st.binary(max_size=LIMIT).map(lambda line: line.replace(b"\n", b"")), max_size=8),
    cuts=st.sets(st.integers(0, 160)),
)
def test_lines_within_the_limit_come_out_whole_wherever_they_are_cut(lines: list[bytes], cuts: set[int]) -> None:
    stream = b"".join(line + b"\n" for line in lines)

    assert lines_of(cut(stream, cuts)) == (stream, 0, b"")


@given(parts=st.lists(st.text("ab\n", max_size=60).map(str.encode), max_size=12))
def test_a_line_buffer_never_holds_more_than_its_limit(parts: list[bytes]) -> None:
    buffer = LineBuffer(LIMIT)
    for part in parts:
        buffer.split(part)
        buffer.drop_overflow()
        assert len(buffer.tail) <= LIMIT


# --- ObjectScanner, split_objects, nesting ---


@pytest.mark.parametrize(
    ("text", "end"),
    [
        (b"{}", 2),
        (b"{}{}", 2),
        (b' {"a":1} rest', 8),
        (b'{"a":{"b":[1,{}]}}{', 18),
        (b'{"a":"}"}', 9),
        (b'{"a":"\\"}"}', 11),
        (b'{"a":"\\\\"}x', 10),
        (b'{"a":"\\', -1),
        (b'{"a":"', -1),
        (b"{", -1),
        (b"", -1),
        (b"word", -1),
        (b"[1,[2]]", 7),
        (b"}", 1),
        (b"{[}", -1),
    ],
)
def test_a_scanner_finds_the_end_of_the_first_object(text: bytes, end: int) -> None:
    assert ObjectScanner().scan(text) == end


@given(first=json_objects, rest=st.binary(max_size=20), cuts=st.sets(st.integers(0, 200)))
def test_a_scanner_that_sees_an_object_grow_finds_the_same_end(first: bytes, rest: bytes, cuts: set[int]) -> None:
    text = first + rest
    scanner = ObjectScanner()
    for size in [*sorted(at for at in cuts if at < len(first)), len(text)]:
        end = scanner.scan(text[:size])

    assert end == len(first)


def test_a_scanner_finds_an_object_that_begins_later_in_the_text() -> None:
    scanner = ObjectScanner()
    assert scanner.scan(b'xx{"a":', 2) == -1
    assert scanner.scan(b'xx{"a":1}{', 2) == 9


@pytest.mark.parametrize(
    ("text", "start", "answer"),
    [
        (b"{", 0, True),
        (b" \t\r\n{", 0, True),
        (b"}{", 0, False),
        (b"}{", 1, True),
        (b"", 0, False),
        (b"[{}]", 0, False),
    ],
)
def test_an_object_begins_with_a_brace_behind_white_space(text: bytes, start: int, answer: bool) -> None:
    assert is_object(text, start) is answer


@given(
    objects=st.lists(json_objects, max_size=6),
    gaps=st.lists(st.sampled_from([b"", b" ", b"\t", b"\r"]), min_size=7, max_size=7),
)
def test_objects_in_one_line_are_told_apart(objects: list[bytes], gaps: list[bytes]) -> None:
    line = b"".join(gap + each for gap, each in zip(gaps, objects, strict=False))

    assert split_objects(line) == objects


@pytest.mark.parametrize(
    ("line", "objects"),
    [
        (b"", []),
        (b"  \r", []),
        (b"{}{", [b"{}", b"{"]),
        (b"word", [b"word"]),
        (b'{} "x', [b"{}", b'"x']),
        (b"{}}}}", [b"{}", b"}}}"]),
        (b"[] {}", [b"[] {}"]),
    ],
)
def test_a_rest_that_does_not_end_is_the_last_object(line: bytes, objects: list[bytes]) -> None:
    assert split_objects(line) == objects


@pytest.mark.parametrize(
    ("text", "levels"),
    [(b"1", 0), (b"{}", 1), (b'{"a":[{}]}', 3), (b'{"a":"[[[["}', 1), (b"[" * 10_000, 10_000), (b"[]" * 9, 1)],
)
def test_nesting_is_measured_without_recursion(text: bytes, levels: int) -> None:
    assert nesting(text) == levels


# --- FrameBuffer ---

A, B = ord("A"), ord("B")
# As long as a frame may be: with its header it has LIMIT bytes.
LONGEST = b"x" * 15


def frames_of(parts: list[bytes]) -> tuple[list[tuple[int, bytes]], bytes, ErrorCode | None]:
    """Everything that a frame buffer makes of the parts: all frames, the rest, and what was wrong."""
    buffer = FrameBuffer(b"AB", LIMIT)
    frames = [found for part in parts for found in buffer.split(part)]
    return frames, buffer.rest, buffer.problem.code if buffer.problem is not None else None


@pytest.mark.parametrize(
    ("kind", "payload", "data"),
    [
        (A, b"", b"A\0\0\0\0"),
        (B, b"x", b"B\0\0\0\x01x"),
        (A, b"x" * 258, b"A\0\0\x01\x02" + b"x" * 258),
        (B, b"x" * 65_536, b"B\0\x01\0\0" + b"x" * 65_536),
        (0, b"\0", b"\0\0\0\0\x01\0"),
        (255, b"\xff", b"\xff\0\0\0\x01\xff"),
    ],
    ids=lambda value: f"{value!r:.40}",
)
def test_a_frame_is_its_kind_the_length_of_its_payload_and_the_payload(kind: int, payload: bytes, data: bytes) -> None:
    assert frame(kind, payload) == data
    assert frame_header(kind, len(payload)) == data[:HEADER_BYTES] == data[:5]


@pytest.mark.parametrize(
    ("parts", "frames", "rest", "problem"),
    [
        ([b""], [], b"", None),
        ([b"A\0\0\0\x03one"], [(A, b"one")], b"", None),
        ([b"A\0\0\0\x03oneB\0\0\0\x03twoA\0"], [(A, b"one"), (B, b"two")], b"A\0", None),
        ([b"A", b"\0\0", b"\0\x03", b"on", b"e"], [(A, b"one")], b"", None),
        ([b"A\0\0\0\x03on", b"", b"eB"], [(A, b"one")], b"B", None),
        ([b"A\0\0\0\0B\0\0\0\0"], [(A, b""), (B, b"")], b"", None),
        ([b"A\0\0\0\0", b"A\0\0\0"], [(A, b"")], b"A\0\0\0", None),
        ([b"A\0\0\0\x03on"], [], b"A\0\0\0\x03on", None),
        # a payload may hold what looks like a frame, or like nothing
        ([b"A\0\0\0\x05B\0\0\0\0"], [(A, b"B\0\0\0\0")], b"", None),
        ([b"A\0\0\0\x01C"], [(A, b"C")], b"", None),
        # at the limit
        ([b"A\0\0\0\x0f" + LONGEST], [(A, LONGEST)], b"", None),
        ([b"A\0\0\0\x0f" + LONGEST[1:], b"x"], [(A, LONGEST)], b"", None),
        ([b"A\0\0\0\x0f" + LONGEST[1:]], [], b"A\0\0\0\x0f" + LONGEST[1:], None),
        ([b"A\0\0\0\x0f" + LONGEST + b"B\0\0\0\x0f" + LONGEST], [(A, LONGEST), (B, LONGEST)], b"", None),
        # over it, as soon as it is known, and though all of it may have come
        ([b"A\0\0\0"], [], b"A\0\0\0", None),
        ([b"A\0\0\0", b"\x10"], [], b"", ErrorCode.TOO_LONG),
        ([b"A\0\0\0\x10" + LONGEST], [], b"", ErrorCode.TOO_LONG),
        ([b"A\0\0\0\x10" + LONGEST + b"x"], [], b"", ErrorCode.TOO_LONG),
        ([b"A\0\0\0\x10" + LONGEST + b"xB\0\0\0\0"], [], b"", ErrorCode.TOO_LONG),
        ([b"A\xff\xff\xff\xff"], [], b"", ErrorCode.TOO_LONG),
        ([b"A\0\0\0\x03oneB\x80\0\0\0"], [(A, b"one")], b"", ErrorCode.TOO_LONG),
        # of no kind, from the first byte on
        ([b"C"], [], b"", ErrorCode.BAD_REQUEST),
        ([b"\0"], [], b"", ErrorCode.BAD_REQUEST),
        ([b"a\0\0\0\0"], [], b"", ErrorCode.BAD_REQUEST),
        ([b"A\0\0\0\x03oneC"], [(A, b"one")], b"", ErrorCode.BAD_REQUEST),
        ([b"A\0\0\0\x03on", b"eC"], [(A, b"one")], b"", ErrorCode.BAD_REQUEST),
        ([b"C\xff\xff\xff\xff"], [], b"", ErrorCode.BAD_REQUEST),
        # nothing more comes behind it
        ([b"C", b"A\0\0\0\0"], [], b"", ErrorCode.BAD_REQUEST),
        ([b"A\xff\xff\xff\xff", b"C", b"A\0\0\0\0"], [], b"", ErrorCode.TOO_LONG),
        ([b"CA\0\0\0\0", b"A\0\0\0\0"], [], b"", ErrorCode.BAD_REQUEST),
    ],
)
def test_a_frame_buffer_gives_whole_frames_up_to_what_is_none(
    parts: list[bytes], frames: list[tuple[int, bytes]], rest: bytes, problem: ErrorCode | None
) -> None:
    assert frames_of(parts) == (frames, rest, problem)


def test_what_is_wrong_with_a_frame_is_said_with_what_would_be_right() -> None:
    buffer = FrameBuffer(b"AB", LIMIT)
    buffer.split(b"x")
    assert buffer.problem is not None
    assert "A or B" in buffer.problem.reason
    assert "0x78" in buffer.problem.reason

    buffer = FrameBuffer(b"AB", LIMIT)
    buffer.split(b"A\0\0\x10\0")
    assert buffer.problem is not None
    assert "20 bytes" in buffer.problem.reason
    assert "4,101" in buffer.problem.reason


@given(
    frames=st.lists(st.tuples(st.sampled_from([A, B]), st.binary(max_size=len(LONGEST))), max_size=8),
    cuts=st.sets(st.integers(0, 160)),
)
def test_frames_within_the_limit_come_out_whole_wherever_they_are_cut(
    frames: list[tuple[int, bytes]], cuts: set[int]
) -> None:
    stream = b"".join(bytes([kind]) + len(payload).to_bytes(4, "big") + payload for kind, payload in frames)

    assert frames_of(cut(stream, cuts)) == (frames, b"", None)


@given(parts=st.lists(st.binary(max_size=60) | st.text("AB\0\x03\x0f\x10", max_size=60).map(str.encode), max_size=12))
def test_a_frame_buffer_holds_less_than_its_limit_whatever_it_is_fed(parts: list[bytes]) -> None:
    buffer = FrameBuffer(b"AB", LIMIT)
    for part in parts:
        buffer.split(part)
        assert len(buffer.rest) < LIMIT


@given(
    stream=st.lists(st.binary(max_size=8) | st.text("AB\0\x03\x0f\x10").map(str.encode)).map(b"".join), data=st.data()
)
def test_a_frame_buffer_makes_the_same_of_any_bytes_wherever_they_are_cut(stream: bytes, data: st.DataObject) -> None:
    cuts = data.draw(st.sets(st.integers(0, len(stream)), max_size=8))

    assert frames_of(cut(stream, cuts)) == frames_of([stream])


# --- SectionBuffer ---

# A header as long as it may be has this many bytes, with its empty line; a body that long may follow.
HEADER_LIMIT = 28
BODY_LIMIT = 8
# The same limit where characters are counted, of which each may take four bytes.
BODY_LIMIT_CHARACTERS = 2

GRIN = "\U0001f600"
GRIN_BYTES = b"\xf0\x9f\x98\x80"

either_count = pytest.mark.parametrize("characters", [False, True], ids=["bytes", "characters"])


def section_buffer(*, characters: bool) -> SectionBuffer:
    return SectionBuffer(frozenset({"PUT"}), HEADER_LIMIT, BODY_LIMIT, counts_characters=characters)


def sections_of(parts: list[bytes], *, characters: bool = False) -> tuple[list[Section], bool, ErrorCode | None]:
    """Everything that a section buffer makes of the parts: all sections, is one begun, and what was wrong."""
    buffer = section_buffer(characters=characters)
    sections = [found for part in parts for found in buffer.split(part)]
    return sections, buffer.is_inside, buffer.problem.code if buffer.problem is not None else None


@either_count
@pytest.mark.parametrize(
    ("parts", "sections", "inside", "problem"),
    [
        ([b""], [], False, None),
        ([b"GET a\n\n"], [("GET", "a", None)], False, None),
        ([b"get A b\n\n"], [("GET", "A b", None)], False, None),
        ([b"GET\n\n"], [("GET", "", None)], False, None),
        ([b"GET a\n", b"\n"], [("GET", "a", None)], False, None),
        ([b"GET a\n"], [], True, None),
        ([b"G"], [], True, None),
        ([b"GET a\n\nGET b\n\nGET"], [("GET", "a", None), ("GET", "b", None)], True, None),
        ([b"GET a\nmore\n\n"], [("GET", "a", None)], False, None),
        # empty lines that are not empty, and too many of them
        ([b"GET a\n \n"], [("GET", "a", None)], False, None),
        ([b"GET a\r\n\r\n"], [("GET", "a", None)], False, None),
        ([b"GET a \n\t\r \n"], [("GET", "a", None)], False, None),
        ([b"GET a\n\0\n"], [], True, None),
        ([b"\n", b"\r\n \t\n"], [], False, None),
        ([b"\n\nGET a\n\n\n\n"], [("GET", "a", None)], False, None),
        (
            [b"\n" * 1_000 + b"GET a\n\n", b"\n" * 1_000, b"GET b\n\n"],
            [("GET", "a", None), ("GET", "b", None)],
            False,
            None,
        ),
        # bodies
        ([b"PUT a\nContent-length: 2\n\nhi"], [("PUT", "a", "hi")], False, None),
        ([b"PUT a\nContent-length: 2\n\n", b"h", b"i"], [("PUT", "a", "hi")], False, None),
        ([b"PUT a\nContent-length: 2\n\nh"], [], True, None),
        ([b"PUT a\nContent-length: 2\n\n"], [], True, None),
        ([b"PUT a\nContent-length: 0\n\n"], [("PUT", "a", "")], False, None),
        ([b"PUT a\nContent-length: 2\n\n\n\n"], [("PUT", "a", "\n\n")], False, None),
        ([b"PUT a\nContent-length: 2\n\nhi\n"], [("PUT", "a", "hi")], False, None),
        ([b"PUT a\nContent-length: 2\n\nhiGET b\n\n"], [("PUT", "a", "hi"), ("GET", "b", None)], False, None),
        ([b"GET a\nContent-length: 2\n\nhi"], [("GET", "a", "hi")], False, None),
        ([b"GET a\nContent-length: 0\n\n"], [("GET", "a", "")], False, None),
        # one space before the length, and one before the body
        ([b"PUT a\n Content-length: 2\n\n hi"], [("PUT", "a", "hi")], False, None),
        ([b"PUT a\n Content-length: 2\n\n", b" ", b"h", b"i"], [("PUT", "a", "hi")], False, None),
        ([b"PUT a\n Content-length: 2\n\nhi"], [("PUT", "a", "hi")], False, None),
        ([b"PUT a\n Content-length: 2\n\n  h"], [("PUT", "a", " h")], False, None),
        ([b"PUT a\n Content-length: 2\n\n  "], [], True, None),
        ([b"PUT a\n Content-length: 0\n\n GET b\n\n"], [("PUT", "a", ""), ("GET", "b", None)], False, None),
        ([b"PUT a\nContent-length: 2\n\n hi\n\n"], [("PUT", "a", " h"), ("I", "", None)], False, None),
        # what is no UTF-8: in a header nobody can read it, in a body it can be told
        ([b"G\xffT \xff\n\n"], [("G\ufffdT", "\ufffd", None)], False, None),
        ([b"PUT a\nContent-length: 2\n\n\xff\x80"], [("PUT", "a", "\udcff\udc80")], False, None),
        ([b"PUT a\nContent-length: 2\n\n\xf0x"], [("PUT", "a", "\udcf0x")], False, None),
        # at the limit
        ([b"GET " + b"a" * 22 + b"\n\n"], [("GET", "a" * 22, None)], False, None),
        ([b"GET " + b"a" * 22, b"\n", b"\n"], [("GET", "a" * 22, None)], False, None),
        ([b"GET " + b"a" * 24], [], True, None),
        # over it, as soon as it is known, and though all of it may have come
        ([b"GET " + b"a" * 25], [], False, ErrorCode.BAD_REQUEST),
        ([b"GET " + b"a" * 24, b"\n"], [], False, ErrorCode.BAD_REQUEST),
        ([b"GET " + b"a" * 23 + b"\n\n"], [], False, ErrorCode.BAD_REQUEST),
        ([b"GET a\n" + b" " * 30 + b"\n"], [], False, ErrorCode.BAD_REQUEST),
        ([b"GET b\n\nGET " + b"a" * 25], [("GET", "b", None)], False, ErrorCode.BAD_REQUEST),
        ([b"PUT a\nContent-length: 9\n\n"], [], False, ErrorCode.TOO_LONG),
        ([b"PUT a\nContent-length: 9\n\n123456789"], [], False, ErrorCode.TOO_LONG),
        ([b"GET a\nContent-length: 9\n\n"], [], False, ErrorCode.TOO_LONG),
        ([b"GET b\n\nPUT\nContent-length:999999\n\n"], [("GET", "b", None)], False, ErrorCode.TOO_LONG),
        # no length where there must be one, or none that is one
        ([b"PUT a\n\n"], [], False, ErrorCode.BAD_REQUEST),
        ([b"put a\n\n"], [], False, ErrorCode.BAD_REQUEST),
        ([b"PUT a\nContent-length: -1\n\n"], [], False, ErrorCode.BAD_REQUEST),
        ([b"PUT a\nContent-length: x\n\n"], [], False, ErrorCode.BAD_REQUEST),
        ([b"GET a\nContent-length:\n\n"], [], False, ErrorCode.BAD_REQUEST),
        ([b"GET b\n\nPUT a\n\n"], [("GET", "b", None)], False, ErrorCode.BAD_REQUEST),
        # nothing more comes behind it
        ([b"PUT a\n\n", b"GET b\n\n"], [], False, ErrorCode.BAD_REQUEST),
        ([b"PUT a\n\nGET b\n\n", b"GET c\n\n"], [], False, ErrorCode.BAD_REQUEST),
        ([b"PUT a\nContent-length: 9\n\n", b"x" * 30, b"PUT a\n\n"], [], False, ErrorCode.TOO_LONG),
    ],
)
def test_a_section_buffer_gives_whole_sections_up_to_what_is_none(
    parts: list[bytes],
    sections: list[tuple[str, str, str | None]],
    inside: bool,
    problem: ErrorCode | None,
    characters: bool,
) -> None:
    assert sections_of(parts, characters=characters) == (sections, inside, problem)


@pytest.mark.parametrize(
    ("body", "in_bytes", "in_characters"),
    [
        (b"12345678", "12345678", None),
        (GRIN_BYTES * 2, GRIN * 2, None),
        (GRIN_BYTES, GRIN, None),
        (b"", "", ""),
        (b"ab", "ab", "ab"),
    ],
)
def test_a_body_may_be_as_long_as_the_limit_in_the_longest_letters(
    body: bytes, in_bytes: str, in_characters: str | None
) -> None:
    stream = b"PUT a\nContent-length: %d\n\n" % len(body) + body

    assert sections_of([stream]) == ([("PUT", "a", in_bytes)], False, None)
    expected = ([("PUT", "a", in_characters)], False, None)
    refused: tuple[list[Section], bool, ErrorCode] = ([], False, ErrorCode.TOO_LONG)
    assert sections_of([stream], characters=True) == (refused if in_characters is None else expected)


@pytest.mark.parametrize(
    ("parts", "bodies", "inside"),
    [
        ([GRIN_BYTES * 2], [GRIN * 2], False),
        ([b"a" + GRIN_BYTES], ["a" + GRIN], False),
        ([b"\xc3\xa4\xe2\x82\xac"], ["\u00e4\u20ac"], False),
        ([bytes([each]) for each in GRIN_BYTES * 2], [GRIN * 2], False),
        ([GRIN_BYTES, GRIN_BYTES[:3]], [], True),
        ([GRIN_BYTES[:3], GRIN_BYTES[3:] + b"a"], [GRIN + "a"], False),
        # a byte that is no character counts as one, once it is known that it is none
        ([b"\xff\xff"], ["\udcff\udcff"], False),
        ([b"a\xe2"], [], True),
        ([b"a\xe2\x82"], [], True),
        ([b"a\xe2\x82\xac"], ["a\u20ac"], False),
        ([b"a\xe2", b"\nGET b\n\n"], ["a\udce2", None], False),
        ([b"\xe2\x82", b"GET b\n\n"], ["\udce2\udc82", None], False),
        ([b"\xf0\x9f\x98", b"\nGET b\n\n"], ["\udcf0\udc9f", None], False),
        ([b"\xed\xa0\x80"], ["\udced\udca0"], True),
    ],
)
def test_characters_are_counted_when_they_are_whole(parts: list[bytes], bodies: list[str | None], inside: bool) -> None:
    sections, is_inside, problem = sections_of([b"PUT a\nContent-length: 2\n\n", *parts], characters=True)

    assert [section.body for section in sections] == bodies
    assert (is_inside, problem) == (inside, None)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"PUT a\n\n", "none"),
        (b"PUT a\nContent-length: 1\nContent-length: 2\n\n", "2 different"),
        (b"PUT a\nContent-length: -12\n\n", "'-12'"),
        (b"PUT a\nContent-length: 1234\n\n", "8 bytes at most"),
        (b"PUT a\nContent-length: 1234\n\n", "1,234"),
        (b"PUT" * 40, "99 bytes at most"),
    ],
)
def test_what_is_wrong_with_a_section_is_said_with_what_would_be_right(header: bytes, said: str) -> None:
    buffer = SectionBuffer(frozenset({"PUT"}), 99, BODY_LIMIT, counts_characters=False)
    buffer.split(header)

    assert buffer.problem is not None
    assert said in buffer.problem.reason


# --- sections, under hypothesis ---

names = st.text("abc\u00e4", max_size=2).map(lambda name: f"x{name}")
bodies = st.none() | st.text(st.sampled_from("ab \n\r\t\u00e4\u20ac\U0001f600"), max_size=BODY_LIMIT_CHARACTERS)


def section(name: str, body: str | None, *, characters: bool) -> bytes:
    if body is None:
        return b"GET " + name.encode() + b"\n\n"
    size = len(body) if characters else len(body.encode())
    return b"PUT " + name.encode() + b"\nContent-length:%d\n\n" % size + body.encode()


@either_count
@given(said=st.lists(st.tuples(names, bodies), max_size=8), cuts=st.sets(st.integers(0, 250)))
def test_sections_within_the_limit_come_out_whole_wherever_they_are_cut(
    said: list[tuple[str, str | None]], cuts: set[int], characters: bool
) -> None:
    stream = b"".join(section(name, body, characters=characters) for name, body in said)
    sections = [("GET" if body is None else "PUT", name, body) for name, body in said]

    assert sections_of(cut(stream, cuts), characters=characters) == (sections, False, None)


# What means something to a section buffer, or is a part of what does.
section_bits = (
    st.text("\n\r\t \0:-2x", max_size=3).map(str.encode),
    st.sampled_from([b"\xff", b"\xc3", b"\xa4", GRIN_BYTES, GRIN_BYTES[:2], GRIN_BYTES[2:]]),
    st.sampled_from([b"GET a", b"PUT a", b"\n\n", b"\n \n", b"\nContent-length: 2\n\n", b"\n content-Length:1\n\n"]),
    st.sampled_from([b"PUT\nContent-length: 2\n\n", b"PUT\n Content-length: 2\n\n", b"PUT\n Content-length: 1 \n \n "]),
    st.binary(max_size=8),
)
section_streams = st.lists(st.one_of(section_bits), max_size=16).map(b"".join)


@either_count
@settings(max_examples=400)
@given(stream=section_streams, data=st.data())
def test_a_section_buffer_makes_the_same_of_any_bytes_wherever_they_are_cut(
    stream: bytes, data: st.DataObject, characters: bool
) -> None:
    cuts = data.draw(st.sets(st.integers(0, len(stream)), max_size=8))
    whole = sections_of([stream], characters=characters)

    assert sections_of(cut(stream, cuts), characters=characters) == whole
    assert sections_of(cut(stream, set(range(len(stream)))), characters=characters) == whole


@either_count
@given(
    parts=st.lists(
        section_streams | st.builds(bytes.__mul__, st.sampled_from([b"x", b"\n", b"\xf0"]), st.integers(1, 60)),
        max_size=12,
    )
)
def test_a_section_buffer_holds_no_more_than_its_limits_whatever_it_is_fed(
    parts: list[bytes], characters: bool
) -> None:
    buffer = section_buffer(characters=characters)
    empty_bytes = held_bytes(buffer)
    for part in parts:
        buffer.split(part)
        if buffer.problem is not None:
            break
        assert held_bytes(buffer) - empty_bytes <= HEADER_LIMIT + BODY_LIMIT


@either_count
@pytest.mark.parametrize("broken", [b"PUT a\n\n", b"x" * 99, b"PUT\nContent-length: 9\n\n"])
def test_a_section_buffer_keeps_nothing_of_what_is_no_section(broken: bytes, characters: bool) -> None:
    buffer = section_buffer(characters=characters)
    buffer.split(broken + b"and so on" * 1_000)
    held = held_bytes(buffer)
    for _ in range(100):
        buffer.split(b"more of it" * 100)

    assert held_bytes(buffer) == held
    assert not buffer.is_inside
