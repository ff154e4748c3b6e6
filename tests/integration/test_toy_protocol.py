"""A protocol that the server learns from one file, on a real server: toy_protocol.py."""

from __future__ import annotations

import queue
import threading
from contextlib import closing
from typing import TYPE_CHECKING

from toy_protocol import Toy

from chatclient import ChatClient
from chatclient.links.tcp import connect
from chatclient.links.watch import ExpectedAnswer, Watch
from chatprotocol.events import Bye, PublicMessage, Sent, Welcome
from chatprotocol.requests import Leave, Login, Say
from chatprotocol.wire import protocols_with
from chatserver.app import Server

if TYPE_CHECKING:
    from chatprotocol.events import Event
    from chatserver.config import Config

DEADLINE_SECONDS = 10.0


class Silent:
    expected_answer = ExpectedAnswer.NOTHING
    ping = None
    has_other_server = False


def test_toy_client_and_json_client_are_in_one_room(config: Config) -> None:
    server = Server(config, lambda: None, protocols=lambda *settings: (*protocols_with(*settings), Toy()))
    server.start()
    try:
        toy = Toy().client()
        heard: queue.SimpleQueue[Event] = queue.SimpleQueue()
        link = connect(toy, lambda: Watch(Silent(), 1_000.0, 0.0), ("127.0.0.1", server.port), DEADLINE_SECONDS)
        receiver = threading.Thread(target=link.receive, args=(heard.put,), name="receiver", daemon=True)
        receiver.start()

        def hear() -> Event:
            (shown,) = toy.handle_event(heard.get(timeout=DEADLINE_SECONDS)).events
            return shown

        with closing(link), ChatClient("127.0.0.1", server.port) as bob:
            bob.login("bob", "secret")
            for data, connection in toy.connect(Login("alice", "two words"), ()).send:
                link.send(data, connection)
            assert isinstance(hear(), Welcome)
            link.send(*toy.request(Say("hello, bob")).send[0])
            confirmation = hear()
            assert isinstance(confirmation, Sent)
            message = next(event for event in bob.events(DEADLINE_SECONDS) if isinstance(event, PublicMessage))
            assert (message.id, message.sender, message.text) == (confirmation.id, "alice", "hello, bob")
            bob.say("hello, alice")
            message = hear()
            assert (message.sender, message.text) == ("bob", "hello, alice")
            link.send(*toy.request(Leave()).send[0])
            assert hear() == Bye("you left")
            receiver.join(DEADLINE_SECONDS)
    finally:
        assert server.stop()
