"""`python -m tests.compat [ARGUMENTS OF PYTEST]`: what concerns app/, on torch 2.4, the oldest that it runs on.

Without arguments: the unit tests that need nothing of controller/ or deviceplugin/, and the trainings on the stand-in
for a Teco card, whose vendor still ships torch 2.4. The environment (requirements/compat.txt, about 5 GB: PyPI has
torch 2.4 with CUDA only) is made once, in the cache.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from tests.cluster.cache import built, entry

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements/compat.txt"


def environment() -> Path:
    """The virtual environment of the lock file, made if it is not there."""
    return built(entry("compat", [LOCK], sys.version), _make)


def _make(at: Path) -> None:
    print(
        "installing torch 2.4 and what belongs to it into the cache (the first time: a few minutes, 5 GB)", flush=True
    )
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", at], check=True)
    uv = Path(sys.executable).with_name("uv")
    subprocess.run(
        [uv, "pip", "sync", "--quiet", "--python", at / "bin/python", "--require-hashes", LOCK], check=True, cwd=ROOT
    )


def concerns_app(test: Path) -> bool:
    """Whether a test, with the helpers of tests/ that it imports, does without controller/ and deviceplugin/."""
    for node in ast.walk(ast.parse(test.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            helper = ROOT / f"{name.replace('.', '/')}.py"
            if name.split(".")[0] in ("controller", "deviceplugin") or (
                helper.is_file() and name[:6] == "tests." and not concerns_app(helper)
            ):
                return False
    return True


def main(arguments: list[str]) -> int:
    """The exit code of pytest."""
    if sys.version_info[:2] != (3, 11):
        found = ".".join(map(str, sys.version_info[:2]))
        print(f"test-compat: requirements/compat.txt is locked for Python 3.11, not {found}: make clean, then "
              "make test-compat PYTHON=python3.11", file=sys.stderr)  # fmt: skip
        return 1
    try:
        python = environment() / "bin/python"
    except subprocess.CalledProcessError as error:
        print(f"test-compat: the environment could not be made: {error}", file=sys.stderr)
        return 1
    chosen = arguments or [
        *sorted(str(test) for test in (ROOT / "tests/unit").glob("test_*.py") if concerns_app(test)),
        str(ROOT / "tests/integration/test_sdaa.py"),
    ]
    return subprocess.run([python, "-m", "pytest", *chosen], check=False, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
