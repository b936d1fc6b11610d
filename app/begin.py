"""What a run without a checkpoint of its own begins with: the weights of another network, or a foreign training.

Pure but for reading the file that `--pretrained` names: states in, states out, and a line that says what was taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from app import recipe
from app.config import TrainConfig
from app.data.errors import shown
from app.model import NETWORK
from app.resilience.exit_codes import ExitCode, TrainingError
from app.weights import Facts, Weights, check_classes, complete, read

HEAD = "fc."
"""What the names of the last layer's tensors begin with."""
OPTIMIZER_STATE = {
    "sgd": ("momentum_buffer",),
    "adam": ("step", "exp_avg", "exp_avg_sq"),
    "rmsprop": ("step", "square_avg", "momentum_buffer"),
}
"""`--optimizer` -> what torch's optimizer (or LARS, which is its "sgd") keeps for every parameter."""


def pretrained(
    config: TrainConfig, network: torch.nn.Module, classes: Sequence[str]
) -> tuple[dict[str, torch.Tensor], str]:
    """The tensors of `--pretrained`, by their names in a checkpoint, and a line that says what was taken.

    Args:
        config: of this run.
        network: freshly initialised: its last layer stays where the other's does not fit.
        classes: of this run's data, in their order.

    Raises:
        TrainingError: as `app.weights.read`; 65 also where it is another architecture.
    """
    tensors, facts = complete(read(Path(config.pretrained), trust_checkpoint=config.trust_checkpoint), config.model)
    fits, why = head_fits(facts, classes)
    if not fits:
        tensors |= {name: tensor for name, tensor in network.state_dict().items() if name.startswith(HEAD)}
    layer = "with its last layer" if fits else "with a new last layer"
    line = f"beginning with the weights of {facts.model} in {shown(facts.path)}, {layer}: {why}"
    return {f"{NETWORK}{name}": tensor for name, tensor in tensors.items()}, line


def head_fits(facts: Facts, classes: Sequence[str]) -> tuple[bool, str]:
    """Whether the last layer of a network can be kept for these classes, and why."""
    if facts.outputs != len(classes):
        return False, f"it tells {facts.outputs} classes apart, this data has {len(classes)}"
    if facts.classes is None:
        return True, f"it names no classes, and this data has as many, {len(classes)}"
    if facts.classes == list(classes):
        return True, f"its {len(classes)} classes are those of this data"
    unknown = next((name for name in facts.classes if name not in classes), None)
    return False, "its classes are in another order" if unknown is None else f"this data has no class {shown(unknown)}"


def foreign_training(
    weights: Weights, config: TrainConfig, network: torch.nn.Module, classes: Sequence[str], steps: int
) -> tuple[dict[str, torch.Tensor], dict[str, Any], str]:
    """A foreign training as a checkpoint of ours, and a line that says what was taken.

    The original's files hold the epochs done, the best top-1 in percent and the optimizer; torchvision's of published
    weights hold nothing beside them.

    Args:
        weights: of a foreign file.
        config: of this run.
        network: unwrapped; only names and shapes of its parameters count.
        classes: of this run's data, in their order.
        steps: optimizer steps of an epoch.

    Returns:
        The tensors by their names in a checkpoint; of a checkpoint's state what differs from a fresh run's; the line.

    Raises:
        TrainingError: 65 another architecture or other classes, 64 no epoch is left to train.
    """
    tensors, facts = complete(weights, config.model)
    check_classes(facts, classes, config.dataset)
    named = {f"{NETWORK}{name}": tensor for name, tensor in tensors.items()}
    line = f"going on from {shown(weights.path)}, which another program wrote, with its weights"
    epoch = weights.others.get("epoch")
    if type(epoch) is not int or epoch < 0:
        return named, {}, f"{line} alone: it says no epoch, so the training begins at epoch 1"
    if epoch >= config.last_epoch:
        raise TrainingError(
            ExitCode.BAD_OPTION,
            f"--resume {shown(weights.path)}: has {epoch} epochs already, and this run ends after {config.last_epoch}: "
            "give more with --epoch",
        )
    step = epoch * steps
    state: dict[str, Any] = {"epoch": epoch, "step": step, "images": step * config.global_batch}
    line += f", after epoch {epoch}"
    best = weights.others.get("best_prec1")
    if isinstance(best, (int, float)) and 0 < best <= 100:
        state["best_top1"] = best / 100
        line += f" and a best top-1 of {best:.2f}%"
    try:
        state["optimizer_state"] = optimizer_state(weights.others.get("optimizer"), config, network)
    except ValueError as problem:
        return named, state, f"{line}; its optimizer is not taken ({problem}): momentum begins anew"
    return named, state, f"{line}, and with its optimizer"


def optimizer_state(saved: Any, config: TrainConfig, network: torch.nn.Module) -> dict[int, dict[str, Any]]:
    """What a foreign optimizer kept for each parameter, by the numbers of this run's optimizer.

    Args:
        saved: its `state_dict()`. The original's has the parameters with "bn" in their name first, then the rest (with
            LARS the convolutions and fc.weight, the norms, then fc.bias); torchvision's has one group.
        config: of this run.
        network: whose parameters they are.

    Raises:
        ValueError: it is none, or of another optimizer or network; the end of a sentence.
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    groups = [[name for name in shapes if "bn" in name], [name for name in shapes if "bn" not in name]]
    if config.mlperf_mode:
        flat = [name for name, shape in shapes.items() if len(shape) == 1]
        groups = [[n for n in shapes if n not in flat], [n for n in flat if n != "fc.bias"], ["fc.bias"]]
    wanted = OPTIMIZER_STATE[config.optimizer]
    try:
        numbers = [list(group["params"]) for group in saved["param_groups"]]
        if [len(group) for group in numbers] == [len(shapes)]:
            groups = [list(shapes)]
        pairs = [pair for names, of in zip(groups, numbers, strict=True) for pair in zip(names, of, strict=True)]
        found = {name: {key: saved["state"][number][key] for key in wanted} for name, number in pairs}
        alike = all(tuple(found[n][key].shape) == shapes[n] for n in shapes for key in wanted if key != "step")
    except (KeyError, TypeError, AttributeError, ValueError):
        raise ValueError("it holds none" if saved is None else "it is another one, or another network's") from None
    if not alike:
        raise ValueError("its shapes are not this network's")
    order = [name for names in recipe.split_names(network, recipe.decay_filter(config)) for name in names]
    return {number: found[name] for number, name in enumerate(order)}
