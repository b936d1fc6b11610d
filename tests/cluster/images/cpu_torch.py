"""torch from PyPI without what only a GPU needs, for the images of the tests.

torch for Linux on PyPI is the CUDA build: more than 4 GB of it are NVIDIA's libraries and kernels for GPUs, which no
pod of the tests runs. torch links against those libraries, and Python loads libraries with RTLD_NOW: every name that
torch imports has to be somewhere. So each is replaced by a small library of the same name that defines just these
names, as functions that end the process with a line that says so. The runtime library stays as it is: it registers
kernels while torch loads, and answers "no device" when `torch.cuda.is_available()` asks. The kernels are cut out of
torch's own libraries, whose other code is the real one.

Users' images are not touched by this: there torch is the base's own, or the whole lock.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from tests.cluster.images.elf import pack

# Distributions of the lock that only a GPU needs; Triton compiles kernels for it.
GPU_ONLY = re.compile(r"^(nvidia-|cuda-|triton=)")
RUNTIME = "libcudart.so"
KERNELS = ".nv_fatbin"
WHY = ": was called, but this image is for tests, and its torch has no CUDA\\n"
# What only a compiler of extensions reads.
HEADERS = "include"


def split_lock(lock: str) -> tuple[str, str]:
    """The requirements of `lock` (a pip file with hashes) that a CPU needs, and those that only a GPU needs."""
    parts: tuple[list[str], list[str]] = ([], [])
    entry = 0
    for line in lock.splitlines(keepends=True):
        if not line.startswith((" ", "#")):
            entry = int(GPU_ONLY.match(line) is not None)
        parts[entry].append(line)
    return "".join(parts[0]), "".join(parts[1])


def cut_down(site_packages: Path, gpu_packages: Path) -> None:
    """Put small libraries into `site_packages`, which holds torch, for those of NVIDIA in `gpu_packages`.

    Raises:
        RuntimeError: a tool of the C compiler failed.
        ValueError: a library of torch is not laid out as expected.
    """
    torch = site_packages / "torch"
    users = [*torch.glob("lib/*.so*"), *torch.glob("_C.*.so"), *site_packages.glob("torchvision/*.so")]
    wanted = {symbol for library in users for symbol in _symbols(library, "undefined")}
    needed = {name for library in users for name in _needed(library)}
    for library in gpu_packages.glob("nvidia/**/*.so*"):
        if library.name in needed:
            target = site_packages / library.relative_to(gpu_packages)
            target.parent.mkdir(parents=True, exist_ok=True)
            if library.name.startswith(RUNTIME):
                shutil.copy(library, target)
            else:
                _stub(target, wanted & _symbols(library, "defined"))
    for library in torch.glob("lib/libtorch*.so"):
        pack(library, _section(library, KERNELS))
    shutil.rmtree(torch / HEADERS)


def _symbols(library: Path, which: str) -> set[str]:
    """Dynamic symbols of `library`, with `@version` where they have one."""
    lines = _tool("nm", "--dynamic", "--portability", f"--{which}-only", library).splitlines()
    return {line.split()[0].replace("@@", "@") for line in lines}


def _needed(library: Path) -> list[str]:
    return re.findall(r"\(NEEDED\).*\[(.+)\]", _tool("readelf", "--dynamic", "--wide", library))


def _section(library: Path, name: str) -> tuple[int, int] | None:
    """First byte of a section in the file, and its end."""
    pattern = rf" {re.escape(name)} +PROGBITS +[0-9a-f]+ ([0-9a-f]+) ([0-9a-f]+) "
    found = re.search(pattern, _tool("readelf", "--sections", "--wide", library))
    if found is None:
        return None
    begin = int(found[1], 16)
    return begin, begin + int(found[2], 16)


def _stub(target: Path, symbols: Iterable[str]) -> None:
    """Compile a library that defines `symbols`, each in its version."""
    versions: dict[str, list[str]] = defaultdict(list)
    for symbol in sorted(symbols):
        name, _, version = symbol.partition("@")
        versions[version].append(name)
    # Declared by hand and linked with nothing: libc is there when torch is.
    code = [
        "long write(int file, const void *bytes, unsigned long count);",
        "_Noreturn void abort(void);",
        f'static const char WHY[] = "{WHY}";',
        "#define SAY(text) write(2, text, sizeof text - 1)",
        *(
            f'void {name}(void) {{ SAY("{name}"); SAY(WHY); abort(); }}'
            for names in versions.values()
            for name in names
        ),
    ]
    with tempfile.TemporaryDirectory() as scratch:
        source, script = Path(scratch, "stub.c"), Path(scratch, "versions")
        source.write_text("\n".join(code))
        named = [f"{version} {{ {'; '.join(names)}; }};" for version, names in versions.items() if version]
        script.write_text("\n".join(named))
        options = [f"-Wl,--version-script={script}"] if named else []
        _tool("gcc", "-shared", "-fPIC", "-nostdlib", f"-Wl,-soname,{target.name}", *options, "-o", target, source)


def _tool(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip()}")
    return done.stdout
