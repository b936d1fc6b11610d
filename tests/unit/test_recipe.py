"""Parameter groups by name, loss, optimizers."""

import pytest
import torch

from app import model, recipe
from app.config import TrainConfig


def names_of(network: torch.nn.Module, group: dict) -> set[str]:
    wanted = {id(p) for p in group["params"]}
    return {name for name, parameter in network.named_parameters() if id(parameter) in wanted}


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet101"])
def test_the_seed_filter_exempts_bn_names_but_decays_downsample_norms_and_the_bias(name: str) -> None:
    network = model.build(name, 10, seed=0)
    decayed, exempt = (names_of(network, group) for group in recipe.parameter_groups(network, "seed"))
    assert decayed | exempt == {n for n, _ in network.named_parameters()}
    assert exempt == {n for n in decayed | exempt if "bn" in n}
    assert {"fc.bias", "fc.weight", "conv1.weight", "layer2.0.downsample.1.weight"} <= decayed


def test_norm_bias_exempts_every_one_dimensional_parameter() -> None:
    network = model.build("resnet18", 10, seed=0)
    decayed, exempt = recipe.parameter_groups(network, "norm-bias")
    assert {p.ndim for p in exempt["params"]} == {1}
    assert min(p.ndim for p in decayed["params"]) == 2
    assert decayed["weight_decay"] == 2**-15
    assert exempt["weight_decay"] == 0


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


def test_lars_scales_a_layers_step_by_the_ratio_of_the_norms() -> None:
    layer = torch.nn.Linear(4, 3)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    optimizer = recipe.optimizer(config(mlperf_mode=True), layer, torch.optim.SGD)
    layer.weight.grad, layer.bias.grad = torch.full_like(weight, 0.3), torch.full_like(bias, 0.2)
    optimizer.step()
    decay = 2**-15
    trust = 0.001 * weight.norm() / (layer.weight.grad.norm() + decay * weight.norm())
    torch.testing.assert_close(layer.weight.detach(), weight - 0.5 * trust * (0.3 + decay * weight))
    torch.testing.assert_close(layer.bias.detach(), bias - 0.5 * 0.2)


@pytest.mark.parametrize(("word", "kind"), [("sgd", "SGD"), ("adam", "Adam"), ("rmsprop", "RMSprop")])
def test_each_word_gives_its_optimizer_and_both_groups(word: str, kind: str) -> None:
    network = model.build("resnet18", 10, seed=0)
    optimizer = recipe.optimizer(config(optimizer=word), network, torch.optim.SGD)
    assert type(optimizer).__name__ == kind
    assert [group["weight_decay"] for group in optimizer.param_groups] == [2**-15, 0.0]


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
