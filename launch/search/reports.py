"""The reports of a trial to Tune: figures of probes and of the delivered model."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlfd_dist.objectives import OBJECTIVES, on_val
from dlfd_dist.run_dir import RunDir, read_events, write_json

from .point import Point, Shared

if TYPE_CHECKING:
    from dlfd_dist.jobs import Prepared
    from dlfd_dist.jobs.session import Session
    from dlfd_dist.methods import Probe
    from dlfd_dist.runtime.collectives import Collectives

Report = Callable[..., None]
"""Hands figures, and a folder as checkpoint, to Tune; ends the trial by raising."""
ORIGIN = "origin.json"
WORST = {
    "nomus": 0.0, "accuracy": 0.0, "forgetting_score": 0.5, "nomus_se": 0.0,
    "forgetting_score_se": 0.0,
}  # fmt: skip
"""What a trial that failed reports beside the objective, so that nothing like it is suggested."""
UNKNOWN = {
    "step": 0, "seconds": 0.0, "device_seconds": 0.0, "num_steps": 0, "failed": "",
    "finished": False, "run_dir": "", "forget_accuracy": 0.0, "mia_auc": 0.5,
    "retain_accuracy": -1.0, "left_as_is": False,
}  # fmt: skip
"""What a report holds of a figure that is not known: Tune wants the same names in all of them."""


class Reports:
    """Reports the probes and the end of one run to Tune."""

    def __init__(
        self, prepared: Prepared, shared: Shared, point: Point, report: Report, trial_id: str
    ):
        self.prepared, self.shared, self.point = prepared, shared, point
        self.report, self.trial_id = report, trial_id

    def agreed(self, collectives: Collectives, report: Callable[[], None]) -> None:
        """Let the first rank report; where Tune then ends the trial, all ranks end it together."""
        stopped: SystemExit | None = None
        try:
            if collectives.is_main:
                report()
        except SystemExit as err:
            stopped = err
        if collectives.world_size > 1:
            import torch

            flag = torch.tensor([int(stopped is not None)], device=collectives.device)
            if collectives.all_reduce_max(flag).item() and stopped is None:
                stopped = SystemExit(0)
        if stopped is not None:
            raise stopped

    def again(self) -> None:
        """Report the probes that an earlier start of the run made and its checkpoint keeps.

        The probe at the end is left to the result: a scheduler stops the trials it sees there.
        """
        from dlfd_dist.jobs.plan import num_steps

        run_dir = self.prepared.run_dir
        planned = num_steps(self.prepared.config, self.prepared.data)
        last = min(_steps_kept(run_dir), planned - 1)
        events = read_events(run_dir.metrics)
        retain = {e["step"]: e["accuracy"] for e in events if e["event"] == "retain_sample"}
        seconds, best = 0.0, None
        for event in events:
            if event.get("step", 0) > last:
                break
            seconds = event.get("seconds", seconds)
            if event["event"] == "probe":
                best = max(event["nomus"], best or 0.0) if event["step"] else best
                figures = {
                    **event, "accuracy": event["val_accuracy"], "seconds": seconds,
                    "num_steps": planned,
                }  # fmt: skip
                self._report(figures, best, retain.get(event["step"]))

    def probe(self, session: Session, probe: Probe) -> None:
        """Report a probe; the last probe is reported with the result, once that is written."""
        from dlfd_dist.jobs.trial import sample_accuracy

        retain = None
        if self.shared.reference:
            retain = sample_accuracy(session)
            session.record("retain_sample", probe.step, accuracy=retain)
        if probe.step >= session.num_steps:
            return
        figures = {
            **vars(probe), "accuracy": probe.val_accuracy, "seconds": session.seconds,
            "num_steps": session.num_steps,
        }  # fmt: skip

        def report() -> None:
            with self._checkpoint(probe.step, self.shared.save_every) as folder:
                self._report(figures, session.best_values.get("value"), retain, folder)

        self.agreed(session.job.collectives, report)

    def result(self, result: Mapping[str, Any]) -> None:
        """Report the delivered model."""
        figures = {
            **on_val(result),
            "step": result["num_steps"], "num_steps": result["num_steps"],
            "seconds": result["wall_seconds"], "finished": True,
            "left_as_is": result["against_original"]["left_as_is"],
        }  # fmt: skip
        self._report(figures, figures["nomus"], None)

    def _report(
        self,
        figures: dict[str, Any],
        best: float | None,
        retain: float | None,
        folder: Path | None = None,
    ) -> None:
        values = {
            **UNKNOWN,
            **{k: v for k, v in figures.items() if k in UNKNOWN or k in WORST},
            "objective": self._objective(figures, best, retain),
            "device_seconds": figures["seconds"] * self.shared.search.workers_per_trial,
            "run_dir": str(self.prepared.run_dir.path),
        }
        self.report(values, folder)

    def _objective(
        self, figures: Mapping[str, Any], best: float | None, retain: float | None
    ) -> float:
        """Return the figure that trials are ranked by; NoMUS is that of the model to deliver."""
        objective, reference = OBJECTIVES[self.shared.search.objective], self.shared.reference
        if not objective.needs_retrained:
            is_kept = self.prepared.config.method.select == "nomus" and best is not None
            return float(best) if is_kept and best is not None else objective.value(figures, None)
        named = {**figures, "val_accuracy": figures["accuracy"]}
        if figures.get("finished"):
            return objective.value(named, reference)
        if objective.resurfaces:
            return objective.worst
        name = "retain_sample_accuracy"
        return objective.value({**named, name: retain}, reference, name)

    @contextlib.contextmanager
    def _checkpoint(self, step: int, every: int | None) -> Iterator[Path | None]:
        """Yield a folder with the checkpoint of this step, where other trials may want it."""
        run_dir = self.prepared.run_dir
        saved = run_dir.checkpoints / f"step_{step}"
        if every is None or step == 0 or step % every or not saved.is_dir():
            yield None
            return
        lineage_file = run_dir.path / "lineage.json"
        lineage = json.loads(lineage_file.read_text("utf-8")) if lineage_file.is_file() else []
        with tempfile.TemporaryDirectory(dir=run_dir.path, prefix=".for-tune") as name:
            folder = Path(name)
            shutil.copytree(saved, folder / saved.name, copy_function=os.link)
            shutil.copy(run_dir.metrics, folder / run_dir.metrics.name)
            origin = {
                "trial": self.trial_id, "settings": self.point.settings, "step": step,
                "lineage": lineage,
            }  # fmt: skip
            write_json(folder / ORIGIN, origin)
            yield folder


def _steps_kept(run_dir: RunDir) -> float:
    """Return the steps that a new start of the run does not repeat."""
    if run_dir.finished():
        return float("inf")
    latest = run_dir.checkpoints / "latest"
    if not latest.is_file():
        return -1
    return int(latest.read_text(encoding="utf-8").strip().removeprefix("step_"))
