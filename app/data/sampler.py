"""Which image goes where: PURE arithmetic over (seed, epoch, consumed, world size).

An epoch is the first floor(N / G) * G positions of a permutation of the N training images, G being the global batch
(batch per device x world size x accumulated batches). Position p of a step goes to rank (p div B) mod K, B = batch
per device, K = world size; the micro-batches of a step are its consecutive slices of K * B positions. So what an
epoch shows, and in which order, depends neither on the number of workers nor on where the run was stopped, and a gang
of another size goes on behind the images that are already consumed.

All randomness is raw Philox output, keyed by (seed, epoch) and counted by position: NumPy keeps it the same on every
platform and in every version, which it does not promise for `Generator.permutation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from app.resilience.exit_codes import ExitCode, TrainingError


class Purpose(IntEnum):
    """What random numbers are drawn for: streams of different purposes have nothing in common."""

    ORDER = 0
    AUGMENT = 1
    REPLACE = 2
    SYNTHETIC = 3


def words(seed: int, epoch: int, purpose: Purpose, position: int, count: int) -> NDArray[np.uint64]:
    """`count` random 64-bit words that belong to this position of this epoch."""
    # Philox counts up its lowest word, so positions (third word) never run into each other.
    key = [seed, epoch * 16 + purpose]
    return np.asarray(np.random.Philox(counter=[0, 0, position, 0], key=key).random_raw(count), dtype=np.uint64)


def uniforms(seed: int, epoch: int, purpose: Purpose, position: int, count: int) -> list[float]:
    """`count` numbers from [0, 1) that belong to this position of this epoch, with 53 random bits each."""
    numbers: list[float] = ((words(seed, epoch, purpose, position, count) >> np.uint64(11)) * 2.0**-53).tolist()
    return numbers


def permutation(seed: int, epoch: int, images: int) -> NDArray[np.int64]:
    """The order of the training images in an epoch (from 0): position -> image, shape (images,)."""
    return np.argsort(words(seed, epoch, Purpose.ORDER, 0, images), kind="stable").astype(np.int64, copy=False)


@dataclass(frozen=True)
class Gang:
    """Who shares an optimizer step.

    Attributes:
        batch: images per micro-batch and rank.
        world_size: ranks.
        accumulate: micro-batches per step.
    """

    batch: int
    world_size: int
    accumulate: int = 1

    @property
    def global_batch(self) -> int:
        """Images per step."""
        return self.batch * self.world_size * self.accumulate

    def steps(self, images: int, consumed: int = 0) -> int:
        """Whole steps that an epoch of `images` still has after its first `consumed` positions."""
        return max(0, images - consumed) // self.global_batch

    def positions(self, consumed: int, step: int, micro: int, rank: int) -> range:
        """The positions of one rank's micro-batch: `step` counts from `consumed`, all from 0."""
        first = consumed + step * self.global_batch + (micro * self.world_size + rank) * self.batch
        return range(first, first + self.batch)

    def require_a_step(self, images: int) -> None:
        """Refuses a global batch that the training set can't fill even once.

        Raises:
            TrainingError: 64, since it is the batch (or the number of devices) that must change.
        """
        if self.steps(images):
            return
        largest = images // (self.world_size * self.accumulate)
        advice = f"at most {largest}" if largest else "fewer devices or a smaller --accumulate"
        raise TrainingError(
            ExitCode.BAD_OPTION,
            f"--batch_size: a global batch of {self.global_batch} images ({self.batch} x {self.world_size} devices x "
            f"{self.accumulate} accumulated) is more than the {images} training images; it must be {advice}",
        )


def validation_indices(images: int, rank: int, world_size: int) -> NDArray[np.int64]:
    """The images that one rank validates: rank, rank + world_size, … Over all ranks each image exactly once."""
    return np.arange(rank, images, world_size, dtype=np.int64)
