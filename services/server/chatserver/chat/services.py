"""What every session works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatserver.chat.delivery import AckedDelivery
    from chatserver.chat.guests import Guests
    from chatserver.chat.hub import Hub
    from chatserver.chat.journal import Journal
    from chatserver.chat.login_throttle import LoginThrottle
    from chatserver.chat.passwords import Passwords
    from chatserver.chat.presence import Presence
    from chatserver.store.accounts import Accounts
    from chatserver.store.identity import HistoryIdentity
    from chatserver.store.indexer import Indexer
    from chatserver.store.messages import Messages


@dataclass(frozen=True)
class Services:
    """The room, and what is known of accounts. One for the whole server."""

    accounts: Accounts
    messages: Messages
    identity: HistoryIdentity
    indexer: Indexer
    journal: Journal
    hub: Hub
    presence: Presence
    passwords: Passwords
    login_throttle: LoginThrottle
    guests: Guests
    acked_delivery: AckedDelivery
    # May a name that is not known be registered?
    registration_open: bool
    # May anybody come in who has no account?
    guests_allowed: bool
    login_seconds: float
    # The last user has left.
    on_empty: Callable[[], None]
