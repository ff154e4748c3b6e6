"""What names, passwords, texts and nonces must look like; sizes count bytes, not letters."""

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

EURO = "\u20ac"  # 3 bytes
GRIN = "\U0001f600"  # 4 bytes
UMLAUT = "\u00e4"  # 2 bytes


@pytest.mark.parametrize("name", ["a", "Z", "0", "alice", "Alice7", "a" * 32, "allo", "server1", "1all"])
def test_letters_and_digits_make_a_name(name: str) -> None:
    check_username(name)


@pytest.mark.parametrize(
    "name",
    ["", " ", "a b", "alice ", " alice", "alice\n", "a" * 33, "a-b", "a_b", "@bob", "b\0b", UMLAUT, "\u0661", "\uff41"],
)
def test_anything_else_is_a_bad_name_and_the_reason_says_what_a_good_one_is(name: str) -> None:
    with pytest.raises(RequestError, match="1 to 32 letters and digits") as refusal:
        check_username(name)
    assert refusal.value.code is ErrorCode.BAD_USERNAME


@pytest.mark.parametrize("name", ["ALL", "all", "All", "aLL", "SERVER", "server", "Server"])
def test_reserved_names_are_reserved_in_any_case(name: str) -> None:
    with pytest.raises(RequestError, match="reserved") as refusal:
        check_username(name)
    assert refusal.value.code is ErrorCode.BAD_USERNAME


def test_names_are_compared_without_regard_to_case() -> None:
    assert name_key("Alice") == name_key("aLICE") != name_key("alicf")


@pytest.mark.parametrize("name", ["ALL", "all", "All", "aLl"])
def test_all_in_any_case_is_everybody_and_nobodys_name(name: str) -> None:
    assert is_everyone(name)
    with pytest.raises(RequestError, match="reserved"):
        check_username(name)


@pytest.mark.parametrize("name", ["", "al", "alle", "ALL ", " ALL", "A LL", "everybody", "*", "server", "\uff21LL"])
def test_nothing_else_is_everybody(name: str) -> None:
    assert not is_everyone(name)


@pytest.mark.parametrize(
    ("name", "about"), [("bob", "bob"), ("", ""), ("x" * 64, "x" * 64), ("x" * 65, "x" * 64), (GRIN * 99, GRIN * 64)]
)
def test_a_name_that_nobody_has_is_said_again_but_not_at_any_length(name: str, about: str) -> None:
    refusal = unknown_user(name)

    assert (refusal.code, refusal.about) == (ErrorCode.UNKNOWN_USER, about)
    assert refusal.reason == f"There is no user {about!r}; nothing was sent."


@pytest.mark.parametrize(("text", "messages"), [("", 50), ("1", 1), ("007", 7), ("500", 500)])
def test_a_history_is_as_long_as_was_asked_for(text: str, messages: int) -> None:
    assert history_limit(text) == messages


@pytest.mark.parametrize("text", ["0", "501", "-1", "+1", "x", " ", "5 ", "1.0", "\u0661", "9" * 5_000])
def test_a_length_of_a_history_that_is_none_is_a_bad_request(text: str) -> None:
    with pytest.raises(RequestError, match="from 1 to 500") as refusal:
        history_limit(text)
    assert refusal.value.code is ErrorCode.BAD_REQUEST


@pytest.mark.parametrize("password", ["x", " ", "\0", GRIN, "x" * 1024, EURO * 341, GRIN * 256])
def test_any_password_up_to_the_limit_will_do(password: str) -> None:
    check_password(password)


def test_an_empty_password_is_a_bad_request() -> None:
    with pytest.raises(RequestError, match="empty") as refusal:
        check_password("")
    assert refusal.value.code is ErrorCode.BAD_REQUEST


@pytest.mark.parametrize("password", ["x" * 1025, EURO * 342, GRIN * 257, UMLAUT * 513])
def test_a_password_over_1024_bytes_is_too_long(password: str) -> None:
    with pytest.raises(RequestError, match="1,024 bytes") as refusal:
        check_password(password)
    assert refusal.value.code is ErrorCode.TOO_LONG


@pytest.mark.parametrize("text", ["x", "\0", " x ", "x" * 8192, UMLAUT * 4096, EURO * 2730 + "xx", GRIN * 2048])
def test_a_text_up_to_the_limit_will_do(text: str) -> None:
    check_text(text)


@pytest.mark.parametrize("text", ["", " ", "\t\r\n", "\u3000", "\u2028\u00a0"])
def test_a_text_of_white_space_alone_is_empty(text: str) -> None:
    with pytest.raises(RequestError, match="empty") as refusal:
        check_text(text)
    assert refusal.value.code is ErrorCode.EMPTY_MESSAGE


@pytest.mark.parametrize("text", ["x" * 8193, UMLAUT * 4096 + "x", EURO * 2731, GRIN * 2048 + "x"])
def test_a_text_over_8192_bytes_is_too_long(text: str) -> None:
    with pytest.raises(RequestError, match="8,192 bytes") as refusal:
        check_text(text)
    assert refusal.value.code is ErrorCode.TOO_LONG


@pytest.mark.parametrize("nonce", ["x", "x" * 64, UMLAUT * 32, GRIN * 16])
def test_a_nonce_may_be_short(nonce: str) -> None:
    check_nonce(nonce)


@pytest.mark.parametrize(
    ("nonce", "code"),
    [("", ErrorCode.BAD_REQUEST), ("x" * 65, ErrorCode.TOO_LONG), (UMLAUT * 33, ErrorCode.TOO_LONG)],
)
def test_an_empty_or_long_nonce_is_refused(nonce: str, code: ErrorCode) -> None:
    with pytest.raises(RequestError) as refusal:
        check_nonce(nonce)
    assert refusal.value.code is code
