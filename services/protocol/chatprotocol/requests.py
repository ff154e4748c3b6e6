"""Requests of a client. A wire protocol decodes them from bytes, and the server's session answers them.

The structs with a tag are the wire format json (docs/wire/json.md): the tag is the member ``command``, and the fields
are the other members, in this order.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Annotated, Final, TypeAlias

from msgspec import Meta, Struct, field
from msgspec.structs import force_setattr

from chatprotocol.errors import ErrorCode
from chatprotocol.limits import (
    HISTORY_DEFAULT_MESSAGES,
    HISTORY_MAX_MESSAGES,
    ID_MAX,
    MEMBERS_MAX,
    SANCTION_MAX_SECONDS,
    SINCE_MAX_NAMES,
)
from chatprotocol.rules import name_key

_Id: TypeAlias = Annotated[int, Meta(ge=0, le=ID_MAX)]
_Limit: TypeAlias = Annotated[int, Meta(ge=1, le=HISTORY_MAX_MESSAGES)]
_Seconds: TypeAlias = Annotated[int, Meta(ge=1, le=SANCTION_MAX_SECONDS)]
_SinceEach: TypeAlias = Annotated[dict[str, _Id], Meta(max_length=SINCE_MAX_NAMES)]


class _Absent(str):
    """An empty text that is told from an empty text of the client by its identity."""

    __slots__ = ()


_ABSENT: Final = _Absent()


class _Tagged(Struct, frozen=True, gc=False, omit_defaults=True, repr_omit_defaults=True, tag_field="command", tag=""):
    """A request of json."""


class Login(_Tagged, frozen=True, tag="login"):
    """Log in as ``username``; an unknown name is registered. Without a password the server prompts for one.

    ``since`` is the id of the last message that the client saw; the server sends the later ones. It may be one id for
    each room, with the keys "lobby" and "direct" beside the names of rooms. ``history_id`` identifies the history of
    these ids. ``rooms`` is True if the client knows rooms; a ``since`` with an id for each room means the same.
    ``moderation`` is True if the client knows the events of moderation. ``invitation`` is the code with which a new
    name may register. ``new_password`` replaces the password at this login.

    ``remember`` is the label of a session token, which the answer then has. ``token`` is such a token, in place of a
    password; it needs no name.
    """

    username: str = _ABSENT
    password: str | None = None
    since: _Id | _SinceEach | None = None
    history_id: str | None = None
    rooms: bool = False
    moderation: bool = False
    invitation: str | None = None
    new_password: str | None = None
    remember: str | None = None
    token: str | None = None

    def __post_init__(self) -> None:
        """Raise ValueError if there is neither a name nor a token, or if a token comes with what needs a password."""
        if self.token is None:
            if self.username is _ABSENT:
                raise ValueError("`username` or `token` is needed")
        elif any(each is not None for each in (self.password, self.new_password, self.invitation, self.remember)):
            raise ValueError("`token` excludes `password`, `new_password`, `invitation` and `remember`")


class Password(_Tagged, frozen=True, tag="password"):
    """The answer to a :class:`~chatprotocol.events.PasswordPrompt`."""

    password: str


class Say(_Tagged, frozen=True, tag="PM"):
    """A public message. A repeated ``nonce`` of the same sender makes no second message."""

    text: str = field(name="message")
    nonce: str | None = None
    # None means the lobby, in all requests.
    room: str | None = None
    # True for a message that no program may answer by itself.
    notice: bool = False


class SayBatch(Struct, frozen=True, gc=False):
    """Several public messages without nonces, equivalent to several Say; all texts are valid (rules.check_text).

    Server only: the wire has single messages.
    """

    texts: Sequence[str]

    def __iter__(self) -> Iterator[Say]:
        return map(Say, self.texts)


class Whisper(_Tagged, frozen=True, tag="DM"):
    """A direct message to the user ``to``."""

    to: str
    text: str = field(name="message")
    nonce: str | None = None
    # Other names of the member ``to``. They are checked and then forgotten.
    recipient: str | None = None
    target: str | None = None
    notice: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError if the other names of ``to`` differ from it."""
        if self.recipient is None and self.target is None:
            return
        if len({name_key(name) for name in (self.to, self.recipient, self.target) if name is not None}) > 1:
            raise ValueError("`to` and its other names, `recipient` and `target`, differ")
        force_setattr(self, "recipient", None)
        force_setattr(self, "target", None)


