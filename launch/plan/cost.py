"""What a run is likely to cost, before it has run: forward passes, at the speed of the cluster."""

from __future__ import annotations

from dlfd_dist.config import ClusterConfig, DLFDConfig, JobConfig
from dlfd_dist.data.loaders import ResolvedRows
from dlfd_dist.jobs.plan import num_steps

from .scaling import BACKWARD
from .size import ModelSize

START_S = 20.0
"""Imports, data and the meeting of the ranks."""


def rank_seconds(
    config: JobConfig, rows: ResolvedRows, cluster: ClusterConfig, size: ModelSize
) -> float:
    """Return the seconds that a run is estimated to take on one rank.

    An unlearning step of DLFD synthesises: synthesis.steps forward and backward passes. Probes and
    the evaluation at the end are forward passes over their parts.
    """
    return START_S + size.cost * _forward_images(config, rows) / cluster.images_per_s


def _forward_images(config: JobConfig, rows: ResolvedRows) -> float:
    parts = {name: len(ids) for name, ids in rows.splits.parts().items()}
    evaluation, steps = float(sum(parts.values())), num_steps(config, rows)
    if config.verb == "evaluate":
        return evaluation
    if config.verb == "train":
        epochs = steps * config.train.global_batch_size / max(1, len(rows.splits.train))
        step = (1 + BACKWARD) * config.train.global_batch_size
        return steps * step + epochs * parts["val"] + evaluation
    cfg = config.method
    # A synthesis step differentiates with respect to the images alone: half a backward pass.
    synthesis = 1 + config.synthesis.steps * (1 + BACKWARD / 2)
    step = 1 + BACKWARD + (synthesis if isinstance(cfg, DLFDConfig) else 0)
    num_probes = 2 if cfg.probe_every is None else steps / cfg.probe_every
    probes = num_probes * (parts["forget"] + parts["val"])
    return steps * step * cfg.global_batch_size + probes + evaluation
