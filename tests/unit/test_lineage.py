from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.config import OPTIONS, TrainConfig
from app.resilience import checkpoint
from app.resilience.checkpoint import TENSORS, CheckpointInfo
from app.resilience.end import End
from app.resilience.exit_codes import ExitCode, TrainingError
from app.resilience.identity import RECIPE, Identity, claim_identity, recipe_hash, recorded_weights
from app.resilience.lineage import END, Lineage, volume_errors
from app.resilience.starts import Link, Record, line

CONFIG = TrainConfig(model="resnet18", dataset="digits", batch_size=16, learning_rate=0.064, device="cpu", epochs=8)


def identity(uid: str = "", **changes: object) -> Identity:
    return Identity.of(dataclasses.replace(CONFIG, **changes), uid)  # type: ignore[arg-type]


def start(root: Path, **options: object) -> Lineage:
    return Lineage.open(root, identity(), attempt=1, **options)  # type: ignore[arg-type]


def commit(lineage: Lineage, step: int) -> CheckpointInfo:
    """Writes without asking whether the start is superseded, as a zombie may that looked just before."""
    return checkpoint.save(lineage.directory, step, {"w": torch.tensor([step])}, {})


def tear(path: Path) -> None:
    (path / TENSORS).write_bytes((path / TENSORS).read_bytes()[:-1])


def chosen(lineage: Lineage) -> str | None:
    return lineage.parent and str(lineage.parent.relative_to(lineage.root))


# The line of training


def test_a_first_start_begins_at_step_0(tmp_path: Path) -> None:
    lineage = start(tmp_path / "deep" / "run", pod="digits-1-worker-0")
    assert (lineage.start, lineage.parent, lineage.warnings, lineage.finished) == (1, None, [], None)
    assert lineage.directory == tmp_path / "deep" / "run" / "1"
    assert lineage.directory.is_dir()
    claim = json.loads((tmp_path / "deep" / "run" / "starts" / "1").read_text())
    assert (claim["attempt"], claim["parent"], claim["pod"]) == (1, None, "digits-1-worker-0")


def test_a_start_continues_from_the_newest_checkpoint_of_the_one_before(tmp_path: Path) -> None:
    first = start(tmp_path)
    for step in (9, 10):
        commit(first, step)
    second = start(tmp_path)
    assert (second.start, chosen(second)) == (2, "1/step-10")
    assert json.loads((tmp_path / "starts" / "2").read_text())["parent"] == "1/step-10"


def test_a_start_that_wrote_nothing_hands_on_its_own_parent_and_not_a_zombies_later_write(tmp_path: Path) -> None:
    first = start(tmp_path)
    commit(first, 10)
    start(tmp_path)
    commit(first, 20)  # the first one is a zombie by now
    third = start(tmp_path)
    assert chosen(third) == "1/step-10"
    commit(first, 30)
    assert chosen(start(tmp_path)) == "1/step-10"


def test_a_claim_without_content_is_passed_over(tmp_path: Path) -> None:
    commit(start(tmp_path), 10)
    (tmp_path / "starts" / "2").touch()  # it died between its claim and its choice
    third = start(tmp_path)
    assert (third.start, chosen(third)) == (3, "1/step-10")


def test_a_torn_newest_checkpoint_falls_back_with_a_line_that_names_it(tmp_path: Path) -> None:
    first = start(tmp_path)
    commit(first, 10)
    tear(commit(first, 20).path)
    second = start(tmp_path)
    assert chosen(second) == "1/step-10"
    (warning,) = second.warnings
    assert str(tmp_path / "1" / "step-20") in warning
    assert TENSORS in warning
    assert "falling back" in warning


def test_where_a_start_has_only_torn_checkpoints_its_parent_is_next(tmp_path: Path) -> None:
    first = start(tmp_path)
    commit(first, 5)
    commit(first, 10)
    second = start(tmp_path)
    commit(first, 20)  # a zombie's
    tear(commit(second, 20).path)
    assert chosen(start(tmp_path)) == "1/step-10"
    tear(tmp_path / "1" / "step-10")
    assert chosen(start(tmp_path)) == "1/step-5"


def test_where_nothing_good_is_left_the_run_begins_afresh_and_says_so(tmp_path: Path) -> None:
    tear(commit(start(tmp_path), 10).path)
    second = start(tmp_path)
    assert second.parent is None
    assert "begins at step 0" in second.warnings[-1]


