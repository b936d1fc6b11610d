"""The loader with real worker processes, and with a rank that dies."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from app.config import TrainConfig
from app.data import digits
from app.data.loader import Batch, Loader
from app.data.open import open_dataset
from app.resilience.exit_codes import ExitCode, TrainingError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digits")
    digits.write(path)
    return path


def loader(path: Path, workers: int = 2, **changes: object) -> Loader:
    values: dict[str, object] = {"dataset": "imagenet", "dataset_path": str(path), "image_size": 16, "batch_size": 64}
    config = TrainConfig(**{**values, "device": "cpu", "num_workers": workers, **changes})  # type: ignore[arg-type]
    return Loader(open_dataset(config), config, rank=0)


def same(one: list[Batch], other: list[Batch]) -> bool:
    return all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.filterwarnings("error:This DataLoader will create")
@pytest.mark.parametrize("workers", [1, 2 + (os.cpu_count() or 1)])
def test_batches_do_not_depend_on_the_number_of_workers(folder: Path, workers: int) -> None:
    with loader(folder, 0) as inline, loader(folder, workers) as parallel:
        assert same(list(inline.train_batches(1, 128)), list(parallel.train_batches(1, 128)))
        assert same(list(inline.validation_batches()), list(parallel.validation_batches()))
        first = next(parallel.train_batches(2)).images
    assert first.is_contiguous(memory_format=torch.channels_last)


def test_the_same_workers_serve_every_pass_and_a_pass_may_be_left(folder: Path) -> None:
    with loader(folder) as data:
        next(data.train_batches(0))
        workers = set(multiprocessing.active_children())
        assert len(workers) == 2
        left = data.train_batches(1)
        next(left)
        with loader(folder, 0) as inline:
            assert same(list(data.validation_batches()), list(inline.validation_batches()))
            assert same(list(data.train_batches(2)), list(inline.train_batches(2)))
        assert set(multiprocessing.active_children()) == workers
    assert not multiprocessing.active_children()


def test_workers_ignore_the_signals_that_are_meant_for_the_rank(folder: Path) -> None:
    with loader(folder) as data:
        passing = data.train_batches(0)
        next(passing)
        for worker in multiprocessing.active_children():
            for number in (signal.SIGTERM, signal.SIGINT):
                os.kill(worker.pid or 0, number)
        assert len(list(passing)) == 1437 // 64 - 1


def test_a_killed_worker_ends_the_run_with_one_clear_line_at_the_next_batch(folder: Path) -> None:
    before = signal.getsignal(signal.SIGCHLD)
    with loader(folder, 1) as data:
        passing = data.train_batches(0)
        next(passing)
        (worker,) = multiprocessing.active_children()
        os.kill(worker.pid or 0, signal.SIGKILL)
        worker.join()
        assert signal.getsignal(signal.SIGCHLD) == before
        with pytest.raises(TrainingError, match="a loader worker was killed by signal 9") as error:
            list(passing)
    assert error.value.code == ExitCode.UNCLASSIFIED


def test_close_does_not_wait_for_a_worker_that_is_stuck(folder: Path) -> None:
    data = loader(folder)
    next(data.train_batches(0))
    workers = multiprocessing.active_children()
    for worker in workers:
        os.kill(worker.pid or 0, signal.SIGSTOP)
    data.close()
    assert [worker.exitcode for worker in workers] == [-signal.SIGKILL] * 2


SCRIPT = """if True:
    import multiprocessing, os, sys, time
    from app.config import TrainConfig
    from app.data.loader import Loader
    from app.data.open import open_dataset
    from app.resilience.exit_codes import TrainingError

    config = TrainConfig(dataset="imagenet", dataset_path=sys.argv[1], image_size=16, batch_size=64, device="cpu")
    loader = Loader(open_dataset(config), config, rank=0)
    try:
        for batch in loader.validation_batches() if sys.argv[2] == "validate" else loader.train_batches(0):
            print(*(child.pid for child in multiprocessing.active_children()), flush=True)
            if sys.argv[2] == "leave":
                sys.exit(7)
            if sys.argv[2] == "wait":
                time.sleep(600)
    except TrainingError as error:
        print("error:", error.message, file=sys.stderr)
        sys.exit(error.code)
"""


def test_an_error_of_a_worker_arrives_whole_and_without_a_traceback(folder: Path, tmp_path: Path) -> None:
    for name in ("train", "val"):
        (tmp_path / name).symlink_to(folder / name)
    (tmp_path / "val").unlink()
    for source in (folder / "val").iterdir():
        (tmp_path / "val" / source.name).mkdir(parents=True)
        (tmp_path / "val" / source.name / "1.jpeg").write_bytes(next(source.iterdir()).read_bytes())
    (tmp_path / "val" / "3" / "2.jpeg").symlink_to("/proc/self/mem")  # answers EIO
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), "validate"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    line = f"error: {tmp_path}/val/3/2.jpeg: the volume failed while it was read: Input/output error\n"
    assert (run.returncode, run.stderr) == (ExitCode.VOLUME_IO, line)


def test_a_rank_that_leaves_in_the_middle_of_a_pass_ends_at_once_and_quietly(folder: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(folder), "leave"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (run.returncode, run.stderr) == (7, "")
    assert not [pid for pid in run.stdout.split() if alive(int(pid))]


def test_workers_die_with_a_rank_that_is_killed(folder: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(folder), "wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as rank:
        assert rank.stdout is not None
        workers = [int(pid) for pid in rank.stdout.readline().split()]
        assert len(workers) == 2
        rank.kill()
    wait_until_dead(workers)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_dead(pids: list[int]) -> None:
    deadline = time.monotonic() + 4  # the DataLoader's own check comes after 5 s
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.02)
