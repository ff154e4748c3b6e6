"""The rates of the requests of one connection: which limit a request counts for, and how long it is delayed.

A message, and what others get like one, waits for the rate of messages. A query is refused if it comes too soon: its
answer is long or expensive. Each request other than a message also takes a turn of the rate of all requests, because a
flood of cheap ones would delay all other users.

The rates are those of the user, over all of its connections; before the login, those of its network. Operators of the
server and exempt addresses have none.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, get_args

from chatprotocol import requests

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chatprotocol.requests import Request
    from chatserver.chat.rate_limit import UserLimits
    from chatserver.chat.room import Member

# Requests whose answer is the hub's. They are collected in batches.
_SINGLE_MESSAGES = frozenset({requests.Say, requests.Whisper})
MESSAGES = _SINGLE_MESSAGES | {requests.SayBatch}
# Requests whose number is limited, because their answers are long or expensive.
_QUERIES = frozenset(
    {
        *(requests.AskHistory, requests.Search, requests.AskConversations, requests.AskRooms),
        # Not MarkRead: it costs as little as a message, and clients set one for each room at once.
        *(requests.AskChatHistory, requests.AskActive, requests.Rename),
        *(requests.AskTopic, requests.AskRoomBans),
        *(requests.AskMembers, requests.AskInfo, requests.AskWho, requests.AskPast, requests.AskCounts),
        # The answer lists all users; and a watch looks up each name.
        *(requests.EnterLobby, requests.Watch),
        *get_args(requests.TokenRequest),
        *get_args(requests.RoomRequest),
        *get_args(requests.ModerationRequest),
    }
)
# Names that one query looks up; more count as more queries.
_NAMES_OF_QUERY = 20
# Part of a query: a short answer, which clients ask for in each of their rooms after a login.
_SHORT_QUERY = 1 / 4
# They cost little, and their number is limited by that of messages, or of rooms that were entered.
_WITHOUT_RATE = frozenset({requests.Acknowledge, requests.AskMark})
# They count as messages, because others get them.
_LIKE_MESSAGES = _SINGLE_MESSAGES | {requests.Relay, requests.SetAway, requests.SetRealname}
# Queries, but delayed like messages: they come before a direct message.
_QUERIES_BEFORE_DIRECT = frozenset({requests.AskUsers, requests.AskUser})
# Requests before the login that are never delayed. A login takes two at most, and there are three tries.
_UNDELAYED_REQUESTS = 10
# Part of a request that input without a request counts for: empty lines, or a part of a long message. A message of the
# maximum length takes three such reads.
_INPUT_REQUESTS = 1 / 4


class RequestRates:
    """How long each request of one connection is delayed. For its reader thread."""

    def __init__(self, limits: UserLimits, network: str, *, is_exempt: bool) -> None:
        self._limits = limits
        self._network = network
        self._is_exempt = is_exempt
        # The user's key; a guest keeps it when its name, and with that its account id, changes.
        self._key: int | str = network
        self._member: Member | None = None
        # True if the rates apply. Set at each read, because SIGHUP changes the rates.
        self.is_limited = False
        # True if the last read had several messages, and the rate allowed all of them.
        self._is_within_rate = False
        self._undelayed_requests = _UNDELAYED_REQUESTS

    def note_login(self, key: int | str, member: Member | None = None) -> None:
        """Count for this user from now on. ``member``: it may be, or become, an operator of the server."""
        self._key, self._member = key, member

    def note_logout(self) -> None:
        """Undo :meth:`note_login`."""
        self._key, self._member = self._network, None

    @property
    def takes_large_reads(self) -> bool:
        """True if a large read costs no more than its requests are allowed to."""
        return self._is_within_rate or not self.is_user_limited

    @property
    def is_user_limited(self) -> bool:
        """True if the rates apply to the user, who is no operator of the server. The role may change at any time."""
        return self.is_limited and not (self._member is not None and self._member.is_operator)

    def begin_read(self, incoming: Iterable[Request]) -> bool:
        """True if the user's rate allows all messages of a read at once, which saves a call for each of them.

        A SayBatch pays for itself.
        """
        self.is_limited = not (self._is_exempt or self._limits.are_off)
        self._is_within_rate = False
        if self.is_limited and self._member is not None and isinstance(incoming, list):  # otherwise not known yet
            count = sum(type(request) in _SINGLE_MESSAGES for request in incoming)
            self._is_within_rate = count > 1 and self._limits.messages.take_all(self._key, count)
        return self._is_within_rate

    def pay_for_batch(self, count: int) -> bool:
        """True if the user's rate allows all messages of a SayBatch at once."""
        if self.is_user_limited:
            self._is_within_rate = self._limits.messages.take_all(self._key, count)
            return self._is_within_rate
        return True

    def request_delay(self, kind: type | None, *, is_logged_in: bool) -> float:
        """Return the seconds until a request other than a message, or a refused one, may be answered.

        Each costs as much time as a message. Input without a request is None.
        """
        if kind in _WITHOUT_RATE or not self.is_user_limited:
            return 0.0
        if self._undelayed_requests and not is_logged_in:
            self._undelayed_requests -= 1
            return 0.0
        return self._limits.requests.take(self._key, math.inf, _INPUT_REQUESTS if kind is None else 1)

    def turn_delay(self, kind: type, request: Request) -> float:
        """Return the seconds until the user's rate allows this request. RequestError: it does not."""
        if not self.is_user_limited:
            return 0.0
        limits = self._limits
        if kind in _LIKE_MESSAGES:
            return limits.messages.take(self._key, limits.message_delay_seconds)
        if kind in _QUERIES_BEFORE_DIRECT:
            return limits.queries.take(self._key, limits.message_delay_seconds)
        if kind in _QUERIES:
            return limits.queries.take(self._key, 0.0, _queries_of(request))
        return 0.0


def _queries_of(request: Request) -> float:
    """The number of queries that a request counts for."""
    match request:
        case requests.AskInfo() | requests.Watch():
            return max(1, len(request.usernames) / _NAMES_OF_QUERY)
        case requests.AskTopic():
            return _SHORT_QUERY
        case requests.SetModes() if request == requests.SetModes(room=request.room):  # it changes nothing
            return _SHORT_QUERY
        case _:
            return 1