def test_a_volume_that_cannot_be_read_just_now_is_not_taken_for_a_torn_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(start(tmp_path), 10)

    def stale(path: Path, *, deep: bool = False) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))

    monkeypatch.setattr("app.resilience.lineage.verify", stale)
    with pytest.raises(TrainingError, match="Stale file handle") as caught:
        start(tmp_path)
    assert caught.value.code == ExitCode.VOLUME_IO
    monkeypatch.undo()
    assert chosen(start(tmp_path)) == "1/step-10"


def test_resume_none_begins_afresh_and_leaves_the_old_line_alone(tmp_path: Path) -> None:
    commit(start(tmp_path), 10)
    second = start(tmp_path, resume="none")
    assert (second.start, second.parent) == (2, None)
    writer = second.writer(keep=1)
    writer.save(1, {}, {})
    writer.wait(required=True)
    assert (tmp_path / "1" / "step-10").is_dir()
    assert chosen(start(tmp_path)) == "2/step-1"
    third = start(tmp_path, resume="none")
    assert third.parent is None
    assert start(tmp_path).parent is None  # and so does the one after it


def test_resume_path_takes_that_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = start(tmp_path / "a")
    commit(first, 10)
    commit(first, 20)
    monkeypatch.chdir(tmp_path)
    inside = start(tmp_path / "a", resume="a/1/step-10/")
    assert json.loads((tmp_path / "a" / "starts" / "2").read_text())["parent"] == "1/step-10"
    assert inside.parent == (tmp_path / "a" / "1" / "step-10").resolve()
    outside = start(tmp_path / "b", resume="a/1/step-20")
    assert outside.parent == (tmp_path / "a" / "1" / "step-20").resolve()
    assert start(tmp_path / "b").parent == outside.parent  # the next one, after a fault, too


@pytest.mark.parametrize("resume", ["nowhere", "run/1", "run/1/step-10"])
def test_resume_path_that_is_no_good_checkpoint_is_one_line_and_claims_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: str
) -> None:
    tear(commit(start(tmp_path / "run"), 10).path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrainingError, match=f"--resume .*{resume}") as caught:
        start(tmp_path / "run", resume=resume)
    assert caught.value.code == ExitCode.BAD_OPTION
    assert "\n" not in caught.value.message
    assert os.listdir(tmp_path / "run" / "starts") == ["1"]


def test_the_whole_directory_may_be_moved(tmp_path: Path) -> None:
    commit(start(tmp_path / "here"), 10)
    start(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    assert chosen(start(tmp_path / "there")) == "1/step-10"


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, int]]:
    """Interleaved deeds of starts: claim, record (choose a parent), commit, tear (a checkpoint goes bad)."""
    return draw(
        st.lists(
            st.tuples(
                st.sampled_from(["claim", "record", "commit", "commit", "commit", "tear"]), st.integers(0, 1_000_000)
            ),
            min_size=1,
            max_size=40,
        )
    )


@settings(max_examples=400, deadline=None)
@given(histories())
def test_no_start_continues_from_what_a_zombie_wrote_after_a_newer_one_took_over(
    deeds: list[tuple[str, int]],
) -> None:
    """Any start may commit at any time, whatever the fence says: it may have looked just before, or seen old news.

    Each start carries its own history along, as a real training does in its weights. The choice, made from claims and
    names alone, must be the newest good checkpoint in the history of the newest start that took over.
    """
    records: dict[int, Record | None] = {}
    written: dict[int, list[int]] = {}  # start -> steps of its checkpoints
    history: dict[int, list[tuple[int, int]]] = {}  # start -> the checkpoints that led to its weights, oldest first
    torn: set[tuple[int, int]] = set()
    for deed, number in deeds:
        waiting = [n for n, record in records.items() if record is None]
        running = [n for n, record in records.items() if record is not None]
        everything = [(n, step) for n, steps in written.items() for step in steps]
        if deed == "claim":
            records[len(records) + 1] = None
        elif deed == "record" and waiting:
            me = waiting[number % len(waiting)]
            before = max((n for n in records if n < me), default=0)
            links = [place for place in line(records, before) if isinstance(place, Link)]
            candidates = [
                (link.start, step)
                for link in links
                for step in reversed(written.get(link.start, []))
                if link.limit is None or step <= link.limit
            ]
            choice = next((c for c in candidates if c not in torn), None)
            took_over = max((n for n in running if n < me), default=None)
            wanted = [c for c in history.get(took_over or 0, []) if c not in torn]
            assert choice == (wanted[-1] if wanted else None)
            records[me] = Record(f"{choice[0]}/step-{choice[1]}" if choice else None)
            history[me] = history[choice[0]][: history[choice[0]].index(choice) + 1] if choice else []
            written[me] = []
        elif deed == "commit" and running:
            me = running[number % len(running)]
            step = (history[me][-1][1] if history[me] else 0) + 1 + number % 2
            written[me].append(step)
            history[me].append((me, step))
        elif deed == "tear" and everything:
            torn.add(everything[number % len(everything)])


