"""The dialect json, what a server says: events and the literal bytes that they are."""

import pytest

from chatprotocol.errors import ErrorCode, ProtocolError
from chatprotocol.events import (
    AccountKind,
    Bye,
    DirectMessage,
    Event,
    Found,
    History,
    Online,
    PasswordChanged,
    PasswordPrompt,
    Pong,
    PublicMessage,
    Refused,
    Sent,
    SentStatus,
    User,
    Users,
    Welcome,
)
from chatprotocol.wire.json import Json

NOON_MS = 1_769_860_800_123
HELLO = PublicMessage(18, NOON_MS, "bob", "hello")
PSST = DirectMessage(19, NOON_MS, "bob", "alice", "psst")
HELLO_JSON = b'{"type":"broadcast","id":18,"time":"2026-01-31T12:00:00.123Z","from":"bob","message":"hello"}'
PSST_JSON = b'{"type":"direct","id":19,"time":"2026-01-31T12:00:00.123Z","from":"bob","to":"alice","message":"psst"}'

ODD_LETTERS = (
    b'{"type":"broadcast","id":1,"time":"1970-01-01T00:00:00.000Z","from":"bob","message":'
    b'"a\\"b\\\\c\\n\\u0000\\u001b\x7f\xe2\x82\xac\xf0\x9f\x98\x80"}'
)

# Each row is one line of the wire: written exactly so, and read back.
LINES: list[tuple[Event, bytes]] = [
    (PasswordPrompt(AccountKind.NEW), b'{"type":"prompt","field":"password","account":"new"}'),
    (PasswordPrompt(AccountKind.EXISTING), b'{"type":"prompt","field":"password","account":"existing"}'),
    (
        Welcome(AccountKind.NEW, "alice", ("alice", "bob"), 17),
        b'{"type":"login","status":"ok","account":"new","username":"alice","users":["alice","bob"],"last_id":17}',
    ),
    (
        Welcome(AccountKind.EXISTING, "alice", ("alice",), 0),
        b'{"type":"login","status":"ok","account":"existing","username":"alice","users":["alice"],"last_id":0}',
    ),
    (
        Welcome(AccountKind.EXISTING, "a", (), 15, "9f", 7),
        b'{"type":"login","status":"ok","account":"existing","username":"a","users":[],"last_id":15,"history_id":"9f","since":7}',
    ),
    (
        Welcome(AccountKind.EXISTING, "a", (), 15, seen_id=0),
        b'{"type":"login","status":"ok","account":"existing","username":"a","users":[],"last_id":15,"seen_id":0}',
    ),
    (HELLO, HELLO_JSON),
    (PSST, PSST_JSON),
    (
        PublicMessage(1, 0, "bob", 'a"b\\c\n\0\x1b\x7f\u20ac\U0001f600'),
        ODD_LETTERS,
    ),
    (
        PublicMessage(2, 951_782_400_999, "bob", "leap"),
        b'{"type":"broadcast","id":2,"time":"2000-02-29T00:00:00.999Z","from":"bob","message":"leap"}',
    ),
    (Users(2, ("alice", "bob"), ("bob",), ()), b'{"type":"users","users":["alice","bob"],"joined":["bob"],"left":[]}'),
    (Users(1, ("alice",), (), ("bob",)), b'{"type":"users","users":["alice"],"joined":[],"left":["bob"]}'),
    (Users(0, ()), b'{"type":"users","users":[],"joined":[],"left":[]}'),
    (Users(501, None, ("bob",), ("eve",)), b'{"type":"users","count":501,"joined":["bob"],"left":["eve"]}'),
    (Sent(18, SentStatus.SENT), b'{"type":"sent","id":18,"status":"sent"}'),
    (
        Sent(18, SentStatus.SENT, "7f", looks_public=True),
        b'{"type":"sent","id":18,"status":"sent","nonce":"7f","looks_public":true}',
    ),
    (Sent(18, SentStatus.STORED), b'{"type":"sent","id":18,"status":"stored"}'),
    (Sent(18, SentStatus.SENT, "7f"), b'{"type":"sent","id":18,"status":"sent","nonce":"7f"}'),
    (History(()), b'{"type":"history","messages":[]}'),
    (History((HELLO, PSST)), b'{"type":"history","messages":[' + HELLO_JSON + b"," + PSST_JSON + b"]}"),
    (User("Bob", online=False), b'{"type":"user","username":"Bob","online":false}'),
    (PasswordChanged(), b'{"type":"password_changed"}'),
    (Found("", (), 0), b'{"type":"found","words":"","messages":[],"upto":0}'),
    (
        Found('a "b*"', (HELLO, PSST), 19),
        b'{"type":"found","words":"a \\"b*\\"","messages":[' + HELLO_JSON + b"," + PSST_JSON + b'],"upto":19}',
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

# What is written of the answer to AskUsers is a list of users as in an update, in which nobody came and nobody went.
ONLINE: list[tuple[Online, bytes, Users]] = [
    (
        Online(("alice", "bob")),
        b'{"type":"users","users":["alice","bob"],"joined":[],"left":[]}',
        Users(2, ("alice", "bob")),
    ),
    (Online(("alice",)), b'{"type":"users","users":["alice"],"joined":[],"left":[]}', Users(1, ("alice",))),
    (Online(()), b'{"type":"users","users":[],"joined":[],"left":[]}', Users(0, ())),
]

CODES = [
    "bad_json",
    "bad_request",
    "unknown_command",
    "not_logged_in",
    "bad_username",
    "wrong_password",
    "too_many_attempts",
    "unknown_user",
    "empty_message",
    "too_long",
    "rate_limited",
    "server_full",
    "no_session",
    "shutting_down",
    "internal",
]


@pytest.mark.parametrize(("event", "line"), LINES)
def test_an_event_is_written_as_its_line(event: Event, line: bytes) -> None:
    assert Json().encode(event) == line + b"\n"


@pytest.mark.parametrize(("event", "line"), LINES)
def test_a_line_is_read_as_its_event(event: Event, line: bytes) -> None:
    assert Json().event_decoder().decode(line + b"\n") == [event]


@pytest.mark.parametrize(("online", "line", "users"), ONLINE)
def test_who_is_online_is_written_and_read_as_a_list_of_users(online: Online, line: bytes, users: Users) -> None:
    assert Json().encode(online) == line + b"\n"
    assert Json().event_decoder().decode(line + b"\n") == [users]


def test_all_of_a_large_room_are_online_though_an_update_would_not_list_them() -> None:
    names = tuple(f"user{number}" for number in range(2_000))

    assert Json().event_decoder().decode(Json().encode(Online(names))) == [Users(2_000, names)]


@pytest.mark.parametrize("event", [row[0] for row in (*LINES, *ONLINE)], ids=repr)
def test_whatever_is_said_is_one_line(event: Event) -> None:
    assert Json().encode(event).count(b"\n") == 1


def test_the_codes_of_errors_are_those_that_are_documented() -> None:
    assert list(ErrorCode) == CODES


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (b'{"type":"pong","later":"more"}', Pong()),
        (b'{"later":{},"type":"bye","reason":"x"}', Bye("x")),
        (b'{"type":"error","code":"teapot","message":"x"}', Refused(ErrorCode.INTERNAL, "x")),
        (b'{"type":"users","users":["alice"]}', Users(1, ("alice",))),
        (
            b'{"type":"broadcast","id":1,"time":"2026-01-31T13:00:00.123+01:00","from":"bob","message":"x"}',
            PublicMessage(1, NOON_MS, "bob", "x"),
        ),
    ],
)
def test_a_server_of_tomorrow_is_understood(line: bytes, event: Event) -> None:
    assert Json().event_decoder().decode(line + b"\r\n") == [event]


