"""Ranks that found other images than their peers must not train together."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.data.folder import open_folder
from app.data.samples import Dataset, Extent, require_same
from app.resilience.exit_codes import ExitCode, TrainingError


def opened(root: Path, *extra: str) -> Dataset:
    for name in ("train/a/1.jpg", "train/a/2.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/b/1.jpg", *extra):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return open_folder(str(root))


def test_a_gang_that_found_the_same_may_train(tmp_path: Path) -> None:
    one, other = opened(tmp_path / "one"), opened(tmp_path / "other")
    require_same([one.extent, other.extent, one.extent])
    require_same([Extent(0, 0, 0)])


@pytest.mark.parametrize("extra", ["train/a/3.jpg", "val/b/2.jpg"])
def test_a_file_more_is_told_with_the_rank_that_saw_it(tmp_path: Path, extra: str) -> None:
    one, other = opened(tmp_path / "one"), opened(tmp_path / "other", extra)
    with pytest.raises(TrainingError) as error:
        require_same([one.extent, one.extent, other.extent])
    assert error.value.code == ExitCode.VOLUME_IO
    assert error.value.message.startswith(
        "--dataset_path: rank 0 found 3 images to train on and 2 to validate, rank 2 "
        f"{len(other.train)} and {len(other.val)}, not the same ones: "
    )


def test_as_many_files_in_other_classes_are_others(tmp_path: Path) -> None:
    one, other = opened(tmp_path / "one", "train/a/3.jpg"), opened(tmp_path / "other", "train/b/3.jpg")
    assert len(one.train) == len(other.train)
    with pytest.raises(TrainingError, match="not the same ones"):
        require_same([one.extent, other.extent])
