"""A bench replaces its own section of docs/performance.md, and no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bench.report import PAGE, Report, Table, with_section

REPORT = Report(
    name="a",
    title="A",
    command="python -m bench.a",
    versions={"Python": "3.11"},
    tables=[Table("What.", ["count", "time"], [["1", "2 s"]])],
    notes=["But."],
    machine="a machine",
    date="2026-01-31",
)


def test_what_was_saved_is_what_is_shown(tmp_path: Path) -> None:
    REPORT.save(tmp_path / "a.json")
    section = Report.load(tmp_path / "a.json").section()
    assert section == REPORT.section()
    assert "`python -m bench.a`, 2026-01-31, on a machine; Python 3.11." in section
    assert "What.\n\n| count | time |\n| --- | ---: |\n| 1 | 2 s |\n\nBut.\n" in section


def test_a_section_is_added_once_and_replaced_as_a_whole() -> None:
    other = replace(REPORT, name="b", title="B")
    page = with_section(with_section("# Head\n\nBy hand.\n", REPORT), other)
    assert page.startswith("# Head\n\nBy hand.\n\n<!-- bench: a -->\n")
    assert with_section(page, REPORT) == page
    changed = with_section(page, replace(REPORT, notes=[r"Now \\1."]))
    assert changed == page.replace("But.", r"Now \\1.", 1)
    assert changed.index("## A") < changed.index("## B")


def test_the_page_has_a_section_of_each_bench_that_reports() -> None:
    page = PAGE.read_text()
    for path in PAGE.parents[1].glob("bench/*.py"):
        if '"--json"' in path.read_text():
            assert f"<!-- bench: {path.stem} -->" in page
