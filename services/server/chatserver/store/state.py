"""What the server left in its data folder: ``chat.state``, which is compared with the database at the next start.

A database can't tell that it has become older: a write-ahead log that was cut is as good to SQLite as one that ends
there, and a backup is as good as what it replaced. So the server notes beside it how far it had come.

Why a plain write is enough: the note is written after its commit and before anybody is told of it. A killed server's
writes are in the system's cache, so the note is never behind what was confirmed. After a loss of power it may be older
than the database, never newer, for the database was synced first: a loss may go unnoticed then, but none is made up.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from chatserver.store.files import touch_private

if TYPE_CHECKING:
    from pathlib import Path

STATE_FILE: Final = "chat.state"
# Each write replaces all of the one before, and a disk writes a sector of this size as a whole.
_SIZE_BYTES: Final = 512


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What the database held when the server last committed something. The defaults are those of an empty folder."""

    # Empty as long as nothing was served from the database.
    history_id: str = ""
    # The newest message, and the newest account.
    last_id: int = 0
    account_id: int = 0
    # The highest id that was ever given to a message here. It is above last_id after messages were lost.
    highest_id: int = 0
    # To which the write-ahead log belongs: what the header of the database file itself may hold, see database.py.
    run_ids: tuple[int, ...] = ()
    schema_cookie: int = 0


class StateFile:
    """The file. For one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Read it. One that is missing or damaged says nothing, as in an empty folder. Raises OSError."""
        self._path = path
        self._descriptor: int | None = None
        self.state = State()
        with suppress(FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
            self.state = msgspec.json.decode(path.read_bytes(), type=State)

    def write(self, state: State) -> None:
        """Replace what it holds. Raises OSError, and changes nothing in this object then."""
        if self._descriptor is None:
            touch_private(self._path)
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        os.pwrite(self._descriptor, msgspec.json.encode(state).ljust(_SIZE_BYTES - 1) + b"\n", 0)
        self.state = state

    def sync(self) -> None:
        """Let what was written outlast a loss of power. Raises OSError."""
        if self._descriptor is not None:
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Nothing is written after this."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
