"""docs/options.md, made from TrainConfig: `python -m app.options_doc` prints it, `make docs` writes it."""

from __future__ import annotations

import sys

from app.config import OPTIONS, Option, type_of

_HEAD = """# Options of the training

Made from `app/config.py` by `make docs`; a test fails where it is not current. Each row is one option: its flags for
`python -m app.run_resnet`, and its name in `spec.training` of a ResNetExperiment (a dash: another part of the spec
says it, or nothing does). Where a flag is absent, the environment variables named with it are looked at. True and False
are words: `--autocast True`.

| flags | spec.training | type | default | allowed | what it is |
|---|---|---|---|---|---|
"""


def markdown() -> str:
    """The whole page."""
    return _HEAD + "".join(_row(name, option, field.default) for name, (option, field) in OPTIONS.items())


def _row(name: str, option: Option, default: object) -> str:
    flags = ", ".join(f"`{flag}`" for flag in option.flags)
    default = "required" if option.required else "" if default == "" else f"`{default}`"
    env = f" (environment: {', '.join(f'`{each}`' for each in option.env)})" if option.env else ""
    spec = f"`{option.spec}`" if option.spec else "-"
    cells = [flags, spec, type_of(name).__name__, default, _allowed(option), option.help + env]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|').replace('<', '&lt;') for cell in cells)} |\n"


def _allowed(option: Option) -> str:
    if option.choices:
        return ", ".join(f"`{choice}`" for choice in option.choices)
    if option.low is None and option.high is None:
        return ""
    low = "" if option.low is None else f"{option.low:.12g}"
    high = "" if option.high is None else f"{option.high:.12g}"
    return f"{low} to {high}" + (f", or {option.off_shown}" if option.off_shown else "")


if __name__ == "__main__":
    sys.stdout.write(markdown())
