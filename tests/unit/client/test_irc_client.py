"""The client's half of irc, line by line."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from unit.protocol.samples import held_bytes

from chatprotocol import events, requests
from chatprotocol.errors import ErrorCode, ProtocolError
from chatprotocol.events import PublicMessage, Sent, SentStatus
from chatprotocol.requests import Login, Say, Whisper
from chatprotocol.wire.base import ClientEvent, DeliveryUnknown, Effects, Forwarded, Outcome, OwnAnswer, PossibleGap
from chatprotocol.wire.irc_client import EVENT_LINE_MAX_BYTES, IrcClient

ALL = "batch draft/chathistory draft/multiline echo-message labeled-response message-tags sasl server-time"
TIME = "time=2026-01-31T12:00:00.123Z"
NOON_MS = 1_769_860_800_123


class Talk:
    """A client, and what it sends and shows for the lines of a server."""

    def __init__(self, login: Login, *unconfirmed: Say | Whisper) -> None:
        self.client = IrcClient()
        self._decoder = self.client.event_decoder()
        self.shown: list[ClientEvent] = []
        self.sent: list[str] = []
        self.do(self.client.connect(login, unconfirmed))

    def do(self, effects: Effects) -> None:
        self.sent += [line for each in effects.send for line in each.data.decode().splitlines()]
        self.shown += effects.events

    def say(self, message: Say | Whisper) -> None:
        self.do(self.client.request(message))

    def hear(self, *lines: str) -> list[ClientEvent]:
        """What the client shows for these lines."""
        before = len(self.shown)
        for event in self._decoder.decode("".join(f"{line}\r\n" for line in lines).encode()):
            self.do(self.client.handle_event(event))
        return self.shown[before:]


def entered(login: Login, *unconfirmed: Say | Whisper, capabilities: str = ALL) -> Talk:
    """A client up to the names of the lobby."""
    talk = Talk(login, *unconfirmed)
    talk.hear(f":s CAP * LS :{capabilities}", f":s CAP * ACK :{capabilities}", "AUTHENTICATE +", ":s 903 a :ok")
    talk.hear(":s 001 alice :hi", ":s 353 alice = #lobby :alice @bob", ":s 366 alice #lobby :end")
    return talk


def message(number: int, text: str, sender: str = "bob", tags: str = "") -> str:
    return f"@msgid={number};{TIME}{tags} :{sender}!u@h PRIVMSG #lobby :{text}"


def test_login_with_a_password() -> None:
    talk = entered(Login("alice", "secret"))
    assert talk.sent == [
        "CAP LS 302",
        "NICK alice",
        "USER alice 0 * alice",
        f"CAP REQ :{ALL}",
        "AUTHENTICATE PLAIN",
        "AUTHENTICATE AGFsaWNlAHNlY3JldA==",
        "CAP END",
        "JOIN #lobby",
    ]
    assert [type(each) for each in talk.shown] == [events.Welcome]


def test_server_that_has_no_accounts_gets_no_password() -> None:
    """Promise: the password goes to a server only in SASL, or in REGISTER after it."""
    talk = entered(Login("alice", "secret"), capabilities="server-time draft/account-registration")
    assert not any("secret" in line or "AUTH" in line for line in talk.sent)


@pytest.mark.parametrize(
    ("capabilities", "line"),
    [
        (ALL, "@label=c1;msgid=7;" + TIME + " :alice!u@h PRIVMSG #lobby :hello"),
        ("echo-message message-tags server-time", message(7, "hello", "alice")),
    ],
)
def test_echo_confirms_once(capabilities: str, line: str) -> None:
    """Promise: a message is confirmed once, and is not shown as one of another user."""
    talk = entered(Login("alice", "secret"), capabilities=capabilities)
    talk.say(Say("hello", "n1"))
    assert talk.hear(line) == [Sent(7, SentStatus.SENT, "n1")]
    assert talk.hear(message(8, "hello", "alice")) == [
        PublicMessage(8, events.TimeMs(NOON_MS), "alice", "hello")  # from another device
    ]


def test_message_counts_as_sent_without_echoes() -> None:
    talk = entered(Login("alice"), capabilities="")
    said = Say("hello", "n1")
    talk.say(said)
    assert talk.shown[-1] == Outcome(said, has_come=True)
    assert talk.hear(":bob!u@h PRIVMSG #lobby :hi") == [Forwarded("bob", "hi")]


def test_error_has_the_nonce_of_its_message() -> None:
    talk = entered(Login("alice", "secret"))
    talk.say(Whisper("nobody", "psst", "n1"))
    shown = talk.hear("@label=c1 :s 401 alice nobody :No such nick")
    assert shown == [events.Refused(ErrorCode.UNKNOWN_USER, "No such nick", "n1")]


def test_missed_messages_and_unconfirmed_ones_after_a_reconnect() -> None:
    """Promise: each message once. One that the server has is not sent again; a direct message's fate is unknown."""
    stored, lost, direct = Say("stored", "n1"), Say("lost", "n2"), Whisper("bob", "psst", "n3")
    talk = entered(Login("alice", "secret", 5), stored, lost, direct)
    assert talk.sent[-1] == "CHATHISTORY AFTER #lobby msgid=5 500"
    assert talk.hear(message(9, "live")) == []
    page = [message(6, "missed", tags=";batch=h"), message(7, "stored", "alice", ";batch=h")]
    assert talk.hear(":s BATCH +h chathistory #lobby", *page, ":s BATCH -h") == []
    assert talk.sent[-1] == "CHATHISTORY AFTER #lobby msgid=7 500"
    welcome, *shown = talk.hear(":s BATCH +h chathistory #lobby", ":s BATCH -h")
    assert isinstance(welcome, events.Welcome)
    assert [getattr(each, "text", each) for each in shown] == [
        "missed",
        "live",
        Sent(7, SentStatus.SENT, "n1"),
        DeliveryUnknown(direct),
    ]
    assert talk.sent[-1] == "@label=c1 PRIVMSG #lobby lost"


