"""What the doctor makes of a machine."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from app.accelerators import Device
from app.diagnosis import FOR_EXPORT, NEEDED, Facts, Family, report
from app.launcher.cpus import Cpus

GIB = 2**30
CPU = Family(summary="x86_64, 4 thread(s) a rank", devices=(Device("EPYC", 64 * GIB),), precision=("bf16", "bf16"))
GPUS = Family(
    summary="2 x H200, CUDA 13.2, driver 580.1",
    devices=(Device("H200", 139 * GIB), Device("H200", 139 * GIB)),
    precision=("bf16", "fp16"),
)
NO_CARDS = Family(problem="--device sdaa: torch_sdaa can't be imported (x); use the vendor's base image", code=69)
NO_GPUS = Family(problem="--device cuda: torch sees no cuda device here: give this container its devices", code=141)
CORES = tuple(frozenset({cpu}) for cpu in range(8))
HEALTHY = Facts(
    version="1.2.3",
    python="Python 3.11.9 on Linux x86_64",
    torch="2.9.0+cu130",
    packages=dict.fromkeys((*NEEDED, *FOR_EXPORT), "1.0"),
    families={"sdaa": NO_CARDS, "cuda": GPUS, "cpu": CPU},
    cpus=Cpus(CORES, (frozenset(range(4)), frozenset(range(4, 8))), exclusive=False, quota=4.0),
    online=16,
    memory=64 * GIB,
    memory_limit=8 * GIB,
    shared_memory=GIB,
    shared_memory_needed=64 << 20,
)


def lines(facts: Facts, device: str = "") -> tuple[list[str], int]:
    found, code = report(facts, device)
    return [str(line) for line in found], code


def test_a_healthy_machine_is_one_fact_a_line_and_trains_on_the_best_it_has() -> None:
    packages = ", ".join(f"{name} 1.0" for name in (*NEEDED, *FOR_EXPORT))
    assert lines(HEALTHY) == (
        [
            "✓ resnet-operator 1.2.3, Python 3.11.9 on Linux x86_64",
            "✓ torch 2.9.0+cu130",
            f"✓ {packages}",
            "- sdaa: torch_sdaa can't be imported (x); use the vendor's base image",
            "✓ cuda: 2 x H200, CUDA 13.2, driver 580.1",
            "✓ cuda:0: H200, 139.0 GiB",
            "✓ cuda:1: H200, 139.0 GiB",
            "✓ cuda: backend nccl",
            "✓ cuda: --autocast True computes in bf16, with --grad_scale True fp16",
            "✓ cpu: x86_64, 4 thread(s) a rank",
            "✓ cpu:0: EPYC, 64.0 GiB",
            "✓ cpu: backend gloo",
            "✓ cpu: --autocast True computes in bf16",
            "✓ CPUs: 0-7 of 16 (shared), 2 NUMA node(s), a quota of 4: "
            "2 rank(s) with --device cpu --nproc_per_node auto",
            "✓ memory: 64.0 GiB, a limit of 8.0 GiB",
            "✓ /dev/shm: 1.0 GiB",
            "✓ can train with --device cuda",
        ],
        0,
    )


@pytest.mark.parametrize(
    ("facts", "device", "line", "code"),
    [
        (HEALTHY, "sdaa", "✗ sdaa: torch_sdaa can't be imported (x); use the vendor's base image", 69),
        (
            replace(HEALTHY, families={**HEALTHY.families, "cuda": NO_GPUS}),
            "cuda",
            "✗ cuda: torch sees no cuda device here: give this container its devices",
            141,
        ),
        (
            replace(HEALTHY, families={**HEALTHY.families, "cuda": replace(GPUS, backend=False)}),
            "cuda",
            "✗ cuda: this torch lacks the backend nccl: use an image whose torch was built with it",
            69,
        ),
        (
            replace(HEALTHY, torch="", families={}, torch_problem="No module named 'torch'"),
            "",
            "✗ torch can't be imported (No module named 'torch'): use an image that brings it, or pip install "
            "'.[app]' in a clone of resnet-operator",
            69,
        ),
        (replace(HEALTHY, torch="2.3.1"), "cuda", "✗ torch 2.3.1: 2.4 or newer is needed", 69),
        (
            replace(HEALTHY, packages={name: "1" for name in (*NEEDED, *FOR_EXPORT) if name != "pillow"}),
            "cpu",
            "✗ not installed: pillow: pip install '.[app]' in a clone of resnet-operator",
            69,
        ),
    ],
)
def test_what_stops_a_training_is_marked_with_what_would_be_right_and_its_code(
    facts: Facts, device: str, line: str, code: int
) -> None:
    said, end = lines(facts, device)
    assert line in said
    assert said[-1] == f"✗ can't train{f' with --device {device}' if device else ''} (exit {code})"
    assert [each for each in said[:-1] if each.startswith("✗")] == [line]
    assert end == code


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        (
            replace(HEALTHY, shared_memory=64 << 20),
            "✗ /dev/shm: 64 MiB: the loader workers of 2 rank(s) may need 128 MiB: give --shm-size or "
            "spec.podTemplate.sharedMemory, or train with --num_workers 0",
        ),
        (
            replace(HEALTHY, packages=dict.fromkeys(NEEDED, "1")),
            "✗ not installed: onnx, onnxruntime: no ONNX file can be written; pip install '.[app]' in a clone of "
            "resnet-operator",
        ),
    ],
)
def test_what_only_hurts_is_marked_but_the_device_can_train(facts: Facts, line: str) -> None:
    said, end = lines(facts)
    assert line in said
    assert (said[-1], end) == ("✓ can train with --device cuda", 0)


def test_the_next_best_device_is_chosen_where_the_best_is_not_there() -> None:
    said, end = lines(replace(HEALTHY, families={**HEALTHY.families, "cuda": NO_GPUS}))
    assert (said[-1], end) == ("✓ can train with --device cpu", 0)
    assert not [line for line in said if line.startswith("✗")]


def test_limits_that_do_not_exist_are_said_so() -> None:
    free = Cpus(CORES, (frozenset(range(8)),), exclusive=True)
    said, _ = lines(replace(HEALTHY, cpus=free, memory_limit=math.inf, online=16))
    assert (
        "✓ CPUs: 0-7 of 16 (its own), 1 NUMA node(s), no quota: 1 rank(s) with --device cpu --nproc_per_node auto"
        in said
    )
    assert "✓ memory: 64.0 GiB, no limit" in said
