"""One optimizer step: accumulation, what is summed on the device, the discarded passes."""

import pytest
import torch

from app.accelerators.cpu import Cpu
from app.config import TrainConfig
from app.data.loader import Batch
from app.step import Stepper


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
    return Batch(images, torch.randint(0, 4, (size,), generator=generator))


def network(seed: int = 0) -> Tiny:
    torch.manual_seed(seed)
    return Tiny()


def test_accumulated_batches_give_the_mean_of_their_gradients() -> None:
    ours, theirs = network(), network()
    accumulated = stepper(ours, accumulate=3)
    accumulated.warm_up(print)
    ours.load_state_dict(theirs.state_dict())
    assert accumulated.run(iter([batch(1), batch(2), batch(3)])) >= 0

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
    made.interval.read(Cpu())
    assert (made.interval.nonfinite_steps, made.interval.busy_seconds) == (0, 0)


def test_pixels_are_normalised_as_torchvision_does() -> None:
    images = batch(5).images
    expected = (images.float() / 255 - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(1, 3, 1, 1)
    made = stepper(network()).prepare(images)
    torch.testing.assert_close(made, expected)
    assert made.is_contiguous(memory_format=torch.channels_last)


def test_a_compiler_that_fails_is_named_and_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_):
        raise RuntimeError("no compiler here\nsecond line")

    monkeypatch.setattr(torch, "compile", lambda module, backend: broken)
    said: list[str] = []
    made = stepper(network(), compile=True)
    made.warm_up(said.append)
    assert said == ["train: --compile True does not work here (no compiler here): training without it"]
    made.run(iter([batch(1)]))


def test_a_compiler_that_this_torch_does_not_have_is_named_and_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cpu, "compiler", "teco_inductor")
    said: list[str] = []
    made = stepper(network(), compile=True)
    made.warm_up(said.append)
    assert "(Invalid backend: 'teco_inductor'" in said[0]
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
    made.interval.read(marks)
    assert made.interval.busy_seconds == 1.0, "from before the forward pass to the first layer's gradient"


def test_a_static_loss_scale_that_always_overflows_is_seen_in_the_row_of_skipped_steps() -> None:
    class Half(Cpu):
        low_precision = torch.float16

    config = TrainConfig(
        model="resnet18", device="cpu", dataset="digits", batch_size=4, learning_rate=0.1, autocast=True,
        loss_scale=2.0**24,
    )  # fmt: skip
    made = Stepper(config, network(), Half(), torch.device("cpu"), peers=False)
    made.warm_up(print)
    before = made.network.fc.weight.detach().clone()
    for seed in range(3):
        made.run(iter([batch(seed)]))
    made.interval.read(Half())
    assert torch.equal(made.network.fc.weight, before)
    assert (made.interval.skipped_in_row, made.interval.nonfinite_in_row, made.scale) == (3, 0, 2.0**24)


def test_a_step_that_changed_the_weights_was_not_skipped() -> None:
    made = stepper(network())
    made.warm_up(print)
    made.run(iter([batch(1)]))
    made.interval.read(Cpu())
    assert (made.interval.skipped_in_row, made.scale) == (0, 1.0)
