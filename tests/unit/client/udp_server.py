"""A server over UDP whose datagrams a test sends and expects one by one."""

import socket
import struct

DEADLINE_SECONDS = 20.0
SESSION = 0x0123456789ABCDEF
COOKIE = "00112233445566ff"


def wire(kind: str, session: int, sequence: int, text: str = "") -> bytes:
    """A datagram, as in docs/wire/datagram.md."""
    return struct.pack(">cQI", kind.encode(), session, sequence) + text.encode()


def opening(name: str, cookie: str = "") -> str:
    """The text that opens a session, padded to the length of a cookie."""
    return f"{name} {cookie}".strip().ljust(23)


class UdpServer:
    """Resent datagrams are skipped, unless they are expected."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(DEADLINE_SECONDS)
        self.port: int = self._socket.getsockname()[1]
        # The source of the last datagram.
        self.client: tuple[str, int] = ("", 0)
        self._heard: set[bytes] = set()

    def hears(self, kind: str, session: int, sequence: int, text: str = "") -> None:
        """Expect this datagram next."""
        expected = wire(kind, session, sequence, text)
        while (datagram := self._next()) != expected:
            assert datagram in self._heard, f"{datagram!r} arrived; {expected!r} was expected"
        self._heard.add(expected)

    def says(self, kind: str, session: int, sequence: int, text: str = "") -> None:
        self.says_bytes(wire(kind, session, sequence, text))

    def says_bytes(self, datagram: bytes) -> None:
        self._socket.sendto(datagram, self.client)

    def opens(self, name: str = "alice", session: int = SESSION, text: str = "PASSWORD new") -> None:
        """Open a session, with its first datagram."""
        self.hears("C", 0, 0, opening(name))
        self.says("C", 0, 0, f"COOKIE {COOKIE}")
        self.hears("C", 0, 0, opening(name, COOKIE))
        self.says("C", session, 1, text)
        self.hears("A", session, 1)

    def refuse(self) -> None:
        """Refuse datagrams, as a port without a socket does. The port stays taken: no other program gets it."""
        self._socket.connect(("127.0.0.1", 9))

    def close(self) -> None:
        self._socket.close()

    def _next(self) -> bytes:
        datagram, self.client = self._socket.recvfrom(2_048)
        return datagram
