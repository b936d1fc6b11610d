import errno
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from app.data import digits
from app.data.folder import open_folder
from app.resilience.exit_codes import ExitCode, TrainingError


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits") / "new" / "digits"
    assert digits.write(folder)
    return folder


def test_the_embedded_images_are_those_of_scikit_learn() -> None:
    images, targets = digits.load()
    theirs = load_digits()
    assert images.dtype == targets.dtype == np.uint8
    np.testing.assert_array_equal(images, theirs.images)
    np.testing.assert_array_equal(targets, theirs.target)


def test_a_fifth_of_every_class_is_held_out_and_360_images_in_all() -> None:
    _, targets = digits.load()
    val = digits.held_out(targets)
    assert val.sum() == 360
    shares = np.bincount(targets[val]) / np.bincount(targets)
    assert np.all(abs(shares - 0.2) < 1 / 174)  # 174: images of the smallest class


def test_the_split_never_changes() -> None:
    _, targets = digits.load()
    assert np.flatnonzero(digits.held_out(targets))[:8].tolist() == [8, 9, 39, 46, 47, 49, 50, 51]


def test_the_tree_holds_each_digit_once_in_its_own_class(written: Path) -> None:
    images, targets = digits.load()
    data = open_folder(str(written))
    assert (len(data.train), len(data.val), data.classes) == (1437, 360, list("0123456789"))
    seen = {}
    for samples in (data.train, data.val):
        for i in range(len(samples)):
            seen[int(Path(samples.name(i)).stem)] = samples.labels[i]
    assert [seen[i] for i in range(len(targets))] == targets.tolist()
    path = next(written.glob("*/*/0007.jpeg"))
    pixels = np.asarray(Image.open(path).convert("L").resize((8, 8), Image.Resampling.BOX)).astype(float)
    assert abs(pixels - images[7].astype(float) * 255 / 16).mean() < 12


def test_a_complete_tree_is_left_alone(written: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
    assert not digits.write(written)
    assert {path: path.stat().st_mtime_ns for path in written.rglob("*")} == before


def test_an_interrupted_tree_is_completed_and_swept(written: Path, tmp_path: Path) -> None:
    (tmp_path / "train" / "3").mkdir(parents=True)
    torn = next((written / "train" / "3").iterdir()).name
    (tmp_path / "train" / "3" / torn).write_bytes(b"torn")
    (tmp_path / ".writing-killed").mkdir()
    assert digits.write(tmp_path)
    assert tree(tmp_path) == tree(written)


def test_two_at_once_leave_one_good_tree(written: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app.data.digits", "--out", str(tmp_path)]
    with ThreadPoolExecutor(3) as pool:
        runs = list(pool.map(lambda _: subprocess.run(command, capture_output=True, text=True, check=False), range(3)))
    assert [(run.returncode, run.stderr) for run in runs] == [(0, "")] * 3
    assert tree(tmp_path) == tree(written)


def test_a_folder_that_can_not_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert digits.main(["--out", str(tmp_path / "file" / "digits")]) == ExitCode.BAD_OPTION
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert f"{tmp_path}/file/digits cannot be written: Not a directory" in message


def test_a_full_disk_is_retryable_and_a_forbidden_folder_is_not() -> None:
    codes = [digits.unwritable("x", OSError(n, "no"), "y").code for n in (errno.ENOSPC, errno.EROFS, errno.EACCES)]
    assert codes == [ExitCode.VOLUME_IO, ExitCode.BAD_OPTION, ExitCode.BAD_OPTION]


@pytest.mark.parametrize("stranger", ["train/n01440764/1.JPEG", "val/3/other.jpeg", "train/readme.txt"])
def test_digits_are_not_mixed_into_another_data_set(tmp_path: Path, stranger: str) -> None:
    (tmp_path / stranger).parent.mkdir(parents=True)
    (tmp_path / stranger).write_bytes(b"mine")
    with pytest.raises(TrainingError, match="not one of the digits") as error:
        digits.write(tmp_path)
    assert error.value.code == ExitCode.BAD_OPTION
    assert str(tmp_path) in error.value.message
    assert len(tree(tmp_path)) == 1


def test_the_default_folder_is_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("RESNET_OPERATOR_CACHE", raising=False)
    assert str(digits.default_folder()) == "/home/someone/.cache/resnet-operator/digits"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert str(digits.default_folder()) == "/xdg/resnet-operator/digits"
    monkeypatch.setenv("RESNET_OPERATOR_CACHE", "/ours")
    assert str(digits.default_folder()) == "/ours/digits"


def test_writing_digits_imports_no_torch_and_no_scikit_learn() -> None:
    code = "import sys, app.data.digits; print([m for m in ('torch', 'sklearn', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
