"""The launcher's command as users type it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SEED = (
    "--bs 64 --device sdaa --dataset_path /datasets/imagenet/ --grad_scale True --autocast True --model_name resnet50"
)
ROWS = {
    "1 card": ("--nproc_per_node 4 --lr 0.256 --epoch 50", (4, 1, 4, 256, 0.256, 2, 50)),
    "4 cards": ("--nproc_per_node 16 --lr 1.024 --epoch 50", (16, 1, 16, 1024, 1.024, 8, 50)),
    "8 cards": ("--nproc_per_node 32 --lr 2.048 --epoch 90", (32, 1, 32, 2048, 2.048, 16, 90)),
    "2 nodes": (
        "--nnode 2 --node_rank 1 --master_addr 10.0.0.1 --master_port 29500 --nproc_per_node 16 --lr 2.048 --epoch 50",
        (32, 2, 16, 2048, 2.048, 16, 50),
    ),
}
MODULE = (["-m", "app.run_resnet"], ROOT)
SCRIPT = (["run_resnet.py"], ROOT / "app")


def run(how: tuple[list[str], Path], arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command, folder = how
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RESNET_", "PET_", "MASTER_"))}
    clean.pop("PYTHONPATH", None)
    return subprocess.run(
        [sys.executable, *command, *arguments.split()],
        cwd=folder, env=clean | environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("how", [MODULE, SCRIPT], ids=["module", "script"])
@pytest.mark.parametrize("row", ROWS)
def test_plan_of_the_published_rows(how: tuple[list[str], Path], row: str) -> None:
    flags, expected = ROWS[row]
    done = run(how, f"{SEED} {flags} --print_plan True")
    assert (done.returncode, done.stderr) == (0, "")
    plan = json.loads(done.stdout)
    names = ("world_size", "nnodes", "nproc_per_node", "global_batch", "learning_rate", "warmup_epochs", "epochs")
    assert tuple(plan[name] for name in names) == expected
    assert plan["backend"] == "tccl"


def test_plan_takes_the_place_in_the_gang_from_the_environment() -> None:
    done = run(MODULE, f"{SEED} --lr 1 --print_plan True", PET_NNODES="3", PET_NODE_RANK="2")
    assert json.loads(done.stdout)["nnodes"] == 3


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (f"{SEED} --lr fast", "--lr: must be a number, not 'fast'"),
        (f"{SEED} --lr 1 --epoc 3", "command line: unknown argument '--epoc', did you mean --epoch?"),
        (f"{SEED} --lr 1 --nnode 2 --node_rank 2", "--node_rank: is 2, but with --nnode 2 it is 0 to 1"),
    ],
)
@pytest.mark.parametrize("how", [MODULE, SCRIPT], ids=["module", "script"])
def test_bad_option_is_one_line(how: tuple[list[str], Path], arguments: str, line: str) -> None:
    done = run(how, arguments)
    assert (done.returncode, done.stdout, done.stderr) == (64, "", f"run_resnet: {line}\n")


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("RESNET_ATTEMPT", "two", "a whole number"),
        ("RESNET_PARENT_PID", "x", "a whole number"),
        ("RESNET_GANG_SILENCE_SECONDS", "-1", "a number of seconds above 0"),
    ],
)
def test_bad_environment_is_one_line(name: str, value: str, what: str) -> None:
    done = run(MODULE, f"{SEED} --lr 1", **{name: value})
    assert (done.returncode, done.stderr) == (64, f"run_resnet: {name}: must be {what}, not {value!r}\n")


def test_help_lists_the_flags() -> None:
    done = run(SCRIPT, "--help")
    assert done.returncode == 0
    assert "--watchdog_seconds" in done.stdout


def test_launcher_never_imports_torch() -> None:
    code = (
        "import sys; from app.run_resnet import main; import app.launcher.command;"
        f"main({[*SEED.split(), '--lr', '1', '--print_plan', 'True']!r});"
        "sys.exit(', '.join(sorted(set(sys.modules) & {'torch', 'numpy', 'PIL', 'torchvision'})) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_missing_extra_is_one_line_and_69(tmp_path: Path) -> None:
    (tmp_path / "prometheus_client.py").write_text("raise ImportError('no prometheus_client here')\n")
    done = run(MODULE, f"{SEED} --lr 1", PYTHONPATH=str(tmp_path))
    assert done.returncode == 69
    assert done.stderr == "run_resnet: no prometheus_client here: this image lacks what extra 'app' installs\n"


def test_rank_finds_the_package_from_any_folder(tmp_path: Path) -> None:
    """Started as a script from a folder that holds another `app`: the rank is ours and speaks of the data set."""
    (tmp_path / "app.py").write_text("raise SystemExit('another app')\n")
    flags = f"{SEED} --lr 1 --device cpu --dataset_path {tmp_path}/none --checkpoint_dir {tmp_path}/checkpoints"
    done = run(([str(ROOT / "app" / "run_resnet.py")], tmp_path), flags)
    assert done.returncode == 66, done.stderr
    assert f"run_resnet: DataMissing (exit 66): --dataset_path: {tmp_path}/none" in done.stderr
