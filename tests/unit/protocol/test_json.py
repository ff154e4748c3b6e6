"""The protocol json: the literal bytes of docs/wire/json.md, and the requests and events that they are."""

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace
from raw_steps import encode_request, new_server, receive

from chatprotocol.errors import ErrorCode, ProtocolError
from chatprotocol.events import (
    AccountKind,
    Bye,
    DirectMessage,
    Event,
    Found,
    History,
    PasswordChanged,
    PasswordPrompt,
    Pong,
    PublicMessage,
    Refused,
    RoleChanged,
    RoomRole,
    Sent,
    SentStatus,
    TimeMs,
    Tokens,
    TokenState,
    User,
    Users,
    Welcome,
)
from chatprotocol.limits import LINE_MAX_BYTES
from chatprotocol.requests import (
    AskConversations,
    AskHistory,
    AskTokens,
    AskUser,
    AskUsers,
    ChangePassword,
    Leave,
    Login,
    Password,
    Ping,
    Request,
    Revoke,
    Say,
    Search,
    Unreadable,
    Whisper,
)
from chatprotocol.wire.json import Json, to_iso

from .samples import calls, pieces, read_whole_and_cut, refusal_of

PING = b'{"command":"ping"}'
ID_MAX = 9_223_372_036_854_775_807
NOON_MS = TimeMs(1_769_860_800_123)
MESSAGE = Json().encode_all([PublicMessage(1, NOON_MS, "bob", "x")])[:-1]


def read(data: bytes) -> list[Request]:
    return read_whole_and_cut(Json(), data)


# --- requests ---

# Encoded and decoded.
REQUESTS: list[tuple[bytes, Request]] = [
    (b'{"command":"login","username":"alice"}', Login("alice")),
    (b'{"command":"login","username":"alice","password":"secret"}', Login("alice", "secret")),
    (
        b'{"command":"login","username":"alice","password":"secret","since":0,"history_id":"9f86d081884c7d65"}',
        Login("alice", "secret", 0, "9f86d081884c7d65"),
    ),
    (
        b'{"command":"login","username":"alice","password":"secret","remember":"phone"}',
        Login("alice", "secret", remember="phone"),
    ),
    (b'{"command":"login","token":"dG9r"}', Login(token="dG9r")),
    (b'{"command":"tokens"}', AskTokens()),
    (b'{"command":"revoke","id":"5f3a90c1"}', Revoke("5f3a90c1")),
    (b'{"command":"password","password":"secret"}', Password("secret")),
    (b'{"command":"PM","message":"\xe2\x82\xac \xf0\x9f\x98\x80"}', Say("\u20ac \U0001f600")),
    (b'{"command":"PM","message":"a\\nb\\"c\\\\d","nonce":"7f"}', Say('a\nb"c\\d', "7f")),
    (b'{"command":"DM","to":"bob","message":"psst"}', Whisper("bob", "psst")),
    (b'{"command":"DM","to":"bob","message":"psst","nonce":"7f"}', Whisper("bob", "psst", "7f")),
    (b'{"command":"PM","message":"hello","notice":true}', Say("hello", notice=True)),
    (b'{"command":"DM","to":"bob","message":"psst","notice":true}', Whisper("bob", "psst", notice=True)),
    (b'{"command":"users"}', AskUsers()),
    (b'{"command":"user","username":"bob"}', AskUser("bob")),
    (b'{"command":"CH"}', AskHistory(50)),
    (b'{"command":"CH","limit":500,"before":0}', AskHistory(500, 0)),
    (b'{"command":"CH","limit":5,"after":0}', AskHistory(5, after=0)),
    (b'{"command":"CH","with":"bob"}', AskHistory(50, with_user="bob")),
    (b'{"command":"search","words":"x","with":"bob"}', Search("x", with_user="bob")),
    (b'{"command":"conversations"}', AskConversations()),
    (b'{"command":"change_password","old":"secret","new":"\xe2\x82\xac"}', ChangePassword("secret", "\u20ac")),
    (b'{"command":"search","words":"hel* \xe2\x82\xac"}', Search("hel* \u20ac", 50)),
    (b'{"command":"search","words":"","limit":1,"before":17}', Search("", 1, 17)),
    (b'{"command":"ping"}', Ping()),
    (b'{"command":"EX"}', Leave()),
]

