"""The server's half of irc: login, labels, messages in both directions, and input that is not IRC."""

import base64
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from chatprotocol import events
from chatprotocol.errors import ErrorCode
from chatprotocol.events import DirectMessage, PublicBatch, PublicMessage, Refused, Sent, SentBatch, SentStatus, TimeMs
from chatprotocol.limits import IRC_LINE_MAX_BYTES, IRC_NAME_MAX_BYTES, USERNAME_MAX_BYTES
from chatprotocol.requests import (
    Authenticate,
    ChangeEncoding,
    Enter,
    Handled,
    Leave,
    Quit,
    Relay,
    Rename,
    Say,
    SayBatch,
    Whisper,
)
from chatprotocol.rules import check_text
from chatprotocol.wire import Irc
from chatprotocol.wire.irc_connection import IrcSettings

from .irc_connections import Dialogue, default_answer, logged_in
from .samples import pieces

NOON = TimeMs(1_769_860_800_123)
TAGS = "time=2026-01-31T12:00:00.123Z;msgid="


def plain(*parts: str) -> str:
    return base64.b64encode("\0".join(parts).encode()).decode()


def refuse_with(code: ErrorCode, kind: type) -> Any:
    return lambda request: [Refused(code, "No.")] if isinstance(request, kind) else default_answer(request)


# --- login ---


def test_guest_logs_in_with_nick_and_user() -> None:
    dialogue = Dialogue()
    dialogue.send("NICK bob", "USER b 0 * :Bob B.")
    assert dialogue.asked == [Enter(username="bob", variant="irc/", realname="Bob B.", ident="b")]
    codes = [line.split()[1] for line in dialogue.said]
    assert codes == ["001", "002", "003", "004", "005", "005", "005", "422"]


def test_nothing_but_the_login_is_possible_before_it() -> None:
    """Promise: no command reaches the session before the registration."""
    dialogue = Dialogue()
    for line in ("JOIN #lobby", "PRIVMSG bob :hi", "WHOIS bob", "LIST", "MODE #dev +k x", "KILL bob :x", "NONSENSE"):
        assert dialogue.send(line) == [":chat.local 451 * :You have not registered"]
    assert dialogue.asked == []


def test_negotiation_delays_the_login() -> None:
    dialogue = Dialogue()
    dialogue.send("CAP REQ server-time", "NICK bob", "USER b 0 * :Bob")
    assert dialogue.asked == []
    dialogue.send("CAP END")
    assert dialogue.last().variant == "irc/t"


def test_request_with_an_unknown_capability_changes_nothing() -> None:
    """Promise: capabilities are enabled all together or not at all."""
    dialogue = Dialogue()
    assert dialogue.send("CAP REQ :server-time nonsense batch") == [":chat.local CAP * NAK :server-time nonsense batch"]
    assert dialogue.send("CAP LIST") == [":chat.local CAP * LIST :"]
    assert dialogue.send("CAP REQ :batch server-time", "CAP REQ :-batch") == [
        ":chat.local CAP * ACK :batch server-time",
        ":chat.local CAP * ACK :-batch",
    ]
    assert dialogue.send("CAP LIST") == [":chat.local CAP * LIST :server-time"]


def test_answer_to_a_long_request_has_lines_within_the_limit() -> None:
    request = " ".join(["sasl"] * 98)
    lines = Dialogue().send(f"CAP REQ :{request}")
    assert " ".join(line.removeprefix(":chat.local CAP * ACK :") for line in lines) == request
    assert max(map(len, lines)) <= 510


def test_values_are_for_version_302() -> None:
    assert " sasl " in f"{' '.join(Dialogue().send('CAP LS'))} "
    assert " sasl=PLAIN " in " ".join(Dialogue().send("CAP LS 302"))
    assert Dialogue().send("CAP NONSENSE") == [":chat.local 410 * NONSENSE :Invalid CAP command"]


