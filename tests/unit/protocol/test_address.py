"""Server addresses, as a person types them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatprotocol.address import Address, format_address, read_address, read_addresses
from chatprotocol.errors import ErrorCode, RequestError

DEFAULT = ("default.example", 4242)


@pytest.mark.parametrize(
    ("line", "address"),
    [
        (" \t", DEFAULT),
        (" chat.example ", ("chat.example", 4242)),
        ("chat.example\t 1234 ", ("chat.example", 1234)),
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("chat.example:", ("chat.example", 4242)),
        ("chat.example: 65535", ("chat.example", 65_535)),
        ("::1", ("::1", 4242)),
        ("fe80::1%eth0 1234", ("fe80::1%eth0", 1234)),
        ("[::1]", ("::1", 4242)),
        ("[::1] 1234", ("::1", 1234)),
        ("[fe80::1%eth0]: 1234", ("fe80::1%eth0", 1234)),
    ],
)
def test_host_and_port_are_read_or_default(line: str, address: Address) -> None:
    assert read_address(line, DEFAULT) == address


@pytest.mark.parametrize(
    ("line", "addresses"),
    [
        ("", [DEFAULT]),
        ("a", [("a", 4242)]),
        (" a:1 , b 2,[::1]:3,::1", [("a", 1), ("b", 2), ("::1", 3), ("::1", 4242)]),
    ],
)
def test_servers_of_a_list_are_separated_by_commas(line: str, addresses: list[Address]) -> None:
    assert read_addresses(line, DEFAULT) == tuple(addresses)
    assert read_addresses("a:1,b", DEFAULT, 7) == (("a", 7), ("b", 7))


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("a,,b", "Server 2 in the list 'a,,b' is empty."),
        ("a,b,", "Server 3 in the list 'a,b,' is empty."),
        ("a:1,b/c,d", "Server 2 in the list, 'b/c': 'b/c' is not a host name or an address. "),
        ("a:1,b:0", "Server 2 in the list, 'b:0': The port is '0'; "),
        ("a,b:1,A:4242", "The server A:4242 is in the list twice."),
        ("::1,[0:0::1]:4242", "The server [0:0::1]:4242 is in the list twice."),
        (",".join(f"host{number}" for number in range(17)), "The list has 17 servers; name at most 16."),
    ],
)
def test_invalid_list_is_refused_with_its_first_error(line: str, error: str) -> None:
    with pytest.raises(RequestError) as refusal:
        read_addresses(line, DEFAULT)
    assert refusal.value.reason.startswith(error)
    assert "\n" not in refusal.value.reason


@pytest.mark.parametrize("port", ["0", "65536", "-1", "x", "1.5", "\u0661", "9" * 5_000])
@pytest.mark.parametrize("separator", [" ", ":"])
def test_invalid_port_is_refused(port: str, separator: str) -> None:
    with pytest.raises(RequestError, match="it must be a whole number from 1 to 65535") as refusal:
        read_address(f"localhost{separator}{port}", DEFAULT)
    assert refusal.value.code is ErrorCode.BAD_REQUEST


@pytest.mark.parametrize("line", ["localhost 9999 alice", "localhost:9999 alice", "not a host", "[::1] 9999 alice"])
def test_extra_words_are_refused(line: str) -> None:
    with pytest.raises(RequestError, match="A server is HOST, HOST PORT or HOST:PORT"):
        read_address(line, DEFAULT)


@pytest.mark.parametrize("line", ["[]", "[::1", "::1]", "::1:x", "[::1]9999", "a:b:c", "a/b", "a\0b", "fe80::1%"])
def test_invalid_host_is_refused(line: str) -> None:
    with pytest.raises(RequestError, match="is not a host name or an address"):
        read_address(line, DEFAULT)


@given(st.text(alphabet="ab1:.[]% \t", max_size=20))
def test_formatted_address_reads_back(line: str) -> None:
    try:
        host, port = read_address(line, DEFAULT)
    except RequestError:
        return
    assert host.strip() == host != ""
    assert 1 <= port <= 65_535
    assert read_address(format_address((host, port)), DEFAULT) == (host, port)