# Decoded as well: forms that other clients send.
ALSO_READ: list[tuple[bytes, list[Request]]] = [
    # line ends, or none
    (b'{"command":"ping"}\r\n\n\r\n \n{"command":"EX"}', [Ping(), Leave()]),
    (b'{"command":"ping"}{"command":"EX"} {"command":"ping"}\r\n', [Ping(), Leave(), Ping()]),
    (b' \t{ "command" : "ping" } \r\n', [Ping()]),
    (b'{"command":"PM","message":"}{"}{"command":"PM","message":"\\"}"}', [Say("}{"), Say('"}')]),
    (b'{"command":"PM","message":"' + b"[{" * 2_000 + b'"}', [Say("[{" * 2_000)]),
    (b'{"command":"PM","message":"hello"}' * 1_500, [Say("hello")] * 1_500),
    # commands in any case, and synonyms
    (b'{"command":"LOGIN","username":"alice"}', [Login("alice")]),
    (b'{"command":"pm","message":"hello"}{"command":"Search","words":"x"}', [Say("hello"), Search("x")]),
    (b'{"\\u0063ommand":"\\u0070ing"}', [Ping()]),
    (b'{"command":"Exit"}', [Leave()]),
    (b'{"command":"who"}', [AskUsers()]),
    (b'{"command":"DM","recipient":"bob","message":"psst"}', [Whisper("bob", "psst")]),
    (b'{"command":"DM","to":"bob","target":"Bob","recipient":null,"message":"psst"}', [Whisper("bob", "psst")]),
    # unknown members, and null for optional ones
    (b'{"type":"command","command":"PM","message":"hello","colour":"red","n":[1,{"a":null}]}', [Say("hello")]),
    (b'{"command":"ping","message":5,"to":null}', [Ping()]),
    (b'{"command":"login","username":"alice","password":null,"since":null}', [Login("alice")]),
    # numbers and letters at the edge
    (b'{"command":"CH","before":9223372036854775807}', [AskHistory(50, ID_MAX)]),
    (b'{"command":"login","username":"a","since":9223372036854775807}', [Login("a", None, ID_MAX)]),
    (b'{"command":"PM","message":"a\\u0000b\\ud83d\\ude00"}', [Say("a\0b\U0001f600")]),
    (b'{"command":"PM","message":""}', [Say("")]),
]

BAD_JSON: list[bytes] = [
    # not JSON, or not an object
    *(b"hello", b"{", b"}", b'{"command":"ping",}', b"{'command':'ping'}", b'{"command":ping}', b"null", b'"ping"'),
    *(b'[{"command":"ping"}]', b"\0", b'\xef\xbb\xbf{"command":"ping"}', b'{"command":"PM","message":NaN}'),
    # raw control characters
    *(b'{"command":"PM","message":"a\tb"}', b'{"command":"PM","message":"a\0b"}'),
    # not UTF-8: a stray byte, a cut letter, an overlong one, a surrogate, another encoding; also in unknown members
    *(b'{"command":"PM","message":"\xff"}', b'{"command":"PM","message":"\xe2\x82"}'),
    *(b'{"command":"PM","message":"\xc0\xaf"}', b'{"command":"PM","message":"\xed\xa0\x80"}'),
    *(
        b'{\0"\0a\0"\0:\x001\0}',
        b'{"command":"PM","message":"x","y":"\xff"}',
        b'{"command":"PM","message":"x","\xff":1}',
    ),
    # half of a surrogate pair, escaped
    *(b'{"command":"PM","message":"\\ud800"}', b'{"command":"PM","message":"x","y":"\\udfff"}'),
    # numbers without a value
    *(b'{"command":"CH","limit":1e999}', b'{"command":"CH","before":' + b"9" * 5000 + b"}"),
]

