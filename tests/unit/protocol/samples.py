"""Samples of every protocol, one of each kind and shape, and helpers to cut byte streams into pieces."""

import itertools
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from logging import Logger
from typing import NamedTuple, TypeVar

from hypothesis import strategies as st
from msgspec.structs import replace
from raw_steps import Command, CommandBatch, Data, Line, new_server, receive
from toy_protocol import Toy

from chatprotocol import events, requests
from chatprotocol.errors import ErrorCode
from chatprotocol.events import Event, EventBatch
from chatprotocol.limits import BODY_MAX_BYTES
from chatprotocol.requests import Request, Side
from chatprotocol.rules import unknown_user
from chatprotocol.wire import PROTOCOLS, Decoder, Irc, Register, WireProtocol
from chatprotocol.wire.base import ClientEvent, Forwarded
from chatprotocol.wire.irc_lines import remove_formatting

T = TypeVar("T")

NOON_MS = events.TimeMs(1_769_860_800_123)
PUBLIC = events.PublicMessage(18, NOON_MS, "bob", "hello")
PUBLIC_HEADER = events.PublicMessage(18, NOON_MS, "bob", "\n\nFORWARD alice\nContent-length: 1\n\n")
IN_ROOM = events.PublicMessage(20, NOON_MS, "bob", "hello", "dev")
DIRECT = events.DirectMessage(19, NOON_MS, "bob", "alice", 'with "quotes"\n\u20ac\U0001f600')
TOKEN = events.TokenState(id="5f3a90c1", label='"\u20ac"', created=NOON_MS, used=NOON_MS, expires=NOON_MS)
DIRECT_WITHOUT_RECIPIENT = events.DirectMessage(19, NOON_MS, "bob", "", 'with "quotes"\n\u20ac\U0001f600')


class Samples(NamedTuple):
    """Requests and events that one protocol can carry."""

    # The first request of a connection.
    login: Request
    # The steps of one short public message.
    message: tuple[Request, ...]
    # A request just over the size limit, and the limit as the error names it.
    too_long: Request | Line
    limit: str
    requests: tuple[Request, ...]
    # Events that arrive unchanged.
    events: tuple[Event, ...]
    # Other events, each with the events that arrive for it.
    changed: tuple[tuple[Event, tuple[ClientEvent, ...]], ...]
    # Other requests, each with the request that arrives for it.
    becoming: tuple[tuple[Request, Request], ...] = ()
    # A text as it arrives, from a client and from a server; None if it is refused.
    arriving_text: Callable[[str], str | None] = lambda text: text
    shown_text: Callable[[str], str] = lambda text: text

    @property
    def said(self) -> tuple[Event, ...]:
        """All events that a server may encode in this protocol."""
        return (*self.events, *(event for event, _ in self.changed))

    @property
    def arrivals(self) -> tuple[tuple[Event, tuple[ClientEvent, ...]], ...]:
        """All events, each with the events that arrive for it."""
        return (*((event, (event,)) for event in self.events), *self.changed)