@pytest.mark.parametrize("parent", ["3/step-1", "9/step-1", "2/step-1"])
def test_a_claim_that_names_a_parent_after_itself_ends_the_line(parent: str) -> None:
    assert list(line({1: Record(None), 2: Record(parent)}, 2)) == [Link(2, None)]


def test_a_lost_claim_of_an_ancestor_ends_the_line() -> None:
    assert list(line({1: Record(None), 2: None, 3: Record("2/step-5")}, 3)) == [Link(3, None), Link(2, 5)]


# Fencing


def test_an_older_start_is_superseded_and_writes_no_more(tmp_path: Path) -> None:
    first = start(tmp_path)
    writer = first.writer(keep=3)
    writer.save(1, {"w": torch.zeros(1)}, {})
    writer.wait(required=True)
    assert first.superseded() is None
    second = start(tmp_path)
    assert first.superseded() == 2
    writer.save(2, {"w": torch.zeros(1)}, {})
    with pytest.raises(TrainingError, match=f"superseded by start 2 of {tmp_path}") as caught:
        writer.wait()
    assert caught.value.code == ExitCode.LOST_PEER
    with pytest.raises(TrainingError, match="superseded"):
        first.finish(End(2))
    assert sorted(os.listdir(tmp_path / "1")) == ["step-1"]
    assert second.superseded() is None


def test_gangs_that_start_at_the_same_moment_get_numbers_of_their_own(tmp_path: Path) -> None:
    together = threading.Barrier(8)

    def gang(_: int) -> int:
        together.wait()
        return start(tmp_path).start

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(gang, range(8))) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_number_is_never_used_twice_even_where_its_claim_was_lost(tmp_path: Path) -> None:
    start(tmp_path)
    (tmp_path / "7").mkdir()  # its claim was lost
    assert start(tmp_path).start == 8
    assert start(tmp_path).start == 9


# Pruning


def names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.glob("[0-9]*/*step-*"))


def test_the_newest_of_the_line_and_the_best_are_kept_over_all_starts(tmp_path: Path) -> None:
    first = start(tmp_path)
    for step in (1, 2, 3):
        commit(first, step)
    second = start(tmp_path)
    writer = second.writer(keep=2)
    writer.save(4, {}, {}, best=1)
    writer.wait(required=True)
    assert names(tmp_path) == ["1/step-1", "1/step-3", "2/step-4"]
    writer.save(5, {}, {}, best=5)
    writer.wait(required=True)
    assert names(tmp_path) == ["2/step-4", "2/step-5"]


def test_a_torn_checkpoint_does_not_count_as_kept(tmp_path: Path) -> None:
    first = start(tmp_path)
    commit(first, 1)
    tear(commit(first, 2).path)
    second = start(tmp_path)
    writer = second.writer(keep=2)
    writer.save(3, {}, {})
    writer.wait(required=True)
    assert names(tmp_path) == ["1/step-1", "1/step-2", "2/step-3"]  # torn, but not on the line: left for a person
    tear(tmp_path / "2" / "step-3")
    writer.save(4, {}, {})
    writer.wait(required=True)
    assert names(tmp_path) == ["1/step-1", "1/step-2", "2/step-4"]


def test_what_dead_writers_left_half_done_is_removed(tmp_path: Path) -> None:
    first = start(tmp_path)
    (first.directory / ".step-7.tmp-12345").mkdir()
    second = start(tmp_path)
    (second.directory / ".step-8.tmp-12345").mkdir()
    writer = second.writer(keep=1)
    writer.save(1, {}, {})
    writer.wait(required=True)
    assert names(tmp_path) == ["2/step-1"]


# Identity


