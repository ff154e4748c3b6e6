"""Durations as people type them: 90s, 10m, 2h, 7d, 4w, 1y or ``forever``. Pure."""

import re
from typing import Final

from chatprotocol.limits import SANCTION_MAX_SECONDS

_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}
_FORM: Final = re.compile(r"([0-9]{1,12})([A-Za-z]*)")
_FOREVER: Final = "forever"
_ADVICE: Final = "type 10m, 2h, 7d or forever"


def is_duration(word: str) -> bool:
    """True if the word is meant as a duration: ``forever``, or digits and perhaps letters."""
    return word.lower() == _FOREVER or _FORM.fullmatch(word) is not None


def read_duration(text: str) -> int | None:
    """Parse a duration to seconds; None is for ever. Raises ValueError with one sentence."""
    if text.lower() == _FOREVER:
        return None
    form = _FORM.fullmatch(text)
    unit = _UNITS.get(form[2].lower()) if form else None
    if form is None or unit is None:
        raise ValueError(f"{text[:32]!r} is not a duration; {_ADVICE}")
    seconds = int(form[1]) * unit
    if not seconds:
        raise ValueError(f"{text[:32]!r} is zero; {_ADVICE}")
    if seconds > SANCTION_MAX_SECONDS:
        raise ValueError(f"{text[:32]!r} is longer than 100 years; {_ADVICE}")
    return seconds
