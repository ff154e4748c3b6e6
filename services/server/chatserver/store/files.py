"""The files in the data folder: private to the server's user, and locked by one server at a time."""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO

import structlog

from chatserver.store.errors import InUseError

LOCK_FILE = "chat.lock"

_log = structlog.get_logger()

# All files with password hashes or messages, and the lock file, because any process that can open it can lock it.
_PRIVATE = ("chat.*", "search.db*")
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def touch_private(path: Path) -> None:
    """Create the file with mode 0600 if it does not exist. Raises OSError."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def size_of(path: Path) -> int:
    """The size of the file in bytes; 0 if it is missing. Raises OSError."""
    try:
        return path.stat().st_size
    except FileNotFoundError:  # also if another process removes it now, as SQLite does with a WAL
        return 0


def make_private(folder: Path) -> None:
    """Remove the rights of group and others from the server's files; a copy or an old umask may have set them."""
    for path in sorted(path for pattern in _PRIVATE for path in folder.glob(pattern)):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if not path.is_file() or path.is_symlink() or not mode & _OTHERS:
            continue
        try:
            path.chmod(mode & ~_OTHERS)
        except OSError as error:  # another user owns it
            _log.warning("file readable by others", path=str(path), mode=f"{mode:o}", error=error.strerror)
        else:
            _log.warning("file made private", path=str(path), mode=f"{mode:o}")


def lock(path: Path) -> IO[bytes]:
    """Lock the file until it is closed, because two servers would assign the same ids.

    Creates the file if it does not exist. Raises InUseError if another process holds the lock, OSError.
    """
    touch_private(path)
    lock_file = path.open("ab")
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = _holder(os.fstat(lock_file.fileno()))
        lock_file.close()
        reason = f"Another server uses the data folder {path.parent}{holder}; stop it first, or name another folder."
        raise InUseError(reason, holder) from error
    return lock_file


def _holder(locked: os.stat_result) -> str:
    """The process that holds a lock on this file, as a suffix for an error; empty if /proc does not tell."""
    file_id = f"{os.major(locked.st_dev):02x}:{os.minor(locked.st_dev):02x}:{locked.st_ino}"
    with suppress(OSError, ValueError):
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            # 1: FLOCK  ADVISORY  WRITE 4711 08:01:1234 0 EOF; a waiting process has -> as the second word
            words = line.split()
            if words[1] == "FLOCK" and words[5] == file_id and int(words[4]) > 0:
                program = Path(f"/proc/{words[4]}/comm").read_text(encoding="utf-8", errors="replace").strip()
                return f" (process {words[4]}, {program!r})"
    return ""


def owner_hint(folder: Path) -> str:
    """A sentence about a file of another user that can't be used, with advice; empty if there is none."""
    with suppress(OSError):
        for path in (folder, *sorted(folder.iterdir())):
            owner = path.stat().st_uid
            if owner != os.geteuid() and not os.access(path, os.R_OK | os.W_OK):
                return (
                    f" {path} belongs to user {owner}, and the server runs as user {os.geteuid()}: "
                    "change the owner, or run it as that one."
                )
    return ""
