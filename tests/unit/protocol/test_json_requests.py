"""The dialect json, what a client sends: literal bytes and the requests that they are."""

import pytest

from chatprotocol.errors import ErrorCode
from chatprotocol.limits import LINE_MAX_BYTES
from chatprotocol.requests import (
    AskHistory,
    AskUser,
    AskUsers,
    ChangePassword,
    Leave,
    Login,
    Password,
    Ping,
    Request,
    Say,
    Search,
    Unreadable,
    Whisper,
)
from chatprotocol.wire.json import Json

from .samples import decode, pieces

PING = b'{"command":"ping"}'
ID_MAX = 9_223_372_036_854_775_807


def read(data: bytes) -> list[Request]:
    """The requests of one connection that sends this and closes; fed whole and in pieces it must be the same."""
    found = []
    for size in (max(1, len(data)), 1, 2, 7, 4096):
        if len(data) / size > 2_000:
            continue
        decoder = Json().request_decoder()
        found.append([*decode(decoder, pieces(data, size)), *decoder.end()])
    for other in found[1:]:
        assert other == found[0], "in pieces it was something else than whole"
    return found[0]


def refusal_of(data: bytes) -> Unreadable:
    """The one request of this data, which can't be read."""
    (refused,) = read(data)
    assert isinstance(refused, Unreadable)
    assert "\n" not in refused.reason
    return refused


# --- each command, as docs/wire/json.md spells it: literal bytes, and what is read from and written for it ---

BOTH_WAYS: list[tuple[bytes, Request]] = [
    (b'{"command":"login","username":"alice","password":"secret"}\n', Login("alice", "secret")),
    (b'{"command":"login","username":"alice","password":"secret","since":17}\n', Login("alice", "secret", 17)),
    (b'{"command":"login","username":"alice","password":"secret","since":0}\n', Login("alice", "secret", 0)),
    (
        b'{"command":"login","username":"alice","password":"secret","since":17,"history_id":"9f86d081884c7d65"}\n',
        Login("alice", "secret", 17, "9f86d081884c7d65"),
    ),
    (b'{"command":"login","username":"alice"}\n', Login("alice")),
    (b'{"command":"password","password":"secret"}\n', Password("secret")),
    (b'{"command":"PM","message":"hello"}\n', Say("hello")),
    (b'{"command":"PM","message":"hello","nonce":"7f"}\n', Say("hello", "7f")),
    (b'{"command":"PM","message":"\xe2\x82\xac \xf0\x9f\x98\x80"}\n', Say("\u20ac \U0001f600")),
    (b'{"command":"PM","message":"a\\nb\\"c\\\\d"}\n', Say('a\nb"c\\d')),
    (b'{"command":"DM","to":"bob","message":"psst"}\n', Whisper("bob", "psst")),
    (b'{"command":"DM","to":"bob","message":"psst","nonce":"7f"}\n', Whisper("bob", "psst", "7f")),
    (b'{"command":"users"}\n', AskUsers()),
    (b'{"command":"user","username":"bob"}\n', AskUser("bob")),
    (b'{"command":"CH"}\n', AskHistory(50)),
    (b'{"command":"CH","limit":1}\n', AskHistory(1)),
    (b'{"command":"CH","limit":500,"before":17}\n', AskHistory(500, 17)),
    (b'{"command":"CH","before":0}\n', AskHistory(50, 0)),
    (b'{"command":"change_password","old":"secret","new":"\xe2\x82\xac"}\n', ChangePassword("secret", "\u20ac")),
    (b'{"command":"search","words":"hello"}\n', Search("hello", 50)),
    (b'{"command":"search","words":"hel* \xe2\x82\xac","limit":1}\n', Search("hel* \u20ac", 1)),
    (b'{"command":"search","words":"","limit":500,"before":17}\n', Search("", 500, 17)),
    (b'{"command":"search","words":"hello","before":0}\n', Search("hello", 50, 0)),
    (b'{"command":"ping"}\n', Ping()),
    (b'{"command":"EX"}\n', Leave()),
]

