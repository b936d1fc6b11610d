import hashlib
import io
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import CIFAR10, Flowers102

from app.config import TrainConfig
from app.data.open import open_dataset
from app.data.samples import Dataset
from app.resilience.exit_codes import ExitCode, TrainingError


def opened(name: str, path: Path) -> Dataset:
    return open_dataset(TrainConfig(dataset=name, dataset_path=str(path)))


def refused(name: str, path: Path) -> TrainingError:
    with pytest.raises(TrainingError) as error:
        opened(name, path)
    assert "\n" not in error.value.message
    return error.value


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of CIFAR-10's format with 2 images each; torchvision is told their checksums instead of the real ones."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    generator = np.random.default_rng(0)

    def save(name: str, content: object) -> list[str]:
        raw = pickle.dumps(content)
        (folder / name).write_bytes(raw)
        return [name, md5(raw)]

    def batch() -> dict[str, object]:
        pixels = generator.integers(0, 256, (2, 3072), dtype=np.uint8)
        return {"data": pixels, "labels": generator.integers(0, 10, 2).tolist()}

    monkeypatch.setattr(CIFAR10, "train_list", [save(f"data_batch_{i}", batch()) for i in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [save("test_batch", batch())])
    name, digest = save("batches.meta", {"label_names": [f"class{i}" for i in range(10)]})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": digest})
    return tmp_path


@pytest.fixture
def flowers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of Oxford Flowers' format with 6 images, likewise."""
    folder = tmp_path / "flowers-102"
    (folder / "jpg").mkdir(parents=True)
    for i in range(1, 7):
        Image.new("RGB", (30, 20), (i, 0, 0)).save(folder / "jpg" / f"image_{i:05d}.jpg")
    savemat(folder / "imagelabels.mat", {"labels": [[1, 2, 3, 1, 2, 102]]})
    savemat(folder / "setid.mat", {"trnid": [[6, 1]], "valid": [[2, 4]], "tstid": [[3, 5]]})
    files = {"image": ("102flowers.tgz", "")}
    for key, name in (("label", "imagelabels.mat"), ("setid", "setid.mat")):
        files[key] = (name, md5((folder / name).read_bytes()))
    monkeypatch.setattr(Flowers102, "_file_dict", files)
    return tmp_path


def test_cifar10_is_what_torchvision_reads(cifar: Path) -> None:
    ours = opened("cifar10", cifar)
    assert ours.classes == [f"class{i}" for i in range(10)]
    for samples, theirs in ((ours.train, CIFAR10(cifar)), (ours.val, CIFAR10(cifar, train=False))):
        assert [(samples.load(i).tobytes(), samples.labels[i]) for i in range(len(samples))] == [
            (image.tobytes(), label) for image, label in theirs
        ]
    assert (len(ours.train), len(ours.val)) == (10, 2)
    assert ours.val.name(1) == f"{cifar}/cifar-10-batches-py test image 1"


def test_flowers_are_what_torchvision_reads(flowers: Path) -> None:
    ours = opened("flowers", flowers)
    for samples, split in ((ours.train, "train"), (ours.val, "val")):
        assert [(samples.load(i).tobytes(), samples.labels[i]) for i in range(len(samples))] == [
            (image.tobytes(), label) for image, label in Flowers102(flowers, split=split)
        ]
    assert ours.train.labels.tolist() == [101, 0]
    assert ours.classes[101] == "102"
    assert ours.train.name(0) == f"{flowers}/flowers-102/jpg/image_00006.jpg"


@pytest.mark.parametrize(
    ("name", "folder", "file"),
    [("cifar10", "cifar-10-batches-py", "data_batch_1"), ("flowers", "flowers-102", "jpg")],
)
def test_missing_files_are_one_line_that_names_the_folder(tmp_path: Path, name: str, folder: str, file: str) -> None:
    error = refused(name, tmp_path)
    assert error.code == ExitCode.DATA_MISSING
    assert f"is not in {tmp_path}/{folder}: there is no {file}" in error.message


def test_one_missing_file_is_named(cifar: Path) -> None:
    (cifar / "cifar-10-batches-py" / "test_batch").unlink()
    assert "there is no test_batch" in refused("cifar10", cifar).message


def test_a_file_that_is_not_the_published_one_is_bad_data(cifar: Path) -> None:
    (cifar / "cifar-10-batches-py" / "test_batch").write_bytes(b"other")
    error = refused("cifar10", cifar)
    assert (error.code, "is not the published one" in error.message) == (ExitCode.BAD_DATA, True)


def test_flowers_without_scipy_is_one_clear_line(flowers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    error = refused("flowers", flowers)
    assert error.code == ExitCode.FRAMEWORK_MISSING
    assert error.message == "--dataset flowers: its labels are MATLAB files, install scipy to read them"


def test_a_damaged_flower_is_a_bad_image_only_when_it_is_read(flowers: Path) -> None:
    (flowers / "flowers-102" / "jpg" / "image_00006.jpg").write_bytes(io.BytesIO().getvalue())
    assert len(opened("flowers", flowers).train) == 2
