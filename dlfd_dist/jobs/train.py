"""Training from scratch: Original on all of train, Retrained on the retain set alone."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from ..methods import Updater
from ..models import Classifier, save_weights, set_dropout_rows
from ..runtime.preemption import StopFlag
from ..runtime.sampler import EpochSampler
from ..runtime.seeding import purpose_key
from ..runtime.sync_bn import freeze_batch_norm
from .context import Job
from .evaluation import run_model
from .finish import finish
from .session import Session

logger = logging.getLogger(__name__)


def train(job: Job, stop: StopFlag) -> dict[str, Any]:
    """Train, deliver the weights that train.select says, evaluate; return the result."""
    cfg = job.config.train
    splits = job.data.splits
    sampler = EpochSampler(
        splits.train if cfg.on == "all" else splits.retain,
        batch_size=cfg.global_batch_size, seed=job.config.seed, purpose="train order",
    )  # fmt: skip
    num_steps = min(cfg.epochs * sampler.steps_per_epoch, cfg.max_steps or 10**12)
    model = job.model(job.config.checkpoint)
    updater = job.updater(model, cfg)
    session = Session(job, model, updater, num_steps, "train")
    loop = session.values or {"losses": [], "epochs_since_best": 0}
    steps = sampler.steps(session.first, num_steps)
    for step in job.batches.reading_ahead(steps, lambda step: (step.ids,)):
        by_step = cfg.lr_scheduler == "cosine_batch"
        lr = updater.set_epoch(step.index / sampler.steps_per_epoch if by_step else step.epoch)
        numbers = train_step(job, model, updater, step.ids, step.index, stop.requested)
        done = step.index + 1
        loop["losses"].append(numbers["loss"])
        session.record(
            "step", done, loss=numbers["loss"], grad_norm=numbers["grad_norm"], lr=lr,
            seconds=session.seconds,
        )  # fmt: skip
        session.progress.update(done, len(step.ids), epoch=step.epoch, loss=numbers["loss"], lr=lr)
        if done % sampler.steps_per_epoch == 0 or done == num_steps:
            _end_epoch(session, loop, step.epoch, done, lr)
            if done % sampler.steps_per_epoch == 0:
                _keep(session, step.epoch + 1)
            if cfg.patience is not None and loop["epochs_since_best"] >= cfg.patience:
                logger.info("no better validation accuracy for %d epochs: stopping", cfg.patience)
                break
        session.end_step(done, stop=numbers["stop"] > 0, loop=loop)
    session.progress.close()
    if cfg.select == "last":
        val_accuracy = loop["val_accuracy"]
        selection = f"the last weights (validation accuracy {val_accuracy:.3f})"
        return finish(session, selected_step=num_steps, selection=selection)
    session.deliver_best()
    chosen = session.best_values
    return finish(
        session,
        selected_step=chosen["step"],
        selection=f"the epoch with the best validation accuracy ({chosen['val_accuracy']:.3f})",
    )


def train_step(
    job: Job, model: Classifier, updater: Updater, ids: np.ndarray, index: int, stop: bool
) -> dict[str, float]:
    """Take the step of a plain training on a global batch of ids."""
    seed = job.config.seed
    images, labels = job.batches.shard(ids, augment_key=(seed, purpose_key("augment"), index))
    model.train()
    if len(ids) == 1:
        # A single image has no variance.
        freeze_batch_norm(model)
    set_dropout_rows(model, [len(ids)], job.collectives, seed, purpose_key("dropout"), index)
    return updater.classify(images, labels, total=len(ids), stop=stop)


def _keep(session: Session, epoch: int) -> None:
    """Write the weights after so many epochs, where train.keep_every asks for them."""
    job, every = session.job, session.job.config.train.keep_every
    last = epoch == job.config.train.epochs
    if every is not None and epoch % every == 0 and not last and job.collectives.is_main:
        save_weights(session.model, job.run_dir.epoch_model(epoch))


def _end_epoch(session: Session, loop: dict[str, Any], epoch: int, done: int, lr: float) -> None:
    """Measure val; with select=best keep a better model, or one as accurate with a lower loss."""
    job = session.job
    val = run_model(
        session.model, job.batches, job.data.splits.val, job.config.metrics.eval_batch_size
    )
    val_accuracy, val_loss = float(val.accuracy or 0.0), float(val.losses.mean())
    session.record(
        "epoch", done, epoch=epoch, train_loss=float(np.mean(loop["losses"])),
        val_accuracy=val_accuracy, val_loss=val_loss, lr=lr,
    )  # fmt: skip
    loop["losses"], loop["val_accuracy"] = [], val_accuracy
    if job.config.train.select == "last":
        return
    best = session.best_values
    if not best or (val_accuracy, -val_loss) > (best["val_accuracy"], -best["val_loss"]):
        session.keep_best(step=done, val_accuracy=val_accuracy, val_loss=val_loss)
        loop["epochs_since_best"] = 0
    else:
        loop["epochs_since_best"] += 1
