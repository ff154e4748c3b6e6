"""TLS for the link over TCP. The server's certificate and name are always checked."""

import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

# Reasons of OpenSSL for a failed handshake. Both ways in which a server without TLS answers have the first text.
_NO_TLS: Final = "the server has no TLS, or no version of it that this client accepts"
_REASONS: Final = {
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": _NO_TLS,
    "TLSV1_ALERT_PROTOCOL_VERSION": _NO_TLS,
    "TLSV1_ALERT_INTERNAL_ERROR": "the server is full, or its TLS has failed",
}
# Results of the check of a certificate (openssl/x509_vfy.h).
_NOT_YET_VALID, _EXPIRED = 9, 10
_UNTRUSTED: Final = {18, 19, 20, 21}
_OTHER_NAME: Final = {62, 64}


def trusting(ca: Path | None = None) -> ssl.SSLContext:
    """The settings of TLS, which trust the certificates in the file ``ca``, or those of the system.

    Raises ValueError with one sentence about the file.
    """
    try:
        return ssl.create_default_context(cafile=ca)
    except ssl.SSLError as error:
        raise ValueError(f"The file {ca} contains no certificates in the format PEM.") from error
    except OSError as error:
        raise ValueError(f"The file {ca} with trusted certificates can't be read: {error.strerror}.") from error


class TlsSocket:
    """A connected socket with TLS, with the methods of a non-blocking socket that TcpLink uses. For any thread.

    OpenSSL allows one thread in a connection; no call under the lock blocks.
    """

    def __init__(self, connected: socket.socket, context: ssl.SSLContext, host: str) -> None:
        """Complete the handshake, within the timeout of the socket. Raises OSError; the socket is then closed."""
        # Guards the state of TLS.
        self._lock = threading.Lock()
        try:
            self._socket = context.wrap_socket(connected, server_hostname=host)
        except ssl.SSLCertVerificationError as error:
            raise OSError(_certificate_problem(error)) from error
        except (ssl.SSLEOFError, ConnectionError) as error:
            raise OSError("the server closed the connection during the TLS handshake") from error
        except ssl.SSLError as error:
            reason = error.reason or "unknown"
            raise OSError(_REASONS.get(reason, f"the TLS handshake failed ({reason})")) from error
        finally:
            connected.close()  # wrap_socket has taken its descriptor, or failed

    def fileno(self) -> int:
        return self._socket.fileno()

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001 - as in the socket module
        self._socket.setblocking(flag)

    def send(self, data: bytes | bytearray) -> int:
        """Send a part. After BlockingIOError the next call must begin with the same bytes, and may add more."""
        with self._lock:
            try:
                return self._socket.send(data)
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError) as error:
                raise BlockingIOError from error

    def recv(self, size_bytes: int) -> bytes:
        """The bytes of one record. It must be complete: a record has 16 KiB, so ``size_bytes`` must not be less."""
        with self._lock:
            try:
                return self._socket.recv(size_bytes)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
                raise BlockingIOError from error

    def shutdown(self, how: int) -> None:
        """Send close_notify, and shut the socket down."""
        with self._lock, suppress(OSError, ValueError):
            self._socket.unwrap()
        # Not SSLSocket.shutdown, after which unread ciphertext would be received.
        socket.socket.shutdown(self._socket, how)

    def close(self) -> None:
        self._socket.close()


def _certificate_problem(error: ssl.SSLCertVerificationError) -> str:
    """The reason in one sentence, without the first capital and the full stop."""
    if error.verify_code in _UNTRUSTED:
        return f"its certificate is not trusted ({error.verify_message}); --ca FILE names a file of trusted ones"
    if error.verify_code in _OTHER_NAME:
        return "its certificate is for another name; connect to a name in the certificate"
    if error.verify_code == _EXPIRED:
        return "its certificate has expired; the server needs a new one"
    if error.verify_code == _NOT_YET_VALID:
        return "its certificate is not valid yet; check the clock of this machine"
    return f"its certificate is not accepted ({error.verify_message})"
