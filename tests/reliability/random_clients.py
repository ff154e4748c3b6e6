"""Random clients of all protocols: each logs in, does something, not always politely, and leaves; repeatedly."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from integration.irc import IrcPeer, WebIrcPeer, parse, plain
from integration.room import MALFORMED, NOT_REGISTERED, NOT_SENT, DatagramPeer, Guest, Peer, RegisterPeer, c, d, sent
from integration.web import WebPeer
from reliability.guests import AckingGuest
from reliability.history import Content
from reliability.peers import NarrowPeer, reset
from web_bytes import CLOSE, CONTINUATION, PING, TEXT, frame, handshake, request

if TYPE_CHECKING:
    import random

PASSWORD = "secret"
NAMES = [f"user{number}" for number in range(60)]
# Rooms of random members. A room that has ended is made again, and is another one.
ROOMS = [f"room{number}" for number in range(5)]
# The user whose password is guessed: logins are rejected for a minute.
LOCKED = "locked"
# A login with `since` gets 500 messages at once. The longer they are, the higher is that peak of memory, which the
# allocator may keep: with 8 KB, growth below 15 MiB could not be told from it.
TEXT_MAX_BYTES = 2_000

_HISTORY_MAX_MESSAGES = 50
_PAUSE_MAX_SECONDS = 0.1
_LAG_MAX_SECONDS = 2.5
_TURNS_MAX = 20
# More than the lag limit and the kernel's buffers.
_BURST_MESSAGES = 300
_UNREAD_MAX_BYTES = 100_000
_PACKETS_MAX = 200
_PACKET_MAX_BYTES = 1_400
# A guest's name is in use until the server has noticed the end of its last connections.
_NAME_FREE_SECONDS = 20.0
# More than the acknowledgement timeout.
_UNACKED_MAX_SECONDS = 7.5

INVALID = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    request("/"),
    request("/") * 20,
    request("/x", "POST", Content_Length="5") + b"hello",
    handshake(Origin="https://evil.test"),
    handshake() + frame(TEXT, b'{"command":"ping"}', mask=None),
    handshake() + frame(PING, b"x") * 50 + frame(TEXT, b"\xff"),
    handshake() + frame(TEXT, b"{", fin=False) + frame(CONTINUATION, fin=False) * 2_000,
    handshake() + frame(CLOSE) + frame(TEXT, b"{}"),
    b"{" * 5_000 + b"\n",
    b'{"command":"login","username":"\xff\xfe","password":"x"}\n',
    b'{"command":"PM","message":"' + b"x" * 70_000 + b'"}\n',
    b'{"command":"login","username":"no name","password":"x"}\n{"command":"password","password":"x"}\n',
    b'{"command":"PM","message":"nobody is logged in"}\n{"command":"CH","limit":0}\n{"command":"fly"}\n{}\n',
    b'{"command":"logi',
    b"REGISTER TOSEND no name\n\nSEND ALL\nContent-length: 5\n\nhello",
    b"REGISTER TOSEND invalid\n\nSEND ALL\nContent-length: 70000\n\nhello",
    b"REGISTER TORECV invalid\n\nRECEIVED nobody\n\nERROR 103 Header Incomplete\n\n",
)

IRC_CAPABILITIES = "batch draft/chathistory echo-message labeled-response message-tags server-time"
# Registrations that are given up.
HALF_LOGINS = (
    ("CAP LS 302", "NICK user1", "USER u 0 * :u"),
    ("CAP REQ :sasl", "AUTHENTICATE PLAIN", "AUTHENTICATE " + "QUFB" * 100),
    ("CAP REQ :sasl", "AUTHENTICATE PLAIN", f"AUTHENTICATE {plain(LOCKED, 'guess')}"),
    ("PASS user1:guess", "NICK user1", "USER u 0 * :u"),
    ("NICK user1", "USER u 0 * :u", "NICK", "NICK ALL"),
)
IRC_LINES = (
    *("JOIN $room", "JOIN $room,#lobby key", "PART $room :bye", "JOIN 0", "NAMES $room", "LIST", "WHO $room %tcn,1"),
    *("WHO *", "WHOIS $user", "MODE $room +kl key 3", "MODE $room +b $user", "MODE $room +v $user", "MODE $room -kl"),
    *("KICK $room $user :out", "INVITE $user $room", "TOPIC $room :tea", "AWAY :tea", "AWAY", "MONITOR + $user"),
    *("PRIVMSG $room :\1PING 1\1", "@+typing=active TAGMSG $room", "NICK another", "MARKREAD #lobby", "NONSENSE"),
    *("BATCH +1 draft/multiline #lobby", "@batch=1 PRIVMSG #lobby :one", "x" * 600, "CAP REQ :-echo-message nothing"),
)


class Record:
    """Results of all clients. For any thread."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.confirmed: dict[int, Content] = {}
        # Connections by role.
        self.visits: Counter[str] = Counter()
        self.failures: list[str] = []

    def note_confirmed(self, message_id: int, content: Content) -> None:
        with self.lock:
            self.confirmed[message_id] = content


