"""What lies where in a tar, read strictly: nothing but plain files with plain names, and a proper end."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator

from app.data.errors import shown, unreadable
from app.data.pread import OpenFile, Window
from app.data.tarindex import Member
from app.resilience.exit_codes import ExitCode, TrainingError

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_KINDS = {
    tarfile.SYMTYPE: "a symbolic link", tarfile.LNKTYPE: "a hard link", tarfile.DIRTYPE: "a folder",
    tarfile.CHRTYPE: "a device", tarfile.BLKTYPE: "a device", tarfile.FIFOTYPE: "a pipe",
}  # fmt: skip


def members(file: OpenFile, inside: Member | None = None) -> Iterator[Member]:
    """The files of a tar, in its order.

    Python's `tarfile` reads the headers, but takes a tar that was cut between two members for a complete one: here it
    must end with a block of zeros, as the format says.

    Args:
        file: the tar, or the one that holds it.
        inside: the tar that is meant, where it is a member of `file`.

    Raises:
        TrainingError: 65 it is no tar, was cut, is damaged, or a member is no plain file, has a name with a folder
            in it, or has the name of another one; 66 or 144 it can't be read.
    """
    start, size = (inside.offset, inside.size) if inside else (0, file.size)
    where = shown(file.path) + (f": {inside.name}" if inside else "")
    window = Window(file, start, size)
    seen: set[str] = set()
    last = "the start"
    try:
        with tarfile.open(fileobj=window, mode="r:") as tar:
            while (info := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # else it keeps them all
                if info.isdir() and info.name == ".":  # `tar -cf X.tar .` begins with it
                    continue
                name = _plain(info, where)
                if info.offset_data + info.size > size:
                    raise _cut(where, f"its member {name} needs {info.offset_data + info.size} bytes, it has {size}")
                if name in seen:
                    raise TrainingError(ExitCode.BAD_DATA, f"{where} holds {name} twice")
                seen.add(name)
                last = f"member {name}"
                yield Member(name, start + info.offset_data, info.size)
            window.seek(tar.offset)
            end = window.read(tarfile.BLOCKSIZE)
    except tarfile.TarError as error:
        if last == "the start":
            raise TrainingError(ExitCode.BAD_DATA, f"{where} is no tar file ({error})") from None
        raise _cut(where, f"after {last}: {error}") from None
    except OSError as error:
        raise unreadable(file.path, error) from None
    if end is None or len(end) < tarfile.BLOCKSIZE:
        raise _cut(where, f"it ends after {last}, without the block of zeros that ends a tar")
    if any(end):
        raise _cut(where, f"what comes after {last} is no member")


def _plain(info: tarfile.TarInfo, where: str) -> str:
    name = info.name.removeprefix("./")
    kind = _KINDS.get(info.type)
    if kind is None and (info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.issparse()):
        kind = "of a kind that does not belong there"
    if kind:
        raise TrainingError(ExitCode.BAD_DATA, f"{where}: its member {shown(name)} is {kind}, not a plain file")
    if not _PLAIN_NAME.fullmatch(name):
        leads = " leads to another folder" if os.sep in name else " is no plain file name"
        raise TrainingError(ExitCode.BAD_DATA, f"{where}: its member {shown(name)}{leads}; this is not ILSVRC2012")
    return name


def _cut(where: str, how: str) -> TrainingError:
    return TrainingError(ExitCode.BAD_DATA, f"{where} was cut or is damaged: {how}; fetch it again")
