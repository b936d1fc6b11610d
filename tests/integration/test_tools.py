"""`resnetctl evaluate`, `export` and `predict` of a network that was really trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from app.data import digits
from app.resilience import checkpoint
from app.telemetry.events import read_events
from tests.onnx_accuracy import onnx_top1

ROOT = Path(__file__).parents[2]


class Trained(NamedTuple):
    """A finished run: its checkpoint directory, its data set, and what its own validation found."""

    run: Path
    images: Path
    validated: dict[str, Any]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    place = tmp_path_factory.mktemp("trained")
    digits.write(place / "data")
    flags = {
        "model_name": "resnet18", "bs": 32, "lr": 0.064, "epoch": 1, "device": "cpu", "dataset": "digits",
        "dataset_path": place / "data", "image_size": 24, "num_workers": 0, "checkpoint_dir": place / "run",
    }  # fmt: skip
    command = [sys.executable, "-m", "app.run_resnet", *(f"--{name}={value}" for name, value in flags.items())]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    events = read_events(place / "run/1/events.jsonl")
    return Trained(place / "run", place / "data", next(each for each in events if each["kind"] == "validate"))


def resnetctl(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """As a user types it, in whatever directory."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", "-m", "controller.cli", *map(str, words)]  # -P: as the script resnetctl
    return subprocess.run(command, check=False, cwd=cwd, env=environment, capture_output=True, text=True)


def as_it_is(tensors: dict[str, torch.Tensor]) -> Any:
    return tensors


def as_the_original(tensors: dict[str, torch.Tensor]) -> Any:
    return {"state_dict": {f"module.{name}": tensor for name, tensor in tensors.items()}, "epoch": 1}


@pytest.mark.parametrize("write", [None, as_it_is, as_the_original])
def test_evaluate_agrees_with_the_trainings_own_validation(
    write: Callable[[dict[str, torch.Tensor]], Any] | None, trained: Trained, tmp_path: Path
) -> None:
    (tmp_path / "app").mkdir()  # not ours, though the user stands next to it
    (tmp_path / "app/__init__.py").write_text("raise SystemExit('the wrong app')")
    source, options = trained.run, ["--num_workers", 1]
    if write is not None:
        source = tmp_path / "network.pth"
        tensors, _ = checkpoint.load(next(trained.run.glob("1/step-*")))
        torch.save(write({name.removeprefix("model."): tensor for name, tensor in tensors.items()}), source)
        options += ["--dataset", "digits", "--eval_size", 24]
    done = resnetctl("evaluate", source, trained.images, "--bs", 32, "--json", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["images"] == 360
    assert (found["top1"], found["top5"]) == (trained.validated["top1"], trained.validated["top5"])
    assert found["loss"] == pytest.approx(trained.validated["loss"], rel=1e-5)


def test_export_and_predict_answer_as_the_training_does(trained: Trained, tmp_path: Path) -> None:
    target = tmp_path / "digits.onnx"
    done = resnetctl("export", trained.run, target, "--dataset_path", trained.images, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "torch and onnxruntime agree" in done.stdout
    assert onnx_top1(target, trained.images / "val") == onnx_top1(trained.run / "1/model.onnx", trained.images / "val")

    files = sorted(trained.images.glob("val/*/*"))
    done = resnetctl("predict", target, *files, "--top", 1, "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    answers = [json.loads(line)["top"][0]["class"] for line in done.stdout.splitlines()]
    right = sum(answer == file.parent.name for answer, file in zip(answers, files, strict=True))
    # Of 360; one more or less where two logits all but agree, which the order of summing decides.
    assert abs(right - 360 * trained.validated["top1"]) <= 1.5


def test_a_reader_that_has_gone_is_no_error(trained: Trained) -> None:
    files = sorted(trained.images.glob("val/*/*"))
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "controller.cli", "predict", trained.run / "1/model.onnx", *files],
            cwd=ROOT, stdout=pipe, stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(("tool", "package"), [("evaluate", "torch"), ("export", "onnx"), ("predict", "onnxruntime")])
def test_a_missing_package_is_one_line_that_names_the_extra(tool: str, package: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable, "-c",
            f"import runpy, sys; sys.modules[{package!r}] = None; sys.argv[1:] = ['a', 'b']\n"
            f"runpy.run_module('app.{tool}', run_name='__main__')",
        ],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (69, "", 1)
    assert done.stderr.startswith(f"{tool}: ")
    assert f"{package}" in done.stderr
    assert "pip install '.[app]' in a clone of resnet-operator" in done.stderr
