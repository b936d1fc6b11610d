"""What all tests may ask for: see tests/cluster/fixtures.py."""

from __future__ import annotations

pytest_plugins = ["tests.cluster.fixtures"]
