"""The files of the web page, and how a request for one is answered."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
from web_bytes import request

from chatprotocol.wire.http import encode_page, read_head
from chatserver.web.pages import read_pages

SERVER = Path(__file__).parents[3] / "services" / "server"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "index.html").write_text("<!doctype html>\n" * 10)
    (tmp_path / "view").mkdir()
    (tmp_path / "view" / "login.js").write_text("x")
    return tmp_path


def test_pages_are_the_files_of_the_folder_by_path(folder: Path) -> None:
    pages = read_pages(folder)
    assert set(pages) == {"/", "/view/login.js"}
    assert [page.content_type for page in pages.values()] == [
        "text/html; charset=utf-8",
        "text/javascript; charset=utf-8",
    ]
    assert gzip.decompress(pages["/"].gzipped) == pages["/"].body == (folder / "index.html").read_bytes()
    assert pages["/view/login.js"].gzipped == b"", "a short file is not smaller in gzip"


def test_tag_changes_with_the_file(folder: Path) -> None:
    before = read_pages(folder)["/"].etag
    assert read_pages(folder)["/"].etag == before
    (folder / "index.html").write_text("<!doctype html>\n" * 11)
    assert read_pages(folder)["/"].etag != before


def test_file_of_an_unknown_type_is_a_defect(folder: Path) -> None:
    """A guessed type could be one that a browser executes."""
    (folder / "notes.txt").write_text("x")
    with pytest.raises(KeyError):
        read_pages(folder)


def test_page_needs_nothing_that_its_policy_forbids() -> None:
    """Scripts, styles and addresses inside the HTML, and anything from elsewhere."""
    pages = read_pages()
    assert re.findall(r"""<style|\sstyle=|\son\w+=|javascript:|<script>""", pages["/"].body.decode()) == []
    loaded = r"""(?:src|href)=["'](.*?)["']|@import|url\((.*?)\)|(?:import|from) ["'](.*?)["']"""
    for path, page in pages.items():
        for name in (found for each in re.findall(loaded, page.body.decode()) for found in each if found):
            whole = urljoin(f"http://chat.test{path}", name)
            assert urlsplit(whole).netloc == "chat.test", (path, name)
            assert urlsplit(whole).path in pages, (path, name)


@pytest.mark.parametrize(
    ("accepted", "is_gzipped"),
    [
        ("gzip, deflate, br", True),
        ("br;q=1.0, GZIP;q=0.8", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("identity", False),
        (None, False),
    ],
)
def test_file_is_compressed_for_a_client_that_reads_it(folder: Path, accepted: str | None, *, is_gzipped: bool) -> None:
    page = read_pages(folder)["/"]
    head = read_head(request("/", Accept_Encoding=accepted))
    assert head is not None
    answer = encode_page(page, head, closes=True)
    assert (b"\r\nContent-Encoding: gzip\r\n" in answer, answer.endswith(page.gzipped)) == (is_gzipped, is_gzipped)
    assert b"\r\nVary: Accept-Encoding\r\n" in answer


def test_installed_package_has_the_pages(tmp_path: Path) -> None:
    """The image of the container is made of this wheel."""
    ignored = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")  # other tests write into the last one
    source = shutil.copytree(SERVER, tmp_path / "server", ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", tmp_path, source], check=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    prefix = "chatserver/web/static/"
    names = {name.removeprefix(prefix) for name in zipfile.ZipFile(wheel).namelist() if name.startswith(prefix)}
    folder = SERVER / prefix
    assert names == {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
