"""Reads the files of the web page, once, at the start. The server has no other files for a client."""

from __future__ import annotations

import gzip
import hashlib
from importlib import resources
from typing import TYPE_CHECKING, Final

from chatprotocol.wire.http import Page

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

_INDEX: Final = "index.html"
_CONTENT_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "webmanifest": "application/manifest+json",
}


def read_pages(folder: Traversable | None = None) -> dict[str, Page]:
    """Return the files of a folder and the folders in it, by path: "/" is index.html. By default, those of the package.

    Raises KeyError for a file whose type is not in the table, and OSError.
    """
    pages = {}
    for path, file in _files(resources.files("chatserver.web") / "static" if folder is None else folder):
        body = file.read_bytes()
        content_type = _CONTENT_TYPES[file.name.rpartition(".")[2]]
        etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        gzipped = gzip.compress(body, mtime=0)
        pages["/" if path == f"/{_INDEX}" else path] = Page(
            content_type, body, etag, gzipped if len(gzipped) < len(body) else b""
        )
    return pages


def _files(folder: Traversable, path: str = "") -> Iterator[tuple[str, Traversable]]:
    for each in folder.iterdir():
        if each.is_dir():
            yield from _files(each, f"{path}/{each.name}")
        else:
            yield f"{path}/{each.name}", each
