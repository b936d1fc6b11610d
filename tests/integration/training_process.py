"""Real trainings as processes, for the tests that look at their ends: the command, and what lies on the disk."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from app.resilience import checkpoint

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """A TCP port that is free on 127.0.0.1 just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(images: Path, directory: Path, **flags: object) -> list[str]:
    """A small run: ResNet18 at 24 px on the digits, two ranks."""
    values = {
        "model_name": "resnet18", "nproc_per_node": 2, "bs": 32, "lr": 0.064, "epoch": 2, "device": "cpu",
        "dataset": "digits", "dataset_path": images, "image_size": 24, "num_workers": 0, "log_interval": 1,
        "autocast": True, "checkpoint_dir": directory, "master_port": free_port(), **flags,
    }  # fmt: skip
    return [sys.executable, "-m", "app.run_resnet", *(f"--{name}={value}" for name, value in values.items())]


def run(argv: list[str], cwd: Path = ROOT, **environ: str) -> subprocess.CompletedProcess[str]:
    """Runs it to its end."""
    return subprocess.run(
        argv, check=False, cwd=cwd, env=os.environ | environ, capture_output=True, text=True, timeout=300
    )


def start(argv: list[str], log: Path, **environ: str) -> subprocess.Popen[bytes]:
    """Starts it, with all that it says in the file `log`."""
    return subprocess.Popen(
        argv, cwd=ROOT, env=os.environ | environ, stdout=log.open("wb"), stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip


def wait_for(condition: Callable[[], object], process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the condition holds; the process must live meanwhile."""
    end = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)


def newest(directory: Path) -> Path:
    """The checkpoint of the highest step, of any start."""
    return max(directory.glob("[0-9]*/step-*"), key=checkpoint.step_of)


def ranks_of(process: subprocess.Popen[bytes]) -> list[int]:
    """Process ids of a launcher's ranks, in the order of their start."""
    return [pid for pid in sorted(map(int, filter(str.isdigit, os.listdir("/proc")))) if parent_of(pid) == process.pid]


def parent_of(pid: int) -> int | None:
    """The parent of a live process; None for one that is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[1])
