"""`python -m deviceplugin.api.generate [DIRECTORY]`: the messages of the .proto files as Python, beside them.

They are made by the protoc of the locked grpcio-tools, and tracked, so that an image needs no compiler; a test fails
where they are not those of the .proto files.
"""

from __future__ import annotations

import sys
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OUTPUT = ("_pb2.py", "_pb2.pyi")


def generate(directory: Path) -> None:
    """Write the modules into the package's folder below `directory`.

    Raises:
        RuntimeError: protoc refuses a file; it has said why.
    """
    files = [str(path.relative_to(ROOT)) for path in sorted(HERE.glob("*.proto"))]
    if protoc.main(["protoc", f"-I{ROOT}", f"--python_out={directory}", f"--pyi_out={directory}", *files]):
        raise RuntimeError(f"protoc refuses {', '.join(files)}")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
