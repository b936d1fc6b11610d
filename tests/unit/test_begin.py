"""What a run begins with: the weights of another network with an old or a new head, or a foreign training."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from app import begin, model, weights
from app.accelerators.cpu import Cpu
from app.begin import foreign_training, head_fits, optimizer_state, pretrained
from app.config import TrainConfig
from app.resilience import checkpoint
from app.resilience.exit_codes import ExitCode, TrainingError
from app.resilience.heartbeat import Heart
from app.resilience.keeper import Keeper
from app.step import Stepper
from app.weights import Facts
from tests.pictures import CLASSES, SIDE, network

STEPS = 5
Tensors = dict[str, torch.Tensor]
Training = tuple[torch.nn.Module, torch.optim.Optimizer]


def config(**changes: Any) -> TrainConfig:
    options = {
        "model": "resnet18", "device": "cpu", "dataset": "digits", "batch_size": 4, "learning_rate": 0.1, "epochs": 9,
        "image_size": SIDE,
    }  # fmt: skip
    return TrainConfig(**{**options, **changes})


@pytest.mark.parametrize(
    ("outputs", "names", "fits", "why"),
    [
        (3, CLASSES, True, "its 3 classes are those of this data"),
        (3, None, True, "it names no classes, and this data has as many, 3"),
        (4, None, False, "it tells 4 classes apart, this data has 3"),
        (4, [*CLASSES, "fox"], False, "it tells 4 classes apart, this data has 3"),
        (3, ["cat", "dog", "fox"], False, "this data has no class fox"),
        (3, ["dog", "cat", "eel"], False, "its classes are in another order"),
    ],
)
def test_a_last_layer_is_kept_where_its_classes_fit(outputs: int, names: Any, fits: bool, why: str) -> None:
    assert head_fits(Facts(Path("f"), "resnet18", outputs, names), CLASSES) == (fits, why)


@pytest.mark.parametrize("classes", [CLASSES, ["ant", "bee"]])
def test_pretrained_weights_are_taken_and_a_new_last_layer_comes_from_the_seed(
    classes: list[str], foreign: Path
) -> None:
    fresh = model.build("resnet18", len(classes), seed=7)
    tensors, line = pretrained(config(pretrained=str(foreign)), fresh, classes)
    kept = len(classes) == 3
    assert line == (
        f"beginning with the weights of resnet18 in {foreign}, "
        + ("with its last layer: it names no classes, and this data has as many, 3" if kept else
           "with a new last layer: it tells 3 classes apart, this data has 2")
    )  # fmt: skip
    theirs = network().state_dict()
    assert tensors.keys() == {f"model.{name}" for name in theirs}
    for name, value in theirs.items():
        expected = fresh.state_dict()[name] if name.startswith("fc.") and not kept else value
        assert torch.equal(tensors[f"model.{name}"], expected), name


def test_of_our_checkpoint_the_moving_average_is_taken(tmp_path: Path) -> None:
    trained, average = network().state_dict(), model.build("resnet18", 3, seed=4).state_dict()
    tensors = {**{f"model.{n}": t for n, t in trained.items()}, **{f"ema.{n}": t for n, t in average.items()}}
    path = checkpoint.save(tmp_path, 7, tensors, {"classes": CLASSES, "ema": 0.99}).path
    taken, line = pretrained(config(pretrained=str(path)), network(), CLASSES)
    assert line.endswith("with its last layer: its 3 classes are those of this data")
    assert all(torch.equal(taken[f"model.{name}"], value) for name, value in average.items())
    _, facts = weights.load_network(path)
    assert facts.averaged


def test_another_architecture_is_refused_in_one_line(foreign: Path) -> None:
    fresh = model.build("resnet50", 3, seed=0)
    with pytest.raises(TrainingError) as caught:
        pretrained(config(model="resnet50", pretrained=str(foreign)), fresh, CLASSES)
    assert caught.value.code == ExitCode.BAD_DATA
    assert caught.value.message.startswith(f"{foreign} is not resnet50: layer1.0.conv1.weight is 64x64x3x3 and not ")
    assert "\n" not in caught.value.message


def original_names(tensors: Tensors) -> Tensors:
    """As the original under DistributedDataParallel names them: its stages are layers.0 to layers.3."""
    return {
        "module." + re.sub(r"^layer(\d)\.", lambda m: f"layers.{int(m[1]) - 1}.", name): tensor
        for name, tensor in tensors.items()
    }


def original_training(kind: Any, **settings: Any) -> Training:
    """A network and its optimizer after two steps, grouped as the original does: names with "bn" first."""
    trained = network()
    exempt = [p for name, p in trained.named_parameters() if "bn" in name]
    rest = [p for name, p in trained.named_parameters() if "bn" not in name]
    optimizer = kind([{"params": exempt, "weight_decay": 0.0}, {"params": rest, "weight_decay": 2**-15}], **settings)
    for seed in (1, 2):
        same_step(trained, optimizer, seed)
    return trained, optimizer


@pytest.fixture(scope="module")
def original_sgd() -> Training:
    """Tests only read it."""
    kind, settings = KINDS["sgd"]
    return original_training(kind, **settings)


def same_step(trained: torch.nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    """A step along gradients that follow from the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in trained.parameters():
        gradient = torch.randn(parameter.shape, generator=generator) * 0.01
        parameter.grad = torch.empty_like(parameter).copy_(gradient)  # laid out as the parameter, as autograd does
    optimizer.step()


