"""Forward passes over whole sets, sharded over the ranks, and what is measured on them."""

from __future__ import annotations

import contextlib
import math
import resource
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from ..config import DLFDConfig, DLFMConfig, JobConfig
from ..data.loaders import Batches
from ..errors import NonFiniteLossError
from ..methods import MethodContext, Probe
from ..metrics import (
    Equivalence,
    Outputs,
    accuracy_error,
    accuracy_per_label,
    alike,
    class_separation,
    completeness,
    equivalence,
    forgetting_score,
    gap_parts,
    gap_to_retrained,
    linear_cka,
    membership_attack,
    membership_probes,
    mia_paper,
    nomus,
    over_forgetting,
    quick_attack,
    salun_gap,
    salun_mia,
    tug_of_war,
    without_retrained,
    zero_retrain_forgetting,
)
from ..metrics.mia import CHANCE, majority_share
from ..models import Classifier
from ..run_dir import RunDir, replacing
from ..runtime.collectives import Collectives
from ..synthesis import frozen
from .passes import FIRST_PASS, passes

ATTACK_FIGURES = (
    "mia", "mia_paper", "mia_paper_floor", "salun_mia", "forgetting_score", "nomus", "nomus_paper",
)  # fmt: skip
"""Figures of forgetting in a result; the floor of the papers' attack is the majority's share."""
PROBE_PERMUTATIONS = 199
"""Permutations of people in a probe's test of over-forgetting."""


@torch.no_grad()
def run_model(
    model: Classifier, batches: Batches, ids: np.ndarray, batch_size: int | None
) -> Outputs:
    """Return the model's outputs on samples; every rank computes its share once.

    Parameters
    ----------
    batch_size : images per forward pass and rank; None: as `passes` says

    Raises NonFiniteLossError on every rank when an output is not a number.
    """
    collectives = batches.collectives
    logits, features = [], []
    with frozen(model):
        chunks = passes(ids, batch_size, collectives)
        chunk = next(chunks, None)
        while chunk is not None:
            output = model(batches.shard(chunk)[0])
            following = next(chunks, None)
            if following is not None:
                batches.expect(following)
            logits.append(collectives.gather_rows(output.logits, len(chunk)).cpu())
            features.append(collectives.gather_rows(output.features, len(chunk)).cpu())
            chunk = following
    manifest = batches.data.manifest
    people, labels = manifest.identities[ids], batches.labels[ids].numpy()
    if not logits:
        empty = np.empty((0, manifest.num_outputs))
        return Outputs(ids, people, labels, empty, np.empty((0, 1)))
    outputs = Outputs(
        ids, people, labels,
        torch.cat(logits).double().numpy(), torch.cat(features).double().numpy(),
    )  # fmt: skip
    if not (np.isfinite(outputs.logits).all() and np.isfinite(outputs.features).all()):
        raise NonFiniteLossError(
            "The outputs of the model became NaN or infinite. Lower the learning rate, set "
            "clip_norm, or check the checkpoint for NaN."
        )
    return outputs


