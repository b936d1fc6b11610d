"""Predicting from an ONNX file alone: its metadata, torchvision's preprocessing without torch, the printed answer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from PIL import Image
from torchvision.transforms import Compose

from app.data.datasets import DatasetFacts
from app.data.decode import MEAN, STD, evaluation_transform
from app.onnx_metadata import Metadata, NoMetadata
from app.predict import main

ROOT = Path(__file__).parents[2]
COLOURS = Metadata("mean", ["red", "green", "blue"], 20, 16, (0.0, 0.0, 0.0), (0.1, 0.1, 0.1))


def mean_colour(path: Path, properties: dict[str, str], name: str = "images") -> Path:
    """A network whose logits are ten times the mean of red, green and blue."""
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", [name], ["logits"], axes=[2, 3], keepdims=0)],
        "mean",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3, 16, 16])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, properties)
    onnx.save(model, path)
    return path


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    return mean_colour(tmp_path / "colours.onnx", COLOURS.properties())


def image(path: Path, colour: tuple[int, int, int]) -> str:
    Image.new("RGB", (40, 30), colour).save(path)
    return str(path)


@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    crop=st.integers(2, 30),
    more=st.sampled_from([1.0, 8 / 7, 1.5]),
)
def test_an_image_becomes_what_torchvision_makes_of_it(width: int, height: int, crop: int, more: float) -> None:
    pixels = np.random.default_rng(width * 100 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    ours = Metadata("m", ["a"], round(crop * more), crop, MEAN, STD).pixels(picture)
    theirs: Compose = evaluation_transform(crop, DatasetFacts(resize=more))
    expected = (theirs(picture).numpy() / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    assert ours.shape == (3, crop, crop)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("counters", [{}, {"epoch": 3, "step": 99}])
def test_metadata_survive_being_written(counters: dict[str, int]) -> None:
    written = Metadata("resnet18", ["n01", "étagère"], 256, 224, MEAN, STD, **counters).properties()
    assert Metadata.parse(written) == Metadata("resnet18", ["n01", "étagère"], 256, 224, MEAN, STD)
    assert {name: written[name] for name in counters} == {name: str(value) for name, value in counters.items()}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"classes": None}, "no 'classes'"),
        ({"preprocessing": None}, "no 'preprocessing'"),
        ({"preprocessing": "{}"}, "no 'mean'"),
        ({"classes": "three"}, "can't be read"),
        ({"classes": '"abc"'}, "no list of names"),
        ({"preprocessing": '{"resize": 16, "crop": 20, "mean": [0, 0, 0], "std": [1, 1, 1]}'}, "makes no sense"),
        ({"preprocessing": '{"resize": 16, "crop": 16, "mean": [0, 0, 0], "std": [1, 0, 1]}'}, "makes no sense"),
        ({"preprocessing": '{"resize": 16, "crop": 16, "mean": [0], "std": [1]}'}, "makes no sense"),
        ({"preprocessing": '{"resize": 16, "crop": "all", "mean": [0], "std": [1]}'}, "can't be read"),
    ],
)
def test_metadata_that_are_not_ours_are_refused(change: dict[str, Any], said: str) -> None:
    properties = {name: value for name, value in {**COLOURS.properties(), **change}.items() if value is not None}
    with pytest.raises(NoMetadata, match=said):
        Metadata.parse(properties)


def test_the_likeliest_classes_are_printed_for_every_image(
    colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    red, sea = image(tmp_path / "red.png", (255, 0, 0)), image(tmp_path / "sea.png", (0, 102, 204))
    assert main([str(colours), red, sea, "--top", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        red, "   99.99%  red", "    0.00%  green", sea, "   98.17%  blue", "    1.80%  green"
    ]  # fmt: skip


def test_json_is_one_object_a_line_with_all_classes_where_there_are_fewer_than_asked(
    colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sea = image(tmp_path / "sea.png", (0, 102, 204))
    assert main([str(colours), sea, "--json"]) == 0
    (found,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found["image"] == sea
    assert [each["class"] for each in found["top"]] == ["blue", "green", "red"]
    expected = np.exp([8, 4, 0]) / np.exp([8, 4, 0]).sum()
    assert [each["probability"] for each in found["top"]] == pytest.approx(expected)


def test_a_bad_image_is_one_line_and_the_others_are_answered(
    colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, red = tmp_path / "bad.png", image(tmp_path / "red.png", (255, 0, 0))
    bad.write_text("no image")
    assert main([str(colours), str(bad), red, str(tmp_path / "none.png"), "--top", "1"]) == 65
    out, err = capsys.readouterr()
    assert out.splitlines() == [red, "   99.99%  red"]
    assert err.splitlines() == [
        f"predict: {bad} is no image that can be decoded (8 bytes that are no image)",
        f"predict: {tmp_path / 'none.png'} cannot be read: No such file or directory",
    ]


def another_input(path: Path) -> None:
    mean_colour(path, COLOURS.properties(), name="x")


def fewer_names(path: Path) -> None:
    mean_colour(path, {**COLOURS.properties(), "classes": '["a", "b"]'})


@pytest.mark.parametrize(
    ("make", "code", "said"),
    [
        (lambda path: None, 66, "cannot be read: No such file or directory"),
        (lambda path: path.write_text("text"), 65, "can't be loaded by onnxruntime"),
        (lambda path: mean_colour(path, {}), 65, "has no 'classes' in its metadata: it was not written by `resnetctl"),
        (fewer_names, 65, "2 class names"),
        (another_input, 65, "has inputs ['x']"),
    ],
)
def test_a_file_that_is_no_export_of_ours_is_one_line(
    make: Any, code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.onnx"
    make(path)
    assert main([str(path), image(tmp_path / "red.png", (255, 0, 0))]) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"predict: {path} ")
    assert said in err


@pytest.mark.parametrize("top", ["0", "-1", "all"])
def test_top_must_be_a_number(top: str, colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(colours), "image.png", f"--top={top}"]) == 64
    assert f"--top must be a whole number from 1 on, not '{top}'" in capsys.readouterr().err


def test_no_torch_is_needed(colours: Path, tmp_path: Path) -> None:
    words = [str(colours), image(tmp_path / "red.png", (255, 0, 0))]
    code = (
        "import sys\nfor name in ('torch', 'torchvision', 'onnx', 'safetensors'): sys.modules[name] = None\n"
        f"from app.predict import main\nsys.exit(main({words!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "99.99%  red" in done.stdout
