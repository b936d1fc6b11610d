"""Top-1, top-5 and loss of a checkpoint or a foreign .pth over a validation set, by the training's own validation.

`python -m app.evaluate CHECKPOINT DATASET_PATH`
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app import tools
from app.config import TrainConfig, check
from app.data.errors import shown
from app.resilience.exit_codes import ExitCode, TrainingError
from app.telemetry.events import finite

PROGRAM = "evaluate"

try:
    from app import weights
    from app.accelerators.find import find
    from app.data.loader import Loader
    from app.data.open import open_validation
    from app.data.samples import Dataset
    from app.ranks import Rank
    from app.step import Stepper
    from app.validation import Validation, validate
except ImportError as error:
    tools.lacking(PROGRAM, error)

DEFAULT_BATCH = 64
SECONDS_BETWEEN_LINES = 10.0
"""Of progress, on stderr: a CPU takes an hour for ImageNet's 50,000 images."""


@dataclass(frozen=True)
class Result:
    """A judged network.

    Attributes:
        facts: of the network.
        config: what it was judged with.
        validation: the numbers.
        precision: what it computed in.
        seconds: what that took, from the first image on.
    """

    facts: weights.Facts
    config: TrainConfig
    validation: Validation
    precision: str
    seconds: float

    def values(self) -> dict[str, Any]:
        """As JSON values; top1 and top5 are ratios."""
        found = self.validation
        known = {
            "path": str(self.facts.path), "model": self.facts.model, "epoch": self.facts.epoch, "step": self.facts.step,
            "dataset": self.config.dataset, "dataset_path": self.config.dataset_path or None,
            "averaged": self.facts.averaged, "eval_size": self.config.evaluation_size, "images": found.images,
            "top1": found.top1, "top5": found.top5, "loss": found.loss, "device": self.config.device,
            "precision": self.precision, "seconds": self.seconds, "images_per_second": found.images / self.seconds,
        }  # fmt: skip
        return dict(finite(known))

    def line(self) -> str:
        """For a person."""
        found, config = self.validation, self.config
        averaged = " (moving average)" if self.facts.averaged else ""
        return (
            f"{self.facts.model} in {shown(self.facts.path)}{averaged} on {found.images} validation images of "
            f"{config.dataset} at {config.evaluation_size} px ({config.device}, {self.precision}): "
            f"top-1 {found.top1:.2%}, top-5 {found.top5:.2%}, loss {found.loss:.4f}; "
            f"{self.seconds:.1f} s, {found.images / self.seconds:.0f} images/s"
        )


def evaluate(source: Path, dataset_path: str, given: Mapping[str, Any]) -> Result:
    """Judges a network on every validation image, each exactly once.

    Args:
        source: as `app.weights.read` takes it.
        dataset_path: folder of the data set; of image folders only val/ is needed.
        given: TrainConfig fields by name, of those that `main` has flags for. Absent ones are the checkpoint's own;
            for a foreign file ImageNet at 224 px.

    Raises:
        TrainingError: the file, the data, the device or their match is not as it should be.
        ConfigError: a field of `given` is not.
    """
    network, facts = weights.load_network(
        source, model_name=given.get("model", ""), trust_checkpoint=given.get("trust_checkpoint", False)
    )
    own = {"dataset": facts.dataset, "eval_size": facts.eval_size, "batch_size": DEFAULT_BATCH, "device": "cpu"}
    values = {**{name: value for name, value in own.items() if value is not None}, **given, "model": facts.model}
    # No step is ever made with that learning rate.
    config = TrainConfig(**values, dataset_path=dataset_path, learning_rate=0.1)
    check(config)
    accelerator = find(config.device)
    device = accelerator.claim(0)
    images, classes = open_validation(config)
    weights.check_classes(facts, classes, config.dataset)
    if facts.classes is None:
        first, last = shown(classes[0]), shown(classes[-1])
        _note(f"{shown(facts.path)} names no classes: taking them for the sorted class folders, {first} to {last}")
    # The loader refuses a batch that the training set can't fill; here only the validation set counts.
    config = replace(config, batch_size=min(config.batch_size, len(images)))
    with Loader(Dataset(images, images, classes), config, rank=0, pinning=accelerator.pinning()) as loader:
        stepper = Stepper(config, network, accelerator, device, peers=False)
        began = time.monotonic()
        alive = _Progress(len(images), config.batch_size)
        batches = loader.validation_batches()
        found = validate(network, stepper.predict, batches, Rank(), abandon=lambda: False, alive=alive)
        assert found is not None, "only ranks that abandon a validation have no result"
        precision = str(stepper.precision or "float32").removeprefix("torch.")
        return Result(facts, config, found, precision, time.monotonic() - began)


class _Progress:
    """A line on stderr now and then; called after each batch."""

    def __init__(self, images: int, batch: int) -> None:
        self._images, self._batch, self._batches = images, batch, 0
        self._said = time.monotonic()

    def __call__(self) -> None:
        self._batches += 1
        if time.monotonic() - self._said >= SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            _note(f"{min(self._images, self._batches * self._batch)} of {self._images} images")


def _note(line: str) -> None:
    print(f"{PROGRAM}: {line}", file=sys.stderr, flush=True)


def main(argv: Sequence[str]) -> int:
    """Prints the numbers as one line, or as JSON; errors as one line on stderr."""
    return tools.run(PROGRAM, lambda: _work(argv))


def _work(argv: Sequence[str]) -> int:
    parser = tools.Parser(
        PROGRAM, "Top-1, top-5 and loss of a network over a validation set, by the training's own validation."
    )
    parser.add_argument(
        "checkpoint", type=Path,
        help="step-<k>, a directory of checkpoints (the newest good one), or a .pth, .pt or .safetensors state dict",
    )  # fmt: skip
    parser.add_argument(
        "dataset_path", nargs="?", default="", metavar="DATASET_PATH",
        help="folder that holds val/ (train/ is not needed), or the index of the tars; digits, synthetic: none",
    )  # fmt: skip
    parser.add_training_options(
        dataset="the checkpoint's, else imagenet", eval_size="the checkpoint's, else the data set's own",
        model="recognised", batch_size=str(DEFAULT_BATCH), device="cpu", num_workers="2", autocast="False",
        trust_checkpoint="False",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a line")
    arguments, given = parser.read(argv)
    try:
        result = evaluate(arguments.checkpoint, arguments.dataset_path, given)
    except RuntimeError as error:
        device = find(given.get("device", "cpu"))
        if device.failed(error):
            raise TrainingError(ExitCode.DEVICE, tools.first_line(error)) from None
        raise
    print(json.dumps(result.values()) if arguments.json else result.line())
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
