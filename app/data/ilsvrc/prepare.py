"""Unpacking: from the tars to train/<wnid>/*.JPEG and val/<wnid>/*.JPEG.

Everything is written below `.preparing/` in the target folder and becomes visible as train/ and val/ when it is
complete, so a training never sees half a data set. Below `.preparing/`:

    lock             held by the process that works here
    source.json      which tars this was begun from
    writing/         classes in progress: thrown away by the next run
    train/ val/      complete classes: each was synced, then moved here whole
    manifest.json    everything is complete and counted: what is left is to move the folders up

A process killed at any point leaves one of these states, and the next one goes on from it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from app.data.errors import shown, unwritable
from app.data.ilsvrc.parallel import Progress, Stopped, for_every_class
from app.data.ilsvrc.source import Counts, Source
from app.data.samples import PARTS
from app.data.tarindex import Part, is_current, open_index, write_index
from app.resilience.exit_codes import ExitCode, TrainingError

MANIFEST = "ilsvrc2012.json"
"""In the target folder: written by this, complete."""
PREPARING = ".preparing"


def prepare(
    out: Path, source: Callable[[], Source], workers: int, progress: Progress, *, index_only: bool = False
) -> tuple[bool, Counts]:
    """Unpacks the tars into `out`, or writes their index there; does nothing where that has been done.

    Args:
        out: made where it is absent.
        source: opens the tars; not called where the folders are complete, whose tars may be gone by then.
        workers: threads.
        progress: told after every class.
        index_only: write the index, and no image.

    Returns:
        Whether there was anything to do, and how many classes and images there are.

    Raises:
        TrainingError: 64 the folder holds something else, is in use or can't be written; 65, 66 or 69 see `Source`;
            144 a volume is full or failed.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with _alone(out):
            return _index(out, source(), workers, progress) if index_only else _folders(out, source, workers, progress)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        instead = "make room and start again, what is complete stays" if full else "name another folder with --out"
        raise unwritable(error.filename or out, error, instead) from None


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Two at once would throw away each other's classes."""
    work = out / PREPARING
    work.mkdir(exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            message = f"{shown(out)}: another process prepares the data set there; wait for it, or end it"
            raise TrainingError(ExitCode.BAD_OPTION, message) from None
        try:
            yield
        finally:
            if not any((work / left).exists() for left in (*PARTS, "source.json", "manifest.json")):
                shutil.rmtree(work, ignore_errors=True)


def _index(out: Path, source: Source, workers: int, progress: Progress) -> tuple[bool, Counts]:
    held = next((part for part in PARTS if (out / part).exists()), None)
    if held:
        message = f"{shown(out / held)} is there already, and would be read instead of an index; name another --out"
        raise TrainingError(ExitCode.BAD_OPTION, message)
    if is_current(os.fspath(out), source.tars):
        there = open_index(os.fspath(out))
        source.require_train(len(there.train))
        return False, Counts(len(there.classes), len(there.train), len(there.val))
    images = for_every_class(source.classes, lambda part, wnid, _: source.images(part, wnid), workers, progress)
    train, val = (sum(map(len, images[part])) for part in PARTS)
    source.require_train(train)
    write_index(os.fspath(out), source.classes, {part: Part(tar, images[part]) for part, tar in source.tars.items()})
    return True, Counts(len(source.classes), train, val)


def _folders(out: Path, source: Callable[[], Source], workers: int, progress: Progress) -> tuple[bool, Counts]:
    work = out / PREPARING
    done = read_manifest(out / MANIFEST)
    if done is not None and all((out / part).is_dir() for part in PARTS):
        return False, done
    if not (work / "manifest.json").exists():
        _refuse_others(out)
        _fill(work, source(), workers, progress)
    counts = read_manifest(work / "manifest.json")
    if counts is None:
        message = f"{shown(work / 'manifest.json')} is damaged; remove {shown(work)} and start again"
        raise TrainingError(ExitCode.BAD_DATA, message)
    for part in PARTS:
        if (work / part).exists():  # else it was moved before the last run was killed
            (work / part).rename(out / part)
    sync(out)
    (work / "source.json").unlink(missing_ok=True)
    (work / "manifest.json").rename(out / MANIFEST)
    return True, counts


def _fill(work: Path, source: Source, workers: int, progress: Progress) -> None:
    """Everything up to the manifest."""
    _require_same_source(work, source)
    shutil.rmtree(work / "writing", ignore_errors=True)
    for folder in (*PARTS, "writing"):
        (work / folder).mkdir(exist_ok=True)

    def write(part: str, wnid: str, stop: threading.Event) -> int:
        if stop.is_set():
            raise Stopped
        if (work / part / wnid).is_dir():
            return len(os.listdir(work / part / wnid))
        return _write_class(work, source, part, wnid, stop)

    try:
        images = for_every_class(source.classes, write, workers, progress)
    finally:
        shutil.rmtree(work / "writing", ignore_errors=True)  # a full disk needs the room
    source.require_train(sum(images["train"]))
    counts = Counts(len(source.classes), sum(images["train"]), sum(images["val"]))
    _write_json(work / "manifest.json", {"data_set": "ILSVRC2012", **vars(counts)})


def _write_class(work: Path, source: Source, part: str, wnid: str, stop: threading.Event) -> int:
    """One class, whole or not at all; returns its number of images."""
    folder = work / "writing" / f"{part}-{wnid}"
    folder.mkdir()
    tar, images = source.tars[part], source.images(part, wnid)
    for image in images:
        if stop.is_set():
            raise Stopped
        with (folder / image.name).open("xb", buffering=0) as file:
            content = memoryview(tar.read(image.offset, image.size))
            while content:
                content = content[file.write(content) :]
    sync(folder)
    folder.rename(work / part / wnid)
    return len(images)


def sync(folder: Path) -> None:
    """Waits until all that was written to this file system is on its disk: one call instead of one for every file.

    Raises:
        OSError: the file system could not write it.
    """
    if sys.platform != "linux":
        os.sync()
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), os.fspath(folder))
    finally:
        os.close(descriptor)


def _refuse_others(out: Path) -> None:
    """What this did not write is not touched, and not called complete."""
    for part in PARTS:
        if (out / part).exists():
            message = f"{shown(out / part)} is there already, and this command did not write it: name another --out"
            raise TrainingError(ExitCode.BAD_OPTION, f"{message} (`dataset check` says what it holds)")


def _require_same_source(work: Path, source: Source) -> None:
    """Complete classes of another source must not be mixed with this one's."""
    ours = {name: {"size": tar.size, "modified_ns": tar.modified_ns} for name, tar in source.tars.items()}
    facts = {**ours, "classes": source.classes}
    path = work / "source.json"
    try:
        theirs = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        theirs = None
    if theirs is None:
        _write_json(path, facts)
    elif theirs != facts:
        message = f"{shown(work)} was begun from other tars, or they have changed; remove it to start again"
        raise TrainingError(ExitCode.BAD_OPTION, message)


def read_manifest(path: Path) -> Counts | None:
    """What a manifest says that was written; None where there is none, or none that can be understood."""
    try:
        facts = json.loads(path.read_text())
        return Counts(int(facts["classes"]), int(facts["train"]), int(facts["val"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _write_json(path: Path, value: object) -> None:
    temporary = path.with_name(f"{path.name}.new")
    with temporary.open("w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
