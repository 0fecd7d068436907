"""What a process has used up, as far as the system tells."""

from __future__ import annotations

import os
import resource
from pathlib import Path


def resident_memory(pid: int) -> int:
    """Return the resident memory of a process in bytes, 0 where the system has no ``/proc``."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except FileNotFoundError:
        return 0


def cpu_time_s(pid: int) -> float:
    """Return the processor time that a process has used, in seconds, 0 where the system has no ``/proc``."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
