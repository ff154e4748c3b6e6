"""Visitors: clients that come, do something, not always politely, and go; again and again, as chance has it."""

from __future__ import annotations

import socket
import threading
import time
from array import array
from collections import Counter
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from integration.room import MALFORMED, NOT_REGISTERED, NOT_SENT, DatagramPeer, Guest, Peer, RegisterPeer, sent
from reliability.guests import HearingGuest
from reliability.history import Content
from reliability.peers import NarrowPeer, reset

if TYPE_CHECKING:
    import random

PASSWORD = "secret"
NAMES = [f"user{number}" for number in range(60)]
# Whose password is guessed: for a minute nobody comes in by this name.
LOCKED = "locked"
# Who comes back gets 500 messages at once, held as text and as JSON. The longer they are, the higher is that peak of
# memory, and the allocator may give it back or not: with 8 KB no growth of less than 15 MiB could be told from it.
TEXT_MAX_BYTES = 2_000

_HISTORY_MAX_MESSAGES = 50
_THINKS_MAX_SECONDS = 0.1
_LAGS_MAX_SECONDS = 2.5
_TURNS_MAX = 20
# More than the limit of who lags and what the kernel holds for it.
_SHOUTS = 300
_DEAF_SENDS_MAX_BYTES = 100_000
_DATAGRAMS_MAX = 200
_DATAGRAM_BYTES = 1_400
# A guest who comes again soon may have to wait until it is noticed that it has left.
_NAME_FREE_SECONDS = 20.0
# More than the server has patience with a guest who answers nothing; all others who send to everybody wait as long.
_DEAF_MAX_SECONDS = 7.5

RUBBISH = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET / HTTP/1.1\r\nHost: chat\r\n\r\n",
    b"{" * 5_000 + b"\n",
    b'{"command":"login","username":"\xff\xfe","password":"x"}\n',
    b'{"command":"PM","message":"' + b"x" * 70_000 + b'"}\n',
    b'{"command":"login","username":"no name","password":"x"}\n{"command":"password","password":"x"}\n',
    b'{"command":"PM","message":"nobody is logged in"}\n{"command":"CH","limit":0}\n{"command":"fly"}\n{}\n',
    b'{"command":"login","username":"user1"}',
    b'{"command":"logi',
    b"REGISTER TOSEND no name\n\nSEND ALL\nContent-length: 5\n\nhello",
    b"REGISTER TOSEND rubbish\n\nSEND ALL\nContent-length: 70000\n\nhello",
    b"REGISTER TORECV rubbish\n\nRECEIVED nobody\n\nERROR 103 Header Incomplete\n\n",
    b"REGISTER TORECV rub",
)


class View(NamedTuple):
    """What a laggard saw of the room: the public messages behind ``after_id``, up to and with ``upto_id``."""

    after_id: int
    upto_id: int
    ids: array[int]


class Overheard(NamedTuple):
    """What a guest heard, in order, from its coming to its going: keys of texts, see ``key``."""

    name: str
    keys: list[str]


class Ledger:
    """What the visitors know at the end. For any thread."""

    def __init__(self) -> None:
        # Guards what is below.
        self._lock = threading.Lock()
        self.confirmed: dict[int, Content] = {}
        self.views: list[View] = []
        # What guests were told has come; they are told no ids.
        self.delivered: list[Content] = []
        self.overheard: list[Overheard] = []
        self.visits: Counter[str] = Counter()
        self.failures: list[str] = []

    def note_confirmed(self, message_id: int, content: Content) -> None:
        with self._lock:
            self.confirmed[message_id] = content

    def note_view(self, view: View) -> None:
        with self._lock:
            self.views.append(view)

    def note_delivered(self, content: Content) -> None:
        with self._lock:
            self.delivered.append(content)

    def note_overheard(self, overheard: Overheard) -> None:
        with self._lock:
            self.overheard.append(overheard)

    def note_visit(self, role: str) -> None:
        with self._lock:
            self.visits[role] += 1

    def note_failure(self, failure: str) -> None:
        with self._lock:
            self.failures.append(failure)


