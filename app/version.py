"""The version of this distribution, from its one place: pyproject.toml, or what was installed from it."""

from __future__ import annotations

import importlib.metadata
import re

from app.modules import PACKAGE_PARENT

DISTRIBUTION = "resnet-operator"


def installing(extra: str) -> str:
    """How a package that is missing is installed, for the end of a message. The distribution is on no public index."""
    return f"pip install '.[{extra}]' in a clone of {DISTRIBUTION}"


def version() -> str:
    """The version, as pyproject.toml says it.

    Where that file lies beside the packages (a checkout, an image) it is asked: the metadata of an editable install is
    as old as that install.
    """
    try:
        text = (PACKAGE_PARENT / "pyproject.toml").read_text()
    except FileNotFoundError:
        return importlib.metadata.version(DISTRIBUTION)
    # Not by tomllib, which Python 3.10 lacks.
    found = re.search(r'^version = "([^"]+)"$', text, re.MULTILINE)
    return found[1] if found else importlib.metadata.version(DISTRIBUTION)
