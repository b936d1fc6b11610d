"""Where what is built once lies: `<cache>/<part>-<hash of what it is built from>`, made whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

HASH_DIGITS = 12


def cache_root(environment: Mapping[str, str] = os.environ) -> Path:
    """$RESNET_OPERATOR_CACHE, or resnet-operator/ in the user's cache directory; it may not exist yet."""
    if chosen := environment.get("RESNET_OPERATOR_CACHE"):
        return Path(chosen)
    user = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME") or Path.home()) / ".cache"
    return Path(user) / "resnet-operator"


def entry(part: str, files: Iterable[Path], *recipe: str) -> Path:
    """Where `part` lies when built from `files` (by name and content, in any order) and `recipe` (flags, versions)."""
    digest = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.name):
        content = path.read_bytes()
        digest.update(f"{path.name}\0{len(content)}\0".encode() + content)
    for each in recipe:
        digest.update(f"{len(each)}\0{each}".encode())
    return cache_root() / f"{part}-{digest.hexdigest()[:HASH_DIGITS]}"


def built(at: Path, build: Callable[[Path], None]) -> Path:
    """The directory `at`, an entry() of the cache, built by `build(an empty directory)` if it is not there.

    Two processes that want the same one build it once: the second waits. A build that fails or is killed leaves no
    entry.
    """
    if not at.exists():
        at.parent.mkdir(parents=True, exist_ok=True)
        with locked(at.with_name(f"{at.name}.lock")):
            if not at.exists():
                unfinished = at.with_name(f"{at.name}.unfinished")
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                build(unfinished)
                unfinished.rename(at)
    return at


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, which is made if missing; the kernel lets go of it when the process ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
