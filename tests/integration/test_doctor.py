"""`resnetctl doctor` on this machine, on one with Teco cards, and on one without torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
CARDS = ROOT / "tests" / "fakes"


def doctor(*words: str, path: Path | None = None, **environ: str) -> tuple[int, list[str], str]:
    command = [sys.executable, "-m", "controller.cli", "doctor", *words]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, filter(None, (ROOT, path)))), **environ}
    done = subprocess.run(command, check=False, cwd=ROOT, env=environ, capture_output=True, text=True)
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_this_machine_can_train_on_its_cpu() -> None:
    code, lines, errors = doctor("--device", "cpu")
    assert (code, errors) == (0, "")
    assert f"✓ torch {torch.__version__}" in lines
    assert "✓ cpu: backend gloo" in lines
    assert lines[-1] == "✓ can train with --device cpu"
    assert not [line for line in lines if line.startswith("✗")]


def test_cards_are_listed_with_their_memory_and_the_driver_and_chosen_before_the_cpu(tmp_path: Path) -> None:
    smi = tmp_path / "teco-smi"
    smi.write_text(
        "#!/bin/sh\necho '|  TECO-SMI: 1.15.0        SDAADriver: 3.2.0        SDAARuntime: 3.2.0        |'\n"
    )
    smi.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    code, lines, errors = doctor(path=CARDS, FAKE_SDAA_DEVICES="2", PATH=path)
    assert (code, "Traceback" in errors) == (0, False)
    assert "✓ sdaa: 2 x SPA, torch_sdaa 2.0.0, driver 3.2.0" in lines
    assert "✓ sdaa:1: SPA, 14.9 GiB" in lines
    assert "✓ sdaa: backend tccl" in lines
    assert "✓ sdaa: --autocast True computes in fp16" in lines
    assert lines[-1] == "✓ can train with --device sdaa"


@pytest.mark.parametrize(
    ("environ", "code", "line"),
    [
        ({"FAKE_SDAA_DEVICES": "0"}, 141, "here (SDAA error: no device was found (SDAA_ERROR_NO_DEVICE)): give this"),
        ({"FAKE_SDAA_FAULT": "lost"}, 141, "✗ sdaa: its first device fails: SDAA error: device sdaa:0 is lost"),
        ({"FAKE_SDAA_FAULT": "driver"}, 69, "; use an image whose framework fits this node's driver"),
        ({"FAKE_SDAA_FAULT": "import"}, 69, "✗ sdaa: torch_sdaa can't be imported (SDAA driver version is insuff"),
    ],
)
def test_cards_that_can_not_be_used_are_told_with_the_reason(environ: dict[str, str], code: int, line: str) -> None:
    end, lines, errors = doctor("--device", "sdaa", path=CARDS, **environ)
    assert (end, "Traceback" in errors) == (code, False)
    assert [each for each in lines if each.startswith("✗ sdaa: ") and line in each]
    assert lines[-1] == f"✗ can't train with --device sdaa (exit {code})"


def test_without_torch_it_says_so_and_everything_else(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')\n")
    code, lines, errors = doctor(path=tmp_path)
    assert (code, errors) == (69, "")
    assert [line for line in lines if line.startswith("✗ torch can't be imported (no torch here): use an image")]
    assert [line for line in lines if line.startswith("✓ memory: ")]


def test_a_wrong_command_line_is_one_line() -> None:
    assert doctor("--device", "tpu") == (
        64,
        [],
        "doctor: --device: 'tpu' is not one of sdaa, cuda, cpu (did you mean 'cpu'?)\n",
    )
    code, lines, errors = doctor("now")
    assert (code, lines, errors.count("\n")) == (64, [], 1)
