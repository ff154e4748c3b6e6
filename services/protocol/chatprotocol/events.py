"""Events of a server. The server encodes them in the wire protocol of each connection, and the client decodes them.

The structs with a tag are the wire format json (docs/wire/json.md): the tag is the member ``type``, and the fields are
the other members, in this order. The other protocols translate to and from them.
"""

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from itertools import count, repeat
from typing import Annotated, Final, TypeAlias, TypeVar

from msgspec import Meta, Struct, field

from chatprotocol.errors import ErrorCode
from chatprotocol.limits import SERVER_MESSAGES_MAX, SERVER_NAME_MAX_CHARACTERS

Value = TypeVar("Value")
# Limits of what a client decodes: a server may send names and lists of any length.
Short: TypeAlias = Annotated[str, Meta(max_length=SERVER_NAME_MAX_CHARACTERS)]
_Long = Meta(max_length=SERVER_MESSAGES_MAX)

# Reason of a Bye that replies to Leave.
YOU_LEFT: Final = "you left"
# Reason of a Bye at the end of the server.
SHUTTING_DOWN: Final = "the server is shutting down"


class AccountKind(StrEnum):
    """Kind of a name: registered by this login, registered before, or not registered."""

    NEW = "new"
    EXISTING = "existing"
    GUEST = "guest"


class SentStatus(StrEnum):
    """``stored``: the recipient is offline and gets the message at the next login."""

    SENT = "sent"
    STORED = "stored"


class RoomRole(StrEnum):
    """The role of a member in a room."""

    OWNER = "owner"
    OPERATOR = "operator"
    # A member who may write in a moderated room.
    VOICE = "voice"
    MEMBER = "member"

    @classmethod
    def _missing_(cls, _: object) -> "RoomRole":
        """Read the roles of later servers as MEMBER."""
        return cls.MEMBER


class TimeMs(int):
    """Milliseconds since 1970-01-01 UTC. The wire format json has a text of RFC 3339 in its place."""

    __slots__ = ()


def _always(value: Value) -> Value:
    """Return a default that is sent, too; ``omit_defaults`` leaves out all others."""
    default: Value = field(default_factory=lambda: value)
    return default


class _Tagged(Struct, frozen=True, omit_defaults=True, tag_field="type", tag=""):
    """An event of json."""


class PasswordPrompt(_Tagged, frozen=True, kw_only=True, gc=False, tag="prompt"):
    """The server asks for the password of the account that the login named."""

    field: str = _always("password")
    account: AccountKind


class RoomState(Struct, frozen=True, omit_defaults=True):
    """A room that the user is in, at the login. ``last_id`` is its newest message (0 if none)."""

    room: Short
    topic: str
    last_id: int
    private: bool = False
    role: RoomRole = RoomRole.MEMBER


class RoomSummary(Struct, frozen=True, omit_defaults=True):
    """A room in the list of rooms. ``members`` is their number, online or not. ``has_key``: one needs a key to join."""

    room: Short
    topic: str
    members: int
    joined: bool
    private: bool = False
    role: RoomRole = RoomRole.MEMBER
    invited: bool = False
    has_key: bool = False


class Welcome(_Tagged, frozen=True, kw_only=True, tag="login"):
    """The login succeeded. ``username`` has the registered spelling; ``last_id`` is the newest message (0 if none).

    Protocols that do not send these fields leave ``username`` and ``users`` empty and ``last_id`` None.

    ``operator`` is True for an operator of the server. ``history_id`` identifies the history that all ids belong to.
    ``since`` is set only if the login's ``since`` could not be used: the messages after this id follow, and earlier
    ones may be missing. ``seen_id`` is the newest message at the time when the user was last online; None if unknown.
    ``rooms`` has the rooms that the user is in; None for a client that does not know rooms. ``token`` is the session
    token that the login asked for.
    """

    status: str = _always("ok")
    account: AccountKind
    username: Short
    users: tuple[Short, ...]
    last_id: int | None
    history_id: str | None = None
    since: int | None = None
    seen_id: int | None = None
    rooms: tuple[RoomState, ...] | None = None
    operator: bool = False
    token: str | None = None


