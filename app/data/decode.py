"""From the bytes of an image file to the pixels that a network sees: uint8, RGB.

Normalisation (MEAN, STD) is left to the device: a byte per value is a quarter of what goes through the workers.
"""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from app.data.datasets import DatasetFacts
from app.data.errors import shown, unreadable
from app.data.samples import BadImage

if TYPE_CHECKING:
    import torch

MEAN = (0.485, 0.456, 0.406)
"""Of ImageNet's red, green and blue, on the scale 0 to 1: torchvision's and the recipe's."""
STD = (0.229, 0.224, 0.225)

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")
"""What a file's content may be, whatever it is called. Pillow would also start Ghostscript for an EPS file."""
BOX_TRIES = 10
DRAWS = 1 + 4 * BOX_TRIES
"""Random numbers that one training image may need: the flip, and four for each try of a box."""

# Odd EXIF blocks and palettes in real photographs: thousands of lines about pixels that are decoded all the same.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def read_image(path: str) -> Image.Image:
    """The image in a file, as RGB; its EXIF orientation is ignored, as torchvision ignores it.

    Raises:
        BadImage: the content is no image.
        TrainingError: the file can't be read (66), or its volume failed (144).
    """
    try:
        with open(path, "rb", buffering=0) as file:
            content = file.read()
    except OSError as error:
        raise unreadable(path, error) from None
    return decode(content, path)


def decode(content: bytes, path: str | os.PathLike[str]) -> Image.Image:
    """As `read_image`, for bytes that are already here."""
    with _naming_the_bad(path, len(content)):
        return Image.open(io.BytesIO(content), formats=FORMATS).convert("RGB")


def read_header(file: IO[bytes], path: str | os.PathLike[str]) -> None:
    """Reads as much of an image as says its format and size; the file stays open.

    Raises:
        BadImage: there is no image in it.
        TrainingError: the file can't be read (66), or its volume failed (144).
    """
    try:
        size = file.seek(0, os.SEEK_END)
        with _naming_the_bad(path, size):
            Image.open(file, formats=FORMATS)
    except OSError as error:
        raise unreadable(path, error) from None


@contextmanager
def _naming_the_bad(path: str | os.PathLike[str], size: int) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise BadImage(shown(path), f"{size} bytes that are no image") from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:  # the file system's own, not the decoder's
            raise
        raise BadImage(shown(path), " ".join(f"{error}".split()) or type(error).__name__) from None


def random_box(
    width: int, height: int, scale: tuple[float, float], ratio: tuple[float, float], draws: Iterator[float]
) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a random crop, distributed as torchvision's RandomResizedCrop.get_params.

    Args:
        width, height: of the image, in pixels.
        scale: share of the area, lowest and highest.
        ratio: width / height, lowest and highest.
        draws: at least 4 * BOX_TRIES numbers from [0, 1).
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(BOX_TRIES):
        area = width * height * (scale[0] + (scale[1] - scale[0]) * next(draws))
        aspect = math.exp(low + (high - low) * next(draws))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        down, right = next(draws), next(draws)
        if 0 < w <= width and 0 < h <= height:
            left, top = int(right * (width - w + 1)), int(down * (height - h + 1))
            return left, top, left + w, top + h
    # No box fitted: the largest one in the middle that keeps the ratio.
    w, h = width, height
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def augment(image: Image.Image, size: int, facts: DatasetFacts, draws: list[float]) -> NDArray[np.uint8]:
    """The training transform: random box, bilinear resize (antialiased), flip where the data set allows it.

    Args:
        image: mode RGB.
        size: side of the result.
        facts: the box and whether to flip.
        draws: DRAWS numbers from [0, 1), which decide everything.

    Returns:
        uint8, shape (size, size, 3).
    """
    rest = iter(draws)
    flip = next(rest) < 0.5 and facts.flip
    box = random_box(image.width, image.height, facts.crop_scale, facts.crop_ratio, rest)
    image = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image)


def evaluation_transform(size: int, facts: DatasetFacts) -> Callable[[Image.Image], torch.Tensor]:
    """The evaluation transform: torchvision's own. Of an RGB image it makes uint8, shape (3, size, size)."""
    from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize  # noqa: PLC0415  a scan needs no torch

    transform: Callable[[Image.Image], torch.Tensor] = Compose(
        [Resize(round(size * facts.resize)), CenterCrop(size), PILToTensor()]
    )
    return transform
