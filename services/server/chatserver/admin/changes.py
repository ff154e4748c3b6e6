"""The changes: each a function of a target and a request, which appends entries to the journal.

To add one: its struct in ``requests.py``, a function here with its line in ``_CHANGES``, its arguments in ``cli.py``,
and the function that makes the request of them in ``commands.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
import structlog

from chatprotocol.address import ban_network, is_address
from chatprotocol.errors import RequestError
from chatprotocol.events import SanctionKind
from chatprotocol.rules import check_label, check_reason, check_username
from chatserver.admin import requests
from chatserver.admin.requests import AdminError, Answer, ChangeRequest
from chatserver.clock import wall_ms
from chatserver.journal import entries
from chatserver.journal.base import JournalClosedError, LogUnavailableError, UnfinishedError
from chatserver.journal.entries import AccountProblem, ModerationEntry, Problem, Removed
from chatserver.store.accounts import Accounts, Role, find_closed, is_last_operator
from chatserver.store.errors import StoreError
from chatserver.store.reports import to_iso
from chatserver.store.rooms import list_rooms_of
from chatserver.store.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from chatserver.journal.base import Journal
    from chatserver.journal.entries import Entry
    from chatserver.store.database import Database

_log = structlog.get_logger()

# The name of the administrator in events and in the audit table. No user can have it: a username has no spaces.
ADMINISTRATOR: Final = "the administrator"
# Ids in a step of a removal: about 10 ms, which the messages of others wait.
STEP_IDS: Final = 2_000
# {name} is the user or network of the request.
_PROBLEMS: Final = {
    Problem.UNKNOWN_USER: "The user {name} was deleted meanwhile.",
    Problem.LAST_OPERATOR: "{name} is the last operator of the server; make another user an operator first.",
    Problem.NOT_SANCTIONED: "{name} is not banned.",
    Problem.TOO_MANY_SANCTIONS: "The server has the maximum number of bans and mutes; end some first.",
}


class Target(Protocol):
    """A database to read, and the journal of its changes."""

    @property
    def database(self) -> Database: ...

    @property
    def journal(self) -> Journal: ...

    def sessions(self) -> Iterable[dict[str, Any]]:
        """The connections, oldest first. AdminError: no server runs."""

    def is_elsewhere(self, name: str) -> bool:
        """True if the user is connected to another server that shares the log."""


_DECODER: Final[msgspec.json.Decoder[ChangeRequest]] = msgspec.json.Decoder(ChangeRequest)


class _Call:
    """A request for a target, by a system user."""

    def __init__(self, target: Target, system_user: str) -> None:
        self.target = target
        # Fields of entries. The account 0 stands for the administrator, who has all rights.
        self.acting: dict[str, Any] = {"by_id": 0, "by": ADMINISTRATOR, "system_user": system_user}

    def append(self, *together: Entry[Any]) -> Any:
        """Append entries, and wait until they are committed. Returns the outcome of the last one.

        Raises AdminError if an entry of moderation changed nothing.
        """
        outcomes = self.target.journal.append(together).result()
        for entry, outcome in zip(together, outcomes, strict=True):
            if isinstance(outcome, Problem) and isinstance(entry, ModerationEntry):
                name = getattr(entry, "username", "") or getattr(entry, "network", "")
                raise AdminError(_PROBLEMS.get(outcome, "This can't be done to {name}.").format(name=name))
        return outcomes[-1]

    def about(self, user: str) -> dict[str, Any]:
        """The fields of an entry about this registered user. Raises AdminError."""
        account = Accounts(self.target.database).find(user)
        if account is None:
            raise AdminError(f"There is no user {user}.")
        return {"account_id": account.id, "username": account.name}

    def about_target(self, target: str) -> dict[str, Any]:
        """The same about a user, or about an address or a network."""
        if not is_address(target):
            return self.about(target)
        try:
            return {"network": ban_network(target)}
        except ValueError as error:
            raise AdminError(f"{error}.") from error


def answer_line(target: Target, line: bytes, by: str) -> bytes:
    """Answer a request on the socket. ``by`` is the system user who asked."""
    try:
        request = _DECODER.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        answer = Answer(error=f"The server can't read this command ({error}). Use the program of the server's version.")
    else:
        answer = answer_request(target, request, by)
    return msgspec.json.encode(answer)


def answer_request(target: Target, request: ChangeRequest, by: str) -> Answer:
    """Perform a change. Errors are in the answer."""
    try:
        answer: Answer = _CHANGES[type(request)](_Call(target, by), request)
    except (AdminError, RequestError, StoreError) as error:
        return Answer(error=str(error))
    except LogUnavailableError as error:
        return Answer(error=f"{error}; nothing was changed.")
    except OSError as error:  # of the journal
        return Answer(error=f"The change can't be written to the disk ({error}); nothing was changed.")
    except UnfinishedError:
        return Answer(error="The server is shutting down; perhaps it made the change.")
    except JournalClosedError:
        return Answer(error="The server is shutting down; nothing was changed.")
    if answer.done:
        about = getattr(request, "user", None) or getattr(request, "target", None)
        _log.info("admin command", command=request.__struct_config__.tag, target=about, by=by)
    return answer


def _add(call: _Call, request: requests.Add) -> Answer:
    check_username(request.user)
    entry = entries.AddAccount(name=request.user, password_hash=request.password_hash, **call.acting)
    if isinstance(call.append(entry), AccountProblem):
        raise AdminError(f"The name {request.user} is taken.")
    return _done(f"{request.user} is registered.", user=request.user)


def _password(call: _Call, request: requests.Password) -> Answer:
    """The connections end, because another person may have learned the old password."""
    about = call.about(request.user)
    reason = "the administrator changed your password"
    call.append(
        entries.SetPassword(
            **about, password_hash=request.password_hash, must_change=request.must_change, **call.acting
        ),
        entries.KickFromServer(**about, reason=reason, **call.acting),
    )
    again = ", which the next login must replace" if request.must_change else ""
    return _done(f"{about['username']} has a new password{again}.", user=about["username"])


def _operator(call: _Call, request: requests.Operator) -> Answer:
    about = call.about(request.user)
    role = Role.OPERATOR if request.is_operator else Role.USER
    call.append(entries.SetServerRole(**about, role=role, **call.acting))
    state = "is an operator of the server" if request.is_operator else "is no operator of the server"
    return _done(f"{about['username']} {state}.", user=about["username"], role=role.value)


def _ban(call: _Call, request: requests.Ban) -> Answer:
    check_reason(request.reason)
    about = call.about_target(request.target)
    ban = entries.Sanction(
        kind=SanctionKind.BAN, **about, seconds=request.seconds, reason=request.reason, **call.acting
    )
    outcome = call.append(ban)
    until = None if outcome.until_ms is None else to_iso(outcome.until_ms)
    name = about.get("username") or about["network"]
    return _done(f"{name} is banned {f'until {until}' if until else 'for ever'}.", banned=name, until=until)


def _unban(call: _Call, request: requests.Unban) -> Answer:
    about = call.about_target(request.target)
    call.append(entries.LiftSanction(kind=SanctionKind.BAN, **about, **call.acting))
    name = about.get("username") or about["network"]
    return _done(f"{name} is not banned any more.", unbanned=name)


def _kick(call: _Call, request: requests.Kick) -> Answer:
    check_reason(request.reason)
    about = call.about(request.user)
    online = sum(row["user"] == about["username"] for row in call.target.sessions())
    if not online and not call.target.is_elsewhere(about["username"]):
        raise AdminError(f"{about['username']} is not connected.")
    call.append(entries.KickFromServer(**about, reason=request.reason, **call.acting))
    return _done(f"{about['username']} is disconnected.", user=about["username"], connections=online)


def _delete_user(call: _Call, request: requests.DeleteUser) -> Answer:
    """The parts come first, because the hub tells them to the rooms, and the kick, because it needs the account.

    An account that is deleted already is left alone: perhaps its messages are to be erased now.
    """
    with call.target.database.reading() as connection:
        closed_id = find_closed(connection, request.user)
    if closed_id is not None:
        return _done(f"{request.user} is deleted already.", user=request.user, account_id=closed_id)
    about = call.about(request.user)
    account_id, name = about["account_id"], about["username"]
    with call.target.database.reading() as connection:
        if is_last_operator(connection, account_id, wall_ms()):
            raise AdminError(_PROBLEMS[Problem.LAST_OPERATOR].format(name=name))
        parts = [entries.PartRoom(account_id, name, room_id) for room_id in list_rooms_of(connection, account_id)]
    kick = entries.KickFromServer(**about, reason="the account is deleted", **call.acting)
    call.append(*parts, kick, entries.DeleteAccount(**about, **call.acting))
    what = "are being erased" if request.erases else f"are kept, under the name deleted-{account_id}"
    return _done(f"{name} is deleted; the messages {what}.", user=name, account_id=account_id)


def _erase_step(call: _Call, request: requests.EraseStep) -> Answer:
    step = entries.EraseMessages(request.account_id, call.acting["by"], request.after_id, STEP_IDS)
    if request.after_id:
        return _step(call.append(step))
    act = entries.NoteAct(action="erase_messages", target=f"deleted-{request.account_id}", **call.acting)
    return _step(call.append(act, step))


def _prune_step(call: _Call, request: requests.PruneStep) -> Answer:
    act = entries.NoteAct(action="prune", target="", detail=f"before {to_iso(request.before_ms)}", **call.acting)
    step = entries.Prune(request.before_ms, request.after_id, STEP_IDS)
    return _step(call.append(step) if request.after_id else call.append(act, step))


def _step(removed: Removed) -> Answer:
    return Answer([{"messages": removed.messages, "after_id": removed.after_id}])


def _token(call: _Call, request: requests.AddToken) -> Answer:
    check_label(request.label)
    about = call.about(request.user)
    act = entries.NoteAct(action="token", target=about["username"], detail=f"id {request.token_id}", **call.acting)
    token = entries.AddToken(about["account_id"], request.token_hash, request.token_id, request.label)
    if isinstance(problem := call.append(act, token), Problem):
        raise AdminError(_PROBLEMS[problem].format(name=about["username"]))
    return _done(f"{about['username']} has a new token.", user=about["username"], id=request.token_id)


def _revoke(call: _Call, request: requests.Revoke) -> Answer:
    """The hub ends the connections that use the tokens."""
    about = call.about(request.user)
    name, token_id = about["username"], request.token_id
    if token_id and not Tokens(call.target.database).has(about["account_id"], token_id):
        raise AdminError(f"{name} has no token {token_id}.")
    act = entries.NoteAct(action="revoke", target=name, detail=f"id {token_id}" if token_id else "all", **call.acting)
    revoked = call.append(act, entries.RevokeTokens(about["account_id"], token_id)).token_ids
    return _done(f"Revoked tokens of {name}: {len(revoked)}.", user=name, revoked=len(revoked))


def _invite(call: _Call, request: requests.Invite) -> Answer:
    until_ms = None if request.seconds is None else wall_ms() + request.seconds * 1000
    until = None if until_ms is None else to_iso(until_ms)
    valid = f"valid until {until}" if until else "valid for ever"
    act = entries.NoteAct(action="invite", target="", detail=valid, **call.acting)
    call.append(entries.AddInvitation(request.code_hash, call.acting["by"], until_ms), act)
    return _done("One name can be registered with this code.", until=until)


def _sessions(call: _Call, _: requests.Sessions) -> Answer:
    return Answer(list(call.target.sessions()))


_CHANGES: Final[dict[type, Callable[[_Call, Any], Answer]]] = {
    requests.Add: _add,
    requests.Password: _password,
    requests.Operator: _operator,
    requests.Ban: _ban,
    requests.Unban: _unban,
    requests.Kick: _kick,
    requests.DeleteUser: _delete_user,
    requests.EraseStep: _erase_step,
    requests.PruneStep: _prune_step,
    requests.AddToken: _token,
    requests.Revoke: _revoke,
    requests.Invite: _invite,
    requests.Sessions: _sessions,
}


def _done(sentence: str, **row: Any) -> Answer:
    return Answer([row], sentence)
