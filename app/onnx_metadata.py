"""What an exported ONNX file says of itself: class names, and how an image becomes its input. NumPy and Pillow only.

Written by app.export and read by app.predict, and by whoever serves the file: the properties are plain JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

INPUT = "images"
"""Name of the input: float32 N x 3 x S x S, normalised."""
OUTPUT = "logits"
"""Name of the output: float32 N x classes."""


class NoMetadata(ValueError):
    """The properties of an ONNX file that are missing or make no sense, as the end of a sentence."""


@dataclass(frozen=True)
class Metadata:
    """The properties of an exported file.

    Attributes:
        model: architecture.
        classes: names in the order of the outputs.
        resize: pixels of the shorter side after resizing.
        crop: side of the square that is cut out of the middle.
        mean, std: of red, green and blue on the scale 0 to 1.
        epoch, step: of the training; None: not known.
    """

    model: str
    classes: list[str]
    resize: int
    crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    epoch: int | None = None
    step: int | None = None

    def properties(self) -> dict[str, str]:
        """As they are kept in the file."""
        how = {
            "resize": self.resize, "crop": self.crop, "interpolation": "bilinear", "mean": self.mean, "std": self.std,
            "layout": "NCHW", "color": "RGB", "range": "0-1 before mean and std",
        }  # fmt: skip
        counters = {"epoch": self.epoch, "step": self.step}
        return {
            "model": self.model,
            "classes": json.dumps(self.classes),
            "preprocessing": json.dumps(how),
            **{name: str(value) for name, value in counters.items() if value is not None},
        }

    @staticmethod
    def parse(properties: Mapping[str, str]) -> Metadata:
        """The reverse of `properties`.

        Raises:
            NoMetadata: they are not there or make no sense.
        """
        try:
            classes, how = json.loads(properties["classes"]), json.loads(properties["preprocessing"])
            mean, std = (tuple(float(value) for value in how[name]) for name in ("mean", "std"))
            names = [str(name) for name in classes]
            found = Metadata(properties.get("model", ""), names, int(how["resize"]), int(how["crop"]), mean, std)
        except KeyError as error:
            raise NoMetadata(f"no {error.args[0]!r} in its metadata") from None
        except (ValueError, TypeError) as error:
            raise NoMetadata(f"metadata that can't be read ({error})") from None
        if not isinstance(classes, list) or not classes:
            raise NoMetadata("no list of names as 'classes' in its metadata")
        if not (0 < found.crop <= found.resize and len(found.mean) == len(found.std) == 3 and all(found.std)):
            raise NoMetadata("metadata that makes no sense in 'preprocessing'")
        return found

    def pixels(self, image: Image.Image) -> NDArray[np.float32]:
        """The input for one image of mode RGB: float32, shape (3, crop, crop).

        Resize and CenterCrop are torchvision's on PIL images (`_compute_resized_output_size`, `center_crop`).
        """
        short, long = sorted(image.size)
        longer = int(self.resize * long / short)
        wide = image.width > image.height
        image = image.resize((longer, self.resize) if wide else (self.resize, longer), Image.Resampling.BILINEAR)
        left, top = (round((side - self.crop) / 2.0) for side in image.size)
        image = image.crop((left, top, left + self.crop, top + self.crop))
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        values = (np.asarray(image, np.float32) / np.float32(255) - mean) / std
        return np.ascontiguousarray(values.transpose(2, 0, 1))
