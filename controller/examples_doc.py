"""docs/examples.md, made from examples/: `python -m controller.examples_doc .` prints it, `make docs` writes it."""

from __future__ import annotations

import sys
from pathlib import Path

from app.config import plan
from controller.api import Experiment, load_file, train_config
from controller.render import render_text

_RENDERED = "resnet50-2nodes"
_HEAD = """# Examples

Made from `examples/` by `make docs`; a test fails where it is not current. Each file is also a preset of
`charts/resnet-experiment`. The sdaa rows are those of ModelZoo's ResNet README; what has run on which hardware is in
[accelerators.md](accelerators.md#what-has-run-where).

| file | model | devices | global batch | learning rate | warm-up | epochs |
| --- | --- | --- | --- | --- | --- | --- |
"""
_JOB = """## What becomes of one

`resnetctl render -f examples/{name}.yaml --training-image IMAGE` prints the PyTorchJob of its first attempt. Only the
operator makes the next ones; `--standalone` renders it for a cluster without the operator.

```yaml
{job}```
"""


def markdown(folder: Path) -> str:
    """The whole page, of the files in that folder."""
    files = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    experiments = {name: load_file(path) for name, path in files.items()}
    rows = "".join(_row(name, experiment) for name, experiment in experiments.items())
    parts = [_HEAD + rows, *(_section(name, path.read_text(encoding="utf-8")) for name, path in files.items())]
    job = render_text(experiments[_RENDERED], 1, training_image="IMAGE")
    return "\n".join([*parts, _JOB.format(name=_RENDERED, job=job)])


def _row(name: str, experiment: Experiment) -> str:
    facts = plan(train_config(experiment))
    devices = f"{facts['nproc_per_node']} {facts['device']}"
    cells = [
        f"[`{name}.yaml`](#{name})",
        facts["model"],
        devices if facts["nnodes"] == 1 else f"{facts['nnodes']} x {devices}",
        facts["global_batch"],
        f"{facts['learning_rate']:g}",
        f"{facts['warmup_epochs']} epochs",
        facts["epochs"],
    ]
    return f"| {' | '.join(map(str, cells))} |\n"


def _section(name: str, text: str) -> str:
    lines = text.splitlines()
    first = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    comment = "\n".join(line.removeprefix("# ").removeprefix("#").strip() for line in lines[:first])
    content = "\n".join(lines[first:])
    return f"## {name}\n\n{comment.replace('<', '&lt;')}\n\n```yaml\n{content}\n```\n"


if __name__ == "__main__":
    sys.stdout.write(markdown(Path(sys.argv[1]) / "examples"))
