"""`torch_sdaa.optim`: FusedSGD, in the variant that FAKE_SDAA_FUSED_SGD asks for."""

import os

import torch

from torch_sdaa.state import STATE


def __getattr__(name):
    if name == "FusedSGD" and _variant() != "absent":
        return _FusedSGD
    raise AttributeError(f"module 'torch_sdaa.optim' has no attribute {name!r}")


def _variant():
    return os.environ.get("FAKE_SDAA_FUSED_SGD", "scaled")


class _FusedSGD(torch.optim.Optimizer):
    """SGD with momentum, tensor by tensor; no step of it waits for the device."""

    def __init__(self, params, lr, momentum=0.0, weight_decay=0.0, nesterov=False):
        if nesterov:
            raise ValueError("nesterov is not part of this stand-in")
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        if _variant() == "scaled":
            self._step_supports_amp_scaling = True  # torch's GradScaler then leaves scale and overflow to the step

    @torch.no_grad()
    def step(self, closure=None):
        STATE.note(fused_steps=STATE.seen.get("fused_steps", 0) + 1)
        scale, overflow = (getattr(self, name, None) for name in ("grad_scale", "found_inf"))
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad if scale is None else parameter.grad / scale
                update = gradient.add(parameter, alpha=group["weight_decay"])
                buffer = self.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
                moved = buffer * group["momentum"] + update
                if overflow is None:
                    buffer.copy_(moved)
                    parameter.sub_(moved, alpha=group["lr"])
                else:
                    buffer.copy_(torch.where(overflow > 0, buffer, moved))
                    parameter.copy_(torch.where(overflow > 0, parameter, parameter - group["lr"] * moved))
