"""`python -m tests.e2e.soak --seed N --minutes M`: random faults over several experiments at once, all of which must
succeed, while the operator grows in nothing."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import pytest

SEED, MINUTES = "RESNET_OPERATOR_SOAK_SEED", "RESNET_OPERATOR_SOAK_MINUTES"
"""Variables of the environment that tests/e2e/test_soak.py reads."""
DEFAULTS = {SEED: "1", MINUTES: "5"}


def setting(name: str) -> float:
    """What that variable says."""
    return float(os.environ.get(name) or DEFAULTS[name])


def main(arguments: list[str] | None = None) -> int:
    """Run the test of the same name; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.soak", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(DEFAULTS[SEED]), help="of the faults and their moments")
    parser.add_argument("--minutes", type=float, default=float(DEFAULTS[MINUTES]), help="how long there are faults")
    options = parser.parse_args(arguments)
    os.environ |= {SEED: str(options.seed), MINUTES: str(options.minutes)}
    return int(pytest.main(["-s", str(Path(__file__).with_name("test_soak.py"))]))


if __name__ == "__main__":
    sys.exit(main())
