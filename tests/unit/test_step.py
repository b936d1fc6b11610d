"""One optimizer step: accumulation, what is summed on the device, the discarded passes."""

import math

import pytest
import torch

from app.accelerators.cpu import Cpu
from app.config import TrainConfig
from app.data.loader import Batch
from app.step import Interval, Stepper


class Tiny(torch.nn.Module):
    """Six numbers a class: enough to see an update."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3)
        self.fc = torch.nn.Linear(3, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.norm(images).mean((2, 3)))


def stepper(network: torch.nn.Module, **changes) -> Stepper:
    options = {"model": "resnet18", "device": "cpu", "dataset": "digits", "batch_size": 4, "learning_rate": 0.1}
    return Stepper(TrainConfig(**{**options, **changes}), network, Cpu(), torch.device("cpu"), peers=False)


def batch(seed: int, size: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (size, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return Batch(images, torch.randint(0, 4, (size,), generator=generator), bad=1)


def network(seed: int = 0) -> Tiny:
    torch.manual_seed(seed)
    return Tiny()


def test_accumulated_batches_give_the_mean_of_their_gradients() -> None:
    ours, theirs = network(), network()
    accumulated = stepper(ours, accumulate=3)
    accumulated.warm_up(print)
    ours.load_state_dict(theirs.state_dict())
    waited, bad = accumulated.run(iter([batch(1), batch(2), batch(3)]))
    assert bad == 3
    assert waited >= 0

    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.875, weight_decay=2**-15)
    for seed in (1, 2, 3):
        given = batch(seed)
        logits = theirs(accumulated.prepare(given.images))
        (torch.nn.functional.cross_entropy(logits, given.labels, label_smoothing=0.1) / 3).backward()
    optimizer.step()
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, msg=name)


def test_warming_up_counts_nothing_and_leaves_no_gradient() -> None:
    made = stepper(network())
    made.warm_up(print)
    assert all(parameter.grad is None for parameter in made.network.parameters())
    assert made.optimizer.state_dict()["state"] == {}
    assert made.interval.read(Cpu())["nonfinite"] == 0


def test_pixels_are_normalised_as_torchvision_does() -> None:
    images = batch(5).images
    expected = (images.float() / 255 - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(1, 3, 1, 1)
    made = stepper(network()).prepare(images)
    torch.testing.assert_close(made, expected)
    assert made.is_contiguous(memory_format=torch.channels_last)


def test_the_interval_counts_non_finite_losses_and_those_in_a_row() -> None:
    interval, cpu = Interval(torch.device("cpu")), Cpu()
    for loss in (1.0, math.nan, 3.0, math.inf, math.nan):
        interval.count(torch.tensor(loss))
        interval.busy(10.0, 10.5)
    read = interval.read(cpu)
    assert (read["loss"], read["nonfinite"], interval.nonfinite_in_row) == (2.0, 3, 2)
    assert read["busy"] == pytest.approx(2.5)
    interval.count(torch.tensor(math.nan))
    read = interval.read(cpu)
    assert math.isnan(read["loss"])
    assert interval.nonfinite_in_row == 3, "a row of non-finite losses goes on over a log line"
    interval.count(torch.tensor(4.0))
    assert interval.read(cpu)["loss"] == 4.0
    assert interval.nonfinite_in_row == 0


def test_a_compiler_that_fails_is_named_and_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_):
        raise RuntimeError("no compiler here\nsecond line")

    monkeypatch.setattr(torch, "compile", lambda module: broken)
    said: list[str] = []
    made = stepper(network(), compile=True)
    made.warm_up(said.append)
    assert said == ["train: --compile True does not work here (no compiler here): training without it"]
    made.run(iter([batch(1)]))


def test_state_comes_back_as_it_was() -> None:
    first = stepper(network())
    first.warm_up(print)
    first.run(iter([batch(1)]))
    second = stepper(network())
    second.load_state(first.state())
    assert second.optimizer.state_dict()["state"].keys() == first.optimizer.state_dict()["state"].keys()
    for key, value in first.optimizer.state_dict()["state"].items():
        torch.testing.assert_close(second.optimizer.state_dict()["state"][key], value)


def test_busy_time_ends_with_the_last_gradient() -> None:
    class Marks(Cpu):
        def __init__(self) -> None:
            self.taken = 0.0

        def mark(self) -> float:
            self.taken += 1
            return self.taken

    marks = Marks()
    config = TrainConfig(model="resnet18", device="cpu", dataset="digits", batch_size=4, learning_rate=0.1)
    made = Stepper(config, network(), marks, torch.device("cpu"), peers=False)
    made.warm_up(print)
    made.run(iter([batch(1)]))
    assert made.interval.read(marks)["busy"] == 1.0, "from before the forward pass to the first layer's gradient"
