"""Device families: what they compute in, and what is said where one is not there."""

import pytest
import torch

from app.accelerators import BACKENDS
from app.accelerators.cpu import Cpu
from app.accelerators.cuda import Cuda
from app.accelerators.find import find
from app.accelerators.sdaa import Sdaa
from app.resilience.exit_codes import ExitCode, TrainingError


@pytest.mark.parametrize(("device", "named"), [("sdaa", "torch_sdaa"), ("cuda", "no cuda device")])
def test_a_framework_that_is_not_there_is_69_and_named(device: str, named: str) -> None:
    with pytest.raises(TrainingError, match=named) as caught:
        find(device)
    assert caught.value.code == ExitCode.FRAMEWORK_MISSING


def test_the_cpu_is_always_there_for_any_rank() -> None:
    cpu = find("cpu")
    assert cpu.claim(7) == torch.device("cpu")
    assert cpu.backend == "gloo"
    assert cpu.memory_bytes() > 10_000_000
    assert cpu.count() >= 1


def test_autocast_is_fp16_on_sdaa_and_never_fp16_on_the_cpu() -> None:
    assert Sdaa().autocast_type(autocast=True, scaled=False) == torch.float16
    assert Sdaa().autocast_type(autocast=True, scaled=True) == torch.float16
    assert Sdaa().autocast_type(autocast=False, scaled=True) is None
    assert Cpu().autocast_type(autocast=True, scaled=True) in (torch.bfloat16, None)


def test_cuda_computes_in_bf16_unless_a_loss_scale_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert Cuda().autocast_type(autocast=True, scaled=False) == torch.bfloat16
    assert Cuda().autocast_type(autocast=True, scaled=True) == torch.float16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert Cuda().autocast_type(autocast=True, scaled=False) == torch.float16


def test_a_device_that_was_promised_but_is_not_there_is_141(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cuda, "count", lambda self: 2)
    with pytest.raises(TrainingError, match=r"local rank 3 needs device cuda:3, but only 2 are visible") as caught:
        Cuda().claim(3)
    assert caught.value.code == ExitCode.DEVICE


def test_gradients_go_over_the_devices_backend_and_the_agreement_over_gloo() -> None:
    assert {name: accelerator.backend for name, accelerator in (("sdaa", Sdaa()), ("cuda", Cuda()))} == {
        "sdaa": "cpu:gloo,sdaa:tccl",
        "cuda": "cpu:gloo,cuda:nccl",
    }
    assert BACKENDS["cpu"] == "gloo"


def test_the_vendors_sgd_is_used_where_it_is_there() -> None:
    assert Sdaa().sgd() is torch.optim.SGD