JSON = Samples(
    login=requests.Login("alice", "secret"),
    message=(requests.Say("hello"),),
    too_long=requests.Say("h" * 65_536),
    limit="65,536",
    requests=(
        requests.Login("alice"),
        requests.Login("alice", "secret"),
        requests.Login("alice", "secret", 17),
        requests.Password('with "quotes" and \\'),
        requests.Say("hello"),
        requests.Say("line\nfeed, {brace} and \u20ac", "n-1"),
        requests.Say("x" * BODY_MAX_BYTES),
        requests.Whisper("bob", "psst"),
        requests.Whisper("bob", "psst", "n-2"),
        requests.AskUsers(),
        requests.AskUser("bob"),
        requests.AskHistory(),
        requests.AskHistory(500, 17),
        requests.ChangePassword('with "quotes", \\ and \u20ac', "new"),
        requests.Search("plain words"),
        requests.Search('with "quotes", \\ and \u20ac*', 500, 17),
        requests.Login("alice", "secret", {"lobby": 17, "dev": 0, "direct": 15}, "9f86d081884c7d65"),
        requests.Login("alice", "secret", rooms=True),
        requests.Say("hello", "n-1", "dev"),
        requests.AskHistory(500, 17, "dev"),
        requests.Search("words", 500, 17, "dev"),
        requests.AskHistory(after=17),
        requests.AskHistory(500, 17, with_user="bob"),
        requests.Search("words", with_user="bob"),
        requests.AskConversations(),
        requests.AskRooms(),
        requests.Join("dev"),
        requests.Join("plans", private=True),
        requests.Part("dev"),
        requests.SetTopic("dev", 'with "quotes", \\ and \u20ac'),
        requests.Invite("dev", "bob"),
        requests.Kick(room="dev", username="bob"),
        requests.Kick(username="bob", reason="spam"),
        requests.Login("alice", "secret", moderation=True, invitation="abcd-efgh", new_password="secret too"),
        requests.Login("alice", "secret", remember="Firefox on Linux"),
        requests.Login(token="dG9rZW4"),
        requests.Login("alice", since=17, token="dG9rZW4"),
        requests.AskTokens(),
        requests.Revoke("5f3a90c1"),
        requests.Ban(room="dev", username="bob", seconds=3600, reason="spam"),
        requests.Ban(address="192.0.2.0/24"),
        requests.Unban(username="bob"),
        requests.Unban(address="192.0.2.7", room=None),
        requests.Mute(username="bob", seconds=60),
        requests.Unmute(room="dev", username="bob"),
        requests.AskBans(),
        requests.AskBans(room="dev"),
        requests.Delete(17),
        requests.Delete(17, "dev"),
        requests.Delete(17, "dev", "spam"),
        requests.Report(id=17, reason="spam"),
        requests.Report(username="bob", room="dev"),
        requests.AskAudit(),
        requests.AskAudit(500, 17),
        requests.Ignore("bob"),
        requests.Unignore("bob"),
        requests.AskIgnored(),
        requests.MakeOperator("dev", "bob"),
        requests.MakeMember("dev", "bob"),
        requests.Ping(),
        requests.Leave(),
    ),
    events=(
        events.PasswordPrompt(account=events.AccountKind.NEW),
        events.PasswordPrompt(account=events.AccountKind.EXISTING),
        events.Welcome(account=events.AccountKind.NEW, username="alice", users=("alice", "bob"), last_id=17),
        events.Welcome(
            account=events.AccountKind.EXISTING,
            username="alice",
            users=("alice",),
            last_id=17,
            history_id="9f86d081884c7d65",
            since=10,
            seen_id=12,
        ),
        events.Welcome(account=events.AccountKind.EXISTING, username="alice", users=(), last_id=0, token="dG9rZW4"),
        events.Tokens(()),
        events.Tokens((TOKEN, replace(TOKEN, current=True))),
        PUBLIC,
        DIRECT,
        events.Users(None, ("alice", "bob"), ("bob",), ()),
        events.Users(501, None, (), ("bob",)),
        events.Sent(18, events.SentStatus.SENT),
        events.Sent(18, events.SentStatus.STORED, "n-1"),
        events.History(()),
        events.History((PUBLIC, DIRECT)),
        events.PasswordChanged(),
        events.User("Bob", online=False),
        events.Found("nothing", (), 0),
        events.History((DIRECT,), with_user="bob"),
        events.Found("psst", (DIRECT,), 20, with_user="bob"),
        events.Conversations(()),
        events.Conversations((events.Conversation("bob", 19), events.Conversation("eve", 17))),
        events.Found('hello "quotes"', (PUBLIC, DIRECT), 19),
        events.Refused(ErrorCode.TOO_LONG, "Too long."),
        events.Refused(ErrorCode.EMPTY_MESSAGE, "Empty.", "n-1"),
        events.Refused(ErrorCode.UNKNOWN_ROOM, "There is no room.", "n-1", "dev"),
        events.Welcome(
            account=events.AccountKind.NEW,
            username="alice",
            users=(),
            last_id=0,
            rooms=(
                events.RoomState("dev", "tea", 17),
                events.RoomState("plans", "", 0, private=True, role=events.RoomRole.OWNER),
            ),
        ),
        events.Welcome(account=events.AccountKind.NEW, username="alice", users=(), last_id=0, rooms=()),
        IN_ROOM,
        events.Users(None, ("alice", "bob"), ("bob",), (), "dev"),
        events.History((IN_ROOM,), "dev"),
        events.Found("hello", (IN_ROOM,), 20, "dev"),
        events.Rooms(()),
        events.Rooms(
            (
                events.RoomSummary("dev", "tea", 3, joined=True),
                events.RoomSummary("plans", "", 1, joined=False, private=True, invited=True),
                events.RoomSummary("x", "", 1, joined=True, role=events.RoomRole.OPERATOR, has_key=True),
            )
        ),
        events.Joined("dev", "tea", ("alice", "bob"), 17),
        events.Joined("plans", "", ("alice",), 0, private=True, role=events.RoomRole.OWNER),
        events.Parted("dev"),
        events.Parted("dev", "bob"),
        events.TopicChanged("dev", 'with "quotes"', "bob"),
        events.Invited("dev", "bob", "alice"),
        events.Parted("dev", "bob", "spam"),
        events.Kicked(room="dev", username="bob", by="alice", reason="spam"),
        events.Kicked(username="bob", by="alice"),
        events.Banned(room="dev", username="bob", by="alice", until=events.TimeMs(1_769_860_800_123), reason="spam"),
        events.Banned(address="192.0.2.0/24", by="alice"),
        events.Unbanned(address="192.0.2.0/24", by="alice"),
        events.Muted(username="bob", by="alice", until=events.TimeMs(1_769_860_800_123)),
        events.Unmuted(room="dev", username="bob", by="alice"),
        events.Bans(()),
        events.Bans(
            (
                events.SanctionState(
                    kind=events.SanctionKind.MUTE, username="bob", by="alice", time_ms=events.TimeMs(1_769_860_800_123)
                ),
            ),
            "dev",
        ),
        events.Deleted(17, "alice"),
        events.Deleted(17, "alice", "dev"),
        events.Deleted(17, "alice", "dev", "spam"),
        events.Reported(id=17, by="alice", reason="spam"),
        events.Reported(username="bob", room="dev", by="alice"),
        events.Audit((events.AuditRow(number=1, time_ms=events.TimeMs(0), action="ban", by="alice", target="bob"),)),
        events.Ignored(("bob", "carol")),
        events.Refused(ErrorCode.RATE_LIMITED, "Too many.", "n-1", retry_seconds=2.5),
        events.RoleChanged(room="dev", username="bob", role=events.RoomRole.OPERATOR, by="alice"),
        events.RoleChanged(room="dev", username="bob", role=events.RoomRole.OWNER),
        events.RoleChanged(username="bob", role=events.RoomRole.OPERATOR, by="the administrator"),
        events.Pong(),
        events.Bye("you left"),
        events.Bye("alice ended your connections: spam", ErrorCode.KICKED),
    ),
    changed=(
        (
            events.UserUnknown(ErrorCode.UNKNOWN_USER, "There is no bob.", "n-1", about="bob"),
            (events.Refused(ErrorCode.UNKNOWN_USER, "There is no bob.", "n-1"),),
        ),
        (
            events.RoleMoved(
                room="dev",
                username="bob",
                role=events.RoomRole.MEMBER,
                by="alice",
                old_role=events.RoomRole.OPERATOR,
            ),
            (events.RoleChanged(room="dev", username="bob", role=events.RoomRole.MEMBER, by="alice"),),
        ),
        (events.InvitedMember("dev", "bob", "alice"), (events.Invited("dev", "bob", "alice"),)),
        (events.TopicUnchanged("dev", "tea", "alice"), (events.TopicChanged("dev", "tea", "alice"),)),
        (
            events.DirectDeleted(19, "bob", reason="typo", sender="bob", recipient="alice"),
            (events.Deleted(19, "bob", reason="typo"),),
        ),
    ),
)

