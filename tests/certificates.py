"""Certificates for tests: an authority, and the contexts of a server and of a client that trusts it."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import trustme

if TYPE_CHECKING:
    from pathlib import Path


class Files(NamedTuple):
    """A certificate with its chain, and its key."""

    certificate: Path
    key: Path


class Authority:
    """Issues certificates."""

    def __init__(self) -> None:
        self._ca = trustme.CA()

    def write_root(self, path: Path) -> Path:
        """Write the certificate that a client must trust."""
        self._ca.cert_pem.write_to_path(path)
        return path

    def write(self, folder: Path, *names: str, days: float = 90, name: str = "server") -> Files:
        """Issue a certificate for the names, or localhost, that expires in so many days. Replaces existing files."""
        now = datetime.now(UTC)
        issued = self._ca.issue_cert(
            *(names or ("localhost", "127.0.0.1")),
            not_before=now - timedelta(days=400),
            not_after=now + timedelta(days=days),
        )
        files = Files(folder / f"{name}.pem", folder / f"{name}.key")
        files.certificate.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(files.key)
        return files

    def client_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self._ca.configure_trust(context)
        return context