class AskUsers(_Tagged, frozen=True, tag="users"):
    """Request the list of online users, or members of a room."""

    room: str | None = None


class AskUser(_Tagged, frozen=True, tag="user"):
    """Request the status of one user, online or not."""

    username: str


class AskHistory(_Tagged, frozen=True, tag="CH"):
    """Request the last ``limit`` messages that the user sees, with ids below ``before``, or the first after ``after``.

    Without a room: those of the lobby and the user's direct messages. ``with_user``: only the direct messages that this
    user and the other one sent each other.
    """

    limit: _Limit = HISTORY_DEFAULT_MESSAGES
    before: _Id | None = None
    room: str | None = None
    after: _Id | None = None
    with_user: str | None = field(default=None, name="with")

    def __post_init__(self) -> None:
        """Raise ValueError if members exclude each other."""
        if self.before is not None and self.after is not None:
            raise ValueError("only one of `before` and `after` is possible")
        _check_place(self)


class Search(_Tagged, frozen=True, tag="search"):
    """Request the last ``limit`` messages that contain all words and that the user may see, with ids below ``before``.

    ``word*`` matches a prefix. ``with_user`` as for AskHistory.
    """

    words: str
    limit: _Limit = HISTORY_DEFAULT_MESSAGES
    before: _Id | None = None
    room: str | None = None
    with_user: str | None = field(default=None, name="with")

    def __post_init__(self) -> None:
        """Raise ValueError if members exclude each other."""
        _check_place(self)


class AskConversations(_Tagged, frozen=True, tag="conversations"):
    """Request the list of the users with whom this one has direct messages."""


def _check_place(request: AskHistory | Search) -> None:
    """Raise ValueError if both a room and a user are given."""
    if request.room is not None and request.with_user is not None:
        raise ValueError("only one of `room` and `with` is possible")


class ChangePassword(_Tagged, frozen=True, tag="change_password"):
    """Replace the password of the logged-in account. ``old`` is its current password."""

    old: str
    new: str


class AskTokens(_Tagged, frozen=True, tag="tokens"):
    """Request the list of the user's session tokens."""


class Revoke(_Tagged, frozen=True, tag="revoke"):
    """Revoke the session token of this id, or ("all") all but that of the connection."""

    id: str


class AskRooms(_Tagged, frozen=True, tag="rooms"):
    """Request the list of rooms: the public ones, and those that the user is in or invited to."""


class Join(_Tagged, frozen=True, tag="join"):
    """Become a member of a room. A new name makes a room; ``private`` has a meaning only then.

    ``key`` is the word that a room with a key demands.
    """

    room: str
    private: bool = False
    key: str | None = None


class Part(_Tagged, frozen=True, tag="part"):
    """Leave a room. The other members are told the reason, if their protocol has a form of it."""

    room: str
    reason: str = ""


class SetTopic(_Tagged, frozen=True, tag="topic"):
    """Replace the topic of a room."""

    room: str
    topic: str


class _AboutUser(_Tagged, frozen=True, tag=""):
    """A request about a user in a room."""

    room: str
    username: str


class Invite(_AboutUser, frozen=True, tag="invite"):
    """Let a user join a room."""


class MakeOperator(_AboutUser, frozen=True, tag="op"):
    """Make a member an operator of a room."""


class MakeMember(_AboutUser, frozen=True, tag="deop"):
    """Take the role of an operator from a member of a room."""


class GiveVoice(_AboutUser, frozen=True, tag="voice"):
    """Let a member write in a moderated room."""


class TakeVoice(_AboutUser, frozen=True, tag="devoice"):
    """Take this right from a member."""


