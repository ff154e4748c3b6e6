"""The wire protocol websocket: frames of a peer, with the numbers of Autobahn's cases that apply, and its handshake.

Autobahn's server returns each message; ours answers it. Cases about compression (12, 13) do not apply, nor those that
measure speed (9.7, 9.8). Each case is played in whole and in small pieces, so the cases that only cut the bytes in
another way (such as 2.6, 3.3 and 5.4) need no row.
"""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_steps import new_reader, new_server
from web_bytes import BINARY, CLOSE, CONTINUATION, MASK, PING, PONG, TEXT, frame

from chatprotocol.errors import ErrorCode, ProtocolError
from chatprotocol.events import SHUTTING_DOWN, YOU_LEFT, Bye, Event, Pong, PublicMessage, Refused, Sent, SentStatus
from chatprotocol.limits import FRAGMENTS_MAX, LINE_MAX_BYTES
from chatprotocol.requests import Leave, Login, Ping, Request, Say, Unreadable
from chatprotocol.wire import WebSocket
from chatprotocol.wire.base import Opened, OwnAnswer, ServerProtocol
from chatprotocol.wire.websocket_frames import encode_lines

from .samples import NOON_MS, any_pieces, decode, pieces

ROBOT = "\u03ba\u1f79\u03c3\u03bc\u03b5\U00010000"
SAY = b'{"command":"PM","message":"hello"}'


def part(opcode: int, payload: bytes = b"") -> bytes:
    """A fragment that is not the last."""
    return frame(opcode, payload, fin=False)


def close(code: int, reason: str = "") -> bytes:
    return frame(CLOSE, code.to_bytes(2) + reason.encode())


def say(size: int) -> bytes:
    """A message of json of this size."""
    return SAY[:-1].ljust(size - 1) + b"}"


def split_frames(data: bytes) -> list[tuple[int, bool, bytes]]:
    """Opcode, end of message and payload of each frame of a server."""
    found = []
    while data:
        size, header = data[1], 2
        if size == 126:
            size, header = int.from_bytes(data[2:4]), 4
        assert size < 2**16
        found.append((data[0] & 15, data[0] >= 0x80, data[header : header + size]))
        data = data[header + size :]
    return found


def heard(data: bytes) -> list[str]:
    """The frames that a peer receives, as text."""
    words, text = [], b""
    for opcode, is_last, payload in split_frames(data):
        match opcode:
            case 0 | 1:
                text += payload
                if is_last:
                    words.append(json.loads(text)["type"])
                    text = b""
            case 8:
                words.append(f"close {int.from_bytes(payload[:2]) if payload else 'without a code'}")
            case 10:
                words.append(f"pong {payload.decode('latin-1')}")
    return words


def answers(request: Request) -> Sequence[Sequence[Event]]:
    """The answers of a session, as it sends them."""
    match request:
        case Unreadable(code, reason):
            bye = [[Bye("the connection can't be read any further")]] if request.closes else []
            return [[Refused(code, reason)], *bye]
        case Leave():
            return [[Bye(YOU_LEFT)]]
        case Ping():
            return [[Pong()]]
        case _:
            return [[Sent(18, SentStatus.SENT)]]


def play(server: ServerProtocol, parts: Sequence[bytes]) -> bytes:
    """Everything that a server says to these parts."""
    said = b""
    for each in parts:
        for request in server.receive(each):
            said += server.data_to_send()
            said += b"".join(map(server.encode, answers(request)))
            if type(request) is Leave or (type(request) is Unreadable and request.closes):
                return said  # a session reads nothing after it
        said += server.data_to_send()
    return said


def play_frames(parts: Sequence[bytes]) -> list[str]:
    return heard(play(new_server(WebSocket()), parts))


def failed(code: int) -> list[str]:
    return ["error", "bye", f"close {code}"]


