"""Evaluation: the numbers of a plain torchvision loop, and classes that must match."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torchvision.datasets import ImageFolder
from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

from app import evaluate
from app.data.decode import MEAN, STD
from app.resilience import checkpoint
from tests.pictures import CLASSES, SIDE, network


def outcome(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    code = evaluate.main([str(each) for each in argv])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(("batch", "workers"), [(4, 0), (64, 1)])
def test_the_numbers_are_those_of_a_plain_loop(
    batch: int, workers: int, foreign: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    see = Compose([Resize(27), CenterCrop(SIDE), ToTensor(), Normalize(MEAN, STD)])
    pictures = ImageFolder(str(data / "val"), see)
    images, labels = torch.stack([picture for picture, _ in pictures]), torch.tensor(pictures.targets)
    with torch.no_grad():
        logits = network().eval()(images)
    options = ["--eval_size", SIDE, "--num_workers", workers, "--json"]
    code, out, err = outcome(capsys, foreign, data, "--bs", batch, *options)
    assert code == 0
    assert err == f"evaluate: {foreign} names no classes: taking them for the sorted class folders, cat to eel\n"
    found = json.loads(out)
    assert found["images"] == 9
    assert found["top1"] == (logits.argmax(1) == labels).sum().item() / 9
    assert found["top5"] == 1.0
    assert found["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-4)
    assert (found["model"], found["dataset"], found["precision"]) == ("resnet18", "imagenet", "float32")


def own_checkpoint(directory: Path, classes: list[str]) -> Path:
    tensors = {f"model.{name}": tensor for name, tensor in network().state_dict().items()}
    state = {"model": "resnet18", "classes": classes, "dataset": "imagenet", "eval_size": SIDE, "epoch": 4, "step": 7}
    return checkpoint.save(directory, 7, tensors, state).path


def test_a_checkpoint_needs_no_options_and_is_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = own_checkpoint(tmp_path, CLASSES)
    code, out, err = outcome(capsys, tmp_path, data, "--num_workers", 0)
    assert (code, err) == (0, "")
    assert out.startswith(f"resnet18 in {path} on 9 validation images of imagenet at 24 px (cpu, float32): top-1 ")
    assert out.count("\n") == 1


def test_what_can_t_be_judged_is_one_line_and_a_code(
    foreign: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others, fewer = own_checkpoint(tmp_path, ["cat", "dog", "fox"]), shutil.copytree(data, tmp_path / "fewer")
    for part in ("train", "val"):
        shutil.rmtree(fewer / part / "eel")
    small = ["--eval_size", SIDE]
    for words, expected, line in [
        ([others, data], 65, f"{others} was trained on other classes: imagenet has no class fox"),
        ([foreign, fewer, *small], 65, f"{foreign} tells 3 classes apart, imagenet has 2"),
        ([foreign], 64, "--dataset_path: is required with --dataset imagenet"),
        ([foreign, tmp_path / "no"], 66, "no does not exist"),
        ([foreign, data, "--device", "sdaa"], 69, "torch_sdaa"),
        ([foreign, data, "--device", "tpu"], 64, "--device: 'tpu' is not one of"),
        ([foreign, data, "--eval_size", "7"], 64, "--eval_size: must be 18 to 1024 (or 0), not 7"),
        ([foreign, data, "--bs", "many"], 64, "--batch_size: must be a whole number, not 'many'"),
        ([foreign, data, "--fast"], 64, "command line: unrecognized arguments: --fast"),
        ([], 64, "command line: the following arguments are required: checkpoint"),
    ]:
        code, out, err = outcome(capsys, *words)
        assert (code, out, err.count("\n")) == (expected, "", 1), (words, err)
        assert err.startswith("evaluate: ")
        assert line in err
