"""The data set of a configuration, whichever it is."""

from __future__ import annotations

import os
from pathlib import Path

from app.config import TrainConfig
from app.data.datasets import DATASETS
from app.data.samples import Dataset


def open_dataset(config: TrainConfig) -> Dataset:
    """Finds the images of `config.dataset` and reads their labels, but no image yet.

    `digits` are written first where they are not complete yet (into `--dataset_path`, else `digits.default_folder()`).
    Only what the data set needs is imported.

    Raises:
        TrainingError: 65, 66, 69 or 144, naming the folder or file.
    """
    facts = DATASETS[config.dataset]
    if config.dataset == "synthetic":
        from app.data.synthetic import open_synthetic  # noqa: PLC0415

        return open_synthetic(config.seed, facts.classes or 1, round(config.size * facts.resize))
    if config.dataset in ("cifar10", "flowers"):
        from app.data.torchvision_sets import open_cifar10, open_flowers  # noqa: PLC0415

        return {"cifar10": open_cifar10, "flowers": open_flowers}[config.dataset](config.dataset_path)
    path = config.dataset_path
    if config.dataset == "digits":
        from app.data import digits  # noqa: PLC0415

        path = path or os.fspath(digits.default_folder())
        digits.write(Path(path))
    return open_images(path)


def open_images(path: str) -> Dataset:
    """The images in a folder that holds train/ and val/, or in their place the index of the tars that hold them.

    Raises:
        TrainingError: 65, 66 or 144, naming the folder or file.
    """
    from app.data.tarindex import INDEX, PARTS, open_index  # noqa: PLC0415

    if os.path.isfile(os.path.join(path, INDEX)) and not any(os.path.isdir(os.path.join(path, p)) for p in PARTS):
        return open_index(path)
    from app.data.folder import open_folder  # noqa: PLC0415

    return open_folder(path)
