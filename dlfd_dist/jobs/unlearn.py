"""Unlearning: a method's steps over the retain set, probed, selected on val, evaluated."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..config import DLFMConfig, MethodConfig
from ..methods import MethodContext, Probe, StepBatch, UnlearningMethod, methods
from ..metrics.people import MIN_PEOPLE
from ..models import Classifier
from ..plain import counted
from ..runtime.phases import phase
from ..runtime.preemption import StopFlag
from ..runtime.seeding import purpose_key
from .context import Job, earlier_weights
from .course import Course, Turn, fitted
from .evaluation import Outputs, probe, probe_apart, probed_model, run_model, thinned_probe
from .finish import finish
from .session import Session
from .start import reset_start
from .synthesised import check_synthesised

logger = logging.getLogger(__name__)


Observer = Callable[[Session, Probe], None]
"""Hears of every probe on every rank, after its step has ended and any checkpoint is whole; what it
raises ends the run."""


def _unheard(_session: Session, _found: Probe) -> None:
    """Hear of a probe that nobody waits for."""


def unlearn(
    job: Job,
    stop: StopFlag,
    *,
    observe: Observer = _unheard,
    end: Callable[..., dict[str, Any]] = finish,
) -> dict[str, Any]:
    """Run a method from the original checkpoint to a delivered model; return the result.

    Parameters
    ----------
    end : what `finish` is to a run, which delivers the model, measures it and writes the result
    """
    job = _with_epochs(job)
    cfg = job.config.method
    build, course = methods.get(cfg.name), course_of(job)
    model = job.model(job.config.checkpoint)
    method = build(method_context(job, model, course.num_steps))
    updater = job.updater(model, cfg, course.optimizers)
    session = Session(job, model, updater, course.num_steps, cfg.name)
    if session.first:
        method.load_state_dict(session.values["method"])
        method.load_tensors(session.tensors)
    else:
        _tell_few(job)
        session.facts["passes"] = course.passes
        _start(session)
        _check_reference(session, method, course)
    if not session.first and method.initial_probe:
        observe(session, _probe(session, method, 0, selectable=False))
    turns = course.turns(session.first)
    for turn in job.batches.reading_ahead(turns, lambda turn: (turn.retain, turn.forget)):
        epoch = _scheduled_at(cfg, turn, course)
        lr = updater.set_epoch(epoch, turn.phase.lr, turn.phase.optimizer)
        with phase("data"):
            batch = step_batch(job, turn)
        numbers = method.step(batch, updater, stop=stop.requested)
        done = turn.index + 1
        _log(session, turn, numbers, lr)
        probe = None
        if done == course.num_steps or turn.ends_phase or _probe_due(cfg, done):
            selectable = turn.phase.selectable or done == course.num_steps
            probe = _probe(session, method, done, selectable=selectable)
        session.end_step(
            done, stop=numbers["stop"] > 0, loop={"method": method.state_dict()},
            tensors=method.tensors,
        )  # fmt: skip
        if probe is not None:
            observe(session, probe)
    session.progress.close()
    session.deliver_best()
    return end(
        session,
        selected_step=session.best_values.get("step", course.num_steps),
        selection=_selection(session, cfg),
    )


def _start(session: Session) -> None:
    """Reset the weights where method.reset says so, after the method has taken what it keeps."""
    if session.job.config.method.reset == "none":
        return
    with phase("reset", whole=True):
        session.facts["start"] = reset_start(session.job, session.model)
    session.record("start", 0, **session.facts["start"])


def _check_reference(session: Session, method: UnlearningMethod, course: Course) -> None:
    """Try whether synthesised images pass for strangers, where a method matches to them."""
    job, cfg = session.job, session.job.config.method
    if isinstance(cfg, DLFMConfig) and cfg.reference == "synthesised" and cfg.meets_strangers:
        matching = (turn for turn in course.turns(0) if turn.phase.name == "match")
        batches = (step_batch(job, turn) for turn in matching)
        checked = check_synthesised(job, method.context, batches)
        session.facts["reference_people"] = checked


def _tell_few(job: Job) -> None:
    """Tell whoever forgets so few people that what method.dynamic goes by sees nothing."""
    identities, splits = job.data.manifest.identities, job.data.splits
    fewest = min(len(np.unique(identities[ids])) for ids in (splits.forget, splits.val))
    dynamic = getattr(job.config.method, "dynamic", False)
    if dynamic and fewest < MIN_PEOPLE and job.collectives.is_main:
        logger.warning(
            "probes cannot see the forgetting of %s, it takes %d in the request and in val: "
            "method.dynamic=true may rest from the first step on. Try method=reset, or add "
            "method.dynamic=false method.select=last",
            counted(fewest, "person", "people"), MIN_PEOPLE,
        )  # fmt: skip


def _with_epochs(job: Job) -> Job:
    """Return the job with the epochs that method.steps takes.

    Rewind goes back as many epochs as it was given, however many the steps are.
    """
    given = job.config
    cfg = fitted(given.method, methods.get(given.method.name), job.data.splits)
    rewound = str(earlier_weights(given)) if given.method.goes_back else None
    prepared = replace(job.prepared, config=replace(given, method=cfg), rewound=rewound)
    return replace(job, prepared=prepared)


def course_of(job: Job) -> Course:
    """Return the steps of an unlearning run."""
    cfg, build = job.config.method, methods.get(job.config.method.name)
    return Course(
        build.phases(cfg), job.data.splits, cfg, job.config.seed,
        shuffle=build.shuffle, equal_batches=build.equal_batches, reference=job.reference_ids,
    )  # fmt: skip


def method_context(job: Job, model: Classifier, num_steps: int) -> MethodContext:
    """Return what a method of this job may use."""
    return MethodContext(
        job.config, model, job.fresh_model, job.collectives, num_steps,
        job.data.manifest.num_outputs, job.batches.pixel_range, job.batches.to_uint8,
        job.run_dir.synthesis, job.earlier_model,
    )  # fmt: skip


def step_batch(job: Job, turn: Turn) -> StepBatch:
    """Return this rank's shards of a step, on its device."""
    augment_key = (job.config.seed, purpose_key("augment"), turn.index)
    images, labels = job.batches.shard(
        turn.retain, augment_key=augment_key if job.config.method.augment else None
    )
    forget_images, forget_labels = job.batches.shard(turn.forget)
    met = job.reference_shard(turn.reference) if len(turn.reference) else (None, None)
    return StepBatch(
        turn.index, turn.epoch, turn.phase.name,
        torch.from_numpy(turn.retain), images, labels, len(turn.retain),
        torch.from_numpy(turn.forget), forget_images, forget_labels, len(turn.forget),
        *met, len(turn.reference), torch.from_numpy(turn.reference),
    )  # fmt: skip


