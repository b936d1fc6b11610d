"""Reading a whole data set before a training does: is every image there an image?"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Protocol, cast

from app.data.decode import read_header
from app.data.ilsvrc.parallel import Progress
from app.data.ilsvrc.prepare import MANIFEST, read_manifest
from app.data.ilsvrc.source import Counts
from app.data.open import open_images
from app.data.samples import BadImage, Samples

CHUNK = 256
"""Images that a thread reads before it says so."""


class Openable(Samples, Protocol):
    """Samples that lie in files."""

    def open(self, index: int) -> IO[bytes]:
        """The bytes of an image, as a file."""


@dataclass(frozen=True)
class Findings:
    """What was read.

    Attributes:
        counts: how many there are.
        prepared: how many `prepare-imagenet` wrote there; None: it did not write this.
        bad: name and reason of every file that holds no image, in the order of the data set.
    """

    counts: Counts
    prepared: Counts | None
    bad: Sequence[tuple[str, str]]


def check(path: str, workers: int, progress: Progress, *, pixels: bool = False) -> Findings:
    """Opens `path` as the training does, and reads every image of it.

    Args:
        path: holds train/ and val/, or the index of the tars.
        workers: threads.
        progress: told in the caller's thread, with images.
        pixels: decode the whole image, not only its header: finds what was cut, and takes much longer.

    Raises:
        TrainingError: 65 or 66 as when it is opened, 66 or 144 a file can't be read.
    """
    dataset = open_images(path)
    bad: list[tuple[str, str]] = []
    with ThreadPoolExecutor(workers) as pool:
        for part, samples in (("val", dataset.val), ("train", dataset.train)):
            chunks = [range(first, min(first + CHUNK, len(samples))) for first in range(0, len(samples), CHUNK)]
            try:
                found = pool.map(partial(_bad_ones, cast(Openable, samples), pixels), chunks)
                for chunk, of_chunk in zip(chunks, found, strict=True):
                    bad += of_chunk
                    progress(f"{part} images", chunk.stop, len(samples))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    counts = Counts(len(dataset.classes), len(dataset.train), len(dataset.val))
    return Findings(counts, read_manifest(Path(path) / MANIFEST), bad)


def _bad_ones(samples: Openable, pixels: bool, chunk: range) -> list[tuple[str, str]]:
    bad = []
    for index in chunk:
        try:
            if pixels:
                samples.load(index)
            else:
                with samples.open(index) as file:
                    read_header(file, samples.name(index))
        except BadImage as error:
            bad.append((error.name, error.why))
    return bad
