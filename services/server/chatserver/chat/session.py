"""The session of one connection: a state machine over its requests.

The table at the end of the class has all permissions: a handler for each request that a state allows. A handler answers
the request and returns the next state. It raises one of REQUEST_ERRORS to reject the request; the state then stays.

Messages are not answered by their handlers but by the hub, after the commit. Consecutive ones of one read wait in
`_batches` and are appended to the journal together. Every other request, and the rejection of a message, first appends
them; so answers come in the order of the requests.

A guest with one connection is a member like a user, with fewer permissions. Another kind of guest, a pair, has two
connections, and a session for each. Its message is answered by the handler, after all other guests that
it is for have acknowledged it (see delivery.py). Until then the reader thread takes no other request.
"""

from __future__ import annotations

from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import structlog

from chatprotocol import requests
from chatprotocol.address import network_of
from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.events import (
    SHUTTING_DOWN,
    YOU_LEFT,
    AccountKind,
    Authenticated,
    Bye,
    Conversations,
    Found,
    History,
    PasswordChanged,
    PasswordPrompt,
    Pong,
    Refused,
    Rooms,
    Sent,
    SentStatus,
    User,
    Users,
    UserUnknown,
)
from chatprotocol.limits import CONVERSATIONS_MAX, LOGIN_ATTEMPTS_MAX
from chatprotocol.rules import check_nonce, check_text, is_lobby, name_key, unknown_user
from chatserver.chat.authentication import Peer, Proof
from chatserver.chat.errors import REQUEST_ERRORS, log_refusal, to_request_error
from chatserver.chat.missed import LoginAbortedError
from chatserver.chat.passwords import AbandonedError
from chatserver.chat.request_rates import MESSAGES, RequestRates
from chatserver.journal.base import JournalClosedError
from chatserver.journal.entries import DirectMessage, MessageBatch, PublicMessages
from chatserver.store.rooms import LOBBY_ID
from chatserver.store.words import terms_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from chatprotocol.requests import Request
    from chatserver.chat.guests import Guest, GuestPair
    from chatserver.chat.room import Member
    from chatserver.chat.services import Services
    from chatserver.journal.base import Appended
    from chatserver.net.sendqueue import SendQueue
    from chatserver.store.accounts import Account
    from chatserver.store.rooms import RoomView

    _Handlers = dict[type, Callable[[Any, Any], "State"]]

_log = structlog.get_logger()


class State(Enum):
    """The state of a session."""

    NOT_LOGGED_IN = auto()
    # The next request may be the password for the last login.
    PASSWORD_REQUESTED = auto()
    # The account is known, but the user is not online yet.
    AUTHENTICATED = auto()
    LOGGED_IN = auto()
    # The same for a guest with one connection.
    GUEST = auto()
    # One of a guest's two connections is registered.
    GUEST_PAIR = auto()
    # The goodbye was sent.
    CLOSED = auto()


# Maximum unsolicited acks of a guest in a row. A simple client may send some by mistake. More are an attack: they cost
# the server processor time and the peer nothing, because they get no reply.
_UNSOLICITED_ACKS_MAX = 1_000
# Maximum pause before the next read, if messages of an earlier read are not committed yet: the client sends without
# waiting for confirmations. The next read then gets more at once (docs/decisions/0009-batches-and-gathering.md).
_PAUSE_SECONDS = 0.002
# Time for the messages of a connection that has ended. In a cluster without a quorum they may stay unconfirmed for any
# time, and the user is not online meanwhile.
_LEAVE_SECONDS = 5.0
# Time for a peer that is not logged in to read answers, if it left too much unread.
_UNREAD_SECONDS = 5.0
# The error for a login that waits for its turn while a new connection needs its slot.
_DISPLACED = Refused(ErrorCode.SERVER_FULL, "The server is full, and your login had to wait; try again later.")


