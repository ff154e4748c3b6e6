"""Limits of connections and UDP openings by network: an IPv4 address, or the /64 network of an IPv6 address.

A network may have a number of connections at once, and open a number of new ones. New connections take tokens from a
bucket, which is full again after ten minutes: a network may open all of them at once, and then one for each new token.
A refused attempt takes no token, so the time in a refusal is correct.

A browser opens several connections for a page and its files. A connection that only fetched files gives its token back
when it ends, and takes one from a bucket for pages instead; if that is empty, it counts as any other.

Exempt networks have no limits. The connections of trusted proxies begin with the real address
(chatprotocol.wire.proxy); the limits apply to that address.

Memory is bounded: a network is forgotten if it has no connection and its bucket is full, and the oldest ones without
connections are forgotten if there are too many. Their buckets are then full again.
"""

from __future__ import annotations

import math
import threading
import time
from itertools import islice
from typing import TYPE_CHECKING, Final

from chatprotocol.address import is_in_any, network_of
from chatprotocol.duration import format_wait
from chatprotocol.errors import ErrorCode
from chatprotocol.events import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from chatprotocol.address import Network
    from chatserver.counters import Counters

# Time in which the bucket of new connections is filled.
NEW_SECONDS: Final = 600.0
# Maximum answers to datagrams without a session, in a second. They take a twentieth of a processor; more would delay
# sessions.
OPENINGS_MAX: Final = 2_000
# Refusals of a network that are answered with an error, at once and then in this time. One costs 0.1 ms.
_TOLD_MAX: Final = 10
_TOLD_SECONDS: Final = 10.0
# Maximum networks without connections that are remembered, at about 300 bytes each.
_REMEMBERED_MAX: Final = 20_000
# Error of sums of fractions.
_ROUNDING_SECONDS: Final = 1e-6


class RefusedError(Exception):
    """A connection is refused. ``limit`` is a word for the log and the metrics, ``refused`` the error for the peer.

    ``is_repeated``: its network was told often in the last seconds, so the connection is closed without a word.
    """

    def __init__(self, limit: str, refused: Refused, *, is_repeated: bool = False) -> None:
        super().__init__(refused.reason)
        self.limit = limit
        self.refused = refused
        self.is_repeated = is_repeated


class Bucket:
    """A bucket of tokens: ``size`` of them, refilled evenly within ``seconds``. It begins full."""

    __slots__ = ("_full_at",)

    def __init__(self) -> None:
        self._full_at = 0.0

    def wait_seconds(self, size: int, seconds: float, now: float) -> float:
        """Return the time until there is a token; 0 if there is one."""
        wait_seconds = self._full_at + seconds / size - seconds - now
        return wait_seconds if wait_seconds > _ROUNDING_SECONDS else 0.0

    def take(self, size: int, seconds: float, now: float) -> None:
        """Take a token."""
        self._full_at = max(self._full_at, now) + seconds / size

    def give_back(self, size: int, seconds: float) -> None:
        """Put a token back."""
        self._full_at -= seconds / size

    def is_full(self, now: float) -> bool:
        return self._full_at <= now


class _Counts:
    __slots__ = ("connections", "new", "pages", "told")

    def __init__(self) -> None:
        self.connections = 0
        # Tokens for new connections, for those that only fetch files, and for refusals with an error.
        self.new = Bucket()
        self.pages = Bucket()
        self.told = Bucket()

    def is_full(self, now: float) -> bool:
        """True if the network may do all that a new one may."""
        return self.new.is_full(now) and self.pages.is_full(now)

    def refuse(self, limit: str, refused: Refused, now: float) -> RefusedError:
        """Return the error for a refused connection."""
        is_repeated = self.told.wait_seconds(_TOLD_MAX, _TOLD_SECONDS, now) > 0
        if not is_repeated:
            self.told.take(_TOLD_MAX, _TOLD_SECONDS, now)
        return RefusedError(limit, refused, is_repeated=is_repeated)


