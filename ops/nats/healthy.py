"""Ends with 0 if the NATS server of this container and its JetStream are healthy."""

from __future__ import annotations

import sys
from urllib.error import URLError
from urllib.request import urlopen

URL = "http://127.0.0.1:8222/healthz"
ANSWER_SECONDS = 4

try:
    with urlopen(URL, timeout=ANSWER_SECONDS):
        pass
except (URLError, OSError) as error:
    sys.exit(str(error))
