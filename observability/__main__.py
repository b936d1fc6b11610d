"""`python -m observability .` writes what is made here into a working tree, as `make docs` does."""

from __future__ import annotations

import sys
from pathlib import Path

from observability.files import files


def main(argv: list[str]) -> int:
    """Write every file below the folder that is named; returns the exit code."""
    if len(argv) != 1 or not Path(argv[0]).is_dir():
        print("usage: python -m observability FOLDER (of the repository)", file=sys.stderr)
        return 64
    for name, content in files().items():
        path = Path(argv[0], name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
