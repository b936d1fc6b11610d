"""Images of nothing but one static program, written as the archive that `docker save` writes (image-spec, docker v1.2).

They need no builder and no base: a few milliseconds each.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

# A user that owns nothing; pods that must not run as root need a numeric one.
USER = "65532:65532"


def archive(name: str, program: Path, at: str) -> bytes:
    """The image `name`: `program` lies at the path `at` in it, and is what it runs."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        _add(tar, at.lstrip("/"), program.read_bytes(), 0o755)
        scratch = tarfile.TarInfo("tmp")
        scratch.type, scratch.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(scratch)
    content = layer.getvalue()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": [at], "User": USER, "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(content).hexdigest()}"]},
        "history": [{"created_by": at}],
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        _add(tar, "manifest.json", json.dumps(manifest).encode())
        _add(tar, "config.json", json.dumps(config).encode())
        _add(tar, "layer.tar", content)
    return whole.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))
