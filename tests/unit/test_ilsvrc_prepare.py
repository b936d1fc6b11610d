"""From tars to folders: what torchvision makes of them, and one line for what can't become a data set."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from torchvision.datasets import imagenet

from app.data.folder import open_folder
from app.data.ilsvrc.prepare import MANIFEST, PREPARING, prepare
from app.data.ilsvrc.source import Counts, Source
from app.resilience.exit_codes import ExitCode, TrainingError
from tests.ilsvrc_tars import Published, publish, publish_digits, tar_of, tree


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish_digits(tmp_path_factory.mktemp("ilsvrc"), classes=3, train=4, val=2)


def source(published: Published, **counts: int) -> Callable[[], Source]:
    expected = Counts(**{"classes": published.classes, "train": published.train, "val": published.val, **counts})
    return lambda: Source(
        os.fspath(published.train_tar), os.fspath(published.val_tar), os.fspath(published.devkit), expected
    )


def quiet(what: str, done: int, total: int) -> None:
    assert 0 < done <= total, what


def run(out: Path, published: Published, **counts: int) -> tuple[bool, Counts]:
    return prepare(out, source(published, **counts), 2, quiet)


def refused(out: Path, published: Published, **counts: int) -> TrainingError:
    with pytest.raises(TrainingError) as error:
        run(out, published, **counts)
    assert "\n" not in error.value.message
    assert not (out / "train").exists()
    return error.value


def test_the_tree_is_the_one_that_torchvision_makes(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imagenet, "_verify_archive", lambda *_: None)  # which compares MD5s of the real files
    root, ours = published.train_tar.parent, tmp_path / "ours"
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for file in root.iterdir():
        (theirs / file.name).symlink_to(file)
    imagenet.parse_devkit_archive(theirs)
    imagenet.parse_train_archive(theirs)
    imagenet.parse_val_archive(theirs)
    assert run(ours, published) == (True, Counts(3, 12, 6))
    assert tree(ours) == tree(theirs)
    assert len(tree(ours)) == 18
    assert sorted(entry.name for entry in ours.iterdir()) == [MANIFEST, "train", "val"]
    assert len(open_folder(str(ours)).classes) == 3


def test_a_second_run_finds_it_complete_and_needs_no_tars(published: Published, tmp_path: Path) -> None:
    run(tmp_path, published)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}

    def gone() -> Source:
        raise AssertionError("the tars were opened")

    assert prepare(tmp_path, gone, 2, quiet) == (False, Counts(3, 12, 6))
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


def test_progress_counts_every_class_of_both_parts(published: Published, tmp_path: Path) -> None:
    said: list[tuple[str, int, int]] = []
    prepare(tmp_path, source(published), 2, lambda *facts: said.append(facts))
    assert said == [(f"{part} classes", done, 3) for part in ("val", "train") for done in (1, 2, 3)]


def test_complete_classes_are_not_written_again(published: Published, tmp_path: Path) -> None:
    refused(tmp_path, published, train=13)
    written = {file: file.stat().st_ino for file in (tmp_path / PREPARING / "train").rglob("*.JPEG")}
    assert len(written) == 12
    run(tmp_path, published)
    assert {file.stat().st_ino for file in (tmp_path / "train").rglob("*.JPEG")} == set(written.values())


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ({"classes": 1000}, "ILSVRC2012_devkit_t12.tar.gz holds 3 classes where 1000 are expected"),
        ({"val": 50_000}, "ILSVRC2012_devkit_t12.tar.gz holds 6 validation labels where 50000 are expected"),
        ({"train": 1_281_167}, "ILSVRC2012_img_train.tar holds 12 training images where 1281167 are expected"),
    ],
)
def test_other_counts_than_expected_are_refused(
    published: Published, tmp_path: Path, counts: dict[str, int], line: str
) -> None:
    error = refused(tmp_path, published, **counts)
    assert error.code == ExitCode.BAD_DATA
    assert error.message == f"{published.devkit.parent}/{line}"


TRAIN = {"n00000001": [("n00000001_1.JPEG", b"1")], "n00000002": [("n00000002_1.JPEG", b"2")]}
VAL = [("n00000001", b"v"), ("n00000002", b"w")]


@pytest.mark.parametrize(
    ("file", "members", "line"),
    [
        ("train", [("n00000001.tar", tar_of(TRAIN["n00000001"]))], "lacks the tars of 1 classes: n00000002"),
        (
            "train",
            [*((f"{wnid}.tar", tar_of(files)) for wnid, files in TRAIN.items()), ("n00000009.tar", tar_of([]))],
            "holds n00000009.tar, which is no class of the development kit",
        ),
        ("train", [("n00000001.JPEG", b"")], "its member n00000001.JPEG is not the tar of a class"),
        ("train", [(f"{wnid}.tar", tar_of([])) for wnid in TRAIN], ".tar holds no image"),
        ("train", [(f"{wnid}.tar", tar_of([("list.txt", b"")])) for wnid in TRAIN], "list.txt is not an image"),
        ("val", [("ILSVRC2012_val_00000001.JPEG", b"v")], "holds 1 images where 2 are expected"),
        ("val", [("ILSVRC2012_val_00000003.JPEG", b"v")], "has no label: the devkit has 2"),
        ("val", [("ILSVRC2012_val_00000000.JPEG", b"v")], "has no label: the devkit has 2"),
        ("val", [("cat.JPEG", b"v")], "its member cat.JPEG is not an image ILSVRC2012_val_"),
    ],
)
def test_tars_that_are_others_are_refused(
    tmp_path: Path, file: str, members: list[tuple[str, bytes]], line: str
) -> None:
    wrong = publish(tmp_path / "published", TRAIN, VAL)
    path = {"train": wrong.train_tar, "val": wrong.val_tar}[file]
    path.write_bytes(tar_of(members))
    error = refused(tmp_path / "out", wrong)
    assert error.code == ExitCode.BAD_DATA
    assert error.message.startswith(str(path))
    assert line in error.message


def test_a_class_without_validation_images_is_refused(tmp_path: Path) -> None:
    wrong = publish(tmp_path / "published", TRAIN, [VAL[0]])
    assert refused(tmp_path / "out", wrong).message.endswith(
        "holds no image of class n00000002, by the devkit's labels"
    )


@pytest.mark.parametrize("which", ["train_tar", "val_tar", "devkit"])
def test_a_missing_file_is_named(published: Published, tmp_path: Path, which: str) -> None:
    lacking = Published(**{**vars(published), which: tmp_path / "nowhere.tar"})
    error = refused(tmp_path / "out", lacking)
    assert error.code == ExitCode.DATA_MISSING
    assert error.message == f"{tmp_path}/nowhere.tar cannot be read: No such file or directory"


def test_what_it_did_not_write_is_left_alone(published: Published, tmp_path: Path) -> None:
    (tmp_path / "val" / "mine").mkdir(parents=True)
    error = refused(tmp_path, published)
    assert error.code == ExitCode.BAD_OPTION
    assert f"{tmp_path}/val is there already" in error.message
    assert [entry.name for entry in tmp_path.rglob("*")] == ["val", "mine"]


def test_classes_of_other_tars_are_not_mixed(published: Published, tmp_path: Path) -> None:
    refused(tmp_path / "out", published, train=13)
    other = publish_digits(tmp_path / "other", classes=3, train=5, val=2)
    error = refused(tmp_path / "out", other)
    assert error.code == ExitCode.BAD_OPTION
    assert "was begun from other tars" in error.message


def test_two_at_once_are_refused(published: Published, tmp_path: Path) -> None:
    errors = []

    def meanwhile(what: str, done: int, total: int) -> None:
        if not errors:
            errors.append(refused(tmp_path, published))

    assert prepare(tmp_path, source(published), 2, meanwhile)[0]
    assert errors[0].code == ExitCode.BAD_OPTION
    assert "another process prepares the data set there" in errors[0].message
    assert len(tree(tmp_path)) == 18


def test_a_folder_that_can_t_be_made_is_one_line(published: Published, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = refused(tmp_path / "file" / "out", published)
    assert error.code == ExitCode.BAD_OPTION
    assert error.message.startswith(f"{tmp_path}/file")
    assert error.message.endswith("name another folder with --out")
