"""One checked ONNX file, from whatever names a network; refusals that leave nothing behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from app import export, onnx_metadata
from app.data.decode import read_image
from app.onnx_metadata import Metadata
from app.resilience import checkpoint
from tests.pictures import CLASSES, SIDE, network


def outcome(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    code = export.main([str(each) for each in argv])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_file_computes_what_the_network_does_at_any_batch_and_says_what_it_is(
    foreign: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "network.onnx"
    code, out, err = outcome(capsys, foreign, target, "--dataset_path", data, "--eval_size", SIDE)
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert said["path"] == str(target)
    assert 0 <= said["max_difference"] < 1e-4
    written = onnx.load(target)
    assert said["opset"] == written.opset_import[0].version == 17
    assert not [tensor.name for tensor in written.graph.initializer if tensor.external_data]
    metadata = Metadata.parse({each.key: each.value for each in written.metadata_props})
    assert (metadata.model, metadata.classes, metadata.resize, metadata.crop) == ("resnet18", CLASSES, 27, SIDE)
    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    images = np.stack([metadata.pixels(read_image(str(path))) for path in sorted(data.glob("val/*/*"))])
    for count in (1, 3, 9):
        with torch.no_grad():
            expected = network().eval()(torch.from_numpy(images[:count])).numpy()
        answer = session.run([onnx_metadata.OUTPUT], {onnx_metadata.INPUT: images[:count]})[0]
        np.testing.assert_allclose(answer, expected, rtol=1e-3, atol=1e-4)
    assert list(tmp_path.iterdir()) == [target]


def test_images_and_a_file_of_class_names_stand_in_for_a_data_set(
    foreign: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "names.txt").write_text("Katze\nHund\nAal\n")
    words = ["--eval_size", SIDE, "--classes", tmp_path / "names.txt", "--images", *(data / "val/cat").iterdir()]
    code, out, err = outcome(capsys, foreign, tmp_path / "network.onnx", "--text", *words)
    assert (code, err) == (0, "")
    assert out.startswith(f"{tmp_path / 'network.onnx'}: opset 17, fp32, any batch size; torch and onnxruntime agree")
    written = onnx.load(tmp_path / "network.onnx")
    found = Metadata.parse({each.key: each.value for each in written.metadata_props})
    assert found.classes == ["Katze", "Hund", "Aal"]


def test_a_checkpoint_brings_its_class_names_and_counters(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = {f"model.{name}": tensor for name, tensor in network().state_dict().items()}
    state = {"model": "resnet18", "classes": CLASSES, "dataset": "imagenet", "eval_size": SIDE, "epoch": 4, "step": 7}
    own = checkpoint.save(tmp_path, 7, tensors, state).path
    code, _, err = outcome(capsys, own, tmp_path / "n.onnx", "--images", data / "val/cat/0.png")
    assert (code, err) == (0, "")
    properties = {each.key: each.value for each in onnx.load(tmp_path / "n.onnx").metadata_props}
    assert (json.loads(properties["classes"]), properties["epoch"], properties["step"]) == (CLASSES, "4", "7")

    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    words = ["--images", data / "val/cat/0.png", "--classes", tmp_path / "names.txt"]
    code, _, err = outcome(capsys, own, tmp_path / "n.onnx", *words)
    assert (code, err) == (64, "export: --classes: leave it out: the checkpoint names its classes\n")


def test_a_file_that_does_not_agree_with_the_network_is_not_left_there(
    foreign: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    (tmp_path / "network.onnx").write_text("an older one")
    words = [foreign, tmp_path / "network.onnx", "--dataset_path", data, "--eval_size", SIDE]
    code, out, err = outcome(capsys, *words)
    assert (code, out) == (70, "")
    assert "torch and onnxruntime differ by" in err
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("network.onnx", "an older one")]


def refusals(foreign: Path, data: Path, tmp_path: Path) -> list[tuple[list[Any], int, str]]:
    image, two, bad = data / "val/cat/0.png", tmp_path / "two.txt", tmp_path / "bad.png"
    two.write_text("a\nb\n")
    bad.write_text("no image")
    out = tmp_path / "o.onnx"
    return [
        ([foreign, out], 64, "--dataset_path: the file is checked over real images: give the folder of imagenet"),
        ([foreign, out, "--images", image], 64, f"--classes: {foreign} names no classes: give a text file"),
        ([foreign, out, "--images", image, "--classes", two], 65, f"{foreign} tells 3 classes apart, {two} has 2"),
        ([foreign, out, "--images", image, "--classes", image], 65, f"{image} is no text in UTF-8"),
        ([foreign, out, "--images", image, "--classes", tmp_path / "no"], 66, "no cannot be read"),
        ([foreign, out, "--dataset", "digits"], 65, "tells 3 classes apart, the data set has 10"),
        ([foreign, out, "--dataset_path", data, "--images", bad], 65, f"{bad} is no image that can be decoded"),
        ([foreign, out, "--dataset_path", data, "--classes", two], 64, "--classes: leave it out: the data set names"),
        ([foreign, out, "--dataset_path", tmp_path / "no"], 66, "no does not exist"),
        ([foreign, tmp_path / "no/o.onnx", "--images", image], 64, "no does not exist"),
        ([foreign, two / "o.onnx", "--images", image], 64, "two.txt is no directory"),
        ([tmp_path / "no.pth", out, "--images", image], 66, "no.pth cannot be read: No such file"),
        ([foreign, out, "--model_name", "resnet34", "--images", image], 65, "is not resnet34"),
        ([foreign, out, "--model_name", "resnet19"], 64, "--model_name: 'resnet19' is not one of"),
        ([foreign], 64, "command line: the following arguments are required: OUT.onnx"),
    ]


def test_what_can_t_be_exported_is_one_line_and_leaves_nothing(
    foreign: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESNET_OPERATOR_CACHE", str(tmp_path / "cache"))
    for words, expected, line in refusals(foreign, data, tmp_path):
        code, out, err = outcome(capsys, *words)
        assert (code, out, err.count("\n")) == (expected, "", 1), (words, err)
        assert err.startswith("export: ")
        assert line in err
    assert list(tmp_path.glob("*.onnx*")) + list(tmp_path.glob(".*")) == []
