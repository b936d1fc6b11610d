"""Whose checkpoints a directory holds: identity.json, with the experiment's UID and a hash of what is trained."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.config import OPTIONS, TrainConfig, flag_of
from app.resilience.checkpoint import sync_directory
from app.resilience.exit_codes import ExitCode, TrainingError

IDENTITY = "identity.json"

RECIPE = frozenset(
    {
        "model",
        "dataset",
        "image_size",
        "pretrained",
        "epochs",
        "steps_per_epoch",
        "batch_size",
        "accumulate",
        "learning_rate",
        "warmup_epochs",
        "optimizer",
        "mlperf_mode",
        "decay_filter",
        "ema",
        "seed",
        "autocast",
        "grad_scale",
        "loss_scale",
    }
)
"""The options that a checkpoint belongs to: those that decide which weights a step leads to. Not among them: where it
runs and on how many devices, where data and checkpoints lie, when it stops, what is kept, said and limited."""

_WORLD_SIZE = "world_size"
"""In the facts: no part of the recipe, but with another one another learning rate may be given."""


def recipe_hash(config: TrainConfig, pretrained: str = "") -> tuple[str, dict[str, Any]]:
    """The hash of the recipe options, and the options themselves (image_size with 0 resolved) with the world size.

    Of the weights to begin with it is the content that counts, `pretrained` being its hash, and not the path.

    Options at their default are left out of the hash, so that a later version may add one and still continue runs of
    this one.
    """
    facts = {name: getattr(config, name) for name in OPTIONS if name in RECIPE}
    facts["image_size"] = config.size
    facts["pretrained"] = pretrained
    given = {name: value for name, value in facts.items() if value != OPTIONS[name][1].default}
    digest = hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()
    return digest, {**facts, _WORLD_SIZE: config.world_size}


@dataclass(frozen=True)
class Identity:
    """Who trains what.

    Attributes:
        uid: the experiment's UID, "" where there is none (typed by hand, rendered --standalone).
        recipe_hash: see the function of that name.
        facts: the recipe options, so that a message can say what differs, and the world size.
    """

    uid: str
    recipe_hash: str
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, config: TrainConfig, uid: str, pretrained: str = "") -> Identity:
        """The identity of a run of this configuration; `pretrained` is the hash of the weights that it begins with."""
        digest, facts = recipe_hash(config, pretrained)
        return cls(uid, digest, facts)


def recorded_weights(root: Path) -> str:
    """The hash of the weights that the run in this directory began with; "" where it has none, or is not known.

    Raises:
        TrainingError: BAD_OPTION, its identity can't be understood.
        OSError: it can't be read.
    """
    recorded = _read(root / IDENTITY)
    return str(recorded.facts.get("pretrained", "")) if recorded else ""


def claim_identity(root: Path, mine: Identity, *, adopt: bool, empty: bool) -> None:
    """Makes a directory ours, or finds that it is.

    Args:
        root: the checkpoint directory.
        mine: who wants it.
        adopt: take it over from another experiment.
        empty: it holds no checkpoint. Then another recipe may have it: a run that never got that far left nothing.

    Raises:
        TrainingError: BAD_OPTION, another recipe or another experiment owns it; one line that says what differs. A
            gang of another size may have another learning rate.
        OSError: it can't be read or written.
    """
    path = root / IDENTITY
    recorded = _read(path)
    if recorded is None:
        _write(path, mine, exclusive=True)
        recorded = _read(path) or mine  # another's, where two experiments came at the same moment
    if recorded.recipe_hash != mine.recipe_hash and not empty and not _rescaled(recorded, mine):
        raise TrainingError(
            ExitCode.BAD_OPTION,
            f"--checkpoint_dir {root}: holds the checkpoints of another recipe ({_difference(recorded, mine)}); "
            "give another directory, or the options of that run",
        )
    if mine.uid and recorded.uid not in ("", mine.uid) and not adopt:
        raise TrainingError(
            ExitCode.BAD_OPTION,
            f"--checkpoint_dir {root}: belongs to the experiment with UID {recorded.uid}, this one has UID {mine.uid}; "
            "take it over with --adopt True (checkpoint.adopt: true), or give another directory",
        )
    owner = replace(mine, uid=mine.uid or recorded.uid)
    if owner != recorded:
        _write(path, owner, exclusive=False)


def _rescaled(recorded: Identity, mine: Identity) -> bool:
    """Whether a gang of another size, with another global batch then, brings a learning rate of its own."""
    sizes = {recorded.facts.get(_WORLD_SIZE), mine.facts.get(_WORLD_SIZE)}
    return _differing(recorded, mine) == ["learning_rate"] and len(sizes) == 2


def _differing(recorded: Identity, mine: Identity) -> list[str]:
    names = [name for name in {**recorded.facts, **mine.facts} if name != _WORLD_SIZE]
    return [name for name in names if recorded.facts.get(name) != mine.facts.get(name)]


def _difference(recorded: Identity, mine: Identity) -> str:
    words = [
        f"{flag_of(name)} {recorded.facts.get(name, 'unknown')} there, {mine.facts.get(name, 'unknown')} here"
        for name in _differing(recorded, mine)
    ]
    return "; ".join(words) or f"hash {recorded.recipe_hash[:12]} there, {mine.recipe_hash[:12]} here"


def _read(path: Path) -> Identity | None:
    try:
        document = json.loads(path.read_bytes())
        uid, digest, facts = document["uid"], document["recipe_hash"], document["facts"]
        if isinstance(uid, str) and isinstance(digest, str) and isinstance(facts, dict):
            return Identity(uid, digest, facts)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        pass
    raise TrainingError(
        ExitCode.BAD_OPTION,
        f"--checkpoint_dir {path.parent}: {IDENTITY} can't be understood; "
        "give another directory, or remove that file if the checkpoints are this run's",
    )


def _write(path: Path, identity: Identity, *, exclusive: bool) -> None:
    """Writes in one piece; `exclusive` leaves a file that another wrote first."""
    # Two pods on one volume may well have the same process id.
    temporary = path.with_name(f".{IDENTITY}.tmp-{secrets.token_hex(8)}")
    document = {"uid": identity.uid, "recipe_hash": identity.recipe_hash, "facts": dict(identity.facts)}
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(json.dumps(document, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if exclusive and _linked(temporary, path):
            return
        os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
        sync_directory(path.parent)


def _linked(temporary: Path, path: Path) -> bool:
    """Gives the file its name unless it is taken (then the other's stays); False where hard links don't exist."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            return False
        raise
    return True
