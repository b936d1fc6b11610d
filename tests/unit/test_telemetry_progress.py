"""The /progress document and the termination message."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.resilience.heartbeat import Beat, Phase
from app.telemetry.identity import Identity
from app.telemetry.progress import document, encode, termination

WHO = Identity("team", "resnet50", "uid", 3, "resnet50-3-worker-0")
KEYS = [
    "namespace", "experiment", "attempt", "pod", "phase", "epoch", "epochs", "step", "steps", "loss", "loss_reason",
    "learning_rate", "top1", "top5", "best_top1", "images_per_second", "eta_seconds", "straggler_rank",
    "straggler_ratio", "last_checkpoint", "exported", "export_error", "updated",
]  # fmt: skip


def test_document_of_a_run_under_way() -> None:
    beat = Beat(
        phase=Phase.TRAIN, epoch=2, epochs=8, step=30, steps=90, loss=1.5, learning_rate=0.1, top1=0.9, top5=0.99,
        best_top1=0.95, images_per_second=1125.0, eta_seconds=60.0, checkpoint_step=20, updated_at=5.0,
        straggler_rank=3, straggler_ratio=1.5,
    )  # fmt: skip
    result = document(WHO, beat, since=1.0)
    assert list(result) == KEYS
    assert result == {
        "namespace": "team", "experiment": "resnet50", "attempt": 3, "pod": "resnet50-3-worker-0", "phase": "train",
        "epoch": 2, "epochs": 8, "step": 30, "steps": 90, "loss": 1.5, "loss_reason": None, "learning_rate": 0.1,
        "top1": 0.9, "top5": 0.99, "best_top1": 0.95, "images_per_second": 1125.0, "eta_seconds": 60.0,
        "straggler_rank": 3, "straggler_ratio": 1.5, "last_checkpoint": 20, "exported": None,
        "export_error": None, "updated": 5.0,
    }  # fmt: skip


def test_document_before_the_first_beat() -> None:
    result = document(WHO, None, since=7.0)
    assert list(result) == KEYS
    assert (result["phase"], result["loss"], result["loss_reason"]) == ("start", None, None)
    assert (result["last_checkpoint"], result["updated"]) == (None, 7.0)
    assert (result["straggler_rank"], result["straggler_ratio"]) == (None, None)


@pytest.mark.parametrize(
    ("loss", "nonfinite", "reason"),
    [(math.inf, 0, "non-finite"), (math.nan, 2, "non-finite"), (math.nan, 0, None), (0.5, 2, None)],
)
def test_loss_that_is_null_says_why(loss: float, nonfinite: int, reason: str | None) -> None:
    result = document(WHO, Beat(loss=loss, nonfinite_steps=nonfinite), since=0)
    assert result["loss_reason"] == reason
    assert (result["loss"] is None) == (not math.isfinite(loss))


TEXT = st.text(st.characters(codec=None), max_size=60).map(lambda text: text * 120)


@given(TEXT, TEXT, TEXT, st.one_of(st.none(), TEXT))
def test_termination_message_fits_and_is_json(message: str, exception: str, error: str, path: str | None) -> None:
    progress = document(WHO, Beat(loss=math.nan), since=0, exported=path, export_error=error)
    raw = termination(progress, code=145, reason="Unclassified", message=message, exception=exception)
    assert len(raw) <= 4096
    result = json.loads(raw)
    assert list(result) == [*KEYS, "exit_code", "reason", "message", "exception"]
    assert (result["exit_code"], result["reason"]) == (145, "Unclassified")
    kept = result["message"].removesuffix("…")
    assert message.encode("utf-8", "replace").decode().startswith(kept)
    assert result["exported"] in (path and path.encode("utf-8", "replace").decode(), None)


def test_message_that_fits_is_whole_and_a_long_one_keeps_its_beginning() -> None:
    progress = document(WHO, None, since=0)
    whole = json.loads(termination(progress, code=64, reason="BadOption", message="--lr: é", exception=""))
    assert whole["message"] == "--lr: é"
    raw = termination(progress, code=64, reason="BadOption", message="é" * 5000, exception="ValueError")
    cut = json.loads(raw)
    assert cut["message"].endswith("é…")
    assert cut["exception"] == "ValueError"
    assert 4096 - 4 < len(raw) <= 4096


def test_document_is_sent_as_plain_json() -> None:
    assert json.loads(encode(document(WHO, Beat(top1=math.nan), since=0)))["top1"] is None
