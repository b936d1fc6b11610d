"""Top-1 of an ONNX file over held-out JPEGs, computed without a line of the project's own code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image


def onnx_top1(model: Path, validation: Path) -> tuple[float, int]:
    """(ratio of right answers, images judged) of a model over an image folder, one batch of 16 after another."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    how, classes = json.loads(facts["preprocessing"]), json.loads(facts["classes"])
    assert classes == sorted(folder.name for folder in validation.iterdir())
    files = sorted(validation.glob("*/*"))
    right = 0
    for start in range(0, len(files), 16):
        some = files[start : start + 16]
        batch = np.stack([_pixels(path, how) for path in some])
        answers = session.run(None, {"images": batch})[0].argmax(1)
        right += sum(classes[a] == path.parent.name for a, path in zip(answers, some, strict=True))
    return right / len(files), len(files)


def _pixels(path: Path, how: dict[str, Any]) -> NDArray[Any]:
    image = Image.open(path).convert("RGB")
    scale = how["resize"] / min(image.size)
    image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BILINEAR)
    left, top = (round((side - how["crop"]) / 2) for side in image.size)  # as torchvision's CenterCrop
    image = image.crop((left, top, left + how["crop"], top + how["crop"]))
    values = (np.asarray(image, dtype=np.float32) / 255 - np.float32(how["mean"])) / np.float32(how["std"])
    return values.transpose(2, 0, 1)