def run_together(
    model: Classifier, batches: Batches, sets: Sequence[np.ndarray], batch_size: int | None
) -> list[Outputs]:
    """Return the outputs on several sets of one pass: only its last batch may be a small one."""
    outputs = run_model(model, batches, np.concatenate(sets), batch_size)
    ends = np.cumsum([len(ids) for ids in sets]).tolist()
    return [outputs[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@contextlib.contextmanager
def probed_model(context: MethodContext, batches: Batches) -> Iterator[Classifier]:
    """Yield the model of a run as its probes forward it: folded, with the weights of now."""
    config = context.config
    image_shape = batches.data.manifest.image_shape(config.data)
    with context.folded.computed_in(
        (config.metrics.eval_batch_size or FIRST_PASS, *image_shape),
        bfloat16=config.runtime.update_in_bfloat16,
    ) as model:
        yield model


def probe(
    model: Classifier,
    batches: Batches,
    config: JobConfig,
    step: int,
    strangers: Outputs | None = None,
) -> Probe:
    """Return accuracy on val and the attack of the forget set against val.

    strangers : what the model says of those who are matched to, where method.rests_by asks for it
    """
    splits = batches.data.splits
    return _probe(model, batches, config, step, splits.forget, splits.val, strangers)


def probe_apart(
    model: Classifier, batches: Batches, config: JobConfig, step: int, ids: np.ndarray
) -> Probe:
    """Return the probe on validation people who are set apart for it."""
    return _probe(model, batches, config, step, batches.data.splits.forget, ids)


def thinned_probe(model: Classifier, batches: Batches, config: JobConfig, step: int) -> Probe:
    """Return the probe of method.probe_images images where that decides, else the whole probe.

    It decides when the score lies two standard errors above method.forget_threshold. The sample is
    stratified by label and the same at every step, so that two probes differ by the model alone.
    """
    cfg, splits = config.method, batches.data.splits
    size = cfg.probe_images if isinstance(cfg, DLFDConfig) else None
    if size is None or size >= min(len(splits.forget), len(splits.val)):
        return probe(model, batches, config, step)
    assert isinstance(cfg, DLFDConfig)
    labels, seed = batches.data.manifest.labels, config.metrics.seed
    forget, val = (stratified(ids, labels, size, seed) for ids in (splits.forget, splits.val))
    sampled = _probe(model, batches, config, step, forget, val)
    error = sampling_error(sampled.forgetting_score, size, min(len(splits.forget), len(splits.val)))
    if sampled.forgetting_score - 2 * error > cfg.forget_threshold:
        return replace(sampled, standard_error=error)
    return probe(model, batches, config, step)


def stratified(ids: np.ndarray, labels: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Return `size` of the ids, ascending: of each label its share, to the nearest whole.

    labels : (N,) or (N, L) of all samples; with several labels, each combination is a stratum
    """
    order = np.random.default_rng([seed, len(ids)]).permutation(ids)
    kinds = np.unique(labels[order], axis=0, return_inverse=True)[1].ravel()
    # Every k-th of the ids sorted by stratum takes of each stratum its share.
    sorted_ids = order[np.argsort(kinds, kind="stable")]
    return np.sort(sorted_ids[(np.arange(size) * len(ids)) // size])


def sampling_error(score: float, size: int, num_all: int) -> float:
    """Return the standard error of a forgetting score of `size` of `num_all` images a side.

    That of the attack's accuracy, a share of 2 * size images, with the correction for a sample
    from a finite set. The images of the same people are drawn, so that how alike the images of a
    person are does not enlarge it.
    """
    accuracy = min(1.0, CHANCE + score)
    return math.sqrt(accuracy * (1 - accuracy) / (2 * size) * (1 - size / num_all))


def _probe(
    model: Classifier,
    batches: Batches,
    config: JobConfig,
    step: int,
    forget_ids: np.ndarray,
    val_ids: np.ndarray,
    strangers: Outputs | None = None,
) -> Probe:
    size = config.metrics.eval_batch_size
    forget, val = run_together(model, batches, (forget_ids, val_ids), size)
    figures = against_val(forget, val, config, config.method.probe_attack)
    error = figures["auc_error"]
    around = (figures["mia_auc"] - error, figures["mia_auc"] + error)
    hard = over_forgetting(
        forget.samples, val.samples,
        auc_interval=around, seed=config.metrics.seed, num_permutations=PROBE_PERMUTATIONS,
    )  # fmt: skip
    return Probe(
        step=step,
        val_accuracy=figures["accuracy"],
        forget_accuracy=forget.accuracy or 0.0,
        forgetting_score=figures["forgetting_score"],
        mia_auc=figures["mia_auc"],
        nomus=figures["nomus"],
        auc_error=error,
        forgetting_score_se=figures["forgetting_score_se"],
        nomus_se=figures["nomus_se"],
        over_forgotten=bool(hard.flag),
        separation=_separation(val) if config.metrics.separation else None,
        equivalence=None if strangers is None else _equivalence(forget, val, strangers, config),
    )


def _equivalence(
    forget: Outputs, val: Outputs, strangers: Outputs, config: JobConfig
) -> Equivalence:
    assert isinstance(config.method, DLFMConfig)
    return equivalence(
        forget.samples, val.samples, strangers.samples,
        margin=config.method.margin, seed=config.metrics.seed,
    )  # fmt: skip


def against_val(forget: Outputs, val: Outputs, config: JobConfig, attack: str) -> dict[str, float]:
    """Return what selection and tuning go by: nothing of it has seen the test set."""
    quick = quick_attack(forget.samples, val.samples, seed=config.metrics.seed)
    attacked = quick.accuracy
    if attack == "mia_paper":
        papers = mia_paper(forget.losses, val.losses)
        assert papers is not None, "prepare() refuses sets too small for this attack"
        attacked = papers
    val_accuracy, score = val.accuracy or 0.0, forgetting_score(attacked)
    of_accuracy = accuracy_error(val.logits, val.labels, val.people)
    return {
        "accuracy": val_accuracy,
        "forgetting_score": score,
        "forgetting_score_se": quick.accuracy_error,
        "mia_auc": quick.auc,
        "auc_error": quick.auc_error,
        "nomus": nomus(val_accuracy, score),
        "nomus_se": math.hypot(of_accuracy / 2, quick.accuracy_error),
    }


def _separation(val: Outputs) -> dict[str, float]:
    figures = class_separation(val.features, val.labels, val.people).to_dict()
    return {name: value for name, value in figures.items() if value is not None}


@dataclass(frozen=True)
class Evaluation:
    """The outputs on every part, and the figures they give."""

    parts: dict[str, Outputs]
    figures: dict[str, Any]


def outputs_of_parts(model: Classifier, batches: Batches, config: JobConfig) -> dict[str, Outputs]:
    """Return what a model says of every part; every rank calls it."""
    parts = batches.data.splits.parts()
    outputs = run_together(model, batches, list(parts.values()), config.metrics.eval_batch_size)
    return dict(zip(parts, outputs, strict=True))


def evaluated(parts: dict[str, Outputs], config: JobConfig) -> Evaluation:
    """Measure a model by its outputs: accuracies, attacks, forgetting score, NoMUS."""
    figures: dict[str, Any] = {f"{name}_accuracy": part.accuracy for name, part in parts.items()}
    per_label = {name: accuracy_per_label(part.logits, part.labels) for name, part in parts.items()}
    if any(per_label.values()):
        figures["accuracy_per_label"] = per_label
    return Evaluation(parts, figures | _attacks(parts, config, figures["test_accuracy"]))


def further_figures(evaluation: Evaluation, config: JobConfig) -> dict[str, Any]:
    """Return what is told of the delivered model alone, not of the reference.

    The other side of the attack on test, the attack on val, attacks on the features, what can be
    said without Retrained, whether test images are answered alike, and the class separation on
    test; all but the last two are None where nobody was forgotten.
    """
    forget, val, test = (evaluation.parts[name] for name in ("forget", "val", "test"))
    answers = alike(test.logits, test.labels)
    figures: dict[str, Any] = {
        "over_forgetting": None,
        "validation": None,
        "membership_probes": None,
        "without_retrained": None,
        "alike": answers and answers.to_dict(),
        "separation": class_separation(test.features, test.labels, test.people).to_dict(),
    }
    if len(forget.ids):
        interval = evaluation.figures["mia"]["auc_interval"]
        judged = over_forgetting(
            forget.samples, test.samples, auc_interval=interval, seed=config.metrics.seed
        )
        figures["over_forgetting"] = judged.to_dict()
        figures["validation"] = against_val(forget, val, config, "mia")
        figures["membership_probes"] = membership_probes_of(evaluation)
        figures["without_retrained"] = without_retrained(evaluation.figures["mia"]).to_dict()
    return figures


def membership_probes_of(evaluation: Evaluation) -> dict[str, float] | None:
    forget, test = (evaluation.parts[name] for name in ("forget", "test"))
    probes = membership_probes(forget.features, test.features, people=(forget.people, test.people))
    return probes.to_dict() if probes else None


def _attacks(
    parts: Mapping[str, Outputs], config: JobConfig, test_accuracy: float
) -> dict[str, Any]:
    forget, test = parts["forget"], parts["test"]
    if not len(forget.ids):
        return dict.fromkeys(ATTACK_FIGURES)
    mia = membership_attack(
        forget.samples, test.samples,
        seed=config.metrics.seed, num_permutations=config.metrics.num_bootstrap,
    )  # fmt: skip
    papers = mia_paper(forget.losses, test.losses)
    return {
        "mia": mia.to_dict(),
        "mia_paper": papers,
        "salun_mia": salun_mia(parts["retain"].losses, test.losses, forget.losses),
        "mia_paper_floor": majority_share(len(forget.ids), len(test.ids)),
        "forgetting_score": mia.forgetting_score,
        "nomus": nomus(test_accuracy, mia.forgetting_score),
        "nomus_paper": None if papers is None else nomus(test_accuracy, forgetting_score(papers)),
    }


def against_reference(model: Evaluation, reference: Evaluation) -> dict[str, Any]:
    """Return how near a model is to Retrained, which never saw the forgotten people.

    Figures of the forget set are None where nobody was forgotten.
    """
    if model.figures["mia"] is None:
        return {"gap_to_retrained": None, "against_retrained": None}
    parts = gap_parts(
        model.parts, reference.parts, (model.figures["mia"], reference.figures["mia"])
    )
    forget, retrained = model.parts["forget"], reference.parts["forget"]
    return {
        "gap_to_retrained": gap_to_retrained(parts),
        "against_retrained": {
            "parts": {name: asdict(part) for name, part in parts.items()},
            "salun_gap": salun_gap(model.figures, reference.figures),
            "tug_of_war": tug_of_war(model.figures, reference.figures),
            "completeness": completeness(forget.predictions, retrained.predictions),
            "js_divergence": parts["js_divergence"].difference,
            "forget_cka": linear_cka(forget.features, retrained.features),
            "test_cka": linear_cka(model.parts["test"].features, reference.parts["test"].features),
            "membership_probes": membership_probes_of(reference),
        },
    }


def against_fresh(forget: Outputs, fresh: Outputs) -> float:
    """Return how near a model is on forgotten images to one that learned nothing."""
    return zero_retrain_forgetting(forget.predictions, fresh.predictions)


def peak_memory_mb(collectives: Collectives) -> float:
    """Return the largest peak memory of a rank: device memory on CUDA, else resident memory."""
    if collectives.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(collectives.device) / 1e6
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    own = torch.tensor([peak], dtype=torch.float64, device=collectives.device)
    return float(collectives.all_reduce_max(own))


def save_samples(
    run_dir: RunDir,
    parts: Mapping[str, Outputs],
    identities: np.ndarray,
    logits: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write what every figure over people is made of, for the report and later audits.

    Of each sample its id, person, labels, logits, features, loss and confidence. A person is a
    number in the order of all identities of the set, so that parts and runs agree on it.

    Parameters
    ----------
    identities : of all samples of the set; where nobody is known each sample is its own person
    logits : further logits, of other models on one of the parts; each goes in as `<name>.logits`
    """
    numbers = np.unique(identities, return_inverse=True)[1]
    tensors = {}
    for name, part in parts.items():
        if not len(part.ids):
            continue
        tensors |= {
            f"{name}.ids": part.ids.astype(np.int64),
            f"{name}.person": numbers[part.ids].astype(np.int64),
            f"{name}.labels": part.labels.astype(np.int64),
            f"{name}.logits": part.logits.astype(np.float32),
            f"{name}.loss": part.losses.astype(np.float32),
            f"{name}.confidence": part.confidence.astype(np.float32),
            f"{name}.features": part.features.astype(np.float32),
        }
    for name, values in (logits or {}).items():
        tensors[f"{name}.logits"] = values.astype(np.float32)
    with replacing(run_dir.samples) as partial:
        save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, partial)
