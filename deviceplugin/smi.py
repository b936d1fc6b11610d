"""The vendor's table of devices, as its teco-smi prints it. PURE.

    | Index  Name                   | Bus-Id               | Health      SPE-Util |
    |   0    TECO_AICARD_01         | 00000000:01:00.0     | OK                0% |

The index is the number of the device file; devices of one card have one bus id. Layouts have changed between versions
(published ones: TCML 1.10, TECO-SMI 1.12 and 1.15), so only these three cells are read, and a line that does not have
them says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_LINE = re.compile(r"^\s*\|\s*(?P<index>\d{1,4})\s+[^|\s][^|]*\|(?P<bus>[^|]*)\|(?P<health>[^|]*)\|")
_BUS = re.compile(r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7]")


@dataclass(frozen=True)
class Row:
    """What the table says of one device.

    Args:
        bus: PCI address of its card; empty: not told.
        words: of its health cell ("OK", "DEVICE_LOST" …).
    """

    bus: str
    words: frozenset[str]


def parse(text: str) -> dict[int, Row]:
    """The rows by index; empty where the text is no such table."""
    rows: dict[int, Row] = {}
    for line in text.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        bus = _BUS.search(found["bus"])
        rows[int(found["index"])] = Row(bus[0].lower() if bus else "", frozenset(found["health"].split()))
    return rows


def merged(old: Mapping[int, Row], new: Mapping[int, Row]) -> dict[int, Row]:
    """Newer rows over older ones: a device that the tool no longer lists keeps its row, a lost one its card."""
    result = dict(old)
    for index, row in new.items():
        before = old.get(index)
        result[index] = Row(row.bus or (before.bus if before else ""), row.words)
    return result
