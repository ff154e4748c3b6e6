"""Entries of the journal: changes of the store, as ids, names, texts, nonces and hashes.

An entry is a value. It can be stored, sent to another server and applied there, so it refers to no object in memory,
and does not change after it was appended. Its *outcome* is decided when it is applied (``apply.py``). The type argument
of its base is the type of the outcome.

The tag is the name of an entry outside of Python. It never changes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Generic, TypeAlias, TypeVar

from msgspec import Struct

from chatprotocol.events import EventPlace, RoomModes, RoomRole, SanctionKind
from chatserver.store.accounts import Account, Role
from chatserver.store.moderation import ActiveSanction
from chatserver.store.rooms import LOBBY_ID

_OutcomeT_co = TypeVar("_OutcomeT_co", covariant=True)


class Entry(Struct, Generic[_OutcomeT_co], frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """Base of all entries.

    A field of a later version whose value is not the default stops an older server, which would apply another entry.
    """

    # True if a commit may wait a few milliseconds for more of these.
    is_gathered: ClassVar[bool] = False
    # True if it needs space on the disk, and is refused when the reserve of the disk is used up.
    needs_space: ClassVar[bool] = False

    @property
    def size(self) -> int:
        """Number of messages in the entry; 1 if it has none."""
        return 1


class Stored(Struct, frozen=True, gc=False):
    """Consecutive messages of an entry, from ``start`` to before ``stop``, and the id of the first of them."""

    start: int
    stop: int
    id: int
    # True if the sender used the nonce before: a single message, with the id of the earlier one.
    is_repeated: bool = False
    # True for a direct message if the recipient ignores the sender, who does not learn it.
    is_ignored: bool = False


class Problem(StrEnum):
    """The reason why an entry changed nothing."""

    # There is no such room, or it is private and the acting account is neither a member nor invited.
    UNKNOWN_ROOM = "unknown_room"
    # The acting account is not a member.
    NOT_A_MEMBER = "not_a_member"
    # The account that the entry is about is not a member.
    USER_NOT_A_MEMBER = "user_not_a_member"
    # The acting account has no role for this, or it can't be done to the other one.
    NOT_PERMITTED = "not_permitted"
    # The acting account and the other one are the same.
    ONESELF = "oneself"
    # The account is the last operator of the server who is not banned.
    LAST_OPERATOR = "last_operator"
    # There is no account of this id, or it is deleted.
    UNKNOWN_USER = "unknown_user"
    # An account or another guest has the name.
    NAME_TAKEN = "name_taken"
    # There is no such message, or the acting account may not see it.
    UNKNOWN_MESSAGE = "unknown_message"
    # The account that is invited is banned from the room.
    USER_BANNED = "user_banned"
    # There is no such ban or mute.
    NOT_SANCTIONED = "not_sanctioned"
    # Too many direct messages wait for the recipient: from the sender, or in all.
    MAILBOX_FULL_OF_SENDER = "mailbox_full_of_sender"
    MAILBOX_FULL = "mailbox_full"
    # The room or the server has too many bans and mutes.
    TOO_MANY_SANCTIONS = "too_many_sanctions"
    # The account ignores too many users.
    TOO_MANY_IGNORED = "too_many_ignored"
    # The room has a key, and the account neither knows it nor is invited.
    WRONG_KEY = "wrong_key"
    # The room has the members that its modes allow, and the account is not invited.
    ROOM_FULL = "room_full"
    # The room is moderated, and the account is a member without a role.
    MODERATED = "moderated"
    # The account has too many rooms, the room too many members, or the server too many rooms.
    TOO_MANY_ROOMS = "too_many_rooms"


class MessageBatch(Entry[tuple[Stored, ...] | Problem | ActiveSanction], frozen=True, gc=False):
    """Consecutive messages of one sender. Outcome: all of them, in parts; or why none was stored."""

    is_gathered: ClassVar[bool] = True
    needs_space: ClassVar[bool] = True

    sender_id: int
    sender: str
    texts: list[str]
    # One for each text; None if the client sent no nonce.
    nonces: list[str | None]

    @property
    def size(self) -> int:
        """Number of messages."""
        return len(self.texts)


class PublicMessages(MessageBatch, frozen=True, gc=False, tag="public"):
    """Messages to the members of a room, whose sender must be one; all users are in the lobby."""

    room_id: int = LOBBY_ID
    # The name of the room in the sender's spelling, repeated in errors. Empty for the lobby.
    room: str = ""
    # True if the sender has no account. The store has this in the sender's row.
    is_guest: bool = False
    # True if no program may answer the messages by itself.
    is_notice: bool = False


class DirectMessage(MessageBatch, frozen=True, gc=False, tag="direct", kw_only=True):
    """A single message to one user."""

    recipient_id: int
    recipient: str
    # The recipient's claim of its name if it is a guest: see Account. It is not for a later guest of that name.
    recipient_claim: int = 0
    # True if the recipient was offline: the limits of messages that wait for it apply.
    is_waiting: bool = False
    # As for public messages.
    is_guest: bool = False
    is_notice: bool = False


class DeliveryMark(Entry[None], frozen=True, gc=False, tag="mark"):
    """A device of the user has all direct messages up to this one."""

    account_id: int
    message_id: int


class AccountProblem(StrEnum):
    """The reason why an account was not registered."""

    # An account or a guest has the name.
    NAME_TAKEN = "name_taken"
    # There is no such invitation, or it was used, or is over.
    BAD_INVITATION = "bad_invitation"


class NewAccount(Entry[Account | AccountProblem], frozen=True, gc=False, tag="account"):
    """A name is registered. Outcome: the account, or why there is none."""

    needs_space: ClassVar[bool] = True

    name: str
    password_hash: str
    # The network of the user, which is then known; empty for one that was added by an administrator.
    network: str = ""
    # SHA-256 of the code that is used up, in hexadecimal; empty if none is needed.
    invitation: str = ""
    role: Role = Role.USER


class AddInvitation(Entry[None], frozen=True, gc=False, tag="invitation"):
    """A code with which one name may be registered. ``until_ms`` is None if it is valid for ever."""

    code_hash: str
    by: str
    until_ms: int | None = None


class KnownNetwork(Entry[None], frozen=True, gc=False, tag="known_network"):
    """The user has logged in from this network."""

    account_id: int
    network: str


class PasswordChange(Entry[bool], frozen=True, gc=False, tag="password"):
    """A password hash is replaced. Outcome: False if the account's hash is no longer the old one.

    The user has then chosen a new password, if an operator demanded one, and the session tokens are revoked.
    """

    account_id: int
    old_hash: str
    new_hash: str
    # The id of the token that is not revoked; empty if all are.
    kept_token: str = ""
    # True if the password is the same, and only its hash is a new one: no token is revoked.
    is_rehash: bool = False


class Revoked(Struct, frozen=True, gc=False):
    """The ids of an account's session tokens that an entry removed, sorted."""

    token_ids: tuple[str, ...]


