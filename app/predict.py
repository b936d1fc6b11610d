"""What an exported network sees in images: needs the ONNX file and the images, and no torch.

`python -m app.predict MODEL.onnx IMAGE…`
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app import tools
from app.data.errors import shown, unreadable
from app.resilience.exit_codes import ExitCode, TrainingError

PROGRAM = "predict"

try:
    import numpy as np
    import onnxruntime
    from numpy.typing import NDArray

    from app.data.decode import read_image
    from app.data.samples import BadImage
    from app.onnx_metadata import INPUT, Metadata, NoMetadata
except ImportError as error:
    tools.lacking(PROGRAM, error)


class Predictor:
    """An exported network.

    Args:
        path: the ONNX file.

    Raises:
        TrainingError: 65 it is no such file, 66 it is not there.
    """

    def __init__(self, path: Path) -> None:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise unreadable(path, error) from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - its errors have no common class
            raise _bad(path, f"can't be loaded by onnxruntime: {tools.first_line(error)}") from None
        try:
            self.metadata = Metadata.parse(self._session.get_modelmeta().custom_metadata_map)
        except NoMetadata as error:
            raise _bad(path, f"has {error}: it was not written by `resnetctl export`") from None
        (outputs,), inputs = self._session.get_outputs(), [each.name for each in self._session.get_inputs()]
        if inputs != [INPUT] or outputs.shape[-1] != len(self.metadata.classes):
            names = len(self.metadata.classes)
            raise _bad(path, f"has inputs {inputs} and outputs {outputs.shape} but {names} class names in its metadata")

    def probabilities(self, image: str) -> NDArray[np.float64]:
        """The probability of every class, shape (classes,).

        Raises:
            BadImage, TrainingError: as `app.data.decode.read_image`.
        """
        logits = self._session.run(None, {INPUT: self.metadata.pixels(read_image(image))[None]})[0][0]
        powers = np.exp(logits.astype(np.float64) - logits.max())
        return np.asarray(powers / powers.sum())

    def best(self, image: str, count: int) -> list[tuple[str, float]]:
        """The `count` likeliest classes with their probabilities, the likeliest first."""
        found = self.probabilities(image)
        order = np.argsort(-found, kind="stable")[:count]
        return [(self.metadata.classes[i], float(found[i])) for i in order]


def main(argv: Sequence[str]) -> int:
    """Prints the likeliest classes of every image; an image that can't be read is a line, and 65 or 66 at the end."""
    return tools.run(PROGRAM, lambda: _work(argv))


def _work(argv: Sequence[str]) -> int:
    parser = tools.Parser(PROGRAM, "Shows the likeliest classes of images, by an exported network.")
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="a file that `resnetctl export` wrote")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="JPEG, PNG, PPM, BMP, TIFF or WebP files")
    parser.add_argument("--top", default="5", metavar="N", help="classes to show [default 5]")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    arguments, _ = parser.read(argv)
    if not (arguments.top.isascii() and arguments.top.isdigit() and int(arguments.top[:9])):
        parser.error(f"--top must be a whole number from 1 on, not {arguments.top!r}")
    predictor = Predictor(arguments.model)
    worst = 0
    for image in arguments.images:
        try:
            found = predictor.best(image, int(arguments.top[:9]))
        except BadImage as bad:
            print(f"{PROGRAM}: {bad.name} is no image that can be decoded ({bad.why})", file=sys.stderr)
            worst = worst or ExitCode.BAD_DATA
        except TrainingError as error:
            print(f"{PROGRAM}: {error.message}", file=sys.stderr)
            worst = worst or error.code
        else:
            print(_json(image, found) if arguments.json else _text(image, found), flush=True)
    return worst


def _text(image: str, found: list[tuple[str, float]]) -> str:
    return "\n".join([shown(image), *(f"  {probability:7.2%}  {name}" for name, probability in found)])


def _json(image: str, found: list[tuple[str, float]]) -> str:
    top: list[dict[str, Any]] = [{"class": name, "probability": probability} for name, probability in found]
    return json.dumps({"image": shown(image), "top": top})


def _bad(path: Path, why: str) -> TrainingError:
    return TrainingError(ExitCode.BAD_DATA, f"{shown(path)} {why}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
