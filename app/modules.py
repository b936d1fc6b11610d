"""Modules of this package as processes of their own, found whatever folder the caller stands in."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

PACKAGE_PARENT = Path(__file__).resolve().parent.parent
"""The folder that holds the package `app`."""


def python_command(module: str) -> list[str]:
    """This Python running a module of this package; where it can, without the working folder on its path.

    The working folder may be app/ itself, or hold another package of that name.
    """
    return [sys.executable, *(["-P"] if sys.version_info >= (3, 11) else []), "-m", module]


def python_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment in which a child finds this package, whatever the working folder is.

    An installed package is found without PYTHONPATH, which would put all that is installed before Python's own modules.
    """
    if PACKAGE_PARENT.name in ("site-packages", "dist-packages"):
        return dict(environ)
    rest = environ.get("PYTHONPATH")
    return {**environ, "PYTHONPATH": os.pathsep.join([str(PACKAGE_PARENT), *([rest] if rest else [])])}