def test_capabilities_are_one_line() -> None:
    """Promise: also with the longest names. Bots such as pydle don't know that the list may have several lines."""
    dialogue = Dialogue(settings=IrcSettings(name="s" * IRC_NAME_MAX_BYTES))
    dialogue.send(f"NICK {'n' * USERNAME_MAX_BYTES}")
    (line,) = dialogue.send("CAP LS 302")
    assert " LS :account-notify " in line
    assert len(line) <= IRC_LINE_MAX_BYTES - len("\r\n")


def test_new_capability_after_the_login_changes_the_encoding() -> None:
    dialogue = logged_in("server-time")
    dialogue.send("CAP REQ echo-message")
    assert dialogue.last() == ChangeEncoding("irc/t", echoes=True)
    count = len(dialogue.asked)
    dialogue.send("CAP REQ multi-prefix")
    assert len(dialogue.asked) == count


@pytest.mark.parametrize("piece_bytes", [400, 10_000])
def test_sasl_proves_the_account_which_becomes_the_nick(piece_bytes: int) -> None:
    dialogue = Dialogue()
    encoded = plain("", "alice", "p" * 298)  # 408 bytes
    assert len(encoded) == 408
    dialogue.send("CAP REQ sasl", "NICK other", "USER a 0 * :A", "AUTHENTICATE PLAIN")
    if piece_bytes == 400:
        said = dialogue.send(f"AUTHENTICATE {encoded[:400]}", f"AUTHENTICATE {encoded[400:]}")
        assert [line.split()[1] for line in said] == ["900", "903"]
        assert dialogue.asked == [Authenticate(username="alice", password="p" * 298)]
        dialogue.send("CAP END")
        assert dialogue.last().username == "alice"
        assert dialogue.said[-1].split()[2] == "alice"
    else:
        assert dialogue.send(f"AUTHENTICATE {encoded}") == [":chat.local 905 other :SASL message too long"]


def test_account_is_told_before_there_is_a_nick() -> None:
    """RPL_LOGGEDIN has the account's name, which becomes the nick: irssi says NICK after SASL."""
    dialogue = Dialogue()
    dialogue.send("CAP REQ sasl", "AUTHENTICATE PLAIN")
    said = dialogue.send(f"AUTHENTICATE {plain('', 'alice', 'secret')}")
    assert said[0] == ":chat.local 900 * alice!alice@chat.local alice :You are now logged in as alice"


@pytest.mark.parametrize(
    ("lines", "codes"),
    [
        (["AUTHENTICATE SCRAM-SHA-256"], ["908", "904"]),
        (["AUTHENTICATE PLAIN", "AUTHENTICATE *"], ["AUTHENTICATE", "906"]),
        (["AUTHENTICATE PLAIN", "AUTHENTICATE !!!"], ["AUTHENTICATE", "904"]),
        (["AUTHENTICATE PLAIN", f"AUTHENTICATE {plain('eve', 'alice', 'x')}"], ["AUTHENTICATE", "904"]),
        (["AUTHENTICATE PLAIN", *["AUTHENTICATE " + "A" * 400] * 4], ["AUTHENTICATE", "905"]),
        (["AUTHENTICATE"], ["461"]),
    ],
)
def test_sasl_that_cannot_succeed_asks_nothing(lines: list[str], codes: list[str]) -> None:
    dialogue = Dialogue()
    assert [line.split()[1] for line in dialogue.send(*lines)] == codes
    assert dialogue.asked == []


def test_wrong_password_is_refused() -> None:
    wrong = refuse_with(ErrorCode.WRONG_PASSWORD, Authenticate)
    dialogue = Dialogue(wrong)
    said = dialogue.send("AUTHENTICATE PLAIN", f"AUTHENTICATE {plain('', 'alice', 'x')}")
    assert said[-1] == ":chat.local 904 * :SASL authentication failed: No."
    dialogue = Dialogue(wrong)
    said = dialogue.send("PASS alice:x:y", "NICK bob", "USER b 0 * :B")
    assert dialogue.asked == [Authenticate(username="alice", password="x:y"), Leave()]
    assert said == [
        ":chat.local 464 bob :Password incorrect: No.",
        "ERROR :Closing Link: bob (Access denied)",
    ]


