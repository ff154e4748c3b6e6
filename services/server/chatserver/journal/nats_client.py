"""A client of NATS for one connection."""

from __future__ import annotations

import asyncio
import re
import ssl
from typing import TYPE_CHECKING, Any, Final

import nats.aio.client
from nats.errors import Error as NatsError
from nats.protocol.command import hpub_cmd, pub_cmd

from chatserver.journal.log import LogError
from chatserver.journal.nats_checks import check_info

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

    from chatserver.journal.nats_settings import NatsSettings

# Limit of a connection attempt: a paused server accepts connections and says nothing.
_CONNECT_SECONDS: Final = 2.0
# A connection is lost after three unanswered pings.
_PING_SECONDS: Final = 0.5
# Limit of an orderly end: the socket may be blocked.
_END_SECONDS: Final = 1.0


class NatsClient(nats.aio.client.Client):
    """A client for one connection, with what nats-py lacks: a check before the credentials are sent, and an abort.

    It also has a short way for the many messages, those of the log. nats-py takes two or three turns of the loop for
    each, through a queue and a task; in each turn the thread gives up the interpreter, and waits for it again.
    """

    def __init__(self, settings: NatsSettings) -> None:
        super().__init__()
        self._settings = settings
        self.info: dict[str, Any] = {}
        self.is_lost = asyncio.Event()
        # The last error.
        self.reason = ""
        # The last permission that the server has refused, in its words; empty if there was none.
        self.denial = ""
        # What gets the messages of a subscription, by its number.
        self._calls: dict[int, Callable[[Msg], None]] = {}

    async def open(self, url: str, name: str) -> None:
        """Connect. LogError: waiting does not help. OSError: try again."""
        settings = self._settings
        has_user = settings.user is not None
        try:
            async with asyncio.timeout(2 * _CONNECT_SECONDS):
                await self.connect(
                    [url],
                    name=name,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=_CONNECT_SECONDS,  # type: ignore[arg-type]
                    ping_interval=_PING_SECONDS,  # type: ignore[arg-type]
                    error_cb=self._note,
                    closed_cb=self._lose,
                    tls=settings.tls,
                    user=settings.user,
                    password=settings.password if has_user else None,
                    token=None if has_user else settings.password,
                    user_credentials=None
                    if settings.credentials is None
                    else nats.aio.client.RawCredentials(settings.credentials),
                )
        except LogError:
            raise
        except ssl.SSLCertVerificationError as error:
            raise LogError(
                f"The certificate of the NATS server at {url} is not valid ({error.verify_message}); correct it, or "
                "CHAT_NATS_CA."
            ) from error
        except Exception as error:
            if re.search("authorization violation|authentication (expired|revoked)", str(error).lower()):
                raise LogError(
                    "NATS refuses the credentials; correct CHAT_NATS_USER and CHAT_NATS_PASSWORD_FILE, or "
                    "CHAT_NATS_CREDENTIALS."
                ) from error
            if isinstance(error, TimeoutError):  # it is another program, or paused
                raise ConnectionError("no greeting of a NATS server") from error
            raise ConnectionError(self.reason or str(error) or type(error).__name__) from error

    async def abandon(self) -> None:
        """End the connection at once, in any state."""
        self.is_lost.set()
        transport = self._transport
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self.close()
        except (NatsError, OSError):
            pass
        finally:
            writer = getattr(transport, "_bare_io_writer", None)
            if writer is not None:
                writer.transport.abort()

    async def receive(self, subject: str, call: Callable[[Msg], None]) -> Subscription:
        """Call back with each message on a subject, as it is read. Headers are read only of messages without data.

        ``call`` must not block or raise.
        """
        subscription = await self.subscribe(subject)
        self._calls[subscription._id] = call  # noqa: SLF001 - it has no other name
        return subscription

    def send(self, subject: str, data: bytes, reply: str = "", headers: bytes = b"") -> None:
        """Send a message at once, after all earlier ones. Does not wait: see ``unsent_bytes``.

        ``headers`` are as on the wire. Nothing happens if the connection is lost.
        """
        transport = self._transport
        if transport is None or not self.is_connected:
            return
        self._pending.append(hpub_cmd(subject, reply, headers, data) if headers else pub_cmd(subject, reply, data))
        # In Python 3.12, writelines of a transport whose connection is lost watches a closed socket.
        transport.write(b"".join(self._pending))
        self._pending, self._pending_data_size = [], 0

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the socket has not taken yet; 0 if the connection is lost."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is None or not self.is_connected:  # a TLS transport that was closed after its loss can't tell
            return 0
        unsent_bytes: int = writer.transport.get_write_buffer_size()
        return unsent_bytes

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        call = self._calls.get(sid)
        if call is None:
            await super()._process_msg(sid, subject, reply, data, headers)
        else:
            call(self._build_message(sid, subject, reply, data, None if data else await self._process_headers(headers)))

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        super()._remove_sub(sid, max_msgs)
        self._calls.pop(sid, None)

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:  # noqa: FBT001, FBT002
        if initial_connection:
            self.info = info
            check_info(info, self._settings)
        # The addresses of other servers are not used: the settings have them, perhaps behind a proxy.

    async def _note(self, error: Exception) -> None:
        self.reason = str(error).removeprefix("nats: ") or type(error).__name__
        if "permissions violation" in self.reason.lower():
            self.denial = self.reason

    async def _lose(self) -> None:
        self.is_lost.set()
