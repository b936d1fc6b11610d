"""The version of this distribution, from its one place: pyproject.toml, or what was installed from it."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import tomllib

DISTRIBUTION = "resnet-operator"


def version() -> str:
    """The version, as pyproject.toml says it.

    In a checkout the file itself is asked: the metadata of an editable install is as old as that install.
    """
    try:
        with open(Path(__file__).parent.parent / "pyproject.toml", "rb") as file:
            return str(tomllib.load(file)["project"]["version"])
    except FileNotFoundError:
        return importlib.metadata.version(DISTRIBUTION)
