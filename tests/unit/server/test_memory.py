"""Memory accounting: large uses claim their memory, and are rejected while memory is short."""

import subprocess
import sys
from pathlib import Path

from chatserver.memory import READING_SECONDS, Memory, ShortOfMemoryError, SystemMemory, limited_groups


class Machine:
    """Free memory and a clock that the test sets."""

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


def test_claims_are_limited_to_the_spare_memory() -> None:
    machine = Machine(1_000)
    assert [machine.grants(size) for size in (600, 500, 400, 1)] == [True, False, True, False]


def test_claims_count_until_the_reading_after_the_next() -> None:
    machine = Machine(1_000)
    assert machine.grants(400)
    assert all(machine.grants(2) for _ in range(100))
    assert machine.readings == 1
    machine.now += READING_SECONDS
    assert not machine.grants(500)
    machine.now += READING_SECONDS
    assert machine.grants(500)


def test_memory_is_short_while_none_is_spare() -> None:
    """Also if there is no memory for the reading. An unknown limit grants everything."""
    machine = Machine(0)
    assert machine.memory.is_short()
    machine.now, machine.spare_bytes = machine.now + READING_SECONDS, 1
    assert not machine.memory.is_short()
    assert Machine(None).grants(10**15)

    def read() -> int:
        raise MemoryError

    assert Memory(read, lambda: 0.0).is_short()


# Prints the spare bytes of an address space of 256 MiB, before and after half of it was allocated.
LIMITED = """
import mmap, resource
from chatserver.memory import SystemMemory
resource.setrlimit(resource.RLIMIT_AS, (2**28, 2**28))
memory = SystemMemory()
before = memory.spare_bytes()
half = mmap.mmap(-1, 2**27)
print(before, memory.spare_bytes())
"""


def test_limit_of_the_address_space_counts() -> None:
    before, after = map(int, subprocess.check_output([sys.executable, "-c", LIMITED]).split())
    assert 2**27 <= before - after < 2**27 + 2**24, "Python may have taken some more"
    assert 2**27 < before <= 2**28 - 2**25


def test_control_group_and_its_ancestors_count(tmp_path: Path) -> None:
    """The cache of files counts as free."""
    outer, inner = tmp_path, tmp_path / "inner"
    inner.mkdir()
    for group, limit, used in ((outer, b"80000000\n", b"30000000\n"), (inner, b"max\n", b"20000000\n")):
        (group / "memory.max").write_bytes(limit)
        (group / "memory.current").write_bytes(used)
        (group / "memory.stat").write_bytes(b"anon 5\nactive_file 6000000\ninactive_file 4000000\n")
    assert SystemMemory([inner, outer]).spare_bytes() == 80_000_000 - 30_000_000 + 10_000_000 - 80_000_000 // 8


def test_control_groups_of_a_process_are_found(tmp_path: Path) -> None:
    """Lines of version 1 may precede that of version 2. The root group has no limit."""
    inner = tmp_path / "groups/outer/inner"
    inner.mkdir(parents=True)
    for group in (inner, inner.parent):
        (group / "memory.max").touch()
    memberships = tmp_path / "cgroup"
    memberships.write_text("4:memory:/other\n0::/outer/inner\n")
    assert [*limited_groups(tmp_path / "groups", memberships)] == [inner, inner.parent]
    assert [*limited_groups(tmp_path / "groups", tmp_path / "missing")] == []
