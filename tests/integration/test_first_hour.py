"""The way of a newcomer: the commands of the README, then those of other pages, typed in a clean clone.

The demo among them is the only run of examples/digits.yaml as it is: what it promises is checked here, too.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.data import digits
from app.telemetry.events import read_events
from tests.ilsvrc_tars import publish_digits
from tests.markdown import ROOT, commands, having
from tests.onnx_accuracy import onnx_top1

README = ROOT / "README.md"
DEMO_SECONDS = 900
# What of a test's own surroundings a newcomer's shell has not.
STRANGE = ("VIRTUAL_ENV", "PYTHONPATH", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")
ELSEWHERE = [pytest.param(page, id=page.name) for page in having("here") if page.parent != ROOT]
pytestmark = pytest.mark.timeout(1200)


@dataclass(frozen=True)
class Clone:
    """A clone after the README's commands: `said` is what they wrote, `seconds` what they took."""

    folder: Path
    said: str
    seconds: float

    def run(self, script: str, *, cwd: Path | None = None) -> str:
        """What a script writes that is typed in its environment."""
        path = f"{self.folder / '.venv' / 'bin'}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", script], cwd=cwd or self.folder, env=environment(self.folder) | {"PATH": path},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def environment(folder: Path) -> dict[str, str]:
    """A shell's, with an empty cache of this project; that of the package installer stays."""
    kept = {name: value for name, value in os.environ.items() if name not in STRANGE}
    return kept | {"RESNET_OPERATOR_CACHE": str(folder.parent / "cache"), "PYTHON": os.path.realpath(sys.executable)}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """The files that git would hand out, in a folder of their own, and the README typed there from top to bottom."""
    folder = tmp_path_factory.mktemp("first") / "clone"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_symlink() or (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    began = time.monotonic()
    done = subprocess.run(
        ["bash", "-c", commands(README, "here")], cwd=folder, env=environment(folder), timeout=DEMO_SECONDS,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    try:
        assert done.returncode == 0, done.stdout
        yield Clone(folder, done.stdout, time.monotonic() - began)
    finally:
        shutil.rmtree(folder)


def test_every_command_of_the_readme_passes_in_a_clean_clone(clone: Clone) -> None:
    print(f"from a clone to the end of the README: {clone.seconds / 60:.1f} min")
    for line in (
        "digits: Succeeded",
        "can train with --device",
        "valid: resnet50 on 1x16 sdaa, global batch 1024",
        "kind: PyTorchJob",
        "runs/digits/report.html",
        '"world_size": 16',
    ):
        assert line in clone.said, clone.said
    likeliest = re.findall(r"runs/images/val/7/\S+", clone.said)
    assert len(likeliest) == len(list((clone.folder / "runs/images/val/7").iterdir()))


def test_the_demo_reaches_its_accuracy_and_leaves_what_it_promises(clone: Clone, tmp_path: Path) -> None:
    run = clone.folder / "runs" / "digits"
    for name in ("model.onnx", "report.html", "metrics.prom", "events.jsonl", "experiment.json"):
        assert (run / name).stat().st_size > 0, name
    digits.write(tmp_path / "data")
    top1, judged = onnx_top1(run / "model.onnx", tmp_path / "data" / "val")
    assert judged == 360
    assert top1 >= 0.975, "one seed; the mean over five is in the README"
    events = read_events(run / "events.jsonl")
    validations = [event for event in events if event["kind"] == "validate"]
    assert [(each["epoch"], each["images"]) for each in validations] == [(epoch, 360) for epoch in range(1, 9)]
    assert validations[-1]["top1"] == pytest.approx(top1, abs=0.01)
    assert [event for event in events if event["kind"] == "export"][-1]["max_difference"] < 1e-3
    assert "resnet_validation_top1_ratio" in (run / "metrics.prom").read_text()
    assert re.search(r"global batch +64", clone.said)
    assert re.search(r"top-1 +\d\d\.\d\d %", clone.said)
    assert "\x1b" not in clone.said, "a pipe gets plain lines"
    page = (run / "report.html").read_text()
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page), "the report needs nothing from elsewhere"
    status = json.loads((run / "experiment.json").read_text())["status"]
    assert (status["phase"], status["attempt"], status["epoch"], status["epochs"]) == ("Succeeded", 1, 8, 8)
    assert status["devices"] == "2x2 cpu"

    again = clone.run("make demo").lower()
    assert "already" in again or "succeeded" in again
    assert json.loads((run / "experiment.json").read_text())["status"] == status


@pytest.mark.parametrize("page", ELSEWHERE)
def test_the_commands_of_a_page_pass_there(page: Path, clone: Clone) -> None:
    assert clone.run(commands(page, "here"))


def test_the_commands_that_prepare_imagenet_pass_on_tars_of_its_structure(clone: Clone, tmp_path: Path) -> None:
    published = publish_digits(tmp_path, classes=3, train=6, val=2)
    out = tmp_path / "out"
    counts = f"--classes {published.classes} --train-images {published.train} --val-images {published.val}"
    # The real tars have the counts that are looked for by default.
    typed = f"""
resnetctl() {{
    case "$2" in
        prepare-imagenet) command resnetctl "$@" {counts} ;;
        *) command resnetctl "$@" ;;
    esac
}}
{commands(ROOT / "docs" / "dataset.md", "dataset").replace("/datasets/", f"{out}/")}"""
    said = clone.run(typed, cwd=published.train_tar.parent)
    found = f"{out / 'imagenet'}: 3 classes, {published.train} training and {published.val} validation images"
    assert len(re.findall(rf"^{re.escape(found)} .*, none bad by", said, re.M)) == 2, said
    assert (out / "imagenet-index" / "imagenet.tarindex").is_file()


def test_make_without_a_target_lists_the_targets_and_builds_nothing(clone: Clone, tmp_path: Path) -> None:
    shutil.copy(clone.folder / "Makefile", tmp_path)
    said = clone.run("make", cwd=tmp_path)
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M)
    assert {"demo", "test", "docs"} <= set(targets)
    assert [line.split()[1] for line in said.splitlines()] == targets
    assert [path.name for path in tmp_path.iterdir()] == ["Makefile"]
