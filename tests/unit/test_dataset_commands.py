"""`resnetctl dataset`: what it prints, and one line with a code for what it can't do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.data import commands, digits
from app.data.ilsvrc.prepare import prepare
from controller.cli import main
from tests.ilsvrc_tars import Published, publish_digits
from tests.unit.test_ilsvrc_prepare import quiet, source

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish_digits(tmp_path_factory.mktemp("ilsvrc"), classes=3, train=4, val=2)


def outcome(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    try:
        code = main(["dataset", *argv])
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    return int(code), out, err


def test_prepare_says_what_it_wrote_and_then_that_it_is_there(
    capsys: pytest.CaptureFixture[str], published: Published, tmp_path: Path
) -> None:
    for did, lines in (("wrote", 6), ("found", 0)):
        code, out, err = outcome(capsys, "prepare-imagenet", *published.args(), f"--out={tmp_path}")
        facts = f"12 training and 6 validation images of 3 classes in {tmp_path}\n"
        assert (code, out, len(err.splitlines())) == (0, f"{did} {facts}", lines)
    code, out, err = outcome(capsys, "check", str(tmp_path))
    facts = "3 classes, 12 training and 6 validation images (imagenet as published has 1000, 1281167 and 50000)"
    assert (code, out) == (0, f"{tmp_path}: {facts}, none bad by their headers\n")


def test_the_counts_of_imagenet_are_expected_unless_others_are_given(
    capsys: pytest.CaptureFixture[str], published: Published, tmp_path: Path
) -> None:
    argv = [arg for arg in published.args() if not arg.startswith("--classes")]
    code, out, err = outcome(capsys, "prepare-imagenet", *argv, f"--out={tmp_path}")
    assert (code, out) == (65, "")
    assert err == f"resnetctl: {published.devkit} holds 3 classes where 1000 are expected\n"


def test_check_of_the_digits_has_nothing_to_add(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    digits.write(tmp_path)
    code, out, err = outcome(capsys, "check", str(tmp_path), "--dataset", "digits", "--decode")
    facts = "10 classes, 1437 training and 360 validation images, none bad by all pixels"
    assert (code, out) == (0, f"{tmp_path}: {facts}\n")
    assert err.splitlines()[-1] == "train images: 1437 of 1437"


@pytest.mark.parametrize("index_only", [False, True])
def test_check_names_the_bad_images(capsys: pytest.CaptureFixture[str], tmp_path: Path, index_only: bool) -> None:
    own = publish_digits(tmp_path / "made", classes=2, train=3, val=2)
    out = tmp_path / "out"
    if index_only:
        content = own.train_tar.read_bytes()
        at = content.index(b"\xff\xd8\xff")  # the start of a JPEG
        own.train_tar.write_bytes(content[:at] + b"no" + content[at + 2 :])
    prepare(out, source(own), 2, quiet, index_only=index_only)
    if not index_only:
        bad = sorted((out / "train").rglob("*.JPEG"))[0]
        bad.write_bytes(b"no" + bad.read_bytes()[2:])
    code, text, err = outcome(capsys, "check", str(out))
    assert code == 65
    assert text.endswith(", 1 bad by their headers\n")
    (line,) = [line for line in err.splitlines() if line.startswith("bad image ")]
    assert ("ILSVRC2012_img_train.tar: n" if index_only else f"{out}/train/n") in line
    assert line.endswith(" bytes that are no image)")


def test_an_image_that_was_lost_since_it_was_prepared_is_missed(
    capsys: pytest.CaptureFixture[str], published: Published, tmp_path: Path
) -> None:
    prepare(tmp_path, source(published), 2, quiet)
    next((tmp_path / "val").rglob("*.JPEG")).with_suffix(".gone").touch()
    assert outcome(capsys, "check", str(tmp_path))[0] == 0
    next((tmp_path / "train").rglob("*.JPEG")).unlink()
    code, out, _ = outcome(capsys, "check", str(tmp_path))
    facts = "3 classes, 11 training and 6 validation images (prepare-imagenet wrote 3, 12 and 6)"
    assert (code, out) == (65, f"{tmp_path}: {facts}, none bad by their headers\n")


def test_an_image_that_was_cut_is_found_by_its_pixels(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "_LISTED", 20)
    digits.write(tmp_path)
    for file in sorted((tmp_path / "val" / "3").iterdir())[:25]:
        os.truncate(file, file.stat().st_size // 2 + 200)
    assert outcome(capsys, "check", str(tmp_path))[0] == 0
    code, out, err = outcome(capsys, "check", str(tmp_path), "--decode")
    assert code == 65
    assert ", 25 bad by all pixels" in out
    lines = err.splitlines()
    assert sum(line.startswith(f"bad image {tmp_path}/val/3/") for line in lines) == 20
    assert lines[-1] == "and 5 more"


@pytest.mark.parametrize(
    ("argv", "code", "line"),
    [
        ([], 64, "resnetctl dataset: the following arguments are required: COMMAND"),
        (["prepare"], 64, "resnetctl dataset: there is no command 'prepare': did you mean prepare-imagenet?"),
        (["prepare-imagenet"], 64, "required: --train-tar, --val-tar, --devkit, --out"),
        (["check"], 64, "resnetctl dataset check: the following arguments are required: PATH"),
        (["check", ".", "--workers", "0"], 64, "argument --workers: must be a whole number from 1 on, not '0'"),
        (["check", ".", "--workers", "9" * 5000], 64, "argument --workers: must be a whole number"),
        (["check", ".", "--dataset", "cats"], 64, "argument --dataset: 'cats' is not one of imagenet, digits"),
        (["check", "/nowhere"], 66, "resnetctl: --dataset_path: /nowhere does not exist"),
    ],
)
def test_what_can_t_be_done_is_one_line_and_a_code(
    capsys: pytest.CaptureFixture[str], argv: list[str], code: int, line: str
) -> None:
    got, out, err = outcome(capsys, *argv)
    assert (got, out) == (code, "")
    assert line in err
    assert err.count("\n") == 1


def in_a_process(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("package", ["numpy", "PIL", "scipy"])
def test_a_missing_extra_is_one_line_that_names_it(published: Published, tmp_path: Path, package: str) -> None:
    argv = ["dataset", "prepare-imagenet", *published.args(), f"--out={tmp_path}"]
    done = in_a_process(
        f"import sys; sys.modules[{package!r}] = None\nfrom controller.cli import main; sys.exit(main({argv!r}))"
    )
    assert (done.returncode, done.stdout) == (69, "")
    assert package in done.stderr
    assert done.stderr.endswith("pip install '.[dataset]' in a clone of resnet-operator\n")
    assert done.stderr.count("\n") == 1


def test_neither_command_imports_torch_and_none_needs_rich(published: Published, tmp_path: Path) -> None:
    prepare_argv = ["dataset", "prepare-imagenet", *published.args(), f"--out={tmp_path}"]
    done = in_a_process(
        "import sys; sys.modules['rich'] = None\nfrom controller.cli import main\n"
        "assert not {'numpy', 'PIL', 'scipy'} & set(sys.modules)\n"
        f"assert main({prepare_argv!r}) == 0\nassert main(['dataset', 'check', {str(tmp_path)!r}, '--decode']) == 0\n"
        "assert 'scipy' in sys.modules and 'torch' not in sys.modules\n"
    )
    assert done.returncode == 0, done.stderr
