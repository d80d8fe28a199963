"""One trial on a worker of Ray, which is kept for the trials after it: a run that reports.

Everything that trials share is read once per process: rows, the memory map of the images, digests.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlfd_dist.config import JobConfig
from dlfd_dist.errors import DlfdError
from dlfd_dist.locks import locked
from dlfd_dist.objectives import OBJECTIVES, on_val
from dlfd_dist.run_dir import RunDir, read_events, write_json, write_text

from ..plan.compare import with_settings
from .pinning import pinned

if TYPE_CHECKING:
    from dlfd_dist.data.loaders import ResolvedData
    from dlfd_dist.jobs import Prepared
    from dlfd_dist.jobs.session import Session
    from dlfd_dist.methods import Probe
    from dlfd_dist.runtime.collectives import Collectives
    from dlfd_dist.runtime.env import RankInfo

    from .plan import SearchPlan

Report = Callable[..., None]
"""Hands figures, and a folder as checkpoint, to Tune; ends the trial by raising."""
ORIGIN = "origin.json"
WORST = {
    "nomus": 0.0, "accuracy": 0.0, "forgetting_score": 0.5, "nomus_se": 0.0,
    "forgetting_score_se": 0.0,
}  # fmt: skip
"""What a trial that failed reports beside the objective, so that nothing like it is suggested."""


@dataclass(frozen=True)
class Shared:
    """What all trials of a search have in common."""

    config: JobConfig
    """With the method's own settings."""
    search: Any
    """SearchConfig"""
    reference: dict[str, float] | None = None
    """What the Retrained model is like, where trials are held against it."""
    save_every: int | None = None
    """Steps between checkpoints that other trials may go on from (pbt)."""


@dataclass(frozen=True)
class Point:
    """What sets one trial apart."""

    settings: dict[str, Any]
    seed: int | None = None
    """Seed of a replicate; None: the seed of the search."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Point:
        held = config.get("point", config)
        return cls(dict(held["settings"]), held.get("seed"))


@dataclass(frozen=True)
class Start:
    """Where a trial begins that goes on from another's checkpoint (pbt)."""

    lineage: list[dict[str, Any]]
    """The settings before, each with the step up to which they held."""
    folder: Path
    """The checkpoint and its events."""
    step: int


_kept: dict[str, tuple[ResolvedData, dict[str, str]]] = {}


def resolved(config: JobConfig) -> tuple[ResolvedData, dict[str, str]]:
    """Return data and digests of a configuration, read once in this process."""
    from dlfd_dist.data.loaders import resolve_data
    from dlfd_dist.jobs.context import input_digests

    key = json.dumps([asdict(config.data), asdict(config.drawn_forget), config.checkpoint])
    if key not in _kept:
        data = resolve_data(config.data, config.drawn_forget)
        _kept[key] = (data, input_digests(replace(config, reference=None), data))
    return _kept[key]


def trial_config(shared: Shared, point: Point) -> JobConfig:
    """Return the configuration of the run that a trial is."""
    config = with_settings(shared.config, point.settings)
    config = replace(config, reference=None)
    if shared.save_every is not None:
        run = replace(config.run, checkpoint_every=shared.save_every)
        every = config.method.probe_every or shared.save_every
        method = replace(config.method, probe_every=every)
        config = replace(config, run=run, method=method)
    if point.seed is not None:
        root = str(Path(config.run.root).parent / "replicates")
        config = replace(config, seed=point.seed, run=replace(config.run, root=root))
    return config


def identity_of(
    shared: Shared, point: Point, inputs: Mapping[str, str]
) -> tuple[JobConfig, dict[str, str], str, RunDir]:
    """Return the run that a trial is: configuration, inputs, signature and directory."""
    from dlfd_dist.jobs.trial import trial_identity

    config = trial_config(shared, point)
    return config, *trial_identity(config, inputs)


def reference_of(plan: SearchPlan) -> dict[str, float] | None:
    """Return what the Retrained model is like on val, where trials are held against it."""
    if not OBJECTIVES[plan.search.objective].needs_retrained:
        return None
    from dlfd_dist.jobs.trial import figures_of

    assert plan.config.reference is not None, "a plan of such an objective has a reference"
    return figures_of(plan.config, resolved(plan.config)[0], plan.config.reference)


