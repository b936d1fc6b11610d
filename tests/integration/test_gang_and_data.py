"""A gang of another size goes on behind the images that were trained on; one that sees two data sets does not begin."""

from __future__ import annotations

import re
import shutil
import signal
from pathlib import Path

from app.resilience import checkpoint
from app.resilience.exit_codes import ExitCode
from app.telemetry.events import read_events
from tests.integration.training_process import command, free_port, newest, run, start, wait_for

TRAIN, VAL = 1437, 360


def test_a_gang_of_another_size_trains_on_what_is_left_and_says_what_becomes_of_the_learning_rate(
    images: Path, tmp_path: Path
) -> None:
    flags = {"dataset": "imagenet", "epoch": 1, "bs": 16, "lr": 0.032, "export": False, "autocast": False}
    run_directory, log = tmp_path / "run", tmp_path / "log"
    process = start(command(images, run_directory, **flags), log)
    wait_for(lambda: "step 10/" in log.read_text(), process, log)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == ExitCode.STOPPED, log.read_text()
    stopped = checkpoint.step_of(newest(run_directory))
    left = TRAIN - 32 * stopped  # the images of this epoch that no rank has seen
    assert left > 64

    done = run(command(images, run_directory, **flags, nproc_per_node=1))
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "was made by" in line]
    assert line.endswith(
        f"step-{stopped} was made by 2 ranks, now there are 1: the global batch is 16 and no longer 32; "
        "the learning rate stays 0.032 (in proportion to the batch it would be --lr 0.016)"
    )
    events = read_events(run_directory / "2/events.jsonl")
    assert (events[0]["world_size"], events[0]["global_batch"]) == (1, 16)
    assert events[-1]["step"] == stopped + left // 16
    rates = {event["learning_rate"] for event in events if event["kind"] == "train"}
    assert rates == {0.032}
    _, state = checkpoint.load(newest(run_directory))
    assert state["images"] == 32 * stopped + 16 * (left // 16)
    assert TRAIN - 16 < state["images"] <= TRAIN


def test_nodes_that_see_two_data_sets_end_before_they_train(images: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(images, other)
    next((other / "train" / "3").iterdir()).unlink()
    port, gang_port = free_port(), free_port()
    flags = {"dataset": "imagenet", "nproc_per_node": 1, "nnode": 2, "master_port": port, "gang_port": gang_port}
    logs = [tmp_path / "0.log", tmp_path / "1.log"]
    nodes = [
        start(command(path, tmp_path / "run", **flags, node_rank=node), log)
        for node, (path, log) in enumerate(zip((images, other), logs, strict=True))
    ]
    codes = [node.wait(120) for node in nodes]
    said = "".join(log.read_text() for log in logs)
    assert codes == [ExitCode.VOLUME_IO] * 2, said
    assert re.search(
        f"--dataset_path: rank 0 found {TRAIN} images to train on and {VAL} to validate, "
        f"rank 1 {TRAIN - 1} and {VAL}, not the same ones",
        said,
    )
    assert "Traceback" not in said
    assert not list((tmp_path / "run").glob("starts/*"))
