"""What every session works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatserver.room.feed import Feed
    from chatserver.room.indexer import Indexer
    from chatserver.room.journal import Journal
    from chatserver.room.mailroom import Mailroom
    from chatserver.room.presence import Presence
    from chatserver.session.attempts import FailedLogins
    from chatserver.session.guests import Guests
    from chatserver.session.passwords import Passwords
    from chatserver.store.accounts import Accounts
    from chatserver.store.identity import HistoryIdentity
    from chatserver.store.messages import Messages


@dataclass(frozen=True)
class Context:
    """The room, and what is known of accounts. One for the whole server."""

    accounts: Accounts
    messages: Messages
    identity: HistoryIdentity
    indexer: Indexer
    journal: Journal
    feed: Feed
    presence: Presence
    passwords: Passwords
    failed_logins: FailedLogins
    guests: Guests
    mailroom: Mailroom
    # May a name that is not known be registered?
    registration_open: bool
    # May anybody come in who has no account?
    guests_allowed: bool
    login_seconds: float
    # The last user has left.
    on_empty: Callable[[], None]
