"""A toy protocol, one word a line, to show what a protocol takes: one file, and an entry in the table of protocols.

toy:alice:secret logs in, :leave leaves, and any other word is a message. Special characters are percent-encoded.
"""

# ruff: noqa: ANN001, ANN201, ANN204, ARG002
from urllib.parse import quote, unquote

from chatprotocol import events
from chatprotocol.errors import ErrorCode, ProtocolError
from chatprotocol.limits import LINE_MAX_BYTES
from chatprotocol.requests import Leave, Login, Say, Unreadable
from chatprotocol.wire.base import Effects, Outgoing, ServerProtocol, WireProtocol, sniff_text
from chatprotocol.wire.readers import LineBuffer

REQUESTS = {("toy", 2): Login, ("", 1): lambda _: Leave()}
EVENTS = {
    ("hi", 1): lambda kind: events.Welcome(account=events.AccountKind(kind), username="", users=(), last_id=None),
    ("ok", 1): lambda number: events.Sent(int(number), events.SentStatus.SENT),
    ("say", 4): lambda number, time, sender, text: events.PublicMessage(int(number), int(time), sender, text),
    ("no", 2): lambda code, reason: events.Refused(ErrorCode(code), reason),
    ("bye", 1): events.Bye,
}
WORDS = {
    Login: lambda request: ("toy", request.username, request.password),
    Say: lambda request: (request.text,),
    Leave: lambda _: ("", "leave"),
    events.Welcome: lambda event: ("hi", event.account),
    events.Sent: lambda event: ("ok", event.id),
    events.PublicMessage: lambda event: ("say", event.id, event.time_ms, event.sender, event.text),
    events.Refused: lambda event: ("no", event.code, event.reason),
    events.Bye: lambda event: ("bye", event.reason),
}


def encode(each):
    return ":".join(quote(str(word), safe="") for word in WORDS[type(each)](each)).encode() + b"\n"


def read(line, table):
    if len(line) > LINE_MAX_BYTES:
        return Unreadable(ErrorCode.TOO_LONG, f"A line has {LINE_MAX_BYTES:,} bytes at most.")
    first, *others = map(unquote, line.decode(errors="replace").split(":"))
    if table is REQUESTS and not others:
        return Say(first)
    try:
        return table[first, len(others)](*others)
    except (KeyError, ValueError):
        return Unreadable(ErrorCode.UNKNOWN_COMMAND, "There is no such line.")


class ToyServer(ServerProtocol):
    def __init__(self, table=REQUESTS):
        self._table, self._lines = table, LineBuffer(LINE_MAX_BYTES)

    def receive(self, data):
        lines = self._lines.split(data).split(b"\n")[:-1]
        lines += [b"x" * (LINE_MAX_BYTES + 1)] * self._lines.drop_overflow()
        return [read(line, self._table) for line in lines]

    def receive_end(self):
        return [Unreadable(ErrorCode.BAD_REQUEST, "The last line has no end.")] if self.is_incomplete else []

    def encode(self, items):
        return Toy().encode_all(items)

    @property
    def is_incomplete(self):
        return bool(self._lines.tail)


class ToyReader(ToyServer):
    def decode(self, data):
        found = self.receive(data)
        if any(isinstance(each, Unreadable) for each in found):
            raise ProtocolError("The server sent a line that is no event.")
        return found


class ToyClient:
    connections, is_stepwise, is_guest, is_busy, ping = 1, False, False, False, None

    def event_decoder(self):
        return ToyReader(EVENTS)

    def connect(self, login, _, host=""):
        return self.request(login)

    def request(self, action):
        if type(action) not in (Login, Say, Leave):
            raise TypeError(action)
        return Effects((Outgoing(encode(action)),))

    def handle_event(self, event):
        return Effects(events=(event,))


class Toy(WireProtocol):
    name, opening = "toy", "toy:alice:secret\n"
    server, client = ToyServer, lambda *_: ToyClient()

    sniff = staticmethod(lambda first: sniff_text(first, (b"toy:",)))

    def encode_all(self, items):
        return b"".join(encode(each) for each in events.expand_batches(items) if type(each) in WORDS)