# As json, but a message over the limit closes the connection.
WEBSOCKET = JSON._replace(too_long=requests.Say("h" * 65_536))

FRAMES = Samples(
    login=Command("alice"),
    message=(Command("PM"), Data("hello")),
    too_long=Data("h" * 65_532),
    limit="65,536",
    requests=(
        Command("alice bm-pm"),
        Command('with "quotes" and \\'),
        Command("PM"),
        Data("hello"),
        Command("DM"),
        Command("bob"),
        Data("line\nfeed, {brace} and \u20ac"),
        Data("the first step of a message is C\0\0\0\2PM"),
        Data("x" * BODY_MAX_BYTES),
        Data("x" * 65_531),
        Data(""),
        Command(""),
        Command("CH 500"),
        Command("EX"),
    ),
    events=(
        events.PasswordPrompt(account=events.AccountKind.NEW),
        events.PasswordPrompt(account=events.AccountKind.EXISTING),
        events.Welcome(account=events.AccountKind.NEW, username="", users=(), last_id=None),
        events.Welcome(
            account=events.AccountKind.NEW, username="", users=(), last_id=None, history_id="9f86d081884c7d65"
        ),
        PUBLIC,
        DIRECT_WITHOUT_RECIPIENT,
        events.Sent(18, events.SentStatus.SENT),
        events.Sent(18, events.SentStatus.STORED),
        events.History(()),
        events.History((PUBLIC, DIRECT_WITHOUT_RECIPIENT)),
        events.Refused(ErrorCode.TOO_LONG, "Too long."),
        events.Refused(ErrorCode.WRONG_PASSWORD, "Try again."),
        events.UserUnknown(ErrorCode.UNKNOWN_USER, unknown_user("bob").reason, about="bob"),
        events.Pong(),
        events.Bye("The server is shutting down."),
        events.Bye("alice ended your connections: spam", ErrorCode.KICKED),
    ),
    changed=(
        (events.Bye("you left"), (events.Bye(""),)),
        (
            events.Welcome(account=events.AccountKind.EXISTING, username="alice", users=("alice", "bob"), last_id=17),
            (events.Welcome(account=events.AccountKind.EXISTING, username="", users=(), last_id=None),),
        ),
        (DIRECT, (DIRECT_WITHOUT_RECIPIENT,)),
        (events.History((DIRECT, PUBLIC)), (events.History((DIRECT_WITHOUT_RECIPIENT, PUBLIC)),)),
        (events.Users(None, ("alice", "bob"), ("bob",), ()), ()),
        (events.Users(None, ("alice", "bob")), ()),
        (events.Users(501, None, (), ("bob",)), ()),
        (events.Sent(18, events.SentStatus.STORED, "n-1"), (events.Sent(18, events.SentStatus.STORED),)),
        (
            events.Refused(ErrorCode.EMPTY_MESSAGE, "Empty.", "n-1"),
            (events.Refused(ErrorCode.EMPTY_MESSAGE, "Empty."),),
        ),
        (events.Refused(ErrorCode.TOO_MANY_ATTEMPTS, "Wait."), (events.Refused(ErrorCode.WRONG_PASSWORD, "Wait."),)),
        (
            events.UserUnknown(ErrorCode.UNKNOWN_USER, "Nobody is called so.", about="bob"),
            (events.UserUnknown(ErrorCode.UNKNOWN_USER, unknown_user("bob").reason, about="bob"),),
        ),
    ),
)