def untouched_value(plan: SearchPlan, reference: Mapping[str, float] | None) -> float:
    """Return what the model that the trials start from is worth before their first step."""
    from dlfd_dist.jobs.trial import figures_of

    assert plan.config.checkpoint is not None, "an unlearning run starts from a checkpoint"
    figures = figures_of(plan.config, resolved(plan.config)[0], plan.config.checkpoint)
    return OBJECTIVES[plan.search.objective].value(figures, reference)


def run_rank(
    point: Point, shared: Shared, report: Report, trial_id: str = "", held: Path | None = None,
    info: RankInfo | None = None,
) -> None:  # fmt: skip
    """Run a trial on this rank, from its start or from the checkpoint in `held`.

    A run that cannot be, or whose loss is no number, reports the worst figures and ends well.
    """
    from dlfd_dist.runtime.env import rank_info
    from dlfd_dist.runtime.init import process_group
    from dlfd_dist.runtime.preemption import StoppedEarly

    logging.getLogger("dlfd_dist").setLevel(logging.INFO)
    logging.getLogger("dlfd_dist").propagate = False
    search = shared.search
    with contextlib.ExitStack() as stack:
        if search.pin:
            stack.enter_context(pinned(search.cpus_per_trial))
        info = info or rank_info()
        collectives = stack.enter_context(process_group(shared.config.runtime, info))
        try:
            prepared = _prepare(point, shared, trial_id, held, collectives)
            if info.is_main:
                stack.enter_context(_alone(prepared.run_dir))
            collectives.barrier()
            _run(prepared, shared, point, collectives, report, trial_id)
        except StoppedEarly:
            raise
        except DlfdError as err:
            worst = {**WORST, "objective": OBJECTIVES[search.objective].worst}
            report({**_figures({}), **worst, "failed": str(err), "finished": False})


