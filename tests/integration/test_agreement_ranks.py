"""The agreement between real processes over gloo."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from app.resilience.agreement import MAX_INTERVAL, Agreement
from app.resilience.exit_codes import ExitCode, TrainingError
from app.resilience.report import Report, Verdict

CONTEXT = multiprocessing.get_context(
    "forkserver"
)  # imports torch once, then forks ranks from a process without threads
CONTEXT.set_forkserver_preload([__name__])

Body = Callable[[int, int, Agreement], Any]


def rank_main(body: Body, rank: int, world: int, store: str, results: Any) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    results.put((rank, body(rank, world, Agreement(rank=rank, world_size=world))))
    dist.destroy_process_group()


def ranks(body: Body, world: int, tmp_path: Path, answers: int | None = None) -> dict[int, Any]:
    """What `body` returned on each rank."""
    results = CONTEXT.SimpleQueue()
    processes = [
        CONTEXT.Process(target=rank_main, args=(body, rank, world, str(tmp_path / "store"), results))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    found = dict(results.get() for _ in range(answers or world))
    for process in processes:
        process.join()
    return found


def gradients(rank: int) -> None:
    """What DDP does at each step, on the same group, with ranks of different speed."""
    time.sleep(0.0005 * rank)
    work = dist.all_reduce(torch.ones(1000), async_op=True)
    assert work is not None
    work.wait()


def until_stop(rank: int, world: int, agreement: Agreement) -> list[tuple[int, Verdict]]:
    heard = []
    for step in range(1, 2000):
        gradients(rank)
        mine = Report(
            stop=rank == world - 1 and step >= 37, nonfinite_in_row=step * (rank + 1), busy_seconds=step / (rank + 1)
        )
        verdict = agreement.at(step, lambda mine=mine: mine)
        if verdict:
            heard.append((step, verdict))
            if verdict.stop:
                break
    return heard


@pytest.mark.parametrize("world", [2, 4])
def test_all_ranks_stop_at_the_same_step_when_one_was_asked(tmp_path: Path, world: int) -> None:
    heard = ranks(until_stop, world, tmp_path)
    assert all(heard[rank] == heard[0] for rank in range(world))
    step, last = heard[0][-1]
    assert last.stop
    assert 37 < step <= 38 + MAX_INTERVAL
    assert len(heard[0]) > 3
    for step, verdict in heard[0]:
        # Each rank's numbers of the step before, on every rank.
        assert verdict.nonfinite_in_row == tuple((step - 1) * (rank + 1) for rank in range(world))
        assert verdict.busy_seconds == tuple((step - 1) / (rank + 1) for rank in range(world))


def with_validation(rank: int, world: int, agreement: Agreement) -> list[Any]:
    heard: list[Any] = []
    step = 0
    for epoch in range(4):
        for _ in range(5):
            step += 1
            gradients(rank)
            heard.append(agreement.at(step, Report))
        heard.append(agreement.now(Report(nonfinite_in_row=rank)))
        gradients(rank)
        heard.append(agreement.now(Report(stop=epoch == 3 and rank == 1)))
    return heard


def test_an_exchange_around_validation_agrees_whatever_was_under_way(tmp_path: Path) -> None:
    heard = ranks(with_validation, 3, tmp_path)
    assert heard[0] == heard[1] == heard[2]
    assert [verdict for verdict in heard[0] if verdict and verdict.stop] == [heard[0][-1]]
    assert max(verdict.nonfinite_in_row for verdict in heard[0] if verdict) == (0, 1, 2)


def loses_a_peer(rank: int, world: int, agreement: Agreement) -> tuple[int, str]:
    try:
        for step in range(1, 1000):
            if step == 20 and rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            agreement.at(step, Report)
            agreement.now(Report())
    except TrainingError as error:
        return error.code, error.message
    return 0, ""


def test_a_killed_peer_is_an_error_of_its_own(tmp_path: Path) -> None:
    heard = ranks(loses_a_peer, 2, tmp_path, answers=1)
    code, message = heard[0]
    assert code == ExitCode.LOST_PEER
    assert message.startswith("lost a peer")
    assert "\n" not in message
