"""Limits of connections and UDP openings by network."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatprotocol.address import network_of, read_networks
from chatprotocol.errors import ErrorCode
from chatserver.counters import Counters
from chatserver.net.limits import NEW_SECONDS, ConnectionLimits, OpeningLimits, RefusedError

from .udp_line import Clock

HOST, OTHER = "192.0.2.1", "192.0.2.2"


def connections(clock: Clock, at_once: int = 0, new: int = 0, pages: int = 0, **more: int) -> ConnectionLimits:
    exempt = read_networks("10.0.0.0/8,fe80::/10")
    return ConnectionLimits(exempt=exempt, at_once_max=at_once, new_max=new, pages_max=pages, clock=clock, **more)


def refusal(limits: ConnectionLimits, address: str) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        limits.admit(address)
    assert caught.value.refused.code is ErrorCode.RATE_LIMITED
    return caught.value


@pytest.mark.parametrize(
    ("address", "is_exempt"),
    [("10.1.2.3", True), ("::ffff:10.1.2.3", True), ("fe80::1%eth0", True), ("11.1.2.3", False), ("::10.1.2.3", False)],
)
def test_addresses_of_exempt_networks_are_exempt(address: str, *, is_exempt: bool) -> None:
    limits = connections(Clock(0.0), at_once=1)
    assert limits.is_exempt(address) is is_exempt
    assert (limits.admit(address) is None) is is_exempt


@pytest.mark.parametrize(("one", "other"), [(HOST, "::ffff:192.0.2.1"), ("2001:db8::1", "2001:db8::ffff:2")])
def test_network_has_a_number_of_connections_at_once(one: str, other: str) -> None:
    """A /64 is one network. Other networks are not concerned."""
    limits = connections(Clock(0.0), at_once=2)
    network = limits.admit(one)
    limits.admit(other)
    error = refusal(limits, one)
    assert (error.limit, error.refused.retry_seconds) == ("address_connections", None)
    limits.admit(OTHER)
    limits.admit("2001:db8:0:1::1")
    limits.release(network)
    limits.admit(other)
    refusal(limits, other)


def test_network_opens_a_number_of_connections_in_ten_minutes() -> None:
    """All at once, or one after the other; the refusal names the time that works."""
    clock = Clock(1_000.0)
    limits = connections(clock, new=7)
    for _ in range(7):
        limits.release(limits.admit(HOST))
    error = refusal(limits, HOST)
    wait_seconds = error.refused.retry_seconds
    assert (error.limit, wait_seconds) == ("address_new_connections", 86)
    assert "try again in 86 s" in error.refused.reason
    limits.admit(OTHER)
    clock.now += 85.0
    refusal(limits, HOST)
    clock.now += 1.0
    limits.release(limits.admit(HOST))
    refusal(limits, HOST)
    clock.now += NEW_SECONDS
    for _ in range(7):
        limits.admit(HOST)
    refusal(limits, HOST)


def test_connections_for_files_have_a_number_of_their_own() -> None:
    """Within it they count as nothing else when they have ended, and beyond it as any other."""
    clock = Clock(0.0)
    limits = connections(clock, at_once=2, new=3, pages=5)
    for _ in range(5 + 2):
        limits.release(limits.admit(HOST), only_files=True)
    networks = [limits.admit(HOST)]
    assert refusal(limits, HOST).limit == "address_new_connections"
    limits.admit(OTHER)
    clock.now += NEW_SECONDS / 3
    networks.append(limits.admit(HOST))
    assert refusal(limits, HOST).limit == "address_connections", "files count at once"
    for network in networks:
        limits.release(network, only_files=True)
    assert limits.admit(HOST), "the bucket of pages has tokens again"


def test_network_gets_few_errors_of_refusals() -> None:
    """The others cost next to nothing: neither a line nor an answer."""
    clock = Clock(0.0)
    limits = connections(clock, at_once=1)
    limits.admit(HOST)
    limits.admit(OTHER)
    assert [refusal(limits, HOST).is_repeated for _ in range(20)] == [False] * 10 + [True] * 10
    assert not refusal(limits, OTHER).is_repeated
    clock.now += 1.0
    assert [refusal(limits, HOST).is_repeated for _ in range(2)] == [False, True]


def test_networks_are_forgotten() -> None:
    """Promise: memory stays bounded, also if there are very many networks."""
    clock = Clock(0.0)
    limits = connections(clock, new=2, remembered_max=100)
    for number in range(1_000):
        limits.release(limits.admit(f"192.0.{number // 256}.{number % 256}"))
    assert len(limits) <= 101
    clock.now += NEW_SECONDS
    for number in range(100):
        limits.release(limits.admit(HOST), only_files=number % 2 == 0)
        clock.now += NEW_SECONDS
    assert len(limits) <= 1


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("admit"), st.sampled_from([HOST, OTHER, "2001:db8::1", "2001:db8::2"])),
            st.tuples(st.sampled_from(["release", "release page"]), st.integers(0, 5)),
            st.tuples(st.just("wait"), st.integers(0, 400)),
        ),
        max_size=60,
    )
)
def test_counts_are_those_of_a_list(steps: list[tuple[str, str | int]]) -> None:
    """The model keeps all connections in a list, and the tokens of each network."""
    clock = Clock(0.0)
    limits = connections(clock, at_once=3, new=4, pages=2)
    open_now: list[str] = []
    tokens: dict[str, float] = {}
    pages: dict[str, float] = {}
    for action, value in steps:
        if action == "wait":
            assert isinstance(value, int)
            clock.now += value
            tokens = {name: min(4.0, left + value * 4 / NEW_SECONDS) for name, left in tokens.items()}
            pages = {name: min(2.0, left + value * 2 / NEW_SECONDS) for name, left in pages.items()}
        elif action.startswith("release"):
            assert isinstance(value, int)
            if value < len(open_now):
                name = open_now.pop(value)
                limits.release(name, only_files=action == "release page")
                if action == "release page" and pages.get(name, 2.0) > 1.0 - 1e-6:
                    pages[name] = pages.get(name, 2.0) - 1.0
                    tokens[name] = min(4.0, tokens[name] + 1.0)
        else:
            name = network_of(str(value))
            is_free = open_now.count(name) < 3 and tokens.get(name, 4.0) > 1.0 - 1e-6
            if is_free:
                assert limits.admit(str(value)) == name
                open_now.append(name)
                tokens[name] = tokens.get(name, 4.0) - 1.0
            else:
                refusal(limits, str(value))


def openings(each: int, in_all: int, counters: Counters | None = None) -> OpeningLimits:
    return OpeningLimits(lambda host: host == "10.0.0.1", counters or Counters(), each_max=each, all_max=in_all)


def test_network_opens_a_number_of_sessions_in_a_second_and_does_not_use_up_those_of_others() -> None:
    counters = Counters()
    limits = openings(20, 100, counters)
    assert sum(limits.take(HOST, 5.0) for _ in range(1_000)) == 20
    assert counters.limits_hit == {"udp_openings": 980}
    assert sum(limits.take(f"2001:db8::{number:x}", 5.0) for number in range(100)) == 20
    assert sum(limits.take(OTHER, 5.0) for _ in range(100)) == 20
    assert limits.take(HOST, 5.05)
    assert not limits.take(HOST, 5.05)


def test_all_networks_open_a_number_of_sessions_in_a_second() -> None:
    """Sources may be forged. Promise: memory stays bounded."""
    limits = openings(20, 100)
    for second in range(50):
        hosts = [f"192.0.{number // 256}.{number % 256}" for number in range(second * 300, second * 300 + 300)]
        assert sum(limits.take(host, float(second)) for host in hosts) == 100
        assert len(limits) <= 200
    assert sum(limits.take("10.0.0.1", 100.0) for _ in range(1_000)) == 100, "exempt networks share the limit of all"
