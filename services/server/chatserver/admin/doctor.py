"""The examination of a server's surroundings: settings, disk, limits, clock, certificate, version, NATS.

Each check is a function that returns findings. Together they take about a second, and some seconds more if a NATS
server does not answer. The server may be running or not. Nothing is changed, but for a file that is written and deleted
to measure the disk.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import sqlite3
import ssl
import statistics
import tempfile
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from chatprotocol.limits import ROOMS_MAX
from chatprotocol.settings import ConfigError, unknown_settings
from chatserver import __version__
from chatserver.clock import wall_ms
from chatserver.config import load_config
from chatserver.control import HEALTHY, ask, is_healthy
from chatserver.journal.nats_settings import nats_settings
from chatserver.memory import SystemMemory
from chatserver.net.broadcast import ROOM_LIMITS
from chatserver.net.certificates import WARNING_DAYS, CertificateError, load
from chatserver.store.database import DATABASE_FILE, ReadOnlyDatabase
from chatserver.store.errors import StoreError
from chatserver.store.files import owner_hint, size_of
from chatserver.store.log_position import read_position
from chatserver.store.message_table import read_last_time_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from chatserver.config import Config
    from chatserver.journal.nats_examination import StreamState

# Syncs that are measured, and the median above which a finding is a warning or a problem. Each commit waits for one.
_SYNCS: Final = 21
_SYNC_BYTES: Final = 4096
_SYNC_SLOW_SECONDS: Final = 0.02
_SYNC_BAD_SECONDS: Final = 0.2
# Round trip to a NATS server above which each message is noticeably late.
_NATS_SLOW_SECONDS: Final = 0.02
# Memory of a connection, in the process and in the kernel (docs/performance.md).
_CONNECTION_BYTES: Final = 46 * 1024
# Open files besides connections: see chatserver.app.
_OTHER_FILES: Final = ROOMS_MAX * ROOM_LIMITS.descriptors_max + 128
# adjtimex(2): size of struct timex, and the return value for a clock that nothing synchronises.
_TIMEX_BYTES: Final = 208
_TIME_ERROR: Final = 5
# Messages that are newer than the clock by this much were stamped by a clock that was wrong, or it is wrong now.
_AHEAD_MS: Final = 5_000
_DAY_SECONDS: Final = 86_400
_LOCAL_HOSTS: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_HEALTH_SECONDS: Final = 2.5


class Verdict(StrEnum):
    """The result of a check."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """The result of one check: the state, and what to do about it."""

    check: str
    verdict: Verdict
    state: str
    remedy: str = ""

    def as_row(self) -> dict[str, Any]:
        return {"check": self.check, "verdict": self.verdict.value, "state": self.state, "to_do": self.remedy}


def examine(folder: Path, environment: Mapping[str, str | None]) -> list[Finding]:
    """All findings. The settings are those of this process: run it with the environment and the .env of the server."""
    findings = [*_check_version(), *_check_running(folder), *_check_folder(folder), *_check_clock(folder)]
    try:
        config = load_config(["--data", str(folder)], environment)
    except ConfigError as error:
        return [*findings, Finding("settings", Verdict.PROBLEM, str(error), "Correct the setting.")]
    findings += _check_settings(config, environment)
    checks: tuple[Callable[[Config], Iterator[Finding]], ...]
    checks = (_check_disk_space, _check_limits, _check_memory, _check_certificate, _check_nats)
    for check in checks:
        findings += check(config)
    return findings


def _check_version() -> Iterator[Finding]:
    state = (
        f"chatserver {__version__}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        f"{ssl.OPENSSL_VERSION}"
    )
    with closing(sqlite3.connect(":memory:")) as connection:
        options = {name for (name,) in connection.execute("PRAGMA compile_options")}
    if "ENABLE_FTS5" in options:
        yield Finding("version", Verdict.OK, state)
    else:
        remedy = "Searches are refused; use a Python whose SQLite has FTS5."
        yield Finding("version", Verdict.WARNING, f"{state}, without full-text search", remedy)


def _check_running(folder: Path) -> Iterator[Finding]:
    try:
        answer = ask(folder, "health", _HEALTH_SECONDS)
    except TimeoutError:
        remedy = "Send SIGUSR1, which logs the stacks of its threads; keep the log, and restart the server."
        yield Finding("server", Verdict.PROBLEM, "It runs but does not answer.", remedy)
    except OSError:
        yield Finding("server", Verdict.OK, "No server runs in this data folder.")
    else:
        if answer == HEALTHY:
            yield Finding("server", Verdict.OK, "It runs and can write.")
        elif is_healthy(answer):
            reason = answer.partition(": ")[2]
            yield Finding("server", Verdict.WARNING, f"It runs, and takes no users: {reason}.", "See nats below.")
        else:
            yield Finding("server", Verdict.PROBLEM, f"It runs, but {answer}.", "Look at its log.")


def _check_settings(config: Config, environment: Mapping[str, str | None]) -> Iterator[Finding]:
    found = unknown_settings(environment)
    for name, similar in found:
        remedy = f"Is it {similar}?" if similar else "Remove it."
        yield Finding("settings", Verdict.WARNING, f"There is no setting {name}.", remedy)
    # In a container the server listens on all addresses, and compose.yaml publishes the port at CHAT_PUBLISH.
    if _LOCAL_HOSTS.isdisjoint({config.host, environment.get("CHAT_PUBLISH")}) and (
        config.tls == "off" or config.tls_cert is None
    ):
        remedy = "Set CHAT_TLS_CERT and CHAT_TLS_KEY, unless a proxy encrypts."
        yield Finding("settings", Verdict.WARNING, "Other machines can connect, and nothing is encrypted.", remedy)
    elif not found:
        yield Finding("settings", Verdict.OK, "All settings are valid.")


def _check_folder(folder: Path) -> Iterator[Finding]:
    try:
        mode, owner = folder.stat().st_mode & 0o777, folder.stat().st_uid
        database = folder / DATABASE_FILE
        used_bytes = size_of(database)
        seconds = _measure_sync(folder)
    except OSError as error:
        missing = "Start the server once, or name the folder with --data."
        hint = owner_hint(folder).strip() if os.path.lexists(folder) else missing
        yield Finding("folder", Verdict.PROBLEM, f"{folder} can't be used: {error.strerror or error}.", hint)
        return
    if mode & 0o077:
        remedy = f"chmod 700 {folder}"
        yield Finding("folder", Verdict.WARNING, f"Other users can look into {folder} (mode {mode:o}).", remedy)
    elif not used_bytes:
        yield Finding("folder", Verdict.WARNING, f"{folder} has no database.", "The server makes one at its start.")
    else:
        yield Finding("folder", Verdict.OK, f"{folder} belongs to user {owner}, and to no other.")
    state = f"A sync of the disk takes {seconds * 1000:.1f} ms (median of {_SYNCS})."
    if seconds > _SYNC_SLOW_SECONDS:
        verdict = Verdict.PROBLEM if seconds > _SYNC_BAD_SECONDS else Verdict.WARNING
        yield Finding(
            "disk speed", verdict, state, "Each message waits for a sync; use a local SSD instead of a network disk."
        )
    else:
        yield Finding("disk speed", Verdict.OK, state)


def _check_disk_space(config: Config) -> Iterator[Finding]:
    """Backups, upgrades and the write-ahead log need as much space as the database has."""
    database = config.data / DATABASE_FILE
    try:
        used_bytes = size_of(database)
        disk = os.statvfs(config.data)
    except OSError:
        return  # see _check_folder
    free_bytes = disk.f_bavail * disk.f_frsize
    state = f"{free_bytes / 1e9:.1f} GB are free, and the database has {used_bytes / 1e9:.2f} GB."
    if free_bytes < config.disk_reserve:
        state = f"{free_bytes / 1e9:.1f} GB are free, less than CHAT_DISK_RESERVE: the server refuses messages."
        yield Finding(
            "disk space",
            Verdict.PROBLEM,
            state,
            "Free space, or enlarge the disk; the server then continues without a restart.",
        )
    elif free_bytes < 2 * used_bytes or free_bytes < 2 * config.disk_reserve:
        remedy = "An upgrade needs two to three times the database; free space."
        yield Finding("disk space", Verdict.WARNING, state, remedy)
    else:
        yield Finding("disk space", Verdict.OK, state)


def _measure_sync(folder: Path) -> float:
    """The median time of a small write with a sync, in seconds. Raises OSError."""
    times = []
    with tempfile.NamedTemporaryFile(dir=folder, prefix="doctor-") as file:
        for _ in range(_SYNCS):
            began = time.perf_counter()
            os.pwrite(file.fileno(), os.urandom(_SYNC_BYTES), 0)
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def _check_clock(folder: Path) -> Iterator[Finding]:
    newest_ms = 0
    with suppress(StoreError), closing(ReadOnlyDatabase(folder)) as database, database.reading() as connection:
        newest_ms = read_last_time_ms(connection)
    if newest_ms > wall_ms() + _AHEAD_MS:
        hours = (newest_ms - wall_ms()) / 3_600_000
        state = f"The newest message is {hours:.1f} h in the future: the clock is or was wrong."
        yield Finding("clock", Verdict.PROBLEM, state, "Set the clock, and synchronise it (chrony, systemd-timesyncd).")
    elif not _is_synchronised():
        remedy = "Synchronise it (chrony, systemd-timesyncd); for a container, on its host."
        yield Finding("clock", Verdict.WARNING, "Nothing synchronises the clock of this machine.", remedy)
    else:
        yield Finding("clock", Verdict.OK, "The clock is synchronised, and no message is newer.")


def _check_nats(config: Config) -> Iterator[Finding]:
    if config.nats is None:
        if _applied(config):
            state = "The folder follows a shared log, and CHAT_NATS is missing."
            yield Finding("log", Verdict.WARNING, state, "Give this command the settings of the server.")
        return
    from chatserver.journal.nats_examination import examine_nats  # noqa: PLC0415 -- not without this setting

    try:
        servers, stream = examine_nats(nats_settings(config))
    except ConfigError as error:
        yield Finding("nats", Verdict.PROBLEM, str(error), "Correct the setting.")
        return
    for server in servers:
        place = f"{server.name} ({server.url})" if server.name else server.url
        if server.problem:
            # The other NATS servers serve, so one that is down is a warning. Wrong settings of one are a problem.
            is_alone = len(servers) == 1 or server.name
            verdict = Verdict.PROBLEM if is_alone else Verdict.WARNING
            yield Finding("nats", verdict, f"{place}: {server.problem}", "Start or correct this NATS server.")
        else:
            state = f"{place} has version {server.version} and answers in {server.round_trip_seconds * 1000:.1f} ms."
            slow = server.round_trip_seconds > _NATS_SLOW_SECONDS
            remedy = "Each message waits for two or three answers; use machines that are nearer." if slow else ""
            yield Finding("nats", Verdict.WARNING if slow else Verdict.OK, state, remedy)
    yield _stream_finding(config, stream)


def _stream_finding(config: Config, stream: StreamState) -> Finding:
    if stream.problem:
        return Finding("log", Verdict.PROBLEM, stream.problem, "Start the NATS servers; see docs/cluster.md.")
    if not stream.exists:
        state = f"There is no stream {config.nats_stream} in NATS."
        if applied := _applied(config):
            state += f" This server has applied {applied:,} records of its log."
            return Finding("log", Verdict.PROBLEM, state, "Correct CHAT_NATS_STREAM, or see Losses in docs/cluster.md.")
        return Finding("log", Verdict.WARNING, state, "The first server makes it at its start.")
    state = (
        f"The stream {config.nats_stream} has {stream.records:,} records, {stream.size_bytes / 1e6:,.0f} MB, on "
        f"{stream.replicas} NATS servers; this server has applied {_applied(config):,}."
    )
    if stream.behind:
        remedy = f"Start them, or wait until they have caught up: {', '.join(stream.behind)}."
        return Finding("log", Verdict.WARNING, f"{state} {len(stream.behind)} of them lack records.", remedy)
    if str(stream.replicas) != config.nats_replicas:
        remedy = f"Change it with `nats stream update`, or set CHAT_NATS_REPLICAS={stream.replicas}."
        return Finding("log", Verdict.WARNING, state, remedy)
    return Finding("log", Verdict.OK, state)


def _applied(config: Config) -> int:
    """Number of the last record of a shared log that the data folder has."""
    with suppress(StoreError), closing(ReadOnlyDatabase(config.data)) as database, database.reading() as connection:
        position = read_position(connection)
        return position.number if position is not None else 0
    return 0


def _is_synchronised() -> bool:
    """True if the kernel says so, or can't say."""
    try:
        return bool(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)) != _TIME_ERROR)
    except AttributeError:  # only Linux has it
        return True


