"""The dialect frames, messages that pour in: read as runs, they are what a simple decoder makes of them."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatprotocol.errors import ErrorCode
from chatprotocol.requests import Command, Data, Request, Unreadable
from chatprotocol.wire.frames import Frames

from .samples import decode, pieces, unfold

PM = b"C\0\0\0\x02PM"
BM = b"C\0\0\0\x02BM"


def reference(stream: bytes) -> list[Request | ErrorCode]:
    """What whole frames of C and D are, read in the simplest way; of one that can't be read, the code."""
    found: list[Request | ErrorCode] = []
    while stream:
        end = 5 + int.from_bytes(stream[1:5], "big")
        try:
            text = stream[5:end].decode()
            found.append(Command(text) if stream[:1] == b"C" else Data(text))
        except UnicodeDecodeError:
            found.append(ErrorCode.BAD_REQUEST)
        stream = stream[end:]
    return found


def gist(request: Request) -> Request | ErrorCode:
    return request.code if isinstance(request, Unreadable) else request


def frame(kind: bytes, payload: bytes) -> bytes:
    return kind + len(payload).to_bytes(4, "big") + payload


# What in a payload might be taken for the wire: steps whole and cut, what is no text, what is no length.
tricky = st.lists(
    st.sampled_from(
        [
            PM,
            BM,
            PM[:-1],
            PM[1:],
            b"D\0\0\0\0",
            b"D\0\0\0\x01x",
            b"D",
            b"\0\0\0",
            b"\x02",
            b"\xff",
            b"x",
            b"\xe2\x82\xac",
        ]
    ),
    max_size=8,
).map(b"".join)
payloads = st.just(b"") | st.just(b"hello") | tricky | st.binary(max_size=20)
# Of each kind and as the text of a message, all that a payload can be.
steps = st.one_of(
    st.builds(frame, st.sampled_from([b"C", b"D"]), payloads),
    st.sampled_from([PM, BM, b"C\0\0\0\x02DM", b"C\0\0\0\x04PING", b"C\0\0\0\x01\xff", b"D\0\0\0\x01\xff"]),
    # a frame of another kind as long as a text would be
    st.builds(lambda payload: PM + frame(b"C", payload), payloads),
    st.builds(lambda payload: PM + frame(b"D", payload), payloads),
    st.builds(lambda payload: BM + frame(b"D", payload), payloads),
)
# Of one tradition, as they pour in; now and then a text, or the kind of its frame, is out of the way, or there is none.
pours = st.builds(
    lambda public, frames: b"".join(public + (frame(kind, text) if kind else b"") for kind, text in frames),
    st.sampled_from([PM, BM]),
    st.lists(
        st.tuples(
            st.sampled_from([b"D"] * 9 + [b"C", b""]),
            st.sampled_from([b"hello", b"x", b""]) | st.just(b"hello") | payloads,
        ),
        min_size=4,
        max_size=12,
    ),
)
# Messages that pour in as the payload of one frame.
wrapped = st.builds(frame, st.sampled_from([b"C", b"D"]), pours)
streams = st.lists(steps | pours | wrapped, max_size=10).map(b"".join)


@settings(max_examples=500)
@given(stream=streams, data=st.data())
def test_frames_that_pour_in_are_what_they_are_one_by_one_wherever_they_are_cut(
    stream: bytes, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=4)))
    parts = [stream[start:end] for start, end in itertools.pairwise([0, *cuts, len(stream)])]
    decoder = Frames().request_decoder()

    found = unfold(decode(decoder, parts))

    assert list(map(gist, found)) == reference(stream)
    assert not decoder.is_inside
    assert decoder.end() == []


@pytest.mark.parametrize("public", [PM, BM])
@pytest.mark.parametrize(
    "texts",
    [
        [b"hello"] * 5,
        [b""] * 5,
        [b"a", b"\xff", b"b", b"c", b"d"],
        [b"a", PM, b"b", b"c", b"d"],
        [PM * 3] * 3,
        [BM] * 5,
        [PM + b"D\0\0\0\x01x"] * 5,
        [(PM + b"D\0\0\0\x01x") * 5] * 5,
        [b"D\0\0\0\x07", b"D\0\0\0\x07", b"a", b"b", b"c"],
        [b"x" * 65_531] * 5,
    ],
    ids=lambda texts: f"{texts!r:.60}",
)
def test_texts_that_pour_in_are_read_as_they_are(public: bytes, texts: list[bytes]) -> None:
    stream = b"".join(public + frame(b"D", text) for text in texts)

    for size in {len(stream), 100, 7, 1}:
        if len(stream) / size <= 2_000:
            found = unfold(decode(Frames().request_decoder(), pieces(stream, size)))
            assert list(map(gist, found)) == reference(stream), f"pieces of {size} bytes"


def test_a_text_over_the_limit_among_those_that_pour_in_is_refused() -> None:
    stream = (PM + b"D\0\0\0\x01x") * 3 + PM + frame(b"D", b"x" * 65_532) + (PM + b"D\0\0\0\x01x") * 3

    *found, refused = unfold(Frames().request_decoder().decode(stream))

    assert found == [Command("PM"), Data("x")] * 3 + [Command("PM")]
    assert isinstance(refused, Unreadable)
    assert (refused.code, refused.closes) == (ErrorCode.TOO_LONG, True)


def test_a_frame_of_another_kind_among_the_texts_that_pour_in_is_refused() -> None:
    stream = (PM + b"D\0\0\0\x01x") * 3 + PM + b"E\0\0\0\x01x" + (PM + b"D\0\0\0\x01x") * 3

    *found, refused = unfold(Frames().request_decoder().decode(stream))

    assert found == [Command("PM"), Data("x")] * 3 + [Command("PM")]
    assert isinstance(refused, Unreadable)
    assert (refused.code, refused.closes) == (ErrorCode.BAD_REQUEST, True)
