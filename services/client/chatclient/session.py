"""A visit: one user's stay in the room, over as many connections as it takes. Pure.

It joins what the client knows (the model) to how the dialect is spoken (the exchange): what is wished goes out on the
link that stands, and what the server says comes back as news.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final, Protocol

from chatclient.links.watch import Due
from chatclient.model import ConnectionState
from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.events import DirectMessage, Found, History, Online, PublicMessage, Refused, Welcome
from chatprotocol.requests import AskHistory, AskUsers, Leave, Say, Search, Whisper
from chatprotocol.rules import check_text, check_username, name_key

if TYPE_CHECKING:
    from chatclient.client_protocol import Action, ClientEvent, ClientProtocol, Effects
    from chatclient.model import Model
    from chatprotocol.events import Event, Message
    from chatprotocol.requests import Request

# Refusals after which a user who was in can't come in again. All others pass, as a server's shutdown does, or somebody
# else's guesses at the password.
_FINAL_REFUSALS: Final = frozenset(
    {ErrorCode.BAD_REQUEST, ErrorCode.BAD_USERNAME, ErrorCode.TOO_LONG, ErrorCode.WRONG_PASSWORD}
)
# What is answered at once, and asked again where the connection was lost before.
_ANSWERS: Final[dict[type, type]] = {AskUsers: Online, AskHistory: History, Search: Found}
# Messages that may be sent and not confirmed before the next one has to wait.
_UNCONFIRMED_MAX: Final = 64
# The same for what is asked and not answered.
_UNANSWERED_MAX: Final = 64


class Link(Protocol):
    """A connection that stands; over UDP its first request will open it. What is sent after its end is lost."""

    def send(self, request: Request) -> None:
        """Send a request; where that fails, the connection is lost, and its collector says so."""

    def shut_down(self) -> None:
        """Let the connection end."""


def check_message(said: Say | Whisper) -> None:
    """Raises Refusal for a text that can't be a message, and for a name that nobody can have."""
    if isinstance(said, Whisper):
        check_username(said.to)
    check_text(said.text)
    check_unicode(said.text)


