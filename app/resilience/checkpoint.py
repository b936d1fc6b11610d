"""Checkpoints on disk: one directory each, complete or not there at all.

``<directory>/step-<k>/`` holds tensors.safetensors, state.json and, written last, MANIFEST.json with the size and the
sha256 of the other two. It is written as ``.step-<k>.tmp-<pid>``, synced to the disk and renamed into place.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from app.resilience.snapshot import STATE_PREFIX, Content, Snapshots
from app.resilience.tree import unflatten

TENSORS = "tensors.safetensors"
STATE = "state.json"
MANIFEST = "MANIFEST.json"
FORMAT = 1
"""Version of the layout, kept in the manifest."""

_NAME = re.compile(r"step-(\d{1,18})(\.replaced)?")


class BadCheckpoint(Exception):
    """A checkpoint that can't be used: torn, incomplete, or none at all."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path} is no good checkpoint: {why}")
        self.path = path
        self.why = why


@dataclass(frozen=True)
class CheckpointInfo:
    """One committed checkpoint.

    Attributes:
        path: its directory.
        step: optimizer steps done.
        bytes: size of its files.
        seconds: what writing it took, the copy of the tensors left out.
        time: when it was committed, in unix seconds.
    """

    path: Path
    step: int
    bytes: int
    seconds: float
    time: float


def save(
    directory: Path,
    step: int,
    tensors: Mapping[str, torch.Tensor],
    state: Mapping[str, Any],
    *,
    fence: Callable[[], None] | None = None,
) -> CheckpointInfo:
    """Writes ``<directory>/step-<step>`` and returns when it is safely on the disk; replaces one of the same step.

    Args:
        directory: the start's own directory; made where absent.
        step: optimizer steps done.
        tensors: the network, by flat names. Any device, any layout.
        state: the rest: nested dicts, lists and tuples of tensors, numbers, text (see `tree.flatten`).
        fence: asked right before the checkpoint takes its place; what it raises passes through.

    Raises:
        OSError: it can't be written (ENOSPC, EIO …); nothing is left behind and older checkpoints are untouched.
        TypeError, ValueError: as `Snapshots.take`.
    """
    return write(directory, step, Snapshots().take(tensors, state), fence=fence)


