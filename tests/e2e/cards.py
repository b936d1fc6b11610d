"""Cards that the nodes only say they have; who asks for one computes on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster.cluster import NODES, Cluster

CARD = "tecorigin.com/tcaicard"
ACCELERATOR = {"type": "cpu", "resourceName": CARD}
"""Of an experiment with one of them on each node."""


@contextmanager
def advertised(cluster: Cluster, count: int) -> Iterator[None]:
    """So many on each node meanwhile."""
    for node in NODES:
        cluster.advertise(node, CARD, count)
    yield
    for node in NODES:
        cluster.advertise(node, CARD, 0)
