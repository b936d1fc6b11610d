"""What a person sees of a run, on a terminal and in a pipe."""

import io

import pytest
from rich.console import Console

from controller.api import Status, load
from controller.display import LiveDisplay, PlainDisplay, View, display_for, duration, summary
from controller.progress import Progress
from tests.unit.documents import DIGITS


def view(epoch: int = 3, step: int = 30, attempt: int = 1, stopping: bool = False) -> View:
    status = Status(phase="Running", attempt=1, message="attempt 1: train")
    newest = Progress(
        namespace="local", experiment="digits", attempt=attempt, phase="train", epoch=epoch, epochs=8, step=step,
        steps=88, loss=0.51234, top1=0.9751, images_per_second=1234.4, eta_seconds=75.2, last_checkpoint=22,
    )  # fmt: skip
    return View(load(DIGITS, "x").model_copy(update={"status": status}), newest, stopping)


def test_a_moment_has_all_its_numbers_with_units():
    assert summary(view()) == [
        "Running (train), attempt 1", "epoch 3/8", "step 30/88", "1 234 img/s", "loss 0.512", "top-1 97.51 %",
        "1 min 15 s left", "checkpoint at step 22",
    ]  # fmt: skip


def test_numbers_of_an_earlier_attempt_are_not_shown_as_this_ones():
    assert summary(view(attempt=0)) == ["Running", "attempt 1: train"]


def test_a_pipe_gets_one_line_an_epoch_and_no_control_codes():
    file = io.StringIO()
    display = display_for(Console(file=file, width=60))
    assert isinstance(display, PlainDisplay)
    display.block("title", [("model", "resnet18"), ("[bold]x", "[/nonsense]")])
    for step in range(30, 34):
        display.show(view(step=step))
    display.show(view(epoch=4, step=34))
    display.note("AttemptStarting: attempt 1 begins", warning=True)
    display.close()
    lines = file.getvalue().splitlines()
    assert lines[:3] == ["title", "  model    resnet18", "  [bold]x  [/nonsense]"]
    assert [("3/8" in line, "4/8" in line) for line in lines[3:5]] == [(True, False), (False, True)]
    assert lines[5].endswith("warning: AttemptStarting: attempt 1 begins")
    assert len(lines) == 6
    assert "\x1b" not in file.getvalue()


def test_a_terminal_gets_a_live_view_that_is_gone_at_the_end():
    file = io.StringIO()
    display = display_for(Console(file=file, force_terminal=True, width=100, color_system=None))
    assert isinstance(display, LiveDisplay)
    display.show(view())
    display.note("[bold] is shown as it is")
    display.close()
    shown = file.getvalue()
    assert "epoch 3/8" in shown
    assert "34%" in shown
    assert "[bold] is shown as it is" in shown
    assert shown.rindex("\x1b[2K") > shown.rindex("epoch 3/8")


def test_while_it_stops_it_says_so():
    assert view(stopping=True).phase == "Stopping"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (11_520, "3 h 12 min"),
        (180_000, "2 d 2 h"),
    ],
)
def test_durations_have_their_two_largest_units(seconds: float, text: str):
    assert duration(seconds) == text