class Session:
    """Answers the requests of one connection. For its reader thread only, except where a method says otherwise."""

    def __init__(
        self,
        services: Services,
        send_queue: SendQueue,
        label: str,
        address: str,
        is_exempt: bool,  # noqa: FBT001 - the type of a Callable has no keywords
    ) -> None:
        """``is_exempt``: the limits of addresses and users don't apply."""
        self._services = services
        services.entering.note_session(1)
        # True until the session has ended.
        self._is_counted = True
        self._send_queue = send_queue
        self._address = address
        self._network = network_of(address)
        self._is_exempt = is_exempt
        self._rates = RequestRates(services.limits, self._network, is_exempt=is_exempt)
        # True while a request waits for the rate of all requests. Other threads read it.
        self.is_paused = False
        # Ends the wait of a login for its turn; None if none waits. Other threads read it.
        self._wake_try: Callable[[], None] | None = None
        self._label = label
        self._state = State.NOT_LOGGED_IN
        self._login: requests.Login | None = None
        # Set in the state AUTHENTICATED.
        self._proof: Proof | None = None
        self._wrong_passwords = 0
        self._member: Member | None = None
        # A guest with one connection, which is a member, too; and one with two.
        self._guest: Guest | None = None
        self._pair: GuestPair | None = None
        # Unsolicited acks since the last valid one.
        self._unsolicited_acks = 0
        # Messages of this read that the journal does not have yet, and the last ones that it has.
        self._batches: list[MessageBatch] = []
        self._appended: Appended[Any] | None = None

    @property
    def is_logged_in(self) -> bool:
        """True after the login, of a guest on both connections: the login timeout no longer applies. For any thread."""
        return self._member is not None or (self._pair is not None and self._pair.is_online)

    @property
    def username(self) -> str:
        """The user's name; empty before the login. For any thread."""
        member, guest = self._member, self._pair
        return member.name if member is not None else guest.name if guest is not None else ""

    @property
    def takes_large_reads(self) -> bool:
        """True if a large read costs no more than its requests are allowed to."""
        return self._rates.takes_large_reads

    @property
    def awaits_turn(self) -> bool:
        """True while a login waits for its turn among other tries. For any thread."""
        return self._wake_try is not None

    @property
    def awaits_commit(self) -> bool:
        """True if messages of this read are not confirmed yet."""
        return bool(self._batches)

    def handle(self, incoming: Iterable[Request]) -> bool:
        """Answer the requests of one read in order, each before the next one is taken. False if the connection ends.

        Except for messages, a request waits until the peer has read enough of the earlier answers.
        """
        # Many messages may be in one read, so the loop avoids members of the enum: in CPython 3.11 each access and each
        # hash of one is a call of Python code, 0.1 us.
        handlers = self._TABLE[self._state]
        rates = self._rates
        is_paid = rates.begin_read(incoming)
        request = None
        for request in incoming:
            kind = type(request)
            if kind not in MESSAGES and not (self._begin_answer() and self._await_rate(kind)):
                return False
            try:
                handler = handlers.get(kind)
                if handler is None:
                    raise _not_allowed(self._state, request)
                if rates.is_limited and not (is_paid and kind in MESSAGES) and not self._await_turn(kind, request):
                    return False
                state = handler(self, request)
            except REQUEST_ERRORS as error:
                if kind in MESSAGES and not (self._begin_answer() and self._await_rate(kind)):
                    return False
                self._refuse(to_request_error(error, self._label), getattr(request, "nonce", None))
                state = self._state
            if state is not self._state:
                self._state = state
                handlers = self._TABLE[state]
            if not handlers:  # the session is closed
                return False
        if request is None and not self._await_rate(None):
            return False
        self._end_read()
        return True

    def _end_read(self) -> None:
        """Append the messages of this read. Pause while those of an earlier one are not committed."""
        earlier = self._appended
        self._append_batches()
        if earlier is not None and not earlier.is_complete:
            (self._appended or earlier).wait(_PAUSE_SECONDS)

    def time_out(self, seconds: float) -> None:
        """Handle the timeout of the login or of an incomplete request, which was ``seconds``."""
        limit = f"{seconds:g} s"
        if self.is_logged_in:
            reason = f"The rest of what you began did not come within {limit}."
            self._report(requests.Unreadable(ErrorCode.BAD_REQUEST, reason, closes=True))
        else:
            self._refuse(RequestError(ErrorCode.NOT_LOGGED_IN, f"Nobody logged in within {limit} of connecting."), None)
            self._send_queue.put([Bye("not logged in")])

    def end(self) -> None:
        """End the session after the peer's last request. It counts no longer; a second call does nothing."""
        if self._is_counted:
            self._is_counted = False
            self._services.entering.note_session(-1)
        self._go_offline()

    def _go_offline(self) -> None:
        """Wait for the messages of the peer, but not for ever, then leave."""
        if self._pair is not None:
            self._services.guests.leave(self._pair, self._send_queue)
        if self._member is None:
            return
        try:
            self._wait_for_pending(_LEAVE_SECONDS)
        finally:
            # Messages that reached the peer must count as delivered before its next login.
            self._send_queue.check_acknowledged()
            _log.info("logout", user=self._member.name, connection=self._label)
            self._services.login.leave(self._member)
            self._send_queue.check_acknowledged()
            self._member = None
            self._rates.note_logout()
            if self._guest is not None:
                self._services.guests.leave(self._guest, self._send_queue)

    def send_bye(self) -> None:
        """Send the last event, at shutdown; for guests after the messages in flight. For any thread."""
        guest = self._pair
        if guest is not None and guest.window is not None:
            self._services.acked_delivery.drain(guest.window, guest.finish)
            return
        self._send_queue.finish([Bye(SHUTTING_DOWN)])
        if guest is not None:  # last, because the woken request must not be answered
            guest.stop_waiting()

    def give_way(self) -> None:
        """End a login that waits for its turn, because another connection gets the slot. For any thread."""
        self._send_queue.finish([_DISPLACED])
        wake = self._wake_try
        if wake is not None:
            wake()

    def _note_wait(self, wake: Callable[[], None] | None) -> None:
        self._wake_try = wake

    # --- handlers: login and end ---

    def _log_in(self, request: requests.Login) -> State:
        self._services.check_available()
        if request.password is None and request.token is None:
            self._send_queue.put([PasswordPrompt(account=self._services.authentication.account_kind(request))])
            self._login = request
            return State.PASSWORD_REQUESTED
        return self._authenticate(request, request.password or "")

    def _take_password(self, request: requests.Password) -> State:
        assert self._login is not None
        return self._authenticate(self._login, request.password)

    def _authenticate(self, login: requests.Login, password: str) -> State:
        authenticate = self._services.authentication.authenticate
        return self._try(lambda: self._join(authenticate(login, password, self._peer()), login))

    def _prove(self, request: requests.Authenticate) -> State:
        """Find or register the account; the user is not online before Enter."""
        self._services.check_available()
        return self._try(partial(self._keep_proof, request))

    def _keep_proof(self, request: requests.Authenticate, guest: Account | None = None) -> State:
        proof = self._proof = self._services.authentication.prove(request, self._peer(), guest)
        self._send_queue.put([Authenticated(proof.account.name, is_new=proof.kind is AccountKind.NEW)])
        return State.AUTHENTICATED

    def _enter(self, request: requests.Enter) -> State:
        """Log in the user of Authenticate."""
        self._services.check_available()
        proof = self._proof
        assert proof is not None
        login = requests.Login(proof.account.name, rooms=True, moderation=True)
        return self._try(lambda: self._join(proof, login, request))

    def _enter_as_guest(self, request: requests.Enter) -> State:
        """Log in a guest with one connection."""
        services, name = self._services, request.username
        services.check_available()
        services.authentication.check_address(self._address)
        guest = services.guests.claim(name, self._address, self._send_queue, is_exempt=self._is_exempt)
        account = guest.account
        assert account is not None
        login = requests.Login(name, rooms=True, moderation=True)
        try:  # the join looks for a ban again, because one before the claim did not find the guest
            state = self._try(lambda: self._join(Proof(account, AccountKind.GUEST), login, request))
        except BaseException:
            services.guests.leave(guest, self._send_queue)
            raise
        if self._member is None:
            services.guests.leave(guest, self._send_queue)
            return state
        self._guest = guest
        services.guests.join(guest, self._member)
        return State.GUEST

    def _register_guest(self, request: requests.Authenticate) -> State:
        """Register the name of this guest. The guest is gone then; Enter logs the account in."""
        assert self._guest is not None
        guest = self._guest.account
        assert guest is not None
        if not request.registers or name_key(request.username) != name_key(guest.name):
            raise RequestError(ErrorCode.NOT_PERMITTED, "A guest can register its own name only.")
        self._services.check_available()
        state = self._keep_proof(request, guest)
        assert self._member is not None
        self._member.quit_reason = "Registered"
        self._go_offline()
        self._guest = None
        return state

    def _rename(self, request: requests.Rename) -> State:
        """Give a guest another name. The hub answers."""
        assert self._guest is not None
        self._wait_for_pending()
        self._services.guests.rename(self._guest, request.username, is_exempt=self._is_exempt)
        return self._state

    def _peer(self) -> Peer:
        return Peer(
            self._address,
            self._network,
            self._is_exempt,
            self._wrong_passwords,
            is_abandoned=self._send_queue.is_abandoned,
            note_wait=self._note_wait,
        )

    def _try(self, act: Callable[[], State]) -> State:
        """Do a part of a login. Count its errors, and end the connection after too many wrong passwords."""
        try:
            return act()
        except RequestError as error:
            self._services.counters.logins[error.code.value] += 1
            if error.code in (ErrorCode.WRONG_PASSWORD, ErrorCode.BAD_TOKEN):
                return self._note_wrong_password(error)
            raise
        except AbandonedError:
            if not self._send_queue.wait_for_room():  # it has given way
                return State.CLOSED
            raise

    def _join(self, proof: Proof, login: requests.Login, enter: requests.Enter | None = None) -> State:
        name = proof.account.name
        try:
            self._member = self._services.login.join(self._send_queue, proof, login, self._peer(), enter)
        except LoginAbortedError as error:
            # A new login is the only way to get the rest.
            cause = str(error.__cause__) or str(error)
            _log.error("login aborted", user=name, connection=self._label, error=cause)
            self._send_queue.put([Bye(str(error))])
            return State.CLOSED
        self._rates.note_login(self._member.account_id, self._member)
        self._services.counters.logins["guest" if proof.account.is_guest else "ok"] += 1
        _log.info("login", user=name, account=proof.kind.value, connection=self._label)
        return State.LOGGED_IN

    def _note_wrong_password(self, error: RequestError) -> State:
        self._wrong_passwords += 1
        if self._wrong_passwords < LOGIN_ATTEMPTS_MAX:
            raise error
        reason = f"{error.reason} That was try {LOGIN_ATTEMPTS_MAX}; the connection is closed."
        self._refuse(RequestError(ErrorCode.TOO_MANY_ATTEMPTS, reason), None)
        self._send_queue.put([Bye("too many wrong passwords")])
        return State.CLOSED

    def _log_in_guest(self, request: requests.GuestLogin) -> State:
        """Register one of a guest's two connections."""
        self._services.check_available()
        self._services.authentication.check_address(self._address)
        guests = self._services.guests
        guest = guests.claim_side(
            request.username, request.side, self._address, self._send_queue, is_exempt=self._is_exempt
        )
        try:  # again, because a ban before the claim did not find the guest
            self._services.authentication.check_address(self._address)
        except BaseException:
            guests.leave(guest, self._send_queue)
            raise
        self._pair = guest
        self._rates.note_login(name_key(guest.name))
        guests.confirm_registration(guest, request.side)
        if guest.is_online:  # this was the second connection
            self._services.counters.logins["guest"] += 1
        return State.GUEST_PAIR

    def _answer_ping(self, _: requests.Ping) -> State:
        self._send_queue.put([Pong()])
        return self._state

    def _pass_over(self, _: requests.Handled) -> State:
        """The protocol has answered; the request has counted for the rate."""
        return self._state

    def _answer_barrier(self, _: requests.Barrier) -> State:
        self._wait_for_pending()
        self._send_queue.put([Pong()])
        return self._state

    def _change_encoding(self, request: requests.ChangeEncoding) -> State:
        assert self._member is not None
        self._services.users.change_encoding(self._member, request.variant, echoes=request.echoes)
        return self._state

    def _leave(self, _: requests.Leave) -> State:
        self.end()
        self._send_queue.put([Bye(YOU_LEFT)])
        return State.CLOSED

    def _quit(self, request: requests.Quit) -> State:
        if self._member is not None and self._services.moderation.may_say_why(self._member):
            self._member.quit_reason = request.reason
        return self._leave(requests.Leave())

    def _report(self, request: requests.Unreadable) -> State:
        """Report invalid input."""
        self._refuse(RequestError(request.code, request.reason), request.nonce)
        if not request.closes:
            return self._state
        self._send_queue.put([Bye("the connection can't be read any further")])
        return State.CLOSED

    # --- handlers: messages ---

    def _say(self, request: requests.Say) -> State:
        """PM: confirmed after the commit."""
        check_text(request.text)
        if request.nonce is not None:
            check_nonce(request.nonce)
        room_id, room = LOBBY_ID, ""
        if request.room is not None and not is_lobby(request.room):
            room = request.room
            room_id = self._services.rooms.id_for_message(self._show_rooms(), room)
        batch = self._public_batch(room_id, room, is_notice=request.notice)
        batch.texts.append(request.text)
        batch.nonces.append(request.nonce)
        return self._state

    def _say_all(self, request: requests.SayBatch) -> State:
        if not self._rates.pay_for_batch(len(request.texts)):  # each message waits for its own turn
            return self._state if self.handle(map(requests.Say, request.texts)) else State.CLOSED
        batch = self._public_batch(LOBBY_ID, "")
        batch.texts.extend(request.texts)
        batch.nonces.extend([None] * len(request.texts))
        return self._state

    def _public_batch(self, room_id: int, room: str, *, is_notice: bool = False) -> PublicMessages:
        """Return the batch for a message: messages of one kind in a row to one room are one batch."""
        batch = self._batches[-1] if self._batches else None
        if (
            type(batch) is PublicMessages
            and batch.room_id == room_id
            and batch.room == room
            and batch.is_notice is is_notice
        ):
            return batch
        member = self._member
        assert member is not None
        batch = PublicMessages(member.account_id, member.name, [], [], room_id, room, member.is_guest, is_notice)
        self._batches.append(batch)
        return batch

    def _whisper(self, request: requests.Whisper) -> State:
        """DM: confirmed after the commit."""
        member = self._member
        assert member is not None
        check_text(request.text)
        if request.nonce is not None:
            check_nonce(request.nonce)
        self._batches.append(self._direct_message(member, request))
        return self._state

    def _direct_message(self, sender: Member, request: requests.Whisper) -> DirectMessage:
        """Return the entry. RequestError: the recipient is unknown."""
        recipient = self._services.find_recipient(request.to)
        return DirectMessage(
            sender.account_id,
            sender.name,
            [request.text],
            [request.nonce],
            recipient_id=recipient.id,
            recipient=recipient.name,
            recipient_claim=recipient.claim,
            is_waiting=not (recipient.is_guest or self._services.presence.is_online(recipient.name)),
            is_guest=sender.is_guest,
            is_notice=request.notice,
        )

    def _await_rate(self, kind: type | None) -> bool:
        """Wait until the rate of all requests allows this one; None: input without a request. False as _pause."""
        seconds = self._rates.request_delay(kind, is_logged_in=self.is_logged_in)
        if not seconds:
            return True
        self.is_paused = True
        try:
            return self._pause(seconds)
        finally:
            self.is_paused = False

    def _await_turn(self, kind: type, request: Request) -> bool:
        """Wait until the user's rate allows this request. False as _pause. RequestError: it does not."""
        seconds = self._rates.turn_delay(kind, request)
        return not seconds or self._pause(seconds)

    def _pause(self, seconds: float) -> bool:
        """Wait for the rate, after the earlier messages were appended. False if the connection ends."""
        self._append_batches()
        return self._send_queue.pause(seconds)

    def _begin_answer(self) -> bool:
        """Append the collected messages, and wait until the peer has read enough. False if the connection ends."""
        self._append_batches()
        return self._send_queue.wait_for_room(None if self.is_logged_in else _UNREAD_SECONDS)

    def _append_batches(self) -> None:
        """Append the collected messages to the journal."""
        if not self._batches:
            return
        assert self._member is not None
        batches, self._batches = self._batches, []
        try:
            self._appended = self._services.journal.append(batches, self._member)
        except JournalClosedError as error:
            for batch in batches:
                for nonce in batch.nonces:
                    self._refuse(to_request_error(error, self._label), nonce)

    # --- handlers: guests ---

    def _send_acked(self, request: requests.Say | requests.Whisper) -> State:
        """Append a message, and answer after all recipients have acknowledged it."""
        services, guest = self._services, self._pair
        assert guest is not None
        guest.wait_until_registered()
        if guest.window is None or guest.member is None:
            raise RequestError(ErrorCode.NOT_LOGGED_IN, "The guest's other connection is not registered.")
        check_text(request.text)
        message: MessageBatch = (
            self._direct_message(guest.member, request)
            if isinstance(request, requests.Whisper)
            else PublicMessages(guest.member.account_id, guest.member.name, [request.text], [None], is_guest=True)
        )
        ack = services.acked_delivery.begin_send(guest.window)
        try:
            if not ack.is_complete:  # an ack is complete from the start if the guest has just left
                services.journal.append([message], ack)
            message_id = ack.wait()
            if message_id is not None:
                self._send_queue.put([Sent(message_id, SentStatus.SENT)])
            else:
                self._send_queue.put([Refused(ErrorCode.INTERNAL, "Not all recipients have the message.")])
        except JournalClosedError as error:
            self._refuse(to_request_error(error, self._label), None)
        finally:
            services.acked_delivery.end_send(guest.window)
        return State.GUEST_PAIR

    def _acknowledge(self, request: requests.Acknowledge) -> State:
        """Pass on the ack; ignore an unsolicited one. If the peer answered a reply, the exchange would never end."""
        assert self._pair is not None
        window = self._pair.window
        is_receiving = window is not None and window.send_queue is self._send_queue
        if window is not None and is_receiving and self._services.acked_delivery.handle_ack(window, request.sender):
            self._unsolicited_acks = 0
            return State.GUEST_PAIR
        _log.warning("ack ignored", user=self._pair.name, connection=self._label)
        self._unsolicited_acks += 1
        if self._unsolicited_acks < _UNSOLICITED_ACKS_MAX:
            return State.GUEST_PAIR
        _log.warning("disconnected", reason="unsolicited_acks", user=self._pair.name, connection=self._label)
        self._send_queue.put([Refused(ErrorCode.BAD_REQUEST, "Too many acknowledgements of nothing.")])
        return State.CLOSED

    # --- handlers: connections that track members ---

    def _enter_lobby(self, request: requests.EnterLobby) -> State:
        assert self._member is not None
        self._wait_for_pending()
        self._services.entering.enter_lobby(self._member, request.replays_after)
        return self._state

    def _leave_lobby(self, _: requests.LeaveLobby) -> State:
        assert self._member is not None
        self._wait_for_pending()
        self._services.users.leave_lobby(self._member)
        return self._state

    def _answer_directory(self, request: requests.DirectoryRequest) -> State:
        assert self._member is not None
        self._wait_for_pending()
        answer = self._services.directory.answer(self._member, request)
        if answer is not None:
            self._send_queue.put([answer])
        return self._state

    # --- handlers: questions ---

    def _list_users(self, request: requests.AskUsers) -> State:
        room = self._room_of(request)
        users = self._services.presence.names(room.room_id if room else LOBBY_ID)
        self._send_queue.put([Users(users=users, room=room.name if room else None)])
        return self._state

    def _find_user(self, request: requests.AskUser) -> State:
        name = self._services.find_recipient(request.username).name
        self._send_queue.put([User(name, self._services.presence.is_online(name))])
        return self._state

    def _show_history(self, request: requests.AskHistory) -> State:
        """CH: includes all earlier messages of the user, and no message that is delivered after the reply."""
        assert self._member is not None
        self._wait_for_pending()
        room = self._room_of(request)
        before_id = _before_id(request, self._services.users.last_id())
        room_id = room.room_id if room else None
        other = self._other_of(request)
        found = self._services.messages.history(
            self._member.account_id,
            before_id,
            request.limit,
            room_id,
            after_id=request.after,
            other_id=other.id if other else None,
            first_id=self._member.first_id,
        )
        self._send_queue.put_long(History((), room.name if room else None, other.name if other else None), found)
        return self._state

    def _search(self, request: requests.Search) -> State:
        """Search the messages that CH would show."""
        assert self._member is not None
        terms = terms_of(request.words)
        self._wait_for_pending()
        room = self._room_of(request)
        other = self._other_of(request)
        newest_id = self._services.users.last_id()
        before_id = _before_id(request, newest_id)
        messages, upto_id = self._services.indexer.search(
            terms,
            self._member.account_id,
            before_id,
            request.limit,
            newest_id,
            room.room_id if room else LOBBY_ID,
            other.id if other else None,
            first_id=self._member.first_id,
        )
        answer = Found(request.words, (), upto_id, room.name if room else None, other.name if other else None)
        self._send_queue.put_long(answer, messages)
        return self._state

    def _list_conversations(self, _: requests.AskConversations) -> State:
        assert self._member is not None
        self._wait_for_pending()
        newest_id = self._services.users.last_id()
        found = self._services.messages.conversations(
            self._member.account_id, newest_id, CONVERSATIONS_MAX, first_id=self._member.first_id
        )
        self._send_queue.put([Conversations(tuple(found))])
        return self._state

    def _show_chat_history(self, request: requests.AskChatHistory) -> State:
        """As CH, for one conversation."""
        self._wait_for_pending()
        self._send_queue.put_long(*self._services.history.read(self._history_reader(request.room), request))
        return self._state

    def _list_active(self, request: requests.AskActive) -> State:
        self._wait_for_pending()
        self._send_queue.put([self._services.history.list_active(self._history_reader(None), request)])
        return self._state

    def _mark_read(self, request: requests.MarkRead) -> State:
        """Answer after the commit. The hub tells the other connections of the user."""
        self._wait_for_pending()
        self._send_queue.put([self._services.history.mark(self._history_reader(request.room), request)])
        return self._state

    def _history_reader(self, room: str | None) -> Member:
        """Return the member, which gets the events of rooms from its first request about one."""
        assert self._member is not None
        return self._member if is_lobby(room) else self._show_rooms()

    def _room_of(self, request: requests.AskUsers | requests.AskHistory | requests.Search) -> RoomView | None:
        """Return the room that a question is about; None for the lobby. RequestError: the user is not in it."""
        if request.room is None or is_lobby(request.room):
            return None
        return self._services.rooms.find(self._show_rooms(), request.room)

    def _other_of(self, request: requests.AskHistory | requests.Search) -> Account | None:
        """Return the other user whose direct messages a question is about. RequestError: there is no such user."""
        if request.with_user is None:
            return None
        other = self._services.accounts.find_writer(request.with_user)
        if other is None:
            raise unknown_user(request.with_user)
        return other

    def _change_password(self, request: requests.ChangePassword) -> State:
        """Answer after the commit. Logged-in connections stay logged in."""
        assert self._member is not None
        change = self._services.authentication.change_password
        change(self._member, request.old, request.new, self._send_queue.is_abandoned)
        self._send_queue.put([PasswordChanged()])
        return self._state

    def _answer_tokens(self, request: requests.TokenRequest) -> State:
        """List the session tokens, or revoke some. The hub ends the connections of revoked ones."""
        assert self._member is not None
        self._wait_for_pending()
        self._send_queue.put([self._services.tokens.answer(self._member, request)])
        return self._state

    # --- handlers: rooms ---

    def _list_rooms(self, _: requests.AskRooms) -> State:
        member = self._show_rooms()
        self._wait_for_pending()
        self._send_queue.put([Rooms(self._services.rooms.visible_to(member))])
        return self._state

    def _change_room(self, request: requests.RoomRequest) -> State:
        """The hub answers, in the order of the journal; but not a question."""
        if isinstance(request, requests.SetModes):
            modes = self._services.rooms.modes(self._show_rooms(), request)
            if modes is not None:
                self._wait_for_pending()
                self._send_queue.put([modes])
                return self._state
        if isinstance(request, requests.Part) and request.reason:
            may_say_why = self._services.moderation.may_say_why(self._show_rooms(), request.room)
            request = request if may_say_why else requests.Part(request.room)
        made = self._services.limits.rooms if self._rates.is_user_limited else None
        self._services.rooms.change(self._show_rooms(), request, made)
        return self._state

    def _moderate(self, request: requests.ModerationRequest) -> State:
        """The hub answers, in the order of the journal, except for lists."""
        room = getattr(request, "room", None)
        member = self._member if is_lobby(room) else self._show_rooms()
        assert member is not None
        if not isinstance(request, requests.Kick) or is_lobby(room):  # older clients know kicks from rooms
            member.knows_moderation = True
        self._wait_for_pending()
        answer = self._services.moderation.answer(member, request)
        if answer is not None:
            self._send_queue.put([answer])
        return self._state

    def _show_rooms(self) -> Member:
        """Return the member. After its first request about rooms, it gets their events."""
        assert self._member is not None
        if not self._member.knows_rooms:
            self._services.users.show_rooms(self._member)
        return self._member

    def _wait_for_pending(self, timeout_seconds: float | None = None) -> None:
        """Wait until all messages of this connection are confirmed or rejected, and not for those of others.

        In a cluster without a quorum, the latter may take any time.
        """
        if self._appended is not None:
            self._appended.wait(timeout_seconds)

    def _refuse(self, error: RequestError, nonce: str | None) -> None:
        """Send an error after the confirmations of all earlier messages."""
        self._wait_for_pending()
        user = self._member or self._pair
        self._services.counters.refusals[error.code.value] += 1
        log_refusal(error, user.name if user is not None else None, self._label)
        if error.code is ErrorCode.UNKNOWN_USER and error.about is not None:
            self._send_queue.put([UserUnknown(error.code, error.reason, nonce, error.room, about=error.about)])
        else:
            self._send_queue.put([Refused(error.code, error.reason, nonce, error.room, error.retry_seconds)])

    # --- permissions ---

    _ALWAYS: ClassVar[_Handlers] = {
        requests.Ping: _answer_ping,
        requests.Leave: _leave,
        requests.Quit: _quit,
        requests.Handled: _pass_over,
        requests.Unreadable: _report,
    }
    # Of all who are online with one connection.
    _MEMBERS: ClassVar[_Handlers] = {
        requests.Barrier: _answer_barrier,
        requests.ChangeEncoding: _change_encoding,
        requests.Say: _say,
        requests.SayBatch: _say_all,
        requests.Whisper: _whisper,
        requests.AskUsers: _list_users,
        requests.AskUser: _find_user,
        requests.AskHistory: _show_history,
        requests.AskChatHistory: _show_chat_history,
        requests.AskActive: _list_active,
        requests.AskConversations: _list_conversations,
        requests.MarkRead: _mark_read,
        requests.AskMark: _mark_read,
        requests.AskRooms: _list_rooms,
        requests.Join: _change_room,
        requests.Part: _change_room,
        requests.SetTopic: _change_room,
        requests.Invite: _change_room,
        requests.MakeOperator: _change_room,
        requests.MakeMember: _change_room,
        requests.GiveVoice: _change_room,
        requests.TakeVoice: _change_room,
        requests.SetModes: _change_room,
        requests.Kick: _moderate,
        requests.Ban: _moderate,
        requests.Unban: _moderate,
        requests.Mute: _moderate,
        requests.Unmute: _moderate,
        requests.AskBans: _moderate,
        requests.Delete: _moderate,
        requests.Report: _moderate,
        requests.EnterLobby: _enter_lobby,
        requests.LeaveLobby: _leave_lobby,
        **dict.fromkeys(get_args(requests.DirectoryRequest), _answer_directory),
    }
    # Handlers by state and request. All other requests are rejected.
    _TABLE: ClassVar[dict[State, _Handlers]] = {
        State.NOT_LOGGED_IN: {
            **_ALWAYS,
            requests.Login: _log_in,
            requests.StepLogin: _log_in,
            requests.GuestLogin: _log_in_guest,
            requests.Authenticate: _prove,
            requests.Enter: _enter_as_guest,
        },
        State.PASSWORD_REQUESTED: {
            **_ALWAYS,
            requests.Login: _log_in,
            requests.Password: _take_password,
        },
        State.AUTHENTICATED: {
            **_ALWAYS,
            requests.Authenticate: _prove,
            requests.Enter: _enter,
        },
        State.LOGGED_IN: {
            **_ALWAYS,
            **_MEMBERS,
            requests.Search: _search,
            requests.ChangePassword: _change_password,
            requests.AskTokens: _answer_tokens,
            requests.Revoke: _answer_tokens,
            requests.AskAudit: _moderate,
            requests.Ignore: _moderate,
            requests.Unignore: _moderate,
            requests.AskIgnored: _moderate,
        },
        State.GUEST: {
            **_ALWAYS,
            **_MEMBERS,
            requests.Authenticate: _register_guest,
            requests.Rename: _rename,
        },
        State.GUEST_PAIR: {
            requests.Say: _send_acked,
            requests.Whisper: _send_acked,
            requests.Acknowledge: _acknowledge,
            requests.Unreadable: _report,
        },
        State.CLOSED: {},
    }


def _before_id(request: requests.AskHistory | requests.Search, newest_id: int) -> int:
    """Exclusive upper bound of ids: nothing newer than the newest published message."""
    return newest_id + 1 if request.before is None else min(newest_id + 1, request.before)


def _not_allowed(state: State, request: Request) -> RequestError:
    """The error for a request that is not allowed in this state."""
    if isinstance(request, requests.Password):
        return RequestError(ErrorCode.BAD_REQUEST, "No password was asked for; send a login with a username first.")
    if state is State.GUEST:
        return RequestError(ErrorCode.NOT_PERMITTED, "Guests can't do this: it needs an account.")
    if state is State.LOGGED_IN:
        return RequestError(
            ErrorCode.BAD_REQUEST, "You are logged in already; open another connection for another user."
        )
    return RequestError(ErrorCode.NOT_LOGGED_IN, "You are not logged in; send a login first.")
