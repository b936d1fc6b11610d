"""kubectl as a typed call: JSON in, JSON out, errors with what kubectl said."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.cluster import toolchain
from tests.cluster.program import ProgramError, environment, run

Object = dict[str, Any]
SECONDS = 60.0
FIELD_MANAGER = "tests"


class KubectlError(ProgramError):
    """kubectl ended with an error; the text is what it wrote."""


@dataclass(frozen=True)
class Kubectl:
    """kubectl with the credentials of `kubeconfig`, in `namespace` (empty: that of each object, or the default one)."""

    kubeconfig: Path
    namespace: str = ""

    def within(self, namespace: str) -> Kubectl:
        """The same in another namespace."""
        return replace(self, namespace=namespace)

    def run(self, *arguments: str, stdin: str = "", timeout: float = SECONDS) -> str:
        """What `kubectl <arguments>` prints.

        Raises:
            KubectlError: it failed, or took longer than `timeout` seconds.
        """
        said = f"kubectl {' '.join(arguments)}"
        return run(self._command(*arguments), said, stdin, timeout, KubectlError)

    @contextmanager
    def following(self, path: Path, *arguments: str) -> Iterator[None]:
        """`kubectl <arguments>` (get --watch, logs --follow) runs meanwhile; what it prints goes into `path`."""
        with path.open("wb") as output:
            process = subprocess.Popen(self._command(*arguments), stdout=output, stderr=output, env=environment())
        try:
            yield
        finally:
            process.kill()
            process.wait()

    def _command(self, *arguments: str) -> list[str | Path]:
        where = [f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self.kubeconfig.with_name('kubectl-cache')}"]
        if self.namespace:
            where.append(f"--namespace={self.namespace}")
        return [toolchain.tool("kubectl"), *where, *arguments]

    def get(self, kind: str, name: str) -> Object:
        """One object."""
        found: Object = json.loads(self.run("get", kind, name, "--output", "json"))
        return found

    def find(self, kind: str, selector: str = "") -> list[Object]:
        """All objects of a kind, or those with the labels of `selector`."""
        listed = self.run("get", kind, "--selector", selector, "--output", "json")
        items: list[Object] = json.loads(listed)["items"]
        return items

    def apply(self, *objects: Mapping[str, Any], timeout: float = SECONDS) -> None:
        """Create or change objects, on the server's side."""
        listed = {"apiVersion": "v1", "kind": "List", "items": objects}
        arguments = ("apply", "--server-side", "--force-conflicts", "--field-manager", FIELD_MANAGER, "--filename", "-")
        self.run(*arguments, stdin=json.dumps(listed), timeout=timeout)

    def create(self, content: Mapping[str, Any]) -> Object:
        """Create an object; as the server has it then."""
        made: Object = json.loads(self.run("create", "--filename", "-", "--output", "json", stdin=json.dumps(content)))
        return made

    def patch(self, kind: str, name: str, content: Mapping[str, Any], subresource: str = "") -> None:
        """Merge `content` into an object, or into its `subresource`."""
        extra = ("--subresource", subresource) if subresource else ()
        self.run("patch", kind, name, "--type", "merge", "--patch", json.dumps(content), *extra)

    def delete(self, kind: str, name: str, *, wait: bool = True, timeout: float = SECONDS) -> None:
        """Delete an object, if it exists."""
        self.run("delete", kind, name, "--ignore-not-found", f"--wait={str(wait).lower()}", timeout=timeout)

    def logs(self, pod: str, *arguments: str) -> str:
        """What a pod's container printed."""
        return self.run("logs", pod, *arguments)

    def execute(self, pod: str, *command: str) -> str:
        """What `command` prints, run in a pod's container."""
        return self.run("exec", pod, "--", *command)
