"""The part of HTTP that the files of the page and the handshake of WebSocket need: heads of requests in, answers out.

Every answer has the same security headers, errors included. Answers have no Date: nothing here reads a clock.
"""

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final, NamedTuple

from websockets.datastructures import Headers

# Limit of a request line with all headers, as the default of nginx. A head is held in memory until it is complete.
HEAD_MAX_BYTES: Final = 8 * 1024

_HEAD_END: Final = b"\r\n\r\n"
_LONE_LINE_FEED: Final = re.compile(rb"(?<!\r)\n")
_REQUEST_LINE: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/(\d)\.(\d)")
_HEADER_LINE: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*")
# A member of Accept-Encoding. A weight of 0 would refuse it.
_ACCEPTS_GZIP: Final = re.compile(r"(?:x-)?gzip(?:[ \t]*;[ \t]*q=(?:1|1\.0*|0?\.0*[1-9][0-9]*))?")

# No script or style from elsewhere or inside the HTML, no frame around the page; always ask whether a file has changed.
_SECURITY_HEADERS: Final = (
    ("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cache-Control", "no-cache"),
)


class HttpError(Exception):
    """A request is answered with an error, and the connection ends. ``reason`` is one sentence."""

    def __init__(self, status: int, reason: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = (*headers,)


class Page(NamedTuple):
    """A file that the server shows. ``etag`` has its quotation marks."""

    content_type: str
    body: bytes
    etag: str
    # The body in the coding gzip; empty if that is not smaller.
    gzipped: bytes = b""


class Head(NamedTuple):
    """The head of a request: its first line and its headers."""

    method: str
    target: str
    # As "1.1".
    version: str
    headers: Headers
    size_bytes: int

    def values(self, name: str) -> list[str]:
        """The values of all headers of this name, in order."""
        return self.headers.get_all(name)

    def words(self, name: str) -> list[str]:
        """The members of a list of words, in lower case, from all headers of this name."""
        return [word.strip().lower() for value in self.values(name) for word in value.split(",")]

    @property
    def has_body(self) -> bool:
        return bool(self.values("Transfer-Encoding")) or any(value != "0" for value in self.values("Content-Length"))


def read_head(data: bytes) -> Head | None:
    """The head at the start of ``data``; None if it is incomplete. Raises HttpError."""
    end = data.find(_HEAD_END, 0, HEAD_MAX_BYTES)
    begun = data[: HEAD_MAX_BYTES if end < 0 else end]
    if _LONE_LINE_FEED.search(begun):
        raise HttpError(400, "Lines of a request end with CR and LF.")
    if end < 0:
        if len(data) < HEAD_MAX_BYTES:
            return None
        reason = f"A request has {HEAD_MAX_BYTES:,} bytes at most before its body."
        raise HttpError(431 if b"\r\n" in begun else 414, reason)
    first, *others = begun.decode("latin-1").split("\r\n")
    line = _REQUEST_LINE.fullmatch(first)
    if line is None:
        raise HttpError(400, "The first line of a request is a method, a target and a version.")
    method, target, major, minor = line.groups()
    if major != "1":
        raise HttpError(505, "This server speaks HTTP/1.1.")
    headers = Headers()
    for other in others:
        found = _HEADER_LINE.fullmatch(other)
        if found is None:
            raise HttpError(400, "A header is a name, a colon and a value on one line.")
        headers[found[1]] = found[2]
    if minor != "0" and len(headers.get_all("Host")) != 1:
        raise HttpError(400, "A request has one header Host.")
    return Head(method, target, f"1.{minor}", headers, end + len(_HEAD_END))


def encode_answer(
    status: int,
    content_type: str,
    body: bytes,
    headers: Iterable[tuple[str, str]] = (),
    *,
    closes: bool,
    omits_body: bool = False,
) -> bytes:
    """Encode an answer. ``omits_body``: the answer to HEAD, or one that says that the file has not changed."""
    fields = [
        ("Content-Type", content_type),
        ("Content-Length", str(len(body))),
        ("Connection", "close" if closes else "keep-alive"),
        *_SECURITY_HEADERS,
        *headers,
    ]
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in fields)]
    head = "\r\n".join(lines).encode("latin-1") + _HEAD_END
    return head if omits_body else head + body


def encode_text(
    status: int, text: str, headers: Iterable[tuple[str, str]] = (), *, closes: bool, omits_body: bool = False
) -> bytes:
    """Encode an answer with one line of text for people."""
    body = f"{text}\n".encode()
    return encode_answer(status, "text/plain; charset=utf-8", body, headers, closes=closes, omits_body=omits_body)


def encode_page(page: Page, head: Head, *, closes: bool) -> bytes:
    """Encode the answer to GET or HEAD of a page: without the body if the client has it already.

    The tag is weak, because it is the same with and without gzip.
    """
    known = [tag.strip().removeprefix("W/") for value in head.values("If-None-Match") for tag in value.split(",")]
    is_known = page.etag in known or "*" in known
    headers = [("ETag", f"W/{page.etag}"), ("Vary", "Accept-Encoding")]
    body = page.body
    if page.gzipped and any(_ACCEPTS_GZIP.fullmatch(word) for word in head.words("Accept-Encoding")):
        body = page.gzipped
        headers.append(("Content-Encoding", "gzip"))
    return encode_answer(
        304 if is_known else 200,
        page.content_type,
        body,
        headers,
        closes=closes,
        omits_body=is_known or head.method == "HEAD",
    )