class SetModes(_Tagged, frozen=True, kw_only=True, tag="modes"):
    """Change the modes of a room; without any, ask for them. The answer is Modes.

    ``private``: only invited users may join, and others don't learn of the room. ``moderated``: only operators and
    members with a voice write. ``open_topic``: all members may change the topic. ``key``: a word that a user must know
    to join; empty for none. ``members_max``: no more users may join; 0 for no limit.
    """

    room: str
    private: bool | None = None
    moderated: bool | None = None
    open_topic: bool | None = None
    key: str | None = None
    members_max: Annotated[int, Meta(ge=0, le=MEMBERS_MAX)] | None = None


class _Moderating(_Tagged, frozen=True, kw_only=True, tag=""):
    """A request of an operator. Without a room it is about the whole server."""

    room: str | None = None


class Kick(_Moderating, frozen=True, kw_only=True, tag="kick"):
    """Remove a member, or an invitation, from a room; or end all connections of a user."""

    username: str
    reason: str = ""


class _Target(_Moderating, frozen=True, kw_only=True, tag=""):
    """An account, or an address or network such as 192.0.2.0/24: exactly one of them."""

    username: str | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        """Raise ValueError if both or none are given."""
        if (self.username is None) == (self.address is None):
            raise ValueError("exactly one of `username` and `address` is needed")


class Ban(_Target, frozen=True, kw_only=True, tag="ban"):
    """Keep a user or a network out, for ``seconds`` or for ever. Addresses can be banned from the server only."""

    seconds: _Seconds | None = None
    reason: str = ""


class Unban(_Target, frozen=True, kw_only=True, tag="unban"):
    """End a ban."""


class Mute(_Moderating, frozen=True, kw_only=True, tag="mute"):
    """Refuse a user's messages, for ``seconds`` or for ever."""

    username: str
    seconds: _Seconds | None = None
    reason: str = ""


class Unmute(_Moderating, frozen=True, kw_only=True, tag="unmute"):
    """End a mute."""

    username: str


class AskBans(_Moderating, frozen=True, kw_only=True, tag="bans"):
    """Request the list of bans and mutes."""


class Delete(_Tagged, frozen=True, tag="delete"):
    """Delete a message. Without a room: of the lobby, or a direct message that the user sent.

    The reason is told with the deletion, and to those who are offline now not at all.
    """

    id: _Id
    room: str | None = None
    reason: str = ""


class Report(_Tagged, frozen=True, kw_only=True, tag="report"):
    """Tell the operators of the server about a message or a user."""

    id: _Id | None = None
    username: str | None = None
    room: str | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        """Raise ValueError if neither a message nor a user is given, or both."""
        if (self.id is None) == (self.username is None):
            raise ValueError("exactly one of `id` and `username` is needed")


class AskAudit(_Tagged, frozen=True, tag="audit"):
    """Request the newest ``limit`` acts of moderation, with numbers below ``before``."""

    limit: _Limit = HISTORY_DEFAULT_MESSAGES
    before: _Id | None = None


class Ignore(_Tagged, frozen=True, tag="ignore"):
    """Ignore the direct messages of a user."""

    username: str


class Unignore(_Tagged, frozen=True, tag="unignore"):
    """Stop ignoring a user."""

    username: str


class AskIgnored(_Tagged, frozen=True, tag="ignored"):
    """Request the list of the users whom this one ignores."""


class Ping(_Tagged, frozen=True, tag="ping"):
    """Keep-alive request; the reply is Pong."""


class Leave(_Tagged, frozen=True, tag="EX"):
    """Log out; the server replies Bye and closes the connection."""


# Requests about one room.
RoomRequest: TypeAlias = Join | Part | SetTopic | Invite | MakeOperator | MakeMember | GiveVoice | TakeVoice | SetModes
# Requests about the user's own session tokens.
TokenRequest: TypeAlias = AskTokens | Revoke
# Requests about the conduct of users.
ModerationRequest: TypeAlias = (
    Kick | Ban | Unban | Mute | Unmute | AskBans | Delete | Report | AskAudit | Ignore | Unignore | AskIgnored
)
TaggedRequest: TypeAlias = (
    Login
    | Password
    | Say
    | Whisper
    | AskUsers
    | AskUser
    | AskHistory
    | Search
    | AskConversations
    | ChangePassword
    | TokenRequest
    | AskRooms
    | RoomRequest
    | ModerationRequest
    | Ping
    | Leave
)