class RandomClient:
    """One client after another, in a thread of its own, until ``ends_at`` on the monotonic clock."""

    def __init__(self, number: str, port: int, record: Record, chance: random.Random, ends_at: float) -> None:
        self._number = number
        self._port = port
        self._record = record
        self._chance = chance
        self._ends_at = ends_at
        self._said = 0
        self.role = ""
        self._never = threading.Event()
        self.thread = threading.Thread(target=self._run, name=f"client {number}")

    def _run(self) -> None:
        roles = {
            self._talk: 50,
            self._talk_in_rooms: 15,
            self._talk_as_guest: 10,
            self._talk_over_udp: 15,
            self._talk_over_websocket: 15,
            self._talk_over_irc: 20,
            self._send_packets: 5,
            self._stop_acknowledging: 2,
            self._send_invalid: 20,
            self._lag: 15,
            self._send_burst: 12,
            self._guess_password: 5,
            self._send_and_never_read: 3,
            self._never_acknowledge: 1,
            self._register_one_connection: 1,
            self._stay_silent: 1,
        }
        while time.monotonic() < self._ends_at:
            (play,) = self._chance.choices(list(roles), list(roles.values()))
            self.role = play.__name__.strip("_").replace("_", " ")
            try:
                play()
            except Exception as error:
                with self._record.lock:
                    self._record.failures.append(f"{self.thread.name}, {self.role}: {error!r}")
                return
            with self._record.lock:
                self._record.visits[self.role] += 1

    # --- roles ---

    def _talk(self) -> None:
        name = self._name()
        with closing(Peer(self._port)) as peer:
            peer.login(name, PASSWORD)
            for _ in range(self._chance.randint(1, _TURNS_MAX)):
                self._pause(_PAUSE_MAX_SECONDS)
                self._take_turn(peer, name)
            self._leave(peer)

    def _talk_in_rooms(self) -> None:
        """Join, leave and run rooms, and talk in those that it happens to be in."""
        name = self._name()
        with closing(Peer(self._port)) as peer:
            # Not the lobby: a slow machine reads its bursts so slowly that the client would lag.
            peer.login(name, PASSWORD, since={room: self._chance.randint(0, 100) for room in ROOMS[:2]})
            for _ in range(self._chance.randint(1, _TURNS_MAX)):
                self._pause(_PAUSE_MAX_SECONDS)
                self._take_turn_in_room(peer, name, self._chance.choice(ROOMS))
            self._leave(peer)

    def _send_burst(self) -> None:
        """Send more than a client that lags can follow."""
        name = self._name()
        with closing(Peer(self._port)) as peer:
            peer.login(name, PASSWORD)
            contents = [self._request(peer, name, None, TEXT_MAX_BYTES) for _ in range(_BURST_MESSAGES)]
            for content in contents:
                self._record.note_confirmed(peer.next("sent")["id"], content)
            self._leave(peer)

    def _lag(self) -> None:
        """Read nothing for a while; then reset, or read on and get the missed messages."""
        name = self._name()
        with closing(NarrowPeer(self._port)) as peer:
            last_id = peer.login(name, PASSWORD)["last_id"]
            self._pause(_LAG_MAX_SECONDS)
            if self._happens(0.3):
                reset(peer)
                return
            with suppress(ConnectionError):  # it was disconnected
                peer.ask(command="ping")
            seen = [last_id, *(each["id"] for each in peer.rest(b'{"type":"pong"}') if each["type"] == "broadcast")]
        with closing(Peer(self._port)) as peer:
            peer.login(name, PASSWORD, since=seen[-1])
            peer.until_fence()

    def _send_and_never_read(self) -> None:
        with closing(NarrowPeer(self._port)) as peer:
            peer.login(self._name(), PASSWORD)
            peer.socket.settimeout(self._chance.uniform(0.01, 0.5))
            requests = [b'{"command":"users"}\n', b'{"command":"CH"}\n', b'{"command":"PM","message":"x"}\n']
            line = self._chance.choice(requests)
            with suppress(OSError):
                peer.send(line * (self._chance.randint(1, _UNREAD_MAX_BYTES) // len(line)))
            self._vanish(peer)

    def _send_invalid(self) -> None:
        with closing(Peer(self._port)) as peer:
            if self._happens(0.5):
                peer.login(self._name(), PASSWORD)
            with suppress(ConnectionError):  # the server has closed
                for _ in range(self._chance.randint(1, 3)):
                    peer.send(self._chance.choice((*INVALID, self._chance.randbytes(200))))
            self._chance.choice([self._vanish, self._half_close])(peer)

    def _guess_password(self) -> None:
        with closing(Peer(self._port)) as peer:
            for attempt in range(3):
                peer.ask(command="login", username=LOCKED, password=f"guess{attempt}")
                assert peer.next("error")["code"] in ("wrong_password", "too_many_attempts")
            self._vanish(peer)

    def _talk_as_guest(self) -> None:
        guest = AckingGuest(self._port, self._guest_name())
        with closing(guest):
            self._register(guest)
            guest.listen()
            try:
                for _ in range(self._chance.randint(1, _TURNS_MAX)):
                    self._pause(_PAUSE_MAX_SECONDS)
                    to = self._chance.choice(("ALL", *self._chance.choices(NAMES, k=3)))
                    answer = guest.say(to, self._next_content(guest.name, to, None).text)
                    assert answer in (sent(to), NOT_SENT, b""), answer
                    if not answer:  # the server has closed
                        break
            finally:
                self._end_one_connection(guest)
                guest.join()

    def _talk_over_udp(self) -> None:
        name = self._name()
        with closing(DatagramPeer(self._port)) as peer:
            try:
                peer.login(name + self._chance.choice(("", " pm-dm")), PASSWORD)
                for _ in range(self._chance.randint(1, _TURNS_MAX)):
                    self._pause(_PAUSE_MAX_SECONDS)
                    self._take_turn_over_udp(peer, name)
            except AssertionError:
                if not peer.is_over:  # it reads nothing during a pause, and may lag
                    raise
            if self._happens(0.7):
                peer.command("EX")
                peer.is_closed()

    def _talk_over_websocket(self) -> None:
        name = self._name()
        with closing(WebPeer(self._port)) as peer:
            assert peer.shake_hands().status == HTTPStatus.SWITCHING_PROTOCOLS
            peer.login(name, PASSWORD)
            for _ in range(self._chance.randint(1, _TURNS_MAX)):
                self._pause(_PAUSE_MAX_SECONDS)
                self._take_turn(peer, name)
            self._leave(peer)

    def _talk_over_irc(self) -> None:
        """As a user or a guest, over TCP or WebSocket; a registration may be given up."""
        is_guest, over = self._happens(0.3), self._chance.choice(("", "", "text.ircv3.net", "binary.ircv3.net"))
        name = self._guest_name() if is_guest else self._name()
        with closing((WebIrcPeer if over else IrcPeer)(self._port)) as peer:
            if isinstance(peer, WebIrcPeer):
                peer.shake_hands(over)
            if self._happens(0.2):
                peer.put(*self._chance.choice(HALF_LOGINS))
                return
            capabilities = self._chance.choice(("", IRC_CAPABILITIES))
            if is_guest:
                self._register_irc_guest(peer, name, capabilities)
            else:
                peer.register(name, caps=capabilities, account=name, password=PASSWORD)
            peer.put("JOIN #lobby")
            for _ in range(self._chance.randint(1, _TURNS_MAX)):
                self._pause(_PAUSE_MAX_SECONDS)
                self._take_turn_over_irc(peer, name, bool(capabilities))
            if self._happens(0.5):
                peer.put("QUIT :bye")
                peer.rest()

    def _send_packets(self) -> None:
        """Packets of no session, and openings that are not continued."""
        with closing(DatagramPeer(self._port)) as peer:
            for _ in range(self._chance.randint(1, _PACKETS_MAX)):
                opening = b"C" + bytes(12) + self._name().encode().ljust(23)
                data = self._chance.choice((*INVALID, opening, self._chance.randbytes(200)))
                peer.throw_bytes(data[:_PACKET_MAX_BYTES])
            peer.take_all()

    def _stop_acknowledging(self) -> None:
        """Log in over UDP, and be silent for a while or for ever."""
        with closing(DatagramPeer(self._port)) as peer:
            peer.login(self._name(), PASSWORD)
            self._pause(_LAG_MAX_SECONDS)
            if self._happens(0.5):
                peer.turn()

    def _never_acknowledge(self) -> None:
        """Register as a guest, and read until the server closes or a random time has passed."""
        with closing(Guest(self._port, self._guest_name())) as guest:
            self._register(guest)
            longest = _UNACKED_MAX_SECONDS if self._happens(0.2) else _LAG_MAX_SECONDS
            guest.receiving.socket.settimeout(self._chance.uniform(0.1, longest))
            with suppress(TimeoutError):
                guest.receiving.is_closed()
            self._chance.choice([RegisterPeer.close, reset])(self._chance.choice([guest.sending, guest.receiving]))

    def _register_one_connection(self) -> None:
        with closing(RegisterPeer(self._port)) as peer:
            self._register_side(peer, self._chance.choice(("TOSEND", "TORECV")), self._guest_name())
            peer.socket.settimeout(self._chance.uniform(0.1, max(0.2, self._ends_at - time.monotonic())))
            with suppress(TimeoutError):
                assert peer.rest() == NOT_REGISTERED

    def _stay_silent(self) -> None:
        """Send nothing until the server closes."""
        with closing(Peer(self._port)) as peer, suppress(TimeoutError):
            peer.socket.settimeout(max(0.1, self._ends_at - time.monotonic()))
            peer.is_closed()

    # --- steps ---

    def _take_turn(self, peer: Peer, name: str) -> None:
        match self._request_type():
            case "PM" | "DM" as command:
                content = self._request(peer, name, self._name() if command == "DM" else None, None)
                self._record.note_confirmed(peer.next("sent")["id"], content)
            case "CH":
                peer.ask(command="CH", limit=self._chance.randint(1, _HISTORY_MAX_MESSAGES))
                peer.next("history")
            case _:
                peer.ask(command="users")
                peer.until_fence()

    def _take_turn_in_room(self, peer: Peer, name: str, room: str) -> None:
        match self._chance.choice(["join", "join", "PM", "PM", "PM", "PM", "part", "CH", "run"]):
            case "join":
                peer.ask(command="join", room=room, private=self._happens(0.2))
                peer.until_fence()
            case "PM":
                content = self._next_content(name, None, None)._replace(room=room)
                nonce = self._chance.randbytes(8).hex()
                peer.ask(command="PM", room=room, message=content.text, nonce=nonce)
                while (answer := peer.next("sent", "error")).get("nonce") != nonce:
                    pass
                if answer["type"] == "sent":
                    self._record.note_confirmed(answer["id"], content)
                else:
                    assert answer["code"] in ("unknown_room", "not_a_member"), answer
            case "run":
                for command in ("invite", "kick", "op", "topic"):
                    peer.ask(command=command, room=room, username=self._name(), topic=f"{name} was here")
                peer.until_fence()
            case command:
                peer.ask(command=command, room=room)
                peer.until_fence()

    def _take_turn_over_irc(self, peer: IrcPeer, name: str, is_confirmed: bool) -> None:
        """``is_confirmed``: the server echoes messages, with their ids."""
        match self._request_type():
            case "PM" | "DM" as command:
                to = self._name() if command == "DM" else None
                content = self._next_content(name, to, self._chance.choice((1, 100, 300)))
                peer.put(f"@label=m PRIVMSG {to or '#lobby'} :{content.text}")
                echoes = [each for each in map(parse, peer.sync()) if each.tags.get("label") == "m"]
                if is_confirmed and echoes[0].command == "PRIVMSG":
                    sender = echoes[0].source.partition("!")[0]  # a guest may have another name now
                    self._record.note_confirmed(int(echoes[0].tags["msgid"]), content._replace(sender=sender))
            case "CH":
                peer.put(f"CHATHISTORY LATEST #lobby * {self._chance.randint(1, _HISTORY_MAX_MESSAGES)}")
                peer.sync()
            case _:
                room = f"#{self._chance.choice(ROOMS)}"
                peer.put(self._chance.choice(IRC_LINES).replace("$room", room).replace("$user", self._name()))
                peer.sync()

    def _take_turn_over_udp(self, peer: DatagramPeer, name: str) -> None:
        match self._request_type():
            case "PM" | "DM" as command:
                content = self._next_content(name, self._name() if command == "DM" else None, None)
                peer.send((c("PM") if content.recipient is None else c("DM") + c(content.recipient)) + d(content.text))
                assert peer.next_command().split(" ")[0] in ("READY", "ONLINE")
                word, number = peer.next_command().split(" ")
                assert word in ("SENT", "STORED"), word
                self._record.note_confirmed(int(number), content)
            case "CH":
                peer.command(f"CH {self._chance.randint(1, _HISTORY_MAX_MESSAGES)}")
                peer.until_fence()
            case _:
                peer.command("USERS")
                peer.until_fence()

    def _request_type(self) -> str:
        (request,) = self._chance.choices(["PM", "DM", "CH", "users"], [60, 15, 10, 15])
        return request

    def _request(self, peer: Peer, name: str, recipient: str | None, length: int | None) -> Content:
        content = self._next_content(name, recipient, length)
        members: dict[str, Any] = {"command": "PM"} if recipient is None else {"command": "DM", "to": recipient}
        if self._happens(0.5):
            members["nonce"] = self._chance.randbytes(8).hex()
        peer.ask(message=content.text, **members)
        return content

    def _next_content(self, name: str, recipient: str | None, length: int | None) -> Content:
        """A text that no other client sends, of a random length if none is given."""
        self._said += 1
        length = length or self._chance.choice((1, 100, 100, 300, 300, TEXT_MAX_BYTES))
        return Content(name, recipient, f"{self._number} {self._said} ".ljust(length, "x"))

    def _name(self) -> str:
        return self._chance.choice(NAMES)

    def _guest_name(self) -> str:
        """The name of this client only, used repeatedly."""
        return f"guest{self._number.replace('.', 'x')}"

    def _register(self, guest: Guest) -> None:
        sides = [("TOSEND", guest.sending), ("TORECV", guest.receiving)]
        for side, peer in sides if self._happens(0.5) else sides[::-1]:
            self._register_side(peer, side, guest.name)

    def _register_side(self, peer: RegisterPeer, side: str, name: str) -> None:
        patience_ends = time.monotonic() + _NAME_FREE_SECONDS
        while (answer := peer.register(side, name)) == MALFORMED:
            assert time.monotonic() < patience_ends, f"the name {name} is not free"
            self._never.wait(_NAME_FREE_SECONDS / 1_000)
        assert answer == f"REGISTERED {side} {name}\n\n".encode(), answer

    def _register_irc_guest(self, peer: IrcPeer, nick: str, capabilities: str) -> None:
        request, end = ([f"CAP REQ :{capabilities}"], ["CAP END"]) if capabilities else ([], [])
        peer.put(*request, f"NICK {nick}", f"USER {nick} 0 * :{nick}", *end)
        patience_ends = time.monotonic() + _NAME_FREE_SECONDS
        while peer.until("001", "433").command == "433":
            assert time.monotonic() < patience_ends, f"the nick {nick} is not free"
            self._never.wait(_NAME_FREE_SECONDS / 1_000)
            peer.put(f"NICK {nick}")
        peer.sync()

    def _end_one_connection(self, guest: AckingGuest) -> None:
        """The server ends the other one."""
        if self._happens(0.3):
            with suppress(OSError):
                guest.sending.send(b"SEND ALL\nContent-length: 100\n\nhel")
        if self._happens(0.5):
            self._chance.choice([RegisterPeer.close, reset])(guest.sending)
        else:
            with suppress(OSError):  # the server was first
                guest.receiving.socket.shutdown(socket.SHUT_WR)
            guest.sending.is_closed()

    def _leave(self, peer: Peer) -> None:
        self._chance.choice([self._half_close, self._say_goodbye, self._vanish])(peer)

    def _say_goodbye(self, peer: Peer) -> None:
        peer.ask(command="EX")
        peer.next("bye")
        peer.is_closed()

    def _half_close(self, peer: Peer) -> None:
        with suppress(OSError):  # the server was first
            peer.socket.shutdown(socket.SHUT_WR)
        peer.is_closed()

    def _vanish(self, peer: Peer) -> None:
        """End as a killed program or a machine without power, perhaps in the middle of a request."""
        if self._happens(0.5):
            with suppress(OSError):
                peer.send(b'{"command":"PM","mess')
        self._chance.choice([Peer.close, reset])(peer)

    def _happens(self, share: float) -> bool:
        return self._chance.random() < share

    def _pause(self, seconds_max: float) -> None:
        self._never.wait(min(self._chance.uniform(0, seconds_max), max(0.0, self._ends_at - time.monotonic())))
