"""The command line of the launcher and of its ranks: TrainConfig from flags and environment, and back."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from app.config import OPTIONS, ConfigError, TrainConfig, check, type_of, words


def convert(name: str, text: str) -> Any:
    """The value that `text` means for a field.

    Raises:
        ConfigError: the text is no such value.
    """
    kind = type_of(name)
    option, _ = OPTIONS[name]
    if option.off_word and text == option.off_word:
        return kind(option.off)
    if kind is bool:
        meanings = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if text.strip().lower() not in meanings:
            raise ConfigError(name, f"must be True or False, not {text!r}")
        return meanings[text.strip().lower()]
    try:
        return kind(text)
    except ValueError:
        besides = f" or {option.off_word}" if option.off_word else ""
        raise ConfigError(name, f"must be {words(kind)}{besides}, not {text!r}") from None


class Parser(argparse.ArgumentParser):
    """argparse, but that a wrong command line is a ConfigError like every other bad option."""

    def error(self, message: str) -> NoReturn:
        """See `argparse.ArgumentParser`.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("command line", f"{message} (--help shows what there is)")


def parser(program: str) -> argparse.ArgumentParser:
    """The command line of the launcher and of a rank: one flag per field, its text not yet converted."""
    result = Parser(
        prog=program,
        description="Trains a ResNet by the published recipe, one process per device.",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, (option, field) in OPTIONS.items():
        default = "required" if option.required else f"default {field.default!r}" if field.default != "" else ""
        add_option(result, name, default)
    return result


def add_option(to: argparse.ArgumentParser, name: str, default: str) -> None:
    """Adds the flag of a TrainConfig field, its text not yet converted; `default` ends its help, "" for nothing."""
    option, _ = OPTIONS[name]
    choices = f" ({' | '.join(option.choices)})" if option.choices else ""
    text = f"{option.help}{choices}{f' [{default}]' if default else ''}"
    to.add_argument(
        *option.flags, dest=name, default=None, metavar=type_of(name).__name__.upper(), help=text.replace("%", "%%")
    )


def parse(argv: Sequence[str], environ: Mapping[str, str], program: str = "python -m app.run_resnet") -> TrainConfig:
    """The checked configuration from flags, then the environment, then defaults.

    Raises:
        ConfigError: names the flag, what was wrong and what would be right.
        SystemExit: `--help` was asked for.
    """
    command_line = parser(program)
    given, unknown = command_line.parse_known_args(list(argv))
    if unknown:
        flags = [flag for option, _ in OPTIONS.values() for flag in option.flags]
        close = difflib.get_close_matches(unknown[0].split("=")[0], flags, n=1)
        hint = f", did you mean {close[0]}?" if close else "; --help lists the flags"
        raise ConfigError("command line", f"unknown argument {unknown[0]!r}{hint}")
    values: dict[str, Any] = {}
    for name, (option, _) in OPTIONS.items():
        text = getattr(given, name)
        source = option.flags[0]
        if text is None:
            source, text = next(((v, environ[v]) for v in option.env if environ.get(v)), (source, None))
        if text is not None:
            values[name] = convert(name, text)
        elif option.required:
            choices = f", one of {', '.join(option.choices)}" if option.choices else ""
            raise ConfigError(name, f"is required: {option.help}{choices}")
    config = TrainConfig(**values)
    check(config)
    return config


def to_args(config: TrainConfig) -> list[str]:
    """The flags that make this configuration, without those at their default; `parse` gives it back."""
    args = []
    for name, (option, field) in OPTIONS.items():
        value = getattr(config, name)
        if value != field.default or option.required:
            text = option.off_word if option.off_word and value == option.off else value
            args.append(f"{option.flags[0]}={text}")
    return args