class AddToken(Entry[Revoked | Problem], frozen=True, gc=False, tag="token"):
    """A session token of an account. Outcome: the tokens that had to go for it; or why it was not stored."""

    needs_space: ClassVar[bool] = True

    account_id: int
    # SHA-256 of the token, in hexadecimal.
    token_hash: str
    # Names the token in lists.
    token_id: str
    label: str


class UseToken(Entry[None], frozen=True, gc=False, tag="token_used"):
    """An account has logged in with this token."""

    account_id: int
    token_id: str


class RevokeTokens(Entry[Revoked], frozen=True, gc=False, tag="revoke"):
    """A token of an account is revoked, or without its id all but the kept one."""

    account_id: int
    token_id: str = ""
    kept_token: str = ""


class GuestClaim(Entry[Account | None], frozen=True, gc=False, tag="guest"):
    """A guest takes a name. Outcome: its row and claim; None if an account or another guest has the name."""

    needs_space: ClassVar[bool] = True

    name: str
    # The server where the guest is; empty if there is only one.
    server: str = ""


class RoomChange(Struct, frozen=True, gc=False):
    """A room after an entry, and what the entry changed. The target is the account that the entry is about."""

    room_id: int
    name: str
    topic: str
    is_private: bool
    # The newest message in the room; 0 if there is none.
    last_id: int
    # Roles of the target, before and now; None if it is not a member, but perhaps invited.
    old_role: RoomRole | None = None
    role: RoomRole | None = None
    # True if the entry made the room.
    is_new: bool = False
    # False if all was so before.
    is_changed: bool = True
    # The account that became the owner, because the owner left.
    heir_id: int = 0
    heir: str = ""
    # True if the last member left. The name is free now.
    has_ended: bool = False
    # With ``is_private``, and with the key; and before the entry, if it is about them.
    modes: RoomModes = RoomModes()
    old_modes: RoomModes | None = None
    created_ms: int = 0
    # The user who set the topic, and the time; empty and 0 if it is not known.
    topic_by: str = ""
    topic_ms: int = 0
    # Of an InviteUser: the target ignores the user who invited it, who does not learn that.
    is_ignored: bool = False
    # Of a JoinRoom: the members with a role above MEMBER, by name.
    roles: dict[str, RoomRole] = {}
    # Where the history has the change, and that of the owner; None if it has none, or the room has ended.
    place: EventPlace | None = None
    heir_place: EventPlace | None = None