def as_the_original_saves(trained: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {
        "epoch": 4, "best_prec1": 71.25, "state_dict": original_names(trained.state_dict()),
        "optimizer": optimizer.state_dict(),
    }  # fmt: skip


KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "sgd": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.875}),
    "adam": (torch.optim.Adam, {"lr": 0.1}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 0.1, "momentum": 0.875, "alpha": 0.9, "eps": 1e-3}),
}


@pytest.mark.parametrize(
    ("word", "decay_filter"), [("sgd", "seed"), ("sgd", "norm-bias"), ("adam", "seed"), ("rmsprop", "seed")]
)
def test_a_training_of_the_original_goes_on_with_its_epochs_and_its_optimizer(
    word: str, decay_filter: str, tmp_path: Path
) -> None:
    kind, settings = KINDS[word]
    trained, optimizer = original_training(kind, **settings)
    path = tmp_path / "checkpoint_0003.pth.tar"
    torch.save(as_the_original_saves(trained, optimizer), path)

    run = config(optimizer=word, decay_filter=decay_filter)
    stepper = Stepper(run, model.build("resnet18", 3, seed=9), Cpu(), torch.device("cpu"), peers=False)
    tensors, state, line = foreign_training(weights.read(path), run, stepper.network, CLASSES, STEPS)
    assert line == (
        f"going on from {path}, which another program wrote, with its weights, after epoch 4 and a best top-1 of "
        "71.25%, and with its optimizer"
    )
    found = {name: state[name] for name in ("epoch", "step", "images", "best_top1")}
    assert found == {"epoch": 4, "step": 20, "images": 80, "best_top1": 0.7125}

    stepper.load_tensors(tensors)
    stepper.load_optimizer(state["optimizer_state"])
    for group in optimizer.param_groups:  # the one step that both take now is without decay: the filters may differ
        group["weight_decay"] = 0.0
    for group in stepper.optimizer.param_groups:
        group["weight_decay"] = 0.0
    same_step(stepper.network, stepper.optimizer, 3)
    same_step(trained, optimizer, 3)
    for name, value in trained.state_dict().items():
        torch.testing.assert_close(stepper.network.state_dict()[name], value, msg=name)


def test_lars_and_torchvisions_single_group_are_known_by_their_layout() -> None:
    trained = network()
    named = dict(trained.named_parameters())
    flat = [name for name, p in named.items() if p.ndim == 1 and name != "fc.bias"]
    wide = [name for name, p in named.items() if p.ndim > 1]

    def saved(*groups: list[str]) -> dict[str, Any]:
        names = [name for group in groups for name in group]
        counted = iter(range(len(names)))
        return {
            "param_groups": [{"params": [next(counted) for _ in group]} for group in groups],
            "state": {i: {"momentum_buffer": named[name] * 2} for i, name in enumerate(names)},
        }

    for run, groups in ((config(mlperf_mode=True), (wide, flat, ["fc.bias"])), (config(), (list(named),))):
        found = optimizer_state(saved(*groups), run, trained)
        stepper = Stepper(run, trained, Cpu(), torch.device("cpu"), peers=False)
        stepper.load_optimizer(found)
        for parameter in named.values():
            assert torch.equal(stepper.optimizer.state[parameter]["momentum_buffer"], parameter * 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epoch": None}, "with its weights alone: it says no epoch, so the training begins at epoch 1"),
        ({"optimizer": None}, "its optimizer is not taken (it holds none): momentum begins anew"),
        ({"optimizer": {}}, "its optimizer is not taken (it is another one, or another network's): momentum begins"),
        ({"best_prec1": "high"}, "with its weights, after epoch 4, and with its optimizer"),
    ],
)
def test_what_a_foreign_file_lacks_is_said(
    change: dict[str, Any], said: str, original_sgd: Training, tmp_path: Path
) -> None:
    content = {**as_the_original_saves(*original_sgd), **change}
    torch.save({key: value for key, value in content.items() if value is not None}, tmp_path / "c.pth")
    read = weights.read(tmp_path / "c.pth")
    tensors, state, line = foreign_training(read, config(), network(), CLASSES, STEPS)
    assert said in line
    assert len(tensors) == len(network().state_dict())
    assert ("epoch" in state) == ("epoch" not in change)
    assert ("optimizer_state" in state) == ("with its optimizer" in line)


