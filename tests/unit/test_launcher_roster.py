"""What a launcher makes of the words of its gang."""

from __future__ import annotations

import pytest

from app.launcher.roster import Roster, TroubleKind


def sealed(*nodes: int) -> Roster:
    roster = Roster(0, 4, nodes, silence=45)
    for node in nodes:
        assert roster.heard(node, f"boot{node}", now=100, devices=4)
    roster.sealed = True
    return roster


def test_gang_is_there_when_every_node_was_heard_lately() -> None:
    roster = Roster(0, 4, [1, 2], silence=45)
    assert roster.missing(100) == [1, 2]
    roster.heard(2, "b", 100, 4)
    assert roster.missing(100) == [1]
    roster.heard(1, "a", 120, 4)
    assert roster.missing(130) == []
    assert roster.missing(146) == [2]


def test_silence_before_the_gang_is_complete_is_no_trouble() -> None:
    roster = Roster(0, 4, [1, 2], silence=45)
    roster.heard(1, "a", 100, 4)
    assert roster.trouble(1000) is None


def test_silent_peer_is_lost_after_the_limit_only() -> None:
    roster = sealed(1, 2)
    roster.heard(1, "boot1", 140, 4)
    assert roster.trouble(145) is None
    trouble = roster.trouble(146)
    assert trouble
    assert trouble.kind is TroubleKind.GONE
    assert trouble.message == "lost a peer: node 2 silent for 46 s"


def test_peer_heard_again_is_not_lost() -> None:
    roster = sealed(1)
    roster.heard(1, "boot1", 120, 4)
    assert roster.trouble(146) is None


def test_time_in_which_this_launcher_stood_still_is_not_silence() -> None:
    roster = sealed(1)
    assert roster.trouble(1000, awake_since=990) is None
    assert roster.trouble(1036, awake_since=990) is not None


@pytest.mark.parametrize(
    ("code", "kind"), [(0, None), (143, TroubleKind.STOPPED), (141, TroubleKind.FAILED), (64, TroubleKind.FAILED)]
)
def test_end_of_a_peer(code: int, kind: TroubleKind | None) -> None:
    roster = sealed(1, 2)
    roster.heard(1, "boot1", 101, 4, code)
    roster.heard(2, "boot2", 1000, 4)
    trouble = roster.trouble(1000)
    assert (trouble.kind if trouble else None) is kind
    if kind is TroubleKind.FAILED:
        assert trouble
        assert trouble.message == f"lost a peer: node 1 ended with code {code}"


def test_failure_is_passed_on_and_heard() -> None:
    roster = sealed(1, 2)
    roster.heard(2, "boot2", 101, 4, 0)
    assert roster.failure() is None
    roster.heard(1, "boot1", 101, 4, 144)
    assert roster.failure() == (1, 144)
    other = sealed(0)
    other.told(1, 144)
    trouble = other.trouble(101)
    assert trouble
    assert trouble.message == "lost a peer: node 1 ended with code 144"


def test_peer_that_was_started_anew_is_lost() -> None:
    roster = sealed(1)
    assert not roster.heard(1, "another", 101, 4)
    trouble = roster.trouble(101)
    assert trouble
    assert trouble.kind is TroubleKind.GONE


def test_before_the_start_a_peer_may_be_started_anew() -> None:
    roster = Roster(0, 4, [1], silence=45)
    roster.heard(1, "a", 100, 4)
    assert roster.heard(1, "b", 101, 4)
    roster.sealed = True
    assert roster.heard(1, "b", 102, 4)
    assert roster.trouble(102) is None


def test_last_word_of_an_earlier_launcher_is_not_for_this_one() -> None:
    roster = Roster(1, 4, [0], silence=45)
    assert not roster.heard(0, "old", 100, 4, 140)
    assert roster.trouble(100) is None
    assert roster.missing(100) == [0]


def test_another_number_of_devices_is_said_before_anything_else_with_both_nodes_and_numbers() -> None:
    line = "--nproc_per_node: is 4 on node 0 and 3 on node 2: all nodes need the same number of devices"
    for roster, node, devices in ((Roster(0, 4, [1, 2], silence=45), 2, 3), (Roster(2, 3, [0], silence=45), 0, 4)):
        assert roster.heard(node, "boot", 100, devices)
        assert roster.heard(node, "boot", 101, devices, 64)
        trouble = roster.trouble(101)
        assert trouble
        assert (trouble.kind, trouble.message) == (TroubleKind.UNEVEN, line)
