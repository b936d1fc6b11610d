"""Counters and quotas as the two cgroup versions show them."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.launcher.cgroup import oom_kills, usable_cpus


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


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


def test_cpus_are_bounded_by_the_quota(tmp_path: Path) -> None:
    unbounded = usable_cpus(tree(tmp_path / "none", {}))
    v2 = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "{}\n"}
    assert unbounded >= 1
    for number, (text, expected) in enumerate(
        [("max 100000", unbounded), ("150000 100000", 1), ("20000 100000", 1), ("99900000 100000", unbounded)]
    ):
        files = {name: content.replace("{}", text) for name, content in v2.items()}
        assert usable_cpus(tree(tmp_path / str(number), files)) == min(expected, unbounded)
    folder = "sys/fs/cgroup/cpu,cpuacct"
    v1 = {
        "proc/self/cgroup": V1,
        f"{folder}/cpu.cfs_quota_us": "100000\n",
        f"{folder}/cpu.cfs_period_us": "100000\n",
    }
    assert usable_cpus(tree(tmp_path / "v1", v1)) == 1
    v1[f"{folder}/cpu.cfs_quota_us"] = "-1\n"
    assert usable_cpus(tree(tmp_path / "v1", v1)) == unbounded
