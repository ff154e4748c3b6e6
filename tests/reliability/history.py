"""The stored messages: by the server's answers, and in the database."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

from integration.room import Peer

if TYPE_CHECKING:
    from pathlib import Path

# Maximum of one answer.
_PAGE = 500
_QUERY = """
SELECT message.id, sender.name, recipient.name, text, room.name
FROM message
JOIN account AS sender ON sender.id = sender_id LEFT JOIN account AS recipient ON recipient.id = recipient_id
LEFT JOIN conversation AS room ON room.id = conversation_id AND room.kind = 'room' AND room.id > 0
WHERE message.id > ? ORDER BY message.id
"""


class Content(NamedTuple):
    """A message without its id and time. Without a room and a recipient it was said in the lobby."""

    sender: str
    recipient: str | None
    text: str
    room: str | None = None


def content_of(answer: dict[str, Any]) -> Content:
    """The content of a broadcast or direct object."""
    return Content(answer["from"], answer.get("to"), answer["message"], answer.get("room"))


def read_database(folder: Path, after_id: int = 0) -> dict[int, Content]:
    """All messages by id, in order."""
    with closing(sqlite3.connect(folder / "chat.db")) as database:
        return {message_id: Content(*content) for message_id, *content in database.execute(_QUERY, [after_id])}


def read_history(port: int, name: str) -> dict[int, Content]:
    """All messages that the user may see, oldest first, by CH on a connection of its own."""
    newest_first: list[tuple[int, Content]] = []
    before: dict[str, int] = {}
    with closing(Peer(port)) as reader:
        reader.login(name)
        is_complete = False
        while not is_complete:
            reader.ask(command="CH", limit=_PAGE, **before)
            page = reader.next("history")["messages"]
            newest_first += [(message["id"], content_of(message)) for message in reversed(page)]
            is_complete = len(page) < _PAGE
            before = {"before": newest_first[-1][0]} if page else {}
    ids = [message_id for message_id, _ in newest_first]
    assert ids == sorted(set(ids), reverse=True), "the history has each id once, in order"
    return dict(reversed(newest_first))
