"""Promises of every wire protocol, whatever its bytes are. A new protocol is tested by being in the table."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from raw_steps import CommandBatch, encode_request, first_bytes, new_reader, new_server, receive

from chatprotocol.errors import ErrorCode
from chatprotocol.events import (
    YOU_LEFT,
    AccountKind,
    Authenticated,
    Bye,
    ChatHistory,
    DirectMessage,
    Entered,
    Event,
    EventBatch,
    Found,
    History,
    Members,
    PasswordPrompt,
    PublicBatch,
    PublicMessage,
    Sent,
    SentBatch,
    SentStatus,
    Users,
    Welcome,
    expand_batches,
)
from chatprotocol.limits import FRAME_MAX_BYTES, LINE_MAX_BYTES
from chatprotocol.requests import (
    AskChatHistory,
    AskHistory,
    AskMembers,
    AskUsers,
    Authenticate,
    Enter,
    EnterLobby,
    GuestLogin,
    Leave,
    Login,
    Password,
    Quit,
    Request,
    Say,
    Unreadable,
    Whisper,
)
from chatprotocol.wire import SNIFF_MAX_BYTES, Irc, Sniff, WireProtocol, by_name, sniff
from chatprotocol.wire.base import Effects, Forwarded, Online, Outcome

from .samples import ALL_PROTOCOLS, DIRECT, PUBLIC, SAMPLES, SETTINGS, held_bytes, pieces, unfold

EVERY_REQUEST = tuple(request for samples in SAMPLES.values() for request in samples.requests)
EVERY_EVENT = tuple(event for samples in SAMPLES.values() for event in samples.said)
# Data that goes on in the next datagram.
PIECE = b"d" + (500).to_bytes(4) + b"x" * 500
# The bytes of input that a decoder of any protocol may hold.
HELD_MAX_BYTES = max(LINE_MAX_BYTES, FRAME_MAX_BYTES)

every_protocol = pytest.mark.parametrize("protocol", SETTINGS.values(), ids=SETTINGS)
every_default = pytest.mark.parametrize("protocol", ALL_PROTOCOLS, ids=lambda protocol: protocol.name)

texts = st.lists(st.text(st.characters(codec="utf-8"), min_size=1), max_size=5)
batches = st.one_of(
    st.builds(
        PublicBatch,
        st.integers(1, 10**6),
        st.integers(0, 10**12),
        st.just("alice"),
        texts,
        guest=st.booleans(),
        notice=st.booleans(),
    ),
    st.builds(SentBatch, st.integers(1, 10**6), st.lists(st.one_of(st.none(), st.text(min_size=1)), max_size=5)),
)


def samples_of(protocol: WireProtocol) -> list[tuple[Request, Request]]:
    """The requests, and those that arrive for them."""
    samples = SAMPLES[protocol.name]
    return [*((each, each) for each in (samples.login, *samples.requests)), *samples.becoming]


@every_protocol
def test_requests_arrive_as_sent(protocol: WireProtocol) -> None:
    for request, arriving in samples_of(protocol):
        assert receive(new_server(protocol), encode_request(protocol, request)) == [arriving]
    together = b"".join(encode_request(protocol, request) for request, _ in samples_of(protocol))
    assert unfold(receive(new_server(protocol), together)) == [arriving for _, arriving in samples_of(protocol)]


@every_protocol
@pytest.mark.parametrize("size", [100_000, 1_000])
def test_request_over_the_limit_is_refused_with_the_limit(protocol: WireProtocol, size: int) -> None:
    encoded = encode_request(protocol, SAMPLES[protocol.name].too_long)
    (refused,) = receive(new_server(protocol), *pieces(encoded, size))
    assert isinstance(refused, Unreadable)
    assert refused.code is ErrorCode.TOO_LONG
    assert SAMPLES[protocol.name].limit in refused.reason


@every_protocol
def test_incomplete_request_is_reported_at_the_end(protocol: WireProtocol) -> None:
    """``is_incomplete`` is True from the first byte of a request to its last."""
    for request, arriving in samples_of(protocol):
        encoded = encode_request(protocol, request)
        for size in (1, 2, len(encoded) // 2, len(encoded) - 2):  # the last byte may be an optional line end
            ended, goes_on = new_server(protocol), new_server(protocol)
            for decoder in (ended, goes_on):
                assert not decoder.is_incomplete
                assert receive(decoder, encoded[:size]) == []
                assert decoder.is_incomplete, (request, size)
            assert [type(each) for each in ended.receive_end()] == [Unreadable], (request, size)
            assert receive(goes_on, encoded[size:]) == [arriving]
            assert not goes_on.is_incomplete
            assert goes_on.receive_end() == []
            receive(goes_on, encoded[:2])
            assert goes_on.is_incomplete


@every_protocol
def test_request_of_another_protocol_cannot_be_encoded(protocol: WireProtocol) -> None:
    ours = {type(request) for request, _ in samples_of(protocol)}
    for request in (*EVERY_REQUEST, CommandBatch("PM", ("hello",)), Unreadable(ErrorCode.BAD_JSON, "not JSON")):
        if type(request) not in ours:
            with pytest.raises(TypeError):
                encode_request(protocol, request)


@every_protocol
def test_events_arrive_as_far_as_the_protocol_carries_them(protocol: WireProtocol) -> None:
    for event, arriving in SAMPLES[protocol.name].arrivals:
        assert new_reader(protocol).decode(protocol.encode_all([event])) == list(arriving)


@every_protocol
@given(data=st.data())
def test_events_encoded_together_are_the_same_as_one_by_one(protocol: WireProtocol, data: st.DataObject) -> None:
    said: list[Event | EventBatch] = data.draw(
        st.lists(st.one_of(st.sampled_from(SAMPLES[protocol.name].said), batches), max_size=5)
    )
    assert protocol.encode_all(said) == b"".join(protocol.encode_all([event]) for event in expand_batches(said))


@every_protocol
@given(texts=st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20), max_size=20), long=st.booleans())
def test_long_answer_in_pieces_has_the_same_bytes(protocol: WireProtocol, texts: list[str], long: bool) -> None:
    """Promise: memory stays bounded. The pieces of megabytes are small."""
    messages = tuple(
        PublicMessage(number, 0, "alice", text * (300 if long else 1)) for number, text in enumerate(texts)
    )
    log = [ChatHistory(messages, "lobby")] if protocol.name.startswith("irc") else []
    for answer in (History(messages), Found('"messages":[]', messages, 17), *log):
        parts = list(new_server(protocol).encode_long(replace(answer, messages=()), messages))
        assert b"".join(parts) == new_server(protocol).encode([answer])
        assert max(map(len, parts), default=0) < 100_000


def test_batch_counts_its_ids() -> None:
    assert list(expand_batches([PublicBatch(7, 5, "alice", ["one", "two"]), SentBatch(8, (None, "n1"))])) == [
        PublicMessage(7, 5, "alice", "one"),
        PublicMessage(8, 5, "alice", "two"),
        Sent(8, SentStatus.SENT),
        Sent(9, SentStatus.SENT, "n1"),
    ]


@every_protocol
def test_event_without_a_form_is_skipped(protocol: WireProtocol) -> None:
    ours = set(map(type, SAMPLES[protocol.name].said))
    foreign = [event for event in EVERY_EVENT if type(event) not in ours]
    assert protocol.encode_all(foreign) == b""


@every_protocol
@pytest.mark.parametrize(
    "flood", [b"x", b"{", b"[", b'"', b"\\", b" ", b"\n", b"\xff", b"\xf0\x9f\x98\x80", b"D\0\0\0\2PM", PIECE]
)
@pytest.mark.parametrize("begun", [0, 5, 40])
def test_endless_input_is_held_up_to_the_limit(protocol: WireProtocol, flood: bytes, begun: int) -> None:
    """Promise: memory stays bounded. ``begun`` is the number of bytes of a long request before the flood."""
    empty_bytes = held_bytes(new_server(protocol))
    decoder = new_server(protocol)
    receive(decoder, max(map(partial(encode_request, protocol), SAMPLES[protocol.name].requests), key=len)[:begun])
    if 0 < begun <= 5:  # otherwise this test measures nothing
        assert 0 < held_bytes(decoder) - empty_bytes <= begun
    for _ in range(2 * HELD_MAX_BYTES // 4000):
        receive(decoder, flood * (4000 // len(flood)))
        assert held_bytes(decoder) - empty_bytes <= HELD_MAX_BYTES


# --- both halves against each other ---


WELCOME = Welcome(account=AccountKind.EXISTING, username="alice", users=("alice", "bob"), last_id=10)
ANSWERS: dict[type, Callable[[Any], tuple[Event, ...]]] = {
    Login: lambda asked: (PasswordPrompt(account=AccountKind.EXISTING),) if asked.password is None else (WELCOME,),
    Password: lambda _: (WELCOME,),
    Say: lambda asked: (Sent(18, SentStatus.SENT, asked.nonce),),
    Whisper: lambda asked: (Sent(18, SentStatus.SENT, asked.nonce),),
    AskUsers: lambda _: (Users(users=("alice", "bob")),),
    AskHistory: lambda _: (History((PUBLIC,)),),
    Leave: lambda _: (Bye(YOU_LEFT),),
    GuestLogin: lambda asked: (Welcome(account=AccountKind.GUEST, username=asked.username, users=(), last_id=None),),
    # Of irc.
    Authenticate: lambda asked: (Authenticated(asked.username),),
    Enter: lambda _: (WELCOME,),
    EnterLobby: lambda _: (Entered(room="lobby", username="alice", last_id=10, members=()),),
    AskMembers: lambda _: (Members("lobby", ()),),
    AskChatHistory: lambda _: (ChatHistory((PUBLIC,), "lobby"),),
    Quit: lambda _: (Bye(YOU_LEFT),),
}


def answers(request: Any) -> tuple[Event, ...]:
    """The answers of a session."""
    return next((answer(request) for kind, answer in ANSWERS.items() if isinstance(request, kind)), ())


class Conversation:
    """The halves of one user. All bytes arrive in pieces of ``size``."""

    def __init__(self, protocol: WireProtocol, size: int) -> None:
        self.client = protocol.client()
        self._echoes = isinstance(protocol, Irc)
        self._servers = [protocol.server() for _ in range(self.client.connections)]
        self._decoders = [self.client.event_decoder() for _ in self._servers]
        self._size = size
        # The requests of the client, and what it shows.
        self.requests: list[Any] = []
        self.shown: list[Any] = []

    def do(self, effects: Effects) -> list[Any]:
        """Return the events that the client shows for these effects and all that follows from them."""
        before = len(self.shown)
        self.shown += effects.events
        for data, number in effects.send:
            said = b""
            server = self._servers[number]
            for part in pieces(data, self._size):
                for request in server.receive(part):
                    self.requests.append(request)
                    said += server.data_to_send() + server.encode(self._answers(request))
                said += server.data_to_send()
            self.hear(said, number)
        return self.shown[before:]

    def _answers(self, request: Any) -> tuple[Event, ...]:
        """In irc a confirmation is followed by the echo."""
        match request:
            case Say(text) if self._echoes:
                return (*answers(request), PublicMessage(18, 0, "alice", text))
            case Whisper(to, text) if self._echoes:
                return (*answers(request), DirectMessage(18, 0, "alice", to, text))
        return answers(request)

    def push(self, *said: Event) -> None:
        """The server sends events that answer nothing."""
        self.hear(self._servers[-1].encode(said))

    def hear(self, data: bytes, number: int = -1) -> None:
        for part in pieces(data, self._size):
            for event in self._decoders[number].decode(part):
                self.do(self.client.handle_event(event))


def converse(protocol: WireProtocol, size: int) -> Conversation:
    """Log in, send and receive messages, ask, and leave, as far as the protocol can."""
    talk = Conversation(protocol, size)
    talk.do(talk.client.connect(Login("alice", "secret"), ()))
    for action in (Say("hello \u20ac\n", "n1"), Whisper("bob", "psst", "n2"), AskUsers(), AskHistory(), Leave()):
        assert not talk.client.is_busy
        with suppress(TypeError):  # not in this protocol
            talk.do(talk.client.request(action))
        talk.push(PUBLIC, DIRECT)
    return talk


@every_protocol
def test_both_halves_understand_each_other_in_any_pieces(protocol: WireProtocol) -> None:
    whole, *cut = (converse(protocol, size) for size in (1_000_000, 1, 2, 7))
    for each in cut:
        assert (each.requests, each.shown) == (whole.requests, whole.shown)
    texts = [each.text for each in whole.requests if isinstance(each, (Say, Whisper))]
    assert texts in (["hello \u20ac\n", "psst"], ["hello \u20ac\n"])
    kinds = [type(each) for each in whole.shown]
    assert kinds[0] is Welcome
    assert kinds.count(Bye) == 1
    assert sum(kind in (Sent, Outcome) for kind in kinds) == len(texts)
    assert sum(kind in (PublicMessage, DirectMessage, Forwarded) for kind in kinds) in (5, 8, 10)
    assert (Online in kinds, History in kinds) == (
        any(isinstance(each, AskUsers | AskMembers) for each in whole.requests),
    ) * 2


# --- detection ---


@every_default
def test_login_is_detected_if_the_protocol_is_used_over_tcp(protocol: WireProtocol) -> None:
    login = first_bytes(protocol, SAMPLES[protocol.name].login)
    for size in range(1, SNIFF_MAX_BYTES + 1):
        if protocol.opening is None:
            assert protocol.sniff(login[:size]) is Sniff.NO
        else:
            assert sniff(login[:size], ALL_PROTOCOLS) in (protocol, Sniff.MORE)
    if protocol.opening is not None:
        assert sniff(login, ALL_PROTOCOLS) is sniff(login[:SNIFF_MAX_BYTES], ALL_PROTOCOLS) is protocol


@every_default
def test_documented_opening_is_detected_and_is_a_request(protocol: WireProtocol) -> None:
    """The server names the opening to peers that speak something else. Datagram alone has none: it is UDP."""
    assert by_name(protocol.name, ALL_PROTOCOLS) is protocol
    assert (protocol.opening is None) is (protocol.name == "datagram")
    if protocol.opening is not None:
        assert sniff(protocol.opening.encode(), ALL_PROTOCOLS) is protocol
    if protocol.opening is not None and protocol.name not in ("websocket", "irc"):  # whose login comes later
        decoder = new_server(protocol)
        (request,) = receive(decoder, protocol.opening.encode())
        assert type(request) is type(SAMPLES[protocol.name].login)
        assert not decoder.is_incomplete
