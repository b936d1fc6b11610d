from __future__ import annotations

import json
import math
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from app.resilience.checkpoint import (
    MANIFEST,
    STATE,
    TENSORS,
    BadCheckpoint,
    checkpoints,
    kept,
    load,
    remove,
    save,
    step_of,
    sweep,
    verify,
)
from app.resilience.exit_codes import ExitCode, TrainingError
from app.resilience.snapshot import Snapshots
from app.resilience.tree import flatten, unflatten
from app.resilience.writer import CheckpointWriter

FILES = (TENSORS, STATE, MANIFEST)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.sampled_from(["$tensor", "$tuple", "nan"])
)
tensors = st.builds(
    lambda shape, dtype: torch.arange(math.prod(shape)).reshape(shape).to(dtype),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool]),
)
keys = st.text("ab$", max_size=3) | st.integers(0, 5) | st.sampled_from(["$tensor", "$dict", "$float"])
trees = st.recursive(
    scalars | tensors,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=3).filter(lambda d: len({str(k) for k in d}) == len(d))
    ),
    max_leaves=8,
)


def same(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return isinstance(right, torch.Tensor) and left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, np.ndarray):
        return isinstance(right, np.ndarray) and left.dtype == right.dtype and np.array_equal(left, right)
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


@given(trees)
def test_any_tree_survives_json_and_comes_back_the_same(tree: Any) -> None:
    flat, encoded = flatten("s", tree)
    again = unflatten(json.loads(json.dumps(encoded, allow_nan=False)), flat.__getitem__)
    assert same(again, tree)


def test_nonfinite_numbers_and_numpy_values_come_back() -> None:
    tree = {"nan": math.nan, "inf": -math.inf, "array": np.arange(6, dtype=np.uint32).reshape(2, 3), "n": np.int64(3)}
    flat, encoded = flatten("s", tree)
    again = unflatten(json.loads(json.dumps(encoded, allow_nan=False)), flat.__getitem__)
    assert math.isnan(again["nan"])
    assert again["inf"] == -math.inf
    assert same(again["array"], tree["array"])
    assert again["n"] == 3


@pytest.mark.parametrize("value", [object(), {(1, 2): 3}, {1, 2}, b"bytes", np.array(["text"]), np.array([math.nan])])
def test_a_value_that_cannot_be_kept_is_named(value: Any) -> None:
    with pytest.raises(TypeError, match="state/outer/inner"):
        flatten("state", {"outer": {"inner": value}})


def test_two_tensors_of_one_name_are_refused() -> None:
    with pytest.raises(TypeError, match="two tensors"):
        flatten("s", {"a": {"b": torch.zeros(1)}, "a/b": torch.zeros(1)})


class Run:
    """A small network with everything that a resume must carry over."""

    def __init__(self, optimizer: str, seed: int) -> None:
        torch.manual_seed(seed)
        self.net = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 5, 1), torch.nn.Flatten()
        ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        groups = [{"params": list(self.net[0].parameters()), "weight_decay": 0.1}, {"params": self.net[2].parameters()}]
        self.optimizer: torch.optim.Optimizer = {
            "sgd": lambda: torch.optim.SGD(groups, lr=0.1, momentum=0.9),
            "rmsprop": lambda: torch.optim.RMSprop(groups, lr=0.01, momentum=0.9, centered=True),
            "adam": lambda: torch.optim.Adam(groups, lr=0.01, amsgrad=True),
        }[optimizer]()
        self.scaler = torch.amp.GradScaler("cpu", init_scale=65536.0)

    def train(self, steps: int) -> None:
        for _ in range(steps):
            images = torch.randn(2, 3, 4, 4) * (1 + random.random() + np.random.rand())
            loss = self.net(images.contiguous(memory_format=torch.channels_last)).square().mean()
            self.optimizer.zero_grad()
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()

    def state(self) -> dict[str, Any]:
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "torch": torch.get_rng_state(),
            "numpy": np.random.get_state(),
            "python": random.getstate(),
        }

    def restore(self, weights: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        self.net.load_state_dict(weights)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["torch"])
        np.random.set_state(state["numpy"])
        random.setstate(state["python"])


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adam"])
def test_a_resumed_run_goes_on_bit_for_bit(tmp_path: Path, optimizer: str) -> None:
    run = Run(optimizer, seed=1)
    run.train(3)
    save(tmp_path, 3, run.net.state_dict(), run.state())
    run.train(3)

    resumed = Run(optimizer, seed=2)
    resumed.restore(*load(tmp_path / "step-3"))
    resumed.train(3)
    for name, tensor in run.net.state_dict().items():
        assert torch.equal(tensor, resumed.net.state_dict()[name]), name
    assert same(resumed.state()["optimizer"], run.state()["optimizer"])
    assert same(resumed.state()["scaler"], run.state()["scaler"])
    strides = [[t.stride() for s in r.optimizer.state.values() for t in s.values()] for r in (run, resumed)]
    assert strides[0] == strides[1]


