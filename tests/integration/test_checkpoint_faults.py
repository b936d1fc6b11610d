"""Checkpoints under real faults: a process killed in the midst of its writes, a file system that refuses to grow."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from app.config import TrainConfig
from app.resilience.checkpoint import checkpoints, load, step_of, verify
from app.resilience.identity import Identity
from app.resilience.lineage import Lineage

IDENTITY = Identity.of(TrainConfig(model="resnet18", batch_size=1, learning_rate=0.1, device="cpu"), "")

OPEN = """
import sys, torch
from pathlib import Path
from app.config import TrainConfig
from app.resilience.identity import Identity
from app.resilience.lineage import Lineage

torch.set_num_threads(1)
identity = Identity.of(TrainConfig(model="resnet18", batch_size=1, learning_rate=0.1, device="cpu"), "")
lineage = Lineage.open(Path(sys.argv[1]), identity, attempt=1)
"""


def python(script: str, *args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OPEN + textwrap.dedent(script), *map(str, args)],
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip


@pytest.mark.parametrize("place", ["before the rename", "anywhere"])
def test_a_process_killed_while_it_writes_leaves_only_whole_checkpoints(tmp_path: Path, place: str) -> None:
    process = python(
        """
        import time
        from app.resilience.writer import CheckpointWriter

        def fence():
            if step == 4 and sys.argv[2] == "before the rename":
                print("there", flush=True)
                time.sleep(600)

        writer = CheckpointWriter(lineage.directory, fence=fence)
        weights = {"w": torch.zeros(1_000_000)}
        for step in range(1, 1_000_000):
            weights["w"] += 1
            writer.save(step, weights, {"step": step})
            if step == 5:
                print("there", flush=True)
        """,
        tmp_path,
        place,
    )
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "there\n"
        process.send_signal(signal.SIGKILL)
    found = checkpoints(tmp_path / "1")
    assert found
    for path in found:
        verify(path, deep=True)
    if place == "before the rename":
        assert [name for name in os.listdir(tmp_path / "1") if ".tmp-" in name]

    lineage = Lineage.open(tmp_path, IDENTITY, attempt=2)
    assert lineage.parent == found[0]
    assert lineage.warnings == []
    weights, state = load(found[0])
    assert weights["w"].unique().tolist() == [step_of(found[0])]
    assert state == {"step": step_of(found[0])}
    writer = lineage.writer(keep=1)
    writer.save(step_of(found[0]) + 1, weights, state)
    writer.wait(required=True)
    assert os.listdir(tmp_path / "1") == []


def test_a_volume_that_takes_no_more_costs_a_checkpoint_and_not_the_training(tmp_path: Path) -> None:
    # RLIMIT_FSIZE: the kernel refuses the write (EFBIG) in the midst of the file, as a full disk or a quota does.
    process = python(
        """
        import resource
        writer = lineage.writer(keep=3)
        small, large = {"w": torch.ones(10)}, {"w": torch.ones(1_000_000)}
        writer.save(1, small, {})
        print(writer.wait(required=True).step)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        writer.save(2, large, {})
        print(writer.wait().step, writer.failures, writer.error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        writer.save(3, large, {})
        print(writer.wait(required=True).step, writer.failures)
        """,
        tmp_path,
    )
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    first, second, third = output.splitlines()
    assert (first, third) == ("1", "3 1")
    assert second.startswith(f"1 1 the checkpoint of step 2 was not written to {tmp_path}/1: ")
    assert "File too large" in second
    assert sorted(os.listdir(tmp_path / "1")) == ["step-1", "step-3"]
