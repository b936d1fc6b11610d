"""Loss scaling as the recipe has it, in fp16 on the CPU."""

from __future__ import annotations

import pytest
import torch

from app.accelerators.cpu import Cpu
from app.config import TrainConfig
from app.step import Stepper
from tests.unit.test_ema import batch
from tests.unit.test_step import network


class HalfCpu(Cpu):
    """A device whose low precision is fp16, as that of sdaa."""

    low_precision = torch.float16

    def autocast_type(self, *, autocast: bool, scaled: bool) -> torch.dtype | None:
        del scaled
        return self.low_precision if autocast else None


def stepper(**changes: object) -> Stepper:
    options = {"model": "resnet18", "device": "cpu", "dataset": "digits", "batch_size": 4, "learning_rate": 0.1}
    config = TrainConfig(**{**options, "autocast": True, **changes})
    made = Stepper(config, network(), HalfCpu(), torch.device("cpu"), peers=False)
    made.warm_up(print)
    return made


def overflow(made: Stepper) -> None:
    """One step whose scaled gradients are not finite, though its loss is."""
    hook = made.network.fc.weight.register_hook(lambda gradient: gradient * float("inf"))
    made.run(iter([batch(0)]))
    hook.remove()


def test_the_dynamic_scale_begins_at_65536_halves_at_an_overflow_and_doubles_after_2000_steps() -> None:
    made = stepper(grad_scale=True)
    scaler = made.scaler
    assert (scaler.get_scale(), scaler.get_growth_factor(), scaler.get_backoff_factor()) == (65536.0, 2.0, 0.5)
    assert scaler.get_growth_interval() == 2000
    before = made.network.fc.weight.clone()
    overflow(made)
    assert torch.equal(made.network.fc.weight, before), "a step that overflowed is not taken"
    assert scaler.get_scale() == 32768.0
    made.run(iter([batch(1)]))
    assert not torch.equal(made.network.fc.weight, before)
    assert scaler.get_scale() == 32768.0


def test_a_static_scale_stays_and_its_overflows_are_left_out() -> None:
    made = stepper(loss_scale=1024.0)
    before = made.network.fc.weight.clone()
    overflow(made)
    assert torch.equal(made.network.fc.weight, before)
    assert made.scaler.get_scale() == 1024.0


@pytest.mark.parametrize("options", [{"autocast": True}, {"autocast": False, "grad_scale": True}])
def test_without_fp16_or_without_a_scale_asked_for_nothing_is_scaled(options: dict[str, bool]) -> None:
    made = stepper(**options)
    assert not made.scaler.is_enabled()
    made.run(iter([batch(1)]))


def test_a_scaled_step_is_the_unscaled_one() -> None:
    scaled, plain = stepper(grad_scale=True), stepper()
    for made in (scaled, plain):
        made.load_tensors({f"model.{name}": tensor for name, tensor in network().state_dict().items()})
        made.run(iter([batch(1)]))
    for name, value in plain.network.state_dict().items():
        torch.testing.assert_close(scaled.network.state_dict()[name], value, rtol=2e-3, atol=2e-4, msg=name)
