"""The commands of somebody who is logged in."""

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
    """PM: the confirmation comes when it is stored."""
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
    """PM, many in a row. Raises Refusal where one can't be taken, and then takes none."""
    for text in texts:
        check_text(text)
    if not batches or batches[-1].recipient is not None:
        batches.append(MessageBatch(member, [], []))
    batches[-1].texts += texts
    batches[-1].nonces += [None] * len(texts)


def whisper(services: Services, member: Member, request: requests.Whisper, batches: list[MessageBatch]) -> None:
    """DM: the same, to a user who exists."""
    check_text(request.text)
    if request.nonce is not None:
        check_nonce(request.nonce)
    batches.append(MessageBatch(member, [request.text], [request.nonce], find_recipient(services, request.to)))


def find_recipient(services: Services, name: str) -> Account:
    """A user who has an account, or a guest who is here. Raises Refusal."""
    recipient = services.accounts.find(name) or services.guests.find(name)
    if recipient is None:
        raise unknown_user(name)
    return recipient


def hand_over(services: Services, batches: Sequence[MessageBatch]) -> None:
    """Give the journal what one seat has to say, all of one read together. Raises JournalClosedError."""
    batches[0].member.has_posted = True
    services.journal.append(batches)


def list_users(services: Services, _: Member, send_queue: SendQueue, __: requests.AskUsers) -> None:
    """Everybody who is online, however many."""
    send_queue.put([Online(services.presence.names())])


def find_user(services: Services, _: Member, send_queue: SendQueue, request: requests.AskUser) -> None:
    """Is there such a user, to whom a direct message could be sent? Raises Refusal."""
    name = find_recipient(services, request.username).name
    send_queue.put([User(name, services.presence.is_online(name))])


def show_history(services: Services, member: Member, send_queue: SendQueue, request: requests.AskHistory) -> None:
    """CH: what the user has posted before is in it, and nothing that is still to be delivered: that comes behind it."""
    settle(services, member)
    before_id = _before_id(request, services.hub.last_id())
    send_queue.put([History(services.messages.history(member.account_id, before_id, request.limit))])


def search(services: Services, member: Member, send_queue: SendQueue, request: requests.Search) -> None:
    """What the user has posted before is looked through as well, and nothing that is still to be delivered: see CH."""
    terms = terms_of(request.words)
    settle(services, member)
    newest_id = services.hub.last_id()
    before_id = _before_id(request, newest_id)
    messages, upto_id = services.indexer.search(terms, member.account_id, before_id, request.limit, newest_id)
    send_queue.put([Found(request.words, messages, upto_id)])


def change_password(
    services: Services, member: Member, send_queue: SendQueue, request: requests.ChangePassword
) -> None:
    """The answer comes when it is stored. Connections that are logged in stay so."""
    login.change_password(services, member.name, request.old, request.new)
    send_queue.put([PasswordChanged()])


def _before_id(request: requests.AskHistory | requests.Search, newest_id: int) -> int:
    """Below this id is what may be told: nothing that is newer than the newest message that was published."""
    return newest_id + 1 if request.before is None else min(newest_id + 1, request.before)


def settle(services: Services, member: Member) -> None:
    """Wait until everything that the seat posted is confirmed or refused."""
    if member.has_posted:
        member.has_posted = False
        services.journal.wait_for_pending()


# What makes a message, which is put to the others, and what is answered at once.
BATCHES: Final[dict[type, Callable[[Services, Member, Any, list[MessageBatch]], None]]] = {
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
