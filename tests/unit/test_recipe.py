"""Parameter groups by name, loss, optimizers."""

import pytest
import torch

from app import model, recipe
from app.config import TrainConfig


def names_of(network: torch.nn.Module, group: dict) -> set[str]:
    wanted = {id(p) for p in group["params"]}
    return {name for name, parameter in network.named_parameters() if id(parameter) in wanted}


SHAPES = {
    # blocks of each stage, convolutions of a block, whether the first stage begins with a projection
    "resnet18": ((2, 2, 2, 2), 2, False),
    "resnet50": ((3, 4, 6, 3), 3, True),
    "resnet101": ((3, 4, 23, 3), 3, True),
}


def spelled_out(name: str) -> dict[str, list[str]]:
    """Every parameter of a network by what it is, written from the architecture and not read from the network."""
    stages, convolutions, projected = SHAPES[name]
    found: dict[str, list[str]] = {"weights": ["conv1.weight", "fc.weight"], "bn": [], "downsample norms": []}
    found["bn"] += ["bn1.weight", "bn1.bias"]
    for stage, blocks in enumerate(stages, start=1):
        for block in range(blocks):
            at = f"layer{stage}.{block}"
            for number in range(1, convolutions + 1):
                found["weights"].append(f"{at}.conv{number}.weight")
                found["bn"] += [f"{at}.bn{number}.weight", f"{at}.bn{number}.bias"]
        if stage > 1 or projected:
            found["weights"].append(f"layer{stage}.0.downsample.0.weight")
            found["downsample norms"] += [f"layer{stage}.0.downsample.1.{each}" for each in ("weight", "bias")]
    return found


@pytest.mark.parametrize("name", SHAPES)
def test_both_groups_hold_the_parameters_that_the_original_puts_there(name: str) -> None:
    network, kinds = model.build(name, 10, seed=0), spelled_out(name)
    groups = recipe.parameter_groups(network, "seed")
    decayed, exempt = (names_of(network, group) for group in groups)
    assert exempt == set(kinds["bn"])
    assert decayed == {*kinds["weights"], *kinds["downsample norms"], "fc.bias"}
    decayed, exempt = (names_of(network, group) for group in recipe.parameter_groups(network, "norm-bias"))
    assert exempt == {*kinds["bn"], *kinds["downsample norms"], "fc.bias"}
    assert decayed == set(kinds["weights"])
    assert [group["weight_decay"] for group in groups] == [2**-15, 0.0]
    total = len(decayed) + len(exempt)
    assert total == {"resnet18": 62, "resnet50": 161, "resnet101": 314}[name] == sum(len(g["params"]) for g in groups)


