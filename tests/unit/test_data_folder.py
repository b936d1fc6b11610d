import errno
import subprocess
import sys
from pathlib import Path

import pytest
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

from app.data import folder
from app.data.errors import shown, unreadable
from app.data.folder import open_folder
from app.resilience.exit_codes import SICK_VOLUME, ExitCode, TrainingError


def build(root: Path, *files: str) -> Path:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def refused(path: Path) -> TrainingError:
    with pytest.raises(TrainingError) as error:
        open_folder(str(path))
    assert "\n" not in error.value.message
    return error.value


def test_images_come_in_torchvisions_order(tmp_path: Path) -> None:
    names = ["b/2.jpeg", "b/10.JPEG", "b/1.png", "a/z.webp", "a/sub/x.jpg", "a/sub/deep/y.jpg", "a/a.bmp", "B/q.ppm"]
    noise = ["a/notes.txt", "b/1.jpeg.part", "b/.hidden", "top.jpeg"]
    build(tmp_path, *(f"{part}/{name}" for part in ("train", "val") for name in names + noise))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "linked.jpg").write_bytes(b"")
    (tmp_path / "train" / "b" / "link").symlink_to(tmp_path / "elsewhere")
    ours = open_folder(str(tmp_path)).train
    theirs = ImageFolder(str(tmp_path / "train"))
    assert [(ours.path(i), ours.labels[i]) for i in range(len(ours))] == theirs.samples
    assert len(ours) == len(names) + 1
    assert open_folder(str(tmp_path)).classes == theirs.classes


def test_the_extensions_are_torchvisions() -> None:
    assert folder.EXTENSIONS == IMG_EXTENSIONS


def test_names_that_are_no_text_can_be_opened_and_shown(tmp_path: Path) -> None:
    build(tmp_path, "val/a/1.jpg")
    (tmp_path / "train" / "a").mkdir(parents=True)
    raw = bytes(tmp_path) + b"/train/a/\xff\n.jpg"
    Path(raw.decode("utf-8", "surrogateescape")).write_bytes(b"here")
    train = open_folder(str(tmp_path)).train
    assert Path(train.path(0)).read_bytes() == b"here"
    assert train.name(0) == f"{tmp_path}/train/a/\\xff\\n.jpg"


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    error = refused(tmp_path / "nowhere")
    assert error.code == ExitCode.DATA_MISSING
    assert f"--dataset_path: {tmp_path}/nowhere does not exist" in error.message


def test_a_path_that_is_a_file_is_named(tmp_path: Path) -> None:
    build(tmp_path, "tar")
    error = refused(tmp_path / "tar")
    assert error.code == ExitCode.DATA_MISSING
    assert f"{tmp_path}/tar is no folder" in error.message
    assert refused(tmp_path / "tar" / "below").code == ExitCode.DATA_MISSING


@pytest.mark.parametrize(("there", "lost"), [("train", "val"), ("val", "train")])
def test_train_and_val_must_both_be_there(tmp_path: Path, there: str, lost: str) -> None:
    error = refused(build(tmp_path, f"{there}/a/1.jpg"))
    assert error.code == ExitCode.DATA_MISSING
    assert f"{tmp_path}/{lost} does not exist" in error.message


def test_a_folder_without_classes_is_named(tmp_path: Path) -> None:
    error = refused(build(tmp_path, "train/1.jpg", "val/a/1.jpg"))
    assert (error.code, f"{tmp_path}/train holds no class folder" in error.message) == (ExitCode.BAD_DATA, True)


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_class_without_images_is_named(tmp_path: Path, part: str) -> None:
    build(tmp_path, *(f"{p}/{c}/1.jpg" for p in ("train", "val") for c in "abc"))
    (tmp_path / part / "b" / "1.jpg").rename(tmp_path / part / "b" / "1.txt")
    error = refused(tmp_path)
    assert error.code == ExitCode.BAD_DATA
    assert f"{tmp_path}/{part}/b holds no image: no file there ends in .jpg, .jpeg" in error.message


def test_classes_that_are_only_in_one_folder_are_counted_and_a_few_named(tmp_path: Path) -> None:
    build(tmp_path, *(f"train/{c}/1.jpg" for c in "abcdefgh"), "val/a/1.jpg", "val/z/1.jpg")
    error = refused(tmp_path)
    assert error.code == ExitCode.BAD_DATA
    assert error.message == (
        f"--dataset_path: {tmp_path}: 7 classes in train/ are missing in val/: b, c, d, e, f and 2 more; "
        "1 class in val/ is missing in train/: z"
    )


def test_a_sick_volume_is_never_called_bad_or_missing_data() -> None:
    assert {errno.EIO, errno.ESTALE, errno.ETIMEDOUT} <= SICK_VOLUME
    for number in SICK_VOLUME:
        error = unreadable("/data/train", OSError(number, "sick"))
        assert (error.code, error.message) == (
            ExitCode.VOLUME_IO,
            "/data/train: the volume failed while it was read: sick",
        )
    assert unreadable("/data", OSError(errno.EACCES, "Permission denied")).code == ExitCode.DATA_MISSING


def test_shown_is_one_printable_line() -> None:
    assert shown("a\tb\nc\x1b[31m\udcff数") == "a\\tb\\nc\\x1b[31m\\xff数"


def test_listing_imports_no_torch() -> None:
    code = "import sys, app.data.folder, app.data.open; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
