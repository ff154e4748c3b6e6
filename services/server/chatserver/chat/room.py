"""Members and rooms in the hub, and the users who are online. The hub's lock guards all of them.

The hub knows a room while one of its users is online. A room has a broadcast buffer for each *variant* of its
*followers*, the members that know rooms. A variant is an encoding that connections share: the name of a wire protocol,
perhaps followed by a slash and what differs (see ``WireProtocol.encoder``). The buffer is opened for the first follower
and closed after the last one. In the lobby every member follows, except for those that *track* members: they follow it
after EnterLobby. The buffers of the wire protocols stay open there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chatprotocol.events import Event, EventBatch
    from chatprotocol.requests import Enter
    from chatserver.net.broadcast import BroadcastBuffer
    from chatserver.net.sendqueue import SendQueue


class Member:
    """One logged-in connection. A user may have several.

    A guest's pair of connections has one as well, as the author of its messages. It does not join the hub:
    AckedDelivery delivers to it.
    """

    def __init__(
        self,
        account_id: int,
        name: str,
        send_queue: SendQueue,
        *,
        address: str = "",
        knows_rooms: bool = False,
        knows_moderation: bool = False,
        is_counted: bool = False,
        token_id: str = "",
        enter: Enter | None = None,
        is_guest: bool = False,
        claim: int = 0,
    ) -> None:
        """``is_counted``: the limit of connections of a user applies. ``claim``: see Account.

        ``enter`` describes a connection that is shown the members of rooms.
        """
        self.account_id = account_id
        self.name = name
        self.send_queue = send_queue
        self.address = address
        # True for an operator of the server. Set at the login, and by the hub when the role changes. Read without a
        # lock: the journal decides again.
        self.is_operator = False
        # True if the connection gets the events of moderation. Set by the reader thread alone.
        self.knows_moderation = knows_moderation
        # True if the connection gets the events of rooms. Set under the hub's lock, by the reader thread alone.
        self.knows_rooms = knows_rooms
        # True after the send queue got all missed messages. Earlier, queued data may be dropped. Under the hub's lock.
        self.has_caught_up = False
        self.newest_direct_id = 0
        self.is_counted = is_counted
        # Of the session token that the login used, or got; empty if there is none.
        self.token_id = token_id
        # True after a newer connection of the user has replaced it: it ends. Under the hub's lock.
        self.is_replaced = False
        # True for a guest, which has no account of its own.
        self.is_guest = is_guest
        self.claim = claim
        # The first message that the user may see: a guest sees none from before it took its name. Set by the login and
        # the hub.
        self.first_id = 0
        # True if the connection gets the events about the members of rooms, in place of the lists of users.
        self.tracks_members = enter is not None
        # The name of the encoding of shared events: see WireProtocol.encoder. Under the hub's lock.
        self.variant = send_queue.protocol if enter is None else enter.variant
        # True if the connection gets its own messages as well. Under the hub's lock.
        self.echoes = enter is not None and enter.echoes
        # How the user describes itself to others. Under the hub's lock.
        self.realname = "" if enter is None else enter.realname
        self.ident = "" if enter is None else enter.ident
        self.is_bot = enter is not None and enter.is_bot
        # True if the connection gets the events of the lobby: see requests.EnterLobby. Under the hub's lock.
        self.follows_lobby = enter is None
        # The time of the last message; 0: there was none. Under the hub's lock.
        self.said_ms = 0
        # The reason of its end, for UserQuit. Set by the reader thread, or by the hub before it ends the connection.
        self.quit_reason = ""


class Followers(NamedTuple):
    """The followers of a room that share a variant, and their buffer."""

    buffer: BroadcastBuffer
    # For each of them the version of the user list that it has seen: see Presence.
    seen_versions: dict[Member, int]
    tracks_members: bool


class Room:
    """A room and its followers. ``name`` is None for the lobby, as in events."""

    __slots__ = ("_close_buffer", "_open_buffer", "followers", "id", "listed", "name")

    def __init__(
        self,
        room_id: int,
        name: str | None,
        open_buffer: Callable[[str], BroadcastBuffer],
        close_buffer: Callable[[BroadcastBuffer], None] = lambda _: None,
    ) -> None:
        """``open_buffer`` gets a variant. ``close_buffer`` frees a buffer after its last byte."""
        self.id = room_id
        self.name = name
        self._open_buffer = open_buffer
        self._close_buffer = close_buffer
        # By variant; only those that have followers.
        self.followers: dict[str, Followers] = {}
        # The names that the followers that track members were told; None if there is no such follower. See Tracking.
        self.listed: dict[str, None] | None = None

    def follow(self, member: Member, seen_version: int) -> None:
        """Send the member what is appended from now on. Repeats change the version only."""
        variant = member.variant
        followers = self.followers.get(variant)
        if followers is None:
            followers = self.followers[variant] = Followers(self._open_buffer(variant), {}, member.tracks_members)
        followers.seen_versions[member] = seen_version
        followers.buffer.flush()  # a queue follows from the flushed end on
        member.send_queue.follow(followers.buffer)

    def unfollow(self, member: Member) -> None:
        """Send the member nothing after what was appended so far."""
        self._unfollow(member, member.variant)

    def change_variant(self, member: Member, before: str) -> None:
        """Let the member follow in its new variant, if it follows: nothing is lost, and nothing sent twice."""
        followers = self.followers.get(before)
        if before != member.variant and followers is not None and member in followers.seen_versions:
            self.follow(member, followers.seen_versions[member])
            self._unfollow(member, before)

    def _unfollow(self, member: Member, variant: str) -> None:
        followers = self.followers.get(variant)
        if followers is None or followers.seen_versions.pop(member, None) is None:
            return
        followers.buffer.flush()
        member.send_queue.unfollow(followers.buffer)
        if not followers.seen_versions:
            del self.followers[variant]
            self._close_buffer(followers.buffer)

    def is_followed_by(self, member: Member) -> bool:
        """True if the member gets the events of the room."""
        followers = self.followers.get(member.variant)
        return followers is not None and member in followers.seen_versions

    def members(self) -> list[Member]:
        """Return all followers."""
        return [member for followers in self.followers.values() for member in followers.seen_versions]

    def tracking_members(self) -> list[Member]:
        """Return the followers that track members."""
        tracking = (each for each in self.followers.values() if each.tracks_members)
        return [member for followers in tracking for member in followers.seen_versions]

    def append_tracking(
        self, events: Sequence[Event | EventBatch], own: Sequence[Member] = (), *, is_for_own: bool = True
    ) -> None:
        """Send events to the followers that track members, after the next flush.

        Those in ``own`` get them encoded for themselves, or with ``is_for_own=False`` not at all.
        """
        for buffer, seen_versions, tracks_members in self.followers.values():
            if tracks_members:
                start, end = buffer.append(events)
                for member in own:
                    if member in seen_versions and start < end:
                        member.send_queue.replace(buffer, start, end, events if is_for_own else ())
                    elif member in seen_versions and is_for_own:  # the variant has no form of them
                        member.send_queue.insert(events)

    def append_untracked(self, events: Sequence[Event | EventBatch]) -> None:
        """Send events to the followers that do not track members, after the next flush."""
        for followers in self.followers.values():
            if not followers.tracks_members:
                followers.buffer.append(events)

    def append(self, events: Sequence[Event | EventBatch]) -> None:
        """Send events to all followers, after the next flush."""
        for followers in self.followers.values():
            followers.buffer.append(events)

    def flush(self) -> None:
        """Release everything appended to the followers."""
        for followers in self.followers.values():
            followers.buffer.flush()


class User:
    """A user who is online, or is logging in."""

    def __init__(self, name: str) -> None:
        self.name = name
        # The connections, oldest first.
        self.members: list[Member] = []
        # The rooms that the user is a member of, by key; known after the first login.
        self.rooms: dict[str, Room] = {}
        self.is_loaded = False
        # The logins that are reading the rooms. True if the rooms have changed since that login began to read.
        self.logins: dict[Member, bool] = {}
        # What others are told about the user: see UserInfo. The last login decides.
        self.realname = ""
        self.is_bot = False
        self.is_guest = False
        # That of the first connection, for as long as the user is online.
        self.ident = ""
        # Empty: the user is not away.
        self.away = ""
        # The time since when the user is online.
        self.login_ms = 0

    def note_login(self, member: Member, now_ms: int) -> None:
        """Add a connection, which describes the user."""
        if not self.members:
            self.login_ms, self.ident = now_ms, member.ident
        self.members.append(member)
        if member.tracks_members:
            self.realname, self.is_bot = member.realname, member.is_bot
        self.is_guest = member.is_guest

    def note_change(self) -> None:
        """Let all logins read the rooms again."""
        self.logins = dict.fromkeys(self.logins, True)
