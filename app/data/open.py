"""The data set of a configuration, whichever it is."""

from __future__ import annotations

import os
from pathlib import Path

from app.config import TrainConfig
from app.data import digits
from app.data.datasets import DATASETS
from app.data.folder import open_folder, open_val_folder
from app.data.index import Places
from app.data.samples import PARTS, Dataset, Samples
from app.data.tarindex import INDEX, open_index, open_val_index


def open_dataset(config: TrainConfig, gang_folder: str = "") -> Dataset:
    """Finds the images of `config.dataset` and reads their labels, but no image yet.

    `digits` are written first where they are not complete yet (into `--dataset_path`, else `digits.default_folder()`).
    The readers of synthetic images, CIFAR-10 and flowers are imported only where they are asked for.

    Args:
        config: which data set, and where.
        gang_folder: a folder that this pod's ranks, and no others, have for the time they run; "": none.

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
    if config.dataset == "digits":
        return open_images(_written_digits(config.dataset_path))
    shared = gang_folder if config.nproc_per_node > 1 else ""
    return open_images(config.dataset_path, Places(config.index_folder, shared))


def open_validation(config: TrainConfig) -> tuple[Samples, list[str]]:
    """The validation images of `config.dataset`, and the names of its classes; train/ need not be there.

    Raises:
        TrainingError: as `open_dataset`.
    """
    if config.dataset in ("imagenet", "digits"):
        path = config.dataset_path
        path = _written_digits(path) if config.dataset == "digits" else path
        return open_val_index(path) if _is_index(path) else open_val_folder(path)
    data = open_dataset(config)
    return data.val, data.classes


def open_images(path: str, places: Places = Places()) -> Dataset:  # noqa: B008  it is immutable
    """The images in a folder that holds train/ and val/, or in their place the index of the tars that hold them.

    Raises:
        TrainingError: 65, 66 or 144, naming the folder or file.
    """
    return open_index(path) if _is_index(path) else open_folder(path, places)


def _is_index(path: str) -> bool:
    has_folders = any(os.path.isdir(os.path.join(path, part)) for part in PARTS)
    return not has_folders and os.path.isfile(os.path.join(path, INDEX))


def _written_digits(path: str) -> str:
    path = path or os.fspath(digits.default_folder())
    digits.write(Path(path))
    return path