def test_other_tools_read_the_tensors(tmp_path: Path) -> None:
    weights = {"conv.weight": torch.randn(2, 3, 3, 3).to(memory_format=torch.channels_last), "n": torch.tensor(7)}
    save(tmp_path, 1, weights, {"momentum": torch.ones(2)})
    found = load_file(tmp_path / "step-1" / TENSORS)
    assert sorted(found) == ["conv.weight", "n", "state/momentum"]
    assert torch.equal(found["conv.weight"], weights["conv.weight"])
    assert sorted(load(tmp_path / "step-1")[0]) == ["conv.weight", "n"]


@pytest.mark.parametrize("shape", [(2, 3, 3, 3), (5, 4, 1, 1), (2, 1, 3, 3), (0, 2, 3, 3)])
def test_a_tensors_layout_comes_back(tmp_path: Path, shape: tuple[int, ...]) -> None:
    contiguous = torch.zeros(shape)
    weights = {"nchw": contiguous, "nhwc": torch.empty_like(contiguous, memory_format=torch.channels_last).zero_()}
    save(tmp_path, 1, weights, {})
    loaded = load(tmp_path / "step-1")[0]
    assert {name: t.stride() for name, t in loaded.items()} == {name: t.stride() for name, t in weights.items()}


def test_a_loaded_tensor_does_not_depend_on_the_file(tmp_path: Path) -> None:
    save(tmp_path, 1, {"w": torch.arange(100_000)}, {})
    loaded = load(tmp_path / "step-1")[0]["w"]
    (tmp_path / "step-1" / TENSORS).write_bytes(b"")
    assert torch.equal(loaded, torch.arange(100_000))
    loaded += 1  # and it can be written to


def test_a_name_kept_for_the_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="state/x"):
        save(tmp_path, 1, {"state/x": torch.zeros(1)}, {})


def test_the_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save(tmp_path, 1, {"w": torch.zeros(1)}, {})
    finally:
        os.umask(before)
    assert {name: (tmp_path / "step-1" / name).stat().st_mode & 0o777 for name in FILES} == dict.fromkeys(FILES, 0o640)


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, 5, {"w": torch.zeros(1)}, {"top1": None})
    save(tmp_path, 5, {"w": torch.ones(1)}, {"top1": 0.9})
    weights, state = load(tmp_path / "step-5")
    assert (weights["w"].item(), state) == (1.0, {"top1": 0.9})
    assert os.listdir(tmp_path) == ["step-5"]


def test_a_writer_that_died_while_replacing_leaves_the_older_one_to_be_found(tmp_path: Path) -> None:
    path = save(tmp_path, 5, {"w": torch.zeros(1)}, {}).path
    path.rename(tmp_path / "step-5.replaced")
    (found,) = checkpoints(tmp_path)
    assert step_of(found) == 5
    assert load(found)[0]["w"].item() == 0
    save(tmp_path, 5, {"w": torch.ones(1)}, {})
    sweep(tmp_path)
    assert checkpoints(tmp_path) == [path]
    assert os.listdir(tmp_path) == ["step-5"]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("good"), 7, {"w": torch.randn(50)}, {"epoch": 1, "r": torch.ones(3)}).path


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(good: Path, tmp_path: Path, name: str) -> None:
    path = Path(shutil.copytree(good, tmp_path / "step-7"))
    (path / name).unlink()
    for check in (verify, load):
        with pytest.raises(BadCheckpoint, match=f"{name} is missing"):
            check(path)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), name=st.sampled_from(FILES))
