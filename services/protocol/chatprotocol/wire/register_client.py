"""Client side of the protocol register: users are guests, with a name, two connections and no password. Pure.

   REGISTER TOSEND ->   <- REGISTERED   REGISTER TORECV ->   <- REGISTERED      SEND bob ->   <- SEND bob

Wire format: docs/wire/register.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chatprotocol.errors import ErrorCode
from chatprotocol.events import (
    YOU_LEFT,
    AccountKind,
    Bye,
    Delivered,
    Forwarded,
    NotDelivered,
    Refused,
    Registered,
    Welcome,
)
from chatprotocol.requests import Leave, Login, Received, Register, Say, Send, Side, Whisper
from chatprotocol.rules import EVERYONE
from chatprotocol.wire.base import DeliveryUnknown, Effects, Outcome, Outgoing, PossibleGap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chatprotocol.events import Event
    from chatprotocol.requests import Request
    from chatprotocol.wire.base import Action, ClientEvent, Decoder
    from chatprotocol.wire.register import Register as RegisterProtocol


class RegisterClient:
    """Sends one message at a time, and acknowledges each received message."""

    connections = len(Side)
    is_stepwise = True
    is_guest = True
    # The protocol has no ping.
    ping = None

    def __init__(self, protocol: RegisterProtocol) -> None:
        self._protocol = protocol
        self._login = Login("")
        self._was_logged_in = False
        self._is_logged_in = False
        # Messages sent on previous connections and not answered.
        self._unconfirmed: tuple[Say | Whisper, ...] = ()
        # The unanswered message, and true if the client leaves after the answer.
        self._unanswered: Say | Whisper | None = None
        self._is_leaving = False

    @property
    def is_busy(self) -> bool:
        """True while a message is unanswered."""
        return self._unanswered is not None

    def event_decoder(self) -> Decoder[Event]:
        """Return the decoder for a new connection."""
        return self._protocol.event_decoder()

    def connect(self, login: Login, unconfirmed: Sequence[Say | Whisper]) -> Effects:
        """Register the sending connection, then the receiving connection: some servers need this order."""
        self._login = login
        self._unconfirmed = tuple(unconfirmed)
        self._is_logged_in = self._is_leaving = False
        self._unanswered = None
        return Effects(self._outgoing(Register(Side.SENDING, login.username)))

    def request(self, action: Action) -> Effects:
        """Send a message, or leave by closing the connections. Raises TypeError for all other actions."""
        match action:
            case Say(text):
                return self._send(action, Send(EVERYONE, text))
            case Whisper(to, text):
                return self._send(action, Send(to, text))
            case Leave() if self.is_busy:
                self._is_leaving = True
                return Effects()
            case Leave():
                return Effects(events=(Bye(YOU_LEFT),))
            case _:
                raise TypeError(f"{action!r} can't be sent by a guest.")

    def handle_event(self, event: Event) -> Effects:
        """Continue the registration, acknowledge a message, or finish the unanswered one."""
        match event:
            case Registered() if self._is_logged_in:
                return Effects()
            case Registered(Side.SENDING):
                return Effects(self._outgoing(Register(Side.RECEIVING, self._login.username)))
            case Registered():
                return Effects(events=self._on_registered())
            case Forwarded(sender):
                return Effects(self._outgoing(Received(sender)), (event,))
            case Refused(code, reason) if not self._is_logged_in:
                return Effects(events=(Refused(code, self._login_error(code, reason)),))
            case NotDelivered() if not self._is_logged_in:  # some servers answer REGISTER with it
                code = ErrorCode.INTERNAL
                return Effects(events=(Refused(code, self._login_error(code, "unable to send")),))
            case Delivered() | NotDelivered() | Refused() if self._unanswered is not None:
                return Effects(events=self._finish(self._unanswered, event))
            case _:
                return Effects(events=(event,))

    def _send(self, message: Say | Whisper, request: Request) -> Effects:
        self._unanswered = message
        return Effects(self._outgoing(request))

    def _outgoing(self, request: Request) -> tuple[Outgoing]:
        data = self._protocol.encode_request(request)
        return (Outgoing(data, self._protocol.connection_for(request)),)

    def _on_registered(self) -> tuple[ClientEvent, ...]:
        self._is_logged_in = True
        welcome = Welcome(account=AccountKind.GUEST, username=self._login.username, users=(), last_id=None)
        if not self._was_logged_in:
            self._was_logged_in = True
            return (welcome,)
        unknown = (DeliveryUnknown(message, has_history=False) for message in self._unconfirmed)
        return (welcome, PossibleGap(has_history=False), *unknown)

    def _login_error(self, code: ErrorCode, reason: str) -> str:
        name = self._login.username
        if code is not ErrorCode.BAD_USERNAME:
            return f"The server rejected {name} ({reason}); it may be full, or accept no guests."
        if self._was_logged_in:
            return f"The name {name} is taken now; trying again."
        return f"The name {name} is taken or not allowed; choose another one."

    def _finish(self, message: Say | Whisper, event: Delivered | NotDelivered | Refused) -> tuple[ClientEvent, ...]:
        """Return the outcome of the unanswered message, and the goodbye if it was requested meanwhile."""
        self._unanswered = None
        outcome = Outcome(message, isinstance(event, Delivered))
        error: tuple[ClientEvent, ...] = (event,) if isinstance(event, Refused) else ()
        goodbye: tuple[ClientEvent, ...] = (Bye(YOU_LEFT),) if self._is_leaving else ()
        return (*error, outcome, *goodbye)