def test_events_of_unknown_types_are_passed_over() -> None:
    stream = b'{"type":"weather","wind":5}\n\n{"type":"pong"}\n{"type":"Pong"}\n'

    assert Json().event_decoder().decode(stream) == [Pong()]


@pytest.mark.parametrize(
    "line",
    [
        b"HTTP/1.1 400 Bad Request",
        b"[]",
        b"17",
        b"{}",
        b'{"type":17}',
        b'{"type":"pong"',
        b'{"type":"bye"}',
        b'{"type":"sent","id":"18","status":"sent"}',
        b'{"type":"sent","id":18,"status":"lost"}',
        b'{"type":"bye","reason":"\xff"}',
        b'{"type":"pong","x":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"type":"broadcast","id":1,"time":"noon","from":"bob","message":"x"}',
        b'{"type":"broadcast","id":1,"time":"2026-13-31T12:00:00.123Z","from":"bob","message":"x"}',
        b'{"type":"broadcast","id":1,"time":"2026-01-31T12:00:00.123","from":"bob","message":"x"}',
        b'{"type":"history","messages":[{"type":"pong"}]}',
    ],
    ids=lambda line: repr(line[:60]),
)
def test_a_server_that_makes_no_sense_is_a_protocol_error_of_one_line(line: bytes) -> None:
    with pytest.raises(ProtocolError) as error:
        Json().event_decoder().decode(line + b"\n")
    assert "\n" not in str(error.value)


def test_the_longest_history_that_a_server_may_send_is_read() -> None:
    history = History((PublicMessage(1, NOON_MS, "b" * 32, "\0" * 8192),) * 500)
    line = Json().encode(history)
    decoder = Json().event_decoder()

    assert len(line) > 20_000_000
    assert decoder.decode(line[:-1]) == []
    assert decoder.decode(b"\n") == [history]


def test_half_an_event_is_as_good_as_none() -> None:
    decoder = Json().event_decoder()

    assert decoder.decode(b'{"type":"po') == []


def test_only_a_history_may_be_long() -> None:
    names = ",".join('"a"' for _ in range(300_000))
    with pytest.raises(ProtocolError, match="sent a 'users' of"):
        Json().event_decoder().decode(f'{{"type":"users","users":[{names}]}}\n'.encode())
