"""The project's pages as tests read them: headings, tables, links, and the commands that stand in them.

A comment before a fence says what becomes of its commands: `<!-- run: PLACE -->`, which tests run there, or
`<!-- not run: WHY -->`. The comment is not shown where the page is rendered.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACES = {
    "here": "tests/integration/test_first_hour.py, in a clean clone after its `make demo`",
    "dataset": "tests/integration/test_first_hour.py, beside small tars of ImageNet's structure",
    "api": "tests/integration/test_documented_kubectl.py, on an API server without nodes",
    "cluster": "tests/e2e/test_first_hour.py, on two nodes with the images",
}
"""Where commands are run, and by what."""
SHELL = ("bash", "console", "sh")
_FENCE = re.compile(
    r"(?:^<!-- (?P<word>run|not run): (?P<said>[^\n]+?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S
)


@dataclass(frozen=True)
class Fence:
    """A block between ``` and ```.

    Attributes:
        page: its file.
        line: of its first line of text, from 1.
        language: the word after ```.
        place: where its commands are run; empty: nowhere.
        why: why they are run nowhere; empty where that is not said.
        text: what is in it.
    """

    page: Path
    line: int
    language: str
    place: str
    why: str
    text: str


def pages() -> list[Path]:
    """Every page of the project."""
    top = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "charts").glob("*/*.md")]
    return sorted(top)


def fences(page: Path) -> list[Fence]:
    """The blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        word, said = match["word"], match["said"] or ""
        line = text.count("\n", 0, match.start("text")) + 1
        place, why = (said, "") if word == "run" else ("", said)
        found.append(Fence(page, line, match["language"], place, why, match["text"]))
    return found


def having(place: str) -> list[Path]:
    """The pages with commands that are run there."""
    return [page for page in pages() if any(fence.place == place for fence in fences(page))]


def commands(page: Path, place: str) -> str:
    """All commands of a page that are run there, as one script: typed into one shell, which ends at an error."""
    parts = [f"# {fence.page.name}:{fence.line}\n{fence.text}" for fence in fences(page) if fence.place == place]
    return "\n".join(["set -eo pipefail", *parts])


def prose(page: Path) -> str:
    """The page without its blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def headings(page: Path) -> list[tuple[int, str]]:
    """(level, text) of each."""
    return [(len(signs), text) for signs, text in re.findall(r"^(#+) (.+)$", prose(page), re.M)]


def anchor(heading: str) -> str:
    """What links of the page call a heading, as GitHub makes it."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def tables(page: Path) -> list[list[list[str]]]:
    """Each table: its rows, the titles first, without the line below them."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", prose(page), re.M)
    return [
        [
            [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
            for line in rows
            if "---" not in line
        ]
        for rows in (block.strip().split("\n") for block in blocks)
    ]


def links(page: Path) -> list[str]:
    """The targets of its links and pictures."""
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(page)))
