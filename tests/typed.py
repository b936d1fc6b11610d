"""Commands as a person types them for a cluster: kubectl, helm and resnetctl on the PATH, a context of their own."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import yaml

from tests.cluster import toolchain
from tests.cluster.program import environment
from tests.markdown import ROOT


def typed(script: str, kubeconfig: Path, namespace: str, scratch: Path, timeout: float) -> str:
    """What the commands write, typed in the root of the repository.

    Args:
        script: the commands.
        kubeconfig: of the cluster; a copy of it has the namespace.
        namespace: that of the context.
        scratch: a folder for that copy, and for a resnetctl.
        timeout: seconds.

    Raises:
        AssertionError: a command failed, or took too long; with what all of them wrote.
    """
    config = yaml.safe_load(kubeconfig.read_text())
    for context in config["contexts"]:
        context["context"]["namespace"] = namespace
    (scratch / "config").write_text(yaml.safe_dump(config))
    resnetctl = scratch / "resnetctl"
    resnetctl.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m controller.cli "$@"\n')
    resnetctl.chmod(0o755)
    tools = [str(toolchain.tool(name).parent) for name in ("helm", "kubectl")]
    kept = {"PATH": ":".join([str(scratch), *tools, os.environ["PATH"]]), "KUBECONFIG": str(scratch / "config")}
    try:
        done = subprocess.run(
            ["bash", "-c", script], cwd=ROOT, env=environment() | kept, timeout=timeout,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        raise AssertionError(f"not done in {timeout:g} s: {(late.stdout or b'').decode()}") from late
    assert done.returncode == 0, done.stdout
    return done.stdout