# What is read as well, though no client of ours writes it.
READ_ONLY: list[tuple[bytes, list[Request]]] = [
    # line ends
    (b'{"command":"ping"}\r\n', [Ping()]),
    (b'{"command":"ping"}', [Ping()]),
    (b'{"command":"ping"}\n\n\r\n \n{"command":"EX"}\n', [Ping(), Leave()]),
    (b'{"command":"ping"}{"command":"EX"}', [Ping(), Leave()]),
    (b'{"command":"ping"} {"command":"EX"}\r\n', [Ping(), Leave()]),
    (b' \t{ "command" : "ping" } \r\n', [Ping()]),
    (b'{"command":"PM","message":"}{"}{"command":"PM","message":"\\"}"}', [Say("}{"), Say('"}')]),
    # spellings
    (b'{"command":"LOGIN","username":"alice"}\n', [Login("alice")]),
    (b'{"command":"Password","password":"secret"}\n', [Password("secret")]),
    (b'{"command":"pm","message":"hello"}\n', [Say("hello")]),
    (b'{"command":"dM","to":"bob","message":"psst"}\n', [Whisper("bob", "psst")]),
    (b'{"command":"USERS"}\n', [AskUsers()]),
    (b'{"command":"ch"}\n', [AskHistory()]),
    (b'{"command":"Search","words":"hello"}\n', [Search("hello")]),
    (b'{"command":"SEARCH","words":"hello"}\n', [Search("hello")]),
    (b'{"command":"PING"}\n', [Ping()]),
    (b'{"command":"ex"}\n', [Leave()]),
    (b'{"\\u0063ommand":"\\u0070ing"}\n', [Ping()]),
    # synonyms
    (b'{"command":"exit"}\n', [Leave()]),
    (b'{"command":"Exit"}\n', [Leave()]),
    (b'{"command":"who"}\n', [AskUsers()]),
    (b'{"command":"WHO"}\n', [AskUsers()]),
    (b'{"command":"DM","recipient":"bob","message":"psst"}\n', [Whisper("bob", "psst")]),
    (b'{"command":"DM","target":"bob","message":"psst"}\n', [Whisper("bob", "psst")]),
    (b'{"command":"DM","to":"bob","target":"Bob","recipient":null,"message":"psst"}\n', [Whisper("bob", "psst")]),
    # members that say nothing
    (b'{"type":"command","command":"ping"}\n', [Ping()]),
    (b'{"type":"command","command":"PM","message":"hello"}\n', [Say("hello")]),
    (b'{"command":"PM","message":"hello","colour":"red","n":[1,{"a":null}]}\n', [Say("hello")]),
    (b'{"command":"ping","message":5,"to":null}\n', [Ping()]),
    # members that may be left out may be null as well
    (b'{"command":"login","username":"alice","password":null,"since":null}\n', [Login("alice")]),
    (b'{"command":"PM","message":"hello","nonce":null}\n', [Say("hello")]),
    (b'{"command":"CH","before":null}\n', [AskHistory()]),
    (b'{"command":"search","words":"hello","before":null}\n', [Search("hello")]),
    # numbers at the edge
    (b'{"command":"CH","before":9223372036854775807}\n', [AskHistory(50, ID_MAX)]),
    (b'{"command":"search","words":"a","before":9223372036854775807}\n', [Search("a", 50, ID_MAX)]),
    (b'{"command":"login","username":"a","since":9223372036854775807}\n', [Login("a", None, ID_MAX)]),
    # letters
    (b'{"command":"PM","message":"a\\u0000b"}\n', [Say("a\0b")]),
    (b'{"command":"PM","message":"\\ud83d\\ude00"}\n', [Say("\U0001f600")]),
    (b'{"command":"PM","message":""}\n', [Say("")]),
]

BAD_JSON: list[bytes] = [
    b"hello\n",
    b"{\n",
    b"}\n",
    b'{"command":"ping"\n',
    b'{"command":"ping",}\n',
    b"{'command':'ping'}\n",
    b'{"command":ping}\n',
    b"null\n",
    b"17\n",
    b'"ping"\n',
    b"[]\n",
    b'["ping"]\n',
    b'[{"command":"ping"}]\n',
    b'{"command":"PM","message":NaN}\n',
    b'{"command":"PM","message":"a\tb"}\n',
    b'{"command":"PM","message":"a\0b"}\n',
    b"\0\n",
    b'\xef\xbb\xbf{"command":"ping"}\n',
    # not UTF-8: a stray byte, a cut letter, an overlong one, a surrogate, a UTF-16 line
    b'{"command":"PM","message":"\xff"}\n',
    b'{"command":"PM","message":"\xe2\x82"}\n',
    b'{"command":"PM","message":"\xc0\xaf"}\n',
    b'{"command":"PM","message":"\xed\xa0\x80"}\n',
    b'{"command":"\xff"}\n',
    b'{\0"\0a\0"\0:\x001\0}\n',
    # halves of letters that are written as two escapes
    b'{"command":"PM","message":"\\ud800"}\n',
    b'{"command":"PM","message":"\\udc00"}\n',
    b'{"command":"PM","message":"\\ud800x"}\n',
    b'{"command":"PM","message":"\\ud800\\ud800"}\n',
    b'{"command":"PM","message":"hello","x":"\\udfff"}\n',
    b'{"command":"login","username":"\\ud800","password":"p"}\n',
    # too big for any number
    b'{"command":"CH","limit":1e999}\n',
    b'{"command":"CH","before":' + b"9" * 5000 + b"}\n",
]

