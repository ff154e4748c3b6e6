"""``chat.state``: how far the server had committed. The next start compares it with the database.

A database can't detect that it is older than before: SQLite accepts a truncated write-ahead log, and a backup looks
like the database that it replaced. So the server records its progress in a second file.

A plain write without sync is enough. The server writes the state after a commit and before it confirms anything in the
commit. The writes of a killed server are in the system's cache, so the state is never older than the last confirmation.
After a power failure the state may be older than the database, never newer, because the database was synced first. A
loss may then go undetected, but no false loss is reported.
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
# Size of each write, one disk sector: it replaces the previous write completely, and a disk writes a sector atomically.
_SIZE_BYTES: Final = 512


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the database after the last commit. The defaults describe an empty folder."""

    # Empty until a server used the database.
    history_id: str = ""
    # Ids of the newest message and the newest account.
    last_id: int = 0
    account_id: int = 0
    # The highest id that a message ever had. It is above last_id after messages were lost.
    highest_id: int = 0
    # Possible header fields of the database file that a write-ahead log belongs to: see Database.
    run_ids: tuple[int, ...] = ()
    schema_cookie: int = 0
    # The last run that a server began in a shared log with this folder; empty without one.
    log_run: str = ""


class StateFile:
    """Reads and writes the file. For one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Read the file. A missing or damaged file gives the defaults of State. Raises OSError."""
        self._path = path
        self._descriptor: int | None = None
        self.state = State()
        with suppress(FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
            self.state = msgspec.json.decode(path.read_bytes(), type=State)

    def write(self, state: State) -> None:
        """Replace the content. Raises OSError, and leaves ``state`` unchanged then."""
        if self._descriptor is None:
            touch_private(self._path)
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        os.pwrite(self._descriptor, msgspec.json.encode(state).ljust(_SIZE_BYTES - 1) + b"\n", 0)
        self.state = state

    def sync(self) -> None:
        """Make the last write survive a power failure. Raises OSError."""
        if self._descriptor is not None:
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the descriptor. A later ``write`` would open the file again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
