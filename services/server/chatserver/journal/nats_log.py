"""A shared log on NATS JetStream: see :class:`Log`.

Theory of operation
-------------------

One thread, "nats", runs an asyncio loop with the client of nats-py. The methods of :class:`NatsLog` are for other
threads: they leave something under ``_lock`` and wake the loop, or wait for a coroutine in it.

A connection is never mended. nats-py could reconnect, but it gives up for ever after some errors, and what it had in
flight is unknown. :meth:`NatsLog._connect_forever` makes a new client for one URL after the other instead, and
:class:`_Session` is everything that depends on a connection. It ends when the client has lost the server, or was not
answered for 1.5 s; then the next one begins with the state that is kept here: the unacknowledged records, the number of
the next record to read, the lease.

The first session also checks the servers and the stream, and makes what is missing. Until then the log is not open, and
an error that waiting does not mend is raised by ``wait_until_open``. Later such an error is a problem: another server
is tried. Nothing is made later: a log that has gone missing must not become an empty one.

Publishing. Records are sent in the order of the calls, without waiting for each other. One that is not acknowledged in
REPEAT_SECONDS, or is refused, or was in flight when a session ended, is sent again with its id, for ever. So a record
may be stored after a later one, and twice after the two minutes in which NATS knows its id; the reader of the log finds
out.

Reading. A consumer in the memory of one NATS server pushes the records from a number on. Its state is not needed: after
a gap, after silence (it sends two heartbeats a second), or when a record is known that did not arrive, another one
continues with the next number. Before that the stream is looked up, because the log may have been deleted or replaced:
it must be the stream that was opened, with the next record in it or all records read. A server that was paused may
answer with an old state, so a loss counts after it was seen for LOSS_SECONDS.

Memory. While WAITING_MAX_BYTES or more wait for ``take``, the consumer's flow control is not answered. NATS then sends
32 MiB more at most.

Problems. ``find_problem`` is not empty if something has waited for PATIENCE_SECONDS: a record for its acknowledgement,
the lease for its renewal, or a session to begin. It is empty again with the next success. The time in which this
process did not run does not count.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import random
import threading
from collections import deque
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from chatserver.journal.log import LEASE_RENEWAL_SECONDS, LogError
from chatserver.journal.nats_checks import (
    API_SECONDS,
    NO_MESSAGE,
    STREAM_NOT_FOUND,
    WRONG_LAST,
    ApiError,
    TooFewServersError,
    call_api,
    check_stream,
    check_sync,
    leases_config,
    log_config,
    make_stream,
    read_answer,
)
from chatserver.journal.nats_client import NatsClient
from chatserver.journal.nats_reading import Reading, consumer_config, find_loss, place
from chatserver.journal.nats_snapshots import get_snapshot, put_snapshot
from chatserver.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from pathlib import Path

    from nats.aio.msg import Msg

    from chatserver.journal.log import LogRecord
    from chatserver.journal.nats_settings import NatsSettings

_T = TypeVar("_T")

_log = structlog.get_logger()

# A record is sent again after this time. A sync takes milliseconds, an election some seconds.
REPEAT_SECONDS: Final = 2.0
# A refused record is sent again, and a lease renewed again, after this time.
_REFUSED_SECONDS: Final = 0.25
# Something that waits for longer is a problem. After the death of the leader the next one is there in 5 to 7 s, on a
# busy machine in 10: users then see a delay, and seldom errors for messages that they would have to send again.
PATIENCE_SECONDS: Final = 8.0
# Longest wait between two attempts.
_WAIT_MAX_SECONDS: Final = 2.0
# Interval of looking for what waits for too long. A longer one means that this process was stopped.
_TICK_SECONDS: Final = 0.25
_STOPPED_SECONDS: Final = 1.0
# A consumer is given up after this silence: it sends something twice a second.
_SILENCE_SECONDS: Final = 1.5
# A record that exists should have arrived after this time; otherwise the consumer is replaced.
_ARRIVAL_SECONDS: Final = 0.3
# Limit of the first request for a consumer, doubled with each that fails: NATS may choose a server that is gone, until
# it has noticed that, and another one the next time.
_FIRST_ANSWER_SECONDS: Final = 0.3
# A record that has waited for this time was acknowledged by a new leader.
_ELECTION_SECONDS: Final = 1.0
# The time for which the loss of records must be seen.
LOSS_SECONDS: Final = 2.0
# A new stream waits for servers that have just been started.
_SERVERS_SECONDS: Final = 10.0
# Maximum bytes that wait for a slow connection. With more, broadcasts are lost, and records are not repeated. A server
# has records of 2 MiB in flight at most.
_UNSENT_MAX_BYTES: Final = 4 * 1024 * 1024
# A missing lease is over if this server's own one was renewed for this time, without a gap of this length.
_STEADY_SECONDS: Final = 2 * LEASE_RENEWAL_SECONDS
# Limit of the end of a session or of the thread: the sockets may be blocked.
_END_SECONDS: Final = 2.0
# Threads that read and write files: a snapshot needs one, and each monitoring page.
_FILES_THREADS: Final = 4
_MESSAGE_ID: Final = "Nats-Msg-Id"
_NO_QUORUM: Final = "NATS has no quorum"
_NO_CONNECTION: Final = "it can't reach NATS"
# Errors of an election or of an overloaded leader, in nats-server's errors.json: they pass.
_TRANSIENT: Final = frozenset({10008, 10009, 10118, 10158, STREAM_NOT_FOUND})


class _Publication:
    """A record that is not acknowledged."""

    __slots__ = ("data", "record_id", "refusal", "repeat_at", "since", "token")

    def __init__(self, record_id: str, data: bytes, token: str, since: float) -> None:
        self.record_id = record_id
        self.data = data
        # The end of the subject of its acknowledgement.
        self.token = token
        self.since = since
        # For the loop. When it is to be sent again.
        self.repeat_at = float("inf")
        self.refusal = ""


class _Session:
    """A connection. For the loop."""

    def __init__(self, client: NatsClient) -> None:
        self.client = client
        self.since = asyncio.get_running_loop().time()
        self.inbox = client.new_inbox()

    async def run_until_lost(self, *work: Coroutine[Any, Any, None]) -> None:
        """Run coroutines until the connection is lost, or one of them raises."""
        tasks = [asyncio.create_task(each) for each in (self._wait_until_lost(), *work)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _end(tasks)
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def _wait_until_lost(self) -> None:
        client = self.client
        while client.is_connected:  # closed_cb may come late: after a blocked socket
            with suppress(TimeoutError):
                async with asyncio.timeout(_TICK_SECONDS):
                    await client.is_lost.wait()
        raise ConnectionError(client.reason or str(client.last_error or "") or "the connection was closed")


class NatsLog:
    """The log on NATS JetStream. For any thread."""

    def __init__(
        self,
        settings: NatsSettings,
        server: str,
        on_crash: Callable[[str], None],
        *,
        chance: random.Random | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
        loss_seconds: float = LOSS_SECONDS,
    ) -> None:
        """``server`` is the name that NATS shows for the connection. ``chance`` chooses URLs and waits."""
        self._settings = settings
        self._server = server
        self._chance = chance or random.Random()  # noqa: S311 - not for secrets
        self._patience_seconds = patience_seconds
        self._loss_seconds = loss_seconds
        self._subject = f"{settings.stream}.log"
        self._talk = f"{settings.stream}.talk"
        self._leases = leases_config(settings)["name"]
        self._worker = Worker("nats", self._run, on_crash)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._receive: Callable[[bytes], None] | None = None
        self._tokens = itertools.count(1)

        # Guards what follows, up to the next comment.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._publications: dict[str, _Publication] = {}
        self._is_open = False
        self._open_error: LogError | None = None

        # Set in the loop or by one thread, and read by any.
        self._reading: Reading | None = None
        self._last_number = 0
        self._problem = ""
        self._lease: tuple[str, str] | None = None
        self._steady_since = float("inf")

        # For the loop only.
        self._session: _Session | None = None
        self._closing = asyncio.Event()
        self._reading_changed = asyncio.Event()
        self._lease_changed = asyncio.Event()
        # The times since which there is no session, and since which a renewal of the lease waits; None: neither.
        self._cut_since: float | None = 0.0
        self._lease_since: float | None = None
        self._resumed_at = self._acknowledged_at = 0.0
        # Why there is no session, of the last attempt for each URL.
        self._troubles: deque[str] = deque(maxlen=len(settings.urls))
        # The last error of a connection.
        self._reason = ""
        self._created = ""
        self._checked: set[str] = set()
        self._renewed_at = float("-inf")
        self._lease_number = 0
        self._loss_since: float | None = None
        # The limit of the next request of the reading, and that of the present one.
        self._answer_seconds = _FIRST_ANSWER_SECONDS
        self._question: asyncio.Timeout | None = None
        self._defect: Exception | None = None

    # For other threads: see Log.

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._worker.start()

    def wait_until_open(self, timeout_seconds: float) -> bool:
        with self._lock:
            self._changed.wait_for(lambda: self._is_open or self._open_error is not None, timeout_seconds)
            if self._open_error is not None:
                raise self._open_error
            return self._is_open

    def find_problem(self) -> str:
        return self._problem or ("" if self._is_open else "NATS has not answered yet")

    def read_first(self) -> bytes | None:
        return self._call(self._read_first)

    def create_first(self, data: bytes) -> bool:
        return self._call(lambda session: self._create_first(session, data))

    def read_after(self, number: int, wake: Callable[[], None]) -> None:
        self._reading = Reading(number + 1, wake)
        self._soon(self._reading_changed.set)

    def last_number(self) -> int:
        return self._last_number

    def take(self) -> list[LogRecord]:
        reading = self._reading
        if reading is None:
            return []
        records, flow_subject = reading.take()
        if flow_subject:
            self._soon(self._send, flow_subject)
        return records

    def publish(self, record_id: str, data: bytes) -> None:
        assert self._loop is not None, "it was not started"
        publication = _Publication(record_id, data, str(next(self._tokens)), self._loop.time())
        with self._lock:
            self._publications[publication.token] = publication
        self._soon(self._send_record, publication)

    def renew_lease(self, server: str, run: str) -> None:
        self._lease = (server, run)
        self._soon(self._lease_changed.set)

    def find_lease(self, server: str) -> str | None:
        """See Log.

        A missing lease is unknown (OSError) while this server's own one has not been renewed steadily: the others may
        not have had the time for theirs after an outage of NATS.
        """
        return self._call(lambda session: self._find_lease(session, server))

    def broadcast(self, data: bytes) -> None:
        self._soon(self._send, self._talk, data)

    def on_broadcast(self, receive: Callable[[bytes], None]) -> None:
        self._receive = receive

    def put_snapshot(self, number: int, path: Path) -> None:
        self._call(lambda session: put_snapshot(session.client, self._settings, number, path))

    def get_snapshot(self, path: Path) -> int | None:
        return self._call(lambda session: get_snapshot(session.client, self._settings, path))

    def close(self, timeout_seconds: float) -> None:
        if self._loop is None:
            return
        with self._lock:
            self._changed.wait_for(lambda: not self._publications, timeout_seconds)
        self._soon(self._closing.set)
        self._worker.join(2 * _END_SECONDS)

    def _soon(self, call: Callable[..., object], *arguments: object) -> None:
        """Call a function in the loop. Before start() and after close() nothing is done."""
        if self._loop is not None:
            with suppress(RuntimeError):  # it is closed
                self._loop.call_soon_threadsafe(call, *arguments)

    def _call(self, work: Callable[[_Session], Awaitable[_T]]) -> _T:
        """Run a coroutine in the loop, and return its result. OSError: there is no session, or it was lost."""

        async def run() -> _T:
            session = self._session
            if session is None:
                raise ConnectionError(self.find_problem() or _NO_CONNECTION)
            working = asyncio.ensure_future(work(session))
            lost = asyncio.ensure_future(session.client.is_lost.wait())
            try:
                await asyncio.wait((working, lost), return_when=asyncio.FIRST_COMPLETED)
                if not working.done():
                    raise ConnectionError(_NO_CONNECTION)
                return working.result()
            finally:
                working.cancel()
                lost.cancel()

        coroutine = run()
        try:
            if self._loop is None:
                raise ConnectionError("it was not started")
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
        except (RuntimeError, CancelledError) as error:  # the loop has ended, or ends
            coroutine.close()
            raise ConnectionError("the log was closed") from error
        except NatsError as error:
            raise OSError(_describe(error)) from error

    # The thread.

    def _run(self) -> None:
        loop = self._loop
        assert loop is not None
        loop.set_exception_handler(lambda *_: None)  # of nats-py's tasks: their connection is aborted
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        # For monitoring pages and the files of snapshots.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_FILES_THREADS, "nats files"))
        self._cut_since = self._resumed_at = self._now()
        tasks = [asyncio.create_task(each) for each in (self._closing.wait(), self._watch(), self._connect_forever())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        # If records wait for acknowledgements, NATS is probably down; the lease then ends after LEASE_SECONDS.
        if self._closing.is_set() and self._session is not None and not self._publications:
            await self._end_lease(self._session)
        await _end(tasks)
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _connect_forever(self) -> None:
        urls = list(self._settings.urls)
        self._chance.shuffle(urls)
        failures = 0
        for url in itertools.cycle(urls):
            client = NatsClient(self._settings)
            was_connected = False
            try:
                await client.open(url, self._server)
                await self._check_server(client)
                session = _Session(client)
                if not self._is_open:
                    await self._open(session)
                was_connected, failures = True, 0
                self._troubles.clear()
                self._reason = ""
                await self._serve(session)
            except LogError as error:
                if not self._is_open and not self._may_pass(error):
                    self._fail_to_open(error)
                self._troubles.append(str(error))
            except (NatsError, OSError) as error:
                self._reason = str(error)
                self._troubles.append(_describe(error) if client.is_connected else _NO_CONNECTION)
                if was_connected:
                    _log.warning("shared log disconnected", reason=_describe(error))
            finally:
                if self._session is not None:
                    self._session, self._cut_since = None, self._now()
                await client.abandon()
            if self._open_error is not None:
                await self._closing.wait()
            failures += 1
            longest = min(_WAIT_MAX_SECONDS, 0.1 * 2.0 ** (failures // len(urls)))
            await asyncio.sleep(self._chance.uniform(longest / 2, longest))

    def _may_pass(self, error: LogError) -> bool:
        """True if servers that have just been started may mend it."""
        started_at = self._cut_since or 0.0
        return isinstance(error, TooFewServersError) and self._now() - started_at < _SERVERS_SECONDS

    def _fail_to_open(self, error: LogError) -> None:
        with self._lock:
            self._open_error = error
            self._changed.notify_all()

    async def _check_server(self, client: NatsClient) -> None:
        server_id, name = str(client.info.get("server_id")), str(client.info.get("server_name"))
        if server_id not in self._checked and not self._settings.unsafe:
            await check_sync(client, server_id, name, self._settings)
            self._checked.add(server_id)

    async def _open(self, session: _Session) -> None:
        """Find the stream, or make it, and the leases."""
        try:
            found = await make_stream(session.client, log_config(self._settings))
            check_stream(found, self._settings)
            if found["config"]["num_replicas"] < self._settings.replicas:
                _log.warning(
                    "shared log underreplicated",
                    replicas=found["config"]["num_replicas"],
                    expected=self._settings.replicas,
                )
            await make_stream(session.client, leases_config(self._settings))
        except NoRespondersError as error:
            raise ConnectionError("NATS has no JetStream now") from error
        except TimeoutError as error:
            if session.client.denial:
                raise LogError(
                    f"The user of the chat may not do what it must in NATS ({session.client.denial}); allow it."
                ) from error
            raise
        self._created = found["created"]
        self._last_number = max(self._last_number, found["state"]["last_seq"])

    async def _serve(self, session: _Session) -> None:
        """Use a connection until it is lost. Raises OSError or NatsError."""
        client = session.client
        await client.receive(f"{session.inbox}.*", self._guard(self._receive_answer))
        if self._receive is not None:
            await client.receive(self._talk, self._guard(self._receive_broadcast))
        self._session, self._cut_since = session, None
        for publication in self._unacknowledged():
            self._send_record(publication)
        _log.info("shared log connected", server=client.info.get("server_name"), version=client.info.get("version"))
        with self._lock:
            self._is_open = True
            self._changed.notify_all()
        self._note_success()
        await session.run_until_lost(self._read(session), self._renew(session))

    def _guard(self, receive: Callable[[Msg], None]) -> Callable[[Msg], None]:
        """Wrap a callback for nats-py, which would only log an exception of it, and read no more."""

        def guarded(message: Msg) -> None:
            try:
                receive(message)
            except Exception as error:  # it ends the thread
                self._defect = error

        return guarded

    # Problems.

    async def _watch(self) -> None:
        """Repeat records, and find problems."""
        seen_at = self._now()
        while self._defect is None:
            await asyncio.sleep(_TICK_SECONDS)
            now = self._now()
            if now - seen_at > _STOPPED_SECONDS:
                self._resumed_at = now
            seen_at = now
            session = self._session
            if session is not None and session.client.unsent_bytes <= _UNSENT_MAX_BYTES:
                for publication in self._unacknowledged():
                    if publication.repeat_at <= now:
                        self._send_record(publication)
            self._set_problem(self._judge(now))
        raise self._defect

    def _judge(self, now: float) -> str:
        """Return the problem, or an empty text."""
        oldest = next(iter(self._unacknowledged()), None)
        record_since = None if oldest is None else max(oldest.since, self._acknowledged_at)
        waits = [each for each in (self._cut_since, self._lease_since, record_since) if each is not None]
        if not waits or now - max(min(waits), self._resumed_at) < self._patience_seconds:
            return ""
        session = self._session
        if session is None:
            return min((each for each in self._troubles if each != _NO_CONNECTION), default=_NO_CONNECTION)
        if now - session.since < self._patience_seconds:
            return self._problem  # all was sent again, and is not answered yet
        if oldest is not None and oldest.refusal:
            return f"NATS refuses records: {oldest.refusal}"
        return f"NATS refuses: {session.client.denial}" if session.client.denial else _NO_QUORUM

    def _note_success(self) -> None:
        if self._problem:
            self._set_problem(self._judge(self._now()))

    def _set_problem(self, problem: str) -> None:
        if problem == self._problem:
            return
        if problem:
            _log.error("shared log unavailable", problem=problem, reason=self._reason or None)
        else:
            _log.info("shared log available")
        self._problem = problem
        if self._reading is not None:
            self._reading.wake()

    # Publishing.

    def _unacknowledged(self) -> list[_Publication]:
        with self._lock:
            return list(self._publications.values())

    def _send(self, subject: str, data: bytes = b"") -> None:
        """Send a message that may be lost."""
        session = self._session
        if session is not None and session.client.unsent_bytes <= _UNSENT_MAX_BYTES:
            session.client.send(subject, data)

    def _send_record(self, publication: _Publication) -> None:
        """Send a record. Without a session, it waits for the next session."""
        session = self._session
        if session is None or publication.token not in self._publications:
            return
        publication.repeat_at = self._now() + REPEAT_SECONDS
        headers = f"NATS/1.0\r\n{_MESSAGE_ID}: {publication.record_id}\r\n\r\n".encode()
        reply = f"{session.inbox}.{publication.token}"
        session.client.send(self._subject, publication.data, reply, headers)

    def _receive_answer(self, message: Msg) -> None:
        token = message.subject.rpartition(".")[2]
        publication = self._publications.get(token)
        if publication is None:  # the answer to a repetition
            return
        try:
            number = _acknowledged_number(message)
        except (ApiError, NoRespondersError) as error:
            is_transient = not isinstance(error, ApiError) or error.code in _TRANSIENT
            publication.refusal = "" if is_transient else str(error)
            publication.repeat_at = self._now() + _REFUSED_SECONDS
            return
        self._last_number = max(self._last_number, number)
        with self._lock:
            del self._publications[token]
            self._changed.notify_all()
        now = self._acknowledged_at = self._now()
        was_elected = now - publication.since > _ELECTION_SECONDS
        # An expired one can't be changed: its task may not have run since.
        if was_elected and self._question is not None and not self._question.expired():
            self._question.reschedule(now)  # what was asked before the election gets no answer
        self._note_success()

    async def _request(
        self, session: _Session, subject: str, data: bytes, headers: dict[str, str] | None = None
    ) -> int:
        """Publish, and return the number. ApiError: it was refused; OSError, NatsError: it is unknown."""
        return _acknowledged_number(await session.client.request(subject, data, API_SECONDS, headers=headers))

    async def _read_first(self, session: _Session) -> bytes | None:
        try:
            answer = await call_api(session.client, f"STREAM.MSG.GET.{self._settings.stream}", {"seq": 1})
        except ApiError as error:
            if error.code == NO_MESSAGE:
                return None
            raise
        return base64.b64decode(answer["message"].get("data", ""))

    async def _create_first(self, session: _Session, data: bytes) -> bool:
        try:
            await self._request(session, self._subject, data, {"Nats-Expected-Last-Sequence": "0"})
        except ApiError as error:
            if error.code == WRONG_LAST:
                return False
            raise
        return True

    # Reading.

    async def _read(self, session: _Session) -> None:
        while True:
            self._reading_changed.clear()
            reading = self._reading
            if reading is None or reading.has_failed:
                await self._reading_changed.wait()
                continue
            try:
                if not reading.is_full and await self._is_whole(session, reading):
                    await self._consume(session, reading)
                    continue
            except LogError as error:
                reading.fail(error)
                continue
            except (ApiError, NatsError, TimeoutError):  # an election, no quorum, or a consumer at a lost server
                self._answer_seconds = min(2 * self._answer_seconds, API_SECONDS)
            await asyncio.sleep(_TICK_SECONDS)

    async def _is_whole(self, session: _Session, reading: Reading) -> bool:
        """True if the stream can have the next record. LogError: records were lost."""
        loss = await self._find_loss(session, reading)
        if not loss:
            self._loss_since = None
            return True
        now = self._now()
        self._loss_since = now if self._loss_since is None else self._loss_since
        if now - self._loss_since >= self._loss_seconds:
            raise LogError(
                f"{loss}; the data folders have what the stream {self._settings.stream} of NATS had: keep them, and "
                "see Losses in docs/cluster.md."
            )
        return False

    async def _find_loss(self, session: _Session, reading: Reading) -> str:
        stream = self._settings.stream
        try:
            found = await self._ask(session, f"STREAM.INFO.{stream}")
        except ApiError as error:
            if error.code == STREAM_NOT_FOUND:
                return "The shared log was deleted"
            raise
        self._last_number = max(self._last_number, found["state"]["last_seq"])
        return find_loss(found, self._created, reading.next)

    async def _ask(self, session: _Session, subject: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask JetStream for the reading. TimeoutError: no answer, or a leader was elected meanwhile: ask again."""
        try:
            async with asyncio.timeout(self._answer_seconds) as self._question:
                return await call_api(session.client, subject, body)
        finally:
            self._question = None

    async def _consume(self, session: _Session, reading: Reading) -> None:
        """Read with one consumer, until it must be replaced."""
        client = session.client
        heard_at = self._now()
        is_useless = asyncio.Event()

        def receive(message: Msg) -> None:
            nonlocal heard_at
            heard_at = self._now()
            if is_useless.is_set():
                return
            headers = message.headers or {}
            if not message.data and "Status" in headers:
                if headers["Status"] != "100" or int(headers.get("Nats-Last-Stream", 0)) >= reading.next:
                    is_useless.set()  # the consumer was deleted, or a record was lost on the way
                flow_subject = message.reply or headers.get("Nats-Consumer-Stalled")
                if flow_subject and not reading.delays_flow(flow_subject):
                    self._send(flow_subject)
                return
            number, pending = place(message.reply)
            self._last_number = max(self._last_number, number + pending)
            if not reading.add(number, message.data):
                is_useless.set()

        inbox = client.new_inbox()
        subscription = await client.receive(inbox, self._guard(receive))
        try:
            await self._ask(
                session,
                f"CONSUMER.CREATE.{self._settings.stream}",
                consumer_config(self._settings.stream, inbox, reading.next),
            )
            self._answer_seconds = _FIRST_ANSWER_SECONDS
            heard_at = self._now()
            while not self._reading_changed.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(_ARRIVAL_SECONDS / 3):
                        await is_useless.wait()
                silence = self._now() - max(heard_at, self._resumed_at)
                is_late = self._last_number >= reading.next and silence > _ARRIVAL_SECONDS
                if is_useless.is_set() or silence > _SILENCE_SECONDS or (is_late and not reading.is_full):
                    return
        finally:
            with suppress(NatsError):  # the connection was closed
                await subscription.unsubscribe()

    # Leases and broadcasts.

    async def _renew(self, session: _Session) -> None:
        while True:
            self._lease_changed.clear()
            if self._lease is None:
                await self._lease_changed.wait()
                continue
            server, run = self._lease
            wait_seconds = _REFUSED_SECONDS
            self._lease_since = self._lease_since or self._now()
            try:
                self._lease_number = await self._request(session, self._lease_subject(server), run.encode())
            except (NoRespondersError, ApiError):
                with suppress(LogError, NatsError, OSError):  # the bucket is gone if its only server was restarted
                    await make_stream(session.client, leases_config(self._settings))
            except (NatsError, TimeoutError):
                pass
            else:
                wait_seconds = LEASE_RENEWAL_SECONDS
                self._note_renewal()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_seconds):
                    await self._lease_changed.wait()

    def _note_renewal(self) -> None:
        now = self._now()
        if now - self._renewed_at > _STEADY_SECONDS:
            self._steady_since = now
        self._renewed_at, self._lease_since = now, None
        self._note_success()

    async def _find_lease(self, session: _Session, server: str) -> str | None:
        request = {"last_by_subj": self._lease_subject(server)}
        try:
            message = (await call_api(session.client, f"STREAM.MSG.GET.{self._leases}", request))["message"]
        except ApiError as error:
            if error.code != NO_MESSAGE:
                raise
            now = self._now()
            is_steady = now - self._renewed_at < _STEADY_SECONDS <= now - self._steady_since
            if self._lease is not None and not is_steady:
                raise BlockingIOError("the leases may not be renewed yet") from error
            return None
        if b"KV-Operation" in base64.b64decode(message.get("hdrs", "")):  # the lease was given up
            return None
        return base64.b64decode(message.get("data", "")).decode()

    async def _end_lease(self, session: _Session) -> None:
        if self._lease is None:
            return
        headers = {"KV-Operation": "DEL", "Nats-Expected-Last-Subject-Sequence": str(self._lease_number)}
        with suppress(NatsError, OSError):
            await self._request(session, self._lease_subject(self._lease[0]), b"", headers)

    def _lease_subject(self, server: str) -> str:
        return f"$KV.{self._settings.stream}_leases.{server}"

    def _receive_broadcast(self, message: Msg) -> None:
        assert self._receive is not None
        self._receive(message.data)


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and wait for their end.

    A cancellation may be lost: nats-py swallows it while it flushes, and an error on the way out takes its place.
    """
    while not all(task.done() for task in tasks):
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_TICK_SECONDS)


def _acknowledged_number(message: Msg) -> int:
    """The number of a stored record. ApiError: it was refused. NoRespondersError: there is no leader."""
    if message.headers and message.headers.get("Status") == "503":
        raise NoRespondersError
    answer = read_answer(message.data)
    if "seq" not in answer:
        raise ApiError(0, "another program answers to the subject of the shared log")
    return int(answer["seq"])


def _describe(error: Exception) -> str:
    if isinstance(error, NoRespondersError | TimeoutError) or (
        isinstance(error, ApiError) and error.code in _TRANSIENT
    ):
        return _NO_QUORUM
    return str(error) or type(error).__name__
