"""Processor time of processes and of the whole machine, from /proc (Linux only)."""

import os
from collections.abc import Iterable
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def cpu_seconds(processes: Iterable[int]) -> float:
    """Processor time, user and system, that these processes have used until now."""
    return sum(_ticks(pid) for pid in processes) * TICK_S


def machine_cpu_seconds() -> float:
    """Processor time that everything on this machine has used until now, and what its host took away (steal)."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) * TICK_S


def with_descendants(process: int) -> list[int]:
    """A process, its children and theirs, as they are now."""
    found = [process]
    for pid in found:  # grows while it is walked
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    return found


def _ticks(pid: int) -> int:
    # The name, in parentheses, may hold blanks; utime and stime are the 12th and 13th fields after it.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
