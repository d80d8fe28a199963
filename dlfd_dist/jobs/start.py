"""The start of an unlearning run that resets weights: made, and looked at before a step."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor

from ..data.loaders import Batches
from ..methods import reset_weights
from ..models import Classifier
from ..runtime.seeding import purpose_key, shuffled
from ..runtime.sync_bn import measure_statistics
from .context import Job
from .evaluation import probe, run_model

logger = logging.getLogger(__name__)


def reset_start(job: Job, model: Classifier) -> dict[str, Any]:
    """Reset the weights of a model in place; return what it cost and what it left.

    BatchNorm statistics are measured again in one pass over at most method.reset_images retain
    images, which are also those whose accuracy is told. Every rank calls it.
    """
    cfg, retain = job.config.method, job.data.splits.retain
    ids = shuffled(retain, job.config.seed, purpose_key("reset images"))[: cfg.reset_images]
    reset_weights(model, job.fresh_model(), cfg)
    passed = measure_statistics(model, _batches(job.batches, ids, cfg.global_batch_size))
    left = probe(model, job.batches, job.config, 0)
    looked_at = run_model(model, job.batches, np.sort(ids), job.config.metrics.eval_batch_size)
    facts = {
        "reset": cfg.reset,
        "strength": cfg.reset_strength,
        "profile": cfg.reset_profile,
        "blocks": cfg.reset_blocks if cfg.reset == "layers" else None,
        "batch_norm_images": passed,
        "retain_forward_passes": passed / len(retain),
        "retain_accuracy": looked_at.accuracy,
        "val_accuracy": left.val_accuracy,
        "forget_accuracy": left.forget_accuracy,
        "forgetting_score": left.forgetting_score,
        "mia_auc": left.mia_auc,
    }
    if job.collectives.is_main:
        logger.info("%s", _sentence(facts))
    return facts


def _batches(batches: Batches, ids: np.ndarray, size: int) -> Iterator[tuple[Tensor, int]]:
    """Yield shards of nearly equal batches of at least `size` images, and of two."""
    if len(ids) < 2:
        return
    for part in np.array_split(ids, max(1, len(ids) // max(size, 2))):
        yield batches.shard(part)[0], len(part)


def _sentence(facts: dict[str, Any]) -> str:
    passes = facts["retain_forward_passes"]
    return (
        f"method.reset={facts['reset']} leaves accuracy {facts['retain_accuracy']:.3f} on retain, "
        f"{facts['val_accuracy']:.3f} on val and {facts['forget_accuracy']:.3f} on forget, "
        f"forgetting score {facts['forgetting_score']:.3f}; BatchNorm statistics took "
        f"{passes:.2f} forward passes over the retain set"
    )
