"""Nested state (of an optimizer, a scaler, random number generators) as flat tensors plus plain JSON, and back.

A dict whose keys are all text becomes a JSON object. What JSON can't say is an object with one key that starts with
"$": tensors, arrays, tuples, dicts with other keys, non-finite floats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch


def flatten(prefix: str, tree: Any) -> tuple[dict[str, torch.Tensor], Any]:
    """Takes a tree apart.

    Args:
        prefix: what the names of its tensors begin with; "/" separates the levels ("state/optimizer/state/0/step").
        tree: dicts (keys: text, integers, floats, booleans, None), lists and tuples of tensors, numpy arrays and
            scalars, numbers, text, booleans and None, nested at will.

    Returns:
        The tensors by name (not copied), and the rest: values that JSON can hold.

    Raises:
        TypeError: names the place of a value of another type.
    """
    tensors: dict[str, torch.Tensor] = {}
    return tensors, _encode(prefix, tree, tensors)


def unflatten(encoded: Any, tensor: Callable[[str], torch.Tensor]) -> Any:
    """The tree that `flatten` took apart; `tensor` gives a tensor by its name (its KeyError passes)."""
    if isinstance(encoded, list):
        return [unflatten(item, tensor) for item in encoded]
    if not isinstance(encoded, dict):
        return encoded
    if len(encoded) == 1:
        ((tag, value),) = encoded.items()
        if tag == "$tensor":
            return tensor(value)
        if tag == "$tuple":
            return tuple(unflatten(item, tensor) for item in value)
        if tag == "$dict":
            return {key: unflatten(item, tensor) for key, item in value}
        if tag == "$float":
            return float(value)
        if tag == "$array":
            dtype, shape, items = value
            return np.array(items, dtype=dtype).reshape(shape)
    return {key: unflatten(item, tensor) for key, item in encoded.items()}


def _encode(path: str, value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": repr(float(value))}
    if isinstance(value, torch.Tensor):
        if path in tensors:
            raise TypeError(f"{path}: two tensors have this name")
        tensors[path] = value.detach()
        return {"$tensor": path}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        items = [_encode(path, item, tensors) for item in value.ravel().tolist()]
        if any(isinstance(item, dict) for item in items):
            raise TypeError(f"{path}: an array with non-finite numbers can't be kept, give a tensor")
        return {"$array": [value.dtype.str, list(value.shape), items]}
    if isinstance(value, tuple):
        return {"$tuple": [_encode(f"{path}/{i}", item, tensors) for i, item in enumerate(value)]}
    if isinstance(value, list):
        return [_encode(f"{path}/{i}", item, tensors) for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        return _encode_dict(path, value, tensors)
    raise TypeError(f"{path}: a value of type {type(value).__name__} can't be kept in a checkpoint")


def _encode_dict(path: str, value: Mapping[Any, Any], tensors: dict[str, torch.Tensor]) -> Any:
    if all(isinstance(key, str) and not key.startswith("$") for key in value):
        return {key: _encode(f"{path}/{key}", item, tensors) for key, item in value.items()}
    for key in value:
        if not (key is None or isinstance(key, (str, int)) or (isinstance(key, float) and math.isfinite(key))):
            raise TypeError(f"{path}: a key of type {type(key).__name__} can't be kept in a checkpoint")
    return {"$dict": [[key, _encode(f"{path}/{key}", item, tensors)] for key, item in value.items()]}
