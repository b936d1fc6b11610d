"""Helm as a typed call, in either of its two major versions: errors with what it said."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from tests.cluster import toolchain
from tests.cluster.kubectl import Object
from tests.cluster.program import ProgramError, run

CHARTS = Path(__file__).parents[2] / "charts"
Program = Literal["helm", "helm3"]
SECONDS = 120.0


class HelmError(ProgramError):
    """Helm ended with an error; the text is what it wrote."""


@dataclass(frozen=True)
class Helm:
    """Helm, 4 or 3, with the credentials of `kubeconfig`, in `namespace`."""

    kubeconfig: Path
    namespace: str
    program: Program = "helm"

    def within(self, namespace: str) -> Helm:
        """The same in another namespace."""
        return replace(self, namespace=namespace)

    def run(self, *arguments: str, stdin: str = "", timeout: float = SECONDS) -> str:
        """What `helm <arguments>` prints.

        Raises:
            HelmError: it failed, or took longer than `timeout` seconds.
        """
        where = [f"--kubeconfig={self.kubeconfig}", f"--namespace={self.namespace}"]
        return _run(self.program, [*where, *arguments], stdin, timeout)

    def install(self, release: str, chart: str, values: Mapping[str, Any], *more: str) -> str:
        """Install a chart of charts/, or upgrade what is installed to these values and no others.

        Raises:
            HelmError: it failed.
        """
        arguments = ("upgrade", release, str(CHARTS / chart), "--install", "--reset-values", "--values", "-", *more)
        return self.run(*arguments, stdin=json.dumps(values))

    def uninstall(self, release: str, *more: str) -> str:
        """Remove a release, if it is there."""
        return self.run("uninstall", release, "--ignore-not-found", *more)


def template(
    chart: str, values: Mapping[str, Any], *more: str, release: str = "r", program: Program = "helm"
) -> list[Object]:
    """What a chart of charts/ renders to, without a cluster, in the order in which it is installed.

    Raises:
        HelmError: it is refused.
    """
    arguments = ["template", release, str(CHARTS / chart), "--values", "-", *more]
    text = _run(program, arguments, json.dumps(values), SECONDS)
    return [each for each in yaml.load_all(text, Loader=yaml.CSafeLoader) if each]


def lint(chart: str, values: Mapping[str, Any], program: Program = "helm") -> str:
    """What `helm lint --strict` says of a chart of charts/.

    Raises:
        HelmError: it found something.
    """
    return _run(program, ["lint", "--strict", str(CHARTS / chart), "--values", "-"], json.dumps(values), SECONDS)


def _run(program: Program, arguments: list[str], stdin: str, timeout: float) -> str:
    said = f"{program} {' '.join(arguments)}"
    return run([toolchain.tool(program), *arguments], said, stdin, timeout, HelmError)