def _check_limits(config: Config) -> Iterator[Finding]:
    needed = config.max_connections + _OTHER_FILES
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != hard < needed:
        remedy = f"Raise the limit (LimitNOFILE={needed}, ulimit -Hn), or lower CHAT_MAX_CONNECTIONS."
        yield Finding("open files", Verdict.WARNING, f"{hard:,} are allowed, and {needed:,} may be needed.", remedy)
    else:
        yield Finding("open files", Verdict.OK, f"{needed:,} may be needed, and are allowed.")
    _, processes = resource.getrlimit(resource.RLIMIT_NPROC)
    limits = [] if processes == resource.RLIM_INFINITY or os.geteuid() == 0 else [processes]
    for path in ("/proc/sys/kernel/threads-max", "/sys/fs/cgroup/pids.max"):
        with suppress(OSError, ValueError):  # ValueError: "max"
            limits.append(int(Path(path).read_text(encoding="ascii")))
    if limits and min(limits) < config.max_connections:
        state = f"{min(limits):,} are allowed, and {config.max_connections:,} connections need one each."
        remedy = "Raise the limit (TasksMax=, pids_limit, ulimit -u), or lower CHAT_MAX_CONNECTIONS."
        yield Finding("threads", Verdict.WARNING, state, remedy)
    else:
        yield Finding("threads", Verdict.OK, "The limit allows one for each connection.")


