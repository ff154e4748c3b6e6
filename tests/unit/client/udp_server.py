"""A server over UDP that plays its part by hand, and the datagrams in which it does."""

import socket
import struct

DEADLINE_SECONDS = 10.0
SESSION = 0x0123456789ABCDEF
COOKIE = "00112233445566ff"


def wire(kind: str, session: int, sequence: int, text: str = "") -> bytes:
    """As docs/wire/datagram.md has it."""
    return struct.pack(">cQI", kind.encode(), session, sequence) + text.encode()


def opening(name: str, cookie: str = "") -> str:
    """What a client says to get a session: as long as an answer that is a cookie, or longer."""
    return f"{name} {cookie}".strip().ljust(23)


class UdpServer:
    """Hears and says datagrams. What it has heard before is passed over, unless it is expected: it was sent again."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(DEADLINE_SECONDS)
        self.port: int = self._socket.getsockname()[1]
        self._client: tuple[str, int] = ("", 0)
        self._heard: set[bytes] = set()

    @property
    def client(self) -> tuple[str, int]:
        """From where the last datagram came."""
        return self._client

    def hears(self, kind: str, session: int, sequence: int, text: str = "") -> None:
        """This comes next."""
        expected = wire(kind, session, sequence, text)
        while (datagram := self._next()) != expected:
            assert datagram in self._heard, f"{datagram!r} came; {expected!r} was expected"
        self._heard.add(expected)

    def says(self, kind: str, session: int, sequence: int, text: str = "") -> None:
        """To whom it has heard last."""
        self.says_bytes(wire(kind, session, sequence, text))

    def says_bytes(self, datagram: bytes) -> None:
        self._socket.sendto(datagram, self._client)

    def opens(self, name: str = "alice") -> None:
        """A session, as it usually goes."""
        self.hears("C", 0, 0, opening(name))
        self.says("C", 0, 0, f"COOKIE {COOKIE}")
        self.hears("C", 0, 0, opening(name, COOKIE))
        self.says("C", SESSION, 1, "PASSWORD new")
        self.hears("A", SESSION, 1)

    def close(self) -> None:
        self._socket.close()

    def _next(self) -> bytes:
        datagram, self._client = self._socket.recvfrom(2_048)
        return datagram