class ConnectionLimits:
    """Counts the connections of each network. For any thread."""

    def __init__(
        self,
        *,
        exempt: Iterable[Network] = (),
        trusted_proxies: Iterable[Network] = (),
        at_once_max: int = 0,
        new_max: int = 0,
        pages_max: int = 0,
        clock: Callable[[], float] = time.monotonic,
        remembered_max: int = _REMEMBERED_MAX,
    ) -> None:
        """The connections of a network, at once and in ten minutes, and those that only fetch files; 0: no limit."""
        self._exempt = tuple(exempt)
        self._trusted_proxies = tuple(trusted_proxies)
        self._at_once_max = at_once_max
        self._new_max = new_max
        self._pages_max = pages_max
        self._clock = clock
        self._remembered_max = remembered_max
        # Guards the limits, and both dicts. A network with connections is in the first one, any other in the second,
        # oldest first.
        self._lock = threading.Lock()
        self._connected: dict[str, _Counts] = {}
        self._remembered: dict[str, _Counts] = {}

    def change(self, exempt: Iterable[Network], at_once_max: int, new_max: int, pages_max: int) -> None:
        """Change the limits, for new connections."""
        with self._lock:
            self._exempt, self._at_once_max = tuple(exempt), at_once_max
            self._new_max, self._pages_max = new_max, pages_max

    def is_exempt(self, address: str) -> bool:
        """True if the limits don't apply to the address."""
        return is_in_any(address, self._exempt)

    def is_trusted_proxy(self, address: str) -> bool:
        """True if a connection from the address must begin with the address of a client."""
        return is_in_any(address, self._trusted_proxies)

    def admit(self, address: str) -> str | None:
        """Count a new connection. Returns its network for :meth:`release`. Raises RefusedError."""
        if self.is_exempt(address):
            return None
        network, now = network_of(address), self._clock()
        with self._lock:
            counts = self._connected.get(network) or self._remembered.get(network) or _Counts()
            if self._at_once_max and counts.connections >= self._at_once_max:
                reason = f"Your address has {counts.connections} connections; close one, or try again later."
                raise counts.refuse("address_connections", Refused(ErrorCode.RATE_LIMITED, reason), now)
            if self._new_max:
                if wait_seconds := math.ceil(counts.new.wait_seconds(self._new_max, NEW_SECONDS, now)):
                    reason = f"Your address has opened too many connections; try again in {format_wait(wait_seconds)}."
                    refused = Refused(ErrorCode.RATE_LIMITED, reason, retry_seconds=wait_seconds)
                    raise counts.refuse("address_new_connections", refused, now)
                counts.new.take(self._new_max, NEW_SECONDS, now)
            counts.connections += 1
            self._remembered.pop(network, None)
            self._connected[network] = counts
        return network

    def release(self, network: str | None, *, only_files: bool = False) -> None:
        """Count the end of a connection of this network; nothing for None. ``only_files``: it fetched nothing else."""
        if network is None:
            return
        now = self._clock()
        with self._lock:
            counts = self._connected[network]
            if only_files and self._new_max and self._take_page(counts, now):
                counts.new.give_back(self._new_max, NEW_SECONDS)
            counts.connections -= 1
            if counts.connections:
                return
            del self._connected[network]
            if not counts.is_full(now):
                self._remembered[network] = counts
            # Each call adds one at most, and forgets two at most.
            for oldest in list(islice(self._remembered, 2)):
                if self._remembered[oldest].is_full(now) or len(self._remembered) > self._remembered_max:
                    del self._remembered[oldest]

    def _take_page(self, counts: _Counts, now: float) -> bool:
        """True if a connection that only fetched files counts as nothing else. The lock is held."""
        if not self._pages_max:
            return True
        has_token = not counts.pages.wait_seconds(self._pages_max, NEW_SECONDS, now)
        if has_token:
            counts.pages.take(self._pages_max, NEW_SECONDS, now)
        return has_token

    def __len__(self) -> int:
        """Number of networks in memory. For any thread."""
        with self._lock:
            return len(self._connected) + len(self._remembered)


class OpeningLimits:
    """Limits datagrams without a session by network, before they cost an answer. For the UDP listener's thread.

    The source of a datagram may be forged, so there is a limit for all networks together, too. A datagram takes tokens
    from both buckets, or from neither; so one network can't use up the tokens of all.
    """

    def __init__(
        self, is_exempt: Callable[[str], bool], counters: Counters, *, each_max: int = 0, all_max: int = OPENINGS_MAX
    ) -> None:
        """``each_max`` and ``all_max`` are datagrams in a second, of a network (0: no limit) and of all."""
        self._is_exempt = is_exempt
        self._counters = counters
        self._each_max = each_max
        self._all_max = all_max
        self._all = Bucket()
        # The networks that have taken a token within about a second, in this order: ``all_max`` of them, or a few more.
        self._networks: dict[str, Bucket] = {}

    def take(self, host: str, now: float) -> bool:
        """True if a datagram from this address may be answered."""
        may_take = not self._all.wait_seconds(self._all_max, 1.0, now) and self._take(host, now)
        if may_take:
            self._all.take(self._all_max, 1.0, now)
        else:
            self._counters.limits_hit["udp_openings"] += 1
        return may_take

    def _take(self, host: str, now: float) -> bool:
        """Take a token from the bucket of the network, if it has one."""
        if not self._each_max:
            return True
        name = network_of(host) if ":" in host else host
        bucket = self._networks.get(name)
        if bucket is None:
            if self._is_exempt(host):
                return True
            bucket = Bucket()
        if bucket.wait_seconds(self._each_max, 1.0, now):
            return False
        bucket.take(self._each_max, 1.0, now)
        self._networks.pop(name, None)
        self._networks[name] = bucket
        for oldest in list(islice(self._networks, 2)):
            if self._networks[oldest].is_full(now):
                del self._networks[oldest]
        return True

    def __len__(self) -> int:
        """Number of networks in memory."""
        return len(self._networks)
