"""Files of a pinned Go module: fetched through the Go client, checked against go.sum, read where Go keeps them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

TOOLCHAIN = Path(__file__).parent / "toolchain"


def module_directory(part: str, module: str) -> Path:
    """The directory of `module` in the version that toolchain/<part>/go.mod pins.

    Raises:
        RuntimeError: there is no Go, or the module can't be fetched or is not what go.sum says.
    """
    if shutil.which("go") is None:
        raise RuntimeError(f"the Go command is needed to read {module}: install Go, with `go` on PATH")
    done = subprocess.run(
        ["go", "mod", "download", "-json", module],
        cwd=TOOLCHAIN / part,
        env={**os.environ, "GOFLAGS": "-mod=readonly", "GOWORK": "off"},
        capture_output=True,
        text=True,
        check=False,
    )
    answer = json.loads(done.stdout or "{}")
    if done.returncode or "Dir" not in answer:
        raise RuntimeError(f"go mod download {module}: {answer.get('Error') or done.stderr.strip()}")
    return Path(answer["Dir"])
