"""What of a run outlives resnetctl."""

import json
import os
from pathlib import Path

import pytest

from controller.api import Experiment, Status, load
from controller.local import LocalError
from controller.local.process import Mark
from controller.local.rundir import PodRecord, RunDirectory, replace
from tests.unit.documents import DIGITS


def experiment(text: str = DIGITS) -> Experiment:
    return load(text, "digits.yaml")


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    (tmp_path / "digits").mkdir()
    return RunDirectory(tmp_path / "digits")


def test_the_uid_is_made_once_and_the_status_comes_back(run: RunDirectory):
    first, before = run.claim(experiment())
    assert before is None
    assert (first.metadata.namespace, first.metadata.generation) == ("local", 1)
    run.save(first.model_copy(update={"status": Status(phase="Running", attempt=3, loss=0.5)}))
    again, before = run.claim(experiment())
    assert before is not None
    assert again.metadata.uid == first.metadata.uid
    assert (again.status.attempt, again.status.loss, again.metadata.generation) == (3, 0.5, 1)


def test_a_field_that_may_change_makes_a_new_generation(run: RunDirectory):
    first, _ = run.claim(experiment())
    run.save(first)
    again, _ = run.claim(experiment(DIGITS + "  checkpoint: {keep: 9}\n"))
    assert again.metadata.generation == 2
    assert again.spec.checkpoint.keep == 9


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("epochs: 8", "epochs: 9", r"spec\.training\.epochs is 9, was 8"),
        ("resnet18", "resnet50", r"spec\.model is \"resnet50\", was \"resnet18\""),
        ("{type: cpu}", "{type: cpu, cardsPerNode: 2}", r"spec\.accelerator\.cardsPerNode is 2, was 1"),
        ("Device: 32}", "Device: 32}\n  nodes: 2", r"spec\.nodes is 2, was 1"),
        ("Device: 32}", "Device: 32}\n  checkpoint: {path: /c}", r"spec\.checkpoint\.path is \"/c\""),
    ],
)
def test_a_field_that_may_not_change_is_named_with_both_values(run: RunDirectory, old: str, new: str, field: str):
    run.save(run.claim(experiment())[0])
    with pytest.raises(LocalError, match=field) as caught:
        run.claim(experiment(DIGITS.replace(old, new)))
    assert caught.value.code == 64
    assert "\n" not in caught.value.message


def test_a_file_that_is_no_experiment_is_named(run: RunDirectory):
    run.experiment.write_text('{"kind": "Something"}')
    with pytest.raises(LocalError, match=r"experiment\.json"):
        run.load()


def test_a_second_holder_is_told_who_the_first_one_is(run: RunDirectory):
    with run.held(), pytest.raises(LocalError, match=rf"process {os.getpid()}\b"), RunDirectory(run.path).held():
        pass
    with run.held():
        pass


def test_a_directory_that_can_not_be_written_is_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalError, match="--workdir") as caught, RunDirectory(tmp_path / "file" / "digits").held():
        pass
    assert caught.value.code == 64


def test_events_of_all_starts_are_joined_by_number_and_the_last_starts_model_is_copied(run: RunDirectory):
    for start in (2, 10, 1):
        directory = run.checkpoints / "local" / "digits" / str(start)
        directory.mkdir(parents=True)
        (directory / "events.jsonl").write_text(json.dumps({"start": start}))
        (directory / "model.onnx").write_bytes(b"model %d" % start)
    (run.checkpoints / "local" / "digits" / "starts").mkdir()
    run.collect("digits")
    assert [json.loads(line)["start"] for line in run.events.read_text().splitlines()] == [1, 2, 10]
    assert run.model.read_bytes() == b"model 10"


def test_a_model_of_an_earlier_start_is_not_taken_for_the_last_ones(run: RunDirectory):
    for start in (1, 2):
        (run.checkpoints / "local" / "digits" / str(start)).mkdir(parents=True)
    (run.checkpoints / "local" / "digits" / "1" / "model.onnx").write_bytes(b"old")
    run.collect("digits")
    assert not run.model.exists()
    assert run.events.read_text() == ""


def test_recorded_pods_come_back_and_a_torn_record_counts_as_none(run: RunDirectory):
    records = [PodRecord(Mark(1, 2, "boot"), Path("/s"), 5.0), PodRecord(None, Path("/t"), 6.0)]
    run.record_pods(records)
    assert run.recorded_pods() == records
    (run.path / "pods.json").write_text('[{"mark"')
    assert run.recorded_pods() == []


def test_a_write_that_fails_leaves_the_old_content_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "file"
    replace(file, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace(file, b"new")
    assert file.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