def test_every_option_is_known_to_be_recipe_or_not() -> None:
    others = {
        "dataset_path", "early_stop", "compile", "device", "nproc_per_node", "nnodes", "node_rank", "master_addr",
        "master_port", "num_workers", "checkpoint_dir", "checkpoint_minutes", "keep", "resume", "adopt", "export",
        "log_interval", "profiler", "profiler_dir", "metrics_port", "gang_port", "watchdog_seconds", "grace_seconds",
        "rendezvous_timeout", "print_plan", "index_cache", "max_bad_images", "eval_size", "trust_checkpoint",
        "cpu_binding",
    }  # fmt: skip
    assert set(OPTIONS) - others == RECIPE


def test_the_hash_is_of_the_recipe_alone() -> None:
    other = dataclasses.replace(CONFIG, nnodes=2, nproc_per_node=4, num_workers=0, keep=9, checkpoint_dir="/x")
    assert recipe_hash(other)[0] == recipe_hash(CONFIG)[0]
    assert recipe_hash(dataclasses.replace(CONFIG, image_size=CONFIG.size)) == recipe_hash(CONFIG)
    assert recipe_hash(dataclasses.replace(CONFIG, learning_rate=0.1))[0] != recipe_hash(CONFIG)[0]


def test_weights_to_begin_with_belong_to_the_recipe_by_their_content(tmp_path: Path) -> None:
    here, there = (dataclasses.replace(CONFIG, pretrained=path) for path in ("/here/r50.pth", "/there/r50.pth"))
    assert recipe_hash(here, "0123") == recipe_hash(there, "0123")
    assert len({recipe_hash(here, content)[0] for content in ("", "0123", "4567")}) == 3
    (tmp_path / "starts").mkdir()
    claim_identity(tmp_path, Identity.of(here, "", "0123"), adopt=False, empty=False)
    with pytest.raises(TrainingError, match="--pretrained 0123 there, 4567 here"):
        claim_identity(tmp_path, Identity.of(there, "", "4567"), adopt=False, empty=False)
    assert recorded_weights(tmp_path) == "0123"
    assert recorded_weights(tmp_path / "starts") == ""


def test_an_option_that_a_later_version_adds_does_not_change_the_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.resilience.identity.RECIPE", RECIPE - {"accumulate"})
    before = recipe_hash(CONFIG)[0]
    monkeypatch.undo()
    assert recipe_hash(CONFIG)[0] == before
    assert recipe_hash(dataclasses.replace(CONFIG, accumulate=2))[0] != before


def test_another_recipe_is_refused_in_one_line_that_says_what_differs(tmp_path: Path) -> None:
    commit(start(tmp_path), 1)
    with pytest.raises(TrainingError) as caught:
        Lineage.open(tmp_path, identity(model="resnet50", epochs=9), attempt=1, adopt=True)
    assert caught.value.code == ExitCode.BAD_OPTION
    for part in (str(tmp_path), "--model_name resnet18 there, resnet50 here", "--epoch 8 there, 9 here"):
        assert part in caught.value.message
    assert "\n" not in caught.value.message
    assert os.listdir(tmp_path / "starts") == ["1"]


def test_another_learning_rate_needs_a_gang_of_another_size(tmp_path: Path) -> None:
    commit(start(tmp_path), 1)
    with pytest.raises(TrainingError, match=r"another recipe \(--lr 0.064 there, 0.128 here\)"):
        Lineage.open(tmp_path, identity(learning_rate=0.128), attempt=1)
    with pytest.raises(TrainingError, match=r"--lr 0.064 there, 0.128 here; --seed 1234 there, 5 here"):
        Lineage.open(tmp_path, identity(learning_rate=0.128, nproc_per_node=2, seed=5), attempt=1)
    larger = identity(learning_rate=0.128, nproc_per_node=2)
    assert chosen(Lineage.open(tmp_path, larger, attempt=1)) == "1/step-1"
    assert chosen(Lineage.open(tmp_path, larger, attempt=2)) == "1/step-1"
    with pytest.raises(TrainingError, match=r"another recipe \(--lr 0.128 there, 0.3 here\)"):
        Lineage.open(tmp_path, identity(learning_rate=0.3, nproc_per_node=2), attempt=3)


def test_another_recipe_may_have_a_directory_without_checkpoints(tmp_path: Path) -> None:
    start(tmp_path)
    other = identity(learning_rate=0.5)
    assert Lineage.open(tmp_path, other, attempt=1).start == 2
    assert json.loads((tmp_path / "identity.json").read_text())["recipe_hash"] == other.recipe_hash


