"""The end of every run: deliver the model, measure it, write the result last."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ..data.label_shares import forget_labels
from ..data.reference import describe_reference
from ..digests import file_digest
from ..metrics import guards_of
from ..models import Classifier, save_weights
from ..run_dir import write_json
from ..runtime.checkpoint import drop_checkpoints
from ..runtime.env import job_info
from .acted import acted
from .context import Job
from .evaluation import (
    Evaluation,
    against_fresh,
    against_reference,
    evaluate,
    further_figures,
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
    chosen = {
        "selected_step": selected_step,
        "selection": selection,
        # The test set is measured here for the first time; nothing is chosen after it.
        "test_read": "after selection",
        "num_steps": session.num_steps,
        "energy_joules": energy,
    }
    result = measure(job, session.model, seconds, chosen)
    if job.collectives.is_main:
        drop_checkpoints(job.run_dir.checkpoints)
    return result


def measure(
    job: Job, model: Classifier, seconds: float, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """Evaluate a model and write result.json, with which the run counts as finished."""
    evaluation = evaluate(model, job.batches, job.config)
    resurfaced, logits = resurface(job, model, evaluation.parts["forget"])
    result = {
        **evaluation.figures,
        **further_figures(evaluation, job.config),
        **facts(job),
        **extra,
        "zero_retrain_forgetting": _against_fresh(job, evaluation),
        "against_original": acted(job, model, evaluation.parts),
        **_against_reference(job, evaluation),
        **group_figures(job, evaluation),
        **relearn(job, model),
        **resurfaced,
        "wall_seconds": seconds,
        "device_seconds": seconds * job.collectives.world_size,
        "peak_memory_mb": peak_memory_mb(job.collectives),
    }
    result["guards"] = guards_of(result)
    if job.collectives.is_main:
        save_samples(job.run_dir, evaluation.parts, job.data.manifest.identities, logits)
        if job.run_dir.model.is_file():
            result["model_sha256"] = file_digest(job.run_dir.model)
        write_json(job.run_dir.result, result)
        logger.info("%s", _last_line(result))
        logger.info("result: %s in the run directory", job.run_dir.result.name)
    job.collectives.barrier()
    return result


def _against_fresh(job: Job, evaluation: Evaluation) -> float | None:
    """Return the zero-retrain-forgetting score; None where nobody was forgotten."""
    ids = job.data.splits.forget
    if not len(ids):
        return None
    fresh = run_model(job.fresh_model(), job.batches, ids, job.config.metrics.eval_batch_size)
    return against_fresh(evaluation.parts["forget"], fresh)


def _against_reference(job: Job, evaluation: Evaluation) -> dict[str, Any]:
    if job.config.reference is None:
        return {"gap_to_retrained": None, "against_retrained": None}
    reference = evaluate(job.model(job.config.reference), job.batches, job.config)
    return against_reference(evaluation, reference)


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
    found = describe_reference(job.prepared.people, job.config.method)
    name = "probed_people" if found and found["kind"] == "probed" else "reference_people"
    return {name: found} if found else {}


def _last_line(result: Mapping[str, Any]) -> str:
    names = ("test_accuracy", "forgetting_score", "nomus", "gap_to_retrained")
    shown = (f"{n}={result[n]:.3f}" for n in names if result.get(n) is not None)
    return f"done in {result['wall_seconds']:.1f}s: " + " ".join(shown)
