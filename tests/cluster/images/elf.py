"""Writes a shared library anew with only what the loader maps, less one part (64-bit ELF, little endian)."""

from __future__ import annotations

import os
import shutil
import struct
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import BinaryIO

# Layouts and numbers: elf(5).
SEGMENT = struct.Struct("<IIQQQQQQ")
HEADER_BYTES = 64
TABLE_AT, SECTIONS_AT, SEGMENT_COUNT_AT, SECTION_COUNT_AT = 32, 40, 56, 60
PT_LOAD, PT_NOTE = 1, 4
PAGE = 4096


@dataclass(frozen=True)
class _Segment:
    """An entry of the program header table, in its order."""

    kind: int
    flags: int
    offset: int
    address: int
    physical: int
    file_bytes: int
    memory_bytes: int
    alignment: int


def pack(library: Path, cut: tuple[int, int] | None = None) -> None:
    """Leave in `library` only what the loader maps; the bytes of the file in the range `cut` become zeros in memory.

    Debuggers' symbols and the section table are gone afterwards, so `nm` and `readelf` find nothing there.

    Raises:
        ValueError: no segment holds `cut`, or there is no note whose entry in the table a further segment can take.
    """
    packed = library.with_name(library.name + ".packed")
    with open(library, "rb") as source, open(packed, "wb") as target:
        header = bytearray(source.read(HEADER_BYTES))
        (table,) = struct.unpack_from("<Q", header, TABLE_AT)
        (count,) = struct.unpack_from("<H", header, SEGMENT_COUNT_AT)
        source.seek(table)
        segments = [_Segment(*SEGMENT.unpack(source.read(SEGMENT.size))) for _ in range(count)]
        if cut:
            segments = _without(segments, *cut)
        loaded = [segment for segment in segments if segment.kind == PT_LOAD]
        moved: dict[_Segment, int] = {}
        end = 0
        for segment in loaded:
            # The loader maps pages: a segment begins at the same place of one in the file as in memory.
            moved[segment] = end + (segment.address - end) % max(PAGE, segment.alignment)
            end = moved[segment] + segment.file_bytes
            source.seek(segment.offset)
            target.seek(moved[segment])
            _copy(source, target, segment.file_bytes)
        struct.pack_into("<Q", header, SECTIONS_AT, 0)
        struct.pack_into("<HH", header, SECTION_COUNT_AT, 0, 0)
        target.seek(0)
        target.write(header)
        target.seek(table)
        for segment in segments:
            for part in loaded:
                if part.address <= segment.address < part.address + part.memory_bytes and segment.memory_bytes:
                    offset = moved[part] + segment.address - part.address
                    target.write(SEGMENT.pack(*astuple(replace(segment, offset=offset))))
                    break
            else:
                target.write(SEGMENT.pack(*astuple(segment)))
    shutil.copymode(library, packed)
    os.replace(packed, library)


def _without(segments: list[_Segment], begin: int, end: int) -> list[_Segment]:
    """The table with the segment that holds the bytes [begin, end) in two, with zeros at the end of the first part."""
    begin, end = -(-begin // PAGE) * PAGE, end // PAGE * PAGE
    whole = next(
        (s for s in segments if s.kind == PT_LOAD and s.offset <= begin < end <= s.offset + s.file_bytes), None
    )
    note = next((s for s in segments if s.kind == PT_NOTE), None)
    if whole is None or note is None:
        raise ValueError("nothing can be cut out of this library")
    head, tail = begin - whole.offset, end - whole.offset
    before = replace(whole, file_bytes=head, memory_bytes=tail)
    after = replace(
        whole,
        offset=end,
        address=whole.address + tail,
        physical=whole.physical + tail,
        file_bytes=whole.file_bytes - tail,
        memory_bytes=whole.memory_bytes - tail,
        alignment=PAGE,
    )
    kept = [segment for segment in segments if segment is not note]
    index = kept.index(whole)
    return [*kept[:index], before, after, *kept[index + 1 :]]


def _copy(source: BinaryIO, target: BinaryIO, size: int) -> None:
    while size:
        block = source.read(min(size, 1 << 24))
        target.write(block)
        size -= len(block)
