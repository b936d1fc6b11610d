"""The network in a file: a checkpoint of this project, or a foreign state dict.

Foreign are torchvision's files and the ModelZoo original's, whose names begin with "module.": alone, or as "state_dict"
or "model" among other things, written by torch.save or as safetensors.
"""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from app import model
from app.config import MODELS
from app.data.errors import shown, unreadable
from app.resilience import checkpoint
from app.resilience.exit_codes import ExitCode, TrainingError
from app.resilience.lineage import on_line
from app.resilience.starts import STARTS, read_records

OWN_PREFIX = "model."
"""Of the network's tensors in our checkpoints."""
WRAPPERS = ("state_dict", "model")
"""Keys under which a foreign file keeps its state dict among other things."""
FOREIGN_PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every name."""
SAFE_TORCH = (2, 6)
"""Before it, even torch.load(weights_only=True) could be made to run code (CVE-2025-32434)."""
_COUNTER = "num_batches_tracked"
_NAMED = 3


@dataclass(frozen=True)
class Weights:
    """A network's tensors and what else its file says.

    Attributes:
        path: what was read in the end: a checkpoint directory or a file.
        tensors: CPU tensors by torchvision's names.
        state: of our own checkpoints; empty for a foreign file.
    """

    path: Path
    tensors: dict[str, torch.Tensor]
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """What is known of a loaded network.

    Attributes:
        path: what was read: a checkpoint directory or a file.
        model: one of `app.config.MODELS`.
        outputs: how many classes it tells apart.
        classes: their names, in the order of the outputs; None: the file does not say.
        dataset, image_size, epoch, step: of the training; None: the file does not say.
    """

    path: Path
    model: str
    outputs: int
    classes: list[str] | None = None
    dataset: str | None = None
    image_size: int | None = None
    epoch: int | None = None
    step: int | None = None


def load_network(path: Path, *, model_name: str = "", trust_checkpoint: bool = False) -> tuple[torch.nn.Module, Facts]:
    """The network at `path`, in fp32 on the CPU, ready to predict, and what is known of it.

    Args:
        path: as `read` takes it.
        model_name: one of `app.config.MODELS`; "": recognised from names and shapes of the tensors.
        trust_checkpoint: as `read`.

    Raises:
        TrainingError: 64, 65, 66 or 144, naming the file and what is wrong.
    """
    weights = read(path, trust_checkpoint=trust_checkpoint)
    tensors = {
        name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.tensors.items()
    }
    lost = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if lost:
        raise _bad(weights.path, f"values of {_some(lost)} are not finite: this network has diverged")
    name, outputs = recognise(weights, (model_name,) if model_name else MODELS)
    with torch.device("meta"):  # no initialisation that would be overwritten at once
        network = model.build(name, outputs, seed=0)
    for missing in network.state_dict().keys() - tensors.keys():  # `recognise` lets only counters be missing
        tensors[missing] = torch.zeros((), dtype=torch.int64)
    network.load_state_dict(tensors, assign=True)
    state = weights.state
    known = {key: state.get(key) for key in ("classes", "dataset", "image_size", "epoch", "step")}
    return network.eval(), Facts(weights.path, name, outputs, **known)


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
        return Weights(path, _foreign(path, trust_checkpoint))
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
        raise _bad(
            weights.path, f"holds no tensor fc.weight, so it is no ResNet by torchvision's names; {_holds(found)}"
        )
    problems: dict[str, list[str]] = {}
    for name in names:
        with torch.device("meta"):
            expected = {k: tuple(t.shape) for k, t in model.build(name, outputs[0], seed=0).state_dict().items()}
        problems[name] = list(_differences(expected, found))
        if not problems[name]:
            return name, outputs[0]
    nearest = min(problems, key=lambda name: len(problems[name]))
    which = nearest if len(names) == 1 else f"one of {', '.join(names)}; nearest to {nearest}"
    raise _bad(weights.path, f"is not {which}: {_some(problems[nearest])}")


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
        raise _bad(facts.path, f"tells {facts.outputs} classes apart, {where} has {len(names)}")
    if facts.classes is None or facts.classes == list(names):
        return
    lost = sorted(set(facts.classes) - set(names))
    what = f"has no class {_some(lost)}" if lost else "has the same classes in another order"
    raise _bad(facts.path, f"was trained on other classes: {where} {what}")


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
    raise _bad(path, "holds no good checkpoint (step-<number>)")


def _is_checkpoint(path: Path) -> bool:
    try:
        checkpoint.step_of(path)
    except checkpoint.BadCheckpoint:
        return False
    return True


def _own(path: Path) -> Weights:
    tensors, state = checkpoint.load(path)
    own = {k.removeprefix(OWN_PREFIX): t for k, t in tensors.items() if k.startswith(OWN_PREFIX)}
    return Weights(path, own, state)


def _candidates(path: Path) -> Iterable[Path]:
    """The checkpoints that a directory of them stands for, newest first, good or not."""
    if inside := checkpoint.checkpoints(path):
        return inside
    # --checkpoint_dir itself, ./checkpoints over all models, a volume's <namespace>/<experiment>, `resnetctl run`'s.
    patterns = (STARTS, f"*/{STARTS}", f"*/*/{STARTS}", f"checkpoints/*/*/{STARTS}")
    roots = next((found for p in patterns if (found := sorted(claims.parent for claims in path.glob(p)))), [])
    if len(roots) > 1:
        raise _bad(path, f"holds checkpoints of {len(roots)} runs ({_some(map(str, roots))}): name one of them")
    return on_line(roots[0], max(read_records(roots[0]), default=0)) if roots else []


def _foreign(path: Path, trust_checkpoint: bool) -> dict[str, torch.Tensor]:
    content = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path, trust_checkpoint)
    while isinstance(content, Mapping) and (inner := [content[key] for key in WRAPPERS if key in content]):
        content = inner[0]
    if not isinstance(content, Mapping) or not content:
        raise _bad(path, f"holds no state dict but {type(content).__name__}")
    tensors: dict[str, torch.Tensor] = {}
    for key, value in content.items():
        name = str(key)
        if not isinstance(value, torch.Tensor):
            raise _bad(path, f"holds no state dict: {shown(name)} is {type(value).__name__}, not a tensor")
        while prefix := next((p for p in FOREIGN_PREFIXES if name.startswith(p)), ""):
            name = name.removeprefix(prefix)
        tensors[name] = value.detach()
    return tensors


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise _bad(path, f"is no safetensors file ({error})") from None


def _pickled(path: Path, trust_checkpoint: bool) -> Any:
    version = tuple(map(int, re.findall(r"\d+", torch.__version__)[:2]))
    if version < SAFE_TORCH and not trust_checkpoint:
        raise TrainingError(
            ExitCode.BAD_OPTION,
            f"{shown(path)}: torch {torch.__version__} may run code that a file like this brings (2.6 is the first "
            "that does not): use a newer torch or .safetensors, or give --trust_checkpoint if you know who wrote it",
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - unpickling broken bytes raises nearly everything
        other = re.search(r"GLOBAL ([\w.]+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and other:
            why = f"holds more than tensors ({other[1]}), which could run code: save the network's state_dict() alone"
        else:
            why = "is no file that torch.save wrote, or a torn one"
        raise _bad(path, why) from None


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


def _bad(path: Path, why: str) -> TrainingError:
    return TrainingError(ExitCode.BAD_DATA, f"{shown(path)} {why}")
