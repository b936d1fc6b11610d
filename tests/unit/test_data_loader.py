import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

from app.config import TrainConfig
from app.data import digits
from app.data.folder import open_folder
from app.data.loader import Batch, Loader
from app.data.open import open_dataset
from app.data.samples import Dataset
from app.resilience.exit_codes import ExitCode, TrainingError


def config(path: Path, **changes: object) -> TrainConfig:
    values = {"model": "resnet18", "dataset": "imagenet", "dataset_path": str(path), "image_size": 16, "batch_size": 4}
    return TrainConfig(**{**values, "learning_rate": 0.1, "device": "cpu", "num_workers": 0, **changes})  # type: ignore[arg-type]


def jpeg(value: int, size: tuple[int, int] = (24, 20)) -> bytes:
    stream = io.BytesIO()
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    pixels = np.stack([x * 9 + value, y * 11 + value, x * y + value], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(stream, format="JPEG", quality=95)
    return stream.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """40 training and 11 validation images of 2 classes."""
    for part, number in (("train", 40), ("val", 11)):
        for i in range(number):
            path = tmp_path / part / "ab"[i % 2] / f"{i:02d}.jpeg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(i * 5))
    return tmp_path


def batches(photos: Path, rank: int = 0, epoch: int = 0, consumed: int = 0, **changes: object) -> list[Batch]:
    with Loader(open_folder(str(photos)), config(photos, **changes), rank=rank) as loader:
        return list(loader.train_batches(epoch, consumed))


def pixels(passed: list[Batch]) -> torch.Tensor:
    return torch.cat([batch.images for batch in passed])


def test_a_batch_is_uint8_channels_last_with_int64_labels(photos: Path) -> None:
    images, labels = batches(photos)[0]
    assert (images.dtype, images.shape, labels.dtype, labels.shape) == (torch.uint8, (4, 3, 16, 16), torch.int64, (4,))
    assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("workers", [0, 1])
def test_validation_may_see_another_size_than_the_training(workers: int, photos: Path) -> None:
    see = Compose([Resize(round(20 * 256 / 224)), CenterCrop(20), PILToTensor()])
    with Loader(open_folder(str(photos)), config(photos, eval_size=20, num_workers=workers), rank=0) as loader:
        assert pixels(list(loader.train_batches(0))).shape == (40, 3, 16, 16)
        seen = pixels(list(loader.validation_batches()))
    expected = [see(Image.open(path)) for path in sorted(photos.glob("val/*/*"))]
    assert torch.equal(seen, torch.stack(expected))


def test_the_ranks_together_see_what_one_rank_alone_would(photos: Path) -> None:
    alone = pixels(batches(photos, batch_size=8))
    shares = [batches(photos, rank, nnodes=2, batch_size=4) for rank in range(2)]
    together = torch.cat([batch.images for pair in zip(*shares, strict=True) for batch in pair])
    assert torch.equal(together, alone)
    accumulated = [batches(photos, rank, nnodes=2, batch_size=2, accumulate=2) for rank in range(2)]
    assert torch.equal(torch.cat([b.images for pair in zip(*accumulated, strict=True) for b in pair]), alone)


def test_a_resume_in_the_middle_of_an_epoch_is_exact(photos: Path) -> None:
    whole = batches(photos, epoch=3)
    rest = batches(photos, epoch=3, consumed=16)
    assert torch.equal(pixels(rest), pixels(whole[4:]))
    assert torch.equal(torch.cat([b.labels for b in rest]), torch.cat([b.labels for b in whole[4:]]))


def test_epochs_show_other_crops_in_another_order(photos: Path) -> None:
    assert not torch.equal(pixels(batches(photos, epoch=0)), pixels(batches(photos, epoch=1)))


def test_labels_are_those_of_the_images(photos: Path) -> None:
    for i, path in enumerate(sorted((photos / "train" / "b").iterdir())):
        path.write_bytes(encoded_white() if i % 2 else encoded_white("PNG"))
    for batch in batches(photos):
        white = (batch.images == 255).flatten(1).all(1)
        assert torch.equal(white.long(), batch.labels)


def encoded_white(format: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (20, 20), "white").save(stream, format=format)
    return stream.getvalue()


def test_steps_respect_the_step_flag_and_what_is_consumed(photos: Path) -> None:
    data = open_folder(str(photos))
    with Loader(data, config(photos, batch_size=6), rank=0) as loader:
        assert [loader.steps(consumed) for consumed in (0, 6, 36, 40)] == [6, 5, 0, 0]
        assert len(list(loader.train_batches(0))) == 6
    with Loader(data, config(photos, batch_size=6, steps_per_epoch=2, accumulate=2), rank=0) as loader:
        assert loader.steps() == 2
        assert len(list(loader.train_batches(0))) == 4


def test_a_new_pass_may_begin_before_the_last_one_ended(photos: Path) -> None:
    with Loader(open_folder(str(photos)), config(photos), rank=0) as loader:
        left = loader.train_batches(0)
        next(left)
        passing = loader.train_batches(1)
        begun = [next(passing)]
        assert list(left) == []
        assert torch.equal(pixels([*begun, *passing]), pixels(batches(photos, epoch=1)))


def test_the_global_batch_must_fit_the_training_set(photos: Path) -> None:
    with pytest.raises(TrainingError, match="more than the 40 training images; it must be at most 20") as error:
        Loader(open_folder(str(photos)), config(photos, batch_size=21, nnodes=2), rank=0)
    assert error.value.code == ExitCode.BAD_OPTION


def test_loading_does_not_touch_the_trainings_random_numbers(photos: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    batches(photos)
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("dataset", ["imagenet", "digits"])
def test_validation_pixels_are_torchvisions(photos: Path, dataset: str) -> None:
    size, resize = {"imagenet": (16, 18), "digits": (16, 16)}[dataset]  # 16 * 256 / 224 = 18.3
    theirs = Compose([Resize(resize), CenterCrop(size), PILToTensor()])
    data = open_folder(str(photos))
    with Loader(data, config(photos, dataset=dataset), rank=0) as loader:
        ours = list(loader.validation_batches())
    expected = [theirs(Image.open(data.val.name(i)).convert("RGB")) for i in range(len(data.val))]
    assert torch.equal(pixels(ours), torch.stack(expected))
    assert torch.cat([b.labels for b in ours]).tolist() == data.val.labels.tolist()
    assert [len(b.labels) for b in ours] == [4, 4, 3]


@pytest.mark.parametrize("world_size", [1, 2, 3, 12])
def test_every_validation_image_is_seen_exactly_once(photos: Path, world_size: int) -> None:
    data = open_folder(str(photos))
    seen = []
    for rank in range(world_size):
        with Loader(data, config(photos, nnodes=world_size, batch_size=2), rank=rank) as loader:
            seen += [image.numpy().tobytes() for batch in loader.validation_batches() for image in batch.images]
    with Loader(data, config(photos), rank=0) as loader:
        alone = [image.numpy().tobytes() for batch in loader.validation_batches() for image in batch.images]
    assert sorted(seen) == sorted(alone)
    assert len(set(seen)) == 11


def test_a_bad_training_image_is_replaced_counted_and_named_once(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = batches(photos)
    bad_file = photos / "train" / "b" / "07.jpeg"
    bad_file.write_bytes(b"<html>")
    with Loader(open_folder(str(photos)), config(photos), rank=0) as loader:
        epochs = [list(loader.train_batches(epoch)) for epoch in range(3)]
    assert len(loader.bad_files) == 1
    assert capsys.readouterr().err == (
        f"bad image {bad_file} (6 bytes that are no image): another one of its class takes its place\n"
    )
    changed = [i for i, (a, b) in enumerate(zip(pixels(good), pixels(epochs[0]), strict=True)) if not torch.equal(a, b)]
    labels = [torch.cat([batch.labels for batch in epoch]) for epoch in (good, epochs[0])]
    assert len(changed) == 1
    assert torch.equal(labels[0], labels[1])
    assert torch.equal(pixels(batches(photos)), pixels(epochs[0]))  # the same stand-in every time


def test_a_file_that_another_rank_met_is_not_named_again(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad_file = photos / "train" / "b" / "07.jpeg"
    bad_file.write_bytes(b"<html>")
    data = open_folder(str(photos))
    index = next(i for i in range(40) if data.train.name(i) == str(bad_file))
    with Loader(data, config(photos), rank=0) as loader:
        loader.bad_files.learn([[], [index]])
        list(loader.train_batches(0))
    assert capsys.readouterr().err == ""
    assert len(loader.bad_files) == 1


def test_a_class_without_any_good_image_is_bad_data(photos: Path) -> None:
    for path in (photos / "train" / "b").iterdir():
        if path.name != "01.jpeg":
            path.unlink()
    (photos / "train" / "b" / "01.jpeg").write_bytes(b"")
    with pytest.raises(TrainingError, match=r"b/01.jpeg is no image.*nor is any other of class b") as error:
        batches(photos, batch_size=21)
    assert error.value.code == ExitCode.BAD_DATA


def test_a_bad_validation_image_ends_the_run_at_once(photos: Path) -> None:
    (photos / "val" / "a" / "04.jpeg").write_bytes(jpeg(1)[:200])
    with (
        Loader(open_folder(str(photos)), config(photos), rank=0) as loader,
        pytest.raises(TrainingError, match=r"val/a/04.jpeg is no image that can be decoded") as error,
    ):
        list(loader.validation_batches())
    assert error.value.code == ExitCode.BAD_DATA


def test_a_sick_volume_ends_the_run_with_a_retryable_code(photos: Path) -> None:
    (photos / "train" / "a" / "00.jpeg").unlink()
    (photos / "train" / "a" / "00.jpeg").symlink_to("/proc/self/mem")  # answers EIO
    with pytest.raises(TrainingError, match=r"a/00.jpeg: the volume failed while it was read") as error:
        batches(photos)
    assert error.value.code == ExitCode.VOLUME_IO


def test_digits_are_opened_with_and_without_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNET_OPERATOR_CACHE", str(tmp_path / "cache"))
    for path, folder in (("", tmp_path / "cache" / "digits"), (str(tmp_path / "here"), tmp_path / "here")):
        data = open_dataset(TrainConfig(dataset="digits", dataset_path=path))
        assert (len(data.train), len(data.val), digits.complete(folder)) == (1437, 360, True)


def test_synthetic_images_are_a_function_of_the_seed() -> None:
    def opened(seed: int) -> Dataset:
        return open_dataset(TrainConfig(dataset="synthetic", image_size=32, seed=seed))

    one, again, other = opened(1), opened(1), opened(2)
    assert one.train.load(5).tobytes() == again.train.load(5).tobytes() != other.train.load(5).tobytes()
    assert one.train.load(5).tobytes() != one.val.load(5).tobytes()
    assert (one.train.labels == again.train.labels).all()
    assert (one.train.labels != other.train.labels).any()
    assert one.train.load(0).size == (37, 37)  # 32 * 256 / 224
    assert {len(one.classes), len(np.unique(one.train.labels))} == {1000}
    assert one.train.labels.max() == 999
