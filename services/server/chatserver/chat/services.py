"""The services that all sessions share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chatprotocol.rules import unknown_user

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatserver.chat.delivery import AckedDelivery
    from chatserver.chat.guests import Guests
    from chatserver.chat.hub import Hub
    from chatserver.chat.login_throttle import LoginThrottle
    from chatserver.chat.passwords import Passwords
    from chatserver.chat.presence import Presence
    from chatserver.journal.local import LocalJournal
    from chatserver.store.accounts import Account, Accounts
    from chatserver.store.identity import HistoryIdentity
    from chatserver.store.indexer import Indexer
    from chatserver.store.messages import Messages


@dataclass(frozen=True)
class Services:
    """The shared services; one instance per server."""

    accounts: Accounts
    messages: Messages
    identity: HistoryIdentity
    indexer: Indexer
    journal: LocalJournal
    hub: Hub
    presence: Presence
    passwords: Passwords
    login_throttle: LoginThrottle
    guests: Guests
    acked_delivery: AckedDelivery
    # True if unknown names may be registered.
    registration_open: bool
    # True if guests may register.
    guests_allowed: bool
    login_seconds: float
    # Called after the last user left.
    on_empty: Callable[[], None]

    def find_recipient(self, name: str) -> Account:
        """Return the account of a user, or of a guest who is online. RequestError: unknown name."""
        recipient = self.accounts.find(name) or self.guests.find(name)
        if recipient is None:
            raise unknown_user(name)
        return recipient