class Visitor:
    """One visitor at a time, in a thread of its own, until ``ends_at`` on the monotonic clock."""

    def __init__(self, number: str, port: int, ledger: Ledger, chance: random.Random, ends_at: float) -> None:
        self._number = number
        self._port = port
        self._ledger = ledger
        self._chance = chance
        self._ends_at = ends_at
        self._said = 0
        self.role = ""
        self._clock = threading.Event()  # is never set
        self.thread = threading.Thread(target=self._run, name=f"visitor {number}")

    def _run(self) -> None:
        roles = {
            self._talk: 50,
            self._talk_as_a_guest: 10,
            self._talk_over_udp: 15,
            self._throw_datagrams: 5,
            self._open_and_never_acknowledge: 2,
            self._talk_rubbish: 20,
            self._lag: 15,
            self._shout: 12,
            self._guess: 5,
            self._send_and_never_read: 3,
            self._hear_and_never_answer: 1,
            self._stay_half: 1,
            self._wait_silently: 1,
        }
        while time.monotonic() < self._ends_at:
            (play,) = self._chance.choices(list(roles), list(roles.values()))
            self.role = play.__name__.strip("_").replace("_", " ")
            try:
                play()
            except Exception as error:
                self._ledger.note_failure(f"{self.thread.name} wanted to {self.role}: {error!r}")
                return
            self._ledger.note_visit(self.role)

    # --- roles ---

    def _talk(self) -> None:
        """Say and ask something now and then, and be answered."""
        name = self._chance.choice(NAMES)
        with closing(Peer(self._port)) as peer:
            peer.login(name, PASSWORD)
            for _ in range(self._chance.randint(1, _TURNS_MAX)):
                self._wait(self._chance.uniform(0, _THINKS_MAX_SECONDS))
                self._take_turn(peer, name)
            self._leave(peer)

    def _shout(self) -> None:
        """Say so much at once that a laggard can't follow."""
        name = self._chance.choice(NAMES)
        with closing(Peer(self._port)) as peer:
            peer.login(name, PASSWORD)
            shouted = [self._ask(peer, name, None, TEXT_MAX_BYTES) for _ in range(_SHOUTS)]
            for content in shouted:
                self._note_confirmed(peer, content)
            self._leave(peer)

    def _lag(self) -> None:
        """Read nothing for a while; then give up, or read on, or come back for what was missed."""
        name = f"laggard{self._number.replace('.', 'x')}"
        with closing(NarrowPeer(self._port)) as peer:
            after_id = peer.login(name, PASSWORD)["last_id"]
            self._wait(self._chance.uniform(0, _LAGS_MAX_SECONDS))
            if self._happens(0.3):
                reset(peer)
                return
            with suppress(ConnectionError):  # it was disconnected
                peer.ask(command="ping")
            seen = array("Q", public_ids(peer.rest(until=b'{"type":"pong"}')))
        with closing(Peer(self._port)) as peer:
            upto_id = peer.login(name, PASSWORD, since=seen[-1] if seen else after_id)["last_id"]
            seen.extend(message_id for message_id in public_ids(peer.until_fence()) if message_id <= upto_id)
        self._ledger.note_view(View(after_id, upto_id, seen))

    def _send_and_never_read(self) -> None:
        """Send a lot, read nothing, vanish."""
        name = self._chance.choice(NAMES)
        with closing(NarrowPeer(self._port)) as peer:
            peer.login(name, PASSWORD)
            peer.socket.settimeout(self._chance.uniform(0.01, 0.5))
            line = self._chance.choice(
                [b'{"command":"users"}\n', b'{"command":"CH"}\n', b'{"command":"PM","message":"x"}\n']
            )
            with suppress(OSError):
                peer.send(line * (self._chance.randint(1, _DEAF_SENDS_MAX_BYTES) // len(line)))
            self._vanish(peer)

    def _talk_rubbish(self) -> None:
        """Send what is no request, or makes no sense."""
        with closing(Peer(self._port)) as peer:
            if self._happens(0.5):
                peer.login(self._chance.choice(NAMES), PASSWORD)
            with suppress(ConnectionError):  # it had enough
                for _ in range(self._chance.randint(1, 3)):
                    peer.send(self._chance.choice((*RUBBISH, self._chance.randbytes(200))))
            self._chance.choice([self._vanish, self._end_politely])(peer)

    def _guess(self) -> None:
        """Try passwords until there are no tries left."""
        with closing(Peer(self._port)) as peer:
            for attempt in range(3):
                peer.ask(command="login", username=LOCKED, password=f"guess{attempt}")
                assert peer.next("error")["code"] in ("wrong_password", "too_many_attempts")
            self._vanish(peer)

    def _talk_as_a_guest(self) -> None:
        """Say something now and then, confirm what comes, and be answered."""
        guest = HearingGuest(self._port, self._guest_name())
        with closing(guest):
            self._register(guest)
            guest.listen()
            try:
                for _ in range(self._chance.randint(1, _TURNS_MAX)):
                    self._wait(self._chance.uniform(0, _THINKS_MAX_SECONDS))
                    if not self._say_as_a_guest(guest):
                        break
            finally:
                self._end_one(guest)
                guest.join()
        self._ledger.note_overheard(Overheard(guest.name, [key(text) for _, text in guest.heard]))

    def _talk_over_udp(self) -> None:
        """Say and ask something now and then, and be answered; and vanish, perhaps."""
        name = self._chance.choice(NAMES)
        with closing(DatagramPeer(self._port)) as peer:
            try:
                peer.login(name + self._chance.choice(("", " pm-dm")), PASSWORD)
                for _ in range(self._chance.randint(1, _TURNS_MAX)):
                    self._wait(self._chance.uniform(0, _THINKS_MAX_SECONDS))
                    self._take_turn_over_udp(peer, name)
            except AssertionError:
                if not peer.is_lost:  # beside one who shouts it may be too far behind
                    raise
            if self._happens(0.7):
                peer.command("EX")
                peer.is_closed()

    def _throw_datagrams(self) -> None:
        """Datagrams of no session, and openings of which nothing comes."""
        with closing(DatagramPeer(self._port)) as peer:
            for _ in range(self._chance.randint(1, _DATAGRAMS_MAX)):
                opening = b"C" + bytes(12) + self._chance.choice(NAMES).encode().ljust(23)
                peer.throw_bytes(
                    self._chance.choice((*RUBBISH, opening, self._chance.randbytes(200)))[:_DATAGRAM_BYTES]
                )
            peer.take_all()

    def _open_and_never_acknowledge(self) -> None:
        """Log in, say something, and be as silent as somebody who has vanished, for a while or for ever."""
        name = self._chance.choice(NAMES)
        with closing(DatagramPeer(self._port)) as peer:
            peer.login(name, PASSWORD)
            self._wait(self._chance.uniform(0, _LAGS_MAX_SECONDS))
            if self._happens(0.5):
                peer.turn()

    def _hear_and_never_answer(self) -> None:
        """Register, read, and say nothing, until the server loses its patience or it is time to go."""
        with closing(Guest(self._port, self._guest_name())) as guest:
            self._register(guest)
            longest = _DEAF_MAX_SECONDS if self._happens(0.2) else _LAGS_MAX_SECONDS
            guest.receiving.socket.settimeout(self._chance.uniform(0.1, longest))
            with suppress(TimeoutError):
                guest.receiving.is_closed()
            self._chance.choice([RegisterPeer.close, reset])(self._chance.choice([guest.sending, guest.receiving]))

    def _stay_half(self) -> None:
        """Register one connection, and wait until the server loses its patience, or it is time to go."""
        with closing(RegisterPeer(self._port)) as peer:
            side = self._chance.choice(("TOSEND", "TORECV"))
            self._register_one(peer, side, self._guest_name())
            peer.socket.settimeout(self._chance.uniform(0.1, max(0.2, self._ends_at - time.monotonic())))
            with suppress(TimeoutError):
                assert peer.rest() == NOT_REGISTERED

    def _wait_silently(self) -> None:
        """Say nothing until the server loses its patience, or it is time to go."""
        with closing(Peer(self._port)) as peer, suppress(TimeoutError):
            peer.socket.settimeout(max(0.1, self._ends_at - time.monotonic()))
            peer.is_closed()

    # --- what they do ---

    def _take_turn(self, peer: Peer, name: str) -> None:
        (turn,) = self._chance.choices(["PM", "DM", "CH", "users", "ping"], [60, 15, 10, 5, 10])
        if turn in ("PM", "DM"):
            length = self._chance.choice((1, 100, 100, 300, 300, TEXT_MAX_BYTES))
            self._say(peer, name, self._chance.choice(NAMES) if turn == "DM" else None, length)
        elif turn == "CH":
            peer.ask(command="CH", limit=self._chance.randint(1, _HISTORY_MAX_MESSAGES))
            peer.next("history")
        elif turn == "users":
            peer.ask(command="users")
            peer.next("users")
        else:
            peer.until_fence()

    def _take_turn_over_udp(self, peer: DatagramPeer, name: str) -> None:
        (turn,) = self._chance.choices(["PM", "DM", "CH", "USERS", "PING"], [60, 15, 10, 5, 10])
        if turn in ("PM", "DM"):
            length = self._chance.choice((1, 100, 100, 300, 300, TEXT_MAX_BYTES))
            self._say_over_udp(peer, name, self._chance.choice(NAMES) if turn == "DM" else None, length)
        elif turn == "CH":
            peer.command(f"CH {self._chance.randint(1, _HISTORY_MAX_MESSAGES)}")
            assert peer.next_command().startswith("HISTORY ")
            peer.until_fence()
        elif turn == "USERS":
            peer.command("USERS")
            assert peer.next_command().startswith("ONLINE ")
        else:
            peer.until_fence()

    def _say_over_udp(self, peer: DatagramPeer, name: str, recipient: str | None, length: int) -> None:
        content = self._next_content(name, recipient, length)
        peer.command("PM" if recipient is None else "DM")
        assert peer.next_command().split(" ")[0] == ("READY" if recipient is None else "ONLINE")
        if recipient is not None:
            peer.command(recipient)
        peer.data(content.text)
        word, number = peer.next_command().split(" ")
        assert word in ("SENT", "STORED"), word
        self._ledger.note_confirmed(int(number), content)

    def _say(self, peer: Peer, name: str, recipient: str | None, length: int) -> None:
        self._note_confirmed(peer, self._ask(peer, name, recipient, length))

    def _ask(self, peer: Peer, name: str, recipient: str | None, length: int) -> Content:
        content = self._next_content(name, recipient, length)
        members: dict[str, Any] = {"command": "PM"} if recipient is None else {"command": "DM", "to": recipient}
        if self._happens(0.5):
            members["nonce"] = self._chance.randbytes(8).hex()
        peer.ask(message=content.text, **members)
        return content

    def _next_content(self, name: str, recipient: str | None, length: int) -> Content:
        self._said += 1
        return Content(name, recipient, f"{self._number} {self._said} ".ljust(length, "x"))

    def _note_confirmed(self, peer: Peer, content: Content) -> None:
        self._ledger.note_confirmed(peer.next("sent")["id"], content)

    def _guest_name(self) -> str:
        """A name for nobody else, that is used again and again."""
        return f"guest{self._number.replace('.', 'x')}"

    def _register(self, guest: Guest) -> None:
        halves = [("TOSEND", guest.sending), ("TORECV", guest.receiving)]
        for side, peer in halves if self._happens(0.5) else halves[::-1]:
            self._register_one(peer, side, guest.name)

    def _register_one(self, peer: RegisterPeer, side: str, name: str) -> None:
        patience_ends = time.monotonic() + _NAME_FREE_SECONDS
        while (answer := peer.register(side, name)) == MALFORMED:
            assert time.monotonic() < patience_ends, f"the name {name} is not free"
            self._clock.wait(_NAME_FREE_SECONDS / 1_000)
        assert answer == f"REGISTERED {side} {name}\n\n".encode(), answer

    def _say_as_a_guest(self, guest: Guest) -> bool:
        """False: the server has closed."""
        self._said += 1
        length = self._chance.choice((1, 100, 300, TEXT_MAX_BYTES))
        text = f"{self._number} {self._said} ".ljust(length, "x")
        to = self._chance.choice(("ALL", *self._chance.choices(NAMES, k=3)))
        answer = guest.say(to, text)
        if answer == sent(to):
            self._ledger.note_delivered(Content(guest.name, None if to == "ALL" else to, text))
        assert answer in (sent(to), NOT_SENT, b""), answer
        return bool(answer)

    def _end_one(self, guest: HearingGuest) -> None:
        """End one connection, in the middle of a word or not; the server ends the other one."""
        if self._happens(0.3):
            with suppress(OSError):
                guest.sending.send(b"SEND ALL\nContent-length: 100\n\nhel")
        if self._happens(0.5):
            self._chance.choice([RegisterPeer.close, reset])(guest.sending)
        else:
            with suppress(OSError):  # the server was faster
                guest.receiving.socket.shutdown(socket.SHUT_WR)
            guest.sending.is_closed()

    def _leave(self, peer: Peer) -> None:
        self._chance.choice([self._end_politely, self._say_goodbye, self._vanish])(peer)

    def _say_goodbye(self, peer: Peer) -> None:
        peer.ask(command="EX")
        peer.next("bye")
        peer.is_closed()

    def _end_politely(self, peer: Peer) -> None:
        """Say no more, and hear the server out."""
        with suppress(OSError):  # the server was faster
            peer.socket.shutdown(socket.SHUT_WR)
        peer.is_closed()

    def _vanish(self, peer: Peer) -> None:
        """As a program that is killed, or a machine that loses its power, in the middle of a word or not."""
        if self._happens(0.5):
            with suppress(OSError):
                peer.send(b'{"command":"PM","mess')
        self._chance.choice([Peer.close, reset])(peer)

    def _happens(self, share: float) -> bool:
        """In so many cases of one."""
        return self._chance.random() < share

    def _wait(self, seconds: float) -> None:
        self._clock.wait(min(seconds, max(0.0, self._ends_at - time.monotonic())))


def key(text: str) -> str:
    """The beginning of a text, which no other text has."""
    return " ".join(text.split(" ", 2)[:2])


def public_ids(answers: list[dict[str, Any]]) -> list[int]:
    return [answer["id"] for answer in answers if answer["type"] == "broadcast"]
