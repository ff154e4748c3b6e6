"""Login: an authenticated user joins the users who are online, and leaves them. For missed messages see missed.py.

Between the check of a password or token and the moment at which the hub has the member, the password may be changed or
the token revoked. The login looks at both again after :meth:`LocalUsers.begin_join`, and the hub makes it look once
more after each such change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chatprotocol import requests
from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.events import AccountKind, Refused, RoomRole, RoomState, Welcome
from chatserver.chat.missed import each_since, login_aborted, send_pages
from chatserver.chat.room import Member
from chatserver.clock import wall_ms
from chatserver.journal.entries import KnownNetwork
from chatserver.memory import ShortOfMemoryError
from chatserver.store.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chatprotocol.events import Event
    from chatserver.chat.authentication import Authentication, Peer, Proof
    from chatserver.chat.catch_up import CatchUp
    from chatserver.chat.entering import Entering
    from chatserver.chat.local_users import JoinState, LocalUsers
    from chatserver.chat.missed import MissedMessages, Range
    from chatserver.chat.tokens import SessionTokens
    from chatserver.journal.base import Journal
    from chatserver.net.sendqueue import SendQueue
    from chatserver.store.identity import HistoryIdentity
    from chatserver.store.moderation import ModerationRecords
    from chatserver.store.rooms import Rooms, RoomView
    from chatserver.store.tokens import NewToken

# A login from a known network is noted again after a day: the entry costs a write.
_NETWORK_NOTED_MS = 86_400_000
_UNREADABLE = Refused(
    ErrorCode.INTERNAL, "The server's database is damaged: messages that you missed are left out here."
)


class Login:
    """Lets authenticated users join, and leave. For any thread."""

    def __init__(
        self,
        *,
        authentication: Authentication,
        missed: MissedMessages,
        rooms: Rooms,
        identity: HistoryIdentity,
        journal: Journal,
        users: LocalUsers,
        records: ModerationRecords,
        tokens: SessionTokens,
        entering: Entering,
        catch_up: CatchUp,
        on_empty: Callable[[], None],
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        """``on_empty`` is called after the last user left.

        With several servers a login waits (``catch_up``) for messages that the client has seen on another one.
        """
        self._authentication = authentication
        self._missed = missed
        self._rooms = rooms
        self._identity = identity
        self._journal = journal
        self._users = users
        self._records = records
        self._tokens = tokens
        self._entering = entering
        self._catch_up = catch_up
        self._on_empty = on_empty
        self._now_ms = now_ms

    def join(
        self,
        send_queue: SendQueue,
        proof: Proof,
        login: requests.Login,
        peer: Peer,
        enter: requests.Enter | None = None,
    ) -> Member:
        """Join the hub, send the welcome, then missed messages, then new ones.

        ``enter`` describes a connection that is shown the members of rooms; its welcome has neither users nor rooms.

        RequestError: the user is banned or deleted, the password was changed, or the token was revoked. StoreError,
        ShortOfMemoryError: missed messages can't be read. Nothing was sent then. LoginAbortedError: reading failed
        after the welcome.
        """
        self._wait_for_seen(login)
        account = proof.account
        token = None if login.remember is None else self._make_token(proof, login.remember, peer.address)
        knows_rooms = login.rooms or isinstance(login.since, dict)
        member = Member(
            account.id,
            account.name,
            send_queue,
            address=peer.address,
            knows_rooms=knows_rooms,
            knows_moderation=login.moderation,
            is_counted=not peer.is_exempt,
            token_id=proof.token_id if token is None else token.id,
            enter=enter,
            is_guest=account.is_guest,
            claim=account.claim,
        )
        self._users.check_acknowledged(account.id)
        joined, rooms = self._join_hub(member, proof)
        delivered_id = max(account.delivered_id, joined.delivered_id)
        try:
            self._note_network(proof, peer.network)
            shows_rooms = knows_rooms and enter is None
            if shows_rooms and rooms:
                # Topics and roles are read again: the member gets events about later changes only.
                newest = {room.room_id: room for room in self._rooms.of_account(account.id)}
                rooms = [newest.get(room.room_id, room) for room in rooms]
            ranges: list[Range] = []
            since, unknown = None, list[Refused]()
            if account.is_guest:
                member.first_id = joined.last_id + 1
            else:
                ranges, since, unknown = self._missed.ranges(account.id, login, delivered_id, joined.last_id, rooms)
            # While another device is online, the mark is too old: public messages move it only at the device's logout.
            is_known = joined.is_alone and proof.kind is AccountKind.EXISTING
            welcome = Welcome(
                account=proof.kind,
                username=account.name,
                users=joined.users if enter is None else (),
                last_id=joined.last_id,
                history_id=self._identity.history_id,
                since=since,
                seen_id=delivered_id if is_known else None,
                rooms=tuple(_room_state(room, joined.last_id) for room in rooms) if shows_rooms else None,
                operator=member.is_operator,
                token=None if token is None else token.secret,
            )
            deletions: tuple[Event, ...] = ()
            if login.moderation and login.since is not None:
                deletions = self._records.deletions(account.id, each_since(login.since, rooms)[0])
            if enter is None:
                last_page, is_complete = send_pages(send_queue, (welcome, *unknown), member, ranges)
            else:
                after_id = delivered_id if is_known else None
                last_page, is_complete = self._enter_rooms(member, welcome, joined, after_id, ranges)
            if last_page is not None and not is_complete and not isinstance(login, requests.StepLogin):
                last_page = (*last_page, _UNREADABLE)
            if last_page is not None:
                send_queue.release((*last_page, *deletions))
                if is_complete:  # otherwise direct messages stay undelivered and are sent again
                    self._users.catch_up(member, joined.last_id)
            # Without a last page the connection ends: no new message may follow the gap.
        except BaseException:
            self.leave(member)
            raise
        return member

    def _enter_rooms(
        self, member: Member, welcome: Welcome, joined: JoinState, after_id: int | None, ranges: Sequence[Range]
    ) -> tuple[Sequence[Event] | None, bool]:
        """Put the welcome, and what a connection that tracks members gets about each of its rooms; then as send_pages.

        ``after_id``: messages of the rooms after this one are missed; None: none is.
        """
        send_queue = member.send_queue
        rooms = self._entering.after_login(member, joined, after_id)
        first = next(rooms, [])  # before the welcome: an error rejects the login
        send_queue.put([welcome, self._entering.counts()])
        try:
            for about_room in (first, *rooms) if first else ():
                send_queue.put(about_room)
                if not send_queue.wait_for_room():
                    return None, True
            return send_pages(send_queue, (), member, ranges)
        except (StoreError, ShortOfMemoryError) as error:
            raise login_aborted(error) from error

    def leave(self, member: Member) -> None:
        """Leave the hub."""
        if self._users.leave(member):
            self._on_empty()

    def _make_token(self, proof: Proof, label: str, address: str) -> NewToken:
        """Make the token of a login that may join now. If it fails later, its token stays unused until it expires."""
        self._authentication.check_standing(self._records.standing(proof.account.id, address), proof)
        return self._tokens.make(proof.account, label)

    def _wait_for_seen(self, login: requests.Login) -> None:
        """Wait for the newest message that the client has seen: this server may be behind another one.

        Without the wait the client would be told that its history is not the server's, and get messages again.
        RequestError: the server does not catch up in time.
        """
        since = login.since
        if since is None or not self._catch_up.max_seconds:
            return
        if login.history_id not in (None, self._identity.history_id):
            return
        seen_id = max(since.values(), default=0) if isinstance(since, dict) else since
        last_id = 0
        for _ in self._catch_up.looks():
            last_id = self._users.last_id()
            if last_id >= seen_id:
                return
        if login.history_id is not None:  # without it the id may be of another history
            raise RequestError(
                ErrorCode.UNAVAILABLE,
                f"This server is behind the others: it ends with message {last_id}, and you have seen {seen_id}; "
                "log in on another server, or later.",
            )

    def _join_hub(self, member: Member, proof: Proof) -> tuple[JoinState, list[RoomView]]:
        """Join the hub; return its state, and the rooms of the user at that moment.

        StoreError, RequestError: it has not joined.
        """
        self._users.begin_join(member)
        try:
            rooms = self._read_standing(member, proof)
            while (joined := self._users.join(member, rooms)) is None:
                self._journal.wait_for_pending()
                rooms = self._read_standing(member, proof)
        except BaseException:
            self._users.cancel_join(member)
            raise
        return joined, rooms

    def _read_standing(self, member: Member, proof: Proof) -> list[RoomView]:
        """Read the role of the user on the server, and its rooms. RequestError: the user can't log in any more."""
        standing = self._records.standing(member.account_id, member.address)
        self._authentication.check_standing(standing, proof)
        if member.token_id and self._tokens.is_revoked(member.account_id, member.token_id):
            raise RequestError(ErrorCode.BAD_TOKEN, "This session was revoked meanwhile; log in with the password.")
        member.is_operator = standing.is_operator
        if standing.is_muted:  # others read these words
            member.realname = member.ident = member.name
        return self._rooms.of_account(member.account_id)

    def _note_network(self, proof: Proof, network: str) -> None:
        """Remember that the user has logged in from this network. The login does not wait for the commit.

        The entry of a new account has its network.
        """
        if proof.kind is not AccountKind.EXISTING:
            return
        entry = KnownNetwork(proof.account.id, network)
        if proof.last_login_ms is None:
            self._journal.append([entry])
        elif self._now_ms() - proof.last_login_ms >= _NETWORK_NOTED_MS:
            self._journal.defer((proof.account.id, network), entry)


def _room_state(room: RoomView, last_id: int) -> RoomState:
    """Describe the room for the welcome. The store may have newer messages than the hub."""
    return RoomState(room.name, room.topic, min(room.last_id, last_id), room.is_private, room.role or RoomRole.MEMBER)