BAD_REQUEST: list[bytes] = [
    # no command
    *(b"{}", b'{"Command":"ping"}', b'{"command":null}', b'{"command":["ping"]}', b'{"type":"command"}'),
    # members that are missing, null, of another case or of another type
    *(
        b'{"command":"login"}',
        b'{"command":"login","username":17}',
        b'{"command":"login","username":"a","password":17}',
    ),
    *(b'{"command":"password","password":null}', b'{"command":"PM","Message":"hello"}', b'{"command":"search"}'),
    *(b'{"command":"PM","message":["hello"]}', b'{"command":"PM","message":"hello","nonce":17}'),
    *(
        b'{"command":"DM","message":"psst"}',
        b'{"command":"DM","to":null,"message":"psst"}',
        b'{"command":"DM","to":"bob"}',
    ),
    *(b'{"command":"DM","recipient":17,"message":"psst"}', b'{"command":"search","words":["hello"]}'),
    # names of the recipient that differ
    b'{"command":"DM","to":"bob","recipient":"eve","message":"psst"}',
    b'{"command":"DM","recipient":"bob","target":"eve","message":"psst"}',
    # a token with what needs a password
    *(
        b'{"command":"login","token":"x","%b":"x"}' % member
        for member in (b"password", b"new_password", b"invitation", b"remember")
    ),
    *(b'{"command":"login","token":%b}' % token for token in (b"17", b"null", b'["x"]', b"{}", b"true")),
    *(b'{"command":"login","username":"a","remember":17}', b'{"command":"revoke"}', b'{"command":"revoke","id":17}'),
    # numbers out of range or of another type
    *(b'{"command":"CH","limit":%b}' % limit for limit in (b"0", b"501", b'"50"', b"null", b"50.0", b"1e300")),
    *(b'{"command":"search","words":"x","limit":%b}' % limit for limit in (b"0", b"501", b"null")),
    *(b'{"command":"CH","before":%b}' % number for number in (b"-1", b"9223372036854775808")),
    *(b'{"command":"search","words":"x","before":%b}' % number for number in (b"-1", b"9223372036854775808")),
    *(b'{"command":"CH","after":%b}' % number for number in (b"-1", b"9223372036854775808", b'"0"')),
    # members that exclude each other
    *(b'{"command":"CH","before":17,"after":3}', b'{"command":"CH","room":"dev","with":"bob"}'),
    b'{"command":"search","words":"x","room":"dev","with":"bob"}',
    *(b'{"command":"login","username":"a","since":%b}' % number for number in (b"-1", b"1.5", b"true", b"9" * 300)),
]


@pytest.mark.parametrize(("line", "request_"), REQUESTS, ids=lambda value: f"{value!r:.60}")
def test_request_is_its_line(line: bytes, request_: Request) -> None:
    assert read(line + b"\n") == [request_]
    assert encode_request(Json(), request_) == line + b"\n"


@pytest.mark.parametrize(("data", "requests"), ALSO_READ, ids=lambda value: f"{value!r:.60}")
def test_forms_of_other_clients_are_read(data: bytes, requests: list[Request]) -> None:
    assert read(data) == requests


@pytest.mark.parametrize("line", BAD_JSON, ids=lambda data: repr(data[:60]))
def test_line_that_is_no_json_object_is_bad_json(line: bytes) -> None:
    assert refusal_of(Json(), line + b"\n").code is ErrorCode.BAD_JSON


@pytest.mark.parametrize("line", BAD_REQUEST, ids=lambda data: repr(data[:60]))
def test_object_with_missing_or_wrong_members_is_a_bad_request(line: bytes) -> None:
    assert refusal_of(Json(), line + b"\n").code is ErrorCode.BAD_REQUEST