LEFT_NORMALLY = ["bye", "close 1000"]
VALID_TEXT = b'{"command":"PM","message":"%s"}' % ROBOT.encode()
INVALID_UTF8 = {
    "6.3.1": b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    "6.6.1": b"\xce",
    "6.8.1": b"\xf8\x88\x80\x80\x80",
    "6.8.2": b"\xfc\x84\x80\x80\x80\x80",
    "6.10.1": b"\xf7\xbf\xbf\xbf",
    "6.11.5": b"\xf4\x90\x80\x80",
    "6.12.1": b"\x80",
    "6.12.2": b"\xbf",
    "6.13.1": b"\xc0\x20\xc1\x20",
    "6.13.5": b"\xfc\x20\xfd\x20",
    "6.14.1": b"\xc0",
    "6.14.10": b"\xfd\xbf\xbf\xbf\xbf",
    "6.15.1": b"\xc0\xe0\x80\xf0\x80\x80",
    "6.16.1": b"\xfe",
    "6.16.2": b"\xff",
    "6.17.1": b"\xc0\xaf",
    "6.17.2": b"\xe0\x80\xaf",
    "6.17.3": b"\xf0\x80\x80\xaf",
    "6.18.1": b"\xc1\xbf",
    "6.18.3": b"\xf0\x8f\xbf\xbf",
    "6.19.1": b"\xc0\x80",
    "6.20.1": b"\xed\xa0\x80",
    "6.20.7": b"\xed\xbf\xbf",
    "6.21.1": b"\xed\xa0\x80\xed\xb0\x80",
}
VALID_UTF8 = {
    "6.2.1": ROBOT,
    "6.5.1": "\u07ff\u0800",
    "6.7.1": "\x7f",
    "6.7.4": "\U0010ffff",
    "6.9.2": "\ud7ff\ue000\ufffd",
    "6.22.1": "\ufffe\uffff",
    "6.22.34": "\U0001fffe\U0010ffff",
    "6.23.1": "\ufffd",
}
CASES: dict[str, tuple[list[bytes], list[str]]] = {
    "1.1.1 an empty text is no object": ([frame(TEXT)], ["error"]),
    **{
        f"1.1 text of {size} bytes": ([frame(TEXT, say(size))], ["sent"])
        for size in (125, 126, 127, 128, 65_535, 65_536)
    },
    "1.2.1 binary": ([frame(BINARY)], failed(1003)),
    "1.2.7 binary of 65,536 bytes": ([frame(BINARY, bytes(65_536))], failed(1003)),
    "2.1 ping without payload": ([frame(PING)], ["pong "]),
    "2.2 ping with text": ([frame(PING, b"Hello, world!")], ["pong Hello, world!"]),
    "2.3 ping with bytes": (
        [frame(PING, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff")],
        ["pong \x00\xff\xfe\xfd\xfc\xfb\x00\xff"],
    ),
    "2.4 ping of 125 bytes": ([frame(PING, b"\xfe" * 125)], ["pong " + "\xfe" * 125]),
    "2.5 ping of 126 bytes": ([frame(PING, b"\xfe" * 126)], failed(1002)),
    "2.7 pong without a ping": ([frame(PONG)], []),
    "2.8 pong without a ping, with payload": ([frame(PONG, b"unsolicited")], []),
    "2.9 pong without a ping, then a ping": ([frame(PONG, b"x"), frame(PING, b"ping")], ["pong ping"]),
    "2.10 ten pings": ([frame(PING, b"%d" % at) for at in range(10)], [f"pong {at}" for at in range(10)]),
    "3.1 reserved bit": ([frame(TEXT, reserved=0x10)], failed(1002)),
    "3.2 text, then a reserved bit": (
        [frame(TEXT, SAY), frame(TEXT, SAY, reserved=0x20), frame(PING)],
        ["sent", *failed(1002)],
    ),
    "3.5 reserved bits, binary": ([frame(BINARY, b"x", reserved=0x50)], failed(1002)),
    "3.6 reserved bits, ping": ([frame(PING, b"x", reserved=0x60)], failed(1002)),
    "3.7 reserved bits, close": ([frame(CLOSE, reserved=0x70)], failed(1002)),
    **{
        f"4 opcode {opcode}": ([frame(TEXT, SAY), frame(opcode, b"x"), frame(PING)], ["sent", *failed(1002)])
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    },
    "5.1 ping in fragments": ([part(PING, b"a"), frame(CONTINUATION, b"b")], failed(1002)),
    "5.2 pong in fragments": ([part(PONG, b"a"), frame(CONTINUATION, b"b")], failed(1002)),
    "5.3 text in 2 fragments": ([part(TEXT, SAY[:9]), frame(CONTINUATION, SAY[9:])], ["sent"]),
    "5.6 ping between fragments": (
        [part(TEXT, SAY[:9]), frame(PING, b"x"), frame(CONTINUATION, SAY[9:])],
        ["pong x", "sent"],
    ),
    "5.9 nothing to continue": ([frame(CONTINUATION, b"x"), frame(TEXT, SAY)], failed(1002)),
    "5.12 nothing to continue, not the last": ([part(CONTINUATION, b"x"), frame(TEXT, SAY)], failed(1002)),
    "5.15 nothing to continue after a whole message": (
        [part(TEXT, SAY[:9]), frame(CONTINUATION, SAY[9:]), part(CONTINUATION, b"x"), frame(TEXT, SAY)],
        ["sent", *failed(1002)],
    ),
    "5.18 two beginnings": ([part(TEXT, SAY[:9]), frame(TEXT, SAY[9:])], failed(1002)),
    "5.19 five fragments with pings": (
        [
            part(TEXT, SAY[:5]),
            part(CONTINUATION, SAY[5:9]),
            frame(PING, b"1"),
            part(CONTINUATION, SAY[9:12]),
            part(CONTINUATION),
            frame(PING, b"2"),
            frame(CONTINUATION, SAY[12:]),
        ],
        ["pong 1", "pong 2", "sent"],
    ),
    "6.1.2 three empty fragments": ([part(TEXT), part(CONTINUATION), frame(CONTINUATION)], ["error"]),
    "6.1.3 a text between empty fragments": ([part(TEXT), part(CONTINUATION, SAY), frame(CONTINUATION)], ["sent"]),
    "6.2.2 fragments at characters": ([part(TEXT, VALID_TEXT[:29]), frame(CONTINUATION, VALID_TEXT[29:])], ["sent"]),
    "6.2.3 fragments of a byte": (
        [part(TEXT), *(part(CONTINUATION, bytes([byte])) for byte in VALID_TEXT), frame(CONTINUATION)],
        ["sent"],
    ),
    "6.4.1 invalid UTF-8 in a fragment": (
        [part(TEXT, SAY[:-2] + b"\xf4\x90"), frame(CONTINUATION, b'\x80\x80"}')],
        failed(1007),
    ),
    **{number: ([frame(TEXT, b"{%s}" % text)], failed(1007)) for number, text in INVALID_UTF8.items()},
    **{number: ([frame(TEXT, SAY[:-2] + text.encode() + b'"}')], ["sent"]) for number, text in VALID_UTF8.items()},
    "7.1.1 text, then close": ([frame(TEXT, SAY), close(1000)], ["sent", *LEFT_NORMALLY]),
    "7.1.2 two closes": ([close(1000), close(1000)], LEFT_NORMALLY),
    "7.1.3 ping after close": ([close(1000), frame(PING)], LEFT_NORMALLY),
    "7.1.4 text after close": ([close(1000), frame(TEXT, SAY)], LEFT_NORMALLY),
    "7.1.5 close between fragments": ([part(TEXT, SAY[:9]), close(1000), frame(CONTINUATION, SAY[9:])], LEFT_NORMALLY),
    "7.1.6 much text, then close": (
        [frame(TEXT, say(65_000)), frame(TEXT, SAY), close(1000)],
        ["sent", "sent", *LEFT_NORMALLY],
    ),
    "7.3.1 close without a code": ([frame(CLOSE)], ["bye", "close without a code"]),
    "7.3.2 close of one byte": ([frame(CLOSE, b"\x03")], failed(1002)),
    "7.3.4 close with a reason": ([close(1000, "hello")], LEFT_NORMALLY),
    "7.3.5 close with a long reason": ([close(1000, "x" * 123)], LEFT_NORMALLY),
    "7.3.6 close with too long a reason": ([close(1000, "x" * 124)], failed(1002)),
    "7.5.1 close with a reason that is not UTF-8": ([frame(CLOSE, b"\x03\xe8" + INVALID_UTF8["6.3.1"])], failed(1007)),
    **{
        f"7.7 close {code}": ([close(code)], ["bye", f"close {code}"])
        for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
    },
    **{
        f"7.9 close {code}": ([close(code)], failed(1002))
        for code in (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65_535)
    },
    "9.1 text over the limit": ([frame(TEXT, say(65_537))], failed(1009)),
    "9.2 binary over the limit": ([frame(BINARY, bytes(65_537))], failed(1009)),
    "9.3 text over the limit in fragments": (
        [part(TEXT, say(60_000)), frame(CONTINUATION, b" " * 6_000)],
        failed(1009),
    ),
    "9.5 text in as many fragments as are allowed": (
        [part(TEXT, SAY[:9]), *[part(CONTINUATION)] * (FRAGMENTS_MAX - 2), frame(CONTINUATION, SAY[9:])],
        ["sent"],
    ),
    "10.1.1 text in fragments of 1,300 bytes": (
        [part(TEXT), *(part(CONTINUATION, each) for each in pieces(say(65_536), 1_300)), frame(CONTINUATION)],
        ["sent"],
    ),
    # Not of Autobahn.
    "no mask": ([frame(TEXT, SAY, mask=None)], failed(1002)),
    "10,000 fragments": ([part(TEXT), *[part(CONTINUATION)] * 10_000], failed(1008)),
    "two objects in a text": ([frame(TEXT, SAY + SAY), frame(TEXT, SAY + b"\n" + SAY)], ["error", "error"]),
    "an object with line ends": ([frame(TEXT, b'\n{"command":\r\n"PM",\n"message":"hello"}\n')], ["sent"]),
    "a line end in a string": ([frame(TEXT, SAY[:-3] + b'\n"}')], ["error"]),
    "white space": ([frame(TEXT, b" "), frame(TEXT, b"\n")], ["error", "error"]),
    "part of an object": ([frame(TEXT, SAY[:9]), frame(TEXT, SAY[9:])], ["error", "error"]),
    "several texts, one of them bad": (
        [frame(TEXT, SAY), frame(TEXT, b"[]"), frame(TEXT, SAY)],
        ["sent", "error", "sent"],
    ),
    "deep nesting": ([frame(TEXT, b'{"command":"PM","message":' + b"[" * 60_000)], ["error"]),
    "a size of 8 bytes for a short text": ([b"\x81\xff" + len(SAY).to_bytes(8) + bytes(4) + SAY], ["sent"]),
}


@pytest.mark.parametrize(("sent", "expected"), CASES.values(), ids=CASES)
def test_frames_are_answered_as_in_autobahn(sent: list[bytes], expected: list[str]) -> None:
    data = b"".join(sent)
    for size in (1, 7, 1_000, len(data)) if len(data) < 1_000 else (1_000, len(data)):
        assert play_frames(list(pieces(data, size))) == expected, f"in pieces of {size} bytes"
    assert play_frames(sent) == expected


frames = st.builds(
    lambda opcode, payload, fin, reserved, mask: frame(opcode, payload, fin=fin, reserved=reserved, mask=mask),
    st.sampled_from([CONTINUATION, TEXT, TEXT, TEXT, BINARY, CLOSE, PING, PONG, 3, 15]),
    st.sampled_from([SAY, SAY[:9], SAY[9:], b"", b"\x03\xe8", b"\xce", say(200)]) | st.binary(max_size=140),
    st.sampled_from([True, True, False]),
    st.sampled_from([0, 0, 0, 0, 0x40]),
    st.sampled_from([MASK, MASK, MASK, bytes(4), None]),
)
streams = st.lists(frames | st.just(frame(TEXT, SAY)) | st.binary(max_size=8), max_size=8).map(b"".join)


@given(data=st.data(), stream=streams)
def test_any_pieces_of_random_frames_are_answered_alike(data: st.DataObject, stream: bytes) -> None:
    """The reader of most input, and that of the rest, agree; neither raises."""
    whole, cut = new_server(WebSocket()), new_server(WebSocket())
    assert play(cut, data.draw(any_pieces(stream))) == play(whole, [stream])
    assert cut.is_incomplete == whole.is_incomplete
    assert list(cut.receive_end()) == list(whole.receive_end())


@given(data=st.data(), texts=st.lists(st.text(), min_size=1, max_size=6))
def test_each_text_is_one_request(data: st.DataObject, texts: list[str]) -> None:
    stream = b"".join(frame(TEXT, json.dumps({"command": "PM", "message": text}).encode()) for text in texts)
    server = new_server(WebSocket())
    found = [request for each in data.draw(any_pieces(stream)) for request in server.receive(each)]
    assert found == [Say(text) for text in texts]


# --- what the server sends ---


@pytest.mark.parametrize(
    ("bye", "code", "reason"),
    [
        (Bye(YOU_LEFT), 1000, "you left"),
        (Bye(SHUTTING_DOWN), 1001, "the server is shutting down"),
        (Bye("alice ended your connections: spam", ErrorCode.KICKED), 1008, "alice ended your connections: spam"),
        (Bye("\u20ac" * 100), 1008, "\u20ac" * 41),
    ],
)
def test_goodbye_has_a_close_frame_with_its_reason(bye: Bye, code: int, reason: str) -> None:
    """Nothing follows it, and nothing is read any more."""
    server = new_server(WebSocket())
    (text, last) = split_frames(server.encode([bye]))
    assert json.loads(text[2])["reason"] == bye.reason
    assert last == (CLOSE, True, code.to_bytes(2) + reason.encode())
    assert server.encode([Pong()]) == server.encode([bye]) == server.data_to_send() == b""
    assert list(server.receive(frame(TEXT, SAY))) == []
    assert (server.is_incomplete, list(server.receive_end())) == (False, [])


def test_long_text_comes_in_fragments() -> None:
    """Browsers join them. Each is small, so that the server need not hold the whole answer."""
    long = PublicMessage(18, NOON_MS, "bob", "\u20ac" * 50_000)
    for data in (WebSocket().encode_all([long]), new_server(WebSocket()).encode([long])):
        first, *others = split_frames(data)
        assert [first[0], *(opcode for opcode, _, _ in others)] == [TEXT, *[CONTINUATION] * len(others)]
        assert [is_last for _, is_last, _ in (first, *others)] == [False] * len(others) + [True]
        assert json.loads(b"".join(payload for _, _, payload in (first, *others)))["message"] == long.text
    assert decode(new_reader(WebSocket()), [data]) == [long]


@given(st.lists(st.text("a", max_size=5).map(str.encode), max_size=12))
def test_each_line_is_a_message(lines: list[bytes]) -> None:
    """Whatever their sizes. Lines of one size are encoded together."""
    frames = encode_lines(b"".join([line + b"\n" for line in lines]))
    assert split_frames(frames) == [(TEXT, True, line) for line in lines]


@pytest.mark.parametrize("size", [125, 126, 32_767, 32_768, 32_769, 65_536, 65_537, 100_000])
def test_text_of_any_size_arrives(size: int) -> None:
    """Also where its frames have another header, or become more by one."""
    said = Bye("x" * (size - len('{"type":"bye","reason":""}')))
    data = WebSocket().encode_all([said])
    assert sum(len(payload) for _, _, payload in split_frames(data)) == size
    assert decode(new_reader(WebSocket()), [data]) == [said]


def test_each_ping_is_a_request() -> None:
    """The rate of requests then holds for pings, as it does in json."""
    server = new_server(WebSocket())
    assert list(server.receive(frame(PING, b"x") * 20 + frame(TEXT, b'{"command":"ping"}'))) == [Ping()] * 21
    assert server.data_to_send() == b""
    assert heard(server.encode([Pong()])) == ["pong"], "the last one was json's"


def test_silent_peer_is_asked_with_a_ping_that_json_has_not() -> None:
    server = new_server(WebSocket())
    assert split_frames(server.ping()) == [(PING, True, b"")]
    assert server.idle_seconds == 45
    (answer,) = new_reader(WebSocket()).decode(server.ping())
    assert isinstance(answer, OwnAnswer)
    assert list(server.receive(answer.data)) == []


# --- the client's half ---


def test_login_waits_for_the_answer_to_the_handshake() -> None:
    """A second login on the same connection needs no handshake; one on a new connection does."""
    protocol = WebSocket()
    client, server = protocol.client(), protocol.server()
    (handshake,) = client.connect(Login("alice", "wrong"), (), "[::1]:9999").send
    assert b"\r\nHost: [::1]:9999\r\n" in handshake.data
    assert client.connect(Login("alice", "secret"), ()).send == (), "it replaces the first one"
    assert list(server.receive(handshake.data)) == []
    (opened,) = client.event_decoder().decode(server.data_to_send())
    (login,) = client.handle_event(opened).send
    assert list(server.receive(login.data)) == [Login("alice", "secret")]
    (login,) = client.connect(Login("bob", "secret"), ()).send
    assert list(server.receive(login.data)) == [Login("bob", "secret")]
    (again,) = client.connect(Login("bob", "secret"), (), "localhost:9999").send
    assert again.data.startswith(b"GET / HTTP/1.1\r\n")
    assert client.handle_event(Opened()).send != ()


def test_client_repeats_a_close_frame() -> None:
    *_, bye, answer = new_reader(WebSocket()).decode(new_server(WebSocket()).encode([Bye(YOU_LEFT)]))
    assert bye == Bye(YOU_LEFT)
    assert isinstance(answer, OwnAnswer)
    assert play_frames([answer.data]) == LEFT_NORMALLY


@pytest.mark.parametrize(
    "error",
    [
        Refused(ErrorCode.SERVER_FULL, "The server is full."),
        Refused(ErrorCode.RATE_LIMITED, "Too many.", retry_seconds=2.5),
        Refused(ErrorCode.BANNED, "You are banned."),
    ],
)
def test_refused_client_learns_the_error(error: Refused) -> None:
    answer = WebSocket().refusal(error)
    for size in (1, 1_000_000):
        assert decode(WebSocket().client().event_decoder(), pieces(answer, size)) == [error]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\n\r\n<p>",
        b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: 123\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"This is a chat room server.\r\n\r\n",
        b"\r\n\r\n",
        b"x" * 10_000,
    ],
)
def test_client_notices_a_server_that_speaks_no_websocket(answer: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(WebSocket().client().event_decoder(), pieces(answer, 100))


@pytest.mark.parametrize(
    "invalid",
    [
        frame(TEXT, b"{}"),
        frame(TEXT, b"{}", mask=None, reserved=0x10),
        frame(3, mask=None),
        frame(TEXT, b"[]", mask=None),
    ],
    ids=["masked", "reserved bit", "opcode 3", "no object"],
)
def test_client_notices_an_invalid_frame(invalid: bytes) -> None:
    with pytest.raises(ProtocolError):
        new_reader(WebSocket()).decode(invalid)


def test_text_over_the_limit_is_refused_by_its_header() -> None:
    """Promise: memory stays bounded. The server does not wait for the rest."""
    (refused,) = list(new_server(WebSocket()).receive(frame(TEXT, b"x" * (LINE_MAX_BYTES + 1))[:10]))
    assert isinstance(refused, Unreadable)
    assert (refused.code, refused.closes) == (ErrorCode.TOO_LONG, True)
