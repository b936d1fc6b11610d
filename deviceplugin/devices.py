"""The devices of a node: which there are, on which card, and whether they are usable. PURE.

A device, once seen, stays in the list: Kubernetes learns that it is unusable only by its being listed as Unhealthy.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from deviceplugin.smi import Row, merged

Counted = Literal["device", "card"]
DEFAULT_DEVICES_PER_CARD = 4
"""SPAs of a Teco card; cards with three usable ones exist."""


@dataclass(frozen=True)
class Rules:
    """How devices are counted and judged.

    Args:
        path: what the host calls device 0, less its number ("/dev/tcaicard").
        counted: what Kubernetes counts.
        devices_per_card: None: as the vendor's tool says, else DEFAULT_DEVICES_PER_CARD.
        bad_words: of the tool's health cell; a device with one of them is unusable.
        asks_tool: a health command is configured, so that the cards are the tool's to tell.
    """

    path: str = "/dev/tcaicard"
    counted: Counted = "device"
    devices_per_card: int | None = None
    bad_words: frozenset[str] = frozenset({"DEVICE_LOST", "HEARTBEAT_ERROR"})
    asks_tool: bool = False

    @property
    def prefix(self) -> str:
        """What the names of device files begin with."""
        return self.path.rpartition("/")[2]

    @property
    def directory(self) -> str:
        """Where they lie on the host; ends with a slash."""
        return self.path[: len(self.path) - len(self.prefix)]


@dataclass(frozen=True)
class Seen:
    """What is known of a node: device files that are there, all that ever were, and the tool's last rows."""

    present: frozenset[int] = frozenset()
    known: frozenset[int] = frozenset()
    rows: Mapping[int, Row] = field(default_factory=dict)

    def with_files(self, numbers: Iterable[int]) -> Seen:
        """After a look at the files."""
        present = frozenset(numbers)
        return replace(self, present=present, known=self.known | present)

    def with_rows(self, rows: Mapping[int, Row]) -> Seen:
        """After an answer of the tool."""
        return replace(self, rows=merged(self.rows, rows))


@dataclass(frozen=True)
class Device:
    """One device file.

    Args:
        number: of its name.
        card: the name of its card.
        bus: PCI address of its card; empty: not known.
        trouble: why it is unusable, for a person; empty: it is usable.
    """

    number: int
    name: str
    card: str
    bus: str
    trouble: str


@dataclass(frozen=True)
class Unit:
    """What Kubernetes counts, with its id there: a device or a card."""

    id: str
    card: str
    devices: tuple[Device, ...]
    trouble: str


def devices(seen: Seen, rules: Rules) -> list[Device]:
    """All devices, by number."""
    by_tool = _cards_by_tool(seen)
    per_card = rules.devices_per_card or DEFAULT_DEVICES_PER_CARD
    return [
        Device(
            number,
            f"{rules.prefix}{number}",
            f"card-{_bus(seen, number)}" if by_tool else f"card{number // per_card}",
            _bus(seen, number),
            _trouble(number, seen, rules),
        )
        for number in sorted(seen.known)
    ]


def units(seen: Seen, rules: Rules) -> list[Unit]:
    """What is advertised.

    Cards have the names that the tool gives their devices, if there is a tool: so whole cards are not advertised before
    it has told them. Under names that changed with the next answer, devices of a running pod would count as free.
    """
    found = devices(seen, rules)
    if rules.counted == "device":
        return [Unit(each.name, each.card, (each,), each.trouble) for each in found]
    if rules.asks_tool and not _cards_by_tool(seen):
        return []
    members: dict[str, list[Device]] = defaultdict(list)
    for each in found:
        members[each.card].append(each)
    whole = rules.devices_per_card or (
        max(map(len, members.values()), default=0) if rules.asks_tool else DEFAULT_DEVICES_PER_CARD
    )
    return [Unit(card, card, tuple(each), _card_trouble(each, whole)) for card, each in members.items()]


def card_sizes(units: Iterable[Unit]) -> dict[str, int]:
    """How many units each card has, usable or not."""
    return dict(Counter(each.card for each in units))


@dataclass(frozen=True)
class Change:
    """A device that became usable (`trouble` is empty) or unusable."""

    device: Device

    @property
    def reason(self) -> str:
        """One word, for an Event."""
        return "DeviceUnhealthy" if self.device.trouble else "DeviceHealthy"

    @property
    def message(self) -> str:
        """One line that names the device."""
        return f"{self.device.name} ({self.device.card}): {self.device.trouble or 'usable again'}"


def changes(before: Iterable[Device], after: Iterable[Device]) -> list[Change]:
    """What is to be told: a device that is found in order is no news."""
    troubles = {each.number: each.trouble for each in before}
    return [
        Change(each)
        for each in after
        if each.trouble != troubles.get(each.number, "")
    ]  # fmt: skip


def _cards_by_tool(seen: Seen) -> bool:
    return bool(seen.known) and all(_bus(seen, number) for number in seen.known)


def _bus(seen: Seen, number: int) -> str:
    row = seen.rows.get(number)
    return row.bus if row else ""


def _trouble(number: int, seen: Seen, rules: Rules) -> str:
    if number not in seen.present:
        return f"{rules.path}{number} is gone"
    row = seen.rows.get(number)
    bad = sorted(row.words & rules.bad_words) if row else []
    return f"the health command says {' '.join(bad)}" if bad else ""


def _card_trouble(members: list[Device], whole: int) -> str:
    troubles = [f"{each.name}: {each.trouble}" for each in members if each.trouble]
    if len(members) < whole:
        troubles.append(f"{len(members)} of {whole} devices")
    return "; ".join(troubles)