@pytest.mark.parametrize("command", ["nope", "", " ping", "log in", "\u0131", "PM\0", "x" * 10_000])
def test_unknown_command_is_refused_with_the_beginning_of_its_name(command: str) -> None:
    refused = refusal_of(Json(), b'{"command":"%s"}\n' % command.encode().replace(b"\0", b"\\u0000"))
    assert refused.code is ErrorCode.UNKNOWN_COMMAND
    assert repr(command[:32]) in refused.reason
    assert len(refused.reason) < 400


@pytest.mark.parametrize(
    ("line", "nonce"),
    [
        (b'{"command":"nope","nonce":"7f"}', "7f"),
        (b'{"command":"DM","message":5,"nonce":"7f"}', "7f"),
        (b'{"nonce":"7f"}', "7f"),
        (b'{"command":"nope","nonce":17}', None),
        (b'{"command":"nope","nonce":{}}', None),
    ],
)
def test_error_repeats_the_nonce_if_it_is_a_string(line: bytes, nonce: str | None) -> None:
    assert refusal_of(Json(), line + b"\n").nonce == nonce


# --- depth: the parser recurses in C, and the stacks of the readers are small ---


def nested(levels: int, opening: bytes, closing: bytes) -> bytes:
    return opening * levels + b"1" + closing * levels


@pytest.mark.parametrize(
    "data",
    [
        nested(10_000, b"[", b"]"),
        nested(10_000, b'{"a":', b"}"),
        b'{"command":"PM","message":"hello","x":' + nested(10_000, b"[", b"]") + b"}",
        b'{"command":"ping","x":' + nested(5_000, b'[{"a":', b"}]") + b"}",
        b"[" * 60_000,
        b'{"a":' * 12_000,
    ],
    ids=lambda data: repr(data[:40]),
)
def test_deeply_nested_object_is_refused_before_it_is_parsed(data: bytes) -> None:
    """The lines around it are read."""
    first, refused, last = read(PING + b"\n" + data + b"\n" + PING)
    assert (first, last) == (Ping(), Ping())
    assert isinstance(refused, Unreadable)
    assert (refused.code, refused.closes) == (ErrorCode.BAD_JSON, False)
    assert "64 levels" in refused.reason


@pytest.mark.parametrize(("levels", "is_read"), [(63, True), (64, False)])
@pytest.mark.parametrize("before", [b"", b"\n", PING + b"\n"])
def test_nesting_limit_is_64_levels_for_each_line(levels: int, is_read: bool, before: bytes) -> None:
    request = read(before + b'{"command":"ping","x":' + nested(levels, b"[", b"]") + b"}\n")[-1]
    assert isinstance(request, Ping) is is_read


@pytest.mark.parametrize(
    ("opening", "closing"), [(b'{"":\n', b"}\n"), (b'{"":\n', b"}"), (b'\n{"":', b"\n}"), (b"[\n", b"]\n")]
)
def test_object_cannot_continue_in_the_next_line(opening: bytes, closing: bytes) -> None:
    """Otherwise the depth of several lines could add up."""
    data = b'{"command":"ping","x":\n' + nested(500, opening, closing) + b"}\n"
    assert {type(request) for request in receive(new_server(Json()), data)} == {Unreadable}


# --- size, and the end ---


def padded(size_bytes: int) -> bytes:
    """A ping of this size."""
    frame = b'{"command":"ping","x":"%s"}'
    return frame % (b"x" * (size_bytes - len(frame) + 2))