def test_password_without_a_name_is_that_of_the_nick() -> None:
    dialogue = Dialogue()
    dialogue.send("PASS secret", "NICK alice", "USER a 0 * :A")
    assert dialogue.asked[0] == Authenticate(username="alice", password="secret")


def test_taken_nick_may_be_replaced() -> None:
    dialogue = Dialogue(refuse_with(ErrorCode.BAD_USERNAME, Enter))
    assert dialogue.send("NICK bob", "USER b 0 * :B")[0].startswith(":chat.local 433 * bob :Nickname is already in use")
    dialogue.answer = default_answer
    dialogue.send("NICK bob2")
    assert [each.username for each in dialogue.asked] == ["bob", "bob2"]


@pytest.mark.parametrize("request_", [Enter, Authenticate])
@pytest.mark.parametrize(("code", "numeric"), [(ErrorCode.BANNED, "465"), (ErrorCode.NOT_PERMITTED, "NOTICE")])
def test_refused_login_ends_the_connection(request_: type, code: ErrorCode, numeric: str) -> None:
    dialogue = Dialogue(refuse_with(code, request_))
    said = dialogue.send("PASS secret", "NICK bob", "USER b 0 * :B")
    assert (said[-2].split()[1], said[-1].split()[0]) == (numeric, "ERROR")
    assert dialogue.last() == Leave()


def test_register_makes_the_account_of_the_nick() -> None:
    dialogue = Dialogue()
    assert dialogue.send("REGISTER * * secret")[0].startswith(":chat.local FAIL REGISTER NEED_NICK")
    dialogue.send("NICK bob")
    assert "ACCOUNT_NAME_MUST_BE_NICK" in dialogue.send("REGISTER eve * secret")[0]
    assert dialogue.send("REGISTER * * secret")[-1] == ":chat.local REGISTER SUCCESS bob :Account registered"
    assert dialogue.asked == [Authenticate(username="bob", password="secret", registers=True)]
    closed = Dialogue(settings=IrcSettings(has_registration=False))
    assert "draft/account-registration" not in " ".join(closed.send("CAP LS 302"))


def test_guest_may_change_the_nick_and_an_account_may_not() -> None:
    dialogue = logged_in()
    dialogue.send("NICK eve")
    assert dialogue.last() == Rename("eve")
    assert dialogue.send("NICK a-b")[0].startswith(":chat.local 432 eve a-b :")
    assert dialogue.send("NICK") == [":chat.local 431 eve :No nickname given"]
    account = Dialogue()
    account.answer = lambda request: (
        [events.Welcome(account=events.AccountKind.EXISTING, username="bob", users=(), last_id=1)]
        if isinstance(request, Enter)
        else default_answer(request)
    )
    account.send("PASS x", "NICK bob", "USER b 0 * :B")
    assert account.send("NICK eve")[0].startswith(":chat.local 447 bob eve :")


# --- labels ---


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("@label=x PONG", ["@label=x :chat.local ACK"]),
        ("@label=x PING a", ["@label=x :chat.local PONG chat.local a"]),
        (r"@label=a\:b NONSENSE", [r"@label=a\:b :chat.local 421 bob NONSENSE :Unknown command"]),
        (f"@label={'x' * 65} PONG", []),
    ],
)
def test_label_is_answered_exactly_once(line: str, said: list[str]) -> None:
    assert logged_in().send(line) == said


def test_several_lines_with_a_label_are_a_batch() -> None:
    first, *lines, last = logged_in().send("@label=x INFO")
    assert first == "@label=x :chat.local BATCH +r1 labeled-response"
    assert last == ":chat.local BATCH -r1"
    assert len(lines) == 3
    assert all(line.startswith("@batch=r1 :chat.local 37") for line in lines)


