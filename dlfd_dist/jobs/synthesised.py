"""Whether synthesised images pass for strangers: a probe tries to tell them from val people."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch

from ..config import DLFMConfig
from ..data.reference import describe_reference
from ..methods import MethodContext, StepBatch
from ..methods.dlfd import synthesise
from ..metrics import MembershipProbes, membership_probes
from ..metrics.membership_probes import tells_apart
from ..runtime.seeding import purpose_key, shuffled
from ..synthesis import frozen
from .context import Job
from .evaluation import run_model

logger = logging.getLogger(__name__)

MAX_IMAGES = 256
"""Of either side, to the next whole batch: more tell the same of more time."""


def check_synthesised(
    job: Job, context: MethodContext, batches: Iterator[StepBatch]
) -> dict[str, Any]:
    """Return what a result says of the reference of method.reference=synthesised.

    The images of the first batches are synthesised, and both probes of the features are tried on
    them and on as many images of val people. `strangers` is False where one of them tells the
    sides apart, None where there are too few images or people to try. Every rank calls it.
    """
    cfg = job.config
    val = shuffled(job.data.splits.val, cfg.seed, purpose_key("val beside synthesised"))
    val = np.sort(val[:MAX_IMAGES])
    used = list(islice(batches, -(-len(val) // cfg.method.global_batch_size)))
    made = np.concatenate([_features(context, batch) for batch in used])
    unseen = run_model(context.model, job.batches, val, cfg.metrics.eval_batch_size)
    people = job.data.manifest.identities[torch.cat([batch.ids for batch in used]).numpy()]
    sides = (people, unseen.people)
    probes = membership_probes(made, unseen.features, people=sides, seed=cfg.metrics.seed)
    counts = (len(np.unique(side)) for side in sides)
    strangers = None if probes is None else not tells_apart(probes, *counts)
    if job.collectives.is_main and not strangers:
        logger.warning("%s", _sentence(probes))
    return {
        **(describe_reference(None, cfg.method) or {}),
        "strangers": strangers,
        "probes": probes and probes.to_dict(),
    }


def _features(context: MethodContext, batch: StepBatch) -> np.ndarray:
    """Return the features of the synthesised images of a step, of all ranks."""
    cfg = context.config.method
    assert isinstance(cfg, DLFMConfig)
    weights = {"forget_weight": cfg.forget_weight, "retain_weight": cfg.retain_weight}
    made = synthesise(context, batch, **weights)
    with frozen(context.model), torch.no_grad():
        features = context.model(made.images).features
    return context.collectives.gather_rows(features, batch.total).double().cpu().numpy()


def _sentence(probes: MembershipProbes | None) -> str:
    if probes is None:
        return (
            "method.reference=synthesised: there are too few images or people to try whether the "
            "synthesised images pass for strangers, and they are not called so"
        )
    return (
        "method.reference=synthesised: a probe tells the synthesised images from validation people "
        f"by their features (AUC {probes.best:.2f}, 0.5 is chance), so that they are no strangers; "
        "method.reference=val_split and manifest give real ones"
    )