BAD_REQUEST: list[bytes] = [
    b"{}\n",
    b'{"Command":"ping"}\n',
    b'{"command":null}\n',
    b'{"command":17}\n',
    b'{"command":["ping"]}\n',
    b'{"type":"command"}\n',
    b'{"command":"login"}\n',
    b'{"command":"login","username":17}\n',
    b'{"command":"login","username":null}\n',
    b'{"command":"login","username":"a","password":17}\n',
    b'{"command":"login","username":"a","since":"17"}\n',
    b'{"command":"login","username":"a","since":1.5}\n',
    b'{"command":"login","username":"a","since":-1}\n',
    b'{"command":"login","username":"a","since":9223372036854775808}\n',
    b'{"command":"login","username":"a","since":' + b"9" * 300 + b"}\n",
    b'{"command":"login","username":"a","since":true}\n',
    b'{"command":"password"}\n',
    b'{"command":"password","password":null}\n',
    b'{"command":"PM"}\n',
    b'{"command":"PM","message":null}\n',
    b'{"command":"PM","message":17}\n',
    b'{"command":"PM","message":["hello"]}\n',
    b'{"command":"PM","message":{"text":"hello"}}\n',
    b'{"command":"PM","Message":"hello"}\n',
    b'{"command":"PM","message":"hello","nonce":17}\n',
    b'{"command":"DM","message":"psst"}\n',
    b'{"command":"DM","to":"bob"}\n',
    b'{"command":"DM","to":null,"message":"psst"}\n',
    b'{"command":"DM","to":["bob"],"message":"psst"}\n',
    b'{"command":"DM","recipient":17,"message":"psst"}\n',
    b'{"command":"DM","to":"bob","recipient":"eve","message":"psst"}\n',
    b'{"command":"DM","to":"bob","target":"eve","message":"psst"}\n',
    b'{"command":"DM","recipient":"bob","target":"eve","message":"psst"}\n',
    b'{"command":"CH","limit":0}\n',
    b'{"command":"CH","limit":501}\n',
    b'{"command":"CH","limit":-1}\n',
    b'{"command":"CH","limit":"50"}\n',
    b'{"command":"CH","limit":null}\n',
    b'{"command":"CH","limit":50.0}\n',
    b'{"command":"CH","limit":1e300}\n',
    b'{"command":"CH","before":-1}\n',
    b'{"command":"CH","before":9223372036854775808}\n',
    b'{"command":"CH","before":18446744073709551616}\n',
    b'{"command":"search"}\n',
    b'{"command":"search","words":null}\n',
    b'{"command":"search","words":17}\n',
    b'{"command":"search","words":["hello"]}\n',
    b'{"command":"search","Words":"hello"}\n',
    b'{"command":"search","words":"hello","limit":0}\n',
    b'{"command":"search","words":"hello","limit":501}\n',
    b'{"command":"search","words":"hello","limit":null}\n',
    b'{"command":"search","words":"hello","before":-1}\n',
    b'{"command":"search","words":"hello","before":9223372036854775808}\n',
]


@pytest.mark.parametrize(("data", "request_"), BOTH_WAYS)
def test_a_line_is_read_as_its_request(data: bytes, request_: Request) -> None:
    assert read(data) == [request_]


@pytest.mark.parametrize(("data", "request_"), BOTH_WAYS)
def test_a_request_is_written_as_its_line(data: bytes, request_: Request) -> None:
    assert Json().encode_request(request_) == data


@pytest.mark.parametrize(("data", "requests"), READ_ONLY)
def test_what_simple_clients_send_is_read_as_well(data: bytes, requests: list[Request]) -> None:
    assert read(data) == requests


@pytest.mark.parametrize("data", BAD_JSON, ids=lambda data: repr(data[:60]))
def test_a_line_that_is_no_json_object_in_utf8_is_bad_json(data: bytes) -> None:
    assert refusal_of(data).code is ErrorCode.BAD_JSON


@pytest.mark.parametrize("data", BAD_REQUEST, ids=lambda data: repr(data[:60]))
def test_an_object_whose_members_are_missing_or_wrong_is_a_bad_request(data: bytes) -> None:
    assert refusal_of(data).code is ErrorCode.BAD_REQUEST


