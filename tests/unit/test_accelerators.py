"""Device families: what they compute in, and what is said where one is not there."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from app.accelerators import BACKENDS, DEVICE_TYPES, VISIBLE_DEVICES
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


def test_what_the_last_bits_depend_on_names_torch_threads_and_instructions() -> None:
    before, threads = find("cpu").numerics(), torch.get_num_threads()
    assert before.startswith(f"torch {torch.__version__}, ")
    assert before.endswith(torch.backends.cpu.get_cpu_capability())
    torch.set_num_threads(threads + 1)
    after = find("cpu").numerics()
    torch.set_num_threads(threads)
    assert after != before == find("cpu").numerics()


def test_autocast_is_fp16_on_sdaa_and_never_fp16_on_the_cpu() -> None:
    assert Sdaa().autocast_type(autocast=True, scaled=False) == torch.float16
    assert Sdaa().autocast_type(autocast=True, scaled=True) == torch.float16
    assert Sdaa().autocast_type(autocast=False, scaled=True) is None
    assert Cpu().autocast_type(autocast=True, scaled=True) in (torch.bfloat16, None)


def test_cuda_computes_in_bf16_unless_a_loss_scale_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert Cuda().autocast_type(autocast=True, scaled=False) == torch.bfloat16
    assert Cuda().autocast_type(autocast=True, scaled=True) == torch.float16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
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


def raising(error: Exception):
    def call(*_: object) -> None:
        raise error

    return call


@pytest.mark.parametrize(
    ("said", "built_with", "code"),
    [
        (RuntimeError("Found no NVIDIA driver on your system. Please check …"), "12.1", ExitCode.FRAMEWORK_MISSING),
        (RuntimeError("The NVIDIA driver on your system is too old (found 11040)"), "12.1", ExitCode.FRAMEWORK_MISSING),
        (AssertionError("Torch not compiled with CUDA enabled"), None, ExitCode.FRAMEWORK_MISSING),
        (RuntimeError("No CUDA GPUs are available"), "12.1", ExitCode.DEVICE),
    ],
)
def test_why_there_is_no_device_decides_whether_another_try_helps(
    said: Exception, built_with: str | None, code: ExitCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = SimpleNamespace(is_available=lambda: False, current_device=raising(said))
    monkeypatch.setattr(torch, "cuda", module)
    monkeypatch.setattr(torch.version, "cuda", built_with)
    with pytest.raises(TrainingError) as caught:
        Cuda().load()
    assert caught.value.code == code
    assert f"no cuda device here ({said})" in caught.value.message


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("CUDA error: all CUDA-capable devices are busy or unavailable\nCUDA kernel errors might …", ExitCode.DEVICE),
        ("CUDA driver version is insufficient for CUDA runtime version", ExitCode.FRAMEWORK_MISSING),
    ],
)
def test_a_device_that_can_not_be_taken_is_named(said: str, code: ExitCode, monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(device_count=lambda: 4, set_device=raising(RuntimeError(said)))
    monkeypatch.setattr(torch, "cuda", module)
    with pytest.raises(TrainingError, match="device cuda:2 can't be used: CUDA ") as caught:
        Cuda().claim(2)
    assert caught.value.code == code
    assert "\n" not in caught.value.message


def test_the_device_is_set_by_its_number_among_the_visible_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch, "cuda", SimpleNamespace(device_count=lambda: 4, set_device=taken.append))
    assert Cuda().claim(2) == torch.device("cuda", 2)
    assert taken == [2]


def test_batches_are_pinned_where_there_is_a_device_to_pin_them_for() -> None:
    assert Cpu().pinning() == {}
    pinned = {"pin_memory": True, "pin_memory_device": "cuda"}
    assert Cuda().pinning() == (pinned if torch.cuda.is_available() else {})


def test_marks_on_a_device_are_read_in_milliseconds() -> None:
    start = SimpleNamespace(elapsed_time=lambda end: 1500.0)
    assert Cuda().seconds_between(start, None) == 1.5


def test_a_devices_error_is_told_from_the_programs_and_from_a_full_memory() -> None:
    assert Cuda().failed(RuntimeError("CUDA error: uncorrectable ECC error encountered"))
    assert not Cuda().failed(RuntimeError("CUDA error: device-side assert triggered")), "a label that is no class"
    assert Sdaa().failed(RuntimeError("SDAA_ERROR_ECC_UNCORRECTABLE"))


def test_every_family_has_its_backend_and_all_but_the_cpu_a_list_of_visible_devices() -> None:
    assert set(DEVICE_TYPES) == set(BACKENDS) == set(VISIBLE_DEVICES) | {"cpu"}
    files = {path.stem for path in (Path(__file__).parents[2] / "app/accelerators").glob("*.py")}
    assert set(DEVICE_TYPES) <= files


def test_only_a_loss_scale_that_the_optimizer_does_not_know_makes_the_host_wait_for_the_card() -> None:
    root = Path(__file__).parents[2]
    told = os.environ | {"PYTHONPATH": f"{root}/tests/fakes:{root}"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.sdaa_steps"], check=True, env=told, cwd=root, capture_output=True, text=True
    )
    waits = {name for name, reads in json.loads(done.stdout).items() if reads}
    assert waits == {"fused without the scale's support", "no fused SGD", "adam", "rmsprop", "lars"}
    assert {reads for name, reads in json.loads(done.stdout).items() if name in waits} == {3}, "once a step"
