"""A network in a file that this project did not write: torchvision's, the ModelZoo original's, or anyone's.

The state dict lies there alone, or as "state_dict" or "model" among other things; its names may begin with "module.".
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from app.data.errors import shown
from app.resilience.exit_codes import ExitCode, TrainingError

WRAPPERS = ("state_dict", "model")
"""Keys under which a foreign file keeps its state dict among other things."""
FOREIGN_PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every name."""
SAFE_TORCH = (2, 6)
"""Before it, even torch.load(weights_only=True) could be made to run code (CVE-2025-32434)."""
_STAGE = re.compile(r"^layers\.(\d)\.")
"""NVIDIA's ResNet v1.5, and with it the original, counts its stages from 0: layers.0 is torchvision's layer1."""


def read_foreign(path: Path, *, trust_checkpoint: bool) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors in a foreign file, on the CPU and by torchvision's names, and what it holds beside them.

    Args:
        path: .safetensors, else what torch.save wrote.
        trust_checkpoint: read it even with a torch that can't do it safely.

    Raises:
        TrainingError: 64 it would not be safe, 65 it holds no such thing.
        OSError: it can't be read.
    """
    content = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path, trust_checkpoint)
    others: dict[str, Any] = {}
    while isinstance(content, Mapping) and (inner := [content[key] for key in WRAPPERS if key in content]):
        others |= {str(key): value for key, value in content.items() if key not in WRAPPERS}
        content = inner[0]
    if not isinstance(content, Mapping) or not content:
        raise bad(path, f"holds no state dict but {type(content).__name__}")
    tensors: dict[str, torch.Tensor] = {}
    for key, value in content.items():
        name = str(key)
        if not isinstance(value, torch.Tensor):
            raise bad(path, f"holds no state dict: {shown(name)} is {type(value).__name__}, not a tensor")
        while prefix := next((p for p in FOREIGN_PREFIXES if name.startswith(p)), ""):
            name = name.removeprefix(prefix)
        tensors[_STAGE.sub(lambda stage: f"layer{int(stage[1]) + 1}.", name, count=1)] = value.detach()
    return tensors, others


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise bad(path, f"is no safetensors file ({error})") from None


def _pickled(path: Path, trust_checkpoint: bool) -> Any:
    version = tuple(map(int, re.findall(r"\d+", torch.__version__)[:2]))
    if version < SAFE_TORCH and not trust_checkpoint:
        raise TrainingError(
            ExitCode.BAD_OPTION,
            f"{shown(path)}: torch {torch.__version__} may run code that a file like this brings (2.6 is the "
            "first that does not): use a newer torch or .safetensors, or give --trust_checkpoint True if you know who "
            "wrote it",
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
        raise bad(path, why) from None


def bad(path: Path, why: str) -> TrainingError:
    """65: what is at `path` can't be used, `why` being the rest of the sentence."""
    return TrainingError(ExitCode.BAD_DATA, f"{shown(path)} {why}")
