"""docs/options.md is what the options are."""

from pathlib import Path

from app.config import OPTIONS
from app.options_doc import markdown

PAGE = Path(__file__).parents[2] / "docs" / "options.md"


def test_the_committed_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == markdown(), "run `make docs`"


def test_every_option_is_one_row_with_its_flags_and_its_name_in_the_spec() -> None:
    rows = [line.split(" | ") for line in markdown().splitlines() if line.startswith("| `--")]
    assert len(rows) == len(OPTIONS)
    for row, (option, _) in zip(rows, OPTIONS.values(), strict=True):
        assert row[0] == "| " + ", ".join(f"`{flag}`" for flag in option.flags)
        assert row[1] == (f"`{option.spec}`" if option.spec else "-")
        assert len(row) == 6
