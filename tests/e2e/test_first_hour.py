"""The README's first experiment in a cluster, typed as it stands there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.kubectl import Kubectl
from tests.cluster.waiting import wait_for
from tests.e2e.operator import READY_SECONDS, Operator
from tests.markdown import ROOT, commands
from tests.typed import typed

WATCHED = "kubectl get rnx -w"
SECONDS = 420.0
pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("images")]


@pytest.fixture
def empty(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster without an operator; one that was there is there again afterwards."""
    release = Operator.of(cluster)
    was = bool(release.pods())
    if was:
        release.remove()
    yield cluster
    release.remove()
    if was:
        release.install()


def test_the_first_experiment_of_the_readme_trains(empty: Cluster, namespace: Kubectl, tmp_path: Path) -> None:
    script = commands(ROOT / "README.md", "cluster")
    # Ctrl-C is what ends a watch.
    watched = re.sub(rf"^{WATCHED}.*$", f"timeout --signal=INT 8 {WATCHED} || true", script, flags=re.M)
    assert watched != script
    said = typed(watched, namespace.kubeconfig, namespace.namespace, tmp_path, SECONDS)
    print(said)
    assert re.search(r"^NAME +MODEL +DEVICES +PHASE +EPOCH +TOP1 +IMG/S +ETA +RESTARTS +AGE$", said, re.M)
    assert re.search(r"^Phase: +Succeeded$", said, re.M), "of `helm test`"
    assert "attempt 1" in said
    dashboards = set(re.findall(r"^resnet-operator-(\w+) +1 ", said, re.M))
    assert dashboards == {path.stem for path in (ROOT / "charts" / "resnet-operator" / "dashboards").glob("*.json")}
    wait_for(lambda: not namespace.find("pods"), READY_SECONDS, "pods of the experiment do not end")