def write(directory: Path, step: int, content: Content, *, fence: Callable[[], None] | None = None) -> CheckpointInfo:
    """As `save`, of a snapshot."""
    begin = time.monotonic()
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / f"step-{step}"
    temporary = directory / f".step-{step}.tmp-{os.getpid()}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        with _library_errors_as_os_errors(temporary / TENSORS):
            safetensors.torch.save_file(content.tensors, temporary / TENSORS)
        _write_json(temporary / STATE, content.state)
        # The library makes its file readable by the owner alone, whatever the umask.
        (temporary / TENSORS).chmod((temporary / STATE).stat().st_mode & 0o777)
        files = {name: _facts(temporary / name) for name in (TENSORS, STATE)}
        _write_json(
            temporary / MANIFEST,
            {"format": FORMAT, "step": step, "files": files, "channels_last": content.channels_last},
        )
        for name in (TENSORS, STATE, MANIFEST):
            sync_file(temporary / name)
        sync_directory(temporary)
        if fence:
            fence()
        _put_in_place(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    size = sum(int(facts["bytes"]) for facts in files.values())
    return CheckpointInfo(target, step, size, time.monotonic() - begin, time.time())


def load(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Reads a checkpoint that `save` wrote: its tensors (on the CPU) and its state.

    Sizes and hashes are those of the very bytes that are used. Tensors that were channels_last are so again.

    Raises:
        BadCheckpoint: it is torn.
        OSError: it can't be read just now (EIO, ESTALE, EACCES …).
    """
    manifest = _manifest(path)
    data = {name: _checked_bytes(path, name, facts) for name, facts in manifest["files"].items()}
    try:
        tensors = safetensors.torch.load(data[TENSORS])
        for name in manifest["channels_last"]:
            # empty_like, not .to(): a 1x1 kernel counts as both layouts and .to() would leave its strides alone.
            tensors[name] = torch.empty_like(tensors[name], memory_format=torch.channels_last).copy_(tensors[name])
        state = unflatten(json.loads(data[STATE]), tensors.__getitem__)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise BadCheckpoint(path, f"its hashes are right, its content is not: {error}") from None
    if not isinstance(state, dict):
        raise BadCheckpoint(path, f"{STATE} holds no object")
    return {name: t for name, t in tensors.items() if not name.startswith(f"{STATE_PREFIX}/")}, state


def verify(path: Path, *, deep: bool = False) -> None:
    """Checks that all files are there with the sizes of the manifest; `deep` reads them and compares the hashes.

    Raises:
        BadCheckpoint, OSError: as `load`.
    """
    for name, facts in _manifest(path)["files"].items():
        with _absent_is_bad(path, name):
            size = (path / name).stat().st_size
            found = _facts(path / name) if deep else {**facts, "bytes": size}
        _compare(path, name, facts, found)


def fingerprint(path: Path) -> str:
    """The sha256 of a checkpoint's tensors, as its manifest has it; that of a file, where `path` is one.

    Raises:
        BadCheckpoint: it is a directory and no checkpoint.
        OSError: it can't be read.
    """
    facts = _manifest(path)["files"][TENSORS] if path.is_dir() else _facts(path)
    return str(facts["sha256"])


def step_of(path: Path) -> int:
    """The step in a checkpoint's name.

    Raises:
        BadCheckpoint: it is not named like one.
    """
    match = _NAME.fullmatch(path.name)
    if not match:
        raise BadCheckpoint(path, "its name is not step-<number>")
    return int(match[1])


def checkpoints(directory: Path) -> list[Path]:
    """The checkpoints in a start's directory, newest first, good or not; none where the directory is absent."""
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    found: dict[int, Path] = {}
    # A writer that died between the two renames of `_put_in_place` leaves the older one under ".replaced" alone.
    for name in sorted(names, key=len, reverse=True):
        match = _NAME.fullmatch(name)
        if match:
            found[int(match[1])] = directory / name
    return [found[step] for step in sorted(found, reverse=True)]


def kept(good: Sequence[Path], *, keep: int, best: int | None) -> set[Path]:
    """Which of these checkpoints, newest first, stay: the first `keep` and the newest one of step `best`."""
    result = set(good[: max(1, keep)])
    result.update([path for path in good if step_of(path) == best][:1])
    return result


def remove(path: Path) -> None:
    """Removes a checkpoint.

    Raises:
        OSError: it can't be removed; it may have lost its name already, then `sweep` finds it.
    """
    # Renamed first: a checkpoint half removed must not look like a torn one.
    doomed = path.with_name(f".step-{step_of(path)}.tmp-{os.getpid()}")
    path.rename(doomed)
    shutil.rmtree(doomed)


def sweep(directory: Path) -> None:
    """Removes what dead writers left half done in a start's directory. No writer may be at work in it.

    Raises:
        OSError: something can't be removed.
    """
    for leftover in directory.glob(".step-*.tmp-*"):
        shutil.rmtree(leftover)
    for replaced in directory.glob("step-*.replaced"):
        if replaced.with_suffix("").exists():
            shutil.rmtree(replaced)


def sync_file(path: Path) -> None:
    """Waits until the content of a file is on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_directory(path: Path) -> None:
    """Waits until the names in a directory are on the disk, where its file system can promise that."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems sync no directories
            raise
    finally:
        os.close(fd)


def _put_in_place(temporary: Path, target: Path) -> None:
    replaced = target.with_name(f"{target.name}.replaced")
    if target.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        target.rename(replaced)
    try:
        temporary.rename(target)
    except OSError:
        if replaced.exists():
            replaced.rename(target)
        raise
    sync_directory(target.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, allow_nan=False) + "\n", encoding="utf-8")


def _facts(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    size = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            size += len(block)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _manifest(path: Path) -> dict[str, Any]:
    step = step_of(path)
    with _absent_is_bad(path, MANIFEST):
        raw = (path / MANIFEST).read_bytes()
    try:
        manifest = json.loads(raw)
        if manifest["format"] != FORMAT:
            raise BadCheckpoint(path, f"{MANIFEST} has format {manifest['format']!r}, this version reads {FORMAT}")
        if manifest["step"] != step:
            raise BadCheckpoint(path, f"{MANIFEST} is of step {manifest['step']!r}")
        files = {name: {"bytes": int(f["bytes"]), "sha256": str(f["sha256"])} for name, f in manifest["files"].items()}
        names = [str(name) for name in manifest["channels_last"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadCheckpoint(path, f"{MANIFEST} is not a manifest ({len(raw)} bytes)") from None
    if set(files) != {TENSORS, STATE}:
        raise BadCheckpoint(path, f"{MANIFEST} does not list {TENSORS} and {STATE}")
    return {"files": files, "channels_last": names}


def _checked_bytes(path: Path, name: str, facts: Mapping[str, Any]) -> bytes:
    with _absent_is_bad(path, name):
        data = (path / name).read_bytes()
    _compare(path, name, facts, {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    return data


def _compare(path: Path, name: str, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    if found["bytes"] != wanted["bytes"]:
        raise BadCheckpoint(path, f"{name} has {found['bytes']} bytes, {MANIFEST} says {wanted['bytes']}")
    if found["sha256"] != wanted["sha256"]:
        raise BadCheckpoint(path, f"the sha256 of {name} is not the one in {MANIFEST}")


@contextmanager
def _absent_is_bad(path: Path, name: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise BadCheckpoint(path, f"{name} is missing") from None


@contextmanager
def _library_errors_as_os_errors(path: Path) -> Iterator[None]:
    """The library says "(os error 28)", older ones "code: 28", in the text of an error of its own."""
    try:
        yield
    except safetensors.SafetensorError as error:
        number = re.search(r"os error (\d+)|code: (\d+)", str(error))
        code = int(number[1] or number[2]) if number else errno.EIO
        raise OSError(code, os.strerror(code) if number else str(error), str(path)) from None
