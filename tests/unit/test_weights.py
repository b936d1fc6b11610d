"""Networks from our checkpoints and from foreign files, and one line for whatever is neither."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision

from app import weights
from app.config import MODELS
from app.resilience import checkpoint
from app.resilience.exit_codes import ExitCode, TrainingError
from app.weights import Facts, Weights, check_classes, fingerprint, load_network, recognise
from tests.pictures import CLASSES, SIDE, network

STATE = {
    "model": "resnet18", "classes": CLASSES, "dataset": "imagenet", "image_size": 32, "eval_size": SIDE, "epoch": 4,
    "step": 7,
}  # fmt: skip
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    return network().state_dict()


def prefixed(prefix: str, tensors: Mapping[str, torch.Tensor]) -> Tensors:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def save_own(directory: Path, step: int, tensors: Tensors, **state: Any) -> Path:
    return checkpoint.save(directory, step, prefixed("model.", tensors), {**STATE, "step": step, **state}).path


FOREIGN: dict[str, Callable[[Tensors], Any]] = {
    "torchvision's": lambda t: t,
    "the original's": lambda t: prefixed("module.", t),
    "the original's, wrapped": lambda t: {"state_dict": prefixed("module.", t), "epoch": 3},
    "the original's stages": lambda t: {
        re.sub(r"^layer(\d)", lambda m: f"module.layers.{int(m[1]) - 1}", n): v for n, v in t.items()
    },
    "torchvision's reference": lambda t: {"model": t, "optimizer": {"state": {}, "lr": [0.1]}, "epoch": 1},
    "compiled under DDP": lambda t: {"model": prefixed("module._orig_mod.", t)},
    "torchvision's oldest": lambda t: {name: v for name, v in t.items() if "num_batches" not in name},
    "parameters": lambda t: {name: torch.nn.Parameter(v) if v.is_floating_point() else v for name, v in t.items()},
}


@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_foreign_state_dict_is_the_same_network(
    make: Callable[[Tensors], Any], tensors: Tensors, tmp_path: Path
) -> None:
    torch.save(make(tensors), tmp_path / "network.pth")
    loaded, facts = load_network(tmp_path / "network.pth")
    assert not loaded.training
    assert facts == Facts(tmp_path / "network.pth", "resnet18", 3)
    for name, tensor in loaded.state_dict().items():
        assert "num_batches" in name or torch.equal(tensor, tensors[name]), name


def test_safetensors_are_read_and_low_precision_becomes_fp32(tensors: Tensors, tmp_path: Path) -> None:
    halves = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
    safetensors.torch.save_file(halves, tmp_path / "network.safetensors")
    loaded, _ = load_network(tmp_path / "network.safetensors", model_name="resnet18")
    assert loaded(torch.zeros(1, 3, SIDE, SIDE)).dtype == torch.float32
    assert torch.equal(loaded.state_dict()["fc.weight"], halves["fc.weight"].float())


def shapes(name: str, outputs: int) -> Weights:
    with torch.device("meta"):
        return Weights(Path("file.pth"), getattr(torchvision.models, name)(num_classes=outputs).state_dict())


@pytest.mark.parametrize("name", MODELS)
def test_every_architecture_is_recognised_from_its_shapes(name: str) -> None:
    assert recognise(shapes(name, 17)) == (name, 17)


@pytest.mark.parametrize(
    ("name", "among", "said"),
    [
        ("wide_resnet50_2", MODELS, "nearest to resnet50: layer1.0.conv1.weight is 128x64x1x1 and not 64x64x1x1"),
        ("resnet34", ("resnet18",), "is not resnet18: layer1.2.conv1.weight is not part of it"),
        ("resnet18", ("resnet34",), "is not resnet34: layer1.2.conv1.weight is missing"),
        ("vgg11", MODELS, "holds no tensor fc.weight, so it is no ResNet by torchvision's names; it holds features"),
    ],
)
def test_another_architecture_is_refused_and_says_by_what(name: str, among: tuple[str, ...], said: str) -> None:
    with pytest.raises(TrainingError) as error:
        recognise(shapes(name, 1000), among)
    assert error.value.code == ExitCode.BAD_DATA
    assert error.value.message.startswith("file.pth ")
    assert said in error.value.message
    assert len(error.value.message) < 400


def test_a_checkpoint_brings_its_facts(tensors: Tensors, tmp_path: Path) -> None:
    path = save_own(tmp_path, 7, tensors)
    loaded, facts = load_network(path)
    assert facts == Facts(path, "resnet18", 3, CLASSES, "imagenet", SIDE, 4, 7)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in loaded.state_dict().items())


SMALL: Tensors = {"fc.weight": torch.zeros(3, 2)}


def run_directory(root: Path) -> Path:
    """Start 1 reached step 30, start 2 went on from its step 20 to 25: 30 is not on the line any more."""
    for start, steps, parent in ((1, (10, 20, 30), None), (2, (25,), "1/step-20")):
        (root / "starts").mkdir(parents=True, exist_ok=True)
        record = f'{{"parent": {"null" if parent is None else chr(34) + parent + chr(34)}}}'
        (root / "starts" / str(start)).write_text(record)
        for step in steps:
            save_own(root / str(start), step, SMALL)
    return root


@pytest.mark.parametrize(
    ("place", "asked", "step"),
    [
        ("run", "run", 25),
        ("run", "run/1", 30),
        ("run", "run/1/step-10", 10),
        ("checkpoints/resnet18", "checkpoints", 25),
        ("volume/team/first", "volume", 25),
        ("runs/first/checkpoints/local/first", "runs/first", 25),
    ],
)
def test_a_directory_of_checkpoints_stands_for_its_newest_one(
    place: str, asked: str, step: int, tmp_path: Path
) -> None:
    run_directory(tmp_path / place)
    assert weights.read(tmp_path / asked).state["step"] == step


def test_a_torn_newest_checkpoint_is_said_and_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = run_directory(tmp_path / "run")
    (root / "2/step-25/tensors.safetensors").write_bytes(b"torn")
    assert weights.read(root).state["step"] == 20
    said = capsys.readouterr().err
    assert "step-25 is no good checkpoint" in said
    assert said.endswith("falling back to the one before it\n")


def test_several_runs_are_not_chosen_from(tmp_path: Path) -> None:
    for name in ("resnet18", "resnet50"):
        run_directory(tmp_path / name)
    with pytest.raises(TrainingError, match=r"holds checkpoints of 2 runs \(.*resnet18, .*resnet50\): name one"):
        weights.read(tmp_path)


def torn(path: Path, tensors: Tensors) -> None:
    torch.save({"fc.weight": torch.zeros(3, 512)}, path)
    path.write_bytes(path.read_bytes()[:3_000])


def diverged(path: Path, tensors: Tensors) -> None:
    torch.save({**tensors, "fc.bias": torch.tensor([1.0, float("nan"), 0.0])}, path)


def without(path: Path, tensors: Tensors) -> None:
    torch.save({name: t for name, t in tensors.items() if name != "layer1.0.conv1.weight"}, path)


def torn_checkpoint(path: Path, tensors: Tensors) -> None:
    save_own(path.parent, 7, SMALL)
    (path / "state.json").unlink()


REFUSED: list[tuple[str, Callable[[Path, Tensors], object], int, str]] = [
    ("no.pth", lambda p, t: None, 66, "cannot be read: No such file"),
    ("text.pth", lambda p, t: p.write_text("weights"), 65, "is no file that torch.save wrote"),
    ("empty.pth", lambda p, t: p.touch(), 65, "is no file that torch.save wrote"),
    ("torn.pth", torn, 65, "is no file that torch.save wrote, or a torn one"),
    ("text.safetensors", lambda p, t: p.write_text("weights"), 65, "is no safetensors file"),
    ("tensor.pth", lambda p, t: torch.save(torch.zeros(3), p), 65, "holds no state dict but Tensor"),
    ("bare.pth", lambda p, t: torch.save({}, p), 65, "holds no state dict but dict"),
    ("numbers.pth", lambda p, t: torch.save({"epoch": 3}, p), 65, "epoch is int, not a tensor"),
    ("code.pth", lambda p, t: torch.save({"a": argparse.Namespace()}, p), 65, "more than tensors (argparse.Name"),
    ("nan.pth", diverged, 65, "values of fc.bias are not finite"),
    ("less.pth", without, 65, "nearest to resnet18: layer1.0.conv1.weight is missing"),
    ("folder", lambda p, t: p.mkdir(), 65, "holds no good checkpoint"),
    ("step-7", torn_checkpoint, 65, "is no good checkpoint: state.json is missing"),
]


@pytest.mark.parametrize(("name", "make", "code", "said"), REFUSED, ids=[each[0] for each in REFUSED])
def test_what_is_no_network_is_one_line_that_names_the_file(
    name: str, make: Callable[[Path, Tensors], object], code: int, said: str, tensors: Tensors, tmp_path: Path
) -> None:
    path = tmp_path / name
    make(path, tensors)
    with pytest.raises(TrainingError) as error:
        load_network(path)
    assert error.value.code == code
    assert error.value.message.startswith(f"{path} ")
    assert said in error.value.message
    assert "\n" not in error.value.message


def test_a_torch_that_could_run_a_files_code_is_refused_unless_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pickled, safe = tmp_path / "network.pth", tmp_path / "network.safetensors"
    torch.save(SMALL, pickled)
    safetensors.torch.save_file(SMALL, safe)
    own = save_own(tmp_path, 7, SMALL)
    monkeypatch.setattr(torch, "__version__", "2.3.1+cpu")  # older than any that runs this test
    with pytest.raises(TrainingError, match="--trust_checkpoint") as error:
        weights.read(pickled)
    assert error.value.code == ExitCode.BAD_OPTION
    trusted = weights.read(pickled, trust_checkpoint=True)
    assert all(found.tensors.keys() == SMALL.keys() for found in (trusted, weights.read(safe), weights.read(own)))


@pytest.mark.parametrize(
    ("classes", "names", "said"),
    [
        (None, ["a", "b"], "tells 3 classes apart, here has 2"),
        (CLASSES, ["cat", "dog", "fox"], "was trained on other classes: here has no class eel"),
        (CLASSES, ["dog", "cat", "eel"], "the same classes in another order"),
    ],
)
def test_other_classes_are_refused(classes: list[str] | None, names: list[str], said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        check_classes(Facts(Path("f"), "resnet18", 3, classes), names, "here")


@pytest.mark.parametrize("classes", [None, CLASSES])
def test_the_same_classes_pass_and_so_do_as_many_where_a_file_names_none(classes: list[str] | None) -> None:
    check_classes(Facts(Path("f"), "resnet18", 3, classes), CLASSES, "here")


def test_a_fingerprint_is_of_the_content_wherever_it_lies(tensors: Tensors, tmp_path: Path) -> None:
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        torch.save(SMALL, tmp_path / place / "network.pth")
        save_own(tmp_path / place, 7, SMALL, epoch={"here": 4, "there": 5}[place])
    assert fingerprint(tmp_path / "here/network.pth") == fingerprint(tmp_path / "there/network.pth")
    own = fingerprint(tmp_path / "here/step-7")
    assert own == fingerprint(tmp_path / "there/step-7")
    assert own != fingerprint(save_own(tmp_path, 8, tensors))
    assert own != fingerprint(tmp_path / "here/network.pth")


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("gone.pth", 66, "gone.pth cannot be read: No such file"),
        ("", 64, "name a checkpoint (…/step-<number>) or a file"),
    ],
)
def test_what_has_no_fingerprint_is_one_line(name: str, code: int, said: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError) as caught:
        fingerprint(tmp_path / name)
    assert caught.value.code == code
    assert said in caught.value.message
