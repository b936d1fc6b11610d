"""What a user with ImageNet does first: published tars, torchvision's file of weights, torchvision's own numbers."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torchvision.datasets import ImageFolder
from torchvision.models import ResNet50_Weights, resnet50

from app import evaluate
from app.data.ilsvrc.prepare import prepare
from app.step import Stepper
from tests.ilsvrc_tars import publish
from tests.unit.test_ilsvrc_prepare import quiet, source

CLASSES = [f"n{number:08d}" for number in (2084071, 1440764, 15075141, 1443537, 7753592, 1484850, 3)]
"""In the order of the devkit's numbers, which is not that of the network's outputs."""


class User(NamedTuple):
    """Data sets made of the tars: folders and index. Weights as torchvision publishes them. Its logits and labels."""

    folders: Path
    index: Path
    weights: Path
    logits: torch.Tensor
    labels: torch.Tensor


def encoded(photo: Image.Image, number: int) -> bytes:
    """As in ImageNet: most are JPEG in RGB; a few are grey or CMYK, and one is a PNG by content."""
    stream = io.BytesIO()
    mode, kind = {0: ("L", "JPEG"), 1: ("CMYK", "JPEG"), 2: ("RGB", "PNG")}.get(number, ("RGB", "JPEG"))
    photo.convert(mode).save(stream, format=kind)
    return stream.getvalue()


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> User:
    place, random = tmp_path_factory.mktemp("user"), np.random.default_rng(3)
    photos = [Image.fromarray(pixels) for pixels in load_sample_images().images]  # 640 x 427

    def crop(number: int) -> bytes:
        width, height = random.integers(150, 420, 2).tolist()
        left, top = int(random.integers(0, 640 - width)), int(random.integers(0, 428 - height))
        return encoded(photos[number % 2].crop((left, top, left + width, top + height)), number)

    val = [(CLASSES[(5 * number) % 7], crop(number)) for number in range(14)]
    train = {wnid: [(f"{wnid}_1.JPEG", crop(9))] for wnid in CLASSES}
    published = publish(place / "published", train, val)
    for name, index_only in (("folders", False), ("index", True)):
        prepare(place / name, source(published), 2, quiet, index_only=index_only)

    pictures = ImageFolder(str(place / "folders" / "val"), ResNet50_Weights.IMAGENET1K_V1.transforms())
    images, labels = torch.stack([picture for picture, _ in pictures]), torch.tensor(pictures.targets)
    torch.manual_seed(0)
    network = resnet50(num_classes=len(CLASSES))
    with torch.no_grad():
        network(images)  # running statistics that belong to such images
        logits = network.eval()(images)
    torch.save(network.state_dict(), place / "resnet50-0676ba61.pth")
    # Needed by no evaluation:
    shutil.rmtree(place / "folders" / "train")
    published.train_tar.unlink()
    return User(place / "folders", place / "index", place / "resnet50-0676ba61.pth", logits, labels)


@pytest.mark.parametrize("layout", ["folders", "index"])
def test_torchvisions_weights_have_torchvisions_logits_on_the_validation_images_alone(
    user: User, layout: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logits: list[torch.Tensor] = []
    predict = Stepper.predict

    def noting(self: Stepper, images: torch.Tensor) -> torch.Tensor:
        logits.append(predict(self, images))
        return logits[-1]

    monkeypatch.setattr(Stepper, "predict", noting)
    place = user.folders if layout == "folders" else user.index
    assert evaluate.main([str(user.weights), str(place), "--bs", "8", "--num_workers", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    ours = torch.cat(logits)
    assert torch.allclose(ours, user.logits, rtol=1e-4, atol=1e-4 * float(user.logits.abs().max()))
    assert torch.equal(ours.topk(5).indices, user.logits.topk(5).indices)
    best = user.logits.topk(5).indices == user.labels[:, None]
    assert (found["top1"], found["top5"]) == (best[:, 0].sum().item() / 14, best.sum().item() / 14)
    loss = torch.nn.functional.cross_entropy(user.logits, user.labels).item()
    assert found["loss"] == pytest.approx(loss, rel=1e-5)
    assert (found["model"], found["images"], found["eval_size"], found["precision"]) == ("resnet50", 14, 224, "float32")


def test_a_validation_set_that_is_not_there_is_named(
    user: User, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main([str(user.weights), str(tmp_path)]) == 66
    line = f"evaluate: --dataset_path: {tmp_path}/val does not exist; it must hold a folder for each class\n"
    assert capsys.readouterr().err == line
