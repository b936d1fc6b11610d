"""The network's initial numbers."""

import math

import pytest
import torch

from app import model


def test_weights_come_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = model.build("resnet18", 10, seed=7).state_dict()
    torch.manual_seed(2)
    drawn_before = torch.rand(1)
    torch.manual_seed(2)
    second = model.build("resnet18", 10, seed=7).state_dict()
    assert torch.equal(drawn_before, torch.rand(1)), "building must leave the caller's random state alone"
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["fc.weight"], model.build("resnet18", 10, seed=8).state_dict()["fc.weight"])


def test_batch_norm_begins_at_one_and_the_stride_is_in_the_3x3() -> None:
    network = model.build("resnet50", 1000, seed=0)
    assert all(torch.all(m.weight == 1) for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d))
    block = network.layer2[0]
    assert block.conv1.stride == (1, 1)
    assert block.conv2.stride == (2, 2)
    assert network.fc.out_features == 1000


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_convolutions_are_kaiming_of_the_fan_out_and_the_last_layer_is_torchs_default(name: str) -> None:
    network = model.build(name, 1000, seed=0)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            # Of n normal numbers the standard deviation is right to about 1 / sqrt(2 n); 5 times that is chance enough.
            error = 5 / math.sqrt(2 * module.weight.numel())
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=error)
            assert module.bias is None
        if isinstance(module, torch.nn.BatchNorm2d):
            assert torch.all(module.bias == 0)
    bound = 1 / math.sqrt(network.fc.in_features)
    for values in (network.fc.weight, network.fc.bias):
        assert values.abs().max() <= bound
        assert values.abs().max() > 0.95 * bound
