"""The commands of a logged-in user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from chatprotocol import requests
from chatprotocol.events import Found, History, Online, PasswordChanged, User
from chatprotocol.rules import check_nonce, check_text, unknown_user
from chatserver.chat import login
from chatserver.chat.batch import MessageBatch
from chatserver.store.words import terms_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chatserver.chat.member import Member, SendQueue
    from chatserver.chat.services import Services
    from chatserver.store.accounts import Account


def say(_: Services, member: Member, request: requests.Say, batches: list[MessageBatch]) -> None:
    """PM: confirmed after the commit."""
    text, nonce = request.text, request.nonce
    check_text(text)
    if nonce is not None:
        check_nonce(nonce)
    if batches and (last := batches[-1]).recipient is None:
        last.texts.append(text)
        last.nonces.append(nonce)
    else:
        batches.append(MessageBatch(member, [text], [nonce]))


def say_all(member: Member, texts: Sequence[str], batches: list[MessageBatch]) -> None:
    """Add several public messages. RequestError: one is invalid, and none was added."""
    for text in texts:
        check_text(text)
    if not batches or batches[-1].recipient is not None:
        batches.append(MessageBatch(member, [], []))
    batches[-1].texts += texts
    batches[-1].nonces += [None] * len(texts)


def whisper(services: Services, member: Member, request: requests.Whisper, batches: list[MessageBatch]) -> None:
    """DM: confirmed after the commit. RequestError: the recipient is unknown."""
    check_text(request.text)
    if request.nonce is not None:
        check_nonce(request.nonce)
    batches.append(MessageBatch(member, [request.text], [request.nonce], find_recipient(services, request.to)))


def find_recipient(services: Services, name: str) -> Account:
    """Return the account of a user or of a guest who is online. RequestError: unknown name."""
    recipient = services.accounts.find(name) or services.guests.find(name)
    if recipient is None:
        raise unknown_user(name)
    return recipient


def append_batches(services: Services, batches: Sequence[MessageBatch]) -> None:
    """Append the batches of one member to the journal. Raises JournalClosedError."""
    batches[0].member.has_appended = True
    services.journal.append(batches)


def list_users(services: Services, _: Member, send_queue: SendQueue, __: requests.AskUsers) -> None:
    """List all online users."""
    send_queue.put([Online(services.presence.names())])


def find_user(services: Services, _: Member, send_queue: SendQueue, request: requests.AskUser) -> None:
    """Report whether a user is online. RequestError: unknown name."""
    name = find_recipient(services, request.username).name
    send_queue.put([User(name, services.presence.is_online(name))])


def show_history(services: Services, member: Member, send_queue: SendQueue, request: requests.AskHistory) -> None:
    """CH: includes all earlier messages of the user, and no message that is delivered after the reply."""
    wait_for_pending(services, member)
    before_id = _before_id(request, services.hub.last_id())
    send_queue.put([History(services.messages.history(member.account_id, before_id, request.limit))])


def search(services: Services, member: Member, send_queue: SendQueue, request: requests.Search) -> None:
    """Search the messages that :func:`show_history` would show."""
    terms = terms_of(request.words)
    wait_for_pending(services, member)
    newest_id = services.hub.last_id()
    before_id = _before_id(request, newest_id)
    messages, upto_id = services.indexer.search(terms, member.account_id, before_id, request.limit, newest_id)
    send_queue.put([Found(request.words, messages, upto_id)])


def change_password(
    services: Services, member: Member, send_queue: SendQueue, request: requests.ChangePassword
) -> None:
    """Reply after the commit. Logged-in connections stay logged in."""
    login.change_password(services, member.name, request.old, request.new)
    send_queue.put([PasswordChanged()])


def _before_id(request: requests.AskHistory | requests.Search, newest_id: int) -> int:
    """Exclusive upper bound of ids: nothing newer than the newest published message."""
    return newest_id + 1 if request.before is None else min(newest_id + 1, request.before)


def wait_for_pending(services: Services, member: Member) -> None:
    """Wait until all messages of the member are confirmed or rejected."""
    if member.has_appended:
        member.has_appended = False
        services.journal.wait_for_pending()


# Requests that add a message to the batches, and requests that are answered at once.
MESSAGE_COMMANDS: Final[dict[type, Callable[[Services, Member, Any, list[MessageBatch]], None]]] = {
    requests.Say: say,
    requests.Whisper: whisper,
}
COMMANDS: Final[dict[type, Callable[[Services, Member, SendQueue, Any], None]]] = {
    requests.AskUsers: list_users,
    requests.AskUser: find_user,
    requests.AskHistory: show_history,
    requests.Search: search,
    requests.ChangePassword: change_password,
}
