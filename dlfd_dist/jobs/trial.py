"""A trial of a search: an unlearning run that is measured on retain, forget and val, never on test.

Its signature is not that of the same run outside a search, whose result holds figures of test.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..config import JobConfig, signature
from ..data.loaders import ResolvedData
from ..digests import file_digest
from ..methods import methods
from ..models import Classifier, save_weights
from ..objectives import on_val
from ..run_dir import RunDir, write_json
from ..runtime.checkpoint import drop_checkpoints
from ..runtime.collectives import Collectives
from ..runtime.preemption import StopFlag
from ..runtime.seeding import purpose_key, shuffled
from ..trackers import catch_up, check_trackers
from .acted import acted
from .context import Job, Prepared, make_job, matched, open_job
from .evaluation import ATTACK_FIGURES, against_val, peak_memory_mb, run_model, save_samples
from .finish import facts
from .models import model_outline, num_bytes
from .resurfacing import resurface_on_val
from .session import Session
from .unlearn import Observer, unlearn

NOT_MEASURED = (
    "test_accuracy", *ATTACK_FIGURES, "gap_to_retrained", "over_forgetting", "separation",
    "zero_retrain_forgetting", "alike", "without_retrained",
)  # fmt: skip


def prepare_trial(
    config: JobConfig, data: ResolvedData, inputs: Mapping[str, str], world_size: int
) -> Prepared:
    """Return a trial on data that is resolved already; ConfigError for settings that cannot be.

    Parameters
    ----------
    inputs : digests of the data and the checkpoint, and of anything else the trial begins with
    """
    config.validate(world_size)
    check_trackers(config.trackers)
    model = model_outline(config, data)
    methods.get(config.method.name).check(config.method, model)
    known, sign, run_dir = trial_identity(config, inputs)
    data, people = matched(config, data)
    return Prepared(config, data, known, sign, run_dir, people, num_bytes(model))


def trial_identity(
    config: JobConfig, inputs: Mapping[str, str]
) -> tuple[dict[str, str], str, RunDir]:
    """Return what a trial begins with, its signature, and the directory that this gives it."""
    known = {**inputs, "measured": "retain, forget and val"}
    sign = signature(config, known)
    assert config.run.dir is None, "a trial is placed by its signature"
    return known, sign, RunDir(Path(config.run.root) / f"{config.run.name}-{sign}")


def run_trial(
    prepared: Prepared, collectives: Collectives, stop: StopFlag, observe: Observer
) -> dict[str, Any]:
    """Run a trial on this rank, or return the result it already has."""
    with open_job(prepared, collectives) as job:
        if job.run_dir.finished():
            if collectives.is_main:
                catch_up(prepared.config, job.run_dir, list)
            return job.run_dir.read_result()
        result = unlearn(job, stop, observe=observe, end=finish_trial)
        if job.tracking is not None:
            # A page would show figures of test, which a trial does not measure.
            job.tracking.end(result, list)
        return result


def finish_trial(session: Session, *, selected_step: int | None, selection: str) -> dict[str, Any]:
    """Deliver the model of a trial, measure it without the test set, write its result."""
    job = session.job
    if job.collectives.is_main:
        save_weights(session.model, job.run_dir.model)
    parts, figures = measure_on_val(job, session.model)
    result = {
        **dict.fromkeys(NOT_MEASURED),
        **figures,
        "against_original": acted(job, session.model, parts),
        **facts(job),
        "selected_step": selected_step,
        "selection": selection,
        "test_read": "never",
        "num_steps": session.num_steps,
        **session.facts,
        "wall_seconds": session.seconds,
        "device_seconds": session.seconds * job.collectives.world_size,
        "energy_joules": session.energy_joules(),
        "peak_memory_mb": peak_memory_mb(job.collectives),
    }
    if job.collectives.is_main:
        save_samples(job.run_dir, parts, job.data.manifest.identities)
        result["model_sha256"] = file_digest(job.run_dir.model)
        write_json(job.run_dir.result, result)
        drop_checkpoints(job.run_dir.checkpoints)
    job.collectives.barrier()
    return result


def measure_on_val(job: Job, model: Classifier) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return outputs and figures on retain, forget and val."""
    splits, size = job.data.splits, job.config.metrics.eval_batch_size
    ids = {"retain": splits.retain, "forget": splits.forget, "val": splits.val}
    parts = {name: run_model(model, job.batches, rows, size) for name, rows in ids.items()}
    figures: dict[str, Any] = {f"{name}_accuracy": part.accuracy for name, part in parts.items()}
    figures["validation"] = against_val(parts["forget"], parts["val"], job.config, "mia")
    figures["resurfacing"] = resurface_on_val(job, model)
    return parts, figures


def retain_sample(data: ResolvedData) -> np.ndarray:
    """Return retain images, as many as forget and val have, to look at between steps."""
    splits = data.splits
    order = shuffled(splits.retain, 0, purpose_key("retain sample of a search"))
    return np.sort(order[: len(splits.forget) + len(splits.val)])


def figures_of(config: JobConfig, data: ResolvedData, checkpoint: str) -> dict[str, float]:
    """Return what a trained model is like, without the test set: what objectives read.

    `retain_sample_accuracy` is that of the sample which trials look at between their steps.
    """
    data, people = matched(config, data)
    nowhere = RunDir(Path(config.run.root))
    job = make_job(Prepared(config, data, {}, "", nowhere, people), Collectives())
    model = job.model(checkpoint)
    _, figures = measure_on_val(job, model)
    sample = run_model(model, job.batches, retain_sample(data), config.metrics.eval_batch_size)
    return {**on_val(figures), "retain_sample_accuracy": sample.accuracy or 0.0}


def sample_accuracy(session: Session) -> float:
    """Return the accuracy on the retain sample; every rank calls it."""
    job = session.job
    outputs = run_model(
        session.model, job.batches, retain_sample(job.data), job.config.metrics.eval_batch_size
    )
    return outputs.accuracy or 0.0
