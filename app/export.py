"""A checkpoint as one ONNX file, checked before it is called done.

`python -m app.export CHECKPOINT OUT.onnx` runs in a process of its own, so that nothing that goes wrong in an exporter
can hurt a finished training.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from app import model
from app.config import TrainConfig
from app.data.datasets import DATASETS
from app.data.decode import MEAN, STD, evaluation_transform
from app.data.open import open_dataset
from app.resilience import checkpoint
from app.resilience.exit_codes import ExitCode, TrainingError

OPSET = 17
"""Old enough for the inference engines in the field, new enough for every operator of a ResNet."""
CHECKED_BATCHES = (1, 2, 7)
TOLERANCE = 1e-3
"""Largest difference of a logit between torch and onnxruntime, both fp32, relative to the largest logit."""


def load_network(path: Path) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The network of a checkpoint, in fp32 on the CPU, ready to predict, and the checkpoint's state.

    Raises:
        TrainingError: 64, the checkpoint can't be read.
    """
    try:
        tensors, state = checkpoint.load(path)
    except checkpoint.BadCheckpoint as error:
        raise TrainingError(ExitCode.BAD_OPTION, str(error)) from None
    network = model.build(state["model"], len(state["classes"]), seed=0)
    prefix = "model."
    network.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    return network.eval(), state


def real_images(state: dict[str, Any], dataset_path: str, count: int) -> torch.Tensor:
    """Validation images spread over the classes, normalised, float32 count x 3 x S x S."""
    config = TrainConfig(dataset=state["dataset"], dataset_path=dataset_path, image_size=state["image_size"])
    validation = open_dataset(config).val
    see = evaluation_transform(state["image_size"], DATASETS[state["dataset"]])
    picked = np.linspace(0, len(validation) - 1, count).astype(int)
    pixels = torch.stack([see(validation.load(int(i))) for i in picked])
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (pixels.float() / 255 - mean) / std


def write_onnx(network: torch.nn.Module, state: dict[str, Any], path: Path) -> None:
    """Writes the network with its class names and preprocessing as metadata; the batch is dynamic.

    Input `images`: float32 N x 3 x S x S, normalised; output `logits`: float32 N x classes.
    """
    size = state["image_size"]
    # The exporter that every torch from 2.4 on has; the newer one needs torch 2.9 and writes opset 18 and above.
    options: dict[str, Any] = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (torch.zeros(2, 3, size, size),), str(path), input_names=["images"], output_names=["logits"],
            dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}}, opset_version=OPSET, **options,
        )  # fmt: skip
    written = onnx.load(path)
    preprocessing = {
        "resize": round(size * DATASETS[state["dataset"]].resize), "crop": size, "interpolation": "bilinear",
        "mean": MEAN, "std": STD, "layout": "NCHW", "color": "RGB", "range": "0-1 before mean and std",
    }  # fmt: skip
    facts = {
        "model": state["model"], "classes": json.dumps(state["classes"]), "preprocessing": json.dumps(preprocessing),
        "epoch": str(state["epoch"]), "step": str(state["step"]),
    }  # fmt: skip
    onnx.helper.set_model_props(written, facts)
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
        theirs = session.run(None, {"images": images[:batch].numpy()})[0]
        worst = max(worst, float(np.abs(ours - theirs).max() / max(1.0, np.abs(ours).max())))
    return worst


def export(source: Path, target: Path, dataset_path: str) -> dict[str, Any]:
    """Writes and checks `target`; a file that fails its check is never left there.

    Raises:
        TrainingError: 70, torch and onnxruntime do not agree.
    """
    network, state = load_network(source)
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    try:
        write_onnx(network, state, temporary)
        difference = largest_difference(network, temporary, real_images(state, dataset_path, max(CHECKED_BATCHES)))
        if not difference <= TOLERANCE:
            raise TrainingError(
                ExitCode.INTERNAL, f"torch and onnxruntime differ by {difference:.2g} of the largest logit"
            )
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return {"path": str(target), "max_difference": difference, "opset": OPSET}


def main(argv: list[str]) -> int:
    """Prints the result as one JSON line; errors as one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m app.export", description="checkpoint -> checked ONNX file")
    parser.add_argument("checkpoint", type=Path, help="a checkpoint directory (step-<k>)")
    parser.add_argument("target", type=Path, help="the ONNX file to write")
    parser.add_argument("--dataset_path", default="", help="where the validation images are")
    arguments = parser.parse_args(argv)
    try:
        print(json.dumps(export(arguments.checkpoint, arguments.target, arguments.dataset_path)))
    except TrainingError as error:
        print(f"export: {error.message}", file=sys.stderr)
        return error.code
    except OSError as error:
        print(f"export: {error}", file=sys.stderr)
        return ExitCode.VOLUME_IO
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
