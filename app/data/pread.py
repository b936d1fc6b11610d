"""Reads at given places of one open file, from any thread and any forked process: no position is shared."""

from __future__ import annotations

import io
import os
import weakref
from typing import Any

from app.data.errors import shown, unreadable
from app.resilience.exit_codes import ExitCode, TrainingError


class OpenFile:
    """A file that stays open for as long as this object lives. A pickled one is opened anew.

    Args:
        path: which.

    Attributes:
        path: as given.
        fd: its descriptor.
        size: bytes, when it was opened.
        modified_ns: when it was last written to, in nanoseconds of Unix time.

    Raises:
        TrainingError: 66 it is not there or no plain file, 144 its volume failed.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self.fd)
            facts = os.fstat(self.fd)
        except OSError as error:
            raise unreadable(path, error) from None
        if os.path.isdir(path):
            raise TrainingError(ExitCode.DATA_MISSING, f"{shown(path)} cannot be read: it is a folder, not a file")
        self.size = facts.st_size
        self.modified_ns = facts.st_mtime_ns

    @property
    def modified(self) -> int:
        """The same in whole seconds: what every file system and every mount keeps."""
        return self.modified_ns // 10**9

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset` on.

        Raises:
            TrainingError: 65 the file ends before that, 66 or 144 it can't be read.
        """
        try:
            content = os.pread(self.fd, length, offset)
            while len(content) < length:  # Linux gives at most 2 GiB at once
                more = os.pread(self.fd, length - len(content), offset + len(content))
                if not more:
                    break
                content += more
        except OSError as error:
            raise unreadable(self.path, error) from None
        if len(content) < length:
            message = f"{shown(self.path)} ends at byte {offset + len(content)}, before {offset + length}: it was cut"
            raise TrainingError(ExitCode.BAD_DATA, message)
        return content

    def __getstate__(self) -> str:
        return self.path

    def __setstate__(self, path: str) -> None:
        OpenFile.__init__(self, path)


class Window(io.RawIOBase):
    """A stretch of an open file, as a file of its own: seekable, read-only.

    Args:
        file: where it lies.
        start, size: which bytes.
    """

    def __init__(self, file: OpenFile, start: int, size: int) -> None:
        self._file = file
        self._start = start
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The position, from the start of the window."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file; beyond the end is allowed and reads nothing."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """As of any raw file.

        Raises:
            OSError: as the file system gives it.
        """
        view = memoryview(buffer).cast("B")[: max(0, self._size - self._position)]
        got = os.preadv(self._file.fd, [view], self._start + self._position) if len(view) else 0
        self._position += got
        return got
