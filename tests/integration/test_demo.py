"""`resnetctl run` through the whole chain: real launchers, real DDP, real images; killed, stopped, resumed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.telemetry.events import read_events

ROOT = Path(__file__).parents[2]
RESNETCTL = [sys.executable, "-m", "controller.cli"]


class Run:
    """One `resnetctl run` in its own process group, as a shell would start it."""

    def __init__(self, file: Path, workdir: Path, log: Path) -> None:
        self.directory = workdir / yaml.safe_load(file.read_text())["metadata"]["name"]
        self._log = log
        argv = [*RESNETCTL, "run", "-f", str(file), "--workdir", str(workdir)]
        with log.open("ab") as out:
            self.process = subprocess.Popen(argv, cwd=ROOT, stdout=out, stderr=out, start_new_session=True)

    def wait_for(self, condition: Callable[[], object], seconds: float = 180) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end, self.said()
            time.sleep(0.1)

    def end(self, seconds: float = 300) -> int:
        return self.process.wait(seconds)

    def said(self) -> str:
        return self._log.read_text()

    def status(self) -> dict[str, Any]:
        return json.loads((self.directory / "experiment.json").read_text())["status"]

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [e for e in read_events(self.directory / "events.jsonl") if e["kind"] == kind]

    def checkpoints(self) -> list[Path]:
        return sorted(self.directory.glob("checkpoints/*/*/[0-9]*/step-*"))

    def launchers(self) -> list[int]:
        return children(self.process.pid, "app.run_resnet")

    def ranks(self) -> list[int]:
        return [rank for launcher in self.launchers() for rank in children(launcher, "app.train")]


def children(parent: int, module: str) -> list[int]:
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()
            words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if int(fields[1]) == parent and module.encode() in words:
            found.append(int(entry))
    return found


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def begin(file: Path) -> Run:
        runs.append(Run(file, tmp_path / "runs", tmp_path / "log"))
        return runs[-1]

    yield begin
    for run in runs:
        if run.process.poll() is None:
            pids = [*run.ranks(), *run.launchers(), run.process.pid]
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            run.process.wait(30)


def small(tmp_path: Path, **training: Any) -> Path:
    """digits.yaml with a smaller image, two nodes of one rank each."""
    experiment = yaml.safe_load((ROOT / "examples/digits.yaml").read_text())
    experiment["metadata"]["name"] = "small"
    experiment["spec"]["accelerator"]["cardsPerNode"] = 1
    experiment["spec"]["training"] |= {"imageSize": 24, "epochs": 3, "batchSizePerDevice": 32, **training}
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(experiment))
    return file


@pytest.mark.parametrize("victim", ["rank", "launcher"])
def test_after_kill_9_the_next_attempt_goes_on_from_the_newest_checkpoint(victim, start, tmp_path: Path) -> None:
    run = start(small(tmp_path))
    run.wait_for(run.checkpoints)
    pids = run.ranks() if victim == "rank" else run.launchers()
    assert len(pids) == 2
    everyone = [*run.ranks(), *run.launchers()]
    os.kill(pids[-1], signal.SIGKILL)
    assert run.end() == 0, run.said()
    assert not [pid for pid in everyone if Path(f"/proc/{pid}").exists()]
    status = run.status()
    assert (status["phase"], status["attempt"], status["restarts"]) == ("Succeeded", 2, 1)
    first, second = status["history"]
    assert first["counted"]
    assert not second["counted"]
    begun = run.events("start")
    assert begun[0]["parent"] is None
    assert begun[1]["parent"]
    # Every epoch leaves a checkpoint: at most one epoch of 22 steps is done again.
    done_by_first = max(e["step"] for e in run.events("train") if e["attempt"] == 1)
    assert 0 < begun[1]["step"] <= done_by_first + 1
    assert done_by_first - begun[1]["step"] < 22
    page = (run.directory / "report.html").read_text()
    assert re.search(r"Attempts</\w+>.*?2", page, re.S)
    assert first["reason"] in page


def test_ctrl_c_checkpoints_and_the_same_command_goes_on(start, tmp_path: Path) -> None:
    file = small(tmp_path, epochs=4)
    run = start(file)
    run.wait_for(lambda: any(e["step"] >= 30 for e in _live_events(run)))
    os.kill(run.process.pid, signal.SIGINT)
    assert run.end(120) == 130, run.said()
    stopped = run.events("stop")[-1]
    assert stopped["code"] == 143
    assert re.search(r"stopped at step \d+ of 88", run.said())
    assert max(int(path.name.split("-")[1]) for path in run.checkpoints()) == stopped["step"]
    assert run.status()["phase"] == "Suspended"

    resumed = start(file)
    assert resumed.end() == 0, resumed.said()
    assert resumed.events("start")[1]["step"] == stopped["step"]
    status = resumed.status()
    assert (status["phase"], status["attempt"], status["restarts"]) == ("Succeeded", 2, 0)
    assert resumed.events("end")[-1]["step"] == 88


def _live_events(run: Run) -> list[dict[str, Any]]:
    return [e for path in run.directory.glob("checkpoints/*/*/*/events.jsonl") for e in read_events(path)]