def _scheduled_at(cfg: MethodConfig, turn: Turn, course: Course) -> float:
    """Return the place of a step in the schedule of the learning rate, in epochs."""
    if cfg.lr_scheduler == "cosine_batch":
        return cfg.epochs * turn.index / course.num_steps
    return turn.epoch


def _log(session: Session, turn: Turn, numbers: dict[str, Any], lr: float) -> None:
    done, num_images = turn.index + 1, len(turn.retain) or len(turn.forget)
    values = {k: v for k, v in numbers.items() if k != "stop"}
    session.record(
        "step", done, phase=turn.phase.name, lr=lr, seconds=session.seconds, **values
    )  # fmt: skip
    shown = {"loss": numbers["loss"]}
    if "ot_cost" in numbers:
        shown["ot"] = numbers["ot_cost"]
    session.progress.update(done, num_images, **shown, grad=numbers["grad_norm"])


def _probe_due(cfg: MethodConfig, done: int) -> bool:
    return cfg.probe_every is not None and done % cfg.probe_every == 0


def _probe(session: Session, method: UnlearningMethod, done: int, *, selectable: bool) -> Probe:
    """Measure forget against val, tell the method, keep the model when it is the best so far.

    With method.probe_fraction the method hears of a probe on other people than those whom the model
    is chosen on.

    selectable : whether the model may be kept
    """
    with (
        phase("probe", whole=True),
        probed_model(method.context, session.job.batches) as model,
    ):
        probe = _found(session, model, done)
        heard = _heard(session, model, done) if session.job.probed_apart else probe
    session.record("probe", done, **_figures(probe, heard), **method.observe(heard))
    sampled = probe.standard_error is not None
    value = _selection_value(session.job.config.method, probe)
    selectable = selectable and not (method.refuses_over_forgetting and probe.over_forgotten)
    best = session.best_values.get("value")
    if selectable and not sampled and value is not None and (best is None or value > best):
        session.keep_best(step=done, value=value)
    return probe


