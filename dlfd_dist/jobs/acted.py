"""What an unlearning run moved of the checkpoint it began with, in weights and in answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..metrics import against_original, class_mean_divergence, moved, relative_change
from ..models import Classifier, model_blocks
from ..run_dir import read_events
from .context import Job
from .evaluation import Outputs, run_model, stratified
from .resurfacing import loss_barrier

RETAIN_IMAGES = 1000
"""Of more retain images so many are looked at, drawn by label."""


def acted(job: Job, delivered: Classifier, parts: Mapping[str, Outputs]) -> dict[str, Any] | None:
    """Return what a delivered model is against the checkpoint before it; None of other runs.

    On every rank the same. `weight_change` is ||theta - theta_0|| / ||theta_0|| of all trained
    tensors and per block; `loss_barrier` stands on the line between both; `divergence`,
    `same_answers` and `confidence_change` are of retain, forget and val; `synthesised_share` is the
    share of the steps that synthesised, None of a method that cannot; `rf_js` the retrain-free
    divergence, and `rf_js_original` what it was before.

    Parameters
    ----------
    parts : what the delivered model says of retain, forget and val, and of test but in a trial
    """
    if job.config.verb != "unlearn":
        return None
    original = job.model(job.config.checkpoint)
    change = weight_change(original, delivered)
    before = {name: _of_original(job, original, name, part) for name, part in parts.items()}
    after = {name: _rows(part, before[name].ids) for name, part in parts.items()}
    figures = {
        name: moved(after[name].predictions, before[name].predictions)
        for name in ("retain", "forget", "val")
    }
    return {
        "weight_change": change,
        "loss_barrier": loss_barrier(job, original, delivered, before["retain"], after["retain"]),
        "retain_images": len(before["retain"].ids),
        **against_original(change["overall"], figures),
        "synthesised_share": synthesised_share(job),
        **_retrain_free(parts["forget"], before),
    }


def _of_original(job: Job, original: Classifier, name: str, part: Outputs) -> Outputs:
    ids = part.ids
    if name == "retain" and len(ids) > RETAIN_IMAGES:
        ids = stratified(ids, job.data.manifest.labels, RETAIN_IMAGES, job.config.metrics.seed)
    return run_model(original, job.batches, ids, job.config.metrics.eval_batch_size)


def _rows(part: Outputs, ids: np.ndarray) -> Outputs:
    """Return the outputs of some of the samples of a part."""
    chosen = np.isin(part.ids, ids)
    names = ("ids", "people", "labels", "logits", "features")
    return replace(part, **{name: getattr(part, name)[chosen] for name in names})


def _retrain_free(forget: Outputs, before: Mapping[str, Outputs]) -> dict[str, float | None]:
    """Return the retrain-free divergences; nothing where the test set is not looked at."""
    if "test" not in before:
        return {}
    unseen = before["test"]
    return {
        name: class_mean_divergence(side.logits, side.labels, unseen.logits, unseen.labels)
        for name, side in (("rf_js", forget), ("rf_js_original", before["forget"]))
    }


def weight_change(before: Classifier, after: Classifier) -> dict[str, Any]:
    """Return the relative change of all weights and of each block, named by its first weight.

    None where a block began at zero. Buffers, such as the statistics of BatchNorm, are no weights.
    """
    names = {id(parameter): name for name, parameter in after.module.named_parameters()}
    blocks = {}
    for old, new in zip(model_blocks(before), model_blocks(after), strict=True):
        first = next(iter(new.parameters()), None)
        if first is not None:
            name = names[id(first)].rpartition(".")[0] or names[id(first)]
            blocks[name] = relative_change(_flat(old), _flat(new))
    return {"overall": relative_change(_flat(before), _flat(after)), "blocks": blocks}


def _flat(module: Any) -> np.ndarray:
    arrays = [p.detach().double().cpu().numpy().ravel() for p in module.parameters()]
    return np.concatenate(arrays) if arrays else np.empty(0)


def synthesised_share(job: Job) -> float | None:
    """Return the share of the steps of a run that synthesised; None where none could."""
    # Rank 0 writes the events; no rank may read them before it has.
    job.collectives.barrier()
    steps = [e for e in read_events(job.run_dir.metrics) if e.get("event") == "step"]
    flags = [bool(step["synthesised"]) for step in steps if "synthesised" in step]
    return sum(flags) / len(flags) if flags else None
