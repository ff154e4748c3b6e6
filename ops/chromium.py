"""Starts chromium without a window, driven by selenium and the system's chromedriver. Nothing is downloaded."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import struct
import sys
from errno import EAFNOSUPPORT
from typing import TYPE_CHECKING, Final

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from ops.nats_servers import bind_free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CHROMIUM: Final = shutil.which("chromium")
CHROMEDRIVER: Final = shutil.which("chromedriver")
_FLAGS: Final = (
    "--headless=new",
    "--no-sandbox",  # it needs a user other than root, and namespaces, which containers lack
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-device-scale-factor=1",
    "--hide-scrollbars",
    "--enable-precise-memory-info",
    "--lang=en-GB",
)


def is_installed() -> bool:
    """True if there is a chromium and its driver; `make browser` installs them."""
    return CHROMIUM is not None and CHROMEDRIVER is not None


def start_chromium(folder: Path, width: int, height: int) -> webdriver.Chrome:
    """Start a browser that keeps all its files in the folder. ``quit()`` ends all its processes."""
    assert CHROMIUM is not None, "chromium is missing: `make browser` installs it"
    assert CHROMEDRIVER is not None, "chromedriver is missing: `make browser` installs it"
    options = Options()
    options.binary_location = CHROMIUM
    for flag in (*_FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # Chromium writes crash reports and caches into HOME.
    environment = {**os.environ, "HOME": str(folder), "TMPDIR": str(folder), "TZ": "UTC"}
    with bind_free_port() as reserved:
        port = int(reserved.getsockname()[1])
    popen = {"preexec_fn": _forbid_netlink()}
    return webdriver.Chrome(options=options, service=Service(CHROMEDRIVER, port, env=environment, popen_kw=popen))


# The number of the system call socket(), and the address family of netlink sockets.
_SOCKET_CALL: Final = {"x86_64": 41, "aarch64": 198}
_AF_NETLINK: Final = 16


def _forbid_netlink() -> Callable[[], object] | None:
    """Return what a new process calls to open no netlink sockets: a filter of system calls, see seccomp(2).

    Chromium watches the addresses of the machine, and drops what it loads when one changes (ERR_NETWORK_CHANGED):
    Docker's networks come and go beside the tests. None on other systems and processors.
    """
    if sys.platform != "linux" or platform.machine() not in _SOCKET_CALL:
        return None
    load, jump_equal, ret = 0x20, 0x15, 0x06
    program = (
        (load, 0, 0, 0),  # the number of the call
        (jump_equal, 0, 3, _SOCKET_CALL[platform.machine()]),
        (load, 0, 0, 16),  # its first argument
        (jump_equal, 0, 1, _AF_NETLINK),
        (ret, 0, 0, 0x0005_0000 | EAFNOSUPPORT),
        (ret, 0, 0, 0x7FFF_0000),  # allowed
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in program))
    pointer = struct.pack("HP", len(program), ctypes.addressof(code))
    prctl = ctypes.CDLL(None).prctl
    set_no_new_privileges, set_seccomp, filter_mode = 38, 22, 2

    def forbid() -> None:
        prctl(set_no_new_privileges, 1, 0, 0, 0)
        prctl(set_seccomp, filter_mode, pointer, code)

    return forbid
