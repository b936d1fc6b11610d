"""What a machine can train on, in lines for a person. Pure: `app.doctor` gathers the facts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from app.accelerators import BACKENDS, DEVICE_TYPES, Device
from app.launcher.cpus import Cpus, ranks_at_full_speed, shown
from app.resilience.exit_codes import ExitCode
from app.version import installing

GOOD, BAD, ABSENT = "✓", "✗", "-"
OLDEST_TORCH = (2, 4)
NEEDED = ("torchvision", "numpy", "pillow", "safetensors", "prometheus-client")
FOR_EXPORT = ("onnx", "onnxruntime")
"""Packages whose absence costs the ONNX file at the end, not the training."""
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - where torch's loader workers put their batches
_EXTRA = installing("app")


@dataclass(frozen=True)
class Family:
    """One device type on this machine.

    Attributes:
        problem: why it can't train here, empty where it can.
        code: the exit code of a training that is given it.
        summary: as the log's first line has it.
        devices: all that are visible.
        backend: whether torch has the process-group backend of its gradients.
        precision: what `--autocast True` computes in, without a loss scale and with one.
    """

    problem: str = ""
    code: int = ExitCode.DONE
    summary: str = ""
    devices: tuple[Device, ...] = ()
    backend: bool = True
    precision: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class Facts:
    """A machine as this process sees it.

    Attributes:
        version: of this project.
        python: version and platform.
        torch: its version, empty where it can't be imported.
        torch_problem: why it can't.
        packages: version of each of NEEDED and FOR_EXPORT that is installed.
        families: device type -> what was found; empty without torch.
        cpus: the usable ones.
        online: CPUs of the machine.
        memory: bytes of the machine.
        memory_limit: bytes that the cgroup allows, infinite without a limit.
        shared_memory: bytes of /dev/shm.
        shared_memory_needed: bytes of it for the loader workers of one rank.
    """

    version: str
    python: str
    cpus: Cpus
    online: int
    memory: float
    memory_limit: float
    shared_memory: float
    shared_memory_needed: float = 0.0
    torch: str = ""
    torch_problem: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    families: Mapping[str, Family] = field(default_factory=dict)


@dataclass(frozen=True)
class Line:
    """One line: `code` is what a training would end with, 0 where it would not end."""

    mark: str
    text: str
    code: int = ExitCode.DONE

    def __str__(self) -> str:
        return f"{self.mark} {self.text}"


def report(facts: Facts, device: str = "") -> tuple[list[Line], int]:
    """The lines, the verdict last, and the exit code: 0, or that of the first line that stops a training.

    Args:
        facts: of this machine.
        device: to train on; empty: the best that is there.
    """
    chosen = device or next((name for name in DEVICE_TYPES if name in facts.families and _fine(facts, name)), "")
    lines = [Line(GOOD, f"resnet-operator {facts.version}, {facts.python}"), *_packages(facts)]
    for name in DEVICE_TYPES:
        if name in facts.families:
            lines += _family(name, facts.families[name], wanted=name == chosen)
    lines += [_cpus(facts), _memory(facts), _shared_memory(facts, chosen)]
    code = next((line.code for line in lines if line.code), ExitCode.DONE)
    if code:
        return [*lines, Line(BAD, f"can't train{f' with --device {chosen}' if chosen else ''} (exit {code})")], code
    return [*lines, Line(GOOD, f"can train with --device {chosen}")], code


def _fine(facts: Facts, name: str) -> bool:
    return not facts.families[name].problem


def _packages(facts: Facts) -> list[Line]:
    lines = []
    if not facts.torch:
        fix = f"use an image that brings it, or {_EXTRA}"
        lines.append(Line(BAD, f"torch can't be imported ({facts.torch_problem}): {fix}", ExitCode.FRAMEWORK_MISSING))
    elif _release(facts.torch) < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        lines.append(Line(BAD, f"torch {facts.torch}: {oldest} or newer is needed", ExitCode.FRAMEWORK_MISSING))
    else:
        lines.append(Line(GOOD, f"torch {facts.torch}"))
    there = [f"{name} {facts.packages[name]}" for name in (*NEEDED, *FOR_EXPORT) if name in facts.packages]
    if there:
        lines.append(Line(GOOD, ", ".join(there)))
    if missing := [name for name in NEEDED if name not in facts.packages]:
        lines.append(Line(BAD, f"not installed: {', '.join(missing)}: {_EXTRA}", ExitCode.FRAMEWORK_MISSING))
    if missing := [name for name in FOR_EXPORT if name not in facts.packages]:
        lines.append(Line(BAD, f"not installed: {', '.join(missing)}: no ONNX file can be written; {_EXTRA}"))
    return lines


def _release(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:2]))


def _family(name: str, found: Family, *, wanted: bool) -> list[Line]:
    if found.problem:
        text = found.problem.removeprefix(f"--device {name}: ")
        return [Line(BAD if wanted else ABSENT, f"{name}: {text}", found.code if wanted else ExitCode.DONE)]
    lines = [Line(GOOD, f"{name}: {found.summary}")]
    for index, device in enumerate(found.devices):
        lines.append(Line(GOOD, f"{name}:{index}: {device.name}, {_bytes(device.memory_bytes)}"))
    backend = BACKENDS[name]
    if found.backend:
        lines.append(Line(GOOD, f"{name}: backend {backend}"))
    else:
        text = f"{name}: this torch lacks the backend {backend}: use an image whose torch was built with it"
        lines.append(Line(BAD, text, ExitCode.FRAMEWORK_MISSING if wanted else ExitCode.DONE))
    plain, scaled = found.precision
    also = "" if plain == scaled else f", with --grad_scale True {scaled}"
    return [*lines, Line(GOOD, f"{name}: --autocast True computes in {plain}{also}")]


def _cpus(facts: Facts) -> Line:
    cpus = facts.cpus
    quota = "no quota" if math.isinf(cpus.quota) else f"a quota of {cpus.quota:g}"
    ranks = ranks_at_full_speed(cpus)
    own = "its own" if cpus.exclusive else "shared"
    return Line(
        GOOD,
        f"CPUs: {shown(cpus.all)} of {facts.online} ({own}), {len(cpus.nodes)} NUMA node(s), {quota}: "
        f"{ranks} rank(s) with --device cpu --nproc_per_node auto",
    )


def _memory(facts: Facts) -> Line:
    limit = "no limit" if math.isinf(facts.memory_limit) else f"a limit of {_bytes(facts.memory_limit)}"
    return Line(GOOD, f"memory: {_bytes(facts.memory)}, {limit}")


def _shared_memory(facts: Facts, chosen: str) -> Line:
    has = f"{SHARED_MEMORY}: {_bytes(facts.shared_memory)}"
    ranks = ranks_at_full_speed(facts.cpus)
    if chosen in facts.families and chosen != "cpu":
        ranks = max(1, len(facts.families[chosen].devices))
    needed = ranks * facts.shared_memory_needed
    if facts.shared_memory < needed:
        fix = "give --shm-size or spec.podTemplate.sharedMemory, or train with --num_workers 0"
        return Line(BAD, f"{has}: the loader workers of {ranks} rank(s) may need {_bytes(needed)}: {fix}")
    return Line(GOOD, has)


def _bytes(number: float) -> str:
    if number <= 0:
        return "memory unknown" if number == 0 else "none"
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"
