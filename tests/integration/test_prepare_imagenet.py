"""ImageNet's own files, small: kills, a full disk, and trainings from folders and from the tars."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.data.ilsvrc import prepare as module
from app.data.ilsvrc.prepare import MANIFEST, PREPARING, prepare
from app.data.open import open_images
from app.data.tarindex import INDEX
from app.resilience.exit_codes import ExitCode
from tests.ilsvrc_tars import Published, publish_digits, tree
from tests.unit.test_ilsvrc_prepare import quiet, run, source

ROOT = Path(__file__).parents[2]
# `python -m app.data`, which gets a Ctrl-C at the 300th file that it writes.
INTERRUPTED = """
import os, runpy, signal, sys
written = 0
def hook(event, args):
    global written
    if event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR):
        written += 1
        if written == 300:
            os.kill(os.getpid(), signal.SIGINT)
sys.addaudithook(hook)
runpy.run_module("app.data", run_name="__main__", alter_sys=True)
"""
WRITES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish_digits(tmp_path_factory.mktemp("ilsvrc"))


def command(published: Published, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "app.data", "prepare-imagenet", *published.args(), f"--out={out}", *more]


def ended(argv: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


def killed_at(step: int, out: Path, published: Published, *, index_only: bool = False) -> bool:
    """Runs it in a process that is killed at its n-th change of the file system; False: it had fewer."""
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
        return os.WIFSIGNALED(status)
    changes = 0

    def hook(event: str, args: tuple[object, ...]) -> None:
        nonlocal changes
        if event in WRITES or (event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)):
            changes += 1
            if changes == step:
                os.kill(os.getpid(), signal.SIGKILL)

    code = 1
    try:
        sys.addaudithook(hook)
        prepare(out, source(published), 1, quiet, index_only=index_only)
        code = 0
    finally:
        os._exit(code)


def test_wherever_it_is_killed_no_half_set_is_seen_and_the_next_run_completes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = publish_digits(tmp_path / "made", classes=2, train=2, val=1)
    # A killed process loses nothing that it wrote; only a machine that goes down does.
    monkeypatch.setattr(module, "sync", lambda folder: None)
    run(tmp_path / "straight", published)
    expected = tree(tmp_path / "straight")
    step = 1
    while killed_at(step, out := tmp_path / str(step), published):
        for part in ("train", "val"):
            if (out / part).exists():
                assert sum(name.startswith(part) for name in tree(out)) == {"train": 4, "val": 2}[part]
        run(out, published)
        assert tree(out) == expected
        assert not (out / PREPARING).exists()
        step += 1
    assert step > 30  # the kills did come in between
    out = tmp_path / "again and again"
    step = 3
    while killed_at(step, out, published):  # each run is killed a little later than the one before it
        step += 2
    assert tree(out) == expected


def test_wherever_an_index_is_killed_it_is_whole_or_not_there_and_the_next_run_leaves_nothing_else(
    tmp_path: Path,
) -> None:
    published = publish_digits(tmp_path / "made", classes=2, train=2, val=1)
    step, left = 1, 0
    while killed_at(step, out := tmp_path / str(step), published, index_only=True):
        if (out / INDEX).exists():
            assert len(open_images(str(out)).train) == published.train
        left += any(path.name.startswith(f".{INDEX}") for path in out.glob(".*"))
        prepare(out, source(published), 1, quiet, index_only=True)
        assert os.listdir(out) == [INDEX]
        step += 1
    assert step > 4
    assert left > 0


def images_below(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


def test_a_process_that_is_killed_again_and_again_completes_it(published: Published, tmp_path: Path) -> None:
    chance = random.Random(0)
    kills = 0
    for _ in range(6):
        before = images_below(tmp_path / PREPARING)
        process = subprocess.Popen(command(published, tmp_path, "--workers=2"), cwd=ROOT, stderr=subprocess.DEVNULL)
        wanted = before + chance.randrange(1, 300)
        while process.poll() is None and images_below(tmp_path / PREPARING) < wanted:
            time.sleep(0.001)
        process.kill()
        kills += process.wait() == -signal.SIGKILL
        if (tmp_path / MANIFEST).exists():
            break
    assert kills > 0
    done = ended(command(published, tmp_path))
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        rf"(wrote|found) {published.train} training and {published.val} validation images of 10 classes in .*\n",
        done.stdout,
    )
    straight = tmp_path / "straight"
    run(straight, published)
    assert tree(tmp_path) == tree(straight)
    assert len(tree(tmp_path)) == published.train + published.val
    assert not (tmp_path / PREPARING).exists()


def test_ctrl_c_is_one_line_and_the_same_command_goes_on(published: Published, tmp_path: Path) -> None:
    prepare_imagenet = command(published, tmp_path, "--workers=1")
    prepare_imagenet[1:3] = ["-c", INTERRUPTED]
    process = ended(prepare_imagenet)
    assert process.returncode == 130
    assert process.stderr.splitlines()[-1] == "dataset: interrupted"
    assert "Traceback" not in process.stderr
    done = ended(command(published, tmp_path))
    assert (done.returncode, len(tree(tmp_path))) == (0, published.train + published.val)


def test_a_full_disk_is_one_line_and_what_is_complete_stays(published: Published, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    script = """
        mount -t tmpfs -o size=2m none "$1"
        shift
        "$@"
        echo "exit code $?"
        find "$OUT/.preparing/val" "$OUT/.preparing/train" -mindepth 1 -type d | wc -l
        mount -o remount,size=40m "$OUT"
        "$@"
        echo "exit code $?"
        find "$OUT/train" "$OUT/val" -type f | wc -l
    """
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", out, *command(published, out)],
        cwd=ROOT, env={**os.environ, "OUT": str(out)}, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    first, classes, *_, second, files = done.stdout.splitlines()
    assert first == f"exit code {ExitCode.VOLUME_IO.value}", done.stderr
    assert 0 < int(classes) < 20
    (line,) = [line for line in done.stderr.splitlines() if " classes: " not in line]
    assert line.startswith(f"dataset: {out}")
    assert "cannot be written: No space left on device; make room and start again, what is complete stays" in line
    assert (second, int(files)) == ("exit code 0", published.train + published.val), done.stderr


def test_a_training_reads_the_same_from_the_tars_as_from_the_folders(published: Published, tmp_path: Path) -> None:
    losses = []
    for name, more in (("folders", []), ("index", ["--index-only"])):
        done = ended(command(published, tmp_path / name, *more))
        assert done.returncode == 0, done.stderr
        losses.append(losses_of(tmp_path / name, tmp_path))
    assert os.listdir(tmp_path / "index") == [INDEX]
    assert len(losses[0]) == 2
    assert losses[0] == losses[1]


def losses_of(dataset: Path, tmp_path: Path) -> list[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = {
        "model_name": "resnet18", "nproc_per_node": 1, "bs": 16, "lr": 0.016, "epoch": 1, "step": 2, "device": "cpu",
        "dataset": "imagenet", "dataset_path": dataset, "image_size": 24, "num_workers": 1, "log_interval": 1,
        "checkpoint_dir": tmp_path / "run", "master_port": port,
    }  # fmt: skip
    done = ended([sys.executable, "-m", "app.run_resnet", *(f"--{name}={value}" for name, value in flags.items())])
    assert done.returncode == 0, done.stderr
    return re.findall(r"^TCAPPDLL .* train\.loss : (\S+)", done.stdout, re.MULTILINE)
