"""The server's certificate: loading, reloading, and warnings before it expires.

A certificate is loaded in two steps. OpenSSL reads the files and compares certificate and key. Then a handshake in
memory proves that a client which trusts this certificate accepts it, and reads the certificate as the client sees it.
So a mistake is an error at the start or at the reload, and not at the login of the first client.
"""

from __future__ import annotations

import os
import ssl
import stat
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from chatserver.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_log = structlog.get_logger()

# Mozilla's intermediate configuration, version 5.7 (https://wiki.mozilla.org/Security/Server_Side_TLS). The ciphers of
# TLS 1.3 are not configurable. DHE is left out, because it needs a parameter file, and serves only clients of 2013.
_CIPHERS: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
# X509_V_FLAG_NO_CHECK_TIME (openssl/x509_vfy.h), which the ssl module does not name.
_NO_CHECK_TIME: Final = 0x20_0000
_DAY_SECONDS: Final = 86_400
# A certificate with its chain has some thousand bytes.
_FILE_MAX_BYTES: Final = 1024 * 1024
# Days before the expiry at which a warning is logged. 0: it has expired.
WARNING_DAYS: Final = (0, 1, 7, 30)


class CertificateError(Exception):
    """The certificate can't be used. The text is one sentence with the file, the reason and the remedy."""


class Certificate(NamedTuple):
    """A certificate that was checked."""

    context: ssl.SSLContext
    # Seconds since 1970.
    expires_at: float


class Certificates:
    """The certificate in use, and the thread that warns before it expires. For any thread.

    Connections keep the certificate with which they began.
    """

    def __init__(
        self,
        certificate_file: Path,
        key_file: Path,
        on_crash: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Raises CertificateError."""
        self._files = certificate_file, key_file
        self._clock = clock
        self._worker = Worker("certificate", self._run, on_crash)
        self._stopping = threading.Event()
        self._current = load(*self._files)
        # The last of WARNING_DAYS that was logged.
        self._warned_days: int | None = None

    def context(self) -> ssl.SSLContext:
        """The context for a new connection."""
        return self._current.context

    @property
    def expires_at(self) -> float:
        """The end of the certificate's validity, in seconds since 1970."""
        return self._current.expires_at

    def start(self) -> None:
        """Log the certificate, and start the thread."""
        self._note_loaded()
        self._worker.start()

    def stop(self) -> None:
        """Stop and join the thread, or do nothing if it was never started."""
        self._stopping.set()
        self._worker.join()

    def reload(self) -> None:
        """Read the files again, for new connections. CertificateError: the certificate in use stays."""
        self._current = load(*self._files)
        self._note_loaded()

    def check_expiry(self) -> None:
        """Log a warning if the next of WARNING_DAYS is reached."""
        left_seconds = self.expires_at - self._clock()
        due_days = next((days for days in WARNING_DAYS if left_seconds <= days * _DAY_SECONDS), None)
        if due_days is None or due_days == self._warned_days:
            return
        self._warned_days = due_days
        if due_days == 0:
            _log.error("certificate expired", file=str(self._files[0]), expired=_date(self.expires_at))
        else:
            _log.warning("certificate expires soon", file=str(self._files[0]), expires=_date(self.expires_at))

    def _note_loaded(self) -> None:
        _log.info("certificate loaded", file=str(self._files[0]), expires=_date(self.expires_at))
        self._warned_days = None
        self.check_expiry()

    def _run(self) -> None:
        while not self._stopping.wait(_DAY_SECONDS):
            self.check_expiry()


def load(certificate_file: Path, key_file: Path) -> Certificate:
    """Read and check a certificate with its chain, and its key. Raises CertificateError."""
    for what, path in (("certificate", certificate_file), ("key", key_file)):
        try:
            found = path.stat()  # a pipe or a device would block a running server, which loads again at SIGHUP
            if not stat.S_ISREG(found.st_mode) or found.st_size > _FILE_MAX_BYTES:
                raise CertificateError(
                    f"The file {path} with the TLS {what} is not a file of at most {_FILE_MAX_BYTES:,} bytes."
                )
            data = path.read_bytes()
        except OSError as error:
            reader = f" by user {os.geteuid()}" if isinstance(error, PermissionError) else ""
            raise CertificateError(
                f"The file {path} with the TLS {what} can't be read{reader}: {error.strerror}."
            ) from error
        if b"-----BEGIN " not in data:
            raise CertificateError(f"The file {path} with the TLS {what} is not in the format PEM.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    # All ciphers are good: the client knows which one is fast on its machine.
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE

    def refuse_passphrase() -> str:
        raise CertificateError(f"The TLS key in {key_file} has a passphrase; store it without one (openssl pkey).")

    try:
        context.load_cert_chain(certificate_file, key_file, refuse_passphrase)
        return Certificate(context, _read_expiry(context, certificate_file))
    except ssl.SSLCertVerificationError as error:
        raise CertificateError(
            f"No client would accept the TLS certificate in {certificate_file}: {error.verify_message}."
        ) from error
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            reason = f"The TLS key in {key_file} does not belong to the certificate in {certificate_file}."
        else:
            detail = (error.reason or "one of them is damaged").replace("_", " ").lower()
            reason = f"The TLS certificate in {certificate_file} and the key in {key_file} can't be used: {detail}."
        raise CertificateError(reason) from error
    except OSError as error:  # a file was removed meanwhile
        raise CertificateError(
            f"The TLS certificate in {certificate_file} or the key in {key_file} can't be read: {error.strerror}."
        ) from error


def _read_expiry(context: ssl.SSLContext, certificate_file: Path) -> float:
    """The certificate's end of validity, from a handshake in memory. Raises ssl.SSLError."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False  # the certificate may have any name
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    trusting.load_verify_locations(certificate_file)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(2):  # round trips
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    found = client.getpeercert()
    assert found is not None, "the handshake is complete"
    return ssl.cert_time_to_seconds(str(found["notAfter"]))


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
