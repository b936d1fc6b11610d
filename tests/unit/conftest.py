"""What several unit tests need: a small image folder, and a network as others save it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from app import foreign as foreign_files
from tests.pictures import folder, network


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ and val/ of three classes, see tests/pictures.py."""
    return folder(tmp_path_factory.mktemp("data") / "animals")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .pth file as ModelZoo's original saves it: wrapped, and with `module.` before every name."""
    path = tmp_path_factory.mktemp("foreign") / "network.pth"
    torch.save({"state_dict": {f"module.{k}": v for k, v in network().state_dict().items()}}, path)
    return path


@pytest.fixture(autouse=True)
def own_files_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a torch that reads no .pth unasked (make test-compat) the tests read what they wrote all the same."""
    major, minor = torch.__version__.split(".")[:2]
    monkeypatch.setattr(foreign_files, "SAFE_TORCH", min(foreign_files.SAFE_TORCH, (int(major), int(minor))))
