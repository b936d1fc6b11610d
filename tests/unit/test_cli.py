"""resnetctl: what each command prints, and one line with a code for what it can't do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib
import yaml

from controller.cli import GROUPS, _parser, main
from controller.completion import SHELLS, script

ROOT = Path(__file__).parents[2]
EXAMPLE = str(ROOT / "examples" / "resnet50-2nodes.yaml")


def outcome(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    try:
        code = main(argv)
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    return int(code), out, err


def test_validate_says_what_would_run(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = outcome(capsys, "validate", "-f", EXAMPLE)
    facts = "resnet50 on 2x16 sdaa, global batch 2048, learning rate 2.048, warm-up 16 epochs"
    assert (code, out, err) == (0, f"{EXAMPLE}: valid: {facts}\n", "")


def test_render_prints_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = outcome(
        capsys, "render", "-f", EXAMPLE, "--attempt", "4", "--namespace", "team", "--training-image", "own:1"
    )
    job = yaml.safe_load(out)
    assert (code, err) == (0, "")
    assert (job["kind"], job["metadata"]["name"], job["metadata"]["namespace"]) == (
        "PyTorchJob", "resnet50-2nodes-4", "team",
    )  # fmt: skip
    container = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]
    assert container["image"] == "own:1"
    assert "--checkpoint_dir=/checkpoints/team/resnet50-2nodes" in container["args"]


def test_render_standalone_says_on_stderr_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = outcome(capsys, "render", "-f", EXAMPLE, "--standalone")
    assert code == 0
    assert yaml.safe_load(out)["spec"]["runPolicy"]["activeDeadlineSeconds"] > 0
    assert err.count("\n") == 1
    assert err.startswith(f"{EXAMPLE}: without the controller")


def test_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    expected = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert outcome(capsys, "--version") == (0, f"resnetctl {expected}\n", "")


def test_no_command_prints_the_help_which_shows_every_command_once_and_fits_on_a_screen(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = outcome(capsys)
    assert code == 0
    (commands,) = (each.choices for each in _parser()._actions if isinstance(each.choices, dict))
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(commands)
    for command in commands:
        assert len(re.findall(rf"^\S* +{command} +\w", out, re.MULTILINE)) == 1, command
    assert len(out.splitlines()) < 24, "the prompt stands below it"
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("argv", "code", "line"),
    [
        (["validate", "-f", "/nowhere.yaml"], 66, "/nowhere.yaml: can't be read: No such file or directory"),
        (["render", "-f", "/nowhere.yaml"], 66, "/nowhere.yaml: can't be read: No such file or directory"),
        (["validate"], 64, "resnetctl validate: the following arguments are required: -f/--file"),
        (["completion", "csh"], 64, "resnetctl completion: argument SHELL: 'csh' is not one of bash, zsh, fish"),
        (["watch", "a", "b"], 64, "resnetctl watch: unknown argument 'b' (--help"),
        (["valid"], 64, "resnetctl: there is no command 'valid': did you mean validate? (--help shows"),
        (["validate", "-f", EXAMPLE, "--fast"], 64, "resnetctl validate: unknown argument '--fast' (--help"),
        (["render", "-f", EXAMPLE, "--attempt", "0"], 64, "argument --attempt: must be 1 to 999999, not '0'"),
        (["render", "-f", EXAMPLE, "--attempt", "9" * 5000], 64, "argument --attempt: must be 1 to 999999"),
        (["render", "-f", EXAMPLE, "--namespace", "A"], 64, "argument --namespace: must be 1 to 63 lower-case"),
        (["render", "-f", EXAMPLE, "--training-image", "a b"], 64, "--training-image: must be an image reference"),
        (["render", "-f", EXAMPLE, "--standalone", "--attempt", "2"], 64, "not allowed with argument"),
        (["run"], 64, "resnetctl run: the following arguments are required: -f/--file"),
    ],
)
def test_what_can_t_be_done_is_one_line_and_a_code(
    capsys: pytest.CaptureFixture[str], argv: list[str], code: int, line: str
) -> None:
    got, out, err = outcome(capsys, *argv)
    assert (got, out) == (code, "")
    assert line in err
    assert err.count("\n") == 1


BASH = r"""
set -e; cd "$1"; shift; source /dev/stdin
words=(resnetctl "$@"); last=$((${#words[@]} - 1))
COMP_WORDS=("${words[@]}") COMP_CWORD=$last
function=$(complete -p resnetctl | sed -E 's/.*-F ([^ ]+).*/\1/')
"$function" resnetctl "${words[last]}" "${words[last - 1]}" || true
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["re"], ["render", "report", "resume"]),
        (["render", "--st"], ["--standalone"]),
        (["dataset", "pre"], ["prepare-imagenet"]),
        (["validate", "-f", "d"], ["data", "digits.yaml"]),
        (["validate", "--file", "data/"], ["data/two.yaml"]),
        (["run", "--workdir", "d"], ["data"]),
        (["predict", "di"], ["digits.yaml"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["watch", "x"], []),
    ],
    ids=" ".join,
)
def test_bash_completes_commands_options_and_files(typed: list[str], offered: list[str], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("digits.yaml", "data/two.yaml"):
        (tmp_path / name).touch()
    done = subprocess.run(
        ["bash", "-c", BASH, "bash", str(tmp_path), *typed],
        input=script(_parser(), "bash"), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.split()) == sorted(offered)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_is_given_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = outcome(capsys, "completion", shell)
    assert (code, err) == (0, "")
    for command in ("validate", "prepare-imagenet", "predict", "completion"):
        assert command in out


def test_a_bad_experiment_is_one_line_a_problem(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(Path(EXAMPLE).read_text().replace("epochs: 50", "epochs: 0").replace("sdaa", "tpu"))
    code, out, err = outcome(capsys, "validate", "-f", str(file))
    assert (code, out) == (64, "")
    assert [line.split(": ")[:2] for line in err.splitlines()] == [
        [str(file), "spec.accelerator.type"],
        [str(file), "spec.training.epochs"],
    ]


def in_a_process(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("package", ["pydantic", "yaml", "jinja2"])
def test_a_missing_extra_is_one_line_that_names_it(package: str) -> None:
    done = in_a_process(
        f"import sys; sys.modules[{package!r}] = None\n"
        f"from controller.cli import main; sys.exit(main(['render', '-f', {EXAMPLE!r}]))"
    )
    advice = "pip install '.[controller]' in a clone of resnet-operator"
    expected = f"resnetctl: the Python package {package} is not installed: {advice}\n"
    assert (done.returncode, done.stdout, done.stderr) == (69, "", expected)


def test_validate_and_render_import_no_torch_and_the_help_imports_nothing_heavy() -> None:
    done = in_a_process(
        "import sys\nfrom controller.cli import main\n"
        "main([])\nassert not {'pydantic', 'yaml', 'jinja2'} & set(sys.modules)\n"
        f"main(['render', '-f', {EXAMPLE!r}]); main(['validate', '-f', {EXAMPLE!r}])\n"
        "assert 'jinja2' in sys.modules\nassert not {'torch', 'numpy', 'rich'} & set(sys.modules)\n"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_that_has_gone_is_no_error() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "controller.cli", "render", "-f", EXAMPLE],
            cwd=ROOT, stdout=pipe, stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_full_disk_is_one_line() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "controller.cli", "render", "-f", EXAMPLE],
            cwd=ROOT, stdout=full, stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (144, b"resnetctl: No space left on device\n")
