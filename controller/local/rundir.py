"""The run directory: what of a run outlives the processes and resnetctl itself."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app.resilience.exit_codes import ExitCode
from controller.api import Experiment, Status
from controller.local import LocalError
from controller.local.process import Mark

NAMESPACE = "local"
"""The namespace of every experiment that runs here."""

IMMUTABLE = ("model", "accelerator", "nodes", "dataset", "training", "checkpoint.volume", "checkpoint.path")
"""Parts of a spec that an experiment keeps for life: its checkpoints are made of them."""


@dataclass(frozen=True)
class PodRecord:
    """What a later run must end and remove, should this one be killed.

    Attributes:
        mark: the pod's process; None where it had ended already.
        scratch: directory of its emptyDir volumes.
        grace_seconds: from SIGTERM to SIGKILL.
    """

    mark: Mark | None
    scratch: Path
    grace_seconds: float


class RunDirectory:
    """Paths and files of one run. Every file is replaced as a whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.logs = path / "logs"
        self.checkpoints = path / "checkpoints"
        self.pods = path / "pods"
        self.experiment = path / "experiment.json"
        self.events = path / "events.jsonl"
        self.model = path / "model.onnx"
        self.metrics = path / "metrics.prom"
        self.report = path / "report.html"
        self._records = path / "pods.json"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Makes the directory, and keeps every other resnetctl out of it meanwhile.

        Raises:
            LocalError: it can't be written, or another resnetctl works in it.
        """
        try:
            for directory in (self.path, self.logs, self.checkpoints):
                directory.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise LocalError(
                f"--workdir: {self.path} can't be written: {error.strerror}", ExitCode.BAD_OPTION
            ) from None
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = os.read(lock, 32).decode(errors="replace").strip()
                raise LocalError(
                    f"{self.path} is in use by another resnetctl (process {pid or 'unknown'}): "
                    "wait for it, stop it with Ctrl-C, or give another --workdir"
                ) from None
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(lock)

    def claim(self, wanted: Experiment) -> tuple[Experiment, Experiment | None]:
        """The experiment with its identity and what is known of it, and what lay here before (None: nothing).

        Raises:
            LocalError: another experiment lies here: a part of the spec that can't change differs.
        """
        before = self.load()
        if before is None:
            uid, generation, status = str(uuid.uuid4()), 1, Status()
        else:
            changed = _changed(before, wanted)
            if changed:
                raise LocalError(
                    f"{changed}, and {self.path} was started otherwise: "
                    "give another --workdir, or remove that directory to start afresh",
                    ExitCode.BAD_OPTION,
                )
            uid, status = before.metadata.uid or str(uuid.uuid4()), before.status
            generation = (before.metadata.generation or 1) + (before.spec != wanted.spec)
        metadata = wanted.metadata.model_copy(update={"namespace": NAMESPACE, "uid": uid, "generation": generation})
        return wanted.model_copy(update={"metadata": metadata, "status": status}), before

    def load(self) -> Experiment | None:
        """The experiment that is kept here, None where there is none yet.

        Raises:
            LocalError: the file can't be read as one.
        """
        try:
            return Experiment.model_validate_json(self.experiment.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no ResNetExperiment of this version"
            raise LocalError(
                f"{self.experiment}: can't be read: {reason}; give another --workdir, or remove that directory",
                ExitCode.BAD_OPTION,
            ) from None

    def save(self, experiment: Experiment) -> None:
        """Keeps the experiment with its status."""
        replace(self.experiment, experiment.model_dump_json(by_alias=True, exclude_none=True, indent=2).encode())

    def record_pods(self, records: Iterable[PodRecord]) -> None:
        """Keeps the pods that live now."""
        replace(
            self._records,
            json.dumps(
                [
                    {
                        "mark": asdict(record.mark) if record.mark else None,
                        "scratch": str(record.scratch),
                        "grace_seconds": record.grace_seconds,
                    }
                    for record in records
                ]
            ).encode(),
        )

    def recorded_pods(self) -> list[PodRecord]:
        """The pods that lived when the last run ended; none after an orderly end."""
        try:
            return [
                PodRecord(
                    Mark(**entry["mark"]) if entry["mark"] else None, Path(entry["scratch"]), entry["grace_seconds"]
                )
                for entry in json.loads(self._records.read_bytes())
            ]
        except (OSError, ValueError, TypeError, KeyError):
            return []

    def starts(self, name: str) -> list[Path]:
        """Directories of the training's starts (`<checkpoints>/local/<name>/<n>`), in their order."""
        root = self.checkpoints / NAMESPACE / name
        found = [path for path in root.iterdir() if path.name.isdigit()] if root.is_dir() else []
        return sorted((path for path in found if path.is_dir()), key=lambda path: int(path.name))

    def collect(self, name: str) -> None:
        """Joins the events of all starts, and copies the model of the last one, into the run directory."""
        starts = self.starts(name)
        with _replacing(self.events) as joined, open(joined, "wb") as out:
            for start in starts:
                events = start / "events.jsonl"
                if events.is_file():
                    text = events.read_bytes()
                    out.write(text if text.endswith(b"\n") or not text else text + b"\n")
        if starts and (starts[-1] / "model.onnx").is_file():
            with _replacing(self.model) as copy:
                shutil.copyfile(starts[-1] / "model.onnx", copy)


def replace(path: Path, content: bytes) -> None:
    """Writes a file in one piece: a reader, or a power cut, finds the old content or the new."""
    with _replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _changed(before: Experiment, wanted: Experiment) -> str:
    """The first field that may not differ and does, with both values; empty where there is none."""
    old = before.spec.model_dump(mode="json", by_alias=True)
    new = wanted.spec.model_dump(mode="json", by_alias=True)
    for path in IMMUTABLE:
        was, now = old, new
        for part in path.split("."):
            was, now = was[part], now[part]
        where = _difference(f"spec.{path}", was, now)
        if where:
            return where
    return ""


def _difference(path: str, was: Any, now: Any) -> str:
    if was == now:
        return ""
    if isinstance(was, dict) and isinstance(now, dict):
        return next((found for key in now if (found := _difference(f"{path}.{key}", was.get(key), now[key]))), "")
    return f"{path} is {_shown(now)}, was {_shown(was)}"


def _shown(value: Any) -> str:
    return "not given" if value is None else json.dumps(value)
