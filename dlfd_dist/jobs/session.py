"""What the loops of training and unlearning share: resume, checkpoints, events, stopping, time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from ..methods import Updater
from ..models import Classifier
from ..progress import Progress
from ..run_dir import append_event, read_events, truncate_events
from ..runtime.checkpoint import (
    Checkpoint,
    State,
    copy_state,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizers,
    save_checkpoint,
)
from ..runtime.energy import EnergyMeter, added
from ..runtime.phases import phase
from ..runtime.preemption import StoppedEarly
from .context import Job

logger = logging.getLogger(__name__)


class Session:
    """One start of a run, going on from the last checkpoint if there is one.

    Attributes
    ----------
    first : steps that were done before this start
    values, tensors : those of the loop, as the last checkpoint held them; empty at first
    best, best_values : weights of the best model so far and what was measured of it
    facts : what the loop adds to the result; a checkpoint holds it
    """

    def __init__(self, job: Job, model: Classifier, updater: Updater, num_steps: int, title: str):
        self.job = job
        self.model = model
        self.updater = updater
        self.num_steps = num_steps
        self.best: State = {}
        self.best_values: dict[str, Any] = {}
        self.values: dict[str, Any] = {}
        self.tensors: State = {}
        self.facts: dict[str, Any] = {}
        self.first = 0
        self._seconds_before = 0.0
        self._joules_before: float | None = 0.0
        self._resume()
        self.start = time.monotonic()
        self._meter = EnergyMeter(job.collectives.device)
        self.progress = Progress(
            title, num_steps, first=self.first,
            every_s=job.config.run.log_every_s, enabled=job.collectives.is_main,
        )  # fmt: skip

    @property
    def seconds(self) -> float:
        """Seconds of the loop over all starts of this run."""
        return self._seconds_before + time.monotonic() - self.start

    def energy_joules(self) -> float | None:
        """Return what the devices of all ranks used in the loop, over all starts of this run.

        None where nobody measures. Every rank calls it.
        """
        return added(self._joules_before, self._meter.of_all_ranks(self.job.collectives))

    def _resume(self) -> None:
        saved = load_checkpoint(self.job.run_dir.checkpoints)
        if saved is not None:
            self.model.load_state_dict(saved.model)
            restore_optimizers(self.updater.optimizers, saved.optimizer)
            self.first, self.best = saved.step, saved.best
            self.values, self.tensors = saved.values["loop"], saved.loop
            self.best_values = saved.values["best"]
            self.facts = saved.values.get("facts", {})
            self._seconds_before = saved.values["seconds"]
            self._joules_before = saved.values.get("energy_joules")
            logger.info("going on from step %d of %d", self.first, self.num_steps)
        if self.job.collectives.is_main:
            # Without a checkpoint even the probe before the first step is made again.
            last_kept = -1 if saved is None else self.first
            truncate_events(self.job.run_dir.metrics, last_kept)
        if self.job.tracking is not None:
            self.job.tracking.begin(read_events(self.job.run_dir.metrics))

    def record(self, event: str, step: int, **values: Any) -> None:
        """Append an event to metrics.jsonl, and tell it to the trackers."""
        line = {"event": event, "step": step, **values}
        if self.job.collectives.is_main:
            append_event(self.job.run_dir.metrics, line)
        if self.job.tracking is not None:
            self.job.tracking.event(line)

    def keep_best(self, **values: Any) -> None:
        """Take the model as it is now for the best one."""
        with phase("probe", whole=True):
            self.best = copy_state(self.model.state_dict())
        self.best_values = values

    def end_step(
        self,
        step: int,
        *,
        stop: bool,
        loop: dict[str, Any],
        tensors: Callable[[], State] = dict,
    ) -> None:
        """Save when it is time to; end the run on all ranks when one was asked to stop.

        Parameters
        ----------
        step : steps done
        loop : plain values the loop wants back when it resumes
        tensors : returns the tensors it wants back; called on every rank when there is a save
        """
        due = step % self.job.config.run.checkpoint_every == 0 and step < self.num_steps
        if due or stop:
            with phase("checkpoint"):
                self.save(step, loop, tensors())
        if stop:
            self.progress.close()
            # No rank may leave, and be reported lost, before the checkpoint is whole.
            self.job.collectives.barrier()
            raise StoppedEarly(
                f"Stopped as asked after step {step} of {self.num_steps}; the same command goes on "
                f"from there ({self.job.run_dir.path})."
            )

    def save(self, step: int, loop: dict[str, Any], tensors: State) -> None:
        """Write a checkpoint; every rank calls it."""
        joules = self.energy_joules()
        if not self.job.collectives.is_main:
            return
        values = {
            "loop": loop, "best": self.best_values, "seconds": self.seconds,
            "energy_joules": joules, "facts": self.facts,
        }  # fmt: skip
        checkpoint = Checkpoint(
            step,
            copy_state(self.model.state_dict()),
            optimizer_tensors(self.updater.optimizers),
            self.best,
            copy_state(tensors),
            values,
        )
        keep = self.job.config.run.keep_checkpoints
        save_checkpoint(self.job.run_dir.checkpoints, checkpoint, keep=keep)

    def deliver_best(self) -> None:
        """Put the best weights into the model, where any were kept."""
        if self.best:
            self.model.load_state_dict(self.best)
