"""The pages: both READMEs say the same, links lead somewhere, and commands are run or say why they are not."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from app.command_line import parse
from app.config import plan
from app.version import version
from controller.api import load_file, train_config
from controller.cli import _parser
from tests.cluster.toolchain import TRAINING_OPERATOR
from tests.markdown import PLACES, ROOT, SHELL, anchor, fences, headings, links, pages, prose, tables

ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"
PAGES = [pytest.param(page, id=str(page.relative_to(ROOT))) for page in pages()]


def facts(text: str) -> list[str]:
    """What no translation changes: code, links, numbers and names."""
    code = re.findall(r"`[^`]+`", text)
    rest = re.sub(r"`[^`]+`", "", text)
    places = re.findall(r"\]\(([^)]+)\)", rest)
    rest = re.sub(r"\]\([^)]+\)", "", rest)
    return sorted([*code, *places, *re.findall(r"\d[\d.,]*\d|\d", rest)])


def test_both_readmes_have_the_same_headings_in_the_same_order() -> None:
    english, chinese = headings(ENGLISH), headings(CHINESE)
    assert [level for level, _ in chinese] == [level for level, _ in english]
    assert all(re.search(r"[\u4e00-\u9fff]", text) for _, text in chinese[1:]), "they are translated"


def test_both_readmes_have_the_same_blocks_with_the_same_commands() -> None:
    def without_comments(text: str) -> str:
        return re.sub(r"\s+# .*$", "", text, flags=re.M)

    english, chinese = fences(ENGLISH), fences(CHINESE)
    assert [(each.language, each.place, bool(each.why)) for each in chinese] == [
        (each.language, each.place, bool(each.why)) for each in english
    ]
    for ours, theirs in zip(english, chinese, strict=True):
        assert without_comments(theirs.text) == without_comments(ours.text), f"README.zh-CN.md:{theirs.line}"


def test_both_readmes_have_the_same_tables_with_the_same_facts() -> None:
    english, chinese = tables(ENGLISH), tables(CHINESE)
    assert [len(table) for table in chinese] == [len(table) for table in english]
    for ours, theirs in zip(english, chinese, strict=True):
        for left, right in zip(ours[1:], theirs[1:], strict=True):
            assert [facts(cell) for cell in right] == [facts(cell) for cell in left], right


def test_both_readmes_say_the_same_numbers_code_and_links() -> None:
    def said(page: Path) -> list[str]:
        paragraphs = [text for text in prose(page).split("\n\n") if not text.startswith(("|", "English", "[English]"))]
        return facts("\n".join(paragraphs))

    # A heading is called otherwise in another language.
    english, chinese = ([each for each in said(page) if not each.startswith("#")] for page in (ENGLISH, CHINESE))
    assert chinese == english


@pytest.mark.parametrize("page", PAGES)
def test_a_link_leads_to_a_file_and_a_heading_that_are_there(page: Path) -> None:
    broken = []
    for link in links(page):
        path, _, place = link.partition("#")
        if re.match(r"https?:", link):
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (place and place not in {anchor(text) for _, text in headings(target)}):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES)
def test_what_stands_before_a_block_of_commands_is_a_place_or_a_reason(page: Path) -> None:
    for fence in fences(page):
        assert not fence.place or fence.place in PLACES, f"{page}:{fence.line}"
        assert not (fence.place or fence.why) or fence.language in SHELL, f"{page}:{fence.line}"
    text = page.read_text(encoding="utf-8")
    assert len(re.findall(r"^<!-- (?:not )?run: ", text, re.M)) == sum(
        bool(each.place or each.why) for each in fences(page)
    )


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_commands_is_run_or_says_why_not(page: Path) -> None:
    unsaid = [each.line for each in fences(page) if each.language in SHELL and not (each.place or each.why)]
    assert unsaid == []


@pytest.mark.parametrize("page", PAGES)
def test_commands_can_be_pasted(page: Path) -> None:
    for fence in fences(page):
        assert not re.search(r"^\$ ", fence.text, re.M), f"{page}:{fence.line}: a prompt can't be pasted"


@pytest.mark.parametrize("page", PAGES)
def test_a_resnetctl_command_exists(page: Path) -> None:
    (known,) = (each.choices for each in _parser()._actions if isinstance(each.choices, dict))
    text = page.read_text(encoding="utf-8")
    code = "\n".join(
        [*(each.text for each in fences(page) if each.language in SHELL), *re.findall(r"`([^`\n]+)`", text)]
    )
    assert set(re.findall(r"\bresnetctl ([a-z]+)\b", code)) <= set(known)


@pytest.mark.parametrize("page", PAGES)
def test_an_image_is_named_with_the_version(page: Path) -> None:
    named = re.findall(
        r"resnet-operator-(?:training|operator|device-plugin):(\d[\w.]*)", page.read_text(encoding="utf-8")
    )
    assert set(named) <= {version()}


def test_the_results_are_those_of_the_examples() -> None:
    (results,) = (each for each in tables(ENGLISH) if each[0][0] == "file")
    rows = {cells[0].strip("`").removeprefix("examples/").removesuffix(".yaml"): cells[1:] for cells in results[1:]}
    (made,) = (each for each in tables(ROOT / "docs" / "examples.md") if each[0][0] == "file")
    for cells in made[1:]:
        name, *_, epochs = (re.sub(r"\[`(.+)\.yaml`\].*", r"\1", cell) for cell in cells)
        _, _, devices, batch, rate, warmup, _ = cells
        assert rows.pop(name)[:5] == [devices, batch, rate, warmup.split()[0], epochs], name
    assert rows == {}
    for cells in results[1:]:
        comment = " ".join(line.strip("# ") for line in (ROOT / cells[0].strip("`")).read_text().splitlines())
        for figure in re.findall(r"(\d\d\.\d\d %) \(published", cells[-1]):
            assert f"Top-1 {figure}: published by ModelZoo, not reproduced here" in comment


MIGRATING = next(each for each in tables(ROOT / "docs" / "migrating.md") if each[0] == ["command", "experiment"])


@pytest.mark.parametrize(("cell", "name"), MIGRATING[1:], ids=[name for _, name in MIGRATING[1:]])
def test_a_command_of_modelzoo_plans_what_the_experiment_beside_it_plans(cell: str, name: str) -> None:
    _, command, _ = cell.split("`")
    program, *flags = shlex.split(command.removeprefix("python "))
    assert program == "run_resnet.py"
    typed = plan(parse(flags, {}))
    meant = plan(train_config(load_file(ROOT / "examples" / f"{name.strip('`')}.yaml")))
    # Where each of them keeps its checkpoints is another matter.
    differs = {key for key in meant if typed[key] != meant[key]} - {"checkpoint_dir"}
    assert typed["dataset_path"].rstrip("/") == meant["dataset_path"]
    assert differs <= {"dataset_path"}


def test_pre_commit_runs_what_ci_runs() -> None:
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = {hook["stages"][0]: hook["entry"] for hook in local["hooks"]}
    assert hooks == {"pre-commit": "make lint", "pre-push": "make test-unit", "manual": ".ci/run"}
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M)
    assert {"lint", "test-unit"} <= set(targets)
    assert re.findall(r"^make (\S+)$", (ROOT / ".ci" / "run").read_text(), re.M) == ["lint", "test"]
    assert all(hook["language"] == "system" for hook in local["hooks"]), "from the locks, as make has them"


def test_the_training_operator_is_the_one_that_is_tested() -> None:
    assert f"?ref=v{TRAINING_OPERATOR.version()}" in ENGLISH.read_text(encoding="utf-8")


def test_the_changelog_begins_with_this_version() -> None:
    first = re.search(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert first is not None
    assert first[1] == version()


def test_the_licence_is_the_one_that_is_named() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
