"""`resnetctl`: checks, renders and runs experiments. Nothing heavy is imported until a subcommand needs it."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from app import arguments
from app.resilience.exit_codes import ExitCode
from app.version import installing, version
from controller import cluster_commands, completion, dataset, report_command, tools

if TYPE_CHECKING:
    from controller.api import Experiment

PROGRAM = "resnetctl"
GROUPS = {
    "here": ("validate", "render", "run", "report"),
    "cluster": ("list", "watch", "check", "logs", "stop", "resume", "why"),
    "model": ("evaluate", "export", "predict"),
    "machine": ("doctor", "dataset", "completion"),
}
"""The commands as `resnetctl --help` shows them."""
MAX_ATTEMPT = 999_999
"""Keeps the name of a pod's service, <experiment>-<attempt>-worker-<index>, below 63 characters."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; every problem with its input is one line on stderr."""
    try:
        words = list(sys.argv[1:] if argv is None else argv)
        if words and words[0] in tools.TOOLS:
            tools.start(words[0], words[1:])
        args = _parser().parse_args(words)
        if args.command is None:
            _parser().print_help()
            return ExitCode.DONE
        code: int = args.command(args)
        sys.stdout.flush()
        return code
    except OSError as error:
        # Python would try once more at exit, and print what it caught there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # whoever read our output has gone, as `| head` does
            return ExitCode.DONE
        where = f"{error.filename}: " if error.filename else ""
        print(f"{PROGRAM}: {where}{error.strerror or error}", file=sys.stderr)
        return ExitCode.VOLUME_IO
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("app", "controller"):
            raise
        print(
            f"{PROGRAM}: the Python package {missing} is not installed: {installing('controller')}",
            file=sys.stderr,
        )
        return ExitCode.FRAMEWORK_MISSING


def _validate(args: argparse.Namespace) -> int:
    return _with_experiment(args, _print_valid)


def _print_valid(experiment: Experiment, args: argparse.Namespace) -> None:
    from app.config import plan  # noqa: PLC0415
    from controller.api import train_config  # noqa: PLC0415

    facts = plan(train_config(experiment))
    print(
        f"{args.file}: valid: {facts['model']} on {facts['nnodes']}x{facts['nproc_per_node']} {facts['device']}, "
        f"global batch {facts['global_batch']}, learning rate {facts['learning_rate']:g}, "
        f"warm-up {facts['warmup_epochs']} epochs"
    )


def _render(args: argparse.Namespace) -> int:
    return _with_experiment(args, _print_job)


def _print_job(experiment: Experiment, args: argparse.Namespace) -> None:
    from controller.render import STANDALONE_NOTE, default_image, render_text  # noqa: PLC0415

    text = render_text(
        experiment,
        args.attempt,
        training_image=args.training_image or default_image(),
        standalone=args.standalone,
    )
    if args.standalone:
        print(f"{args.file}: {STANDALONE_NOTE}", file=sys.stderr)
    print(text, end="")


def _with_experiment(args: argparse.Namespace, use: Callable[[Experiment, argparse.Namespace], None]) -> int:
    from controller.api import SpecError, load_file  # noqa: PLC0415

    try:
        experiment = load_file(args.file)
        if getattr(args, "namespace", None):
            experiment = _in_namespace(experiment, args.namespace)
        use(experiment, args)
    except SpecError as error:
        print(error, file=sys.stderr)
        return error.code
    return ExitCode.DONE


def _in_namespace(experiment: Experiment, namespace: str) -> Experiment:
    metadata = experiment.metadata.model_copy(update={"namespace": namespace})
    return experiment.model_copy(update={"metadata": metadata})


def _run(args: argparse.Namespace) -> int:
    from controller.local_run import run_command  # noqa: PLC0415

    return run_command(args)


def _image(text: str) -> str:
    from controller.api import base  # noqa: PLC0415

    return _matching(base.IMAGE, text)


def _namespace(text: str) -> str:
    from controller.api import base  # noqa: PLC0415

    return _matching(base.DNS_LABEL, text)


def _matching(pattern: str, text: str) -> str:
    from controller.api.base import WORDS  # noqa: PLC0415

    if not re.fullmatch(pattern, text):
        raise argparse.ArgumentTypeError(f"{WORDS[pattern]}, not {text!r}")
    return text


class _Program(arguments.Parser):
    """The parser of all commands, whose help fits on a screen of 24 lines."""

    def format_help(self) -> str:
        """See `argparse.ArgumentParser`."""
        (commands,) = (each for each in self._actions if isinstance(each, argparse._SubParsersAction))
        texts = {each.dest: str(each.help) for each in commands._choices_actions}
        lines = [
            f"{group if name == names[0] else '':9}{name:12}{texts[name]}"
            for group, names in GROUPS.items()
            for name in names
        ]
        usage = f"usage: {self.prog} COMMAND ...   (--help after a command: its options; --version)"
        return "\n".join([usage, "", str(self.description), "", *lines, ""])


def _parser() -> argparse.ArgumentParser:
    parser = _Program(
        prog=PROGRAM, description="Trains ResNets from one experiment file, here or on Kubernetes.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {version()}")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=arguments.Parser)

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.add_argument("-f", "--file", required=True, metavar="FILE", help="a ResNetExperiment in YAML")
        sub.set_defaults(command=run)
        return sub

    command("validate", _validate, "check an experiment and say what it would run")
    render = command("render", _render, "print the job of an experiment")
    which = render.add_mutually_exclusive_group()
    which.add_argument("--standalone", action="store_true", help="for a cluster without this project's controller")
    number = arguments.whole(1, MAX_ATTEMPT)
    which.add_argument("--attempt", type=number, default=1, metavar="N", help="number of the attempt [default 1]")
    render.add_argument("--training-image", type=_image, metavar="IMAGE", help="image where the spec names none")
    render.add_argument("--namespace", type=_namespace, metavar="NS", help="instead of the file's own")
    run = command("run", _run, "train on this machine, without a cluster")
    run.add_argument("--workdir", default="runs", metavar="DIR", help="where runs are kept [default runs]")
    report_command.add_command(commands)
    cluster_commands.add_commands(commands)
    dataset.add_commands(commands, PROGRAM)
    tools.add_commands(commands)
    completion.add_command(commands, parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
