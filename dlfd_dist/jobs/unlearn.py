"""Unlearning: a method's steps over the retain set, probed, selected on val, evaluated."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import torch

from ..config import MethodConfig
from ..methods import MethodContext, Probe, StepBatch, UnlearningMethod, Updater, methods
from ..models import Classifier
from ..runtime.preemption import StopFlag
from ..runtime.sampler import EpochSampler, Step
from ..runtime.seeding import purpose_key
from .context import Job
from .evaluation import probe
from .finish import finish
from .session import Session

logger = logging.getLogger(__name__)


def unlearn(job: Job, stop: StopFlag) -> dict[str, Any]:
    """Run a method from the original checkpoint to a delivered model; return the result."""
    cfg, seed = job.config.method, job.config.seed
    build = methods.get(cfg.name)
    shuffle = getattr(build, "shuffle", True)
    retain, forget = (
        EpochSampler(
            ids, batch_size=cfg.global_batch_size, seed=seed, purpose=purpose, shuffle=shuffle
        )
        for ids, purpose in (
            (job.data.splits.retain, "retain order"),
            (job.data.splits.forget, "forget order"),
        )
    )
    num_steps = min(cfg.epochs * retain.steps_per_epoch, cfg.max_steps or 10**12)
    model = job.model(job.config.checkpoint)
    updater = Updater(model, cfg, collectives=job.collectives)
    method = build(_context(job, model, updater, num_steps))
    session = Session(job, model, updater, num_steps, cfg.name)
    if session.first:
        method.load_state_dict(session.values["method"])
    elif method.initial_probe:
        _probe(session, method, 0)
    for step, forget_step in _pairs(retain, forget, session.first, num_steps, method):
        lr = updater.set_epoch(step.epoch)
        numbers = method.step(_batch(job, step, forget_step), stop=stop.requested)
        done = step.index + 1
        _log(session, done, len(step.ids), numbers, lr)
        if _probe_due(cfg, done, num_steps):
            _probe(session, method, done)
        session.end_step(done, stop=numbers["stop"] > 0, loop={"method": method.state_dict()})
    session.progress.close()
    session.deliver_best()
    return finish(
        session,
        selected_step=session.best_values.get("step", num_steps),
        selection=_selection(session, cfg),
    )


def _context(job: Job, model: Classifier, updater: Updater, num_steps: int) -> MethodContext:
    return MethodContext(
        job.config, model, updater, job.collectives, num_steps,
        job.batches.pixel_range, job.batches.to_uint8, job.run_dir.synthesis,
    )  # fmt: skip


def _pairs(
    retain: EpochSampler, forget: EpochSampler, first: int, stop: int, method: UnlearningMethod
) -> Iterator[tuple[Step, Step]]:
    """Yield the steps first..stop-1; the forget set starts again as often as needed."""
    pairs = zip(retain.steps(first, stop), forget.steps(first, stop), strict=True)
    if not method.equal_batches:
        return pairs
    return (pair for pair in pairs if len(pair[0].ids) == len(pair[1].ids))


def _batch(job: Job, step: Step, forget_step: Step) -> StepBatch:
    augment_key = (job.config.seed, purpose_key("augment"), step.index)
    images, labels = job.batches.shard(
        step.ids, augment_key=augment_key if job.config.method.augment else None
    )
    forget_images, forget_labels = job.batches.shard(forget_step.ids)
    return StepBatch(
        step.index, step.epoch, torch.from_numpy(step.ids), images, labels, len(step.ids),
        forget_images, forget_labels, len(forget_step.ids),
    )  # fmt: skip


def _log(session: Session, done: int, num_images: int, numbers: dict[str, Any], lr: float) -> None:
    values = {k: v for k, v in numbers.items() if k != "stop"}
    session.record("step", done, lr=lr, seconds=session.seconds, **values)
    shown = {"loss": numbers["loss"]}
    if "ot_cost" in numbers:
        shown["ot"] = numbers["ot_cost"]
    session.progress.update(done, num_images, **shown, grad=numbers["grad_norm"])


def _probe_due(cfg: MethodConfig, done: int, num_steps: int) -> bool:
    return done == num_steps or (cfg.probe_every is not None and done % cfg.probe_every == 0)


def _probe(session: Session, method: UnlearningMethod, done: int) -> None:
    """Measure forget against val, tell the method, keep the model when it is the best so far."""
    found = probe(session.model, session.job.batches, session.job.config, done)
    session.record(
        "probe", done, val_accuracy=found.val_accuracy, forgetting_score=found.forgetting_score,
        mia_auc=found.mia_auc, nomus=found.nomus, **method.observe(found),
    )  # fmt: skip
    value = _selection_value(session.job.config.method, found)
    best = session.best_values.get("value")
    if done > 0 and value is not None and (best is None or value > best):
        session.keep_best(step=done, value=value)


def _selection_value(cfg: MethodConfig, found: Probe) -> float | None:
    """Return what select maximises, None for a model that may not be taken."""
    if cfg.select == "nomus":
        return found.nomus
    if cfg.select == "accuracy" and found.forgetting_score <= cfg.max_forgetting_score:
        return found.val_accuracy
    return None


def _selection(session: Session, cfg: MethodConfig) -> str:
    if cfg.select == "last":
        return "the weights after the last step"
    if not session.best_values:
        logger.warning(
            "no probe had a forgetting score of at most method.max_forgetting_score=%g: the "
            "weights after the last step are delivered",
            cfg.max_forgetting_score,
        )
        return (
            f"the weights after the last step: no probe had a forgetting score of at most "
            f"{cfg.max_forgetting_score:g}"
        )
    measure = {"nomus": "NoMUS", "accuracy": "accuracy"}[cfg.select]
    return f"the probe with the best validation {measure} ({session.best_values['value']:.3f})"