# As frames, with another limit and a ping between peers.
DATAGRAM = FRAMES._replace(
    limit="65,531",
    requests=(
        requests.Ping(),
        *FRAMES.requests,
        Command("x" * 1_200),
        Data("x" * 1_200),
        Data("x" * 1_201),
        Data("\u20ac" * 1_000),
    ),
    events=(*FRAMES.events, events.PublicMessage(18, NOON_MS, "bob", "\U0001f600" * (BODY_MAX_BYTES // 4))),
)

REGISTER = Samples(
    login=requests.GuestLogin(Side.SENDING, "alice"),
    message=(requests.Say("hello"),),
    too_long=requests.Whisper("bob", "h" * 65_537),
    limit="65,536",
    requests=(
        requests.GuestLogin(Side.RECEIVING, "alice"),
        requests.GuestLogin(Side.SENDING, "no name at all"),
        requests.Whisper("bob", "hello"),
        requests.Whisper("bob", "line\nfeed, {brace} and \u20ac \U0001f600"),
        requests.Whisper("bob", "\u0645\u0631\u062d\u0628\u0627"),
        requests.Whisper("bob", "what looks like a header:\n\nSEND bob\nContent-length: 1\n\n"),
        requests.Say(" white space around \n"),
        requests.Whisper("bob", ""),
        requests.Whisper("bob", "x" * BODY_MAX_BYTES),
        requests.Whisper("bob", "x" * 16_384),
        requests.Acknowledge("bob"),
        requests.Acknowledge(""),
        requests.Acknowledge(None),
    ),
    events=(
        events.Refused(ErrorCode.BAD_USERNAME, "Malformed username"),
        events.Refused(ErrorCode.NOT_LOGGED_IN, "No user registered"),
    ),
    changed=(
        (PUBLIC, (Forwarded("bob", "hello"),)),
        (DIRECT, (Forwarded("bob", DIRECT.text),)),
        (PUBLIC_HEADER, (Forwarded("bob", PUBLIC_HEADER.text),)),
        (
            events.UserUnknown(ErrorCode.UNKNOWN_USER, "There is no bob.", about="bob"),
            (events.Refused(ErrorCode.NOT_LOGGED_IN, "No user registered"),),
        ),
        (
            events.Refused(ErrorCode.SERVER_FULL, "Full."),
            (events.Refused(ErrorCode.NOT_LOGGED_IN, "No user registered"),),
        ),
        (events.Users(None, ("alice", "bob"), ("bob",), ()), ()),
        (events.Sent(18, events.SentStatus.SENT), ()),
        (events.Bye("The server is shutting down."), ()),
    ),
)


def text_for_irc(text: str) -> str:
    """No NUL, no byte of CTCP, and one kind of line break."""
    return re.sub("\r\n?", "\n", text.replace("\0", "").replace("\1", ""))


def text_from_irc(text: str) -> str | None:
    """Formatting codes are removed. Refused are blank lines, and what is too long with these codes."""
    sent = text_for_irc(text)
    text = remove_formatting(sent)
    return text if (text.strip() or (text and "\n" not in text)) and len(sent.encode()) <= BODY_MAX_BYTES else None


# Without capabilities. Only messages have a form for all connections that this client shows.
IRC = Samples(
    login=requests.Say("the login is before"),
    message=(requests.Say("hello"),),
    too_long=Line("PRIVMSG #lobby :" + "h" * 600),
    limit="512",
    requests=(
        requests.Say("hello"),
        requests.Say("line\nfeed, {brace} and \u20ac"),
        requests.Say(":) two  blanks "),
        requests.Say("/me waves"),
        requests.Say("x" * BODY_MAX_BYTES),
        requests.Whisper("bob", "what looks like a line:\nQUIT"),
        requests.Whisper("bob", "\u0645\u0631\u062d\u0628\u0627 " * 100),
        requests.Delete(17),
    ),
    events=(),
    changed=(
        (PUBLIC, (Forwarded("bob", "hello"),)),
        (DIRECT, tuple(Forwarded("bob", line) for line in DIRECT.text.split("\n"))),
        (IN_ROOM, (Forwarded("bob", "hello"),)),
        (PUBLIC_HEADER, tuple(Forwarded("bob", line) for line in PUBLIC_HEADER.text.split("\n") if line)),
        (events.TopicChanged("dev", 'with "quotes"', "bob"), ()),
        (events.Kicked(room="dev", username="bob", by="alice", reason="spam"), ()),
        (events.RoleChanged(room="dev", username="bob", role=events.RoomRole.OPERATOR, by="alice"), ()),
        (
            events.RoleMoved(
                room="dev", username="bob", role=events.RoomRole.MEMBER, by="alice", old_role=events.RoomRole.OPERATOR
            ),
            (),
        ),
    ),
    becoming=(
        (requests.AskUsers(), requests.AskMembers(None)),
        (requests.AskHistory(20), requests.AskChatHistory(room="lobby", order=requests.HistoryOrder.NEWEST, limit=20)),
        (
            requests.AskHistory(500, 17, with_user="bob"),
            requests.AskChatHistory(
                with_user="bob", order=requests.HistoryOrder.NEWEST, before=requests.Bound(id=17), limit=500
            ),
        ),
        (requests.Ping(), requests.Barrier()),
        (requests.Leave(), requests.Quit("")),
    ),
    arriving_text=text_from_irc,
    shown_text=lambda text: text_for_irc(text).rstrip("\n") or " ",
)

# With capabilities for times, ids and messages of several lines.
IRCV3 = IRC._replace(
    events=(
        PUBLIC,
        DIRECT,
        events.PublicMessage(18, NOON_MS, "bob", "x" * BODY_MAX_BYTES),
        events.PublicMessage(18, NOON_MS, "bob", "/me waves", notice=True),
        events.DirectMessage(19, NOON_MS, "bob", "alice", "two  blanks " * 90),
    ),
    changed=(
        (IN_ROOM, ()),
        (PUBLIC_HEADER, (replace(PUBLIC_HEADER, text=PUBLIC_HEADER.text.rstrip("\n")),)),
        *IRC.changed[4:],
    ),
)


class Ircv3(Irc):
    """The protocol irc, as the connections of one variant see it."""

    name = "irc with capabilities"

    def encode_all(self, items: Sequence[Event | EventBatch]) -> bytes:
        return self.encoder("irc/abgt")(items)


TOY = Samples(
    login=requests.Login("alice", "secret"),
    message=(requests.Say("hello"),),
    too_long=requests.Say("h" * 65_537),
    limit="65,536",
    requests=(
        requests.Login("alice", 'with "quotes": \u20ac'),
        requests.Say("hello"),
        requests.Say("line\nfeed, {brace} and \u20ac"),
        requests.Say("x" * BODY_MAX_BYTES),
        requests.Leave(),
    ),
    events=(
        events.Welcome(account=events.AccountKind.NEW, username="", users=(), last_id=None),
        PUBLIC,
        events.Sent(18, events.SentStatus.SENT),
        events.Refused(ErrorCode.TOO_LONG, "Too long."),
        events.Bye("you left"),
    ),
    changed=(),
)

# By protocol name. A protocol without samples fails all of its tests.
SAMPLES = {
    "json": JSON,
    "websocket": WEBSOCKET,
    "frames": FRAMES,
    "register": REGISTER,
    "datagram": DATAGRAM,
    "toy": TOY,
    "irc": IRC,
    "irc with capabilities": IRCV3,
}

# The protocols of the server, and one that only the tests have.
ALL_PROTOCOLS: tuple[WireProtocol, ...] = (*PROTOCOLS, Toy())

# Each protocol with default settings, and the one with settings once more.
SETTINGS: dict[str, WireProtocol] = {
    **{protocol.name: protocol for protocol in ALL_PROTOCOLS},
    "register, SENT and characters": Register("SENT", "characters"),
    "irc with capabilities": Ircv3(),
}


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    """The data in pieces of this size."""
    return (data[at : at + size] for at in range(0, len(data), size))


def any_pieces(data: bytes, most: int = 8) -> st.SearchStrategy[list[bytes]]:
    """The data, cut at up to ``most`` places."""
    cuts = st.sets(st.integers(0, len(data)), max_size=most)
    return cuts.map(lambda at: [data[start:end] for start, end in itertools.pairwise([0, *sorted(at), len(data)])])


def decode(decoder: Decoder[T], parts: Iterable[bytes]) -> list[T]:
    """Everything that the decoder returns for the parts."""
    return [found for part in parts for found in decoder.decode(part)]


def read_whole_and_cut(protocol: WireProtocol, data: bytes) -> list[Request]:
    """The requests of one connection that sends the data and ends; they must be the same for every size of pieces."""
    found = []
    for size in (max(1, len(data)), 1, 7, 4096):
        if len(data) / size <= 2_000:
            server = new_server(protocol)
            found.append(unfold([*receive(server, *pieces(data, size)), *server.receive_end()]))
    assert all(each == found[0] for each in found), "the pieces changed the requests"
    return found[0]


def refusal_of(protocol: WireProtocol, data: bytes) -> requests.Unreadable:
    """The one request of this data, which must be unreadable, with a reason of one line."""
    (refused,) = read_whole_and_cut(protocol, data)
    assert isinstance(refused, requests.Unreadable)
    assert "\n" not in refused.reason
    return refused


def unfold(found: Iterable[Request]) -> list[Request]:
    """The same requests, with each batch replaced by its steps: the extent of a batch depends on the pieces."""
    steps: list[Request] = []
    for request in found:
        if isinstance(request, CommandBatch):
            steps += [step for text in request.data for step in (Command(request.text), Data(text))]
        else:
            steps.append(request)
    return steps


def gist(request: Request) -> Request | ErrorCode:
    """The request, or the code of an unreadable one: the reason may name a byte, counted from the last piece."""
    return request.code if isinstance(request, requests.Unreadable) else request


def calls(work: Callable[[], object]) -> int:
    """The number of calls, of Python and C functions, that the work makes: its cost without a clock."""
    count = 0

    def note(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def held_bytes(thing: object) -> int:
    """The bytes and characters that an object and all its parts keep."""
    if isinstance(thing, (Enum, Logger)):
        return 0
    if isinstance(thing, (bytes, bytearray, str)):
        return len(thing)
    if isinstance(thing, (list, tuple, set, frozenset, deque)):
        return sum(map(held_bytes, thing))
    if isinstance(thing, dict):
        return sum(map(held_bytes, (*thing, *thing.values())))
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    members = [*getattr(thing, "__dict__", {}).values(), *(getattr(thing, name, None) for name in slots)]
    return sum(map(held_bytes, members))
