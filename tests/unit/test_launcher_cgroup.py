"""Counters and quotas as the two cgroup versions show them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from app.launcher.cgroup import cpu_quota, memory_limit, oom_kills


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V1_CPU = "sys/fs/cgroup/cpu,cpuacct"
V1 = "9:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n"


@pytest.mark.parametrize(
    ("files", "kills"),
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.events": "low 0\noom 3\noom_kill 2\n"}, 2),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.events": "oom_kill 5\n"}, 5),
        ({"proc/self/cgroup": V1, "sys/fs/cgroup/memory/memory.oom_control": "under_oom 0\noom_kill 7\n"}, 7),
        ({"proc/self/cgroup": V1, "sys/fs/cgroup/memory/docker/abc/memory.oom_control": "oom_kill 1\n"}, 1),
        ({"proc/self/cgroup": V1, "sys/fs/cgroup/memory/memory.oom_control": "oom_kill_disable 0\n"}, 0),
        ({"proc/self/cgroup": "0::/\n"}, 0),
        ({"proc/self/cgroup": "nonsense\n"}, 0),
        ({}, 0),
    ],
)
def test_oom_kills_are_counted(tmp_path: Path, files: dict[str, str], kills: int) -> None:
    assert oom_kills(tree(tmp_path, files)) == kills


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, math.inf),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "nonsense\n"}, math.inf),
        ({"proc/self/cgroup": V1, f"{V1_CPU}/cpu.cfs_quota_us": "300000", f"{V1_CPU}/cpu.cfs_period_us": "100000"}, 3),
        ({"proc/self/cgroup": V1, f"{V1_CPU}/cpu.cfs_quota_us": "-1", f"{V1_CPU}/cpu.cfs_period_us": "1"}, math.inf),
        ({}, math.inf),
    ],
)
def test_the_quota_is_cpus_worth_of_time(tmp_path: Path, files: dict[str, str], quota: float) -> None:
    assert cpu_quota(tree(tmp_path, files)) == quota


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "8589934592\n"}, 2**33),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, math.inf),
        ({"proc/self/cgroup": V1, "sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824\n"}, 2**30),
        ({"proc/self/cgroup": V1, "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, math.inf),
        ({}, math.inf),
    ],
)
def test_the_memory_limit_is_infinite_where_there_is_none(tmp_path: Path, files: dict[str, str], limit: float) -> None:
    assert memory_limit(tree(tmp_path, files)) == limit
