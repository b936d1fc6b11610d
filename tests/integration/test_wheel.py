"""The wheel holds what an installed resnetctl needs, the job's template among it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_an_installed_resnetctl_renders_without_a_checkout(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(ROOT / "pyproject.toml", source)
    (source / "README.md").touch()
    for part in ("app", "controller", "manifests"):
        shutil.copytree(ROOT / part, source / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools.build_meta import build_wheel; build_wheel('dist')"
    built = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = (source / "dist").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    shutil.copy(ROOT / "examples" / "resnet50-4cards.yaml", tmp_path)

    def resnetctl(*args: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "controller.cli", *args],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    rendered = resnetctl("render", "-f", "resnet50-4cards.yaml")
    assert '"tecorigin.com/tcaicard": 16' in rendered
    assert f"resnet-operator-training:{resnetctl('--version').split()[1]}" in rendered