def test_message_with_a_label_is_acknowledged_or_echoed_in_the_order_of_the_messages() -> None:
    """Promise: each echo has the label of its own message."""
    silent = logged_in("batch labeled-response")
    assert silent.send("@label=a PRIVMSG #dev :1", "PRIVMSG #dev :2", "@label=c PRIVMSG alice :3") == []
    assert silent.tell(SentBatch(7, (None, None)), Sent(9, SentStatus.SENT)) == [
        "@label=a :chat.local ACK",
        "@label=c :chat.local ACK",
    ]
    echoing = logged_in("batch labeled-response echo-message")
    echoing.send("@label=a PRIVMSG #dev :1", "PRIVMSG #dev :2", "@label=c PRIVMSG alice :3", "@label=d PRIVMSG #x :4")
    said = echoing.tell(SentBatch(7, (None, None)), PublicBatch(7, NOON, "bob", ("1", "2"), "dev"))
    said += echoing.tell(Sent(9, SentStatus.SENT), DirectMessage(9, NOON, "bob", "alice", "3"))
    said += echoing.tell(Refused(ErrorCode.UNKNOWN_ROOM, "No."))
    assert said == [
        "@label=a :bob!bob@chat.local PRIVMSG #dev :1",
        ":bob!bob@chat.local PRIVMSG #dev :2",
        "@label=c :bob!bob@chat.local PRIVMSG alice :3",
        "@label=d :chat.local 403 bob #x :No such channel",
    ]


def test_message_to_several_targets_is_answered_in_one_batch() -> None:
    dialogue = logged_in("batch labeled-response echo-message")
    said = dialogue.send("@label=x PRIVMSG #lobby,#dev,alice :hi")
    assert said[0] == "@label=x :chat.local BATCH +r1 labeled-response"
    assert said[1].startswith("@batch=r1 :chat.local 404 bob #lobby :")
    assert dialogue.asked[-2:] == [Say("hi", None, "dev"), Whisper("alice", "hi")]
    said = dialogue.tell(Sent(9, SentStatus.SENT), PublicMessage(9, NOON, "bob", "hi", "dev"))
    said += dialogue.tell(Refused(ErrorCode.UNKNOWN_USER, "No."))
    assert said == [
        "@batch=r1 :bob!bob@chat.local PRIVMSG #dev :hi",
        "@batch=r1 :chat.local 401 bob alice :No such nick/channel",
        ":chat.local BATCH -r1",
    ]


# --- messages ---


@pytest.mark.parametrize(
    ("line", "request_"),
    [
        ("PRIVMSG #dev :hello world", Say("hello world", None, "dev")),
        ("NOTICE #dev :hello", Say("hello", None, "dev", notice=True)),
        ("privmsg alice :\x02hi\x02", Whisper("alice", "hi")),
        ("PRIVMSG #dev :\x01ACTION waves\x01", Say("/me waves", None, "dev")),
        ("PRIVMSG alice :\x01VERSION\x01", Relay(to="alice", kind="PRIVMSG", text="\x01VERSION\x01")),
    ],
)
def test_message_becomes_a_request(line: str, request_: Any) -> None:
    dialogue = logged_in("")
    dialogue.send(line)
    assert dialogue.last() == request_


@pytest.mark.parametrize(
    ("line", "numeric"),
    [
        ("PRIVMSG", "411"),
        ("PRIVMSG #dev", "412"),
        ("PRIVMSG #dev :\x02", "412"),
        ("PRIVMSG a,b,c,d,e :x", "407"),
        ("PRIVMSG #lobby :x", "404"),
        ("PRIVMSG NickServ :IDENTIFY secret", "401"),
        ("PRIVMSG nickserv :\x01VERSION\x01", "401"),
    ],
)
def test_incomplete_message_is_refused_and_a_notice_is_not_answered(line: str, numeric: str) -> None:
    dialogue = logged_in("")
    assert [each.split()[1] for each in dialogue.send(line)] == [numeric]
    assert dialogue.last().__class__ is Enter
    if numeric != "407":
        assert dialogue.send(line.replace("PRIVMSG", "NOTICE")) == []


MESSAGE = PublicMessage(18, NOON, "alice", "hello", "dev")


