"""Real runs that begin with what another one left: pretrained weights, a foreign training; and the moving average."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from app import model
from app.resilience import checkpoint
from app.resilience.exit_codes import ExitCode
from app.telemetry.events import read_events
from tests.integration.training_process import command, newest, run, start, wait_for
from tests.onnx_accuracy import onnx_top1

STEPS = 22
"""Of an epoch of the digits, with a global batch of 64."""


def lines(done: subprocess.CompletedProcess[str], words: str) -> list[str]:
    return [line for line in done.stdout.splitlines() if words in line]


def test_a_run_from_pretrained_weights_with_an_average_resumes_bitwise_though_their_file_has_gone(
    images: Path, tmp_path: Path
) -> None:
    given = tmp_path / "others.pth"
    theirs = model.build("resnet18", 100, seed=77).state_dict()
    torch.save(theirs, given)
    options = {"pretrained": given, "trust_checkpoint": True, "ema": 0.9, "eval_size": 32, "export": False, "lr": 0.02}
    straight = run(command(images, tmp_path / "straight", **{**options, "export": True}))
    assert straight.returncode == 0, straight.stderr
    (said,) = lines(straight, "beginning with")
    assert said == (
        f"train: beginning with the weights of resnet18 in {given}, with a new last layer: it tells 100 classes apart, "
        "this data has 10"
    )
    assert len(lines(straight, "validated the moving average on 360 images")) == 2

    argv, log = command(images, tmp_path / "stopped", **options), tmp_path / "log"
    process = start(argv, log)
    wait_for(lambda: "step 25/" in log.read_text(), process, log)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == ExitCode.STOPPED, log.read_text()
    given.unlink()
    resumed = run(argv)
    assert resumed.returncode == 0, resumed.stderr
    assert lines(resumed, "beginning with") == []

    ours, state = checkpoint.load(newest(tmp_path / "stopped"))
    straight_tensors, _ = checkpoint.load(newest(tmp_path / "straight"))
    assert (state["step"], state["ema"], state["ema_updates"], state["eval_size"]) == (44, 0.9, 44, 32)
    assert ours.keys() == straight_tensors.keys() == {f"{p}.{name}" for p in ("model", "ema") for name in theirs}
    assert [name for name in ours if not torch.equal(ours[name], straight_tensors[name])] == []
    assert not torch.equal(ours["ema.fc.weight"], ours["model.fc.weight"])

    # The exported network is the average, at the size of validation.
    validated = [e for e in read_events(tmp_path / "straight/1/events.jsonl") if e["kind"] == "validate"][-1]
    top1, judged = onnx_top1(tmp_path / "straight/1/model.onnx", images / "val")
    assert (judged, top1) == (360, pytest.approx(validated["top1"], abs=0.02))

    torch.save({**theirs, "conv1.weight": theirs["conv1.weight"] + 1}, given)
    other = run(argv)
    assert other.returncode == ExitCode.BAD_OPTION
    assert "holds the checkpoints of another recipe (--pretrained " in other.stderr


def test_a_training_of_the_original_goes_on_from_its_file_and_then_from_checkpoints_of_our_own(
    images: Path, tmp_path: Path
) -> None:
    network = model.build("resnet18", 10, seed=5)
    groups = [
        {"params": [p for name, p in network.named_parameters() if ("bn" in name) == exempt]}
        for exempt in (True, False)
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.875)
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    optimizer.step()
    given = tmp_path / "checkpoint_0000.pth.tar"
    names = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save(
        {"epoch": 1, "best_prec1": 12.5, "state_dict": names, "optimizer": optimizer.state_dict()}, given
    )  # fmt: skip
    options = {"export": False, "lr": 0.01, "keep": 9}
    argv = command(images, tmp_path / "run", resume=given, trust_checkpoint=True, **options)
    done = run(argv)
    assert done.returncode == 0, done.stderr
    assert lines(done, "going on from") == [
        f"train: going on from {given}, which another program wrote, with its weights, after epoch 1 and a best top-1 "
        "of 12.50%, and with its optimizer"
    ]
    # What was read is a checkpoint of ours before the first step: a run that is killed now needs the file no more.
    tensors, state = checkpoint.load(tmp_path / f"run/1/step-{STEPS}")
    assert (state["epoch"], state["step"], state["best_top1"]) == (1, STEPS, 0.125)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensors[f"model.{name}"], tensor), name
    momentum = [kept["momentum_buffer"] for kept in state["optimizer"]["state"].values()]
    assert len(momentum) == 62
    assert all(torch.all(each == torch.tensor(1e-3)) for each in momentum)
    assert [e["step"] for e in read_events(tmp_path / "run/1/events.jsonl") if e["kind"] == "end"] == [2 * STEPS]
    assert json.loads((tmp_path / "run/starts/1").read_text())["parent"] is None


REFUSED: list[tuple[str, dict[str, object], int, str]] = [
    ("no file", {"pretrained": "/no/such.pth"}, 66, "--pretrained /no/such.pth cannot be read: No such file"),
    ("another network", {"pretrained": "OTHER"}, 65, "is not resnet18: "),
    ("nothing to resume", {"resume": "/no/such.pth"}, 64, "--resume /no/such.pth: does not exist"),
    ("a torn file", {"resume": "TEXT"}, 65, "is no file that torch.save wrote"),
]


@pytest.mark.parametrize(("flags", "code", "said"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_what_a_run_can_t_begin_with_is_one_line(
    flags: dict[str, object], code: int, said: str, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.pth").write_text("text")
    torch.save(model.build("resnet34", 10, seed=0).state_dict(), tmp_path / "other.pth")
    places = {"TEXT": tmp_path / "text.pth", "OTHER": tmp_path / "other.pth"}
    given = {name: places.get(str(value), value) for name, value in flags.items()}
    done = run(command(images, tmp_path / "run", nproc_per_node=1, epoch=1, trust_checkpoint=True, **given))
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert len([line for line in done.stderr.splitlines() if said in line]) == 1, done.stderr
