"""A training that goes wrong without crashing: it diverges, a rank is slow, images are bad, the volume is full."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import kill
from pathlib import Path

from app.resilience import checkpoint
from app.resilience.exit_codes import ExitCode
from app.resilience.keeper import FAILURES_LIMIT
from tests.integration.training_process import command, free_port, newest, ranks_of, run, start, wait_for


def sound(path: Path) -> bool:
    tensors, _ = checkpoint.load(path)
    return all(tensor.isfinite().all() for tensor in tensors.values())


def small(images: Path, directory: Path, **flags: object) -> list[str]:
    return command(images, directory, **{"epoch": 8, "warm_up": 0, "export": False, "autocast": False, **flags})


def kept_by(line: str) -> Path:
    found = re.search(r"the checkpoint before it is kept: (\S+); .*a lower --lr than 1000", line)
    assert found, line
    return Path(found[1])


def test_a_training_that_diverges_ends_with_76_and_goes_on_from_a_checkpoint_that_is_sound(
    images: Path, tmp_path: Path
) -> None:
    good = run(small(images, tmp_path / "good", epoch=1))
    assert good.returncode == 0, good.stderr
    before = newest(tmp_path / "good")

    lost = run(small(images, tmp_path / "lost", lr=1000, resume=before, log_interval=4))
    assert lost.returncode == ExitCode.DIVERGED, lost.stdout + lost.stderr
    (line,) = [line for line in lost.stderr.splitlines() if "diverged: " in line]
    found = re.search(r"not finite in (\d+) steps in a row, (\d+) to (\d+) \(looked at every 4, --log_interval\)", line)
    assert found, line
    row, first, last = map(int, found.groups())
    assert (last - first + 1, last % 4, row >= 10) == (row, 0, True)
    assert kept_by(line) == before
    assert list((tmp_path / "lost").glob("1/step-*")) == []

    # With a checkpoint due at almost every step, one is due between the step that spoils the weights and the end.
    spoilt = run(small(images, tmp_path / "spoilt", lr=1000, resume=before, checkpoint_minutes=0.01))
    assert spoilt.returncode == ExitCode.DIVERGED, spoilt.stdout + spoilt.stderr
    (line,) = [line for line in spoilt.stderr.splitlines() if "diverged: " in line]
    kept = kept_by(line)
    assert kept == max([before, *(tmp_path / "spoilt").glob("1/step-*")], key=checkpoint.step_of)
    assert sound(kept)
    assert not [word for word in lost.stderr + spoilt.stderr if word == "Traceback"]

    on = run(small(images, tmp_path / "on", lr=0.01, resume=before, epoch=2))
    assert on.returncode == 0, on.stdout + on.stderr
    assert f"resuming from {before}" in on.stdout
    assert sound(newest(tmp_path / "on"))


def steps_in(log: Path) -> int:
    return len(re.findall(r"^epoch .* step ", log.read_text(), re.M))


@contextmanager
def slowed(pid: int, log: Path, step_seconds: float) -> Iterator[None]:
    """Stops a rank in the midst of each step's computing, for several times as long as a step takes.

    Now and then the stop falls into the rank's waiting for the others, which is not its own slowness: the stops that
    do not must be long enough to show on a busy machine.
    """
    over = threading.Event()

    def hold() -> None:
        seen = steps_in(log)
        while not over.wait(step_seconds / 50):
            if steps_in(log) > seen:
                time.sleep(0.3 * step_seconds)
                kill(pid, signal.SIGSTOP)
                time.sleep(max(1.0, 5 * step_seconds))
                kill(pid, signal.SIGCONT)
                seen = steps_in(log)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=10) as answer:
        return str(answer.read().decode())


def slowdown(port: int, rank: int) -> float:
    found = re.search(rf'^resnet_training_rank_slowdown_ratio{{.*rank="{rank}".*}} (\S+)$', get(port, "metrics"), re.M)
    assert found
    return float(found[1])


def test_a_rank_that_computes_slower_is_named_in_log_metrics_and_progress_until_it_is_no_more(
    images: Path, tmp_path: Path
) -> None:
    port, log = free_port(), tmp_path / "log"
    argv = small(images, tmp_path / "run", nproc_per_node=2, bs=16, epoch=200, metrics_port=port)
    process = start(argv, log, OMP_NUM_THREADS="1", RESNET_POD="a-pod")
    rank1 = "train: rank 1 (local rank 1, pod a-pod) is a straggler"
    try:
        wait_for(lambda: steps_in(log) >= 2, process, log)
        began, before = time.monotonic(), steps_in(log)
        wait_for(lambda: steps_in(log) >= before + 10, process, log)
        step_seconds = (time.monotonic() - began) / 10
        with slowed(ranks_of(process)[1], log, step_seconds):
            wait_for(lambda: f"{rank1}: it computes " in log.read_text(), process, log)
            assert slowdown(port, 1) > 1.1 > slowdown(port, 0)
            progress = json.loads(get(port, "progress"))
            assert progress["straggler_rank"] == 1
            assert progress["straggler_ratio"] > 1.1
        # The other one is held now: left alone, two ranks of a busy machine need not become equally fast.
        with slowed(ranks_of(process)[0], log, step_seconds):
            wait_for(lambda: f"{rank1} no more" in log.read_text(), process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == ExitCode.STOPPED, log.read_text()


def metric(port: int, name: str) -> float:
    found = re.search(rf"^{name}{{.*}} (\S+)$", get(port, "metrics"), re.M)
    return float(found[1]) if found else 0


def a_few(images: Path, target: Path) -> list[Path]:
    """A data set of 20 training and 4 validation images a class; four of the training files are no images."""
    for part, number in (("train", 20), ("val", 4)):
        for label in sorted((images / part).iterdir()):
            (target / part / label.name).mkdir(parents=True)
            for path in sorted(label.iterdir())[:number]:
                shutil.copy(path, target / part / label.name)
    bad = [sorted((target / "train" / label).iterdir())[3] for label in "1357"]
    for path in bad:
        path.write_bytes(b"<html>")
    return bad


def test_bad_images_are_counted_once_over_the_gang_and_its_epochs_and_over_a_resume(
    images: Path, tmp_path: Path
) -> None:
    bad, port, log = a_few(images, tmp_path / "data"), free_port(), tmp_path / "log"
    bad_images = "resnet_training_bad_images_total"
    # 2 % of 200 are 4. In every epoch nearly all of them are met, by whichever rank.
    flags = {"dataset": "imagenet", "epoch": 500, "bs": 16}
    argv = small(tmp_path / "data", tmp_path / "run", **flags, max_bad_images=0.02, metrics_port=port)
    process = start(argv, log)
    wait_for(lambda: "epoch 5/" in log.read_text() and metric(port, bad_images) == 4, process, log)
    wait_for(lambda: "epoch 8/" in log.read_text(), process, log)
    assert metric(port, bad_images) == 4
    named = sorted(re.findall(r"^bad image (\S+) ", log.read_text(), re.M))
    assert named == sorted(map(str, bad))
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == ExitCode.STOPPED, log.read_text()

    _, state = checkpoint.load(newest(tmp_path / "run"))
    process = start(argv, log)
    wait_for(lambda: re.search(r"epoch \d+/500 step", log.read_text()), process, log)
    assert metric(port, bad_images) == 4
    assert metric(port, "resnet_training_data_wait_seconds_total") > state["data_wait_seconds"] > 0
    assert metric(port, "resnet_training_images_total") > state["images"] > 0
    wait_for(lambda: len(re.findall("validated", log.read_text())) >= 3, process, log)
    assert metric(port, bad_images) == 4
    assert "bad image" not in log.read_text()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == ExitCode.STOPPED, log.read_text()

    few = run(small(tmp_path / "data", tmp_path / "few", **flags, max_bad_images=0.01))
    assert few.returncode == ExitCode.BAD_DATA, few.stdout + few.stderr
    (line,) = [line for line in few.stderr.splitlines() if "--max_bad_images" in line]
    found = re.search(r"--max_bad_images 0.01: ([34]) of 200 training images .* at most 2 may: (.*); replace", line)
    assert found, line
    assert set(found[2].split(", ")) <= set(map(str, bad))
    assert len(found[2].split(", ")) == int(found[1])


@contextmanager
def tmpfs(path: Path, size: str) -> Iterator[Path]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def fill(volume: Path) -> Path:
    """A file that leaves no room."""
    ballast = volume / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(1 << 20)):
            pass
    return ballast


def test_a_full_volume_costs_checkpoints_until_there_are_too_many_in_a_row(images: Path, tmp_path: Path) -> None:
    port, log, failures = free_port(), tmp_path / "log", "resnet_checkpoint_failures_total"
    with tmpfs(tmp_path / "volume", "400m") as volume:
        argv = small(
            images, volume / "run", nproc_per_node=1, epoch=200, checkpoint_minutes=0.01, keep=1, metrics_port=port
        )
        process = start(argv, log)
        first = volume / "run/1"
        wait_for(lambda: any(first.glob("step-*")), process, log)
        ballast = fill(volume)
        good = newest(volume / "run")
        wait_for(lambda: metric(port, failures) >= 2, process, log)
        assert "training goes on: the checkpoint of step" in log.read_text()
        assert newest(volume / "run") == good
        ballast.unlink()
        wait_for(lambda: checkpoint.step_of(newest(volume / "run")) > checkpoint.step_of(good), process, log)
        assert sound(newest(volume / "run"))
        had = metric(port, failures)
        assert 2 <= had < FAILURES_LIMIT

        fill(volume)
        assert process.wait(120) == ExitCode.VOLUME_IO, log.read_text()
        told = re.search(r"(\d+) checkpoints in a row were not written, the newest there is: (.+?); ", log.read_text())
        assert told
        # Another one may have failed before somebody looks.
        assert int(told[1]) >= FAILURES_LIMIT
        assert told[2] == str(newest(volume / "run"))
        assert sound(newest(volume / "run"))
        steps = [int(step) for step in re.findall(r"^epoch .* step (\d+)/", log.read_text(), re.M)]
        assert steps[-1] >= checkpoint.step_of(newest(volume / "run")) + FAILURES_LIMIT, "the training went on"
