"""What costs much is claimed, and refused while memory is short."""

import subprocess
import sys
from pathlib import Path

from chatserver.memory import READING_SECONDS, Memory, ShortOfMemoryError, SystemMemory, limited_groups


class Machine:
    """Memory that the test says, and a clock that it moves."""

    def __init__(self, spare_bytes: int | None) -> None:
        self.spare_bytes = spare_bytes
        self.now = 0.0
        self.readings = 0
        self.memory = Memory(self._read, lambda: self.now)

    def _read(self) -> int | None:
        self.readings += 1
        return self.spare_bytes

    def grants(self, size_bytes: int) -> bool:
        try:
            self.memory.claim(size_bytes)
        except ShortOfMemoryError:
            return False
        return True


def test_no_more_is_granted_than_there_is() -> None:
    machine = Machine(1_000)
    assert [machine.grants(size) for size in (600, 500, 400, 1)] == [True, False, True, False]


def test_what_was_claimed_just_before_a_reading_may_not_be_in_it() -> None:
    machine = Machine(1_000)
    assert machine.grants(600)
    machine.now += READING_SECONDS
    assert not machine.grants(500)
    machine.now += READING_SECONDS
    assert machine.grants(500)


def test_the_system_is_asked_now_and_then_only() -> None:
    machine = Machine(1_000)
    assert all(machine.grants(1) for _ in range(100))
    assert machine.readings == 1


def test_memory_is_short_while_nothing_is_to_spare() -> None:
    machine = Machine(0)
    assert machine.memory.is_short()
    machine.now, machine.spare_bytes = machine.now + READING_SECONDS, 1
    assert not machine.memory.is_short()


def test_memory_is_short_if_there_is_none_to_find_that_out() -> None:
    def read() -> int:
        raise MemoryError

    assert Memory(read, lambda: 0.0).is_short()


def test_where_nothing_is_known_everything_is_granted() -> None:
    assert Machine(None).grants(10**15)


# Prints what is left of an address space of 512 MiB: it takes half of it in between.
LIMITED = """
import mmap, resource
from chatserver.memory import SystemMemory
resource.setrlimit(resource.RLIMIT_AS, (2**29, 2**29))
memory = SystemMemory()
before = memory.spare_bytes()
half = mmap.mmap(-1, 2**28)
print(before, memory.spare_bytes())
"""


def test_the_limit_of_the_address_space_counts() -> None:
    before, after = map(int, subprocess.check_output([sys.executable, "-c", LIMITED]).split())
    assert before - after == 2**28
    assert 2**28 < before <= 2**29 - 2**26


def test_a_control_group_counts_with_those_above_it(tmp_path: Path) -> None:
    """What the system keeps of files is free."""
    outer, inner = tmp_path, tmp_path / "inner"
    inner.mkdir()
    for group, limit, used in ((outer, b"80000000\n", b"30000000\n"), (inner, b"max\n", b"20000000\n")):
        (group / "memory.max").write_bytes(limit)
        (group / "memory.current").write_bytes(used)
        (group / "memory.stat").write_bytes(b"anon 5\nactive_file 6000000\ninactive_file 4000000\n")
    assert SystemMemory([inner, outer]).spare_bytes() == 80_000_000 - 30_000_000 + 10_000_000 - 80_000_000 // 8


def test_the_control_groups_of_a_process_are_found(tmp_path: Path) -> None:
    """In the file of all kernels version 1 may stand before it; the root of all groups has no limit."""
    inner = tmp_path / "groups/outer/inner"
    inner.mkdir(parents=True)
    for group in (inner, inner.parent):
        (group / "memory.max").touch()
    memberships = tmp_path / "cgroup"
    memberships.write_text("4:memory:/other\n0::/outer/inner\n")
    assert [*limited_groups(tmp_path / "groups", memberships)] == [inner, inner.parent]
    assert [*limited_groups(tmp_path / "groups", tmp_path / "missing")] == []
