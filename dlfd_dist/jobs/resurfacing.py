"""Whether the forgotten come back when the delivered model is trained on, for others' sake.

A copy of the delivered model is fine-tuned on the retain set alone, as the next update of a product
would do: no forgotten image is seen. What only hid the forgotten people wears off, and a model that
never saw them does not change. Source: Siddiqui et al. 2025, "From dormant to deleted" (arXiv
2505.22310); they predict it by the distance of the weights to Original
(`against_original.weight_change`) and by the barrier on the straight line to it (`loss_barrier`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from ..config import METHOD_CONFIGS, JobConfig, MethodConfig
from ..errors import NonFiniteLossError
from ..metrics import js_divergence, predictions, quick_attack
from ..models import Classifier, set_dropout_rows
from ..run_dir import RunDir
from ..runtime.sampler import EpochSampler
from ..runtime.seeding import purpose_key
from ..runtime.sync_bn import freeze_batch_norm
from .context import Job
from .evaluation import Outputs, run_model

logger = logging.getLogger(__name__)

RATES = {"mild": 1, "strong": 10}
"""Learning rates, as multiples of Fine-tune's own."""
ON_THE_LINE = (0.25, 0.5, 0.75)
"""Places between Original, 0, and the delivered model, 1, where the loss is measured."""