def test_messages_come_once_and_in_order_after_a_reconnect() -> None:
    """Promise: nothing twice. A direct message that waited comes at once, and a new one may be in the history, too."""
    talk = entered(Login("alice", "secret", 5))
    talk.hear(message(6, "waited").replace("#lobby", "alice"), message(8, "live"))
    page = [message(7, "missed", tags=";batch=h"), message(8, "live", tags=";batch=h")]
    talk.hear(":s BATCH +h chathistory #lobby", *page, ":s BATCH -h")
    _, *shown = talk.hear(":s BATCH +h chathistory #lobby", ":s BATCH -h")
    assert [getattr(each, "text", each) for each in shown] == ["waited", "missed", "live"]


def test_gap_is_told_if_the_history_cannot_be_read() -> None:
    unconfirmed = Say("hello", "n1")
    without = entered(Login("alice", "secret", 5), unconfirmed, capabilities="sasl")
    assert without.shown[1:] == [PossibleGap(has_history=False), DeliveryUnknown(unconfirmed)]
    refused = entered(Login("alice", "secret", 5))
    assert PossibleGap() in refused.hear(":s FAIL CHATHISTORY INVALID_PARAMS AFTER :no")


def test_lines_of_a_message_are_put_together() -> None:
    talk = entered(Login("alice", "secret"))
    parts = ["@batch=m :bob!u@h PRIVMSG #lobby :one", "@batch=m :bob!u@h PRIVMSG #lobby :two "]
    parts.append("@batch=m;draft/multiline-concat :bob!u@h PRIVMSG #lobby :words")
    opening = f"@msgid=7;{TIME} :bob!u@h BATCH +m draft/multiline #lobby"
    (shown,) = talk.hear(opening, *parts, ":s BATCH -m")
    assert shown == PublicMessage(7, events.TimeMs(NOON_MS), "bob", "one\ntwo words")


def test_other_rooms_are_refused() -> None:
    talk = entered(Login("alice", "secret"))
    before = len(talk.sent)
    talk.say(Say("hello", "n1", "dev"))
    talk.do(talk.client.request(requests.AskRooms()))
    assert [type(each) for each in talk.shown[1:]] == [events.Refused, events.Refused]
    assert len(talk.sent) == before


def test_ping_is_answered_and_the_goodbye_is_shown() -> None:
    talk = entered(Login("alice", "secret"))
    assert talk.hear("PING :a b") == [OwnAnswer(b"PONG :a b\r\n")]
    talk.do(talk.client.request(requests.Leave()))
    assert talk.sent[-1] == "QUIT"
    assert talk.hear("ERROR :Closing Link: alice (Client Quit)") == [events.Bye("you left")]


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=80),
            st.lists(
                st.sampled_from(
                    (
                        b"@label=c1; @batch=b; :a!b@c :s BATCH +b -b draft/multiline chathistory PRIVMSG #lobby 353 "
                        b"366 001 433 904 CAP LS ACK FAIL REGISTER CHATHISTORY ERROR QUIT KICK NICK JOIN : :\x01ACTION"
                    ).split()
                ),
                max_size=8,
            ).map(b" ".join),
        ),
        max_size=12,
    )
)
@example([b":a!b@c PRIVMSG #lobby", b":a!b@c NOTICE", b":s BATCH", b":s BATCH +", b":s 353 a = #lobby", b":s FAIL"])
def test_any_lines_are_read_or_skipped(lines: list[bytes]) -> None:
    """Promise: no line of a server ends the client with an error of the program."""
    for talk in (Talk(Login("alice", "secret")), entered(Login("alice", "secret", 5), Say("hello", "n1"))):
        for line in lines:
            for event in talk.client.event_decoder().decode(line + b"\n"):
                talk.do(talk.client.handle_event(event))