def test_sgd_takes_the_steps_of_the_formula() -> None:
    layer = torch.nn.Linear(3, 2)
    expected = [p.detach().clone() for p in layer.parameters()]
    buffers = [torch.zeros_like(p) for p in expected]
    optimizer = recipe.optimizer(config(), layer, torch.optim.SGD)
    for step in range(3):
        gradients = [torch.full_like(p, 0.1 * (step + 1)) for p in expected]
        for parameter, gradient in zip(layer.parameters(), gradients, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
        for value, buffer, gradient in zip(expected, buffers, gradients, strict=True):
            buffer.mul_(0.875).add_(gradient + 2**-15 * value)
            value.sub_(0.5 * buffer)
    for parameter, value in zip(layer.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value)


def test_lars_takes_the_steps_of_the_originals_formula() -> None:
    layer = torch.nn.Linear(4, 3)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    optimizer = recipe.optimizer(config(mlperf_mode=True), layer, torch.optim.SGD)
    weight_momentum, bias_momentum = torch.zeros_like(weight), torch.zeros_like(bias)
    for step, rate in enumerate((0.5, 0.4, 0.3), start=1):
        gradient, bias_gradient = torch.full_like(weight, 0.3 * step), torch.full_like(bias, 0.2 / step)
        layer.weight.grad, layer.bias.grad = gradient.clone(), bias_gradient.clone()
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        trust = 0.001 * weight.norm() / (gradient.norm() + 5e-5 * weight.norm())
        weight_momentum = 0.9 * weight_momentum + gradient + 5e-5 * weight
        bias_momentum = 0.9 * bias_momentum + bias_gradient
        weight, bias = weight - rate * trust * weight_momentum, bias - rate * bias_momentum
        torch.testing.assert_close(layer.weight.detach(), weight)
        torch.testing.assert_close(layer.bias.detach(), bias)


def test_lars_leaves_a_layer_of_zeros_to_plain_sgd() -> None:
    layer = torch.nn.Linear(2, 2, bias=False)
    torch.nn.init.zeros_(layer.weight)
    layer.weight.grad = torch.ones(2, 2)
    recipe.optimizer(config(mlperf_mode=True), layer, torch.optim.SGD).step()
    torch.testing.assert_close(layer.weight.detach(), torch.full((2, 2), -0.5))


def test_lars_exempts_norms_and_biases_whatever_the_decay_filter() -> None:
    network = model.build("resnet18", 10, seed=0)
    decayed, exempt = recipe.optimizer(config(mlperf_mode=True), network, torch.optim.SGD).param_groups
    assert (decayed["weight_decay"], exempt["weight_decay"], decayed["momentum"]) == (5e-5, 0.0, 0.9)
    assert min(p.ndim for p in decayed["params"]) == 2
    assert {p.ndim for p in exempt["params"]} == {1}


def test_the_rate_changes_once_an_epoch_and_with_mlperf_mode_at_every_step() -> None:
    plain, mlperf = config(epochs=4, warmup_epochs=1), config(epochs=4, warmup_epochs=1, mlperf_mode=True)
    assert {recipe.learning_rate(plain, 1, iteration, 5) for iteration in range(5)} == {0.5}
    rates = [recipe.learning_rate(mlperf, epoch, iteration, 5) for epoch in range(4) for iteration in range(5)]
    assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert rates[5:] == pytest.approx([1e-4 + (0.5 - 1e-4) * (1 - done / 16) ** 2 for done in range(1, 16)])


@pytest.mark.parametrize(
    ("word", "kind", "settings"),
    [
        ("sgd", "SGD", {"momentum": 0.875, "nesterov": False, "dampening": 0}),
        ("adam", "Adam", {"betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": False}),
        ("rmsprop", "RMSprop", {"momentum": 0.875, "alpha": 0.9, "eps": 1e-3, "centered": False}),
    ],
)
def test_each_word_gives_its_optimizer_with_the_originals_settings(word: str, kind: str, settings: dict) -> None:
    network = model.build("resnet18", 10, seed=0)
    optimizer = recipe.optimizer(config(optimizer=word), network, torch.optim.SGD)
    assert type(optimizer).__name__ == kind
    assert [group["weight_decay"] for group in optimizer.param_groups] == [2**-15, 0.0]
    for group in optimizer.param_groups:
        assert {name: group[name] for name in settings} == settings


def test_a_vendors_sgd_is_taken_as_it_is() -> None:
    class Vendor(torch.optim.SGD):
        def __init__(self, params, lr, momentum):
            super().__init__(params, lr=lr, momentum=momentum)

    Vendor.__module__ = "torch_vendor.optim"
    optimizer = recipe.optimizer(config(), torch.nn.Linear(2, 2), Vendor)
    assert type(optimizer) is Vendor


def test_labels_are_smoothed_by_a_tenth() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    log = torch.log_softmax(logits, 1)[0]
    expected = -(0.9 * log[0] + 0.1 * log.mean())
    torch.testing.assert_close(recipe.training_loss()(logits, torch.tensor([0])), expected)


def config(**changes) -> TrainConfig:
    return TrainConfig(
        **{"model": "resnet18", "device": "cpu", "dataset": "digits", "batch_size": 4, "learning_rate": 0.5, **changes}
    )
