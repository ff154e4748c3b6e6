"""The image that the Dockerfiles start from, for programs that leave out the rest of the file .env."""

from __future__ import annotations

from pathlib import Path

from dotenv import dotenv_values

_DOTENV = Path(__file__).resolve().parent.parent / ".env"


def base_image() -> dict[str, str]:
    """``PYTHON_IMAGE`` as ``make engine`` or the user set it in .env; nothing where they did not."""
    image = dotenv_values(_DOTENV).get("PYTHON_IMAGE") if _DOTENV.is_file() else None
    return {"PYTHON_IMAGE": image} if image else {}
