"""The end of every run: deliver the model, measure it, write the result last."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ..config import JobConfig
from ..data.label_shares import forget_labels
from ..data.reference import describe_reference
from ..digests import file_digest
from ..metrics import ModelOutputs, Outputs, custom_figures, guards_of
from ..models import Classifier, save_weights
from ..run_dir import write_json
from ..runtime.accounting import step_so_far
from ..runtime.checkpoint import drop_checkpoints
from ..runtime.env import job_info
from .acted import acted
from .context import Job
from .evaluation import (
    against_fresh,
    against_reference,
    evaluated,
    further_figures,
    outputs_of_parts,
    peak_memory_mb,
    run_model,
    save_samples,
)
from .groups import group_figures
from .relearning import relearn
from .resurfacing import resurface
from .session import Session

logger = logging.getLogger(__name__)


def finish(session: Session, *, selected_step: int | None, selection: str) -> dict[str, Any]:
    """Write the model of a training or unlearning run, evaluate it and write its result."""
    job, seconds, energy = session.job, session.seconds, session.energy_joules()
    if job.collectives.is_main:
        save_weights(session.model, job.run_dir.model)
        if selected_step is not None and selected_step < session.num_steps:
            logger.info(
                "step %d of %d is delivered: %s", selected_step, session.num_steps, selection
            )
    chosen = {
        "selected_step": selected_step,
        "selection": selection,
        # The test set is measured here for the first time; nothing is chosen after it.
        "test_read": "after selection",
        "num_steps": session.num_steps,
        "energy_joules": energy,
        **session.facts,
    }
    result = measure(job, session.model, seconds, chosen)
    if job.collectives.is_main:
        drop_checkpoints(job.run_dir.checkpoints)
    return result


def measure(
    job: Job, model: Classifier, seconds: float, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """Evaluate a model and write result.json, with which the run counts as finished.

    Every rank calls it and has the result. The passes over images are shared among the ranks; the
    figures of their outputs are taken on the main rank alone.
    """
    parts = outputs_of_parts(model, job.batches, job.config)
    fresh, reference = outputs_of_fresh(job), outputs_of_reference(job)
    resurfaced, logits = resurface(job, model, parts["forget"])
    beside = {
        **facts(job),
        **extra,
        "against_original": acted(job, model, parts),
        **group_figures(job, parts),
        **relearn(job, model),
        **resurfaced,
        "wall_seconds": seconds,
        "device_seconds": seconds * job.collectives.world_size,
        "peak_memory_mb": peak_memory_mb(job.collectives),
    }
    text = None
    if job.collectives.is_main:
        result = figures_of(job.config, parts, fresh, reference) | beside
        result["guards"] = guards_of(result)
        usage = step_so_far()
        result["slurm_usage"] = None if usage is None else asdict(usage)
        save_samples(job.run_dir, parts, job.data.manifest.identities, logits)
        if job.run_dir.model.is_file():
            result["model_sha256"] = file_digest(job.run_dir.model)
        write_json(job.run_dir.result, result)
        logger.info("%s", _last_line(result))
        logger.info("result: %s in the run directory", job.run_dir.result.name)
        text = json.dumps(result)
    return json.loads(job.collectives.broadcast_text(text))


def figures_of(
    config: JobConfig, parts: dict[str, Outputs], fresh: Outputs | None,
    reference: dict[str, Outputs] | None,
) -> dict[str, Any]:  # fmt: skip
    """Return the figures of a model, alone, against one that learned nothing, and Retrained.

    Parameters
    ----------
    parts, reference : what the model and Retrained say of every part; None: Retrained is not known
    fresh : what a model that learned nothing says of the forget set; None of an empty one
    """
    evaluation = evaluated(parts, config)
    near: dict[str, Any] = {"gap_to_retrained": None, "against_retrained": None}
    if reference is not None:
        near = against_reference(evaluation, evaluated(reference, config))
    figures = {
        **evaluation.figures,
        **further_figures(evaluation, config),
        "zero_retrain_forgetting": None if fresh is None else against_fresh(parts["forget"], fresh),
        **near,
    }
    if config.metrics.custom:
        outputs = ModelOutputs.of(parts, reference)
        custom = custom_figures(config.metrics.custom, outputs, taken=figures)
        figures["custom_metrics"] = custom
    return figures


def outputs_of_fresh(job: Job) -> Outputs | None:
    """Return what a model that learned nothing says of the forget set; None of an empty one."""
    ids = job.data.splits.forget
    if not len(ids):
        return None
    return run_model(job.fresh_model(), job.batches, ids, job.config.metrics.eval_batch_size)


def outputs_of_reference(job: Job) -> dict[str, Outputs] | None:
    """Return what Retrained says, where the settings name it."""
    if job.config.reference is None:
        return None
    return outputs_of_parts(job.model(job.config.reference), job.batches, job.config)


def facts(job: Job) -> dict[str, Any]:
    """Return what a result tells of the run and its data besides the figures."""
    manifest, splits, place = job.data.manifest, job.data.splits, job_info()
    labels = forget_labels(manifest, splits)
    return {
        "verb": job.config.verb,
        "seed": job.config.seed,
        "world_size": job.collectives.world_size,
        "device": str(job.collectives.device),
        "job_id": place.job_id,
        "restarts": place.run_restarts,
        "signature": job.prepared.signature,
        "title": manifest.title,
        "synthetic": manifest.synthetic,
        "may_show": manifest.may_show,
        "credit": manifest.credit,
        "label_names": manifest.label_names,
        "image_size": _image_size(job),
        **matched_to(job),
        "forget_labels": None if labels is None else labels.to_dict(),
        "num_images": {name: len(ids) for name, ids in splits.parts().items()},
        "leaks": None if job.data.leaks is None else job.data.leaks.to_dict(),
    }


def _image_size(job: Job) -> int | list[int]:
    """Return the edge of square images, or height and width."""
    _, height, width = job.data.manifest.image_shape(job.config.data)
    return height if height == width else [height, width]


def matched_to(job: Job) -> dict[str, Any]:
    """Return whom the forget set was matched to, or probed against alone, if anybody."""
    if job.config.verb != "unlearn":
        return {}
    description = describe_reference(job.prepared.people, job.config.method)
    if not description:
        return {}
    name = "probed_people" if description["kind"] == "probed" else "reference_people"
    return {name: description}


def _last_line(result: Mapping[str, Any]) -> str:
    names = ("test_accuracy", "forgetting_score", "nomus", "gap_to_retrained")
    shown = (f"{n}={result[n]:.3f}" for n in names if result.get(n) is not None)
    return f"done in {result['wall_seconds']:.1f}s: " + " ".join(shown)
