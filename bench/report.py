"""docs/performance.md: each bench's own section, written from what it measured.

    python -m bench.NAME --json FILE && python -m bench.report FILE...

A bench ends with `Report(...).save(FILE)`. The page's first lines are written by hand and stay; a section stands
between two comments that name its bench, and is replaced as a whole or added at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
_GIB = 2**30


def machine() -> str:
    """This machine, in words."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores ({model[1] if model else platform.machine()}), {memory:.0f} GiB, Linux {platform.release()}"


def today() -> str:
    """The date, in UTC."""
    return f"{datetime.now(UTC):%Y-%m-%d}"


@dataclass(frozen=True)
class Table:
    """What was measured: every row has a cell for each word of `head`, and is told in `caption`."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def lines(self) -> list[str]:
        """Markdown; all columns but the first hold numbers."""
        rule = ["---", *["---:"] * (len(self.head) - 1)]
        return [self.caption, "", *(f"| {' | '.join(row)} |" for row in (self.head, rule, *self.rows)), ""]


@dataclass(frozen=True)
class Report:
    """One run of a bench.

    Attributes:
        name: of its module.
        title: of its section.
        command: that repeats it.
        versions: of what was measured, by name.
        tables: what was measured.
        notes: what a reader must know to read them; a paragraph each.
        machine, date: where and when.
    """

    name: str
    title: str
    command: str
    versions: dict[str, str]
    tables: Sequence[Table]
    notes: Sequence[str] = ()
    machine: str = field(default_factory=machine)
    date: str = field(default_factory=today)

    def save(self, path: Path) -> None:
        """Writes it down for `python -m bench.report`."""
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> Report:
        """What `save` wrote."""
        fields = json.loads(path.read_text())
        return cls(**fields | {"tables": [Table(**each) for each in fields["tables"]]})

    def section(self) -> str:
        """Its part of the page."""
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        about = f"`{self.command}`, {self.date}, on {self.machine}; {versions}."
        body = [f"## {self.title}", "", about, ""]
        for table in self.tables:
            body += table.lines()
        for note in self.notes:
            body += [note, ""]
        return "\n".join([_begin(self.name), *body, _END]) + "\n"


_END = "<!-- /bench -->"


def _begin(name: str) -> str:
    return f"<!-- bench: {name} -->"


def with_section(page: str, report: Report) -> str:
    """The page with a bench's section in place of the one it has."""
    old = re.compile(rf"{re.escape(_begin(report.name))}\n.*?{re.escape(_END)}\n", re.DOTALL)
    if old.search(page):
        return old.sub(lambda _: report.section(), page)
    return f"{page.rstrip()}\n\n{report.section()}"


def versions(*distributions: str) -> dict[str, str]:
    """Python's version and those of installed distributions."""
    return {"Python": platform.python_version()} | {name: version(name) for name in distributions}


def main() -> None:
    """Puts the sections of some reports into the page."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description="write docs/performance.md")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="written by a bench's --json")
    page = PAGE.read_text()
    for path in parser.parse_args().files:
        page = with_section(page, Report.load(path))
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
