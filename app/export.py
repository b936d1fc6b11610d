"""A network as one ONNX file, checked over real images before it is called done.

`python -m app.export CHECKPOINT OUT.onnx` runs in a process of its own, so that nothing that goes wrong in an exporter
can hurt a finished training.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app import tools
from app.config import ConfigError, TrainConfig
from app.data.datasets import DATASETS
from app.data.errors import shown, unreadable, unwritable
from app.resilience.exit_codes import ExitCode, TrainingError

PROGRAM = "export"

try:
    import numpy as np
    import onnx
    import onnxruntime
    import torch
    from numpy.typing import NDArray
    from PIL import Image

    from app import weights
    from app.data.decode import MEAN, STD, read_image
    from app.data.open import open_validation
    from app.data.samples import BadImage, Dataset
    from app.onnx_metadata import INPUT, OUTPUT, Metadata
except ImportError as error:
    tools.lacking(PROGRAM, error)

OPSET = 17
"""Old enough for the inference engines in the field, new enough for every operator of a ResNet."""
CHECKED_BATCHES = (1, 2, 7)
TOLERANCE = 1e-3
"""Largest difference of a logit between torch and onnxruntime, both fp32, relative to the largest logit."""


@dataclass(frozen=True)
class Order:
    """What is to be exported, and over what it is checked: a data set's validation images, or these files.

    Attributes:
        source: as `app.weights.read` takes it.
        target: the ONNX file.
        dataset_path: folder of the data set.
        images: image files, instead of the data set's.
        classes: text file with one class name a line, for a foreign file without a data set.
        dataset, eval_size, model_name: instead of what the checkpoint says; "" and 0 where they were not given.
        trust_checkpoint: as `app.weights.read`.
    """

    source: Path
    target: Path
    dataset_path: str = ""
    images: tuple[str, ...] = ()
    classes: Path | None = None
    dataset: str = ""
    eval_size: int = 0
    model_name: str = ""
    trust_checkpoint: bool = False


def export(order: Order) -> dict[str, Any]:
    """Writes and checks the ONNX file; one that fails its check is never left there.

    Returns:
        path, max_difference (see `largest_difference`), opset.

    Raises:
        TrainingError: 64 to 66 something of `order` is not as it should be, 70 torch and onnxruntime do not agree,
            144 a volume failed.
        ConfigError: an option that is needed with this file is not there.
    """
    if not order.target.parent.is_dir():
        problem = "is no directory" if order.target.parent.exists() else "does not exist"
        raise TrainingError(ExitCode.BAD_OPTION, f"{shown(order.target)}: {shown(order.target.parent)} {problem}")
    network, facts = weights.load_network(
        order.source, model_name=order.model_name, trust_checkpoint=order.trust_checkpoint
    )
    dataset = order.dataset or facts.dataset or "imagenet"
    size = order.eval_size or facts.eval_size or DATASETS[dataset].image_size
    data = _data(order, dataset, size)
    metadata = Metadata(
        facts.model, class_names(order, facts, data), round(size * DATASETS[dataset].resize), size, MEAN, STD,
        facts.epoch, facts.step,
    )  # fmt: skip
    images = real_images(order, data, metadata)
    temporary = order.target.with_name(f".{order.target.name}.tmp-{os.getpid()}")
    try:
        write_onnx(network, metadata, temporary)
        difference = largest_difference(network, temporary, images)
        if not difference <= TOLERANCE:
            raise TrainingError(
                ExitCode.INTERNAL, f"torch and onnxruntime differ by {difference:.2g} of the largest logit"
            )
        os.replace(temporary, order.target)
    except OSError as error:
        raise unwritable(order.target, error, "name a file that can be") from None
    finally:
        temporary.unlink(missing_ok=True)
    return {"path": str(order.target), "max_difference": difference, "opset": OPSET}


def _data(order: Order, dataset: str, size: int) -> Dataset | None:
    """The data set whose images the file is checked over; None where image files were given.

    Raises:
        ConfigError: neither was given.
        TrainingError: as `open_validation`.
    """
    if order.images and not order.dataset_path:
        return None
    if DATASETS[dataset].needs_path and not order.dataset_path:
        raise ConfigError(
            "dataset_path",
            f"the file is checked over real images: give the folder of {dataset} (train/ and val/), "
            "or image files with --images",
        )
    val, classes = open_validation(TrainConfig(dataset=dataset, dataset_path=order.dataset_path, image_size=size))
    return Dataset(val, val, classes)


def class_names(order: Order, facts: weights.Facts, data: Dataset | None) -> list[str]:
    """The names of the outputs: the checkpoint's, else the data set's, else those in the file `--classes`.

    Raises:
        TrainingError: 65, they are not as many as there are outputs, or the data set's are others.
        ConfigError: there are none, or two sources.
    """
    if order.classes is not None and (facts.classes is not None or data is not None):
        whose = "the checkpoint names its classes" if facts.classes is not None else "the data set names them"
        raise ConfigError("--classes", f"leave it out: {whose}")
    if data is not None:
        weights.check_classes(facts, data.classes, f"the data set {order.dataset_path}".rstrip())
        return data.classes
    if facts.classes is not None:
        return facts.classes
    if order.classes is None:
        raise ConfigError(
            "--classes", f"{shown(facts.path)} names no classes: give a text file with one name a line, in their order"
        )
    try:
        names = order.classes.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise unreadable(order.classes, error) from None
    except UnicodeDecodeError:
        raise TrainingError(ExitCode.BAD_DATA, f"{shown(order.classes)} is no text in UTF-8") from None
    weights.check_classes(facts, names, shown(order.classes))
    return names


def real_images(order: Order, data: Dataset | None, metadata: Metadata) -> torch.Tensor:
    """The images to check with, as the file's own metadata prepares them: float32 max(CHECKED_BATCHES) x 3 x S x S.

    Those of the data set are spread over its classes; files that are fewer come again from the first on.

    Raises:
        TrainingError: 65 one is no image, 66 or 144 it can't be read.
    """
    count = max(CHECKED_BATCHES)

    def load(i: int) -> Image.Image:
        if order.images or data is None:
            return read_image(order.images[i % len(order.images)])
        return data.val.load(i * (len(data.val) - 1) // (count - 1))

    try:
        pixels: list[NDArray[np.float32]] = [metadata.pixels(load(i)) for i in range(count)]
    except BadImage as bad:
        raise TrainingError(ExitCode.BAD_DATA, f"{bad.name} is no image that can be decoded ({bad.why})") from None
    return torch.from_numpy(np.stack(pixels))


def write_onnx(network: torch.nn.Module, metadata: Metadata, path: Path) -> None:
    """Writes the network with its class names and preprocessing as metadata; the batch is dynamic.

    Input and output are described in `app.onnx_metadata`.
    """
    # The exporter that every torch from 2.4 on has; the newer one needs torch 2.9 and writes opset 18 and above.
    options: dict[str, Any] = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (torch.zeros(2, 3, metadata.crop, metadata.crop),), str(path), input_names=[INPUT],
            output_names=[OUTPUT], dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}}, opset_version=OPSET,
            **options,
        )  # fmt: skip
    written = onnx.load(path)
    onnx.helper.set_model_props(written, metadata.properties())
    onnx.checker.check_model(written, full_check=True)
    onnx.save(written, path)


def largest_difference(network: torch.nn.Module, path: Path, images: torch.Tensor) -> float:
    """The largest difference of a logit between torch and onnxruntime, relative to the largest logit.

    Args:
        network: fp32, in evaluation mode.
        path: the ONNX file.
        images: real images, float32 max(CHECKED_BATCHES) x 3 x S x S.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    worst = 0.0
    for batch in CHECKED_BATCHES:
        with torch.no_grad():
            ours = network(images[:batch]).numpy()
        theirs = session.run(None, {INPUT: images[:batch].numpy()})[0]
        worst = max(worst, float(np.abs(ours - theirs).max() / max(1.0, np.abs(ours).max())))
    return worst


