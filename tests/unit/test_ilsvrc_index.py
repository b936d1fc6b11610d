"""The index: the same images as the folders, read from the tars; refused where a tar is another one."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from app.config import TrainConfig
from app.data import tarindex
from app.data.folder import FolderSamples
from app.data.ilsvrc.prepare import PREPARING, prepare
from app.data.ilsvrc.source import Counts
from app.data.open import open_dataset, open_images
from app.data.samples import BadImage
from app.data.tarindex import INDEX, TarSamples
from app.resilience.exit_codes import ExitCode, TrainingError
from tests.ilsvrc_tars import Published, publish, publish_digits
from tests.unit.test_ilsvrc_prepare import quiet, run, source


@pytest.fixture
def published(tmp_path: Path) -> Published:
    return publish_digits(tmp_path / "made", classes=3, train=5, val=3)


def index(out: Path, published: Published) -> Path:
    assert prepare(out, source(published), 2, quiet, index_only=True) == (
        True, Counts(published.classes, published.train, published.val),
    )  # fmt: skip
    return out / INDEX


def refused(out: Path) -> TrainingError:
    with pytest.raises(TrainingError) as error:
        open_images(str(out))
    assert "\n" not in error.value.message
    return error.value


def test_the_index_gives_the_same_images_in_the_same_order_as_the_folders(published: Published, tmp_path: Path) -> None:
    index(tmp_path / "index", published)
    assert [entry.name for entry in (tmp_path / "index").iterdir()] == [INDEX]
    run(tmp_path / "folders", published)
    config = TrainConfig(
        model="resnet18", batch_size=1, learning_rate=0.1, device="cpu", dataset_path=str(tmp_path / "index")
    )
    ours, theirs = open_dataset(config), open_images(str(tmp_path / "folders"))
    assert ours.classes == theirs.classes
    for part, images in (("train", 15), ("val", 9)):
        a, b = cast(TarSamples, getattr(ours, part)), cast(FolderSamples, getattr(theirs, part))
        assert len(a) == len(b) == images
        assert np.array_equal(a.labels, b.labels)
        for i in range(images):
            path = Path(b.path(i))
            assert (a.file_name(i), a.read(i)) == (path.name, path.read_bytes())
            assert a.load(i).tobytes() == b.load(i).tobytes()
            with a.open(i) as file:
                assert file.read() == path.read_bytes()


def test_folders_are_read_where_there_are_both(published: Published, tmp_path: Path) -> None:
    run(tmp_path, published)
    index(tmp_path / "index", published).rename(tmp_path / INDEX)
    assert isinstance(open_images(str(tmp_path)).train, FolderSamples)


def test_an_index_is_not_written_where_folders_would_hide_it(published: Published, tmp_path: Path) -> None:
    run(tmp_path, published)
    with pytest.raises(TrainingError) as error:
        index(tmp_path, published)
    assert error.value.code == ExitCode.BAD_OPTION
    assert f"{tmp_path}/train is there already" in error.value.message
    assert not (tmp_path / PREPARING).exists()


def test_a_second_run_finds_the_index_and_a_change_of_a_tar_makes_a_new_one(
    published: Published, tmp_path: Path
) -> None:
    written = index(tmp_path, published).stat().st_ino
    assert prepare(tmp_path, source(published), 2, quiet, index_only=True) == (False, Counts(3, 15, 9))
    assert (tmp_path / INDEX).stat().st_ino == written
    os.utime(published.val_tar, (1, 1))
    index(tmp_path, published)
    assert len(open_images(str(tmp_path)).val) == 9


def test_an_index_of_too_few_images_is_not_written(published: Published, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="holds 15 training images where 16 are expected"):
        prepare(tmp_path, source(published, train=16), 2, quiet, index_only=True)
    assert list(tmp_path.glob(f"*{INDEX}*")) == []


def test_samples_that_went_to_another_process_read_the_same(published: Published, tmp_path: Path) -> None:
    index(tmp_path, published)
    train = cast(TarSamples, open_images(str(tmp_path)).train)
    copy = pickle.loads(pickle.dumps(train))
    assert [copy.read(i) for i in range(15)] == [train.read(i) for i in range(15)]


def test_tars_that_moved_together_with_the_index_are_found(published: Published, tmp_path: Path) -> None:
    folder = published.train_tar.parent
    index(folder, published)
    folder.rename(tmp_path / "elsewhere")
    train = open_images(str(tmp_path / "elsewhere")).train
    assert train.load(14).size == (32, 32)
    assert train.name(0).startswith(f"{tmp_path}/elsewhere/ILSVRC2012_img_train.tar: n00000000_")


@pytest.mark.parametrize("which", ["train_tar", "val_tar"])
@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ("remove", ExitCode.DATA_MISSING, "put it beside the index"),
        ("touch", ExitCode.BAD_DATA, "has changed since"),
        ("cut", ExitCode.BAD_DATA, "(its size is another)"),
    ],
)
def test_a_tar_that_is_missing_or_another_one_is_one_line(
    published: Published, tmp_path: Path, which: str, change: str, code: ExitCode, words: str
) -> None:
    index(tmp_path, published)
    tar: Path = getattr(published, which)
    if change == "remove":
        tar.unlink()
    elif change == "touch":
        os.utime(tar, (1, 1))
    else:
        os.truncate(tar, tar.stat().st_size - 1)
    error = refused(tmp_path)
    assert error.code == code
    assert error.message.startswith(str(tar))
    assert words in error.message


def test_a_tar_that_is_cut_while_it_is_read_is_no_bad_image(published: Published, tmp_path: Path) -> None:
    index(tmp_path, published)
    train = open_images(str(tmp_path)).train
    os.truncate(published.train_tar, 0)
    with pytest.raises(TrainingError) as error:
        train.load(0)
    assert error.value.code == ExitCode.BAD_DATA
    assert error.value.message.startswith(f"{published.train_tar} ends at byte ")


def test_an_image_that_is_none_is_a_bad_one_and_named(tmp_path: Path) -> None:
    odd = publish(tmp_path / "made", {"n00000001": [("n00000001_7.JPEG", b"none")]}, [("n00000001", b"none")])
    index(tmp_path, odd)
    with pytest.raises(BadImage) as error:
        open_images(str(tmp_path)).train.load(0)
    assert (error.value.name, error.value.why) == (f"{odd.train_tar}: n00000001_7.JPEG", "4 bytes that are no image")


def test_an_index_with_any_byte_changed_or_cut_is_refused_or_says_the_same(
    published: Published, tmp_path: Path
) -> None:
    path = index(tmp_path, published)
    whole = path.read_bytes()
    expected = facts(tmp_path)
    for position in range(0, len(whole), 41):
        path.write_bytes(whole[:position])
        assert facts(tmp_path) == damaged(path)
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        assert facts(tmp_path) in (damaged(path), expected)  # some bytes are for other readers of the format


def damaged(path: Path) -> str:
    return f"65 {path} is no index of tars, or is damaged; {tarindex._AGAIN}"


def facts(folder: Path) -> str:
    try:
        dataset = open_images(str(folder))
    except TrainingError as error:
        return f"{error.code.value} {error.message}"
    return repr([(s.labels.tolist(), [s.name(i) for i in range(len(s))]) for s in (dataset.train, dataset.val)])
