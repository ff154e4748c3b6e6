"""The session of one of a guest's two connections: sending or receiving."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import structlog

from chatprotocol import requests
from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.events import Delivered, NotDelivered, Refused
from chatprotocol.requests import Side
from chatprotocol.rules import check_text, check_username, is_everyone
from chatserver.chat.errors import REQUEST_ERRORS, ErrorLog, to_request_error
from chatserver.journal.base import JournalClosedError
from chatserver.journal.entries import DirectMessage, PublicMessages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from chatprotocol.requests import Request
    from chatserver.chat.guests import Guest
    from chatserver.chat.member import SendQueue
    from chatserver.chat.services import Services
    from chatserver.journal.entries import MessageBatch

    _Handlers = dict[type, Callable[[Any, Any], None]]

_log = structlog.get_logger()

# Maximum unsolicited acks in a row. A simple client may send some by mistake. More are an attack: they cost the server
# processor time and the peer nothing, because they get no reply.
_UNSOLICITED_ACKS_MAX = 1_000
# Errors that are sent with their own code. The code of other errors depends on the connection: see _refuse.
_REPORTED_CODES = frozenset({ErrorCode.BAD_USERNAME, ErrorCode.NOT_LOGGED_IN})


class GuestSession:
    """Answers the requests of one connection. For its reader thread only, except :meth:`send_bye`."""

    __slots__ = ("_address", "_errors", "_guest", "_label", "_send_queue", "_services", "_side", "_unsolicited_acks")

    def __init__(self, services: Services, send_queue: SendQueue, label: str, address: str) -> None:
        self._services = services
        self._send_queue = send_queue
        self._address = address
        self._label = label
        self._errors = ErrorLog(label)
        # None until registered.
        self._side: Side | None = None
        self._guest: Guest | None = None
        # Unsolicited acks since the last valid one.
        self._unsolicited_acks = 0

    @property
    def is_logged_in(self) -> bool:
        """True if both connections are registered. The login timeout then no longer applies."""
        return self._guest is not None and self._guest.is_online

    def handle(self, incoming: Iterable[Request]) -> bool:
        """Answer the requests in order. False if the connection ends."""
        for request in incoming:
            if not self._send_queue.wait_for_room():
                return False
            if isinstance(request, requests.Unreadable):
                self._refuse(RequestError(request.code, request.reason), closes=request.closes)
                if request.closes:
                    return False
                continue
            try:
                self._dispatch(request)
            except REQUEST_ERRORS as error:
                self._refuse(to_request_error(error, self._label))
            if self._unsolicited_acks >= _UNSOLICITED_ACKS_MAX:
                _log.warning("disconnected", reason="unsolicited_acks", user=self._name, connection=self._label)
                self._send_queue.put([Refused(ErrorCode.BAD_REQUEST, "Too many acknowledgements of nothing.")])
                return False
        return True

    def time_out(self) -> None:
        """Handle the timeout of the registration or of an incomplete request."""
        limit = f"{self._services.login_seconds:g} s"
        if self.is_logged_in:
            self._refuse(RequestError(ErrorCode.BAD_REQUEST, f"The rest did not come within {limit}."), closes=True)
        else:
            reason = f"No user has registered both connections within {limit} of connecting."
            self._refuse(RequestError(ErrorCode.NOT_LOGGED_IN, reason))

    def end(self) -> None:
        """End both connections of the guest, after the last request of this connection."""
        if self._guest is not None and self._side is not None:
            self._services.guests.leave(self._services, self._guest, self._side)

    def send_bye(self) -> None:
        """At shutdown, finish the messages in flight, then close. The protocol has no goodbye. For any thread."""
        guest = self._guest
        if guest is None:
            self._send_queue.finish()
        elif guest.window is None:
            guest.stop_waiting()
            self._send_queue.finish()
        else:
            self._services.acked_delivery.drain(guest.window, guest.finish)

    def _dispatch(self, request: Request) -> None:
        handler = self._HANDLERS[self._side].get(type(request))
        if handler is None:
            raise RequestError(ErrorCode.NOT_LOGGED_IN, "This connection is not registered; send REGISTER first.")
        handler(self, request)

    # --- handlers ---

    def _register(self, request: requests.Register) -> None:
        services, side = self._services, request.side
        check_username(request.username)
        if not services.guests_allowed:
            raise RequestError(ErrorCode.NOT_LOGGED_IN, "This server lets no guests in.")
        guest = services.guests.claim(services, request.username, side, self._address, self._send_queue)
        self._guest, self._side = guest, side
        services.guests.confirm_registration(services, guest, side, request.username)

    def _refuse_second_name(self, _: requests.Register) -> None:
        raise RequestError(ErrorCode.BAD_USERNAME, "This connection is registered already.")

    def _send(self, request: requests.Send) -> None:
        """SEND: reply after all recipients acknowledged. Until then this thread reads no further request."""
        services, guest = self._services, self._guest
        assert guest is not None
        guest.wait_until_registered()
        if guest.window is None or guest.member is None:
            raise RequestError(ErrorCode.NOT_LOGGED_IN, "The other connection is not registered; send REGISTER TORECV.")
        check_text(request.text)
        account_id, name, texts = guest.member.account_id, guest.name, [request.text]
        if is_everyone(request.to):
            message: MessageBatch = PublicMessages(account_id, name, texts, [None])
        else:
            to = services.find_recipient(request.to)
            message = DirectMessage(
                account_id, name, texts, [None], recipient_id=to.id, recipient=to.name, recipient_claim=to.claim
            )
        ack = services.acked_delivery.begin_send(guest.window)
        try:
            if not ack.is_complete:  # an ack is complete from the start if the guest has just left
                services.journal.append([message], ack)
            self._send_queue.put([Delivered(request.to) if ack.wait() else NotDelivered()])
        except JournalClosedError as error:
            self._refuse(to_request_error(error, self._label))
        finally:
            services.acked_delivery.end_send(guest.window)

    def _refuse_to_send(self, _: requests.Send) -> None:
        raise RequestError(ErrorCode.BAD_REQUEST, "This connection is for receiving; send on the other one.")

    def _handle_ack(self, request: requests.Received | requests.NotReceived) -> None:
        guest = self._guest
        assert guest is not None
        sender = request.sender if isinstance(request, requests.Received) else None
        if guest.window is not None and self._services.acked_delivery.handle_ack(guest.window, sender):
            self._unsolicited_acks = 0
        else:
            self._ignore_ack(request)

    def _ignore_ack(self, _: Request) -> None:
        """Ignore an unsolicited ack. If the peer acknowledged the reply, the exchange would never end."""
        self._errors.log_ignored_ack(self._name)
        self._unsolicited_acks += 1

    # Handlers by side and request type. An unregistered connection may only register.
    _HANDLERS: ClassVar[dict[Side | None, _Handlers]] = {
        None: {requests.Register: _register},
        Side.SENDING: {
            requests.Register: _refuse_second_name,
            requests.Send: _send,
            requests.Received: _ignore_ack,
            requests.NotReceived: _ignore_ack,
        },
        Side.RECEIVING: {
            requests.Register: _refuse_second_name,
            requests.Send: _refuse_to_send,
            requests.Received: _handle_ack,
            requests.NotReceived: _handle_ack,
        },
    }

    @property
    def _name(self) -> str | None:
        return self._guest.name if self._guest is not None else None

    def _refuse(self, error: RequestError, *, closes: bool = False) -> None:
        self._errors.log_refusal(error, self._name)
        if error.code in _REPORTED_CODES:
            self._send_queue.put([Refused(error.code, error.reason)])
        elif self._side is None:
            self._send_queue.put([Refused(ErrorCode.NOT_LOGGED_IN, error.reason)])
        elif closes:
            self._send_queue.put([Refused(ErrorCode.BAD_REQUEST, error.reason)])
        else:
            self._send_queue.put([NotDelivered()])
