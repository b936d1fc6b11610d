"""The Go programs of the cluster and of the tests, each built when first asked for, from its pinned module."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.cache import built, entry

TOOLCHAIN = Path(__file__).parent / "toolchain"
# cmd/link: no symbol table, no debug information.
STRIP = "-s -w"
VERSION_OF_KUBERNETES = "k8s.io/component-base/version"


@dataclass(frozen=True)
class Part:
    """One module of toolchain/, built by one `go build`.

    `programs` are the names of what it yields: of one package they are all the same file, of several one each.
    `module` is what go.mod pins for it; `stamps` are the linker's -X, with {version}, {major} and {minor} of it.
    """

    name: str
    programs: tuple[str, ...]
    packages: tuple[str, ...] = (".",)
    module: str = ""
    stamps: tuple[str, ...] = ()
    tags: str = ""

    @property
    def directory(self) -> Path:
        """Where its go.mod lies."""
        return TOOLCHAIN / self.name

    def version(self) -> str:
        """The version of `module` that go.mod pins, without its v."""
        pinned = re.search(rf"\b{re.escape(self.module)} v(\S+)", (self.directory / "go.mod").read_text())
        if not self.module or pinned is None:
            raise RuntimeError(f"toolchain/{self.name}/go.mod pins no {self.module or 'version'}")
        return pinned[1]

    def flags(self) -> list[str]:
        """What `go build` is told."""
        fields = {}
        if self.stamps:
            fields = dict(zip(("major", "minor", "patch"), self.version().split("."), strict=True))
            fields["version"] = self.version()
        linker = " ".join([STRIP, *(f"-X {stamp.format(**fields)}" for stamp in self.stamps)])
        return ["-trimpath", f"-tags={self.tags}", f"-ldflags={linker}"]

    def entry(self) -> Path:
        """Its place in the cache, built or not."""
        return entry(self.name, self.directory.glob("*"), *self.flags(), *self.packages, *self.programs)

    def build(self, into: Path) -> None:
        """Build its programs into the directory `into`.

        Raises:
            RuntimeError: there is no Go, or it is too old, or a module can't be had.
        """
        if shutil.which("go") is None:
            raise RuntimeError(f"the Go command is needed to build {self.name}: install Go, with `go` on PATH")
        one = len(self.packages) == 1
        done = subprocess.run(
            ["go", "build", *self.flags(), "-o", into / self.programs[0] if one else into, *self.packages],
            cwd=self.directory,
            env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false", "GOWORK": "off"},
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"go build of toolchain/{self.name}: {done.stderr.strip()[-2000:]}")
        for name in self.programs[1:] if one else ():
            (into / name).hardlink_to(into / self.programs[0])


KUBERNETES = Part(
    "kubernetes",
    ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"),
    module="k8s.io/kubernetes",
    stamps=(
        f"{VERSION_OF_KUBERNETES}.gitVersion=v{{version}}",
        f"{VERSION_OF_KUBERNETES}.gitMajor={{major}}",
        f"{VERSION_OF_KUBERNETES}.gitMinor={{minor}}",
    ),
)
COREDNS = Part("coredns", ("coredns",), ("github.com/coredns/coredns",), "github.com/coredns/coredns")
TRAINING_OPERATOR = Part(
    "training-operator",
    ("manager",),
    ("github.com/kubeflow/training-operator/cmd/training-operator.v1",),
    "github.com/kubeflow/training-operator",
)
PAUSE = Part("pause", ("pause",))
PROBE = Part("probe", ("probe",))
HELM = Part(
    "helm",
    ("helm",),
    ("helm.sh/helm/v4/cmd/helm",),
    "helm.sh/helm/v4",
    ("helm.sh/helm/v4/internal/version.version=v{version}",),
)
HELM3 = Part(
    "helm3",
    ("helm3",),
    ("helm.sh/helm/v3/cmd/helm",),
    "helm.sh/helm/v3",
    (
        "helm.sh/helm/v3/internal/version.version=v{version}",
        # Else it takes every cluster that it does not ask for 1.20; the releases name k8s.io/client-go's version.
        "helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1",
        "helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=37",
    ),
)
PROMETHEUS = Part(
    "prometheus",
    ("prometheus", "promtool"),
    ("github.com/prometheus/prometheus/cmd/prometheus", "github.com/prometheus/prometheus/cmd/promtool"),
    "github.com/prometheus/prometheus",
    # Of the services that it can find targets with, Kubernetes alone; its web page is not built in.
    tags="remove_all_sd,enable_kubernetes_sd",
)
# Its own tag leaves out a library of the scheduler's that its module does not carry along.
KUEUE = Part(
    "kueue", ("kueue",), ("sigs.k8s.io/kueue/cmd/kueue",), "sigs.k8s.io/kueue", tags="exclude_scheduler_library"
)
JOBSET = Part("jobset", ("jobset",), ("sigs.k8s.io/jobset",), "sigs.k8s.io/jobset")
TRAINER = Part(
    "trainer",
    ("trainer-controller-manager",),
    ("github.com/kubeflow/trainer/v2/cmd/trainer-controller-manager",),
    "github.com/kubeflow/trainer/v2",
)
QUEUES = (KUEUE, JOBSET, TRAINER)
"""What only the tests of queues and of TrainJobs start."""
PARTS = (KUBERNETES, COREDNS, TRAINING_OPERATOR, PAUSE, PROBE, HELM, HELM3, PROMETHEUS, *QUEUES)


def tool(name: str) -> Path:
    """The program `name` (kubectl, helm, promtool, …), its part built first if it is not in the cache.

    Raises:
        KeyError: no part yields it.
        RuntimeError: it can't be built.
    """
    part = {program: part for part in PARTS for program in part.programs}[name]
    return built(part.entry(), part.build) / name