class PublicMessage(_Tagged, frozen=True, gc=False, tag="broadcast"):
    """A message to all members of a room. ``room`` is None for the lobby, in all events."""

    id: int
    time_ms: TimeMs = field(name="time")
    sender: Short = field(name="from")
    text: str = field(name="message")
    room: Short | None = None
    # True if the sender has no account, and if no program may answer the message by itself.
    guest: bool = False
    notice: bool = False
    # True if the sender has said that it is a program: not in a history, nor from another server.
    bot: bool = False


class DirectMessage(_Tagged, frozen=True, gc=False, tag="direct"):
    """A message to one user. ``recipient`` is empty in protocols that don't send it."""

    id: int
    time_ms: TimeMs = field(name="time")
    sender: Short = field(name="from")
    recipient: Short = field(name="to")
    text: str = field(name="message")
    guest: bool = False
    notice: bool = False
    bot: bool = False


Message: TypeAlias = PublicMessage | DirectMessage


class PublicBatch(Struct, frozen=True, gc=False):
    """Consecutive public messages of one user in one room, with consecutive ids from ``id``.

    Server only: the wire has single messages.
    """

    id: int
    time_ms: int
    sender: str
    texts: Sequence[str]
    room: str | None = None
    guest: bool = False
    notice: bool = False
    bot: bool = False

    def __iter__(self) -> Iterator[PublicMessage]:
        members = (repeat(self.room), repeat(self.guest), repeat(self.notice), repeat(self.bot))
        return map(
            PublicMessage, count(self.id), repeat(TimeMs(self.time_ms)), repeat(self.sender), self.texts, *members
        )


class Users(_Tagged, frozen=True, tag="users"):
    """The online users, and the changes since the last update. In updates of a large room ``users`` is None.

    It is also the answer to AskUsers, with all users and no changes.

    ``unlisted_count`` is their number if they are not listed.
    """

    unlisted_count: int | None = field(default=None, name="count")
    users: tuple[Short, ...] | None = None
    joined: tuple[Short, ...] = _always(())
    left: tuple[Short, ...] = _always(())
    room: Short | None = None

    @property
    def count(self) -> int:
        """The number of online users."""
        return len(self.users or ()) if self.unlisted_count is None else self.unlisted_count


class User(_Tagged, frozen=True, gc=False, tag="user"):
    """The answer to AskUser. ``username`` has the registered spelling."""

    username: Short
    online: bool


class Sent(_Tagged, frozen=True, gc=False, tag="sent"):
    """The answer to Say and Whisper: the message has its id and is on the disk."""

    id: int
    status: SentStatus
    nonce: str | None = None
    # True for a direct message if the recipient's protocol does not mark direct messages.
    looks_public: bool = False


class SentBatch(Struct, frozen=True, gc=False):
    """The confirmations of a batch: one for each nonce (or None), with consecutive ids from ``id``."""

    id: int
    nonces: Sequence[str | None]

    def __iter__(self) -> Iterator[Sent]:
        return map(Sent, count(self.id), repeat(SentStatus.SENT), self.nonces)


class History(_Tagged, frozen=True, tag="history"):
    """The answer to AskHistory, oldest first."""

    messages: Annotated[tuple[Message, ...], _Long]
    room: Short | None = None
    with_user: Short | None = field(default=None, name="with")


class Found(_Tagged, frozen=True, tag="found"):
    """The answer to Search, oldest first. ``words`` repeats the request; ids up to ``upto`` were searched."""

    words: Short
    messages: Annotated[tuple[Message, ...], _Long]
    upto: int
    room: Short | None = None
    with_user: Short | None = field(default=None, name="with")


class Conversation(Struct, frozen=True, gc=False):
    """A user in the list of conversations, and the newest direct message between the two."""

    username: Short
    last_id: int


class Conversations(_Tagged, frozen=True, tag="conversations"):
    """The answer to AskConversations, the newest first."""

    conversations: tuple[Conversation, ...]


