"""The changes: each a function of a target and a request, which appends entries to the journal.

To add one: its struct in ``requests.py``, a function here with its line in ``_CHANGES``, its arguments in ``cli.py``,
and the function that makes the request of them in ``commands.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import msgspec
import structlog

from chatprotocol.errors import RequestError
from chatprotocol.rules import check_username
from chatserver.admin.requests import Add, AdminError, Answer, ChangeRequest, Password, Sessions
from chatserver.journal.base import JournalClosedError
from chatserver.journal.entries import AccountProblem, NewAccount, PasswordChange
from chatserver.store.accounts import Accounts
from chatserver.store.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from chatserver.journal.entries import Entry
    from chatserver.journal.local import LocalJournal
    from chatserver.store.accounts import Account
    from chatserver.store.database import Database

_T = TypeVar("_T")

_log = structlog.get_logger()


class Target(Protocol):
    """A database to read, and the journal of its changes."""

    @property
    def database(self) -> Database: ...

    @property
    def journal(self) -> LocalJournal: ...

    def sessions(self) -> Iterable[dict[str, Any]]:
        """The connections, oldest first. AdminError: no server runs."""


_DECODER: Final[msgspec.json.Decoder[ChangeRequest]] = msgspec.json.Decoder(ChangeRequest)


def answer_line(target: Target, line: bytes, by: str) -> bytes:
    """Answer a request on the socket. ``by`` is the system user who asked."""
    try:
        request = _DECODER.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        answer = Answer(error="The server does not know this command; is it of another version?")
    else:
        answer = answer_request(target, request, by)
    return msgspec.json.encode(answer)


def answer_request(target: Target, request: ChangeRequest, by: str) -> Answer:
    """Perform a change. Errors are in the answer."""
    try:
        answer: Answer = _CHANGES[type(request)](target, request)
    except (AdminError, RequestError, StoreError) as error:
        return Answer(error=str(error))
    except OSError as error:  # of the journal
        return Answer(error=f"The disk refuses the change ({error}); nothing was changed.")
    except JournalClosedError:
        return Answer(error="The server is shutting down; nothing was changed.")
    if answer.done:
        _log.info("admin command", command=request.__struct_config__.tag, by=by)
    return answer


def _add(target: Target, request: Add) -> Answer:
    check_username(request.user)
    if isinstance(_append(target, NewAccount(request.user, request.password_hash)), AccountProblem):
        raise AdminError(f"The name {request.user} is taken.")
    return _done(f"{request.user} is registered.", user=request.user)


def _password(target: Target, request: Password) -> Answer:
    account = _find(target, request.user)
    if not _append(target, PasswordChange(account.id, account.password_hash, request.password_hash)):
        raise AdminError(f"{account.name} changed the password at the same time; nothing was changed.")
    return _done(f"{account.name} has a new password.", user=account.name)


def _sessions(target: Target, _: Sessions) -> Answer:
    return Answer(list(target.sessions()))


_CHANGES: Final[dict[type, Callable[[Target, Any], Answer]]] = {
    Add: _add,
    Password: _password,
    Sessions: _sessions,
}


def _append(target: Target, entry: Entry[_T]) -> _T:
    """Append an entry and wait until it is committed. Returns its outcome."""
    (outcome,) = target.journal.append([entry]).result()
    return outcome


def _find(target: Target, user: str) -> Account:
    account = Accounts(target.database).find(user)
    if account is None:
        raise AdminError(f"There is no user {user}.")
    return account


def _done(sentence: str, **row: Any) -> Answer:
    return Answer([row], sentence)
