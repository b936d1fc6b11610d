"""Carries out a decision: the order of the steps is the same wherever the attempts run."""

from __future__ import annotations

from typing import Protocol

from controller.api import Experiment, Status
from controller.reconcile import Decision, Event, JobRef


class Backend(Protocol):
    """Where attempts run."""

    def write(self, experiment: Experiment, status: Status) -> Experiment:
        """Writes the status if the experiment is still the one that was looked at, and returns it as it is now.

        Raises:
            Exception: it is not, or can't be written. Nothing else is done then.
        """

    def delete(self, experiment: Experiment, job: JobRef) -> None:
        """Deletes a job with its pods; one that is gone already is no error."""

    def create(self, experiment: Experiment, attempt: int, avoid_node: str | None) -> None:
        """Creates the job of a claimed attempt. What prevents it is for the next look to see."""

    def tell(self, experiment: Experiment, event: Event) -> None:
        """Tells an event; one that can't be told is lost."""


def carry_out(decision: Decision, experiment: Experiment, backend: Backend) -> Experiment:
    """Does what was decided; returns the experiment as it is now."""
    if decision.status != experiment.status:
        experiment = backend.write(experiment, decision.status)
    for job in decision.delete:
        backend.delete(experiment, job)
    if decision.create is not None:
        backend.create(experiment, decision.create, decision.avoid_node)
    for event in decision.events:
        backend.tell(experiment, event)
    return experiment
