"""Rotation: which server of a list is tried next."""

from hypothesis import given
from hypothesis import strategies as st

from chatclient.links.servers import Rotation

STEPS = ["take", "fail", "begin", "begin again", "end"]


@given(count=st.integers(1, 4), steps=st.lists(st.sampled_from(STEPS), min_size=10, max_size=40))
def test_rotation_agrees_with_the_model(count: int, steps: list[str]) -> None:
    """In the order of the list. A round tries each server once, after the current one or with it."""
    servers = [(name, 9999) for name in "abcd"[:count]]
    rotation = Rotation(servers)
    following, tried, failures, is_over = 0, list[int](), list[str](), False
    for step in steps:
        match step:
            case "take" | "fail" if rotation.has_next:
                assert rotation.take() == rotation.current == servers[following]
                tried.append(following)
                if step == "fail":
                    rotation.note_failure("refused")
                    failures.append("refused" if count == 1 else f"{rotation.current[0]}:9999: refused")
                following = (following + 1) % count
            case "begin" | "begin again" if tried:
                rotation.begin_round(with_current=step == "begin again")
                following = tried[-1] if step == "begin again" else (tried[-1] + 1) % count
                tried, failures, is_over = [], [], False
            case "end":
                rotation.end_round()
                is_over = True
        assert rotation.has_next == (not is_over and len(tried) < count)
        assert rotation.has_other == (rotation.has_next and count > 1)
        assert rotation.is_fresh == (not tried and not is_over)
        assert len(set(tried)) == len(tried)
        assert rotation.failures == "; ".join(failures)


def test_failure_that_names_its_server_is_not_prefixed() -> None:
    rotation = Rotation([("a", 1), ("::1", 2)])
    for reason in ("can't reach a:1: refused", "full"):
        rotation.take()
        rotation.note_failure(reason)
    assert rotation.failures == "can't reach a:1: refused; [::1]:2: full"
