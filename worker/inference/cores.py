"""How many cores this process may use: what its affinity and its container's CPU limit leave of the machine's."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_ROOT = Path("/")


def available_cores(root: Path = _ROOT) -> int:
    """Return how many cores this process may keep busy, at least 1; of a limit such as 1.5 cores the whole ones.

    More threads than that would be stopped for the rest of each period once they have used up the limit.
    """
    limits = [limit for limit in _cpu_limits(root) if limit > 0]
    return max(1, int(min([_affine_cores(), *limits])))


def _affine_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_limits(root: Path) -> Iterator[float]:
    """Yield the limits, in cores, of this process's control groups and of those around them."""
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):  # not Linux
        return
    mounted = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, group = line.split(":", 2)
        for folder in _around(group):
            if not controllers:
                yield from _limit_v2(mounted / folder)
                yield from _limit_v2(mounted / "unified" / folder)
            elif "cpu" in controllers.split(","):
                for name in (controllers, "cpu"):
                    yield from _limit_v1(mounted / name / folder)


def _around(group: str) -> Iterator[PurePosixPath]:
    """Yield a group's path under the mount, then of each that holds it; in a container often only the last is there."""
    path = PurePosixPath(group.lstrip("/"))
    yield from (path, *path.parents)


def _limit_v2(folder: Path) -> Iterator[float]:
    words = _read(folder / "cpu.max").split()  # "150000 100000", or "max 100000"
    if len(words) == 2 and words[0] != "max":
        yield int(words[0]) / int(words[1])


def _limit_v1(folder: Path) -> Iterator[float]:
    quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    if quota and period and int(quota) > 0:  # -1: no limit
        yield int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except OSError:
        return ""