def main(argv: Sequence[str]) -> int:
    """Prints the result as one JSON line, or for a person; errors as one line on stderr."""
    return tools.run(PROGRAM, lambda: _work(argv))


def _work(argv: Sequence[str]) -> int:
    parser = tools.Parser(PROGRAM, "Writes a network as one ONNX file, and checks it over real images.")
    parser.add_argument(
        "checkpoint", type=Path,
        help="step-<k>, a directory of checkpoints (the newest good one), or a .pth, .pt or .safetensors state dict",
    )  # fmt: skip
    parser.add_argument("target", type=Path, metavar="OUT.onnx", help="the file to write")
    parser.add_training_options(
        dataset_path="", dataset="the checkpoint's, else imagenet",
        eval_size="the checkpoint's, else the data set's own", model="recognised", trust_checkpoint="False",
    )  # fmt: skip
    parser.add_argument(
        "--images", nargs="+", default=(), metavar="FILE", help="check over these images instead of a data set's"
    )
    parser.add_argument(
        "--classes", type=Path, metavar="FILE",
        help="class names, one a line, where neither the checkpoint nor a data set says them",
    )  # fmt: skip
    # The last of the two counts: `resnetctl export` gives --text first.
    parser.add_argument("--text", action="store_true", help="print a line for a person")
    parser.add_argument("--json", dest="text", action="store_false", help="print one JSON object [default]")
    arguments, given = parser.read(argv)
    order = Order(
        arguments.checkpoint, arguments.target, given.get("dataset_path", ""), tuple(arguments.images),
        arguments.classes, given.get("dataset", ""), given.get("eval_size", 0), given.get("model", ""),
        given.get("trust_checkpoint", False),
    )  # fmt: skip
    result = export(order)
    line = (
        f"{shown(order.target)}: opset {OPSET}, fp32, any batch size; torch and onnxruntime agree to "
        f"{result['max_difference']:.1e} of the largest logit at batches {', '.join(map(str, CHECKED_BATCHES))} "
        "over real images"
    )
    print(line if arguments.text else json.dumps(result))
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