class StepLogin(Login, frozen=True):
    """A Login of a client that would take any error for the reply to its next step.

    The server sends such a client no unsolicited error.
    """


# --- requests of guests, who have two connections ---


class Side(StrEnum):
    """One of a user's two connections, named from the user's side."""

    SENDING = "TOSEND"
    RECEIVING = "TORECV"


class GuestLogin(Struct, frozen=True, gc=False):
    """Register this connection for the guest ``username``. The guest is online after both are registered."""

    side: Side
    username: str


class Acknowledge(Struct, frozen=True, gc=False):
    """Acknowledgement of a message from ``sender``, which some clients leave empty. None: the client could not read it.

    It has no answer.
    """

    sender: str | None


# --- requests of protocols that show the members of rooms, such as irc; json has no form of them ---


class Authenticate(Struct, frozen=True, gc=False, kw_only=True):
    """Prove who the user is, before Enter. The answer is Authenticated.

    ``token`` replaces the password. An unknown name is an error, or with ``registers`` is registered; then a known one
    is an error. A guest with one connection may register its own name; it is offline then, until Enter.
    """

    username: str
    password: str = ""
    token: str | None = None
    registers: bool = False


class Enter(Struct, frozen=True, gc=False, kw_only=True):
    """Log in: as the user of Authenticate, or else as the guest ``username``. The answer is Welcome.

    ``variant`` is the name of the encoding that this connection needs: see WireProtocol.encoder. ``echoes``: the
    connection gets its own messages as well. ``realname`` describes the user to others. ``ident`` is a name that the
    user has elsewhere, of which nothing is known.
    """

    username: str
    variant: str
    realname: str = ""
    ident: str = ""
    is_bot: bool = False
    echoes: bool = False


class ChangeEncoding(Struct, frozen=True, gc=False):
    """Encode further events in another variant: see Enter. It has no answer."""

    variant: str
    echoes: bool


class Rename(Struct, frozen=True, gc=False):
    """A guest takes another name. The answer is Renamed, or Refused with BAD_USERNAME; a muted one: NOT_PERMITTED."""

    username: str


class Quit(Struct, frozen=True, gc=False):
    """Leave with a reason. The answer is Bye."""

    reason: str = ""


class EnterLobby(Struct, frozen=True, gc=False):
    """Get the messages of the lobby from now on, on this connection. The answer is Entered.

    ``replays_after``: before that, the messages with a greater id follow, at most ``REPLAYED_MAX``.
    """

    replays_after: int | None = None


class LeaveLobby(Struct, frozen=True, gc=False):
    """Get no more messages of the lobby on this connection. The answer is Parted with the room LOBBY."""


class AskMembers(Struct, frozen=True, gc=False):
    """Request the members of a room who are online, with what is known of them. The answer is Members."""

    room: str | None = None


class AskTopic(Struct, frozen=True, gc=False):
    """Request the topic of a room that the user may know of. The answer is Topic."""

    room: str


class AskRoomBans(Struct, frozen=True, gc=False):
    """Request the bans in a room that the user is in, without mutes and reasons. The answer is Bans."""

    room: str


class AskInfo(Struct, frozen=True, gc=False):
    """Request what is known of users who are online or have an account. The answer is Infos, in this order.

    Without ``has_rooms`` it lacks their rooms, and takes half the time.
    """

    usernames: tuple[str, ...]
    has_rooms: bool = True


class AskWho(Struct, frozen=True, gc=False):
    """Request the users who are online and whose name or real name matches ``mask`` (with * and ?). Answer: Infos."""

    mask: str


class AskPast(Struct, frozen=True, gc=False):
    """Request the users who had a name and are offline now, the newest first. The answer is Past."""

    username: str
    limit: int


class AskCounts(Struct, frozen=True, gc=False):
    """Request the numbers of users and rooms. The answer is Counts."""


class SetAway(Struct, frozen=True, gc=False):
    """The user is away, or with an empty text is back. The answer is AwayChanged."""

    text: str


class SetRealname(Struct, frozen=True, gc=False):
    """Replace the description of the user. The answer is RealnameChanged."""

    realname: str


