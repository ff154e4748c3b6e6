"""The two targets of a change, and the choice between them. See the package's theory of operation."""

from __future__ import annotations

import os
import pwd
import socket
import time
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from chatserver.admin.changes import answer_line, answer_request
from chatserver.admin.requests import AdminError, Answer, Sessions
from chatserver.clock import Clock
from chatserver.control import ADMIN_FILE, address_in, fallback_address, peer_user_id
from chatserver.journal.local import LocalJournal
from chatserver.store.database import DATABASE_FILE, Database, ReadOnlyDatabase, schema_files
from chatserver.store.errors import InUseError
from chatserver.store.files import LOCK_FILE, owner_hint
from chatserver.store.log_position import read_position
from chatserver.store.reconcile import reconcile
from chatserver.store.search_index import SEARCH_FILE
from chatserver.store.state import STATE_FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from chatserver.admin.requests import ChangeRequest
    from chatserver.journal.base import Journal
    from chatserver.net.connections import Connections

_log = structlog.get_logger()

# Time for a server that starts or stops, or for another command, to release the folder.
BUSY_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.1
# Time limit of an answer: a commit, after the commands that are served before this one.
_ANSWER_SECONDS: Final = 60.0
_READ_BYTES: Final = 64 * 1024
_ROOT: Final = 0
_FILES: Final = (
    *(DATABASE_FILE, f"{DATABASE_FILE}-wal", f"{DATABASE_FILE}-shm"),
    *(STATE_FILE, LOCK_FILE, SEARCH_FILE, ADMIN_FILE),
)


class RunningServer:
    """The target in the server. For the thread of the socket."""

    def __init__(
        self,
        database: Database,
        journal: Journal,
        connections: Connections,
        is_elsewhere: Callable[[str], bool],
    ) -> None:
        self.database = database
        self.journal = journal
        self.is_elsewhere = is_elsewhere
        self._connections = connections

    def sessions(self) -> Iterator[dict[str, Any]]:
        for each in self._connections.infos():
            yield {**each._asdict(), "user": each.user or None, "protocol": each.protocol or None}

    def answer(self, line: bytes, user_id: int) -> bytes:
        """Answer a request of this system user on the socket. A defect ends the command, and not the server."""
        try:
            return answer_line(self, line, user_name(user_id))
        except Exception:
            _log.exception("admin command failed")
            return msgspec.json.encode(Answer(error="The server failed; its log says where."))


class StoppedServer:
    """The target while no server runs: the same files, locked by this process."""

    def __init__(self, folder: Path) -> None:
        """Raises AdminError, StoreError; InUseError if a server or another command has the folder."""
        self.database = open_stopped(folder)
        try:
            _refuse_shared(self.database)
            reconcile(self.database)
            self.journal = LocalJournal(self.database, Clock().now_ms, lambda _: None)
            self.journal.start()
        except BaseException:
            self.database.close()
            raise

    def sessions(self) -> Iterable[dict[str, Any]]:
        raise AdminError("No server runs, so there are no sessions.")

    def is_elsewhere(self, _: str) -> bool:
        return False

    def close(self) -> None:
        self.journal.stop()
        self.journal.close()
        self.database.close()


def open_stopped(folder: Path) -> Database:
    """Open the database instead of a server. Raises StoreError; InUseError if a server or a command uses it."""
    become_owner(folder)
    ReadOnlyDatabase(folder).close()  # fails if there is no database of this version: none is made or migrated
    return Database(folder)


def _refuse_shared(database: Database) -> None:
    with database.reading() as connection:
        if read_position(connection) is not None:
            raise AdminError(
                f"The data folder {database.path.parent} follows a shared log, whose servers must all make this "
                "change; start the server, and try again."
            )