LONG = "x" * 15_000


@pytest.mark.parametrize("state", ["registering", "resuming", "logged in"])
@pytest.mark.parametrize(
    "line",
    [
        f":s CAP * LS * :%d{LONG}",
        f":s CAP * ACK :%d{LONG}",
        f":s 353 alice = #lobby :%d{LONG}",
        f":s 353 alice = #lobby :{' '.join('n' * 60 + '%d' for _ in range(200))}",
        f":%d{LONG}!u@h JOIN #lobby",
        f"@batch=b :bob!u@h PRIVMSG #lobby :%d{LONG}",
        f"@batch=h;msgid=%d;{TIME} :bob!u@h PRIVMSG #lobby :{LONG}",
        f"@msgid=%d;{TIME} :bob!u@h PRIVMSG #lobby :{LONG}",
        f":s BATCH +%d{LONG} chathistory #lobby",
        f"@batch=h :s BATCH +c%d draft/multiline #lobby\n@batch=c%d :bob!u@h PRIVMSG #lobby :{LONG}\n:s BATCH -c%d",
        f"@label=%d :s 401 alice x :{LONG}",
        f"@batch=h;msgid=%d;{TIME} :%d{LONG}!u@h PRIVMSG #lobby :",
        f":%d{LONG}!u@h PRIVMSG #lobby :",
        f"@msgid=%d;{TIME} :bob!u@h PRIVMSG %d{LONG} :",
        f":s FAIL COMMAND CODE :%d{LONG}",
    ],
)
def test_endless_lines_are_kept_up_to_a_limit(line: str, state: str) -> None:
    """Promise: memory stays bounded, whatever a server sends."""
    talk = Talk(Login("alice", "secret", 5)) if state == "registering" else entered(Login("alice", "secret", 5))
    if state == "logged in":
        talk.hear(":s BATCH +e chathistory #lobby", ":s BATCH -e")
    talk.hear(":s BATCH +h chathistory #lobby", ":s BATCH +b draft/multiline #lobby")
    for number in range(2_000):
        talk.hear(line.replace("%d", str(number)))
        talk.shown.clear()
    assert held_bytes(talk.client) < 20 * 1024 * 1024


def test_long_names_are_cut() -> None:
    """A terminal would be busy with them."""
    talk = Talk(Login("alice", "secret"))
    talk.hear(f":s 001 {LONG} :hi", f":s 366 {LONG} #lobby :end", message(7, "hello", sender=LONG))
    welcome, said = talk.shown
    assert isinstance(welcome, events.Welcome)
    assert isinstance(said, PublicMessage)
    assert (len(welcome.username), len(said.sender)) == (64, 64)


def test_client_reads_what_a_server_writes() -> None:
    """Only a space ends a word: another server need not write a colon before a text of one word."""
    (shown,) = entered(Login("alice", "secret")).hear(message(7, "one\u00a0word\u2028\x1f").replace(" :one", " one"))
    assert isinstance(shown, PublicMessage)
    assert shown.text == "one\u00a0word\u2028\x1f"


@pytest.mark.parametrize("text", ["\1VERSION\1", "/me \1waves", "\1one\ntwo"])
def test_text_of_a_user_is_no_request_to_programs(text: str) -> None:
    """It would get no confirmation: CTCP is not stored."""
    talk = entered(Login("alice", "secret"))
    talk.say(Say(text, "n1"))
    assert not any(":\1V" in line or " \1V" in line or "\1w" in line or "\1o" in line for line in talk.sent)


def test_wrong_password_of_a_name_that_is_taken_is_told() -> None:
    talk = Talk(Login("alice", "wrong"))
    capabilities = f"{ALL} draft/account-registration"
    talk.hear(f":s CAP * LS :{capabilities}", f":s CAP * ACK :{ALL}", "AUTHENTICATE +", ":s 904 a :Wrong password")
    assert talk.sent[-1] == "REGISTER * * wrong"
    refused = talk.hear(":s FAIL REGISTER ACCOUNT_EXISTS alice :The name belongs to an account")
    assert refused == [events.Refused(ErrorCode.WRONG_PASSWORD, "Wrong password")]


def test_line_over_the_limit_is_an_error() -> None:
    with pytest.raises(ProtocolError):
        IrcClient().event_decoder().decode(b"x" * (EVENT_LINE_MAX_BYTES + 1))