class PasswordChanged(_Tagged, frozen=True, gc=False, tag="password_changed"):
    """The answer to ChangePassword: the new password is on the disk, and the next login needs it."""


class TokenState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A session token in the list. ``used`` is its last use, at most a day too early."""

    id: Short
    label: Short
    created: TimeMs
    used: TimeMs
    expires: TimeMs
    # True for the token of this connection.
    current: bool = False


class Tokens(_Tagged, frozen=True, tag="tokens"):
    """The answer to AskTokens and Revoke: the user's tokens, the one that was used last first."""

    tokens: tuple[TokenState, ...]


class Rooms(_Tagged, frozen=True, tag="rooms"):
    """The answer to AskRooms, sorted by name."""

    rooms: Annotated[tuple[RoomSummary, ...], _Long]


class Joined(_Tagged, frozen=True, tag="joined"):
    """The user is in the room. ``users`` are the members who are online."""

    room: Short
    topic: str
    users: tuple[Short, ...]
    last_id: int
    private: bool = False
    role: RoomRole = RoomRole.MEMBER


class Parted(_Tagged, frozen=True, gc=False, tag="parted"):
    """The user is no longer in the room; ``by`` is the user who removed it, and ``reason`` the reason."""

    room: Short
    by: Short | None = None
    reason: str = ""


class TopicChanged(_Tagged, frozen=True, gc=False, tag="topic"):
    """The room has a new topic."""

    room: Short
    topic: str
    by: Short


