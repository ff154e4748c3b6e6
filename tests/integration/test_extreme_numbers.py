"""Numbers of any size in requests: an error or an answer, and the journal, which would end with the server, goes on."""

from __future__ import annotations

import json
import re
import socket
from typing import TYPE_CHECKING, Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from integration.irc import IrcPeer
from integration.room import leave

from chatprotocol.limits import ID_MAX
from chatprotocol.requests import TaggedRequest
from chatserver.admin.requests import ChangeRequest
from chatserver.control import ADMIN_FILE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from integration.room import Peer, Room

# Every number of a request, and the other members of the request.
OF_USERS: dict[tuple[str, str], dict[str, Any]] = {
    ("login", "since"): {"username": "resuming", "password": "secret"},
    ("CH", "limit"): {},
    ("CH", "before"): {},
    ("CH", "after"): {},
    ("search", "limit"): {"words": "x"},
    ("search", "before"): {"words": "x"},
    ("ban", "seconds"): {"username": "target"},
    ("mute", "seconds"): {"username": "target"},
    ("delete", "id"): {},
    ("report", "id"): {},
    ("modes", "members_max"): {"room": "dev"},
    ("audit", "limit"): {},
    ("audit", "before"): {},
}
OF_ADMINISTRATORS: dict[tuple[str, str], dict[str, Any]] = {
    ("ban", "seconds"): {"target": "other", "reason": ""},
    ("invite", "seconds"): {"code_hash": "x"},
    ("erase-step", "account_id"): {"after_id": 0},
    ("erase-step", "after_id"): {"account_id": 1},
    ("prune-step", "before_ms"): {"after_id": 0},
    ("prune-step", "after_id"): {"before_ms": 0},
}
# Every number of a line of irc, and every time; "%" is its place.
OF_IRC = (
    *("CAP LS %", "WHOWAS guest %", "LIST >%", "LIST C<%", "WHO * %%tn,%", "REDACT #numbers %", "REDACT watcher %"),
    *("MODE #numbers +l %", "CHATHISTORY LATEST #numbers * %", "CHATHISTORY TARGETS timestamp=% timestamp=% 5"),
    *(f"CHATHISTORY {word} #numbers msgid=% 5" for word in ("LATEST", "BEFORE", "AFTER", "AROUND")),
    *(f"CHATHISTORY {word} #numbers timestamp=% 5" for word in ("LATEST", "BEFORE", "AFTER", "AROUND")),
    *(
        "CHATHISTORY BETWEEN #numbers msgid=% timestamp=% %",
        "MARKREAD #numbers timestamp=%",
        "MARKREAD watcher timestamp=%",
    ),
)
TIMES = ["0000-00-00T00:00:00.000Z", "0001-01-01T00:00:00.000Z", "9999-12-31T23:59:59.999999Z"]
EDGES = [sign * (2**bits + more) for sign in (1, -1) for bits in (31, 32, 53, 63, 64, 200) for more in (-2, -1, 0, 1)]
numbers = st.sampled_from([0, -1, 1.5, 1e300, 253_402_300_799_999, ID_MAX, *EDGES]) | st.integers()


def numbers_of(requests: Iterable[type[msgspec.Struct]]) -> set[tuple[str, str]]:
    def is_number(kind: msgspec.inspect.Type) -> bool:
        if isinstance(kind, msgspec.inspect.UnionType):
            return any(map(is_number, kind.types))
        return isinstance(kind, msgspec.inspect.IntType)

    return {
        (str(kind.tag), field.encode_name)
        for kind in msgspec.inspect.multi_type_info(requests)
        if isinstance(kind, msgspec.inspect.StructType)
        for field in kind.fields
        if is_number(field.type)
    }


def test_tables_are_complete() -> None:
    assert set(OF_USERS) == numbers_of(get_args(TaggedRequest))
    assert set(OF_ADMINISTRATORS) == numbers_of(get_args(ChangeRequest))


def is_answered(peer: Peer, **request: Any) -> bool:
    """False for an error. The answers of moderation come from the journal, and a ping's after them."""
    peer.ask(**request)
    return all(each["type"] != "error" for each in peer.until_fence())


def test_any_number_of_a_user_is_answered(moderated: Room) -> None:
    peer = moderated.peer()
    peer.login("op", moderation=True, rooms=True)
    moderated.enter("target")

    @settings(max_examples=200, deadline=None)
    @given(st.sampled_from(sorted(OF_USERS)), numbers)
    def ask(name: tuple[str, str], number: float) -> None:
        command, member = name
        asked = moderated.peer() if command == "login" else peer
        value: Any = number
        if command == "login" and number % 2:
            value = {"lobby": number, "direct": number}
        is_answered(asked, command=command, **{member: value}, **OF_USERS[name])
        if command == "login":
            asked.close()

    ask()
    assert is_answered(peer, command="CH", before=ID_MAX)
    peer.say("the journal goes on")


@pytest.mark.parametrize("is_guest", [False, True], ids=["user", "guest"])
def test_any_number_of_irc_is_answered(moderated: Room, is_guest: bool) -> None:
    """The connection goes on, and others are told no time that is none."""
    peer, other = moderated.connect(IrcPeer), moderated.connect(IrcPeer)
    if not is_guest:
        leave(moderated.enter("anna"))
    for each in (peer, other):
        name = "guest" if each is peer else "watcher"
        each.register(name, caps="draft/read-marker batch server-time", account="" if is_guest else "anna")
        each.put("JOIN #numbers")

    @settings(max_examples=100, deadline=None)
    @given(st.sampled_from(OF_IRC), numbers.map(str) | st.sampled_from(TIMES))
    def ask(line: str, number: str) -> None:
        peer.put(line.replace("%%", "\0").replace("%", number).replace("\0", "%"))
        said = "\n".join((*peer.sync(), *other.sync()))
        assert not re.search(r"timestamp=(?!\d{4}-\d\d-\d\dT[\d:.]{12}Z)", re.sub(r"FAIL .*", "", said)), said

    ask()


def ask_as_administrator(room: Room, request: dict[str, Any]) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as sock, sock.makefile("rb") as answers:
        sock.settimeout(10.0)
        sock.connect(str(room.config.data / ADMIN_FILE))
        sock.sendall(json.dumps(request).encode() + b"\n")
        answer: dict[str, Any] = json.loads(answers.readline())
        return answer


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="the system has no Unix sockets")
def test_any_number_of_an_administrator_is_answered(moderated: Room) -> None:
    peer = moderated.peer()
    peer.login("op", moderation=True)
    moderated.enter("other")

    @settings(max_examples=200, deadline=None)
    @given(st.sampled_from(sorted(OF_ADMINISTRATORS)), numbers)
    def ask(name: tuple[str, str], number: float) -> None:
        command, member = name
        answer = ask_as_administrator(moderated, {"command": command, member: number, **OF_ADMINISTRATORS[name]})
        assert answer.get("error") or answer["rows"]

    ask()
    refused = ask_as_administrator(moderated, {"command": "prune-step", "before_ms": 0, "after_id": ID_MAX})
    assert "after_id" in refused["error"]
    peer.say("the journal goes on")
