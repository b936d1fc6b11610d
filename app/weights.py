"""The network in a file: a checkpoint of this project, or a foreign one (app.foreign).

Of a checkpoint of ours, the moving average is taken where there is one (`--ema`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from app import model
from app.config import MODELS
from app.data.errors import shown, unreadable
from app.foreign import bad, read_foreign
from app.resilience import checkpoint
from app.resilience.exit_codes import ExitCode, TrainingError
from app.resilience.lineage import on_line
from app.resilience.starts import STARTS, read_records

_COUNTER = "num_batches_tracked"
_NAMED = 3


@dataclass(frozen=True)
class Weights:
    """A network's tensors and what else its file says.

    Attributes:
        path: what was read in the end: a checkpoint directory or a file.
        tensors: CPU tensors by torchvision's names.
        state: of our own checkpoints; empty for a foreign file.
        others: what a foreign file holds beside its state dict (epoch, optimizer …).
    """

    path: Path
    tensors: dict[str, torch.Tensor]
    state: dict[str, Any] = field(default_factory=dict)
    others: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """What is known of a loaded network.

    Attributes:
        path: what was read: a checkpoint directory or a file.
        model: one of `app.config.MODELS`.
        outputs: how many classes it tells apart.
        classes: their names, in the order of the outputs; None: the file does not say.
        dataset, epoch, step: of the training; None: the file does not say.
        eval_size: side of the images that it is to see; None: the file does not say.
        averaged: whether these weights are a moving average over the training.
    """

    path: Path
    model: str
    outputs: int
    classes: list[str] | None = None
    dataset: str | None = None
    eval_size: int | None = None
    epoch: int | None = None
    step: int | None = None
    averaged: bool = False


def load_network(path: Path, *, model_name: str = "", trust_checkpoint: bool = False) -> tuple[torch.nn.Module, Facts]:
    """The network at `path`, in fp32 on the CPU, ready to predict, and what is known of it.

    Args:
        path: as `read` takes it.
        model_name: one of `app.config.MODELS`; "": recognised from names and shapes of the tensors.
        trust_checkpoint: as `read`.

    Raises:
        TrainingError: 64, 65, 66 or 144, naming the file and what is wrong.
    """
    tensors, facts = complete(read(path, trust_checkpoint=trust_checkpoint), model_name)
    with torch.device("meta"):  # no initialisation that would be overwritten at once
        network = model.build(facts.model, facts.outputs, seed=0)
    network.load_state_dict(tensors, assign=True)
    return network.eval(), facts


def complete(weights: Weights, model_name: str = "") -> tuple[dict[str, torch.Tensor], Facts]:
    """The whole state dict of a network in fp32, checked, and what is known of it.

    Args:
        weights: as they were read.
        model_name: as `load_network`.

    Raises:
        TrainingError: 65, they are another network's or none, or not finite.
    """
    tensors = {
        name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.tensors.items()
    }
    lost = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if lost:
        raise bad(weights.path, f"values of {_some(lost)} are not finite: this network has diverged")
    name, outputs = recognise(weights, (model_name,) if model_name else MODELS)
    for missing in _expected(name, outputs).keys() - tensors.keys():  # `recognise` lets only counters be missing
        tensors[missing] = torch.zeros((), dtype=torch.int64)
    state = weights.state
    known = {key: state.get(key) for key in ("classes", "dataset", "eval_size", "epoch", "step")}
    return tensors, Facts(weights.path, name, outputs, **known, averaged=bool(state.get("ema")))


def read(path: Path, *, trust_checkpoint: bool = False) -> Weights:
    """The tensors at `path`, by torchvision's names.

    Args:
        path: one of our checkpoints (step-<k>); a directory of them (--checkpoint_dir, one start of it, or what
            `resnetctl run` wrote), of which the newest good one on the line of training is taken; or a foreign
            .pth, .pt or .safetensors file.
        trust_checkpoint: read a foreign file even with a torch that can't do it safely.

    Raises:
        TrainingError: 64 it would not be safe, 65 it holds no such thing, 66 it is not there, 144 the volume failed.
    """
    try:
        if path.is_dir():
            return _newest_good(path)
        path.stat()
        tensors, others = read_foreign(path, trust_checkpoint=trust_checkpoint)
        return Weights(path, tensors, others=others)
    except OSError as error:
        raise unreadable(error.filename or path, error) from None


def fingerprint(path: Path) -> str:
    """The sha256 of a file, or of the tensors of a checkpoint (step-<k>): the same wherever it lies.

    Raises:
        TrainingError: 64 it is another directory, 66 it is not there, 144 the volume failed.
    """
    try:
        path.stat()
        return checkpoint.fingerprint(path.resolve())
    except checkpoint.BadCheckpoint as error:
        raise TrainingError(ExitCode.BAD_OPTION, f"{error}; name a checkpoint (…/step-<number>) or a file") from None
    except OSError as error:
        raise unreadable(error.filename or path, error) from None


def recognise(weights: Weights, names: Sequence[str] = MODELS) -> tuple[str, int]:
    """Which of these architectures the tensors make, and its number of outputs.

    Raises:
        TrainingError: 65, none of them; says what is missing for the nearest.
    """
    found = {name: tuple(tensor.shape) for name, tensor in weights.tensors.items()}
    outputs = found.get("fc.weight", ())[:1]
    if not outputs:
        raise bad(
            weights.path, f"holds no tensor fc.weight, so it is no ResNet by torchvision's names; {_holds(found)}"
        )
    problems: dict[str, list[str]] = {}
    for name in names:
        problems[name] = list(_differences(_expected(name, outputs[0]), found))
        if not problems[name]:
            return name, outputs[0]
    nearest = min(problems, key=lambda name: len(problems[name]))
    which = nearest if len(names) == 1 else f"one of {', '.join(names)}; nearest to {nearest}"
    raise bad(weights.path, f"is not {which}: {_some(problems[nearest])}")


def check_classes(facts: Facts, names: Sequence[str], where: str) -> None:
    """Compares the classes of a network with those of a data set, whose order is that of its labels.

    Args:
        facts: of the network.
        names: the data set's.
        where: where they are, for a person.

    Raises:
        TrainingError: 65, they are others.
    """
    if facts.outputs != len(names):
        raise bad(facts.path, f"tells {facts.outputs} classes apart, {where} has {len(names)}")
    if facts.classes is None or facts.classes == list(names):
        return
    lost = sorted(set(facts.classes) - set(names))
    what = f"has no class {_some(lost)}" if lost else "has the same classes in another order"
    raise bad(facts.path, f"was trained on other classes: {where} {what}")


def _newest_good(path: Path) -> Weights:
    named = path.resolve()
    if _is_checkpoint(named):
        try:
            return _own(named)
        except checkpoint.BadCheckpoint as error:
            raise TrainingError(ExitCode.BAD_DATA, str(error)) from None
    for candidate in _candidates(path):
        try:
            return _own(candidate)
        except checkpoint.BadCheckpoint as error:
            print(f"{error}; falling back to the one before it", file=sys.stderr)
    raise bad(path, "holds no good checkpoint (step-<number>)")


def _is_checkpoint(path: Path) -> bool:
    try:
        checkpoint.step_of(path)
    except checkpoint.BadCheckpoint:
        return False
    return True


def _own(path: Path) -> Weights:
    tensors, state = checkpoint.load(path)
    prefix = model.AVERAGE if state.get("ema") else model.NETWORK
    return Weights(path, {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}, state)


def _candidates(path: Path) -> Iterable[Path]:
    """The checkpoints that a directory of them stands for, newest first, good or not."""
    if inside := checkpoint.checkpoints(path):
        return inside
    # --checkpoint_dir itself, ./checkpoints over all models, a volume's <namespace>/<experiment>, `resnetctl run`'s.
    patterns = (STARTS, f"*/{STARTS}", f"*/*/{STARTS}", f"checkpoints/*/*/{STARTS}")
    roots = next((found for p in patterns if (found := sorted(claims.parent for claims in path.glob(p)))), [])
    if len(roots) > 1:
        raise bad(path, f"holds checkpoints of {len(roots)} runs ({_some(map(str, roots))}): name one of them")
    return on_line(roots[0], max(read_records(roots[0]), default=0)) if roots else []


def _expected(name: str, outputs: int) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {key: tuple(t.shape) for key, t in model.build(name, outputs, seed=0).state_dict().items()}


def _differences(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    for name, shape in expected.items():
        if name not in found:
            if not name.endswith(_COUNTER):  # torchvision's oldest files have none, and evaluation needs none
                yield f"{name} is missing"
        elif found[name] != shape:
            yield f"{name} is {_shape(found[name])} and not {_shape(shape)}"
    for name in found:
        if name not in expected:
            yield f"{shown(name)} is not part of it"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a single number"


def _holds(found: Mapping[str, Any]) -> str:
    return f"it holds {_some(map(shown, found))}" if found else "it is empty"


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + more