class GuestsGone(Struct, frozen=True, gc=False):
    """Rooms that have a new owner, because theirs was a guest who has left."""

    rooms: tuple[RoomChange, ...]


class GuestsLeave(Entry[GuestsGone | None], frozen=True, gc=False):
    """The claims of guests end, and with them their memberships and invitations. Outcome: None if no owner left."""


class GuestRelease(GuestsLeave, frozen=True, gc=False, tag="guest_gone"):
    """A guest has left: the claim of this number ends."""

    name: str
    claim: int


class ServerStart(GuestsLeave, frozen=True, gc=False, tag="start"):
    """The server starts: the guests of its former run have left. The name is empty if there is only one server."""

    server: str = ""


class ServerGone(GuestsLeave, frozen=True, gc=False, tag="gone"):
    """A server has ended, or was taken for gone: its guests have left, and later batches of this run are skipped."""

    server: str
    run: str


class GuestRenamed(Struct, frozen=True, gc=False):
    """A guest has another name: its row and claim, and its roles above MEMBER, by the ids of the rooms."""

    account: Account
    roles: dict[int, RoomRole] = {}


class RenameGuest(Entry[GuestRenamed | Problem], frozen=True, gc=False, tag="rename_guest"):
    """A guest takes another name, and keeps its rooms. Its claim of the old name ends.

    Outcome: NAME_TAKEN if an account or another guest has the name. NOT_PERMITTED if the guest is muted, or the new
    name is muted or banned, in one of its rooms or on the server.
    """

    needs_space: ClassVar[bool] = True

    name: str
    claim: int
    new_name: str
    server: str = ""


RoomOutcome: TypeAlias = RoomChange | Problem | ActiveSanction


class RoomEntry(Entry[RoomOutcome], frozen=True, gc=False):
    """A change of a room or its members."""


class JoinRoom(RoomEntry, frozen=True, gc=False, tag="join"):
    """An account becomes a member of the room of this name. A new name makes a room if ``may_create``."""

    needs_space: ClassVar[bool] = True

    account_id: int
    username: str
    room: str
    # Used only if the room is new.
    is_private: bool
    may_create: bool
    # The word that a room with a key demands.
    key: str = ""