class SetBot(Struct, frozen=True, gc=False):
    """Note whether the user is a program. It has no answer."""

    is_bot: bool


class Watch(Struct, frozen=True, gc=False):
    """Get CameOnline and WentOffline for these users, too; if ``clears``, in place of all earlier ones.

    ``removed`` are no longer watched. ``is_extended``: from now on the connection also gets AwayChanged and
    RealnameChanged of all users that it watches. The answer is Watched; above WATCHED_MAX names, Refused with TOO_LONG.
    """

    usernames: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    clears: bool = False
    is_extended: bool = False


class Bound(Struct, frozen=True, gc=False):
    """A point of the history: a message, or a time in milliseconds. Exactly one is set.

    With a ``number``, the event of a room that has this number after the message: see events.RoomEvent.
    """

    id: int | None = None
    time_ms: int | None = None
    number: int = 0


class HistoryOrder(StrEnum):
    """The messages AskChatHistory means: the newest before ``upto``, the oldest after ``after``, or those around it."""

    NEWEST = "newest"
    OLDEST = "oldest"
    AROUND = "around"


class AskChatHistory(Struct, frozen=True, gc=False, kw_only=True):
    """Request messages of a room, or of the direct messages with a user. The answer is ChatHistory.

    ``after`` and ``before`` are exclusive bounds. AROUND has ``after`` alone, and the message itself is included. With
    ``has_events`` the answer has the events of the room among its messages, and ``limit`` is that of both together.
    """

    room: str | None = None
    with_user: str | None = None
    order: HistoryOrder
    after: Bound | None = None
    before: Bound | None = None
    limit: int
    has_events: bool = False


class AskActive(Struct, frozen=True, gc=False):
    """Request the rooms of the user, and the users with direct messages, whose newest message is between two times.

    Both are exclusive. NEWEST: those with the newest messages, if there are more than ``limit``; else the oldest. The
    answer is Active.
    """

    after_ms: int
    before_ms: int
    limit: int
    order: HistoryOrder = HistoryOrder.OLDEST


class MarkRead(Struct, frozen=True, gc=False):
    """Note that the user has read a room, or the direct messages with a user, up to this time; None: ask.

    The answer is ReadMarked. A mark never moves back.
    """

    room: str | None = None
    with_user: str | None = None
    time_ms: int | None = None


class AskMark(MarkRead, frozen=True, gc=False):
    """Ask for the mark of a room that the connection has just entered. It has no rate: the client has not asked."""


class Relay(Struct, frozen=True, gc=False, kw_only=True):
    """Pass ``data`` on to the connections of the protocol irc that are in a room, or those of a user. Not stored.

    The answer is RelayedBack if the connection gets its own messages, and otherwise there is none. An unknown room or
    user is an error.
    """

    room: str | None = None
    to: str | None = None
    kind: str
    tags: str = ""
    text: str = ""


class Barrier(Struct, frozen=True, gc=False):
    """The answer is Pong, after all earlier messages of this connection are stored and published."""


class Handled(Struct, frozen=True, gc=False):
    """The protocol has answered by itself. The request counts for the rate, and has no other effect."""


class Unreadable(Struct, frozen=True, gc=False):
    """Invalid input. The session replies with the error and logs it.

    ``closes`` is True if the decoder can't find the beginning of the next request.
    """

    code: ErrorCode
    reason: str
    nonce: str | None = None
    closes: bool = False


# Requests about the members of rooms, and other users.
DirectoryRequest: TypeAlias = (
    AskMembers
    | AskTopic
    | AskRoomBans
    | AskInfo
    | AskWho
    | AskPast
    | AskCounts
    | SetAway
    | SetRealname
    | SetBot
    | Watch
    | Relay
)
# Requests about stored messages that json has no form of.
HistoryRequest: TypeAlias = AskChatHistory | AskActive | MarkRead | AskMark
Request: TypeAlias = (
    TaggedRequest
    | SayBatch
    | GuestLogin
    | Acknowledge
    | Authenticate
    | Enter
    | ChangeEncoding
    | Rename
    | Quit
    | EnterLobby
    | LeaveLobby
    | DirectoryRequest
    | HistoryRequest
    | Barrier
    | Handled
    | Unreadable
)
