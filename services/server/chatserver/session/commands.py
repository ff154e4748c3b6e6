"""The commands of somebody who is logged in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from chatprotocol import requests
from chatprotocol.events import Found, History, Online, PasswordChanged, User
from chatprotocol.rules import check_nonce, check_text, unknown_user
from chatserver.room.post import Post
from chatserver.session import entrance
from chatserver.store.words import terms_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chatserver.room.seat import Outbox, Seat
    from chatserver.session.context import Context
    from chatserver.store.accounts import Account


def say(_: Context, seat: Seat, request: requests.Say, posts: list[Post]) -> None:
    """PM: the confirmation comes when it is stored."""
    text, nonce = request.text, request.nonce
    check_text(text)
    if nonce is not None:
        check_nonce(nonce)
    if posts and (last := posts[-1]).recipient is None:
        last.texts.append(text)
        last.nonces.append(nonce)
    else:
        posts.append(Post(seat, [text], [nonce]))


def say_all(seat: Seat, texts: Sequence[str], posts: list[Post]) -> None:
    """PM, many in a row. Raises Refusal where one can't be taken, and then takes none."""
    for text in texts:
        check_text(text)
    if not posts or posts[-1].recipient is not None:
        posts.append(Post(seat, [], []))
    posts[-1].texts += texts
    posts[-1].nonces += [None] * len(texts)


def whisper(context: Context, seat: Seat, request: requests.Whisper, posts: list[Post]) -> None:
    """DM: the same, to a user who exists."""
    check_text(request.text)
    if request.nonce is not None:
        check_nonce(request.nonce)
    posts.append(Post(seat, [request.text], [request.nonce], find_recipient(context, request.to)))


def find_recipient(context: Context, name: str) -> Account:
    """A user who has an account, or a guest who is here. Raises Refusal."""
    recipient = context.accounts.find(name) or context.guests.find(name)
    if recipient is None:
        raise unknown_user(name)
    return recipient


def hand_over(context: Context, posts: Sequence[Post]) -> None:
    """Give the journal what one seat has to say, all of one read together. Raises JournalClosedError."""
    posts[0].seat.has_posted = True
    context.journal.append(posts)


def list_users(context: Context, _: Seat, outbox: Outbox, __: requests.AskUsers) -> None:
    """Everybody who is online, however many."""
    outbox.put([Online(context.presence.names())])


def find_user(context: Context, _: Seat, outbox: Outbox, request: requests.AskUser) -> None:
    """Is there such a user, to whom a direct message could be sent? Raises Refusal."""
    name = find_recipient(context, request.username).name
    outbox.put([User(name, context.presence.is_online(name))])


def show_history(context: Context, seat: Seat, outbox: Outbox, request: requests.AskHistory) -> None:
    """CH: what the user has posted before is in it, and nothing that is still to be delivered: that comes behind it."""
    settle(context, seat)
    before_id = _before_id(request, context.feed.last_id())
    outbox.put([History(context.messages.history(seat.account_id, before_id, request.limit))])


def search(context: Context, seat: Seat, outbox: Outbox, request: requests.Search) -> None:
    """What the user has posted before is looked through as well, and nothing that is still to be delivered: see CH."""
    terms = terms_of(request.words)
    settle(context, seat)
    newest_id = context.feed.last_id()
    before_id = _before_id(request, newest_id)
    messages, upto_id = context.indexer.search(terms, seat.account_id, before_id, request.limit, newest_id)
    outbox.put([Found(request.words, messages, upto_id)])


def change_password(context: Context, seat: Seat, outbox: Outbox, request: requests.ChangePassword) -> None:
    """The answer comes when it is stored. Connections that are logged in stay so."""
    entrance.change_password(context, seat.name, request.old, request.new)
    outbox.put([PasswordChanged()])


def _before_id(request: requests.AskHistory | requests.Search, newest_id: int) -> int:
    """Below this id is what may be told: nothing that is newer than the newest message that was published."""
    return newest_id + 1 if request.before is None else min(newest_id + 1, request.before)


def settle(context: Context, seat: Seat) -> None:
    """Wait until everything that the seat posted is confirmed or refused."""
    if seat.has_posted:
        seat.has_posted = False
        context.journal.wait_for_pending()


# What makes a message, which is put to the others, and what is answered at once.
POSTS: Final[dict[type, Callable[[Context, Seat, Any, list[Post]], None]]] = {
    requests.Say: say,
    requests.Whisper: whisper,
}
COMMANDS: Final[dict[type, Callable[[Context, Seat, Outbox, Any], None]]] = {
    requests.AskUsers: list_users,
    requests.AskUser: find_user,
    requests.AskHistory: show_history,
    requests.Search: search,
    requests.ChangePassword: change_password,
}
