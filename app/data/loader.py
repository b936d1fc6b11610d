"""Batches for one rank, read ahead by worker processes.

The workers are forked where that exists, all of them once, when the loader is made. A fork is safe if its child never
needs a lock that another thread held at that moment: so a rank makes its loader before it joins the process group and
trains, while no other thread of it is busy, and the workers touch neither device nor process group. They also inherit
no socket of the rank then, by which its peers would take a dead one for alive. A forkserver has to import torch and
torchvision once more for every rank: its first batch came after 3.6 s, that of forked workers after 0.05 s (measured
with 2 workers on an idle machine of 2 cores; 4 ranks there would wait for each other).
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Sampler

from app.config import TrainConfig
from app.data.bad_files import BadFiles
from app.data.batches import Failure, Found, Key, Reader
from app.data.datasets import DATASETS
from app.data.sampler import Gang, permutation, validation_indices
from app.data.samples import Dataset
from app.resilience.exit_codes import ExitCode, TrainingError
from app.resilience.parent import die_with_parent

READ_AHEAD_BYTES = 32 << 20
"""Finished batches that one worker may hold in /dev/shm, which counts against a pod's memory."""
POLITE_SECONDS = 2.0
"""How long `close` lets the workers finish what they are at."""


class Batch(NamedTuple):
    """What the training gets.

    Attributes:
        images: uint8, shape (N, 3, size, size), channels_last in memory; pinned as the loader was told to.
        labels: int64, shape (N,).
    """

    images: torch.Tensor
    labels: torch.Tensor


class _Plan(Sampler[Key]):
    """The keys of the pass that comes next; the DataLoader, and with it the workers, live over all passes."""

    def __init__(self) -> None:
        self.keys: Iterator[Key] = iter(())

    def __iter__(self) -> Iterator[Key]:
        return self.keys