@pytest.mark.parametrize("piece_bytes", [1_000, 65_536, 200_000])
@pytest.mark.parametrize("end", [b"\n", b""])
def test_line_of_65536_bytes_is_read_and_a_longer_one_refused(piece_bytes: int, end: bytes) -> None:
    line = padded(65_536)
    assert len(line) == LINE_MAX_BYTES
    assert receive(new_server(Json()), *pieces(line + end, piece_bytes)) == [Ping()]
    stream = padded(65_537) + b"\n" + PING + end
    refused, ping = receive(new_server(Json()), *pieces(stream, piece_bytes))
    assert isinstance(refused, Unreadable)
    assert (refused.code, refused.closes) == (ErrorCode.TOO_LONG, False)
    assert "65,536 bytes" in refused.reason
    assert ping == Ping()
    decoder = new_server(Json())
    assert len(receive(decoder, padded(70_000))) == 1
    assert decoder.receive_end() == [], "a refused line is not reported again"


@pytest.mark.parametrize("text", ["\u00e4" * 4096, "A" * 8192])
def test_longest_message_with_every_letter_escaped_fits(text: str) -> None:
    escaped = b"".join(b"\\u%04x" % ord(letter) for letter in text)
    assert read(b'{"command":"PM","nonce":"' + b"n" * 64 + b'","message":"' + escaped + b'"}\n') == [
        Say(text, "n" * 64)
    ]


@pytest.mark.parametrize("space", [b"", b"\n", b" ", b" \r\n \n\t "])
@pytest.mark.parametrize("before", [b"", PING, PING + b"\n", b"rubbish\n"])
def test_white_space_between_objects_is_no_incomplete_request(before: bytes, space: bytes) -> None:
    decoder = new_server(Json())
    receive(decoder, before + space)
    assert not decoder.is_incomplete
    assert decoder.receive_end() == []


@pytest.mark.parametrize("begun", [b"{", b" {", PING + b" {", b"hello", b"}", b"{}x"])
def test_incomplete_line_at_the_end_is_bad_json(begun: bytes) -> None:
    decoder = new_server(Json())
    receive(decoder, begun)
    assert decoder.is_incomplete
    (refused,) = decoder.receive_end()
    assert isinstance(refused, Unreadable)
    assert refused.code is ErrorCode.BAD_JSON


# --- cost, counted in calls ---


def test_good_lines_are_parsed_all_at_once() -> None:
    """A message costs two calls: one of them makes the request."""
    data = b'{"command":"PM","message":"hello"}\n' * 1_000
    assert calls(lambda: receive(new_server(Json()), data)) < 2_500


@pytest.mark.parametrize("unit", [PING, b"{" + b'"a":1,' * 20, b"[" * 20], ids=repr)
def test_line_in_small_pieces_costs_linear_time(unit: bytes) -> None:
    def cost(times: int) -> int:
        return calls(lambda: receive(new_server(Json()), *pieces(unit * times, 7)))

    assert cost(400) < 4.5 * cost(100)


