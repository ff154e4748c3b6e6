"""The commands of somebody who is logged in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from chatprotocol import requests
from chatprotocol.errors import ErrorCode, Refusal
from chatprotocol.events import History, Users
from chatprotocol.limits import ID_MAX
from chatprotocol.rules import check_nonce, check_text
from chatserver.room.post import Post

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chatserver.room.seat import Seat
    from chatserver.session.context import Context


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


def whisper(context: Context, seat: Seat, request: requests.Whisper, posts: list[Post]) -> None:
    """DM: the same, to a user who exists."""
    check_text(request.text)
    if request.nonce is not None:
        check_nonce(request.nonce)
    recipient = context.accounts.find(request.to)
    if recipient is None:
        raise Refusal(ErrorCode.UNKNOWN_USER, f"There is no user {request.to[:64]!r}; nothing was sent.")
    posts.append(Post(seat, [request.text], [request.nonce], recipient))


def post(context: Context, posts: Sequence[Post]) -> None:
    """Hand over what one seat has to say, all of one read together. Raises JournalClosedError."""
    posts[0].seat.has_posted = True
    context.journal.post(posts)


def list_users(context: Context, seat: Seat, _: requests.AskUsers) -> None:
    """Everybody who is online, however many."""
    names = context.presence.names()
    seat.outbox.put([Users(len(names), names)])


def show_history(context: Context, seat: Seat, request: requests.AskHistory) -> None:
    """CH: what the user has posted before is in it."""
    settle(context, seat)
    before_id = ID_MAX if request.before is None else request.before
    seat.outbox.put([History(context.messages.history(seat.account_id, before_id, request.limit))])


def settle(context: Context, seat: Seat) -> None:
    """Wait until everything that the seat posted is confirmed or refused."""
    if seat.has_posted:
        seat.has_posted = False
        context.journal.settle()


# What makes a message, which is put to the others, and what is answered at once.
POSTS: Final[dict[type, Callable[[Context, Seat, Any, list[Post]], None]]] = {
    requests.Say: say,
    requests.Whisper: whisper,
}
COMMANDS: Final[dict[type, Callable[[Context, Seat, Any], None]]] = {
    requests.AskUsers: list_users,
    requests.AskHistory: show_history,
}