class PartRoom(RoomEntry, frozen=True, gc=False, tag="part"):
    """A member leaves. The room ends with its last member."""

    account_id: int
    username: str
    room_id: int
    reason: str = ""


class SetTopic(RoomEntry, frozen=True, gc=False, tag="topic"):
    """The topic is replaced: by the owner or an operator, or if the modes allow it by any member."""

    room_id: int
    topic: str
    by_id: int
    by: str


class _AboutUser(RoomEntry, frozen=True, gc=False):
    """A change by the owner or an operator, of the room or the server, that is about one account."""

    room_id: int
    account_id: int
    username: str
    by_id: int
    by: str


class KickMember(_AboutUser, frozen=True, gc=False, tag="kick"):
    """A member or an invitation is removed."""

    reason: str = ""


class InviteUser(_AboutUser, frozen=True, gc=False, tag="invite"):
    """An account may join, and learns of the room."""

    needs_space: ClassVar[bool] = True


class SetRole(_AboutUser, frozen=True, gc=False, tag="role"):
    """A member gets another role; not that of the owner."""

    role: RoomRole
    # Only a member that has this role now gets the other one. None: any member.
    old_role: RoomRole | None = None


class SetRoomModes(RoomEntry, frozen=True, gc=False, tag="room_modes"):
    """The modes of a room change, by the owner or an operator; None: as before. See requests.SetModes."""

    room_id: int
    by_id: int
    by: str
    private: bool | None = None
    moderated: bool | None = None
    open_topic: bool | None = None
    key: str | None = None
    members_max: int | None = None


class Moderated(Struct, frozen=True, gc=False):
    """The effect of an entry of moderation, for the users who get its event."""

    # The room's name; None: the whole server.
    room: str | None = None
    # The end of the sanction; None: for ever.
    until_ms: int | None = None
    # The membership that a ban from a room ended.
    change: RoomChange | None = None
    # True if the room is private, and the target neither is a member nor was invited: it must not learn of the room.
    is_hidden: bool = False
    # Where the history of the room has the ban or its end; None if it has none.
    place: EventPlace | None = None


class DeletedMessage(Struct, frozen=True, gc=False):
    """A message that is deleted now. The accounts are those who could see it, if it was a direct message."""

    conversation_id: int
    sender_id: int
    recipient_id: int | None
    # The text that it had: the search index needs it to forget its words. Empty if it was deleted before.
    text: str
    room: str | None = None
    # The names of its users, if it was a direct message.
    sender: str = ""
    recipient: str = ""
    # True if the recipient ignores the user who deleted it, and must not get the reason.
    is_ignored: bool = False


class ModerationEntry(Entry[_OutcomeT_co], frozen=True, gc=False, kw_only=True):
    """An act that has a row in the audit table.

    ``by_id`` is the acting account, or 0 for the command of the administrator, who may do everything; ``by`` is its
    name. Outcome: Problem if nothing was done.
    """

    by_id: int
    by: str
    # The system user who gave the command of the administrator, for the audit table.
    system_user: str = ""


class _SanctionEntry(ModerationEntry[Moderated | Problem], frozen=True, gc=False, kw_only=True):
    """An entry about a sanction of an account or a network: the other one has its default."""

    kind: SanctionKind
    # None: the whole server. A network is banned from the whole server only.
    room_id: int | None = None
    account_id: int = 0
    username: str = ""
    # As in 192.0.2.0/24: see chatprotocol.address.ban_network.
    network: str = ""


class Sanction(_SanctionEntry, frozen=True, gc=False, kw_only=True, tag="sanction"):
    """An account or a network is banned or muted, or its sanction of this kind gets another end and reason."""

    # From the time of the entry; None: for ever.
    seconds: int | None = None
    reason: str = ""


class LiftSanction(_SanctionEntry, frozen=True, gc=False, kw_only=True, tag="lift"):
    """A ban or mute ends."""