def _figures(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what every report holds; Tune wants the same names in all of them."""
    return {
        "step": 0, "seconds": 0.0, "device_seconds": 0.0, "num_steps": 0, "failed": "",
        "finished": False, "run_dir": "", "forget_accuracy": 0.0, "mia_auc": 0.5,
        "retain_accuracy": -1.0, "left_as_is": False, **values,
    }  # fmt: skip


def _prepare(
    point: Point, shared: Shared, trial_id: str, held: Path | None, collectives: Any
) -> Prepared:
    from dlfd_dist.jobs.trial import prepare_trial

    config = trial_config(shared, point)
    data, inputs = resolved(config)
    lineage, start = [], None
    if held is not None:
        origin = json.loads((held / ORIGIN).read_text(encoding="utf-8"))
        lineage = origin["lineage"]
        is_own = origin["trial"] == trial_id and origin["settings"] == point.settings
        if not is_own:
            until = {"step": origin["step"], "settings": origin["settings"]}
            lineage = [*lineage, until]
        start = Start(lineage, held, origin["step"])
    if shared.save_every is not None:
        # Trials of a population that begin alike are different runs all the same.
        text = json.dumps([trial_id, lineage], sort_keys=True)
        inputs = {**inputs, "lineage": hashlib.sha256(text.encode()).hexdigest()}
    prepared = prepare_trial(config, data, inputs, collectives.world_size)
    if start is not None and collectives.is_main:
        _begin_from(prepared, start)
    return prepared


def _begin_from(prepared: Prepared, start: Start) -> None:
    """Put a checkpoint and the events up to it into a run that has none of its own."""
    run_dir = prepared.run_dir
    if run_dir.finished() or (run_dir.checkpoints / "latest").is_file():
        return
    prepared.claim()
    name = f"step_{start.step}"
    shutil.copytree(start.folder / name, run_dir.checkpoints / name, dirs_exist_ok=True)
    shutil.copy(start.folder / run_dir.metrics.name, run_dir.metrics)
    write_json(run_dir.path / "lineage.json", start.lineage)
    write_text(run_dir.checkpoints / "latest", name + "\n")


@contextlib.contextmanager
def _alone(run_dir: RunDir) -> Iterator[None]:
    """Wait while another trial with the same settings runs; its result is ours as well."""
    run_dir.path.parent.mkdir(parents=True, exist_ok=True)
    with locked(run_dir.path.parent / f".{run_dir.path.name}.lock", wait_s=math.inf):
        yield


def _run(
    prepared: Prepared, shared: Shared, point: Point, collectives: Any, report: Report, trial: str
) -> None:
    from dlfd_dist.jobs.trial import run_trial
    from dlfd_dist.runtime.preemption import stop_flag

    told = _Told(prepared, shared, point, report, trial)
    if shared.save_every is None:
        told.agreed(collectives, told.again)
    with stop_flag() as stop:
        result = run_trial(prepared, collectives, stop, told.probe)
    if collectives.is_main:
        told.result(result)


class _Told:
    """Tells Tune of the probes and of the end of one run."""

    def __init__(
        self, prepared: Prepared, shared: Shared, point: Point, report: Report, trial_id: str
    ):
        self.prepared, self.shared, self.point = prepared, shared, point
        self.report, self.trial_id = report, trial_id

    def agreed(self, collectives: Collectives, tell: Callable[[], None]) -> None:
        """Let the first rank tell; where Tune then ends the trial, all ranks end it together."""
        stopped: SystemExit | None = None
        try:
            if collectives.is_main:
                tell()
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
        """Tell of the probes that an earlier start of the run made and its checkpoint keeps.

        Not of the one at the end: the result tells it, and a scheduler stops whom it sees there.
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
                found = {
                    **event, "accuracy": event["val_accuracy"], "seconds": seconds,
                    "num_steps": planned,
                }  # fmt: skip
                self._tell(found, best, retain.get(event["step"]))

    def probe(self, session: Session, found: Probe) -> None:
        """Hear of a probe; the last one is told with the result, once that is written."""
        from dlfd_dist.jobs.trial import sample_accuracy

        retain = None
        if self.shared.reference:
            retain = sample_accuracy(session)
            session.record("retain_sample", found.step, accuracy=retain)
        if found.step >= session.num_steps:
            return
        figures = {
            "step": found.step, "accuracy": found.val_accuracy, "nomus": found.nomus,
            "forgetting_score": found.forgetting_score, "mia_auc": found.mia_auc,
            "forgetting_score_se": found.forgetting_score_se, "nomus_se": found.nomus_se,
            "forget_accuracy": found.forget_accuracy, "seconds": session.seconds,
            "num_steps": session.num_steps,
        }  # fmt: skip

        def tell() -> None:
            with self._checkpoint(found.step, self.shared.save_every) as folder:
                self._tell(figures, session.best_values.get("value"), retain, folder)

        self.agreed(session.job.collectives, tell)

    def result(self, result: Mapping[str, Any]) -> None:
        """Tell of the delivered model."""
        figures = {
            **on_val(result),
            "step": result["num_steps"], "num_steps": result["num_steps"],
            "seconds": result["wall_seconds"], "finished": True,
            "left_as_is": result["against_original"]["left_as_is"],
        }  # fmt: skip
        self._tell(figures, figures["nomus"], None)

    def _tell(
        self,
        figures: dict[str, Any],
        best: float | None,
        retain: float | None,
        folder: Path | None = None,
    ) -> None:
        told = _figures(
            {
                **{k: v for k, v in figures.items() if k in TOLD},
                "objective": self._objective(figures, best, retain),
                "device_seconds": figures["seconds"] * self.shared.search.workers_per_trial,
                "run_dir": str(self.prepared.run_dir.path),
            }
        )
        self.report(told, folder)

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


TOLD = (
    "step", "num_steps", "seconds", "accuracy", "nomus", "nomus_se", "forgetting_score",
    "forgetting_score_se", "mia_auc", "forget_accuracy", "retain_accuracy", "finished",
    "left_as_is",
)  # fmt: skip


def _steps_kept(run_dir: RunDir) -> float:
    """Return the steps that a new start of the run does not repeat."""
    if run_dir.finished():
        return float("inf")
    latest = run_dir.checkpoints / "latest"
    if not latest.is_file():
        return -1
    return int(latest.read_text(encoding="utf-8").strip().removeprefix("step_"))