@pytest.mark.parametrize("letter", [b"}", b"]", b"[]", b"}x"])
def test_line_of_rubbish_has_few_answers(letter: bytes) -> None:
    """An answer of a hundred bytes to each bracket would amplify the peer's bytes."""
    line = letter * (60_000 // len(letter)) + b"\n"
    assert len(receive(new_server(Json()), line)) <= 100
    assert len(receive(new_server(Json()), *pieces(line[-10_000:], 1))) <= 100


# --- events ---

HELLO = PublicMessage(18, NOON_MS, "bob", "hello")
PSST = DirectMessage(19, NOON_MS, "bob", "alice", "psst")
HELLO_JSON = b'{"type":"broadcast","id":18,"time":"2026-01-31T12:00:00.123Z","from":"bob","message":"hello"}'
PSST_JSON = b'{"type":"direct","id":19,"time":"2026-01-31T12:00:00.123Z","from":"bob","to":"alice","message":"psst"}'
BOTH_JSON = b"[" + HELLO_JSON + b"," + PSST_JSON + b"]"

# Encoded and decoded.
EVENTS: list[tuple[Event, bytes]] = [
    (
        Tokens((TokenState(id="5f", label="phone", created=TimeMs(0), used=TimeMs(1), expires=TimeMs(2)),)),
        (
            b'{"type":"tokens","tokens":[{"id":"5f","label":"phone","created":"1970-01-01T00:00:00.000Z",'
            b'"used":"1970-01-01T00:00:00.001Z","expires":"1970-01-01T00:00:00.002Z"}]}'
        ),
    ),
    (PasswordPrompt(account=AccountKind.NEW), b'{"type":"prompt","field":"password","account":"new"}'),
    (
        Welcome(account=AccountKind.NEW, username="alice", users=("alice", "bob"), last_id=17),
        b'{"type":"login","status":"ok","account":"new","username":"alice","users":["alice","bob"],"last_id":17}',
    ),
    (
        Welcome(account=AccountKind.EXISTING, username="a", users=(), last_id=15, history_id="9f", since=7, seen_id=0),
        (
            b'{"type":"login","status":"ok","account":"existing","username":"a","users":[],"last_id":15,"history_id":"9f",'
            b'"since":7,"seen_id":0}'
        ),
    ),
    (HELLO, HELLO_JSON),
    (PSST, PSST_JSON),
    (replace(HELLO, guest=True), HELLO_JSON[:-1] + b',"guest":true}'),
    (replace(PSST, guest=True, notice=True), PSST_JSON[:-1] + b',"guest":true,"notice":true}'),
    (replace(PSST, bot=True), PSST_JSON[:-1] + b',"bot":true}'),
    (
        PublicMessage(1, TimeMs(0), "bob", 'a"b\\c\n\0\x1b\x7f\u20ac\U0001f600'),
        (
            b'{"type":"broadcast","id":1,"time":"1970-01-01T00:00:00.000Z","from":"bob","message":'
            b'"a\\"b\\\\c\\n\\u0000\\u001b\x7f\xe2\x82\xac\xf0\x9f\x98\x80"}'
        ),
    ),
    (
        Users(None, ("alice", "bob"), ("bob",), ()),
        b'{"type":"users","users":["alice","bob"],"joined":["bob"],"left":[]}',
    ),
    (Users(501, None, ("bob",), ("eve",)), b'{"type":"users","count":501,"joined":["bob"],"left":["eve"]}'),
    (Sent(18, SentStatus.STORED), b'{"type":"sent","id":18,"status":"stored"}'),
    (
        Sent(18, SentStatus.SENT, "7f", looks_public=True),
        b'{"type":"sent","id":18,"status":"sent","nonce":"7f","looks_public":true}',
    ),
    (History(()), b'{"type":"history","messages":[]}'),
    (History((HELLO, PSST)), b'{"type":"history","messages":' + BOTH_JSON + b"}"),
    (User("Bob", online=False), b'{"type":"user","username":"Bob","online":false}'),
    (PasswordChanged(), b'{"type":"password_changed"}'),
    (
        Found('a "b*"', (HELLO, PSST), 19),
        b'{"type":"found","words":"a \\"b*\\"","messages":' + BOTH_JSON + b',"upto":19}',
    ),
    (
        Refused(ErrorCode.UNKNOWN_USER, "There is no bob."),
        b'{"type":"error","code":"unknown_user","message":"There is no bob."}',
    ),
    (
        Refused(ErrorCode.TOO_LONG, "Too long.", "7f"),
        b'{"type":"error","code":"too_long","message":"Too long.","nonce":"7f"}',
    ),
    (Pong(), b'{"type":"pong"}'),
    (Bye("you left"), b'{"type":"bye","reason":"you left"}'),
]


@pytest.mark.parametrize(("event", "line"), EVENTS, ids=lambda value: f"{value!r:.60}")
def test_event_is_its_line(event: Event, line: bytes) -> None:
    assert Json().encode_all([event]) == line + b"\n"
    assert Json().client().event_decoder().decode(line + b"\n") == [event]


@pytest.mark.parametrize("second", [-1, 0, 951_782_399, 1_798_675_199, 4_102_444_800])
def test_times_have_milliseconds(second: int) -> None:
    """Also one after the other, around the beginning of a second."""
    for time_ms in range(second * 1000 - 2, second * 1000 + 2):
        moment = datetime.fromtimestamp(time_ms / 1000, UTC)
        assert to_iso(time_ms) == moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def test_error_codes_are_the_documented_ones() -> None:
    assert " ".join(ErrorCode) == (
        "bad_json bad_request unknown_command not_logged_in bad_username wrong_password bad_token too_many_attempts"
        " unknown_user unknown_room not_a_member not_permitted too_many_rooms wrong_key room_full"
        " empty_message too_long rate_limited mailbox_full disk_full unavailable banned muted kicked replaced revoked"
        " unknown_message invitation_required password_change_required tls_required server_full no_session"
        " shutting_down internal"
    )


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b'{"type":"weather","wind":5}\n\n{"type":"pong","later":{}}\r\n{"type":"Pong"}\n', [Pong()]),
        (b'{"type":"error","code":"teapot","message":"x"}\n', [Refused(ErrorCode.INTERNAL, "x")]),
        (
            b'{"type":"role","room":"dev","username":"bob","role":"king"}\n',
            [RoleChanged(room="dev", username="bob", role=RoomRole.MEMBER)],
        ),
        (b'{"type":"users","users":["alice"]}\n', [Users(None, ("alice",))]),
        (
            b'{"type":"broadcast","id":1,"time":"2026-01-31T13:00:00.123+01:00","from":"bob","message":"x"}\n',
            [PublicMessage(1, NOON_MS, "bob", "x")],
        ),
    ],
)
def test_later_servers_are_understood(stream: bytes, events: list[Event]) -> None:
    assert Json().client().event_decoder().decode(stream) == events