def _found(session: Session, model: Classifier, done: int) -> Probe:
    """Return the probe that the model is chosen by."""
    looked_at = (model, session.job.batches, session.job.config, done)
    if (met := _strangers(session, model)) is not None:
        return probe(*looked_at, met)
    look = probe if done == session.num_steps else thinned_probe
    return look(*looked_at)


def _figures(probe: Probe, heard: Probe) -> dict[str, Any]:
    """Return what metrics.jsonl has of a probe, and of the probe that the method heard of."""
    names = (
        "val_accuracy", "forget_accuracy", "forgetting_score", "mia_auc", "nomus",
        "forgetting_score_se", "nomus_se",
    )  # fmt: skip
    figures = {name: getattr(probe, name) for name in names}
    if probe.standard_error is not None:
        figures["standard_error"] = probe.standard_error
    if heard is not probe:
        figures["heard_forgetting_score"] = heard.forgetting_score
    if probe.equivalence is not None:
        figures["equivalence"] = probe.equivalence.to_dict()
    return figures | (probe.separation or {})


def _strangers(session: Session, model: Classifier) -> Outputs | None:
    """Return what the model says of those who are matched to, where method.rests_by asks for it."""
    job, cfg = session.job, session.job.config.method
    if not isinstance(cfg, DLFMConfig) or cfg.rests_by != "equivalence":
        return None
    assert job.reference is not None
    size = job.config.metrics.eval_batch_size
    return run_model(model, job.reference, job.reference_ids, size)


def _heard(session: Session, model: Classifier, done: int) -> Probe:
    """Return the probe on the people who are set apart for what the method goes by."""
    job = session.job
    assert job.reference is not None
    return probe_apart(model, job.reference, job.config, done, job.reference_ids)


def _selection_value(cfg: MethodConfig, probe: Probe) -> float | None:
    """Return what select maximises, None for a model that may not be taken."""
    if cfg.select == "nomus":
        return probe.nomus
    if cfg.select == "rewind":
        return -abs(probe.forget_accuracy - probe.val_accuracy)
    if cfg.select == "accuracy" and probe.forgetting_score <= cfg.max_forgetting_score:
        return probe.val_accuracy
    return None


def _selection(session: Session, cfg: MethodConfig) -> str:
    if cfg.select == "last":
        return "the weights after the last step"
    if not session.best_values and methods.get(cfg.name).refuses_over_forgetting:
        logger.warning(
            "every probe was over-forgotten or above method.max_forgetting_score: this counts as a "
            "failure, and the weights after the last step are delivered"
        )
        return (
            "the weights after the last step: a failure, for no probe was free of over-forgetting"
        )
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
    if cfg.select == "rewind":
        return "the probe whose forget accuracy was nearest to the validation accuracy"
    measure = {"nomus": "NoMUS", "accuracy": "accuracy"}[cfg.select]
    return f"the probe with the best validation {measure} ({session.best_values['value']:.3f})"