@pytest.mark.parametrize(
    "data",
    [
        b'{"command":"PM","message":"hello","x":"\xff"}\n',
        b'{"command":"PM","message":"hello","\xff":1}\n',
    ],
)
def test_a_line_is_bad_json_because_of_a_member_that_nobody_asked_for_too(data: bytes) -> None:
    """However it is cut: the fast way of reading whole lines must say what the slow one says."""
    assert refusal_of(data).code is ErrorCode.BAD_JSON


@pytest.mark.parametrize("command", ["nope", "", " ping", "ping ", "P M", "log in", "quit", "\u0131", "PM\0"])
def test_an_unknown_command_is_refused_by_its_name(command: str) -> None:
    refused = refusal_of(b'{"command":"%s"}\n' % command.encode().replace(b"\0", b"\\u0000"))

    assert refused.code is ErrorCode.UNKNOWN_COMMAND
    assert repr(command) in refused.reason


def test_of_a_long_unknown_command_the_reason_repeats_the_beginning() -> None:
    refused = refusal_of(b'{"command":"' + b"x" * 10_000 + b'"}\n')

    assert len(refused.reason) < 200


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b'{"command":"nope","nonce":"7f"}\n', ErrorCode.UNKNOWN_COMMAND),
        (b'{"command":"PM","nonce":"7f"}\n', ErrorCode.BAD_REQUEST),
        (b'{"command":"DM","message":5,"nonce":"7f"}\n', ErrorCode.BAD_REQUEST),
        (b'{"nonce":"7f"}\n', ErrorCode.BAD_REQUEST),
    ],
)
def test_an_error_repeats_the_nonce(data: bytes, code: ErrorCode) -> None:
    refused = refusal_of(data)

    assert (refused.code, refused.nonce) == (code, "7f")


@pytest.mark.parametrize("nonce", [b"17", b"null", b"[]", b"{}"])
def test_a_nonce_that_is_no_string_is_not_repeated(nonce: bytes) -> None:
    assert refusal_of(b'{"command":"nope","nonce":' + nonce + b"}\n").nonce is None


def test_a_bad_line_between_good_ones_costs_nobody_else_anything() -> None:
    first, bad, last = read(PING + b"\nrubbish\n" + b'{"command":"EX"}\n')

    assert (first, last) == (Ping(), Leave())
    assert isinstance(bad, Unreadable)
    assert not bad.closes


# --- depth: parsers recurse in C, and the readers' stacks are small ---


def nested(levels: int, opening: bytes, closing: bytes) -> bytes:
    return opening * levels + b"1" + closing * levels


DEEP = [
    nested(10_000, b"[", b"]") + b"\n",
    nested(10_000, b'{"a":', b"}") + b"\n",
    b'{"command":"PM","message":' + nested(10_000, b"[", b"]") + b"}\n",
    b'{"command":"PM","message":"hello","x":' + nested(10_000, b"[", b"]") + b"}\n",
    b'{"command":"PM","message":"hello","x":' + nested(9_000, b'{"a":', b"}") + b"}\n",
    b'{"command":"ping","x":' + nested(5_000, b'[{"a":', b"}]") + b"}\n",
]


@pytest.mark.parametrize("data", DEEP, ids=lambda data: repr(data[:40]))
def test_an_object_nested_thousands_deep_is_refused_before_a_parser_sees_it(data: bytes) -> None:
    refused = refusal_of(data)

    assert refused.code is ErrorCode.BAD_JSON
    assert "64 levels" in refused.reason


@pytest.mark.parametrize("data", [b"[" * 60_000, b'{"command":"ping","x":' + b"[" * 60_000, b'{"a":' * 12_000])
def test_a_line_nested_thousands_deep_that_is_not_ended_yet_is_no_danger(data: bytes) -> None:
    decoder = Json().request_decoder()

    assert decode(decoder, pieces(data, 1000)) == []
    assert [type(each) for each in decoder.decode(b"\n" + PING + b"\n")] == [Unreadable, Ping]


@pytest.mark.parametrize(("levels", "is_read"), [(62, True), (63, True), (64, False), (65, False)])
@pytest.mark.parametrize("before", [b"", b"\n", PING + b"\n"])
def test_64_levels_are_the_limit_wherever_the_line_stands(levels: int, is_read: bool, before: bytes) -> None:
    request = read(before + b'{"command":"ping","x":' + nested(levels, b"[", b"]") + b"}\n")[-1]

    assert isinstance(request, Ping) is is_read