@pytest.mark.parametrize(
    ("recorded", "mine", "adopt", "afterwards"),
    [
        ("a", "a", False, "a"),
        ("", "b", False, "b"),
        ("a", "", False, "a"),
        ("a", "b", True, "b"),
        ("a", "b", False, None),
    ],
)
def test_the_directory_of_another_experiment_needs_adopt(
    tmp_path: Path, recorded: str, mine: str, adopt: bool, afterwards: str | None
) -> None:
    commit(Lineage.open(tmp_path, identity(recorded), attempt=1), 1)
    if afterwards is None:
        with pytest.raises(TrainingError, match=f"{tmp_path}.* UID a, this one has UID b.*--adopt True") as caught:
            Lineage.open(tmp_path, identity(mine), attempt=1, adopt=adopt)
        assert caught.value.code == ExitCode.BAD_OPTION
        return
    assert chosen(Lineage.open(tmp_path, identity(mine), attempt=1, adopt=adopt)) == "1/step-1"
    assert json.loads((tmp_path / "identity.json").read_text())["uid"] == afterwards


@pytest.mark.parametrize("text", ["", "{", "[]", '{"uid": 3, "recipe_hash": "x", "facts": {}}', "{}"])
def test_an_identity_that_cannot_be_understood_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "identity.json").write_text(text)
    with pytest.raises(TrainingError, match=r"identity\.json") as caught:
        start(tmp_path)
    assert caught.value.code == ExitCode.BAD_OPTION


# A finished run


def test_a_finished_run_is_told_and_nothing_is_claimed(tmp_path: Path) -> None:
    first = start(tmp_path)
    commit(first, 10)
    first.finish(End(10, top1=0.99, exported="/c/1/model.onnx"))
    again = start(tmp_path)
    assert again.finished is not None
    assert (again.start, again.finished.step, again.finished.top1) == (1, 10, 0.99)
    assert math.isnan(again.finished.best_top1)
    assert (again.finished.exported, again.finished.export_error) == ("/c/1/model.onnx", None)
    assert "finished (step 10)" in again.finished_line()
    assert "--resume none" in again.finished_line()
    assert os.listdir(tmp_path / "starts") == ["1"]
    with pytest.raises(TrainingError):
        Lineage.open(tmp_path, identity(epochs=9), attempt=1)  # not that run, so not finished
    assert start(tmp_path, resume="none").finished is None
    assert start(tmp_path).finished is None  # the newest start counts, and it has not finished


@pytest.mark.parametrize("torn", ["", "[]", "{}", '{"step": "ten"}'])
def test_a_torn_end_is_no_end(torn: str, tmp_path: Path) -> None:
    first = start(tmp_path)
    commit(first, 10)
    (first.directory / END).write_text(torn)
    assert chosen(start(tmp_path)) == "1/step-10"


# A directory that can't be used


@contextmanager
def nobody() -> Iterator[None]:
    """As a user who may not write everywhere, also where the tests run as root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_directory_that_cannot_be_written_is_one_line_with_the_flag(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o555)
    with nobody(), pytest.raises(TrainingError) as caught:
        start(closed / "run")
    assert caught.value.code == ExitCode.BAD_OPTION
    assert f"--checkpoint_dir {closed}/run: Permission denied" in caught.value.message
    assert "\n" not in caught.value.message


def test_a_file_in_the_way_is_one_line_with_the_flag(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(TrainingError, match=f"--checkpoint_dir {root}: Not a directory") as caught:
            start(root)
        assert caught.value.code == ExitCode.BAD_OPTION


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.EACCES, ExitCode.BAD_OPTION),
        (errno.EROFS, ExitCode.BAD_OPTION),
        (errno.ENOSPC, ExitCode.VOLUME_IO),
        (errno.EDQUOT, ExitCode.VOLUME_IO),
        (errno.EIO, ExitCode.VOLUME_IO),
        (errno.ESTALE, ExitCode.VOLUME_IO),
        (errno.ETIMEDOUT, ExitCode.VOLUME_IO),
    ],
)
def test_errors_that_may_pass_are_retryable_and_others_are_not(number: int, code: ExitCode) -> None:
    with pytest.raises(TrainingError, match=f"--x: {os.strerror(number)}") as caught, volume_errors("--x"):
        raise OSError(number, os.strerror(number))
    assert caught.value.code == code
