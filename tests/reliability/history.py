"""What is stored, as the server tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from integration.room import Peer

if TYPE_CHECKING:
    from collections.abc import Iterator

# The most that one answer holds.
_PAGE = 500


class Content(NamedTuple):
    """A message, but for its place."""

    sender: str
    recipient: str | None
    text: str


def content_of(answer: dict[str, Any]) -> Content:
    """Of a broadcast or direct object."""
    return Content(answer["from"], answer.get("to"), answer["message"])


def read_history(port: int, name: str, after_id: int = 0) -> dict[int, Content]:
    """All that the user may see after this id, oldest first, by CH on a connection of its own."""
    newest_first = list(_read_back(port, name, after_id))
    ids = [message_id for message_id, _ in newest_first]
    assert ids == sorted(set(ids), reverse=True), "the history is in the order of the ids, each once"
    return dict(reversed(newest_first))


def _read_back(port: int, name: str, after_id: int) -> Iterator[tuple[int, Content]]:
    reader = Peer(port)
    reader.login(name)
    before: dict[str, int] = {}
    while True:
        reader.ask(command="CH", limit=_PAGE, **before)
        page = reader.next("history")["messages"]
        for message in reversed(page):
            if message["id"] > after_id:
                yield message["id"], content_of(message)
        if len(page) < _PAGE or page[0]["id"] <= after_id:
            reader.close()
            return
        before = {"before": page[0]["id"]}