@pytest.mark.parametrize(
    ("word", "said"), [("adam", "it is another one, or another network's"), ("rmsprop", "it is another one")]
)
def test_another_optimizers_state_is_not_taken(word: str, said: str, original_sgd: Training) -> None:
    optimizer = original_sgd[1]
    with pytest.raises(ValueError, match=said):
        optimizer_state(optimizer.state_dict(), config(optimizer=word), network())


def test_another_networks_optimizer_is_not_taken(original_sgd: Training) -> None:
    optimizer = original_sgd[1]
    with pytest.raises(ValueError, match="its shapes are not this network's"):
        optimizer_state(optimizer.state_dict(), config(), model.build("resnet18", 5, seed=0))
    with pytest.raises(ValueError, match="another network's"):
        optimizer_state(optimizer.state_dict(), config(), model.build("resnet34", 3, seed=0))


@pytest.mark.parametrize(
    ("changes", "classes", "code", "said"),
    [
        ({"epochs": 4}, CLASSES, 64, ": has 4 epochs already, and this run ends after 4: give more with --epoch"),
        ({"early_stop": 3}, CLASSES, 64, ": has 4 epochs already, and this run ends after 3"),
        ({"model": "resnet34"}, CLASSES, 65, " is not resnet34: "),
        ({}, ["cat", "dog"], 65, " tells 3 classes apart, digits has 2"),
    ],
)
def test_a_foreign_training_that_does_not_fit_is_refused(
    changes: dict[str, Any], classes: list[str], code: int, said: str, original_sgd: Training, tmp_path: Path
) -> None:
    torch.save(as_the_original_saves(*original_sgd), tmp_path / "c.pth")
    with pytest.raises(TrainingError) as caught:
        foreign_training(weights.read(tmp_path / "c.pth"), config(**changes), network(), classes, STEPS)
    assert caught.value.code == code
    assert said in caught.value.message


def test_every_optimizer_is_known_by_what_it_keeps() -> None:
    for word, keys in begin.OPTIMIZER_STATE.items():
        stepper = Stepper(config(optimizer=word), network(), Cpu(), torch.device("cpu"), peers=False)
        same_step(stepper.network, stepper.optimizer, 1)
        assert {frozenset(kept) for kept in stepper.optimizer.state.values()} == {frozenset(keys)}


def keep(tmp_path: Path, **changes: Any) -> Keeper:
    return Keeper(config(checkpoint_dir=str(tmp_path / "run"), **changes), Heart(None), print)


def test_a_torch_that_may_run_a_files_code_is_refused_before_anything_is_begun(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "__version__", "2.3.1+cpu")
    with pytest.raises(TrainingError, match="--trust_checkpoint True") as caught:
        keep(tmp_path, resume=str(foreign))
    assert caught.value.code == ExitCode.BAD_OPTION
    with pytest.raises(TrainingError, match="--trust_checkpoint True"):
        pretrained(config(pretrained=str(foreign)), network(), CLASSES)
    assert not (tmp_path / "run").exists(), "no start was claimed"
    trusted = keep(tmp_path, resume=str(foreign), trust_checkpoint=True)
    assert trusted.foreign is not None
    assert trusted.lineage.parent is None
    trusted.close()


def test_weights_that_have_gone_are_known_by_what_the_directory_says(foreign: Path, tmp_path: Path) -> None:
    given = tmp_path / "network.pth"
    with pytest.raises(TrainingError, match=r"^--pretrained .*network\.pth cannot be read: ") as caught:
        keep(tmp_path, pretrained=str(given))
    assert caught.value.code == ExitCode.DATA_MISSING
    given.write_bytes(foreign.read_bytes())
    keep(tmp_path, pretrained=str(given)).close()
    given.unlink()
    again = keep(tmp_path, pretrained=str(given))
    assert again.lineage.start == 2
    again.close()
