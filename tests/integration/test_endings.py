"""Real runs at their end: one that is ended early, and one whose export fails."""

from __future__ import annotations

import json
from pathlib import Path

from app.resilience import checkpoint
from app.telemetry.events import read_events
from tests.integration.training_process import command, newest, run

STEPS = 22
"""Of an epoch of the digits, with a global batch of 64."""


def test_a_run_that_is_ended_early_is_finished_and_a_failed_export_does_not_fail_it(
    images: Path, tmp_path: Path
) -> None:
    (tmp_path / "onnx.py").write_text("raise ModuleNotFoundError(\"No module named 'onnx'\", name='onnx')")
    argv = command(images, tmp_path / "run", nproc_per_node=1, bs=64, epoch=9, early_stop=1, log_interval=11)
    environ = {"PYTHONPATH": str(tmp_path), "RESNET_TERMINATION_MESSAGE_PATH": str(tmp_path / "message")}
    done = run(argv, **environ)
    assert done.returncode == 0, done.stdout + done.stderr
    last = [line for line in done.stdout.splitlines() if line.startswith("train: done")][-1]
    assert last.startswith(f"train: done after 1 of 9 (--early_stop) epochs, {STEPS} steps: top-1 ")
    assert "no ONNX file: export: No module named 'onnx'" in last
    assert f"epoch 1/1 step {STEPS}/{STEPS} " in done.stdout
    state = checkpoint.load(newest(tmp_path / "run"))[1]
    assert (state["epoch"], state["step"]) == (0, STEPS)

    (export,) = (e for e in read_events(tmp_path / "run/1/events.jsonl") if e["kind"] == "export")
    assert "No module named 'onnx'" in export["error"]
    message = json.loads((tmp_path / "message").read_text())
    assert (message["exit_code"], message["exported"]) == (0, None)
    assert "No module named 'onnx'" in message["export_error"]
    assert json.loads((tmp_path / "run/1/END.json").read_text())["exported"] is None

    again = run(argv, **environ)
    assert (again.returncode, again.stderr) == (0, "")
    assert "is finished (step 22): nothing to do; --resume none starts afresh" in again.stdout
    # The node of the first may have been gone before anybody read its message: what it found is told once more.
    told = json.loads((tmp_path / "message").read_text())
    known = (
        "phase",
        "epoch",
        "epochs",
        "step",
        "steps",
        "top1",
        "best_top1",
        "last_checkpoint",
        "export_error",
        "reason",
    )
    assert {name: told[name] for name in known} == {name: message[name] for name in known}
    assert message["top1"] is not None
