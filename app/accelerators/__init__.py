"""One file per device family behind one small interface; importing this package imports no framework."""

from typing import NamedTuple

BACKENDS = {"sdaa": "tccl", "cuda": "nccl", "cpu": "gloo"}
"""Device type -> the process-group backend that carries its gradients."""

DEVICE_TYPES = tuple(BACKENDS)

VISIBLE_DEVICES = {"sdaa": "SDAA_VISIBLE_DEVICES", "cuda": "CUDA_VISIBLE_DEVICES"}
"""Device type -> the environment variable that lists the devices a process may use; they are numbered from 0 in it."""


class Device(NamedTuple):
    """One device as a person knows it.

    Attributes:
        name: of its model.
        memory_bytes: all of its memory, used or not; 0 where nothing says it.
    """

    name: str
    memory_bytes: int
