"""What goes into a checkpoint, copied out of the way of the training."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from app.resilience.tree import flatten

STATE_PREFIX = "state"
"""First part of the names of the state's tensors; the network's own have other names."""


@dataclass(frozen=True)
class Content:
    """What goes into a checkpoint: tensors that nobody else changes, and JSON values.

    Attributes:
        tensors: contiguous CPU tensors by name; those of the state have names that begin with "state/".
        state: the rest of the state, as `flatten` encodes it.
        channels_last: names of the tensors that were laid out so; `load` restores it.
    """

    tensors: dict[str, torch.Tensor]
    state: Any
    channels_last: list[str]

    def unsound(self) -> str:
        """Name of the first tensor that holds a number which is not finite, "" where there is none.

        What it holds is lost for good: weights don't come back from NaN, nor do the running statistics of BatchNorm.
        """
        return next((name for name, tensor in self.tensors.items() if not _is_finite(tensor)), "")


class Snapshots:
    """Copies of tensors in host memory, into buffers that are kept for the next copy."""

    def __init__(self) -> None:
        self._buffers: dict[str, torch.Tensor] = {}

    def take(self, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> Content:
        """Copies everything; returns when the copy is complete. The result is overwritten by the next call.

        Raises:
            TypeError: the state holds a value that can't be kept.
            ValueError: a tensor has a name that is kept for the state.
        """
        for name in tensors:
            if name.startswith(f"{STATE_PREFIX}/"):
                raise ValueError(f"a tensor can't have the name {name!r}: {STATE_PREFIX}/ is kept for the state")
        state_tensors, encoded = flatten(STATE_PREFIX, dict(state))
        everything = {**tensors, **state_tensors}
        buffers: dict[str, torch.Tensor] = {}
        devices: set[torch.device] = set()
        for name, tensor in everything.items():
            buffer = self._buffers.get(name)
            if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
                buffer = _host_buffer(tensor)
            # A tensor on the CPU must be copied too: the training goes on changing it.
            buffer.copy_(tensor.detach(), non_blocking=True)
            buffers[name] = buffer
            if tensor.device.type != "cpu":
                devices.add(tensor.device)
        for device in devices:
            getattr(torch, device.type).synchronize(device)
        self._buffers = buffers
        return Content(
            dict(buffers), encoded, [name for name, tensor in everything.items() if _is_channels_last(tensor)]
        )


def _host_buffer(tensor: torch.Tensor) -> torch.Tensor:
    """Contiguous host memory of a tensor's shape; page-locked where that makes the copy faster and is to be had."""
    if tensor.device.type != "cpu":
        with suppress(RuntimeError):
            return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return torch.empty(tensor.shape, dtype=tensor.dtype)


def _is_finite(tensor: torch.Tensor) -> bool:
    # NumPy stays in this one thread: torch's pool of threads would compete with the training's (measured: 6 times the
    # CPU time for 190 MB with 2 threads). It has no bfloat16.
    array = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    return not tensor.is_floating_point() or bool(np.isfinite(array.numpy()).all())


def _is_channels_last(tensor: torch.Tensor) -> bool:
    if tensor.dim() != 4:
        return False
    _, c, h, w = tensor.shape
    channels_last, contiguous = (h * w * c, 1, w * c, c), (c * h * w, h * w, w, 1)
    return tensor.stride() == channels_last and channels_last != contiguous