class RoomModes(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The modes of a room: see requests.SetModes. ``key`` is shown to its members only."""

    private: bool = False
    moderated: bool = False
    open_topic: bool = False
    key: Short = ""
    members_max: int = 0


class Modes(_Tagged, frozen=True, kw_only=True, tag="modes"):
    """The modes of a room: the answer to SetModes, and for the members after a change, which ``by`` made."""

    room: Short
    modes: RoomModes
    by: Short | None = None


class Invited(_Tagged, frozen=True, gc=False, tag="invited"):
    """A user may join the room: for the user, and for the one who invited it.

    Connections that track members get it in their rooms as well.
    """

    room: Short
    username: Short
    by: Short


class Kicked(_Tagged, frozen=True, kw_only=True, gc=False, tag="kicked"):
    """A member was removed from the room: for the other members. Without a room: the user's connections have ended."""

    room: Short | None = None
    username: Short
    by: Short
    reason: str = ""


class RoleChanged(_Tagged, frozen=True, kw_only=True, gc=False, tag="role"):
    """A member of the room has another role. Without ``by``: the owner left, and this member is the owner now.

    Without a room: a user is an operator of the server now, or no longer; for the user and the operators.
    """

    room: Short | None = None
    username: Short
    role: RoomRole
    by: Short | None = None


class _Sanction(_Tagged, frozen=True, kw_only=True, gc=False, tag=""):
    """A ban or mute, in a room or on the whole server: for the user, the operators, and the members of the room.

    ``until`` is None if it is for ever.
    """

    room: Short | None = None
    username: Short | None = None
    address: Short | None = None
    by: Short
    until: TimeMs | None = None
    reason: str = ""


class Banned(_Sanction, frozen=True, kw_only=True, gc=False, tag="banned"):
    """A user or a network is kept out."""


class Muted(_Sanction, frozen=True, kw_only=True, gc=False, tag="muted"):
    """A user's messages are refused."""


class Unbanned(_Sanction, frozen=True, kw_only=True, gc=False, tag="unbanned"):
    """A ban has been ended."""


class Unmuted(_Sanction, frozen=True, kw_only=True, gc=False, tag="unmuted"):
    """A mute has been ended."""


class SanctionKind(StrEnum):
    """The kind of a sanction: a ban refuses the user, a mute the user's messages."""

    BAN = "ban"
    MUTE = "mute"


class SanctionState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A ban or mute in the list."""

    kind: SanctionKind
    username: Short | None = None
    address: Short | None = None
    by: Short
    time_ms: TimeMs = field(name="time")
    until: TimeMs | None = None
    reason: str = ""


class Bans(_Tagged, frozen=True, tag="bans"):
    """The answer to AskBans and AskRoomBans, oldest first."""

    bans: Annotated[tuple[SanctionState, ...], _Long]
    room: Short | None = None


class Deleted(_Tagged, frozen=True, gc=False, tag="deleted"):
    """The message ``id`` is deleted: show it no longer. At a login there is no reason."""

    id: int
    by: Short
    room: Short | None = None
    reason: str = ""


class Reported(_Tagged, frozen=True, kw_only=True, gc=False, tag="reported"):
    """A user reported a message or a user: the answer, and an event for the operators of the server."""

    id: int | None = None
    username: Short | None = None
    room: Short | None = None
    by: Short
    reason: str = ""


class AuditRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An act of moderation. ``target`` is a user, a network or the id of a message."""

    number: int
    time_ms: TimeMs = field(name="time")
    action: Short
    by: Short
    target: Short = ""
    room: Short | None = None
    reason: str = ""
    detail: Short = ""


class Audit(_Tagged, frozen=True, tag="audit"):
    """The answer to AskAudit, oldest first."""

    acts: tuple[AuditRow, ...]


class Ignored(_Tagged, frozen=True, tag="ignored"):
    """The users whom this one ignores, sorted: the answer to Ignore, Unignore and AskIgnored."""

    users: tuple[Short, ...]


class Refused(_Tagged, frozen=True, gc=False, tag="error"):
    """A request was rejected."""

    code: ErrorCode
    reason: str = field(name="message")
    nonce: str | None = None
    # The room as the request named it, if the error is about one.
    room: str | None = None
    # The time after which the same request is accepted, if a rate is the reason.
    retry_seconds: float | None = None


class UserUnknown(Refused, frozen=True):
    """A request was rejected because there is no user ``about``. The wire format json does not send the name."""

    about: str = ""


class Pong(_Tagged, frozen=True, gc=False, tag="pong"):
    """The answer to Ping."""


class Bye(_Tagged, frozen=True, gc=False, tag="bye"):
    """The server is about to close the connection.

    With a ``code`` (BANNED, KICKED, REPLACED or REVOKED) the client must not reconnect by itself.
    """

    reason: str
    code: ErrorCode | None = None


# --- events of protocols that show the members of rooms, such as irc; json has no form of them ---


class Authenticated(Struct, frozen=True, gc=False):
    """The answer to Authenticate. ``username`` has the registered spelling."""

    username: str
    is_new: bool = False


class UserInfo(Struct, frozen=True, kw_only=True):
    """What is known of a user. ``rooms`` are those that the asking user may know of, with the roles there."""

    username: str
    is_online: bool
    is_guest: bool = False
    is_operator: bool = False
    is_bot: bool = False
    realname: str = ""
    # See requests.Enter. Empty if the user's first connection gave none.
    ident: str = ""
    # Empty: the user is not away.
    away: str = ""
    # The time of the login, and the seconds since the last message; None if the user is on another server.
    login_ms: int | None = None
    idle_seconds: int | None = None
    rooms: tuple[tuple[str, RoomRole], ...] = ()


class RoomMember(Struct, frozen=True):
    """A member of a room who is online."""

    info: UserInfo
    role: RoomRole


class Members(Struct, frozen=True):
    """The answer to AskMembers. ``room`` is LOBBY for the lobby, in this and the following events."""

    room: str
    members: tuple[RoomMember, ...]
    is_private: bool = False


class Topic(Struct, frozen=True, gc=False):
    """The answer to AskTopic. ``by`` and ``time_ms`` are empty and 0 if it is not known who set it."""

    room: str
    topic: str
    by: str = ""
    time_ms: int = 0


class Entered(Struct, frozen=True, kw_only=True):
    """The connection gets the messages of the room from now on: after EnterLobby, Join, and a login.

    It comes in place of Joined. The members are those of whom this connection was told: it gets MemberJoined and
    MemberLeft for later changes.
    """

    room: str
    username: str
    topic: str = ""
    topic_by: str = ""
    topic_ms: int = 0
    created_ms: int = 0
    modes: RoomModes = RoomModes()
    last_id: int
    members: tuple[RoomMember, ...]


class MemberJoined(Struct, frozen=True, gc=False, kw_only=True):
    """A member of the room came online, or a user who is online became a member: for the other members."""

    room: str
    info: UserInfo
    role: RoomRole = RoomRole.MEMBER


class MemberLeft(Struct, frozen=True, gc=False):
    """A user is no longer a member of the room: for the other members. Kicked comes in its place for a kick."""

    room: str
    username: str
    reason: str = ""


class UserQuit(Struct, frozen=True, gc=False):
    """A user went offline: once for each connection that shares a room with the user."""

    username: str
    reason: str = ""


class Renamed(Struct, frozen=True, gc=False):
    """A guest has another name: once for each connection that shares a room with the guest, and for the guest."""

    username: str
    new_username: str


class Infos(Struct, frozen=True):
    """The answer to AskInfo and AskWho; None for a name that nobody has."""

    infos: tuple[UserInfo | None, ...]


class PastUser(Struct, frozen=True):
    """A user who was online."""

    username: str
    realname: str
    logout_ms: int
    ident: str = ""


class Past(Struct, frozen=True):
    """The answer to AskPast."""

    username: str
    users: tuple[PastUser, ...]


class Counts(Struct, frozen=True, kw_only=True):
    """The answer to AskCounts."""

    users: int
    users_max: int
    operators: int
    unknown: int
    rooms: int
    servers: int = 1


class AwayChanged(Struct, frozen=True, gc=False):
    """A user is away, or with an empty text is back: the answer, and for those who share a room with the user."""

    username: str
    text: str


class IsAway(Struct, frozen=True, gc=False):
    """The recipient of a direct message, which follows its confirmation, is away."""

    username: str
    text: str


class RealnameChanged(Struct, frozen=True, gc=False):
    """A user has another description: the answer, and for those who share a room with the user."""

    username: str
    realname: str


class Watched(Struct, frozen=True):
    """The answer to Watch: which of the added users are online and offline, and all names that are watched now."""

    online: tuple[str, ...]
    offline: tuple[str, ...]
    watched: tuple[str, ...]


class CameOnline(Struct, frozen=True, gc=False):
    """A watched user came online."""

    username: str


class WentOffline(Struct, frozen=True, gc=False):
    """A watched user went offline."""

    username: str


class RoleMoved(RoleChanged, frozen=True, kw_only=True):
    """RoleChanged, with the earlier role. The wire format json does not send it."""

    old_role: RoomRole = RoomRole.MEMBER


class InvitedMember(Invited, frozen=True, gc=False):
    """Invited, of a user who is in the room already. The wire format json does not tell it from Invited."""


class TopicUnchanged(TopicChanged, frozen=True, gc=False):
    """The answer if the room has this topic already. The wire format json does not tell it from TopicChanged."""


class ModesMoved(Modes, frozen=True, kw_only=True):
    """Modes, with those before a change, and the time when the room was made. The wire format json sends neither."""

    old: RoomModes | None = None
    created_ms: int = 0


class DirectDeleted(Deleted, frozen=True):
    """Deleted, of a direct message, with its users. The wire format json does not send them."""

    sender: str = ""
    recipient: str = ""


class RoomEventKind(StrEnum):
    """What an event in the history of a room is. ``RoomEvent`` has who did it, and to whom."""

    JOIN = "join"
    PART = "part"
    # A guest who was a member went offline.
    QUIT = "quit"
    # A guest who is a member has another name: the target.
    NICK = "nick"
    KICK = "kick"
    TOPIC = "topic"
    MODES = "modes"
    ROLE = "role"
    # The owner left, and the target is the owner now.
    HEIR = "heir"
    BAN = "ban"
    UNBAN = "unban"


class RoomEvent(Struct, frozen=True, gc=False, kw_only=True):
    """A change of a room, among the messages of its history: after the message ``after_id``, or one of the same place.

    ``number`` orders those of one place, from 1 on. ``room_id`` makes the place another one than those of other rooms.
    ``actor`` is empty for the server and its administrator; it ``is_guest`` if it had no account. ``text`` is a reason
    or a topic. Modes have the values that changed; of a key only that there is one.
    """

    after_id: int
    number: int
    room_id: int
    time_ms: TimeMs
    kind: RoomEventKind
    room: str
    actor: str
    is_guest: bool = False
    target: str = ""
    text: str = ""
    old_role: RoomRole | None = None
    role: RoomRole | None = None
    old_modes: RoomModes | None = None
    modes: RoomModes | None = None


class EventPlace(Struct, frozen=True, gc=False):
    """Where the history of a room has an event, and its time: see RoomEvent."""

    after_id: int
    number: int
    room_id: int
    time_ms: TimeMs


class Placed(Struct, frozen=True):
    """An event of now that the history of its room has at this place: for connections that track members only."""

    event: "DirectoryEvent | TaggedEvent"
    place: EventPlace


ChatHistoryItem: TypeAlias = Message | RoomEvent


class ChatHistory(Struct, frozen=True):
    """The answer to AskChatHistory, oldest first."""

    messages: tuple[ChatHistoryItem, ...]
    room: str | None = None
    with_user: str | None = None


class ActiveTarget(Struct, frozen=True):
    """A room, or a user with direct messages, and the time of its newest message in the range."""

    room: str | None
    with_user: str | None
    time_ms: int


class Active(Struct, frozen=True):
    """The answer to AskActive, the oldest first."""

    targets: tuple[ActiveTarget, ...]


class ReadMarked(Struct, frozen=True, gc=False):
    """The answer to MarkRead, and for the other connections of the user after a change. None: nothing is marked."""

    room: str | None
    with_user: str | None
    time_ms: int | None


class Relayed(Struct, frozen=True, gc=False):
    """What a user passes on: see requests.Relay. ``room`` is None if it is for the user ``to``.

    It has no id, because it is not stored.
    """

    sender: str
    room: str | None
    to: str | None
    kind: str
    tags: str
    text: str
    time_ms: int = 0
    guest: bool = False
    bot: bool = False


class RelayedBack(Relayed, frozen=True):
    """The answer to Relay on a connection that gets its own messages."""


# Events of json.
TaggedEvent: TypeAlias = (
    PasswordPrompt
    | Welcome
    | PublicMessage
    | DirectMessage
    | Users
    | User
    | Sent
    | History
    | Found
    | Conversations
    | PasswordChanged
    | Tokens
    | Rooms
    | Joined
    | Parted
    | TopicChanged
    | Modes
    | Invited
    | Kicked
    | RoleChanged
    | Banned
    | Muted
    | Unbanned
    | Unmuted
    | Bans
    | Deleted
    | Reported
    | Audit
    | Ignored
    | Refused
    | Pong
    | Bye
)
# Events that json has no form of.
DirectoryEvent: TypeAlias = (
    Authenticated
    | Members
    | Topic
    | Entered
    | MemberJoined
    | MemberLeft
    | UserQuit
    | Renamed
    | Infos
    | Past
    | Counts
    | AwayChanged
    | IsAway
    | RealnameChanged
    | Watched
    | CameOnline
    | WentOffline
    | ChatHistory
    | Active
    | ReadMarked
    | Relayed
    | RelayedBack
    | Placed
)
Event: TypeAlias = TaggedEvent | DirectoryEvent
# A batch, equivalent to several events.
EventBatch: TypeAlias = PublicBatch | SentBatch


def expand_batches(items: Iterable[Event | EventBatch]) -> Iterator[Event]:
    """The same events, with each batch replaced by its events."""
    for event in items:
        if isinstance(event, PublicBatch | SentBatch):
            yield from event
        else:
            yield event
