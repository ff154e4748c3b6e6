"""Session tokens: making one at a login, the list of a user, and revoking. The hub ends the connections.

A token is random, so a valid one is accepted at once: there is nothing to guess, and nothing to hash slowly. See
``authentication.py`` for the login with a token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from chatprotocol import requests
from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.events import TimeMs, Tokens, TokenState
from chatserver.chat.problems import append_one
from chatserver.clock import wall_ms
from chatserver.journal.entries import AddToken, Problem, RevokeTokens, UseToken
from chatserver.store.tokens import LIFETIME_MS, NewToken, new_token

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatserver.chat.room import Member
    from chatserver.journal.base import Journal
    from chatserver.store import tokens as store
    from chatserver.store.accounts import Account

_log = structlog.get_logger()

# The use of a token is noted again after a day: the entry costs a write.
_USE_NOTED_MS: Final = 86_400_000
# Instead of an id: all tokens except that of the connection.
_ALL: Final = "all"


class SessionTokens:
    """Makes, finds, lists and revokes tokens. For any thread. Every method raises StoreError."""

    def __init__(self, tokens: store.Tokens, journal: Journal, now_ms: Callable[[], int] = wall_ms) -> None:
        self._tokens = tokens
        self._journal = journal
        self._now_ms = now_ms

    def make(self, account: Account, label: str) -> NewToken:
        """Store a token, whose text is for the user alone. RequestError: it can't be stored."""
        made = new_token()
        outcome = append_one(self._journal, AddToken(account.id, made.hash, made.id, label), "there is no new session")
        if isinstance(outcome, Problem):
            raise RequestError(ErrorCode.WRONG_PASSWORD, f"The account {account.name} was deleted.")
        _log.info("token created", user=account.name, token=made.id)
        return made

    def find(self, token: str, network: str) -> store.FoundToken | None:
        """The valid token with this text; None if there is none."""
        return self._tokens.find(token, network, self._now_ms())

    def note_use(self, found: store.FoundToken) -> None:
        """Remember that the token was used. The login does not wait for the commit."""
        if self._now_ms() - found.used_ms >= _USE_NOTED_MS:
            self._journal.defer(("token", found.account.id, found.id), UseToken(found.account.id, found.id))

    def is_revoked(self, account_id: int, token_id: str) -> bool:
        """True if the account has no token of this id any more."""
        return not self._tokens.has(account_id, token_id)

    def answer(self, member: Member, request: requests.TokenRequest) -> Tokens:
        """Revoke what is asked, and return the list. RequestError: there is no such token, or it can't be stored."""
        if isinstance(request, requests.Revoke):
            self._revoke(member, request.id)
        found = self._tokens.list_of(member.account_id, self._now_ms())
        return Tokens(
            tuple(
                TokenState(
                    id=each.id,
                    label=each.label,
                    created=TimeMs(each.created_ms),
                    used=TimeMs(each.used_ms),
                    expires=TimeMs(each.used_ms + LIFETIME_MS),
                    current=each.id == member.token_id,
                )
                for each in found
            )
        )

    def _revoke(self, member: Member, token_id: str) -> None:
        if token_id == _ALL:
            entry = RevokeTokens(member.account_id, kept_token=member.token_id)
        elif self.is_revoked(member.account_id, token_id):
            raise RequestError(
                ErrorCode.BAD_REQUEST, "You have no session of this id, or it was revoked; nothing was done."
            )
        else:
            entry = RevokeTokens(member.account_id, token_id)
        # On return, the hub has ended the connections of revoked tokens.
        revoked = append_one(self._journal, entry, "nothing was revoked")
        _log.info("tokens revoked", user=member.name, tokens=list(revoked.token_ids))
