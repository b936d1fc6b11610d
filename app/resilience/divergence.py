"""When a training is lost. Pure: what the ranks agreed on in, a line out."""

from __future__ import annotations

from app.resilience.report import Verdict

NONFINITE_LIMIT = 10
"""So many steps in a row with a non-finite loss: nothing but luck would bring a finite one again."""

SKIPPED_LIMIT = 50
"""So many optimizer steps in a row that the loss scaler left out: the weights don't change any more. A dynamic scale
falls below 1 before that unless it had grown beyond 2^50; a static one stays as it is."""

SMALLEST_SCALE = 1.0
"""A dynamic loss scale below it would shrink gradients that overflow even unscaled."""


def diverged(verdict: Verdict, log_interval: int) -> str:
    """Why the training is lost, as the beginning of a sentence; "" where it is not.

    Args:
        verdict: of all ranks.
        log_interval: steps between two looks at the device, for the message.
    """
    worst = max(verdict.nonfinite_in_row)
    if worst >= NONFINITE_LIMIT:
        return f"the loss was not finite {_steps(worst, verdict, log_interval)}{_where(verdict.nonfinite_in_row)}"
    if verdict.gradient_scale < SMALLEST_SCALE:
        return (
            f"the loss scale fell to {verdict.gradient_scale:g}, below {SMALLEST_SCALE:g}, "
            f"by step {verdict.looked_at} (looked at every {log_interval}, --log_interval)"
        )
    if verdict.skipped_in_row >= SKIPPED_LIMIT:
        return (
            f"gradients overflowed at a loss scale of {verdict.gradient_scale:g}, and the weights stayed as they were, "
            f"{_steps(verdict.skipped_in_row, verdict, log_interval)}"
        )
    return ""


def message(why: str, kept: object, learning_rate: float) -> str:
    """The line that ends a lost training, with the way out.

    Args:
        why: from `diverged`, or another reason.
        kept: path of the newest checkpoint, which is sound; None: there is none.
        learning_rate: the run's.
    """
    mend = f"a lower --lr than {learning_rate:g} or a longer --warm_up"
    if kept is None:
        return f"diverged: {why}; no checkpoint was written before: start again with {mend}"
    return (
        f"diverged: {why}; the checkpoint before it is kept: {kept}; to go on from there give {mend}, "
        "--resume with that path, and another --checkpoint_dir"
    )


def _steps(row: int, verdict: Verdict, log_interval: int) -> str:
    first = verdict.looked_at - row + 1
    return f"in {row} steps in a row, {first} to {verdict.looked_at} (looked at every {log_interval}, --log_interval)"


def _where(rows: tuple[int, ...]) -> str:
    """Which ranks, where it was not all: one alone may have a broken device."""
    named = [str(rank) for rank, row in enumerate(rows) if row >= NONFINITE_LIMIT]
    return "" if len(named) == len(rows) else f" on rank {', '.join(named[:8])} of {len(rows)}"
