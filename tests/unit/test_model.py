"""The network's initial numbers."""

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
