"""A tiny image folder, and a network for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from app import model

CLASSES = ["cat", "dog", "eel"]
SIDE = 24


def folder(path: Path) -> Path:
    """train/ with one and val/ with three images of random size and pixels in each of three classes."""
    random = np.random.default_rng(5)
    for part, count in (("train", 1), ("val", 3)):
        for name in CLASSES:
            (path / part / name).mkdir(parents=True)
            for i in range(count):
                height, width = random.integers(20, 60, 2)
                pixels = random.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
                image = Image.fromarray(pixels).resize((int(width), int(height)))
                image.save(path / part / name / f"{i}.png")
    return path


def network() -> torch.nn.Module:
    """A ResNet18 of three classes whose running statistics are not those of a fresh one."""
    result = model.build("resnet18", len(CLASSES), seed=3)
    with torch.no_grad():
        result(torch.randn(8, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)))
    return result
