"""Tensors that are on the device: kept in host memory, but nobody who asks them can tell.

A mode of torch sees every call of torch's Python interface. It notes on each tensor whether it is on the device, says
so when a tensor is asked, refuses calls that mix both places as a real device would, and counts where the host waits
for the device. Calls that torch makes in C++ (the autograd engine, DDP's reducer) see the host memory.
"""

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map_only

from torch_sdaa.state import STATE

TENSOR = torch.Tensor
_NAME = "_sdaa_index"
_READS = {"item", "tolist", "__bool__", "__int__", "__float__", "__index__", "nonzero"}
_MAY_MIX = {"to", "copy_", "__getitem__", "__setitem__", "_has_compatible_shallow_copy_type"}
_WITHOUT_KERNEL = {"_fused_sgd_", "_fused_adam_"}


def _index(tensor):
    """The number of the tensor's device, None for the host."""
    return getattr(tensor, _NAME, None)


def _mark(tensor, index):
    if index is None:
        tensor.__dict__.pop(_NAME, None)
    else:
        setattr(tensor, _NAME, index)
    return tensor


def _place(value):
    """(True, index or None) of what names a device, (False, None) of anything else."""
    if not isinstance(value, (str, torch.device)):
        return False, None
    try:
        device = torch.device(value)
    except RuntimeError:
        return False, None
    if device.type != "sdaa":
        return True, None
    return True, (STATE.current or 0) if device.index is None else device.index


class Placement(TorchFunctionMode):
    """See the module's text."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in _ATTRIBUTES:
            return _ATTRIBUTES[func](func, *args)
        name = func.__name__
        given = args[:1] if name == "__deepcopy__" else (args, kwargs)  # its memo holds what was copied before
        inputs = [leaf for leaf in tree_flatten(given)[0] if isinstance(leaf, TENSOR)]
        here = {_index(tensor) for tensor in inputs if tensor.dim() or _index(tensor) is not None}
        devices = here - {None}
        if devices:
            STATE.work()
            if len(here) > 1 and name not in _MAY_MIX:
                raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found sdaa and cpu")
            if name in _WITHOUT_KERNEL:
                raise NotImplementedError(f"Could not run 'aten::{name}' with arguments from the 'sdaa' backend")
            if torch.is_autocast_enabled("sdaa"):
                STATE.seen["autocast"] = str(torch.get_autocast_dtype("sdaa"))
        if name in ("to", "cpu"):
            return self._move(func, args, kwargs)
        if name in _READS and devices:
            STATE.read()
        if name == "copy_" and devices and _index(args[0]) is None and not kwargs.get("non_blocking"):
            STATE.read()
        if name == "backward":
            STATE.backward()
        asked, index = _place(kwargs.get("device"))
        if asked and index is not None:
            kwargs["device"] = torch.device("cpu")
        result = func(*args, **kwargs)
        if name in ("copy_", "__setitem__"):
            return result
        target = index if asked else next(iter(devices), None)
        return tree_map_only(TENSOR, lambda tensor: _mark(tensor, target), result) if asked or devices else result

    def _move(self, func, args, kwargs):
        """`Tensor.to` and `Tensor.cpu`: between the two places always a copy."""
        tensor, *rest = args
        source = _index(tensor)
        target = None if func.__name__ == "cpu" else source
        for value in (*rest, *kwargs.values()):
            asked, index = _place(value)
            if asked or isinstance(value, TENSOR):
                target = index if asked else _index(value)
        cpu = torch.device("cpu")
        rest = [cpu if _place(value)[0] else value for value in rest]
        kwargs = {key: cpu if _place(value)[0] else value for key, value in kwargs.items()}
        result = func(tensor, *rest, **kwargs)
        if source == target:
            return _mark(result, target)
        if target is None and not kwargs.get("non_blocking"):
            STATE.read()
        if result.data_ptr() == tensor.data_ptr():
            result = result.clone()
        return _mark(result, target)


def _device(func, tensor, *_):
    index = _index(tensor)
    return func(tensor) if index is None else torch.device("sdaa", index)


def _is_cpu(func, tensor, *_):
    return _index(tensor) is None and func(tensor)


def _gradient(func, tensor, *_):
    gradient = func(tensor)
    return gradient if gradient is None else _mark(gradient, _index(tensor))


def _set_data(func, tensor, value):
    func(tensor, value)
    _mark(tensor, _index(value))


_ATTRIBUTES = {
    TENSOR.device.__get__: _device,
    TENSOR.is_cpu.__get__: _is_cpu,
    TENSOR.grad.__get__: _gradient,
    TENSOR.data.__set__: _set_data,
}


def _make_subclass(cls, data, *options, _make=TENSOR._make_subclass):
    """How a Parameter is made of a tensor: in C++, past the mode."""
    return _mark(_make(cls, data, *options), _index(data))


TENSOR._make_subclass = staticmethod(_make_subclass)
