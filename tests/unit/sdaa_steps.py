"""How often the host waits for a (stand-in) Teco card in three optimizer steps: JSON by case, for test_sdaa.py."""

import json
import os

from app.accelerators.find import find
from app.config import TrainConfig
from app.step import Stepper
from tests.unit.test_step import Tiny, batch

STEPS = 3
CASES = {
    "fused, scaled": ("scaled", {"grad_scale": True}),
    "fused, static scale": ("scaled", {"loss_scale": 128.0}),
    "fused, no scale": ("plain", {}),
    "fused without the scale's support": ("plain", {"grad_scale": True}),
    "no fused SGD": ("absent", {"grad_scale": True}),
    "no fused SGD, no scale": ("absent", {}),
    "adam": ("scaled", {"grad_scale": True, "optimizer": "adam"}),
    "rmsprop": ("scaled", {"grad_scale": True, "optimizer": "rmsprop"}),
    "lars": ("scaled", {"grad_scale": True, "mlperf_mode": True}),
    "lars, no scale": ("scaled", {"mlperf_mode": True}),
    "fp32": ("scaled", {"autocast": False, "grad_scale": True}),
}


def reads(variant, options):
    os.environ["FAKE_SDAA_FUSED_SGD"] = variant
    wanted = {"model": "resnet18", "device": "sdaa", "dataset": "digits", "batch_size": 4, "learning_rate": 0.1}
    config = TrainConfig(**{**wanted, "autocast": True, **options})
    stepper = Stepper(config, Tiny(), accelerator, accelerator.claim(0), peers=False)
    stepper.warm_up(print)
    before = STATE.seen["reads"]
    for seed in range(STEPS):
        stepper.run(iter([batch(seed)]))
    return STATE.seen["reads"] - before


accelerator = find("sdaa")
from torch_sdaa.state import STATE  # noqa: E402 - what the vendor's name stands for, once the product has loaded it

print(json.dumps({name: reads(*case) for name, case in CASES.items()}))