class KickFromServer(ModerationEntry[Moderated | Problem], frozen=True, gc=False, kw_only=True, tag="kick_off"):
    """The connections of an account end. The store gets the row of the audit table only."""

    account_id: int
    username: str
    reason: str = ""


class DeleteMessage(ModerationEntry[DeletedMessage | Problem], frozen=True, gc=False, kw_only=True, tag="delete"):
    """A message is deleted: its text becomes empty. LOBBY_ID also finds direct messages."""

    message_id: int
    room_id: int = LOBBY_ID
    reason: str = ""


class Report(ModerationEntry[Moderated | Problem], frozen=True, gc=False, kw_only=True, tag="report"):
    """A message, or without one a user, is reported to the operators of the server."""

    # Every user may do so, and the rows of the audit table are kept.
    needs_space: ClassVar[bool] = True

    # 0: a user is reported.
    message_id: int = 0
    room_id: int = LOBBY_ID
    account_id: int = 0
    username: str = ""
    reason: str = ""


class SetServerRole(ModerationEntry[Moderated | Problem], frozen=True, gc=False, kw_only=True, tag="server_role"):
    """An account becomes an operator of the server, or a user without a role."""

    account_id: int
    username: str
    role: Role


class AddAccount(ModerationEntry[Account | AccountProblem], frozen=True, gc=False, kw_only=True, tag="add_account"):
    """The administrator registers a name. Outcome: the account, or why there is none."""

    name: str
    password_hash: str


class SetPassword(ModerationEntry[Problem | None], frozen=True, gc=False, kw_only=True, tag="set_password"):
    """The administrator replaces the password of an account. The next login must perhaps replace it again."""

    account_id: int
    username: str
    password_hash: str
    must_change: bool


class DeleteAccount(ModerationEntry[Problem | None], frozen=True, gc=False, kw_only=True, tag="delete_account"):
    """An account ends. Its row stays, because messages refer to it, under a name that no user can have.

    It should have left its rooms before, and its connections must have ended: the hub is not told.
    """

    account_id: int
    username: str


class NoteAct(ModerationEntry[None], frozen=True, gc=False, kw_only=True, tag="act"):
    """An act of the administrator that has no entry of its own gets its row in the audit table."""

    action: str
    target: str
    detail: str = ""


class Removed(Struct, frozen=True, gc=False):
    """The result of a step of a removal."""

    messages: int
    # The id after which the next step continues; None if there is nothing more to do.
    after_id: int | None


class Prune(Entry[Removed], frozen=True, gc=False, tag="prune"):
    """A step of the removal of old messages: of those with an id after ``after_id``, in a range of ``limit`` ids."""

    before_ms: int
    after_id: int
    limit: int


class EraseMessages(Entry[Removed], frozen=True, gc=False, tag="erase"):
    """A step of the deletion of all messages that an account sent: as for Prune, but their rows stay, without text."""

    account_id: int
    by: str
    after_id: int
    limit: int


class Marked(Struct, frozen=True, gc=False):
    """The time of a read mark after an entry."""

    time_ms: int
    # False if it was there, or further, before.
    is_changed: bool


class ReadMark(Entry[Marked | Problem], frozen=True, gc=False, tag="read"):
    """A user has read a room, or the direct messages with another account, up to this time. A mark never moves back."""

    needs_space: ClassVar[bool] = True

    account_id: int
    time_ms: int
    # DIRECT_ID for direct messages.
    room_id: int = LOBBY_ID
    # The name of the room; empty for the lobby and for direct messages.
    room: str = ""
    # The other account of direct messages; 0 in a room.
    other_id: int = 0
    other: str = ""


class SetIgnored(Entry[Problem | None], frozen=True, gc=False, tag="ignore"):
    """An account ignores the direct messages of another one, or no longer. Outcome: None if it is so now."""

    account_id: int
    ignored_id: int
    is_ignored: bool
