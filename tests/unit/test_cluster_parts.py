"""What the test cluster decides before it touches anything: places, names, addresses, and what a machine lacks."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import tarfile
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cluster import cache, toolchain
from tests.cluster.cgroups import hierarchies
from tests.cluster.network import CANDIDATES, Block, free_block
from tests.cluster.preflight import Machine, problems
from tests.cluster.processes import Identity, identity
from tests.cluster.scratch_image import archive
from tests.cluster.waiting import WaitTimeoutError, wait_for

GOOD = Machine(
    root=True,
    apt=True,
    missing=(),
    go=(1, 26, 8),
    go_needed=(1, 26, 0),
    to_build=("kubernetes",),
    build_gib=3.0,
    cache_gib=50.0,
    state_gib=50.0,
    same_disk=True,
    bridge=False,
    cgroups=True,
)
STATE = Path("/var/lib/somewhere")
networks = st.builds(
    lambda address, bits: IPv4Network((address, bits), strict=False), st.integers(0, 2**32 - 1), st.integers(0, 32)
)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"RESNET_OPERATOR_CACHE": "/c", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/c"),
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/resnet-operator"),
        ({"HOME": "/h"}, "/h/.cache/resnet-operator"),
    ],
)
def test_the_cache_lies_where_the_environment_says(environment: dict[str, str], expected: str) -> None:
    assert cache.cache_root(environment) == Path(expected)


def test_an_entry_of_the_cache_is_another_one_when_a_file_its_name_or_the_recipe_changes(tmp_path: Path) -> None:
    lock, other = tmp_path / "go.mod", tmp_path / "go.sum"
    lock.write_text("a")
    other.write_text("b")
    first = cache.entry("part", [lock, other], "-flag")
    assert first == cache.entry("part", [other, lock], "-flag")
    different = [cache.entry("part", [lock, other]), cache.entry("part", [lock], "-flag")]
    different.append(cache.entry("part", [lock, other], "-fl", "ag"))
    lock.write_text("ab")
    different.append(cache.entry("part", [lock, other], "-flag"))
    assert len({first, *different}) == 5


def test_a_build_that_fails_leaves_no_entry_and_the_next_one_starts_with_an_empty_directory(tmp_path: Path) -> None:
    def fails(into: Path) -> None:
        (into / "half").touch()
        raise RuntimeError("no")

    seen: list[list[str]] = []

    def works(into: Path) -> None:
        seen.append(os.listdir(into))
        (into / "whole").touch()

    at = tmp_path / "part-1"
    with pytest.raises(RuntimeError, match="no"):
        cache.built(at, fails)
    assert not at.exists()
    for _ in range(2):
        assert os.listdir(cache.built(at, works)) == ["whole"]
    assert seen == [[]]


@pytest.mark.parametrize("part", toolchain.PARTS, ids=lambda part: part.name)
def test_every_part_of_the_toolchain_is_pinned_and_stamped_with_its_version(part: toolchain.Part) -> None:
    linker = part.flags()[-1]
    if part.module:
        assert part.version()[0].isdigit()
        assert ("go.sum" in os.listdir(part.directory)) == bool(part.module)
    for stamp in part.stamps:
        assert stamp.partition("=")[0] in linker
    assert "{" not in linker


def test_kubernetes_is_the_one_whose_kubelet_knows_cgroup_v1() -> None:
    flags = toolchain.KUBERNETES.flags()[-1]
    assert "version.gitVersion=v1.34." in flags
    assert "version.gitMajor=1 " in flags
    assert flags.endswith("version.gitMinor=34")


@given(st.lists(networks, max_size=20))
def test_a_free_block_meets_no_route_but_the_default_one(routes: list[IPv4Network]) -> None:
    taken = [route for route in routes if route.prefixlen]
    if all(any(candidate.overlaps(route) for route in taken) for candidate in CANDIDATES):
        with pytest.raises(RuntimeError, match="no free subnet"):
            free_block(routes)
        return
    assert not any(free_block(routes).network.overlaps(route) for route in taken)


@pytest.mark.parametrize("network", [CANDIDATES[0], CANDIDATES[-1]])
def test_the_parts_of_a_block_lie_in_it_and_apart(network: IPv4Network) -> None:
    block = Block(network)
    hosts = [IPv4Network(address) for address in (block.host, block.node(0), block.node(1))]
    parts = [*hosts, block.pods(0), block.pods(1), block.services]
    assert all(part.subnet_of(network) for part in parts)
    assert not any(a.overlaps(b) for i, a in enumerate(parts) for b in parts[i + 1 :])


def test_a_process_is_known_by_boot_id_and_start_whatever_its_name_holds() -> None:
    fields = " ".join(str(number) for number in range(4, 53))
    assert identity(f"abc-def 77 (a) S 1 (b) S {fields}\n") == Identity("abc-def", 77, 22)


def test_cgroup_hierarchies_are_those_of_both_versions() -> None:
    text = (
        "25 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
        "26 25 0:23 / /sys/fs/cgroup/cpu rw,relatime shared:5 - cgroup cgroup rw,cpu\n"
        "27 25 0:24 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    )
    assert hierarchies(text) == [Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup/unified")]


def test_a_machine_that_has_all_has_no_problem() -> None:
    assert problems(GOOD, "full", STATE) == []
    without = dataclasses.replace(GOOD, root=False, bridge=True, cgroups=False)
    assert problems(without, "api", STATE) == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"root": False}, "nodes need root: run this as root, or use --profile api"),
        ({"root": False, "missing": ["runc"]}, "by hand: runc"),
        ({"apt": False, "missing": ["runc", "etcd-server"]}, "elsewhere install by hand: runc etcd-server"),
        ({"go": None}, "Go 1.26.0 or newer is needed on PATH to build kubernetes; found none"),
        ({"go": (1, 25, 9)}, "Go 1.26.0 or newer is needed on PATH to build kubernetes; found 1.25.9"),
        ({"cache_gib": 4.0}, "disk: 5.0 GiB are needed at "),
        ({"state_gib": 1.0, "same_disk": False}, "disk: 2.0 GiB are needed at /var/lib/somewhere, 1.0 GiB are free"),
        ({"bridge": True}, "another cluster runs on this machine: its network device is rnx0"),
        ({"cgroups": False}, "no control groups are mounted"),
    ],
)
def test_each_lack_is_one_line(change: dict[str, Any], line: str) -> None:
    found = problems(dataclasses.replace(GOOD, **change), "full", STATE)
    assert any(line in each for each in found), found
    assert all("\n" not in each for each in found)


def test_nothing_is_asked_for_that_is_not_needed() -> None:
    built = dataclasses.replace(GOOD, to_build=(), build_gib=0, go=None, go_needed=(), cache_gib=2.5)
    assert problems(built, "full", STATE) == []


def test_a_path_too_long_for_a_socket_is_told() -> None:
    assert problems(GOOD, "full", Path("/" + "x" * 78)) != []
    assert problems(GOOD, "full", Path("/" + "x" * 77)) == []


def test_an_image_of_one_program_holds_it_for_a_user_who_owns_nothing(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"ELF")
    with tarfile.open(fileobj=io.BytesIO(archive("localhost/x:dev", program, "/run/it"))) as image:

        def read(name: str) -> bytes:
            file = image.extractfile(name)
            assert file is not None
            return file.read()

        (described,) = json.loads(read("manifest.json"))
        config = json.loads(read(described["Config"]))["config"]
        with tarfile.open(fileobj=io.BytesIO(read(*described["Layers"]))) as layer:
            entry = layer.getmember("run/it")
    assert described["RepoTags"] == ["localhost/x:dev"]
    assert (config["Entrypoint"], config["User"]) == (["/run/it"], "65532:65532")
    assert entry.mode & 0o005 == 0o005


def test_waiting_names_what_did_not_come_and_the_last_error() -> None:
    answers = iter([KeyError("status"), 0, "there"])

    def condition() -> object:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert wait_for(condition, 10, "it") == "there"
    with pytest.raises(WaitTimeoutError, match=r"^after 0 s: no pod: ZeroDivisionError: .* by zero$"):
        wait_for(lambda: 1 // 0, 0, "no pod")
