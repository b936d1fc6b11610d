"""The verdict over the ranks of one pod."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.launcher.verdict import RankEnd, Verdict, verdict
from app.resilience.exit_codes import ExitCode
from app.resilience.outcome import Outcome


def end(rank: int, returncode: int, message: str = "", *, exception: str = "", killed: bool = False) -> RankEnd:
    left = Outcome(returncode, message, exception=exception) if message else None
    return RankEnd(rank, returncode, left, killed)


def killed(rank: int) -> RankEnd:
    return RankEnd(rank, -9, None, killed=True)


def test_a_reason_that_says_more_than_the_code_stays() -> None:
    taken = RankEnd(0, 141, Outcome(141, "--master_port: port 1 is in use", "PortInUse"))
    assert verdict([taken, end(1, 140, "peer")]) == Verdict(141, "PortInUse", "rank 0: --master_port: port 1 is in use")


def decide(*ends: RankEnd, **seen: object) -> Verdict:
    return verdict(list(ends), **seen)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("result", "code", "reason", "message"),
    [
        (decide(end(0, 0), end(1, 0)), 0, "Done", ""),
        (decide(end(0, 0), end(1, 0), stop_asked=True), 0, "Done", ""),
        (decide(end(0, 140, "peer"), end(1, 64, "--lr: bad")), 64, "BadOption", "--lr: bad"),
        (decide(end(0, 141, "gone"), end(1, 76, "loss is NaN")), 76, "Diverged", "loss is NaN"),
        (decide(end(0, 1), end(1, 0)), 1, "Exit1", "rank 0 ended with code 1 and left no message"),
        (decide(end(0, 1), end(1, 66, "no train/")), 66, "DataMissing", "no train/"),
        (decide(end(0, 65, "bad data"), end(1, -9), oom_kills=1), 65, "BadData", "bad data"),
        (
            decide(end(0, 140, "peer"), end(1, -9), oom_kills=2),
            137,
            "OOMKilled",
            "rank 1: out of memory, the kernel killed 2 of this container's processes",
        ),
        (
            decide(end(0, 145, "DataLoader worker was killed", exception="RuntimeError"), oom_kills=1),
            137,
            "OOMKilled",
            "rank 0: out of memory, the kernel killed 1 of this container's processes",
        ),
        (
            decide(end(0, 141, "device lost"), end(1, 140, "peer"), oom_kills=1),
            141,
            "DeviceLost",
            "rank 0: device lost",
        ),
        (decide(end(0, 140, "peer"), end(1, -9)), 137, "Killed", "rank 1 was killed by SIGKILL"),
        (decide(end(0, 143, "saved at 7"), end(1, 143, "saved at 7"), stop_asked=True), 143, "Stopped", None),
        (decide(end(0, 143, "saved at 7"), killed(1), stop_asked=True), 143, "Stopped", "rank 0: saved at 7"),
        (decide(end(0, 143, "saved"), end(1, 144, "disk"), stop_asked=True), 144, "VolumeIO", "rank 1: disk"),
        (decide(end(0, 143, "saved"), end(1, 140, "peer"), stop_asked=True), 143, "Stopped", "rank 0: saved"),
        (
            decide(end(0, -15), stop_asked=True),
            143,
            "Stopped",
            "rank 0 was stopped by SIGTERM before it could checkpoint",
        ),
        (decide(end(0, 143, "saved at 7"), end(1, 143)), 143, "Stopped", "rank 0: saved at 7"),
        (decide(killed(0), killed(1), stop_asked=True, kill_cause="too slow"), 137, "Killed", "too slow"),
        (decide(end(0, 144, "EIO"), end(1, 141, "lost")), 141, "DeviceLost", "rank 1: lost"),
        (decide(end(0, 145, "what"), end(1, 144, "EIO")), 144, "VolumeIO", "rank 1: EIO"),
        (decide(end(0, 145, "what"), killed(1), hang="rank 1 hangs"), 145, "Unclassified", "rank 0: what"),
        (decide(killed(0), killed(1), hang="rank 1 hangs"), 142, "Hung", "rank 1 hangs"),
        (decide(end(0, -11), killed(1), hang="rank 1 hangs"), 142, "Hung", "rank 1 hangs"),
        (decide(end(0, -11), end(1, 140, "peer")), 139, "Signal11", "rank 0 was killed by SIGSEGV"),
        (decide(end(0, -11), killed(1), lost_peer="node 1"), 139, "Signal11", "rank 0 was killed by SIGSEGV"),
        (decide(killed(0), lost_peer="node 1 silent", kill_cause="node 1 silent"), 140, "LostPeer", "node 1 silent"),
        (decide(end(0, 140, "peer"), lost_peer="node 1 ended"), 140, "LostPeer", "rank 0: peer"),
        (decide(end(0, 200)), 200, "Signal72", "rank 0 ended with code 200 and left no message"),
    ],
)
def test_strongest_end_decides(result: Verdict, code: int, reason: str, message: str | None) -> None:
    assert (result.code, result.reason) == (code, reason)
    if message is not None:
        assert result.message == message


def test_export_is_reported_whatever_the_end() -> None:
    done = RankEnd(0, 0, Outcome(0, exported="/c/1/model.onnx"))
    assert verdict([done, end(1, 0)]).exported == "/c/1/model.onnx"
    assert verdict([done, end(1, -11)]).exported == "/c/1/model.onnx"
    assert verdict([RankEnd(0, 0, Outcome(0, export_error="no room"))]).export_error == "no room"


def test_outcome_that_speaks_of_another_end_is_not_believed() -> None:
    crashed_after_done = RankEnd(0, -11, Outcome(0, "trained to the end"))
    assert verdict([crashed_after_done]).message == "rank 0 was killed by SIGSEGV"


def test_exception_and_message_come_from_the_same_rank_in_one_line() -> None:
    result = decide(end(1, 145, "first\nsecond", exception="KeyError"), end(2, 145, "other", exception="OSError"))
    assert (result.message, result.exception) == ("rank 1: first second", "KeyError")


CODES = st.sampled_from([0, 1, 64, 76, 137, 140, 141, 142, 143, 144, 145, -6, -9, -11, -15])
ENDS = st.lists(
    st.builds(
        lambda code, message, is_killed: RankEnd(0, code, Outcome(code, message) if message else None, is_killed),
        CODES,
        st.sampled_from(["", "said"]),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
).map(lambda ends: [dataclasses.replace(one, rank=rank) for rank, one in enumerate(ends)])
SEEN = st.fixed_dictionaries(
    {
        "oom_kills": st.integers(0, 2),
        "stop_asked": st.booleans(),
        "hang": st.sampled_from(["", "hang"]),
        "lost_peer": st.sampled_from(["", "lost"]),
        "kill_cause": st.just("killed"),
    }
)


@given(ENDS, SEEN, st.randoms())
def test_order_of_the_ranks_does_not_matter(ends: list[RankEnd], seen: dict[str, object], random: object) -> None:
    shuffled = list(ends)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert decide(*shuffled, **seen) == decide(*ends, **seen)


@given(ENDS, SEEN)
def test_success_only_if_every_rank_succeeded(ends: list[RankEnd], seen: dict[str, object]) -> None:
    assert (decide(*ends, **seen).code == 0) == all(one.returncode == 0 for one in ends)


@given(ENDS, SEEN)
def test_a_rank_that_the_launcher_killed_never_decides(ends: list[RankEnd], seen: dict[str, object]) -> None:
    if all(one.returncode == 0 for one in ends):
        return
    assert decide(*ends, RankEnd(99, -9, None, killed=True), **seen) == decide(*ends, **seen)


@given(ENDS, SEEN)
def test_a_rank_that_lost_its_peer_hides_no_cause(ends: list[RankEnd], seen: dict[str, object]) -> None:
    alone = decide(*ends, **seen)
    if alone.code not in (0, ExitCode.LOST_PEER) and alone.message != "killed":
        assert decide(*ends, end(99, 140, "peer"), **seen) == alone
