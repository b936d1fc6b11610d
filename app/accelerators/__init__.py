"""One file per device family behind one small interface; importing this package imports no framework."""

BACKENDS = {"sdaa": "tccl", "cuda": "nccl", "cpu": "gloo"}
"""Device type -> the process-group backend that carries its gradients."""

DEVICE_TYPES = tuple(BACKENDS)
