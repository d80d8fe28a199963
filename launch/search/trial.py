"""One trial on a worker of Ray, which is kept for the trials after it: a run that reports.

Everything that trials share is read once per process: rows, the memory map of the images, digests.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlfd_dist.config import JobConfig
from dlfd_dist.errors import DlfdError
from dlfd_dist.locks import locked
from dlfd_dist.objectives import OBJECTIVES
from dlfd_dist.run_dir import write_json, write_text

from ..execute.task import data_reader
from .pinning import pinned
from .point import Point, Shared, trial_config
from .reports import ORIGIN, UNKNOWN, WORST, Report, Reports

if TYPE_CHECKING:
    from dlfd_dist.data.loaders import ResolvedData
    from dlfd_dist.jobs import Prepared
    from dlfd_dist.runtime.env import RankInfo

    from .plan import SearchPlan


def resolved(config: JobConfig) -> ResolvedData:
    return data_reader().data(config.data, config.drawn_forget)


def reference_of(plan: SearchPlan) -> dict[str, float] | None:
    """Return what the Retrained model is like on val, where trials are held against it."""
    if not OBJECTIVES[plan.search.objective].needs_retrained:
        return None
    from dlfd_dist.jobs.trial import figures_of

    assert plan.config.reference is not None, "a plan of such an objective has a reference"
    return figures_of(plan.config, resolved(plan.config), plan.config.reference)


def untouched_value(plan: SearchPlan, reference: Mapping[str, float] | None) -> float:
    """Return what the model that the trials start from is worth before their first step."""
    from dlfd_dist.jobs.trial import figures_of

    assert plan.config.checkpoint is not None, "an unlearning run starts from a checkpoint"
    figures = figures_of(plan.config, resolved(plan.config), plan.config.checkpoint)
    return OBJECTIVES[plan.search.objective].value(figures, reference)


def run_rank(
    point: Point, shared: Shared, report: Report, trial_id: str = "",
    checkpoint: Path | None = None, info: RankInfo | None = None,
) -> None:  # fmt: skip
    """Run a trial on this rank, from its start or from a checkpoint.

    A run that cannot be, or whose loss is no number, reports the worst figures and ends well.
    """
    from dlfd_dist.runtime.allocator import keep_freed_memory
    from dlfd_dist.runtime.env import rank_info
    from dlfd_dist.runtime.init import process_group
    from dlfd_dist.runtime.preemption import StoppedEarly

    keep_freed_memory()
    logging.getLogger("dlfd_dist").setLevel(logging.INFO)
    logging.getLogger("dlfd_dist").propagate = False
    search = shared.search
    with contextlib.ExitStack() as stack:
        if search.pin:
            stack.enter_context(pinned(search.cpus_per_trial))
        info = info or rank_info()
        collectives = stack.enter_context(process_group(shared.config.runtime, info))
        try:
            prepared = _prepare(point, shared, trial_id, checkpoint, collectives)
            if info.is_main:
                path = prepared.run_dir.path
                path.parent.mkdir(parents=True, exist_ok=True)
                # Another trial with the same settings runs first; its result is ours as well.
                lock = path.parent / f".{path.name}.lock"
                stack.enter_context(locked(lock, wait_s=math.inf))
            collectives.barrier()
            _run(prepared, shared, point, collectives, report, trial_id)
        except StoppedEarly:
            raise
        except DlfdError as err:
            worst = {**WORST, "objective": OBJECTIVES[search.objective].worst}
            report({**UNKNOWN, **worst, "failed": str(err)})


def _prepare(
    point: Point, shared: Shared, trial_id: str, checkpoint: Path | None, collectives: Any
) -> Prepared:
    from dlfd_dist.jobs.context import input_digests
    from dlfd_dist.jobs.trial import prepare_trial

    config = trial_config(shared, point)
    data = resolved(config)
    inputs = input_digests(config, data)
    origin = _origin(checkpoint, trial_id, point) if checkpoint else {"lineage": []}
    if shared.save_every is not None:
        # Trials of a population that begin alike are different runs all the same.
        text = json.dumps([trial_id, origin["lineage"]], sort_keys=True)
        inputs = {**inputs, "lineage": hashlib.sha256(text.encode()).hexdigest()}
    prepared = prepare_trial(config, data, inputs, collectives.world_size)
    if checkpoint is not None and collectives.is_main:
        _begin_from(prepared, checkpoint, origin)
    return prepared


def _origin(checkpoint: Path, trial_id: str, point: Point) -> dict[str, Any]:
    """Return the step of a checkpoint, and its lineage: the settings before those of this trial,
    each with the step up to which they held."""
    origin = json.loads((checkpoint / ORIGIN).read_text(encoding="utf-8"))
    if (origin["trial"], origin["settings"]) == (trial_id, point.settings):
        return origin
    until = {"step": origin["step"], "settings": origin["settings"]}
    return {**origin, "lineage": [*origin["lineage"], until]}


def _begin_from(prepared: Prepared, checkpoint: Path, origin: Mapping[str, Any]) -> None:
    """Put a checkpoint and the events up to it into a run that has none of its own."""
    run_dir = prepared.run_dir
    if run_dir.finished() or (run_dir.checkpoints / "latest").is_file():
        return
    prepared.claim()
    name = f"step_{origin['step']}"
    shutil.copytree(checkpoint / name, run_dir.checkpoints / name, dirs_exist_ok=True)
    shutil.copy(checkpoint / run_dir.metrics.name, run_dir.metrics)
    write_json(run_dir.path / "lineage.json", origin["lineage"])
    write_text(run_dir.checkpoints / "latest", name + "\n")


def _run(
    prepared: Prepared, shared: Shared, point: Point, collectives: Any, report: Report, trial: str
) -> None:
    from dlfd_dist.jobs.trial import run_trial
    from dlfd_dist.runtime.preemption import stop_flag

    reports = Reports(prepared, shared, point, report, trial)
    if shared.save_every is None:
        reports.agreed(collectives, reports.again)
    with stop_flag() as stop:
        result = run_trial(prepared, collectives, stop, reports.probe)
    if collectives.is_main:
        reports.result(result)
