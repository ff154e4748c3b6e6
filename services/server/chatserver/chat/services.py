"""The services that all sessions share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.rules import unknown_user
from chatserver.chat.rate_limit import UserLimits
from chatserver.counters import Counters

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatserver.chat.authentication import Authentication
    from chatserver.chat.delivery import AckedDelivery
    from chatserver.chat.directory import Directory
    from chatserver.chat.entering import Entering
    from chatserver.chat.guests import Guests
    from chatserver.chat.history_commands import HistoryCommands
    from chatserver.chat.local_users import LocalUsers
    from chatserver.chat.login import Login
    from chatserver.chat.moderation import Moderation
    from chatserver.chat.presence import Presence
    from chatserver.chat.room_commands import RoomCommands
    from chatserver.chat.tokens import SessionTokens
    from chatserver.journal.base import Journal
    from chatserver.store.accounts import Account, Accounts
    from chatserver.store.indexer import Indexer
    from chatserver.store.messages import Messages


@dataclass(frozen=True)
class Services:
    """The shared services; one instance per server."""

    accounts: Accounts
    messages: Messages
    indexer: Indexer
    journal: Journal
    users: LocalUsers
    presence: Presence
    authentication: Authentication
    login: Login
    guests: Guests
    rooms: RoomCommands
    history: HistoryCommands
    entering: Entering
    directory: Directory
    moderation: Moderation
    tokens: SessionTokens
    acked_delivery: AckedDelivery
    limits: UserLimits = field(default_factory=UserLimits)
    counters: Counters = field(default_factory=Counters)
    # Returns why new users should log in at another server, as a part of a sentence; empty if they are welcome.
    find_refusal: Callable[[], str] = lambda: ""

    def check_available(self) -> None:
        """RequestError: no new users are served here now."""
        if refusal := self.find_refusal():
            raise RequestError(
                ErrorCode.UNAVAILABLE, f"This server can't serve new users now: {refusal}; try another one, or later."
            )

    def find_recipient(self, name: str) -> Account:
        """Return the account of a user, or of a guest who is online. RequestError: unknown name."""
        recipient = self.accounts.find(name) or self.guests.find(name)
        if recipient is None:
            raise unknown_user(name)
        return recipient