def test_no_truncated_file_is_taken_for_good(good: Path, data: st.DataObject, name: str) -> None:
    original = (good / name).read_bytes()
    size = data.draw(st.integers(0, len(original) - 2))  # the manifest's last byte is only a line's end
    try:
        (good / name).write_bytes(original[:size])
        for check in (verify, load):
            with pytest.raises(BadCheckpoint):
                check(good)
    finally:
        (good / name).write_bytes(original)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), name=st.sampled_from([TENSORS, STATE]), bit=st.integers(0, 7))
def test_no_flipped_bit_is_loaded(good: Path, data: st.DataObject, name: str, bit: int) -> None:
    original = (good / name).read_bytes()
    place = data.draw(st.integers(0, len(original) - 1))
    flipped = bytearray(original)
    flipped[place] ^= 1 << bit
    try:
        (good / name).write_bytes(flipped)
        verify(good)  # the sizes are right
        with pytest.raises(BadCheckpoint, match=f"sha256 of {name}"):
            verify(good, deep=True)
        with pytest.raises(BadCheckpoint, match=f"sha256 of {name}"):
            load(good)
    finally:
        (good / name).write_bytes(original)


@pytest.mark.parametrize(
    ("manifest", "why"),
    [
        (b"", "not a manifest"),
        (b"\xff\xfe", "not a manifest"),
        (b"[]", "not a manifest"),
        (b'{"format": 1, "step": 7, "files": [], "channels_last": []}', "not a manifest"),
        (b'{"format": 1, "step": 7, "files": {}, "channels_last": []}', "does not list"),
        (b'{"format": 9, "step": 7, "files": {}, "channels_last": []}', "format 9"),
        (b'{"format": 1, "step": 8, "files": {}, "channels_last": []}', "of step 8"),
    ],
)
def test_a_manifest_that_says_something_else_is_no_manifest(
    good: Path, tmp_path: Path, manifest: bytes, why: str
) -> None:
    path = Path(shutil.copytree(good, tmp_path / "step-7"))
    (path / MANIFEST).write_bytes(manifest)
    with pytest.raises(BadCheckpoint, match=why):
        verify(path)


def test_a_path_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="step-<number>"):
        load(tmp_path / "model.pth")


def test_a_fence_keeps_the_checkpoint_from_its_place(tmp_path: Path) -> None:
    def fence() -> None:
        raise TrainingError(ExitCode.LOST_PEER, "superseded by start 2")

    with pytest.raises(TrainingError):
        save(tmp_path, 1, {"w": torch.zeros(1)}, {}, fence=fence)
    assert os.listdir(tmp_path) == []


steps = st.lists(st.integers(0, 50), unique=True).map(lambda found: sorted(found, reverse=True))


@given(steps, st.integers(1, 5), st.none() | st.integers(0, 50))
def test_the_newest_and_the_best_are_kept_and_nothing_else(found: list[int], keep: int, best: int | None) -> None:
    paths = [Path(f"step-{step}") for step in found]
    stay = {step_of(path) for path in kept(paths, keep=keep, best=best)}
    assert stay == set(found[:keep]) | ({best} & set(found))


def test_removing_leaves_the_others(tmp_path: Path) -> None:
    paths = [save(tmp_path, step, {"w": torch.zeros(1)}, {}).path for step in (1, 2, 10)]
    assert checkpoints(tmp_path) == paths[::-1]
    remove(paths[1])
    assert checkpoints(tmp_path) == [paths[2], paths[0]]
    assert sorted(os.listdir(tmp_path)) == ["step-1", "step-10"]


def test_a_snapshot_is_a_copy_and_its_memory_is_used_again() -> None:
    weight = torch.zeros(3)
    snapshots = Snapshots()
    content = snapshots.take({"w": weight}, {"momentum": weight})
    weight += 1
    assert content.tensors["w"].tolist() == content.tensors["state/momentum"].tolist() == [0, 0, 0]
    again = snapshots.take({"w": weight}, {"momentum": weight})
    assert again.tensors["w"].tolist() == [1, 1, 1]
    assert again.tensors["w"].data_ptr() == content.tensors["w"].data_ptr()
    assert snapshots.take({"w": torch.zeros(4)}, {}).tensors["w"].shape == (4,)


