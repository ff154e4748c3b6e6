"""Rules for names, passwords, messages and nonces. Sizes count bytes of UTF-8."""

from collections.abc import Callable

import pytest

from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.rules import (
    check_nonce,
    check_password,
    check_text,
    check_username,
    history_limit,
    is_everyone,
    name_key,
    unknown_user,
)

UMLAUT = "\u00e4"  # 2 bytes
EURO = "\u20ac"  # 3 bytes
GRIN = "\U0001f600"  # 4 bytes


def error_of(check: Callable[[str], object], value: str) -> RequestError:
    with pytest.raises(RequestError) as error:
        check(value)
    return error.value


@pytest.mark.parametrize("name", ["", "a b", "alice\n", "a" * 33, "a-b", "@bob", "b\0b", UMLAUT, "\u0661", "\uff41"])
def test_other_username_is_refused(name: str) -> None:
    error = error_of(check_username, name)
    assert error.code is ErrorCode.BAD_USERNAME
    assert "1 to 32 letters and digits" in error.reason


@pytest.mark.parametrize("name", ["ALL", "all", "aLl", "SERVER", "server", "Server"])
def test_reserved_username_is_refused_in_any_case(name: str) -> None:
    error = error_of(check_username, name)
    assert error.code is ErrorCode.BAD_USERNAME
    assert "reserved" in error.reason
    assert is_everyone(name) is (name_key(name) == "all")


@pytest.mark.parametrize("name", ["", "al", "alle", "ALL ", "A LL", "everybody", "*", "\uff21LL"])
def test_only_all_means_everyone(name: str) -> None:
    assert not is_everyone(name)


def test_names_are_compared_without_case() -> None:
    assert name_key("Alice") == name_key("aLICE") != name_key("alicf")


@pytest.mark.parametrize("name", ["bob", "no one", "x" * 60_000])
def test_unknown_user_error_quotes_at_most_64_characters(name: str) -> None:
    error = unknown_user(name)
    assert (error.code, error.about) == (ErrorCode.UNKNOWN_USER, name[:64])
    assert error.reason == f"There is no user {name[:64]!r}; nothing was sent."


@pytest.mark.parametrize(("text", "messages"), [("", 50), ("1", 1), ("007", 7), ("500", 500)])
def test_history_limit_is_parsed(text: str, messages: int) -> None:
    assert history_limit(text) == messages


@pytest.mark.parametrize("text", ["0", "501", "-1", "+1", "x", "5 ", "1.0", "\u0661", "9" * 5_000])
def test_invalid_history_limit_is_refused(text: str) -> None:
    error = error_of(history_limit, text)
    assert error.code is ErrorCode.BAD_REQUEST
    assert "from 1 to 500" in error.reason


@pytest.mark.parametrize(
    ("check", "value"),
    [
        *((check_username, value) for value in ("a", "Z", "0", "Alice7", "a" * 32, "server1", "1all")),
        *((check_password, value) for value in ("x", " ", "\0", EURO * 341, GRIN * 256)),
        *((check_text, value) for value in ("x", "\0", " x ", "x" * 8192, UMLAUT * 4096, EURO * 2730 + "xx")),
        *((check_nonce, value) for value in ("x", "x" * 64, GRIN * 16)),
    ],
    ids=lambda value: f"{value!r:.20}",
)
def test_value_up_to_the_limit_is_accepted(check: Callable[[str], object], value: str) -> None:
    check(value)


@pytest.mark.parametrize(
    ("check", "value", "code", "reason"),
    [
        (check_password, "", ErrorCode.BAD_REQUEST, "empty"),
        (check_password, "x" * 1025, ErrorCode.TOO_LONG, "1,024 bytes"),
        (check_password, EURO * 342, ErrorCode.TOO_LONG, "1,024 bytes"),
        (check_text, "", ErrorCode.EMPTY_MESSAGE, "empty"),
        (check_text, "\t\r\n", ErrorCode.EMPTY_MESSAGE, "empty"),
        (check_text, "\u2028\u00a0\u3000", ErrorCode.EMPTY_MESSAGE, "empty"),
        (check_text, "x" * 8193, ErrorCode.TOO_LONG, "8,192 bytes"),
        (check_text, GRIN * 2048 + "x", ErrorCode.TOO_LONG, "8,192 bytes"),
        (check_nonce, "", ErrorCode.BAD_REQUEST, "empty"),
        (check_nonce, "x" * 65, ErrorCode.TOO_LONG, "64 bytes"),
        (check_nonce, UMLAUT * 33, ErrorCode.TOO_LONG, "64 bytes"),
    ],
    ids=lambda value: f"{value!r:.20}",
)
def test_value_over_the_limit_or_empty_is_refused(
    check: Callable[[str], object], value: str, code: ErrorCode, reason: str
) -> None:
    error = error_of(check, value)
    assert error.code is code
    assert reason in error.reason
