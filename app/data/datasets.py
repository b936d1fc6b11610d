"""The facts of every data set that the training knows. No torch: the launcher and the controller read them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DatasetFacts:
    """What the training must know of a data set before it reads it.

    Attributes:
        image_size: side of the training images, in pixels.
        resize: the evaluation resizes the shorter side to image_size * resize, then crops the centre.
        crop_scale: share of the area that a random crop covers, lowest and highest.
        crop_ratio: aspect ratio of a random crop, lowest and highest.
        flip: whether a mirrored image still shows its class.
        needs_path: whether `--dataset_path` must be given.
        classes: how many, where the data itself does not say.
    """

    image_size: int = 224
    resize: float = 256 / 224
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    needs_path: bool = True
    classes: int | None = None


DATASETS: dict[str, DatasetFacts] = {
    # torchvision's ImageNet recipe: RandomResizedCrop 224 + flip; Resize 256, CenterCrop 224.
    "imagenet": DatasetFacts(),
    "cifar10": DatasetFacts(image_size=32, resize=1.0, crop_scale=(0.5, 1.0), classes=10),
    "flowers": DatasetFacts(classes=102),
    # A mirrored 2 is no 2, and a crop that cuts a digit off makes a 9 a 1.
    "digits": DatasetFacts(image_size=32, resize=1.0, crop_scale=(0.6, 1.0), flip=False, needs_path=False, classes=10),
    "synthetic": DatasetFacts(needs_path=False, classes=1000),
}
"""Name as in `--dataset` and `spec.dataset.name` -> its facts."""