def test_the_writer_saves_what_was_there_at_the_call(tmp_path: Path) -> None:
    weight = torch.zeros(3)
    writer = CheckpointWriter(tmp_path)
    for step in (1, 2):
        weight += 1
        writer.save(step, {"w": weight}, {"step": step})
    weight += 1
    last = writer.wait(required=True)
    assert last is not None
    assert last.step == 2
    assert not writer.busy
    assert [info.step for info in writer.news()] == [1, 2]
    assert writer.news() == []
    for step in (1, 2):
        weights, state = load(tmp_path / f"step-{step}")
        assert (weights["w"].tolist(), state) == ([float(step)] * 3, {"step": step})


def test_a_write_that_fails_is_counted_and_the_next_one_succeeds(tmp_path: Path) -> None:
    place = tmp_path / "start"
    place.write_text("a file where the directory should be")
    writer = CheckpointWriter(place)
    writer.save(1, {"w": torch.zeros(1)}, {})
    assert writer.wait() is None
    assert (writer.failures, writer.news()) == (1, [])
    with pytest.raises(TrainingError, match=f"step 1 was not written to {place}: .*File exists") as caught:
        writer.wait(required=True)
    assert caught.value.code == ExitCode.VOLUME_IO
    place.unlink()
    writer.save(2, {"w": torch.zeros(1)}, {})
    last = writer.wait(required=True)
    assert last is not None
    assert (last.step, writer.failures, writer.failures_in_row, writer.error) == (2, 1, 0, "")


@pytest.mark.parametrize("where", ["weight", "state"])
def test_what_is_not_finite_is_never_written_and_nothing_is_after_it(tmp_path: Path, where: str) -> None:
    writer = CheckpointWriter(tmp_path)
    weight = {"weight": torch.ones(3), "count": torch.tensor(7)}
    writer.save(1, weight, {"momentum": torch.zeros(3)})
    assert writer.wait(required=True) is not None
    assert writer.unsound == ""
    spoilt = torch.tensor([0.0, math.nan if where == "weight" else -math.inf, 0.0])
    if where == "weight":
        writer.save(2, {**weight, "weight": spoilt}, {"momentum": torch.zeros(3)})
    else:
        writer.save(2, weight, {"momentum": spoilt})
    writer.wait()
    name = "weight" if where == "weight" else "state/momentum"
    assert writer.unsound == f"{name} holds numbers that are not finite at step 2, which was not written"
    writer.save(3, weight, {"momentum": torch.zeros(3)})
    last = writer.wait()
    assert last is not None
    assert (last.step, writer.failures, os.listdir(tmp_path)) == (1, 0, ["step-1"])


def test_a_superseded_writer_tells_the_training_at_its_next_call(tmp_path: Path) -> None:
    newer = False

    def fence() -> None:
        if newer:
            raise TrainingError(ExitCode.LOST_PEER, "superseded by start 2")

    writer = CheckpointWriter(tmp_path, fence=fence)
    writer.save(1, {"w": torch.zeros(1)}, {})
    assert writer.wait() is not None
    newer = True
    writer.save(2, {"w": torch.zeros(1)}, {})
    writer.close()
    for call in (lambda: writer.save(3, {}, {}), writer.news, writer.wait):
        with pytest.raises(TrainingError, match="superseded by start 2"):
            call()
    assert os.listdir(tmp_path) == ["step-1"]


def test_old_checkpoints_that_cannot_be_removed_do_not_fail_the_new_one(tmp_path: Path) -> None:
    def tidy(info: object, best: int | None) -> None:
        raise OSError(5, "Input/output error")

    writer = CheckpointWriter(tmp_path, tidy=tidy)
    writer.save(1, {"w": torch.zeros(1)}, {})
    assert writer.wait(required=True) is not None
    assert "Input/output error" in writer.tidy_error