def check_unicode(text: str) -> None:
    """Half characters are no text, and can't be sent. Raises Refusal."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(ErrorCode.BAD_REQUEST, "That is not text in Unicode; nothing was sent.") from error


class ClientSession:
    """For one thread. What it returns is to be told, in that order; the model knows it already."""

    def __init__(self, model: Model, client_protocol: ClientProtocol) -> None:
        self.model = model
        self.client_protocol = client_protocol
        self._link: Link | None = None
        # The user's own messages that look like one that is not confirmed, by id. Whether they are it, and need not be
        # told, its confirmation says: no dialect names the nonce where a message is shown.
        self._held: dict[int, Message] = {}
        # What was asked and not answered, oldest first.
        self._unanswered: list[Action] = []
        # Was goodbye said on this connection?
        self._is_leaving = False

    @property
    def is_ready(self) -> bool:
        """Is the user in, and can something be wished now?"""
        if self.model.connection_state is not ConnectionState.IN or self.client_protocol.is_busy:
            return False
        return len(self.model.unconfirmed) < _UNCONFIRMED_MAX and len(self._unanswered) < _UNANSWERED_MAX

    @property
    def due(self) -> Due:
        """What the server owes. The collector reads it, too."""
        if self.model.connection_state is ConnectionState.KNOCKING:
            return Due.LOGIN
        is_owed = self.model.unconfirmed or self._unanswered or self.client_protocol.is_busy or self._is_leaving
        return Due.ANSWER if is_owed and self.model.connection_state is ConnectionState.IN else Due.NOTHING

    @property
    def ping(self) -> Request | None:
        """What asks for a sign of life, if that disturbs nothing now. The collector reads it, too."""
        return self.client_protocol.ping if self.model.connection_state is ConnectionState.IN else None

    def log_in(self, link: Link) -> tuple[ClientEvent, ...]:
        """A connection stands: come in, and send what was not confirmed on the one before."""
        self._link = link
        self._is_leaving = False
        self.model.connection_state = ConnectionState.KNOCKING
        return self._follow(self.client_protocol.connect(self.model.login(), [*self.model.unconfirmed.values()]))

    def connection_lost(self) -> None:
        """The connection is lost."""
        self.model.connection_state = ConnectionState.AWAY

    def shut(self) -> None:
        """Let the connection end; another one will be tried."""
        if self._link is not None:
            self._link.shut_down()

    def passes(self, error: Refused) -> bool:
        """May a user who was in be let in again some time after this?

        Of a guest the server may not know yet that the connection before was lost.
        """
        return self.client_protocol.is_guest or error.code not in _FINAL_REFUSALS

    def handle_event(self, event: Event) -> tuple[ClientEvent, ...]:
        """The server said something."""
        return self._follow(self.client_protocol.handle_event(event))

    def request(self, action: Action) -> tuple[ClientEvent, ...]:
        """Somebody wants something."""
        self._is_leaving |= isinstance(action, Leave)
        if type(action) in _ANSWERS:
            self._unanswered.append(action)
        return self._follow(self.client_protocol.request(action))

    def prepare(self, said: Say | Whisper) -> Say | Whisper:
        """The message with a nonce. From now on it is the visit's: it is sent again until it is confirmed.

        Raises Refusal: see check_message.
        """
        check_message(said)
        nonce = secrets.token_hex(8)
        said = Say(said.text, nonce) if isinstance(said, Say) else Whisper(said.to, said.text, nonce)
        self.model.unconfirmed[nonce] = said
        return said

    def _follow(self, effects: Effects) -> tuple[ClientEvent, ...]:
        if self._link is not None:
            for request in effects.send:
                self._link.send(request)
        told = tuple(each for news in effects.news for each in self._learn(news))
        if any(isinstance(news, Welcome) for news in told):
            again, self._unanswered = self._unanswered, []
            for action in again:
                told += self.request(action)
        return told

    def _learn(self, news: ClientEvent) -> tuple[ClientEvent, ...]:
        """Note it; what is to be told then?"""
        if isinstance(news, PublicMessage | DirectMessage):
            if self.model.has_seen(news):
                return ()
            if self._may_be_unconfirmed(news) and len(self._held) < _UNCONFIRMED_MAX:
                self._held[news.id] = news
                return ()
        self.model.apply(news)
        is_error = (
            isinstance(news, Refused) and news.nonce is None and self.model.connection_state is ConnectionState.IN
        )
        for action in self._unanswered:
            if is_error or isinstance(news, _ANSWERS[type(action)]):
                self._unanswered.remove(action)
                break
        return (*(() if self._is_put_off(news) else (news,)), *self._let_go())

    def _may_be_unconfirmed(self, message: Message) -> bool:
        """Could it be a message that was sent from here, and stored, and of which the confirmation is still to come?

        It came back on another connection than the one that it was sent on.
        """
        if not self.model.unconfirmed or not self.model.is_own(message):
            return False
        return any(self._may_be(message, said) for said in self.model.unconfirmed.values())

    def _may_be(self, message: Message, said: Say | Whisper) -> bool:
        if said.text != message.text:
            return False
        if isinstance(said, Say) or isinstance(message, PublicMessage):
            return isinstance(said, Say) and isinstance(message, PublicMessage)
        # Some dialects don't tell the recipient. Whoever writes to oneself gets the message and its confirmation.
        to, username = name_key(said.to), name_key(self.model.username)
        return name_key(message.recipient) in ("", to) and to != username

    def _let_go(self) -> tuple[Message, ...]:
        """Of what was held back: what was confirmed is known, and the rest is to be told when nothing can be it."""
        told: list[Message] = []
        for message in list(self._held.values()):
            is_known = self.model.has_seen(message)
            if is_known or not self._may_be_unconfirmed(message):
                del self._held[message.id]
            if message.id not in self._held and not is_known:
                self.model.apply(message)
                told.append(message)
        return tuple(told)

    def _is_put_off(self, news: ClientEvent) -> bool:
        """Is it the refusal of a message that is sent again by itself? Then it is not what became of it."""
        return isinstance(news, Refused) and news.nonce in self.model.unconfirmed
