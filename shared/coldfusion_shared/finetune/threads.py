"""As many threads as there are cores for us: a container is often given a part of the machine."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


@contextmanager
def fitting_threads() -> Iterator[None]:
    """Let torch compute on the cores that this process has; who set OMP_NUM_THREADS has chosen."""
    import torch

    before = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ:
        # Never more than torch would take: it leaves out a core's second thread.
        torch.set_num_threads(min(before, cores_each()))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cores_each() -> int:
    """Return the cores for this process, where several train on this machine together."""
    return max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def available_cores(cgroups: Path = CGROUPS) -> int:
    """Return how many cores this process may use, by its affinity and its container's share."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    share = _share(cgroups)
    return cores if share is None else max(1, min(cores, math.ceil(share)))


def _share(cgroups: Path) -> float | None:
    """Return the cores that the control group allows, of both kinds of control groups."""
    try:
        quota, period = (cgroups / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroups / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroups / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    try:
        return float(quota) / float(period) if float(quota) > 0 else None
    except (ValueError, ZeroDivisionError):
        return None  # "max": no limit