@pytest.mark.parametrize(
    ("flags", "message", "lines"),
    [
        ("", MESSAGE, [":alice!alice@chat.local PRIVMSG #dev :hello"]),
        ("agt", MESSAGE, [f"@{TAGS}18;account=alice :alice!alice@chat.local PRIVMSG #dev :hello"]),
        (
            "agt",
            PublicMessage(18, NOON, "alice", "x", None, guest=True, notice=True),
            [f"@{TAGS}18 :alice!alice@chat.local NOTICE #lobby :x"],
        ),
        (
            "ag",
            PublicMessage(18, NOON, "alice", "x", bot=True),
            ["@msgid=18;account=alice;bot :alice!alice@chat.local PRIVMSG #lobby :x"],
        ),
        (
            "",
            DirectMessage(18, NOON, "alice", "bob", "x", bot=True),
            [":alice!alice@chat.local PRIVMSG bob :x"],
        ),
        (
            "",
            PublicMessage(18, NOON, "alice", "a\n\nb"),
            [f":alice!alice@chat.local PRIVMSG #lobby :{x}" for x in "ab"],
        ),
        (
            "g",
            PublicMessage(18, NOON, "alice", "a\nb"),
            ["@msgid=18 :alice!alice@chat.local PRIVMSG #lobby :a", ":alice!alice@chat.local PRIVMSG #lobby :b"],
        ),
        (
            "",
            DirectMessage(18, NOON, "alice", "bob", "/me waves"),
            [":alice!alice@chat.local PRIVMSG bob :\x01ACTION waves\x01"],
        ),
        ("", PublicMessage(18, NOON, "alice", "\x01VERSION\x01"), [":alice!alice@chat.local PRIVMSG #lobby :VERSION"]),
        (
            "bg",
            PublicMessage(18, NOON, "alice", "a\n\n" + "b" * 480),
            [
                "@msgid=18 :alice!alice@chat.local BATCH +m18 draft/multiline #lobby",
                "@batch=m18 :alice!alice@chat.local PRIVMSG #lobby :a",
                "@batch=m18 :alice!alice@chat.local PRIVMSG #lobby :",
                "@batch=m18 :alice!alice@chat.local PRIVMSG #lobby :" + "b" * 470,
                "@batch=m18;draft/multiline-concat :alice!alice@chat.local PRIVMSG #lobby :" + "b" * 10,
                ":chat.local BATCH -m18",
            ],
        ),
    ],
)
def test_message_has_the_form_of_its_variant(flags: str, message: Any, lines: list[str]) -> None:
    encoded = Irc().encoder(f"irc/{flags}")([message])
    assert encoded.decode().split("\r\n")[:-1] == lines


anything = st.text(st.sampled_from("a \r\n\0\x01\u20ac\U0001f600/me"), max_size=40) | st.text(max_size=1_200)


@given(
    texts=st.lists(anything.filter(bool), min_size=1, max_size=4),
    flags=st.sampled_from(["", "abgt", "g", "t"]),
    name=st.sampled_from(["a", "a" * 32]),
)
def test_no_text_of_another_protocol_becomes_a_line_of_its_own(texts: list[str], flags: str, name: str) -> None:
    """Promise: a message is lines of its sender, each within the limit; and a batch is its messages."""
    irc = Irc()
    encode = irc.encoder(f"irc/{flags}")
    batch = PublicBatch(7, NOON, name, texts, "dev")
    encoded = encode([batch])
    assert encoded == b"".join(encode([message]) for message in batch)
    for line in encoded.decode().split("\r\n")[:-1]:
        assert not re.search("[\r\n\0]", line)
        rest = re.sub(r"^@\S+ ", "", line)
        assert rest.startswith((f":{name}!{name}@chat.local ", ":chat.local BATCH -"))
        assert len(rest.encode()) <= IRC_LINE_MAX_BYTES - 2


