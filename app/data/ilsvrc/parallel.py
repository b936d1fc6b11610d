"""The same work for every class of train and val, in threads, with progress and a quick end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from app.data.samples import PARTS

Progress = Callable[[str, int, int], None]
"""Called in the caller's thread with what is counted ("train classes"), how many are done and how many there are."""
T = TypeVar("T")


class Stopped(Exception):
    """Another class has failed, or the caller was interrupted."""


def for_every_class(
    classes: Sequence[str],
    work: Callable[[str, str, threading.Event], T],
    workers: int,
    progress: Progress,
) -> dict[str, list[T]]:
    """Calls `work(part, class, stop)` for every class, first of val (it is small, and shows early what is wrong).

    Threads, for this is waiting for a volume, and Python gives its lock away for that. An error or Ctrl-C sets `stop`,
    which `work` is to look at before every file, by raising `Stopped`.

    Returns:
        The results of train and of val, in the order of `classes`.
    """
    result: dict[str, list[T]] = {}
    stop = threading.Event()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for part in reversed(PARTS):
                futures = [pool.submit(work, part, wnid, stop) for wnid in classes]
                for done, future in enumerate(as_completed(futures), 1):
                    future.result()
                    progress(f"{part} classes", done, len(classes))
                result[part] = [future.result() for future in futures]
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
    return result
