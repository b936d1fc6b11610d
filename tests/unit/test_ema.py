"""The moving average of the weights: its formula, and what is validated, kept and loaded again."""

from __future__ import annotations

import pytest
import torch

from app.accelerators.cpu import Cpu
from app.config import TrainConfig
from app.data.loader import Batch
from app.ema import Ema
from app.step import Stepper
from tests.unit.test_step import network

DECAY = 0.9


def stepper(decay: float = DECAY, **changes: object) -> Stepper:
    options = {"model": "resnet18", "device": "cpu", "dataset": "digits", "batch_size": 4, "learning_rate": 0.1}
    made = Stepper(
        TrainConfig(**{**options, "ema": decay, **changes}), network(), Cpu(), torch.device("cpu"), peers=False
    )
    made.warm_up(print)
    made.load_tensors({f"model.{name}": tensor for name, tensor in network().state_dict().items()})
    return made


def batch(seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return Batch(images, torch.randint(0, 4, (4,), generator=generator))


def copied(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_every_step_moves_the_average_by_the_formula_weights_and_statistics_alike() -> None:
    made = stepper()
    expected = copied(made.network)
    for step in range(12):
        made.run(iter([batch(step)]))
        decay = min(DECAY, (1 + step) / (10 + step))
        for name, value in made.network.state_dict().items():
            blend = decay * expected[name] + (1 - decay) * value
            expected[name] = blend if value.is_floating_point() else value.clone()
    assert made.ema is not None
    for name, value in made.ema.network.state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=name)
    assert not torch.equal(made.ema.network.fc.weight, made.network.fc.weight)


def test_training_is_the_same_with_an_average_and_without() -> None:
    averaged, plain = stepper(), stepper(0.0)
    for step in range(3):
        averaged.run(iter([batch(step)]))
        plain.run(iter([batch(step)]))
    for name, value in plain.network.state_dict().items():
        assert torch.equal(value, averaged.network.state_dict()[name]), name


def test_the_average_is_what_is_validated() -> None:
    averaged, plain = stepper(), stepper(0.0)
    for step in range(3):
        averaged.run(iter([batch(step)]))
        plain.run(iter([batch(step)]))
    images = batch(9).images
    for made in (averaged, plain):
        made.result.eval()
    assert averaged.ema is not None
    with torch.no_grad():
        assert torch.equal(averaged.predict(images), averaged.ema.network(averaged.prepare(images)))
        assert not torch.equal(averaged.predict(images), plain.predict(images))
        assert plain.result is plain.network


def test_a_loaded_average_goes_on_bitwise_as_if_it_had_never_stopped() -> None:
    straight = stepper()
    for step in range(6):
        straight.run(iter([batch(step)]))
    stopped = stepper()
    for step in range(3):
        stopped.run(iter([batch(step)]))
    resumed = stepper()
    resumed.load_tensors({name: tensor.clone() for name, tensor in stopped.tensors().items()})
    resumed.load_state(stopped.state())
    for step in range(3, 6):
        resumed.run(iter([batch(step)]))
    assert {name.split(".")[0] for name in straight.tensors()} == {"model", "ema"}
    for name, value in straight.tensors().items():
        assert torch.equal(value, resumed.tensors()[name]), name


def test_an_average_begins_anew_at_the_network_where_a_checkpoint_has_none() -> None:
    made, other = stepper(), network(seed=5)
    made.run(iter([batch(0)]))
    made.load_tensors({f"model.{name}": tensor for name, tensor in other.state_dict().items()})
    assert made.ema is not None
    assert made.ema.updates == 0
    for name, value in other.state_dict().items():
        assert torch.equal(made.ema.network.state_dict()[name], value), name


def test_a_checkpoints_average_is_left_out_by_a_run_without_one() -> None:
    made, plain = stepper(), stepper(0.0)
    made.run(iter([batch(0)]))
    plain.load_tensors(made.tensors())
    plain.load_state(made.state())
    assert plain.tensors().keys() == {f"model.{name}" for name in made.network.state_dict()}


def test_the_average_takes_no_gradient() -> None:
    average = Ema(network(), 0.99)
    assert not any(parameter.requires_grad for parameter in average.network.parameters())


@pytest.mark.parametrize("decay", [0.5, 0.999])
def test_an_average_of_what_never_changes_is_that(decay: float) -> None:
    constant = network()
    average = Ema(constant, decay)
    for _ in range(20):
        average.update()
    for name, value in average.network.state_dict().items():
        torch.testing.assert_close(value, constant.state_dict()[name], msg=name)