def resurfacing_steps(config: JobConfig, num_retain: int) -> int:
    """Return how many steps a run fine-tunes on the retain set after its end; 0: none.

    Parameters
    ----------
    num_retain : images of the retain set; without a number in the settings it is one epoch of them
    """
    steps = config.metrics.resurface_steps
    if steps is None:
        is_made_here = config.verb in ("train", "unlearn")
        wanted = is_made_here or config.metrics.resurface_always
        return -(-num_retain // config.train.global_batch_size) if wanted else 0
    return steps


def resurface_on_val(job: Job, delivered: Classifier) -> dict[str, Any] | None:
    """Return `resurfacing` as a trial has it: measured on forget and val, never on test.

    None where it is not asked for (metrics.resurface_always).
    """
    splits = job.data.splits
    steps = resurfacing_steps(job.config, len(splits.retain))
    if not (job.config.metrics.resurface_always and steps):
        return None
    parts = {"forget": splits.forget, "val": splits.val}
    rates = {
        name: after
        and {
            "lr": settings.lr,
            "forget_accuracy": after["forget"].accuracy,
            "validation": _on_val(job.config, after),
        }
        for name, settings, after in _at_rates(job, delivered, steps, parts)
    }
    return {"steps": steps, "rates": rates}


def resurface(
    job: Job, delivered: Classifier, forget: Outputs
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Fine-tune copies of a delivered model on the retain set and measure the forget set again.

    The settings are those of method=finetune, with the batch of `train`. The same on every rank; no
    weight of `delivered` moves. Nothing is measured where nobody is forgotten.

    Parameters
    ----------
    forget : what the delivered model says of the forget set

    Returns
    -------
    figures : `resurfacing`, by name of RATES (None of a rate at which the loss became no number),
        with `resurfaced_accuracy` and `resurfaced_attack`, the largest forget accuracy and attack
        of all rates; None of each where nothing is measured
    logits : those of the forget set after each rate, by `resurfaced.<rate>`
    """
    splits = job.data.splits
    steps = resurfacing_steps(job.config, len(splits.retain)) if len(splits.forget) else 0
    if not steps or not len(splits.retain):
        return dict.fromkeys(("resurfacing", "resurfaced_accuracy", "resurfaced_attack")), {}
    parts = {"forget": splits.forget, "val": splits.val, "test": splits.test}
    rates, logits = {}, {}
    for name, settings, after in _at_rates(job, delivered, steps, parts):
        if after is not None:
            logits[f"resurfaced.{name}"] = after["forget"].logits
        rates[name] = after and _figures(job.config, settings, after)
    known = [figures for figures in rates.values() if figures is not None]
    if job.config.reference is not None:
        for name, apart in _from_retrained(job.config.reference, steps, logits, forget).items():
            rates[name]["js_divergence"] = apart
    return {
        "resurfacing": {"steps": steps, "rates": rates},
        **{
            f"resurfaced_{figure}": max((rate[of] for rate in known), default=None)
            for figure, of in (("accuracy", "forget_accuracy"), ("attack", "attack_accuracy"))
        },
    }, logits


def _at_rates(
    job: Job, delivered: Classifier, steps: int, parts: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, MethodConfig, dict[str, Outputs] | None]]:
    """Yield name, settings and what a fine-tuned copy says of the parts, for every rate."""
    for name, multiple in RATES.items():
        settings, after = _settings(job.config, multiple), None
        try:
            model = _fine_tuned(job, delivered, settings, steps)
            after = {part: _outputs(job, model, ids) for part, ids in parts.items()}
        except NonFiniteLossError:
            # Raised on every rank; the run has its result without this.
            logger.warning("resurfacing broke off: its learning rate %g is too large", settings.lr)
        yield name, settings, after


def _from_retrained(
    reference: str, steps: int, logits: Mapping[str, np.ndarray], forget: Outputs
) -> dict[str, float]:
    """Return the divergence from Retrained given the same steps, by rate.

    Empty where the run directory of Retrained has no such figures of the same images and steps.
    """
    run = RunDir(Path(reference))
    if not (run.result.is_file() and run.samples.is_file()):
        return {}
    if (run.read_result().get("resurfacing") or {}).get("steps") != steps:
        return {}
    with safe_open(run.samples, framework="numpy") as samples:
        names = set(samples.keys())
        if not np.array_equal(samples.get_tensor("forget.ids"), forget.ids):
            return {}
        theirs = {n: samples.get_tensor(f"{n}.logits") for n in logits if f"{n}.logits" in names}
    apart = {}
    for name, others in theirs.items():
        sides = (predictions(side, forget.labels) for side in (logits[name], others))
        apart[name.removeprefix("resurfaced.")] = float(js_divergence(*sides).mean())
    return apart


def loss_barrier(
    job: Job, original: Classifier, delivered: Classifier, before: Outputs, after: Outputs
) -> float | None:
    """Return how much higher the retain loss is on the line between two models than at its ends.

    The largest excess over the straight line between the losses at the ends, in nats, 0 or more;
    None where a model on the line has no finite outputs. Two models without a barrier are linearly
    connected: fine-tuning leads back. BatchNorm statistics lie on the line too.

    Parameters
    ----------
    before, after : what the ends say of the same retain images
    """
    start, end, middle = original.state_dict(), delivered.state_dict(), job.model(None)
    first, last = float(before.losses.mean()), float(after.losses.mean())
    excess = [0.0]
    for place in ON_THE_LINE:
        middle.load_state_dict(
            {name: _between(value, end[name], place) for name, value in start.items()}
        )
        try:
            loss = float(_outputs(job, middle, before.ids).losses.mean())
        except NonFiniteLossError:
            return None
        excess.append(loss - ((1 - place) * first + place * last))
    return max(excess)


def _between(start: Tensor, end: Tensor, place: float) -> Tensor:
    """Return a tensor on the line; a counter, which is no floating point number, stays."""
    return torch.lerp(start, end, place) if start.is_floating_point() else start


def _settings(config: JobConfig, multiple: int) -> MethodConfig:
    own = METHOD_CONFIGS["finetune"]()
    return replace(own, lr=own.lr * multiple, global_batch_size=config.train.global_batch_size)


def _fine_tuned(job: Job, delivered: Classifier, settings: MethodConfig, steps: int) -> Classifier:
    """Return a copy of a model after so many steps on the retain set; every rank calls it."""
    model, seed = job.model(None), job.config.seed
    model.load_state_dict(delivered.state_dict())
    updater = job.updater(model, settings)
    sampler = EpochSampler(
        job.data.splits.retain, batch_size=settings.global_batch_size, seed=seed,
        purpose="resurfacing order",
    )  # fmt: skip
    for step in job.batches.reading_ahead(sampler.steps(0, steps), lambda step: (step.ids,)):
        images, labels = job.batches.shard(step.ids)
        model.train()
        freeze_batch_norm(model)
        set_dropout_rows(
            model, [len(step.ids)], job.collectives,
            seed, purpose_key("resurfacing dropout"), step.index,
        )  # fmt: skip
        updater.classify(images, labels, total=len(step.ids))
    return model


def _outputs(job: Job, model: Classifier, ids: np.ndarray) -> Outputs:
    return run_model(model, job.batches, ids, job.config.metrics.eval_batch_size)


def _on_val(config: JobConfig, after: Mapping[str, Outputs]) -> dict[str, float]:
    """Return what a choice may go by."""
    attack = quick_attack(after["forget"].samples, after["val"].samples, seed=config.metrics.seed)
    return {"val_accuracy": after["val"].accuracy or 0.0, "mia_auc": attack.auc}


def _figures(
    config: JobConfig, settings: MethodConfig, after: Mapping[str, Outputs]
) -> dict[str, Any]:
    forget, test = after["forget"], after["test"]
    attack = quick_attack(forget.samples, test.samples, seed=config.metrics.seed)
    return {
        "lr": settings.lr,
        "forget_accuracy": forget.accuracy,
        "test_accuracy": test.accuracy,
        "attack_accuracy": attack.accuracy,
        "attack_error": attack.accuracy_error,
        "js_divergence": None,
        "validation": _on_val(config, after),
    }