@pytest.mark.parametrize(
    ("opening", "closing"), [(b'{"":\n', b"}\n"), (b'{"":\n', b"}"), (b'\n{"":', b"\n}"), (b"[\n", b"]\n")]
)
def test_an_object_cannot_go_on_in_the_next_line(opening: bytes, closing: bytes) -> None:
    """A parser that passes over line ends would carry the depth of one line into the next."""
    data = b'{"command":"ping","x":\n' + nested(500, opening, closing) + b"}\n"

    assert {type(request) for request in Json().request_decoder().decode(data)} == {Unreadable}


def test_brackets_in_a_text_are_not_depth() -> None:
    assert read(b'{"command":"PM","message":"' + b"[{" * 2000 + b'"}\n') == [Say("[{" * 2000)]


# --- size ---


def padded(size_bytes: int) -> bytes:
    """A ping of so many bytes."""
    frame = b'{"command":"ping","x":"%s"}'
    return frame % (b"x" * (size_bytes - len(frame) + 2))


@pytest.mark.parametrize("piece_bytes", [1_000, 65_535, 65_536, 65_537, 200_000])
@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_line_of_65536_bytes_is_read(piece_bytes: int, end: bytes) -> None:
    line = padded(65_536)
    assert len(line) == LINE_MAX_BYTES

    assert decode(Json().request_decoder(), pieces(line + end, piece_bytes)) == [Ping()]


@pytest.mark.parametrize("piece_bytes", [1_000, 65_535, 65_536, 65_537, 200_000])
def test_a_line_of_65537_bytes_is_refused_once_and_the_next_line_is_read(piece_bytes: int) -> None:
    stream = padded(65_537) + b"\n" + PING + b"\n"

    refused, ping = decode(Json().request_decoder(), pieces(stream, piece_bytes))

    assert isinstance(refused, Unreadable)
    assert refused.code is ErrorCode.TOO_LONG
    assert "65,536 bytes" in refused.reason
    assert not refused.closes
    assert ping == Ping()


@pytest.mark.parametrize("piece_bytes", [1_000, 4_096, 65_536, 1_000_000])
def test_many_objects_without_line_ends_are_read_however_many_come_at_once(piece_bytes: int) -> None:
    """The limit is one object's, not that of all that one read brings."""
    stream = b'{"command":"PM","message":"hello"}' * 6_000

    assert decode(Json().request_decoder(), pieces(stream, piece_bytes)) == [Say("hello")] * 6_000


def test_the_longest_message_fits_its_line_with_every_letter_escaped() -> None:
    line = b'{"command":"PM","nonce":"' + b"n" * 64 + b'","message":"' + b"\\u00e4" * 4096 + b'"}\n'

    assert read(line) == [Say("\u00e4" * 4096, "n" * 64)]
    line = b'{"command":"PM","message":"' + b"\\u0041" * 8192 + b'"}\n'
    assert read(line) == [Say("A" * 8192)]


@pytest.mark.parametrize("data", [b"{", b'{"command":"ping"', b'{"command":"PM","message":"hel', b"hello", b"  {"])
def test_a_connection_that_ends_in_the_middle_of_a_line_left_bad_json(data: bytes) -> None:
    assert refusal_of(data).code is ErrorCode.BAD_JSON


@pytest.mark.parametrize("data", [b"", b"\n", b"  ", b"\r\n\r\n", PING + b"\n ", PING])
def test_white_space_at_the_end_is_no_error(data: bytes) -> None:
    assert not any(isinstance(request, Unreadable) for request in read(data))


@pytest.mark.parametrize("data", [b"", b"\n", b" ", b"\t", b"\r\n", b" \r\n \n\t "])
@pytest.mark.parametrize("before", [b"", PING, PING + b"\n", b"rubbish\n"])
def test_white_space_between_two_objects_is_nothing_that_has_begun(before: bytes, data: bytes) -> None:
    decoder = Json().request_decoder()

    decoder.decode(before + data)
    assert not decoder.is_inside

    decoder.decode(PING[:-1])
    assert decoder.is_inside
    decoder.decode(PING[-1:] + data)
    assert not decoder.is_inside


@pytest.mark.parametrize("data", [b"{", b" {", PING + b"{", PING + b" {", PING + b"\n{", b"hello", b"}", b"{}x"])
def test_what_has_begun_and_not_ended_is_something_that_a_decoder_is_inside_of(data: bytes) -> None:
    decoder = Json().request_decoder()

    decoder.decode(data)
    assert decoder.is_inside

    decoder.decode(b"\n")
    assert not decoder.is_inside


def test_what_ended_too_long_leaves_nothing_more_to_say_at_the_end() -> None:
    decoder = Json().request_decoder()

    assert len(decoder.decode(b"x" * 70_000)) == 1
    assert decoder.end() == []