def test_several_lines_are_one_message() -> None:
    dialogue = logged_in()
    assert (
        dialogue.send(
            "@label=x BATCH +1 draft/multiline #dev",
            "@batch=1 PRIVMSG #dev :one",
            "@batch=1 PRIVMSG #dev :",
            "@batch=1 PRIVMSG #dev :two ",
            "@batch=1;draft/multiline-concat PRIVMSG #dev :three",
            "BATCH -1",
        )
        == []
    )
    assert dialogue.last() == Say("one\n\ntwo three", None, "dev")
    assert dialogue.tell(Sent(9, SentStatus.SENT), PublicMessage(9, NOON, "bob", "one", "dev"))[0].startswith(
        "@label=x;"
    )


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (["@batch=1 PRIVMSG #other :x"], "MULTILINE_INVALID_TARGET #dev #other"),
        (["@batch=1 PRIVMSG #dev :" + "x" * 400] * 21, "MULTILINE_MAX_BYTES 8192"),
        (["@batch=1 PRIVMSG #dev :x"] * 101, "MULTILINE_MAX_LINES 100"),
        (["@batch=1 PRIVMSG #dev :", "BATCH -1"], "MULTILINE_INVALID"),
        (["BATCH -2"], "MULTILINE_INVALID"),
    ],
)
def test_invalid_lines_are_refused_once(lines: list[str], code: str) -> None:
    dialogue = logged_in()
    (said,) = dialogue.send("@label=x BATCH +1 draft/multiline #dev", *lines)
    assert f" FAIL BATCH {code} " in said
    assert isinstance(dialogue.last(), Enter)


# --- the connection ---


def test_quit_has_its_reason() -> None:
    dialogue = logged_in()
    assert dialogue.send("QUIT :good night") == ["ERROR :Closing Link: bob (Quit: good night)"]
    assert dialogue.last() == Quit("good night")


def test_line_that_cannot_be_read_has_its_own_error() -> None:
    dialogue = logged_in()
    assert dialogue.send_bytes(b"PRIVMSG #dev :\xff\r\n")[0].startswith(":chat.local FAIL PRIVMSG INVALID_UTF8 :")
    assert dialogue.send_bytes(b"x" * 513 + b"\n") == [":chat.local 417 bob :Input line was too long"]
    assert dialogue.send_bytes(b"x" * 100_000) == [":chat.local 417 bob :Input line was too long"]
    assert dialogue.send_bytes(b"x\nPING a\n") == [":chat.local PONG chat.local a"]
    assert list(dialogue.server.receive(b"\r\n\n")) == []
    assert list(dialogue.server.receive(b" \r\n\0\n:x \n")) == [Handled()] * 3  # they count for the rate
    for long in (b"PING a\0" + b"x" * 100_000, b"PING a\r" + b"x" * 100_000):  # whatever it has before the limit
        assert dialogue.send_bytes(long + b"\n") == [":chat.local 417 bob :Input line was too long"]


def test_label_of_a_line_that_cannot_be_read_is_answered() -> None:
    """labeled-response: an error has the label, too."""
    dialogue = logged_in()
    for text, code in ((b"\xff", "FAIL PRIVMSG INVALID_UTF8"), (b"x" * 512, "417")):
        (said,) = dialogue.send_bytes(b"@label=7 PRIVMSG #dev :" + text + b"\n")
        assert said.startswith(f"@label=7 :chat.local {code} ")
        assert dialogue.send("PING a") == [":chat.local PONG chat.local a"]


words = st.sampled_from(
    [b"PRIVMSG #dev :x", b"CAP REQ :batch", b"@label=x ", b"BATCH +1 draft/multiline a", b"AUTHENTICATE PLAIN", b"\r\n"]
) | st.sampled_from(
    [b"NICK a", b"USER a b c d", b"\0", b"\r", b"\n", b" :", b"\xff", b"@batch=1 PRIVMSG a :", b"CAP END", b","]
)


@given(st.lists(words | st.binary(max_size=30), max_size=30).map(b"".join), st.booleans())
def test_no_input_raises_or_breaks_a_line(data: bytes, begins_logged_in: bool) -> None:
    dialogue = logged_in() if begins_logged_in else Dialogue()
    for line in dialogue.send_bytes(data + b"\r\n"):
        assert not re.search("[\r\n\0]", line)
        assert len(re.sub(r"^@\S+ ", "", line).encode()) <= IRC_LINE_MAX_BYTES - 2


