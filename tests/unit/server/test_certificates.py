"""The server's certificate: what can't be used, what stays in use, and the warnings before it expires."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from certificates import Authority, Files
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from structlog.testing import capture_logs

from chatserver.net.certificates import CertificateError, Certificates, load

from .udp_line import Clock

DAY_SECONDS = 86_400.0


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def missing_key(files: Files) -> None:
    files.key.unlink()


def folder_as_key(files: Files) -> None:
    files.key.unlink()
    files.key.mkdir()


def pipe_as_key(files: Files) -> None:
    """Reading it would block for ever."""
    files.key.unlink()
    os.mkfifo(files.key)


def no_pem(files: Files) -> None:
    files.certificate.write_bytes(b"\x30\x82rubbish")


def rubbish_in_pem(files: Files) -> None:
    files.certificate.write_text("-----BEGIN CERTIFICATE-----\nrubbish\n-----END CERTIFICATE-----\n")


def key_of_another(files: Files) -> None:
    Authority().write(files.key.parent, name="another")
    files.key.write_bytes((files.key.parent / "another.key").read_bytes())


def passphrase(files: Files) -> None:
    key = load_pem_private_key(files.key.read_bytes(), None)
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    files.key.write_bytes(encrypted)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (missing_key, "The file .*server.key with the TLS key can't be read: No such file or directory."),
        (folder_as_key, "The file .*server.key with the TLS key is not a file of at most 1,048,576 bytes."),
        (pipe_as_key, "The file .*server.key with the TLS key is not a file of at most 1,048,576 bytes."),
        (no_pem, "The file .*server.pem with the TLS certificate is not in the format PEM."),
        (rubbish_in_pem, "The TLS certificate in .*server.pem and the key in .*server.key can't be used: .*."),
        (key_of_another, "The TLS key in .*server.key does not belong to the certificate in .*server.pem."),
        (passphrase, "The TLS key in .*server.key has a passphrase; store it without one .*"),
    ],
)
def test_files_that_cannot_be_used(
    authority: Authority, tmp_path: Path, spoil: Callable[[Files], None], problem: str
) -> None:
    """One sentence. A running server keeps the certificate that it has."""
    files = authority.write(tmp_path)
    certificates = Certificates(*files, lambda _: None)
    before = certificates.context(), certificates.expires_at
    spoil(files)
    for call in (certificates.reload, lambda: load(*files)):
        with pytest.raises(CertificateError, match=f"^{problem}$"):
            call()
    assert (certificates.context(), certificates.expires_at) == before
    if files.key.is_dir():
        files.key.rmdir()
    elif files.key.is_fifo():
        files.key.unlink()
    authority.write(tmp_path, days=200)
    certificates.reload()
    assert certificates.context() is not before[0]
    assert certificates.expires_at > before[1]


def test_certificate_that_vanishes_during_the_reload(authority: Authority, tmp_path: Path) -> None:
    """An operator may renew it in this moment. The server goes on."""

    class Vanishing(type(tmp_path)):  # type: ignore[misc]
        def read_bytes(self) -> bytes:
            data: bytes = super().read_bytes()
            self.unlink()
            return data

    files = authority.write(tmp_path)
    with pytest.raises(CertificateError, match=r"server.pem or the key in .*server.key can't be read: No such file"):
        load(Vanishing(files.certificate), files.key)


def test_file_of_another_user_is_an_error_with_this_user(authority: Authority, tmp_path: Path) -> None:
    class Private(type(tmp_path)):  # type: ignore[misc]
        def read_bytes(self) -> bytes:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    files = authority.write(tmp_path)
    with pytest.raises(CertificateError, match=f"TLS key can't be read by user {os.geteuid()}: Permission denied"):
        load(files.certificate, Private(files.key))


def test_expiry_is_logged_at_30_7_and_1_days(authority: Authority, tmp_path: Path) -> None:
    """Each once, and again after a reload."""
    files = authority.write(tmp_path)
    clock = Clock()
    certificates = Certificates(*files, lambda _: None, clock)

    def logged(days_left: float) -> list[str]:
        clock.now = certificates.expires_at - days_left * DAY_SECONDS
        with capture_logs() as log:
            certificates.check_expiry()
        return [str(entry["log_level"]) for entry in log]

    levels = [logged(days) for days in (31, 30, 29, 8, 6.9, 6, 1.5, 0.9, 0.5, -0.1, -5)]
    assert levels == [[], ["warning"], [], [], ["warning"], [], [], ["warning"], [], ["error"], []]
    with capture_logs() as log:
        certificates.reload()
    assert [entry["event"] for entry in log] == ["certificate loaded", "certificate expired"]


def test_expired_certificate_is_used(authority: Authority, tmp_path: Path) -> None:
    """The server starts, and the clients say what is wrong. No start would be worse."""
    files = authority.write(tmp_path, days=-10)
    assert load(*files).expires_at < Certificates(*authority.write(tmp_path), lambda _: None).expires_at
