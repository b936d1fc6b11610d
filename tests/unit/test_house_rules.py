"""Rules that no single module can keep alone."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
HEAVY = {"torch", "torchvision", "numpy", "onnx", "onnxruntime", "safetensors", "PIL"}


def imports(path: Path, *, in_functions: bool = True) -> set[str]:
    """Every module that a file imports; without those inside functions it is what importing the file brings in."""
    found: set[str] = set()
    for node in _nodes(ast.parse(path.read_text()), in_functions):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _nodes(tree: ast.AST, in_functions: bool) -> Iterator[ast.AST]:
    yield tree
    for child in ast.iter_child_nodes(tree):
        if in_functions or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _nodes(child, in_functions)


def light_modules_of_app() -> set[str]:
    """What the controller may import of app/: modules that import, by themselves and through others, nothing heavy."""
    files = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in (ROOT / "app").rglob("*.py")}
    needs = {name: imports(path, in_functions=False) for name, path in files.items()}
    heavy = {name for name, needed in needs.items() if {n.split(".")[0] for n in needed} & HEAVY}
    while more := {name for name, needed in needs.items() if name not in heavy and needed & heavy}:
        heavy |= more
    return set(files) - heavy


def test_the_controller_imports_no_framework_and_nothing_that_does() -> None:
    light = light_modules_of_app()
    assert "app.config" in light
    assert "app.train" not in light
    for path in sorted((ROOT / "controller").rglob("*.py")):
        needed = imports(path)
        assert not {name.split(".")[0] for name in needed} & HEAVY, path
        modules = {name for name in needed if name.startswith("app.")}
        exists = {name for name in modules if (ROOT / Path(*name.split("."))).with_suffix(".py").exists()}
        assert exists <= light, path


def test_the_training_never_imports_the_controller() -> None:
    for path in sorted((ROOT / "app").rglob("*.py")):
        needed = {name.split(".")[0] for name in imports(path)}
        assert not needed & {"controller", "deviceplugin", "grpc", "rich", "pydantic", "jinja2"}, path


def test_the_device_plugin_imports_what_its_image_has() -> None:
    copied = " ".join(re.findall(r"^COPY (app/.*) \S+$", (ROOT / "deviceplugin.Dockerfile").read_text(), re.MULTILINE))
    files = {ROOT / name for name in copied.split()}
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files}
    assert "app.version" in modules
    made_elsewhere = ROOT / "deviceplugin" / "api" / "generate.py"
    for path in sorted({*files, *(ROOT / "deviceplugin").rglob("*.py")} - {made_elsewhere}):
        needed = imports(path)
        assert not {name.split(".")[0] for name in needed} & {"controller", "kubernetes", "grpc_tools", *HEAVY}, path
        own = {name for name in needed if name.startswith("app.")}
        assert {name for name in own if (ROOT / Path(*name.split("."))).with_suffix(".py").exists()} <= modules, path


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_requirement_is_pinned_with_hashes_and_names_no_address(lock: Path) -> None:
    requirements = lines(lock)
    assert requirements
    assert [each for each in requirements if "==" not in each or "--hash=sha256:" not in each] == []
    assert "://" not in lock.read_text()


def test_what_the_framework_brings_is_in_no_lock_of_the_image() -> None:
    def names(lock: str) -> set[str]:
        # Python 3.10 is for vendor images alone.
        here = (line for line in lines(ROOT / "requirements" / lock) if "python_full_version < '3.11'" not in line)
        return {line.split("==")[0] for line in here}

    assert {"torch", "torchvision", "numpy"} <= names("torch.txt")
    assert not names("torch.txt") & names("app.txt")
    assert not {"torch", "torchvision"} & (names("controller.txt") | names("deviceplugin.txt"))
    locks = ("app.txt", "torch.txt", "controller.txt", "deviceplugin.txt")
    assert set().union(*map(names, locks)) <= names("dev.txt")


def lines(lock: Path) -> list[str]:
    """The requirements of a lock, each with its hashes on one line."""
    return [line for line in lock.read_text().replace("\\\n", " ").splitlines() if line and not line.startswith("#")]


def test_no_test_is_skipped_or_expected_to_fail() -> None:
    marks = re.compile(
        r"pytest\.(mark\.)?(" + "|".join(("ski" + "p", "ski" + "pif", "xfa" + "il", "importorski" + "p")) + r")\b"
    )
    assert [path.name for path in (ROOT / "tests").rglob("*.py") if marks.search(path.read_text())] == []


def test_no_tracked_file_is_large() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False).stdout.split(b"\0")
    tracked = [ROOT / name.decode() for name in listed if name]
    assert [path for path in tracked if path.is_file() and path.stat().st_size > 500_000] == []