@given(
    st.lists(words | st.sampled_from([b"x" * 600, b"@a=" + b"x" * 4_090, b"@a=" + b"x" * 9_000]), max_size=12),
    st.integers(1, 6_000),
)
def test_pieces_change_no_answer(parts: list[bytes], size: int) -> None:
    """Also at the limits: a line that is too long is refused once, whatever it has before the limit."""
    data = b"".join(parts) + b"\r\n"
    whole, cut = logged_in(), logged_in()
    whole.send_bytes(data)
    for piece in pieces(data, size):
        cut.send_bytes(piece)
    assert (cut.said, cut.asked) == (whole.said, whole.asked)


def singly(requests: list[Any]) -> list[Any]:
    """The requests, with single messages in place of several; the texts of several are valid."""
    found: list[Any] = []
    for request in requests:
        if isinstance(request, SayBatch):
            for text in request.texts:
                check_text(text)
            found += request
        else:
            found.append(request)
    return found


def in_lobby() -> Dialogue:
    dialogue = logged_in()
    dialogue.tell(events.Entered(room="lobby", username="bob", last_id=0, members=()))
    return dialogue


TO_LOBBY = b"PRIVMSG #lobby :"


@pytest.mark.parametrize(
    "line",
    [
        *(
            TO_LOBBY + text
            for text in (b"hi", b"/me waves", "Grüße".encode(), b" : ", b"x\0y", b"x\ry", b"\xff", b"x\ty")
        ),
        *(TO_LOBBY + text for text in (b"", b" ", b"\x02b\x02", b"\x01ACTION waves\x01")),
        *(TO_LOBBY + b"x" * size for size in (474, 475, 495)),
        *(
            b"PRIVMSG #dev :hi",
            b"PRIVMSG #lobby,bob :hi",
            b"NOTICE #lobby :hi",
            b"@label=x " + TO_LOBBY + b"hi",
            b"PING x",
        ),
    ],
)
def test_lines_of_one_read_mean_what_each_means_alone(line: bytes) -> None:
    lines = [TO_LOBBY + b"first", line, TO_LOBBY + b"last"]
    for begin in (in_lobby, logged_in):
        together, alone = begin(), begin()
        together.send_bytes(b"".join(each + b"\r\n" for each in lines))
        for each in lines:
            alone.handle(alone.server.receive_line(each))
        assert singly(together.asked) == singly(alone.asked)
        assert together.said == alone.said


def test_many_messages_in_one_read_are_one_request() -> None:
    """Line by line they would take 25 times as long."""
    dialogue = in_lobby()
    dialogue.send_bytes((TO_LOBBY + "Grüße\r\n".encode()) * 1_000)
    assert dialogue.last() == SayBatch(["Grüße"] * 1_000)
    dialogue.send("@label=x PRIVMSG #dev :hi")
    assert dialogue.tell(SentBatch(9, [None] * 1_000)) == []
    assert dialogue.tell(Sent(1_009, SentStatus.SENT)) == ["@label=x :chat.local ACK"]


TYPING = events.Relayed("bob", "dev", None, "TAGMSG", "+typing=active", "")
PROBE = events.Relayed("bob", None, "alice", "PRIVMSG", "+typing=done", "\x01PING 1\x01", NOON, bot=True)


@pytest.mark.parametrize(
    ("event", "letters", "expected"),
    [
        (TYPING, "g", "@+typing=active {} TAGMSG #dev"),
        (TYPING, "", ""),
        (PROBE, "", "{} PRIVMSG alice :\x01PING 1\x01"),
        (PROBE, "at", "@time=2026-01-31T12:00:00.123Z;account=bob {} PRIVMSG alice :\x01PING 1\x01"),
        (PROBE, "ag", "@account=bob;bot;+typing=done {} PRIVMSG alice :\x01PING 1\x01"),
        (structs.replace(TYPING, guest=True), "ag", "@+typing=active {} TAGMSG #dev"),
    ],
)
def test_what_programs_pass_on_reaches_those_who_know_it(event: events.Event, letters: str, expected: str) -> None:
    """IRCv3, message-tags: nobody without the capability gets a TAGMSG or a tag. CTCP is for all."""
    encoded = Irc().encoder(f"irc/{letters}")([event]).decode()
    assert encoded == (f"{expected.format(':bob!bob@chat.local')}\r\n" if expected else "")