def _check_memory(config: Config) -> Iterator[Finding]:
    spare_bytes = SystemMemory().spare_bytes()
    needed_bytes = config.max_connections * _CONNECTION_BYTES
    state = f"{config.max_connections:,} connections take {needed_bytes / 1e6:,.0f} MB"
    if spare_bytes is None:
        yield Finding("memory", Verdict.OK, f"{state}; the free memory is unknown.")
    elif spare_bytes < needed_bytes:
        remedy = "Allow more memory, or lower CHAT_MAX_CONNECTIONS."
        yield Finding("memory", Verdict.WARNING, f"{state}, and {max(spare_bytes, 0) / 1e6:,.0f} MB are free.", remedy)
    else:
        yield Finding("memory", Verdict.OK, f"{state}, and {spare_bytes / 1e6:,.0f} MB are free.")


def _check_certificate(config: Config) -> Iterator[Finding]:
    if config.tls == "off" or config.tls_cert is None or config.tls_key is None:
        return
    try:
        days = (load(config.tls_cert, config.tls_key).expires_at - wall_ms() / 1000) / _DAY_SECONDS
    except CertificateError as error:
        remedy = "Correct CHAT_TLS_CERT and CHAT_TLS_KEY."
        yield Finding("certificate", Verdict.PROBLEM, str(error), remedy)
        return
    if config.tls_key.stat().st_mode & 0o007:
        state = f"Every user of this machine can read the TLS key {config.tls_key}."
        yield Finding("certificate", Verdict.WARNING, state, f"chmod o= {config.tls_key}")
    remedy = "Renew it, and send SIGHUP to the server."
    if days < 0:
        yield Finding("certificate", Verdict.PROBLEM, f"It expired {-days:.0f} days ago.", remedy)
    elif days < max(WARNING_DAYS):
        yield Finding("certificate", Verdict.WARNING, f"It expires in {days:.0f} days.", remedy)
    else:
        yield Finding("certificate", Verdict.OK, f"It expires in {days:.0f} days.")
