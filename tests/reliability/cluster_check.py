"""Comparison of the messages that a cluster stored with the answers and messages that its clients got. Pure.

A *view* has the ids of the messages of one conversation that a client was told: heard as messages of others or of its
own earlier connections, or confirmed as its own. All connections of the client together are one view.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from reliability.history import Content

LOBBY = "lobby"
DIRECT = "direct"
# Ids in the text of a problem.
_NAMED_MAX = 10

# The messages of a server, in the order of its history.
History: TypeAlias = "Sequence[tuple[int, Content]]"


class View(NamedTuple):
    """The ids of a conversation, in the order in which the client was told."""

    username: str
    place: str
    ids: Sequence[int]


class Told(NamedTuple):
    """All answers and messages of the clients."""

    confirmed: Sequence[tuple[int, Content]]
    # Messages that were refused on the only connection on which they were sent.
    refused: Sequence[Content]
    # The content that each id was seen with.
    seen: Mapping[int, Content]
    views: Sequence[View]


def place_of(content: Content) -> str:
    """The conversation of a message: a room, the lobby, or the direct messages of a user."""
    return DIRECT if content.recipient is not None else content.room or LOBBY


def find_problems(histories: Mapping[str, History], told: Told, members: Mapping[str, frozenset[str]]) -> list[str]:
    """All broken promises, each as a sentence. ``histories`` is by server; ``members`` has the users of each room.

    Each server has each confirmed message once, with the id of the confirmation, and no message that was refused. All
    servers have the same messages in the same order. Each view has all messages that its user may see, in this order.
    """
    problems = []
    for server, history in histories.items():
        problems += [f"{server}: {each}" for each in _check_history(history, told)]
    (first, reference), *others = histories.items()
    for server, history in others:
        if list(history) != list(reference):
            here, there = set(history), set(reference)
            differing = sorted((here | there) - (here & there))[:_NAMED_MAX]
            problems.append(f"{server} and {first} have other histories: {differing or 'another order'}")
    for view in told.views:
        expected = [
            message_id
            for message_id, content in reference
            if place_of(content) == view.place and _is_visible(content, view.username, members)
        ]
        problems += [f"{view.username} in {view.place}: {each}" for each in _compare(expected, view.ids)]
    return problems


def _check_history(history: History, told: Told) -> Iterator[str]:
    ids = [message_id for message_id, _ in history]
    if ids != sorted(set(ids)):
        yield "its ids don't grow"
    times = Counter(content for _, content in history)
    repeated = [content for content, count in times.items() if count > 1]
    if repeated:
        yield f"messages are stored more than once: {repeated[:_NAMED_MAX]}"
    stored = dict(history)
    for message_id, content in told.confirmed:
        if content not in times:
            yield f"a confirmed message is lost: {message_id} {content}"
        elif stored.get(message_id) != content:
            yield f"a message was confirmed as {message_id}, which is {stored.get(message_id)} here: {content}"
    for content in told.refused:
        if content in times:
            yield f"a message was refused, and is stored: {content}"
    for message_id, content in told.seen.items():
        if stored.get(message_id) != content:
            yield f"a message was seen as {message_id}, which is {stored.get(message_id)} here: {content}"


def _is_visible(content: Content, username: str, members: Mapping[str, frozenset[str]]) -> bool:
    if content.recipient is not None:
        return username in (content.sender, content.recipient)
    return content.room is None or username in members[content.room]


def _compare(expected: Sequence[int], ids: Sequence[int]) -> Iterator[str]:
    """The differences between a view and the ids that it must have."""
    if list(ids) == list(expected):
        return
    repeated = [each for each, count in Counter(ids).items() if count > 1]
    missing = sorted(set(expected).difference(ids))
    foreign = sorted(set(ids).difference(expected))
    for word, which in (("repeated", repeated), ("missing", missing), ("not of this user", foreign)):
        if which:
            yield f"{len(which)} messages are {word}: {which[:_NAMED_MAX]}"
    late = [after for before, after in itertools.pairwise(ids) if after < before]
    if late:
        yield f"messages are out of order: {late[:_NAMED_MAX]}"
