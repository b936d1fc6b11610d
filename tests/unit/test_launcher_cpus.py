"""Which CPUs each rank gets: on machines of any shape, and as /sys tells it."""

from __future__ import annotations

import math
import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.launcher.cpus import Cpus, bind, parsed, ranks_at_full_speed, shown, threads, usable


def machine(nodes: int, cores: int, siblings: int, *, exclusive: bool, quota: float = math.inf) -> Cpus:
    """A regular machine, its CPUs numbered as Linux does: first one of each core, then their siblings."""
    total = nodes * cores
    each = [frozenset(core + total * thread for thread in range(siblings)) for core in range(total)]
    return Cpus(
        tuple(each),
        tuple(frozenset().union(*each[node * cores : (node + 1) * cores]) for node in range(nodes)),
        exclusive,
        quota,
    )


machines = st.builds(
    machine, st.integers(1, 4), st.integers(1, 8), st.integers(1, 2), exclusive=st.booleans(),
    quota=st.one_of(st.just(math.inf), st.floats(0.1, 100)),
)  # fmt: skip
ranks = st.integers(1, 40)


@given(machines, ranks)
def test_exclusive_cpus_are_dealt_out_whole_once_and_evenly(cpus: Cpus, number: int) -> None:
    sets = bind(cpus, number)
    if not cpus.exclusive or sets is None:
        return
    assert len(sets) == number
    assert Counter(cpu for each in sets for cpu in each) == Counter(cpus.all)
    parts = [[each & core for core in cpus.cores if each & core] for each in sets]
    sizes = {len(part) for part in parts}
    if number <= len(cpus.cores):
        assert max(sizes) - min(sizes) <= 1
        assert all(part in cpus.cores for parts_of_rank in parts for part in parts_of_rank)
    else:
        assert {len(each) for each in sets} <= {1, 2}


@given(machines, ranks)
def test_shared_cpus_are_given_by_whole_nodes_with_the_same_share_for_every_rank(cpus: Cpus, number: int) -> None:
    sets = bind(cpus, number)
    if cpus.exclusive or sets is None:
        return
    assert all(node <= each or not node & each for each in sets for node in cpus.nodes)
    served = Counter(node for each in sets for node in cpus.nodes if node <= each)
    assert set(served) == set(cpus.nodes)
    assert len(set(served.values())) == 1
    assert len({len(each) for each in sets}) == 1


@given(machines, ranks)
def test_nobody_is_bound_where_it_would_change_nothing(cpus: Cpus, number: int) -> None:
    sets = bind(cpus, number)
    alone = number == 1 or len(cpus.all) == 1
    if alone or (len(cpus.nodes) == 1 and not cpus.exclusive):
        assert sets is None
    if sets is not None:
        assert all(each < cpus.all for each in sets)


@given(machines, ranks)
def test_threads_fit_into_every_ranks_cpus_and_into_the_quota(cpus: Cpus, number: int) -> None:
    sets = bind(cpus, number)
    each = threads(cpus, number, sets)
    assert each >= 1
    assert each == 1 or each * number <= min(len(cpus.all), cpus.quota)
    if sets is not None:
        assert each == 1 or all(each * sets.count(cpu_set) <= len(cpu_set) for cpu_set in sets)


@pytest.mark.parametrize(
    ("cpus", "number", "expected"),
    [
        (machine(2, 4, 1, exclusive=False), 2, ["0-3", "4-7"]),
        (machine(2, 4, 1, exclusive=False), 4, ["0-3", "0-3", "4-7", "4-7"]),
        (machine(4, 2, 1, exclusive=False), 2, ["0-3", "4-7"]),
        (machine(2, 4, 1, exclusive=False), 3, None),  # two on one node would slow all three down
        (machine(1, 8, 2, exclusive=False), 4, None),
        (machine(1, 4, 2, exclusive=True), 2, ["0-1,4-5", "2-3,6-7"]),
        (machine(1, 4, 2, exclusive=True), 3, ["0,4", "1,5", "2-3,6-7"]),
        (machine(1, 2, 2, exclusive=True), 4, ["0", "2", "1", "3"]),
        (machine(1, 2, 1, exclusive=True), 3, None),
        (machine(2, 2, 1, exclusive=True), 1, None),
    ],
)
def test_known_machines(cpus: Cpus, number: int, expected: list[str] | None) -> None:
    sets = bind(cpus, number)
    assert (sets and [shown(each) for each in sets]) == expected


def test_a_rank_for_each_numa_node_but_no_more_than_the_quota_feeds() -> None:
    assert ranks_at_full_speed(machine(1, 64, 2, exclusive=False)) == 1
    assert ranks_at_full_speed(machine(4, 8, 1, exclusive=False)) == 4
    assert ranks_at_full_speed(machine(4, 8, 1, exclusive=False, quota=2.5)) == 2
    assert ranks_at_full_speed(machine(4, 8, 1, exclusive=False, quota=0.2)) == 1


@given(st.frozensets(st.integers(0, 200)))
def test_a_cpu_set_reads_as_linux_writes_it(cpus: frozenset[int]) -> None:
    assert parsed(shown(cpus) + "\n") == cpus


def test_linux_own_words() -> None:
    assert shown({0, 1, 2, 3, 8, 10, 11}) == "0-3,8,10-11"
    assert parsed("0-1,4\n") == {0, 1, 4}
    with pytest.raises(ValueError, match="invalid literal"):
        parsed("all")


MINE = os.sched_getaffinity(0)
OTHER = max(MINE) + 1


def sys_tree(root: Path, online: set[int], nodes: dict[int, set[int]], siblings: dict[int, str], quota: str) -> Path:
    files = {"cpu/online": shown(online)}
    files |= {f"node/node{number}/cpulist": shown(cpus) for number, cpus in nodes.items()}
    files |= {f"cpu/cpu{cpu}/topology/thread_siblings_list": text for cpu, text in siblings.items()}
    for name, text in files.items():
        path = root / "sys/devices/system" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text("0::/\n")
    (root / "sys/fs/cgroup").mkdir(parents=True)
    (root / "sys/fs/cgroup/cpu.max").write_text(f"{quota} 100000\n")
    return root


def test_nodes_and_cores_are_read_and_cut_to_what_this_process_may_use(tmp_path: Path) -> None:
    pairs = {cpu: shown({cpu, OTHER}) for cpu in MINE}
    cpus = usable(sys_tree(tmp_path, MINE | {OTHER}, {10: {OTHER}, 2: set(MINE)}, pairs, "max"))
    assert cpus.nodes == (MINE,)
    assert cpus.cores == tuple(frozenset({cpu}) for cpu in sorted(MINE))
    assert cpus.exclusive
    assert cpus.all == MINE
    assert cpus.count == len(MINE)


def test_cpus_are_shared_where_the_mask_is_the_whole_machine_or_the_limit_is_below_it(tmp_path: Path) -> None:
    assert not usable(sys_tree(tmp_path / "whole", set(MINE), {0: set(MINE)}, {}, "max")).exclusive
    pool = usable(sys_tree(tmp_path / "pool", MINE | {OTHER}, {0: MINE | {OTHER}}, {}, "50000"))
    assert not pool.exclusive
    assert (pool.quota, pool.count) == (0.5, 1)


def test_a_machine_that_says_nothing_is_one_node_of_single_cpus(tmp_path: Path) -> None:
    cpus = usable(tmp_path)
    assert cpus == Cpus(tuple(frozenset({cpu}) for cpu in sorted(MINE)), (frozenset(MINE),), exclusive=False)