def check_folder(folder: Path) -> None:
    """Raise AdminError if the data folder can't be read, or if it or a file of the server is a symbolic link."""
    if os.path.islink(folder):  # noqa: PTH114 -- False if a folder above it can't be read
        raise AdminError(f"The data folder {folder} is a symbolic link; name the folder itself.")
    try:
        os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW))
        links = [file for file in _FILES if (folder / file).is_symlink()]
    except OSError as error:
        hint = " Name the right one with --data." if isinstance(error, FileNotFoundError) else owner_hint(folder)
        raise AdminError(f"The data folder {folder} can't be read: {error.strerror or error}.{hint}") from error
    if links:
        raise AdminError(f"{folder / links[0]} is a symbolic link; administrators' commands follow none.")


@contextmanager
def open_target(folder: Path, busy_seconds: float = BUSY_SECONDS) -> Iterator[Callable[[ChangeRequest], Answer]]:
    """Yield a function that answers requests: by the running server, or by this process in its place.

    Raises AdminError, StoreError.
    """
    give_up_at = time.monotonic() + busy_seconds
    while True:
        with suppress(FileNotFoundError, ConnectionRefusedError):  # no server runs
            _connect(folder).close()
            yield partial(_ask, folder)
            return
        try:
            target = StoppedServer(folder)
            break
        except InUseError as error:
            if time.monotonic() > give_up_at:
                raise AdminError(
                    f"The data folder {folder} is in use{error.holder}, and no server answers on {ADMIN_FILE}; try "
                    "again, or stop that process."
                ) from error
        time.sleep(_POLL_SECONDS)
    try:
        yield partial(answer_request, target, by=user_name(os.getuid()))
    finally:
        target.close()


def become_owner(folder: Path) -> None:
    """Let root act as the owner of the folder. Raises OSError.

    The server could not use files of root. And root must not follow a link that the owner puts in the place of a file
    after ``check_folder``.
    """
    schema_files()  # perhaps the owner can't read the program
    found = folder.stat()
    if os.geteuid() == _ROOT != found.st_uid:
        os.setgroups([found.st_gid])
        os.setegid(found.st_gid)
        os.seteuid(found.st_uid)


@contextmanager
def as_owner(folder: Path) -> Iterator[None]:
    """As :func:`become_owner`, for the time of the block."""
    user_id, group_id, groups = os.geteuid(), os.getegid(), os.getgroups()
    become_owner(folder)
    try:
        yield
    finally:
        if os.geteuid() != user_id:
            os.seteuid(user_id)
            os.setegid(group_id)
            os.setgroups(groups)


def user_name(user_id: int) -> str:
    """The name of a system user, or its number."""
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return str(user_id)


def _ask(folder: Path, request: ChangeRequest) -> Answer:
    """Let the running server answer. Raises AdminError."""
    data = b""
    try:
        with _connect(folder) as connection:
            connection.sendall(msgspec.json.encode(request) + b"\n")
            while part := connection.recv(_READ_BYTES):
                data += part
        return msgspec.json.decode(data, type=Answer)
    except (OSError, msgspec.MsgspecError) as error:
        late = f"does not answer within {_ANSWER_SECONDS:g} s"
        reason = late if isinstance(error, TimeoutError) else "ended the connection"
        doubt = "" if isinstance(request, Sessions) else "; perhaps it made the change"
        raise AdminError(f"The server {reason}{doubt}.") from error


def _connect(folder: Path) -> socket.socket:
    """Connect to the server. FileNotFoundError, ConnectionRefusedError: none runs. Raises AdminError, OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(_ANSWER_SECONDS)
        try:
            connection.connect(address_in(folder, descriptor, ADMIN_FILE))
        except FileNotFoundError:
            connection.connect(fallback_address(descriptor, ADMIN_FILE))
        _check_server(connection, os.fstat(descriptor).st_uid)
    except BaseException:
        connection.close()
        raise
    finally:
        os.close(descriptor)
    return connection


def _check_server(connection: socket.socket, owner_id: int) -> None:
    """Raise AdminError if another user's program answers, which only an abstract address allows."""
    server_id = peer_user_id(connection)
    if server_id not in {_ROOT, os.geteuid(), owner_id}:
        raise AdminError(
            f"The program that answers on {ADMIN_FILE} belongs to user {server_id}, and is not the server."
        )
