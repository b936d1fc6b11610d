"""Real launchers and ranks on Teco cards as tests/fakes/torch_sdaa plays them: the way through the product is the real
one, from `--device sdaa` to the exit code, and only what the vendor ships is stood in for."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.resilience import checkpoint
from app.resilience.exit_codes import ExitCode, reason
from app.telemetry.events import read_events
from tests.integration.training_process import command, newest, run, start, wait_for

FAKES = Path(__file__).parents[1] / "fakes"
Tell = Callable[..., None]


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Tell:
    """A machine with 32 devices; called, it tells them what `state.py` there understands."""

    def tell(**words: object) -> None:
        for name, value in words.items():
            monkeypatch.setenv(f"FAKE_SDAA_{name}", str(value))

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FAKES), *filter(None, [os.environ.get("PYTHONPATH")])]))
    (tmp_path / "seen").mkdir()
    tell(REPORT=tmp_path / "seen")
    return tell


def on_cards(images: Path, directory: Path, **flags: object) -> list[str]:
    """The tests' small run on 4 devices with --autocast True."""
    few = {"device": "sdaa", "nproc_per_node": 4, "bs": 32, "epoch": 1, "export": False}
    return command(images, directory, **{**few, **flags})


def seen(tmp_path: Path) -> list[dict[str, Any]]:
    """What each rank's device saw of its last process."""
    return [json.loads(path.read_text()) for path in sorted((tmp_path / "seen").iterdir())]


def test_four_ranks_train_stop_and_go_on_with_a_loss_scale(images: Path, cards: Tell, tmp_path: Path) -> None:
    argv, log = on_cards(images, tmp_path / "run", grad_scale=True), tmp_path / "log"
    process = start(argv, log)
    wait_for(lambda: "step 4/" in log.read_text(), process, log)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == ExitCode.STOPPED, log.read_text()
    _, state = checkpoint.load(newest(tmp_path / "run"))
    assert state["scaler"]["scale"] == 65536.0
    assert state["scaler"]["_growth_tracker"] == state["step"]

    resumed = run(argv)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "32 x SPA, torch_sdaa 2.0.0" in resumed.stdout
    events = read_events(tmp_path / "run/2/events.jsonl")
    assert (events[0]["step"], events[-1]["step"]) == (state["step"], 11)
    for number, device in enumerate(seen(tmp_path)):
        assert (device["device"], device["tccl_on"], device["autocast"]) == (number, number, "torch.float16")
        assert device["fused_steps"] == 11 - state["step"], "torch_sdaa's own SGD made the steps"

    judged = run([sys.executable, "-m", "app.evaluate", str(newest(tmp_path / "run")), str(images), "--device", "sdaa"])
    assert judged.returncode == 0, judged.stderr
    validated = next(event for event in events if event["kind"] == "validate")
    assert f"top-1 {validated['top1']:.2%}" in judged.stdout


def test_without_a_loss_scale_it_trains_too_and_warns_once(
    images: Path, cards: Tell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDAA_VISIBLE_DEVICES", "9,8,7,6")
    done = run(on_cards(images, tmp_path / "run", step=2, ema=0.9))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("small gradients vanish without a loss scale: add --grad_scale True") == 1
    assert [device["device"] for device in seen(tmp_path)] == [9, 8, 7, 6]
    assert {device["autocast"] for device in seen(tmp_path)} == {"torch.float16"}


FAULTS: list[tuple[str, dict[str, object], int, str]] = [
    ("driver too old for the import", {"FAULT": "import"}, 69, "driver version is insufficient"),
    ("driver too old for the first use", {"FAULT": "driver"}, 69, "driver version 1.1.1 is older"),
    (
        "device lost",
        {"FAULT": "lost", "FAULT_RANK": 1, "FAULT_AT": 5},
        141,
        "rank 1: SDAA error: device sdaa:1 is lost",
    ),
    (
        "no memory for the first step",
        {"FAULT": "memory", "FAULT_RANK": 1},
        64,
        "--batch_size does not fit into the dev",
    ),
    ("no memory later", {"FAULT": "memory", "FAULT_RANK": 1, "FAULT_AT": 5}, 145, "though earlier steps fitted"),
    ("too few devices", {"DEVICES": 1}, 141, "local rank 1 needs device sdaa:1, but only 1 are visible"),
    ("no device", {"DEVICES": 0}, 141, "sees no sdaa device here (SDAA error: no device was found"),
]


@pytest.mark.parametrize(("told", "code", "named"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS])
def test_a_fault_is_its_code_and_one_line(told, code, named, images: Path, cards: Tell, tmp_path: Path) -> None:
    cards(**told)
    done = run(on_cards(images, tmp_path / "run", nproc_per_node=2, step=6))
    assert done.returncode == code, done.stdout + done.stderr
    assert code == ExitCode.UNCLASSIFIED or "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("run_resnet: ")]
    assert line.startswith(f"run_resnet: {reason(code)} (exit {code}): ")
    assert named in line
