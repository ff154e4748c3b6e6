"""Durations as people type and read them: 90s, 10m, 2h, 7d, 4w, 1y or ``forever``. Pure."""

import math
import re
from typing import Final

from chatprotocol.limits import SANCTION_MAX_SECONDS

_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}
_FORM: Final = re.compile(r"([0-9]{1,12})([A-Za-z]*)")
_FOREVER: Final = "forever"
# The duration in the detail of an act in the audit table, which has seconds for programs.
_DETAIL: Final = re.compile(r"\Afor ([0-9]{1,12}) s\b")
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


def format_duration(seconds: int) -> str:
    """As read_duration reads it, in the largest unit of which it is a multiple, but never in weeks: ``7d``."""
    unit = next(name for name in "ydhms" if seconds % _UNITS[name] == 0)
    return f"{seconds // _UNITS[unit]}{unit}"


def detail_for_people(detail: str) -> str:
    """The detail of an act in the audit table, where a ban for 604800 seconds is one for ``7d``."""
    return _DETAIL.sub(lambda match: f"for {format_duration(int(match[1]))}", detail)


def format_wait(seconds: float) -> str:
    """A time to wait, rounded up: ``2.5 s``, ``12 minutes`` or ``3 hours``."""
    if seconds < 100:  # noqa: PLR2004 - then minutes say enough
        return f"{seconds:g} s"
    minutes, hours = math.ceil(seconds / 60), math.ceil(seconds / 3_600)
    return f"{minutes} minutes" if minutes < 100 else f"{hours} hours"  # noqa: PLR2004 - the same