@pytest.mark.parametrize(
    "line",
    [
        *(b"HTTP/1.1 400 Bad Request", b"[]", b"17", b"{}", b'{"type":17}', b'{"type":"pong"', b'{"type":"bye"}'),
        *(b'{"type":"sent","id":"18","status":"sent"}', b'{"type":"sent","id":18,"status":"lost"}'),
        *(b'{"type":"bye","reason":"\xff"}', b'{"type":"pong","x":' + b"[" * 10_000 + b"]" * 10_000 + b"}"),
        *(
            b'{"type":"broadcast","id":1,"time":"%b","from":"bob","message":"x"}' % time
            for time in (b"noon", b"2026-13-31T12:00:00.123Z", b"2026-01-31T12:00:00.123")
        ),
        b'{"type":"history","messages":[{"type":"pong"}]}',
        b'{"type":"login","account":"new","username":"%b","users":[],"last_id":0}' % (b"a" * 257),
        b'{"type":"users","joined":["%b"]}' % (b"a" * 257),
        b'{"type":"history","messages":[%b]}' % b",".join([MESSAGE] * 10_001),
    ],
    ids=lambda line: repr(line[:60]),
)
def test_invalid_event_is_a_protocol_error_of_one_line(line: bytes) -> None:
    with pytest.raises(ProtocolError) as error:
        Json().client().event_decoder().decode(line + b"\n")
    assert "\n" not in str(error.value)


def test_only_a_history_may_be_long() -> None:
    history = History((PublicMessage(1, NOON_MS, "b" * 32, "\0" * 8192),) * 500)
    line = Json().encode_all([history])
    decoder = Json().client().event_decoder()
    assert len(line) > 20_000_000
    assert decoder.decode(line[:-1]) == []
    assert decoder.decode(b"\n") == [history]
    names = ",".join('"a"' for _ in range(300_000))
    with pytest.raises(ProtocolError, match="sent a 'users' of"):
        Json().client().event_decoder().decode(f'{{"type":"users","users":[{names}]}}\n'.encode())