class Loader:
    """The images of one rank: `train_batches` and `validation_batches`, one pass at a time (a new one ends the old).

    The worker processes start here and serve every pass. Make it after the device is claimed (pinned memory is the
    device's) and before the process group is joined. Use it as a context manager, or call `close`.

    Args:
        dataset: from `open_dataset`.
        config: batch size, world size, workers, seed and device.
        rank: the global rank.
        pinning: what the DataLoader is told so that it pins its batches (`Accelerator.pinning`).

    Attributes:
        bad_files: the training files that hold no image, for which others of their class stand in.

    Raises:
        TrainingError: 64, the training set is smaller than the global batch.
    """

    def __init__(
        self, dataset: Dataset, config: TrainConfig, *, rank: int, pinning: Mapping[str, Any] | None = None
    ) -> None:
        self._dataset = dataset
        self._config = config
        self._rank = rank
        self._gang = Gang(config.batch_size, config.world_size, config.accumulate)
        self._gang.require_a_step(len(dataset.train))
        self.bad_files = BadFiles(len(dataset.train), config.max_bad_images)
        self._passes = 0
        self._plan = _Plan()
        self._workers: Sequence[multiprocessing.process.BaseProcess] = ()
        self._passing: Iterator[Found | Failure] = iter(())
        self._loader: DataLoader[Found | Failure] | None = None
        self._start(pinning or {})

    def steps(self, consumed: int = 0) -> int:
        """Optimizer steps of an epoch after its first `consumed` images, `--step` respected."""
        steps = self._gang.steps(len(self._dataset.train), consumed)
        if self._config.steps_per_epoch > 0:
            steps = min(steps, max(0, self._config.steps_per_epoch - consumed // self._gang.global_batch))
        return steps

    def train_batches(self, epoch: int, consumed: int = 0) -> Iterator[Batch]:
        """This rank's batches of an epoch (from 0), `accumulate` of them for every step, `steps(consumed)` steps.

        Args:
            epoch: decides the order and the augmentation, with the seed.
            consumed: images of the epoch that the gang (of whatever size it was) has trained on already.

        Raises:
            TrainingError: 65 a class without any good image, 66 or 144 a file can't be read, 145 a worker died.
        """
        return self._pass(self._train_keys(epoch, consumed))

    def validation_batches(self) -> Iterator[Batch]:
        """This rank's share of the validation images: over all ranks each exactly once, the last batch smaller.

        Raises:
            TrainingError: 65 a file is no image, 66 or 144 it can't be read, 145 a worker died.
        """
        mine = validation_indices(len(self._dataset.val), self._rank, self._config.world_size)
        size = self._config.batch_size
        return self._pass(Key(mine[i : i + size]) for i in range(0, len(mine), size))

    def _train_keys(self, epoch: int, consumed: int) -> Iterator[Key]:
        order = permutation(self._config.seed, epoch, len(self._dataset.train))
        for step in range(self.steps(consumed)):
            for micro in range(self._gang.accumulate):
                positions = self._gang.positions(consumed, step, micro, self._rank)
                yield Key(order[positions.start : positions.stop], epoch, positions.start)

    def _pass(self, keys: Iterator[Key]) -> Iterator[Batch]:
        with self._naming_the_dead():
            assert self._loader is not None, "the loader is closed"
            self._plan.keys = keys
            self._passing = iter(self._loader)  # the same workers; what they still had of another pass is dropped
        self._passes += 1
        mine = self._passes
        while self._passes == mine:
            with self._naming_the_dead():
                found = next(self._passing, None)
            if found is None:
                return
            if isinstance(found, Failure):
                raise TrainingError(found.code, found.message)
            self._note_bad(found)
            # The workers fill rows of RGB pixels: seen as N x 3 x S x S that is channels_last.
            yield Batch(found.images.permute(0, 3, 1, 2), found.labels)

    @contextmanager
    def _naming_the_dead(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            dead = [worker.exitcode for worker in self._workers if worker.exitcode]
            if not dead:
                raise
            how = f"was killed by signal {-dead[0]}" if dead[0] < 0 else f"ended with exit code {dead[0]}"
            message = f"a loader worker {how}; most often the memory or /dev/shm is too small for --num_workers"
            raise TrainingError(ExitCode.UNCLASSIFIED, message) from error

    def _note_bad(self, found: Found) -> None:
        for index, name, why in found.bad:
            if self.bad_files.met(index):
                sys.stderr.write(f"bad image {name} ({why}): another one of its class takes its place\n")
                sys.stderr.flush()

    def _start(self, pinning: Mapping[str, Any]) -> None:
        config, workers = self._config, self._config.num_workers
        options = dict(pinning)
        if workers:
            side = max(config.size, config.evaluation_size)
            read_ahead = READ_AHEAD_BYTES // (config.batch_size * side**2 * 3)
            options |= {
                "persistent_workers": True,
                "prefetch_factor": max(2, min(8, read_ahead)),
                "multiprocessing_context": "fork" if sys.platform == "linux" else None,
                "worker_init_fn": partial(_start_worker, os.getpid()),
            }
        before = set(multiprocessing.active_children())
        child_handler = signal.getsignal(signal.SIGCHLD)
        with warnings.catch_warnings():
            # How many workers there are is the user's choice, and each rank would say so again.
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            self._loader = DataLoader(
                Reader(self._dataset, DATASETS[config.dataset], config.size, config.evaluation_size, config.seed),
                sampler=self._plan,
                batch_size=None,
                num_workers=workers,
                collate_fn=_as_it_is,
                generator=torch.Generator(),  # else it draws from the one that the training's randomness comes from
                **options,
            )
            self._passing = iter(self._loader)  # a pass without batches, to start the workers
        self._workers = [child for child in multiprocessing.active_children() if child not in before]
        if threading.current_thread() is threading.main_thread():
            # The DataLoader's own handler raises a worker's death anywhere in the rank, even in the middle of a
            # checkpoint; without it the next batch does.
            signal.signal(signal.SIGCHLD, child_handler or signal.SIG_DFL)
        if workers:
            atexit.register(self.close)

    def close(self) -> None:
        """Ends the workers: politely, and after 2 s with SIGKILL (they ignore SIGTERM)."""
        atexit.unregister(self.close)
        killer = threading.Timer(POLITE_SECONDS, _kill, [self._workers])
        killer.start()
        try:
            # The last references to it: the DataLoader's iterator ends its workers.
            self._passing, self._loader = iter(()), None
        finally:
            killer.cancel()
            _kill(self._workers)
            self._workers = ()

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _as_it_is(found: Any) -> Any:
    return found


def _kill(workers: Sequence[multiprocessing.process.BaseProcess]) -> None:
    for worker in workers:
        worker.kill()


def _start_worker(rank_pid: int, worker: int) -> None:  # noqa: ARG001  DataLoader passes the worker's number
    # Only the rank is stopped by signals, and it still wants the batches of its last steps. But no worker may outlive
    # it: the DataLoader's own check comes only every 5 s, and only to a worker that has nothing to do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with_parent(signal.SIGKILL, rank_pid)
