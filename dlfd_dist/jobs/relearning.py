"""How soon the delivered model is back at what it knew of the forgotten images.

It is trained on the forget set anew, and so is Retrained, which never knew. The settings are those
of training (lr, momentum, weight_decay, batch of `train`), not of the method: relearning must not
be slow because the method's learning rate was. BatchNorm statistics stay as they are. Sources:
Golatkar et al. 2020, "Eternal sunshine of the spotless net", section 4; Tarun et al. 2021 (UNSIR).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from ..config.job import READ_TO_RELEARN
from ..errors import NonFiniteLossError
from ..metrics import anamnesis_index, relearn_limit, relearn_time
from ..models import Classifier, set_dropout_rows
from ..runtime.sampler import EpochSampler
from ..runtime.seeding import purpose_key
from ..runtime.sync_bn import freeze_batch_norm
from .context import Job
from .evaluation import run_model

logger = logging.getLogger(__name__)


def relearn(job: Job, delivered: Classifier) -> dict[str, Any]:
    """Return the relearn time of a delivered model and of the reference, if there is one.

    `relearn_steps` is the number of steps after which the forget loss is within a tenth of that of
    the checkpoint before unlearning; None: not in metrics.relearn_steps. Of every rank the same;
    no weight of `delivered` moves. Empty where relearning is off, or no checkpoint is left behind.
    """
    config = job.config
    if config.verb != "unlearn" or not config.metrics.relearn_steps:
        return {}
    original = _forget_loss(job, job.model(config.checkpoint))
    copy = job.model(None)
    copy.load_state_dict(delivered.state_dict())
    steps, losses = _relearned(job, copy, original)
    retrained, of_reference = None, None
    if config.reference is not None:
        retrained, of_reference = _relearned(job, job.model(config.reference), original)
    index = None
    if steps is not None and retrained is not None:
        index = anamnesis_index(steps, retrained)
    return {
        "relearn_steps": steps,
        "relearn_steps_retrained": retrained,
        "anamnesis_index": index,
        "relearn": {
            "original_loss": original,
            "loss_limit": relearn_limit(original),
            "losses": losses,
            "losses_retrained": of_reference,
            "max_steps": config.metrics.relearn_steps,
            **{name: getattr(config.train, name) for name in READ_TO_RELEARN},
        },
    }


def _relearned(job: Job, model: Classifier, original: float) -> tuple[int | None, list[float]]:
    """Return the relearn time of a model, and its forget losses up to then; its weights move."""
    losses = list(_until(_losses(job, model), relearn_limit(original)))
    return relearn_time(losses, original), losses


def _until(losses: Iterator[float], limit: float) -> Iterator[float]:
    for loss in losses:
        yield loss
        if loss <= limit:
            return


def _losses(job: Job, model: Classifier) -> Iterator[float]:
    """Yield the forget loss before the first step, and after each."""
    config = job.config
    sampler = EpochSampler(
        job.data.splits.forget, batch_size=config.train.global_batch_size, seed=config.seed,
        purpose="relearn order",
    )  # fmt: skip
    updater = job.updater(model, config.train)
    yield _forget_loss(job, model)
    for step in sampler.steps(0, config.metrics.relearn_steps):
        images, labels = job.batches.shard(step.ids)
        model.train()
        freeze_batch_norm(model)
        set_dropout_rows(
            model, [len(step.ids)], job.collectives,
            config.seed, purpose_key("relearn dropout"), step.index,
        )  # fmt: skip
        try:
            updater.classify(images, labels, total=len(step.ids))
            loss = _forget_loss(job, model)
        except NonFiniteLossError:
            # Raised on every rank; the run has its result without this.
            logger.warning("relearning broke off after %d steps: train.lr is too large", step.index)
            return
        yield loss


def _forget_loss(job: Job, model: Classifier) -> float:
    size = job.config.metrics.eval_batch_size
    return float(run_model(model, job.batches, job.data.splits.forget, size).losses.mean())
