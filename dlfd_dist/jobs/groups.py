"""Accuracy by the groups of data.groups, of the delivered model and of the one it began with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..metrics.accuracy import correct
from ..metrics.groups import accuracy_by_group, worst_group
from .context import Job
from .evaluation import Outputs, run_model

PARTS = ("val", "test")


def group_figures(job: Job, parts: Mapping[str, Outputs]) -> dict[str, Any]:
    """Return per column and part the figures of its groups and the worst of them; {} without any.

    Every rank calls it: the model before unlearning is measured here.
    """
    groups = job.data.manifest.groups
    if not groups:
        return {}
    before = None
    if job.config.verb == "unlearn":
        original, size = job.model(job.config.checkpoint), job.config.metrics.eval_batch_size
        before = {name: run_model(original, job.batches, parts[name].ids, size) for name in PARTS}
    figures: dict[str, Any] = {}
    for column, values in groups.items():
        figures[column] = {}
        for name in PARTS:
            after = parts[name]
            by_value = accuracy_by_group(
                values[after.ids], after.people, correct(after.logits, after.labels),
                correct(before[name].logits, after.labels) if before else None,
            )  # fmt: skip
            figures[column][name] = {"groups": by_value, "worst": worst_group(by_value)}
    return {"groups": figures}
