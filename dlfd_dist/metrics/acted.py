"""Did a method act? What it moved of the model before it, in weights and in what it answers.

A method that moved nothing, one that only lowers its confidence and one that answers everything
alike can all look well in an attack; here each is told by what it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import logsumexp, softmax

from .similarity import completeness, js_divergence

WEIGHTS_STILL = 0.005
"""A smaller relative change of the weights moved nothing; training anew makes about 0.2 to 1."""
OUTPUTS_STILL = 0.005
"""A smaller mean divergence in bits does so too: that of a probability of .90 and one of .94."""
SAME_ANSWERS = 0.99
"""Share of images answered as before from which the answers count as the same."""
LESS_SURE = 0.02
"""Fall of the mean highest probability from which a model is less sure."""
LESS_SURE_LOGIT = 0.25
"""Share of its logit confidence from whose loss a model is less sure: its probabilities may all be
1 in every digit that is stored, before and after."""
ALIKE = 0.9
"""Share of images with the same answer below which a model does not answer everything alike."""
ALIKE_ABOVE_LABELS = 0.2
"""By so much that share may exceed the share of images for which that answer is right."""
NEARLY_ALL, NEARLY_ALL_ABOVE = 0.99, 0.02
"""The same two of a model that gives nearly every image one answer."""
NEAR_CHANCE = 0.05
"""Balanced accuracy so little above that of one answer for all is at chance."""


@dataclass(frozen=True)
class Moved:
    """What a model says of some images beside what the model before it said.

    divergence : mean Jensen-Shannon divergence per image in bits, 0..1
    same_answers : share of images with the same answer
    confidence_change : mean change of the highest probability; below 0 where it is less sure
    logit_change : relative change of the mean logit confidence, log p - log(1 - p) of the highest
        probability p; -0.5 where it is half of what it was, 0 where it was none before
    """

    divergence: float
    same_answers: float
    confidence_change: float
    logit_change: float

    @property
    def is_less_sure(self) -> bool:
        return self.confidence_change < -LESS_SURE or self.logit_change < -LESS_SURE_LOGIT


def moved(after: np.ndarray, before: np.ndarray) -> Moved | None:
    """Return how far the answers moved; None without images.

    Parameters
    ----------
    after, before : (n, C) of one softmax, or (n, L, 2) with a pair per label (`label_pairs`)
    """
    if not len(after):
        return None
    highest = [softmax(side, axis=-1).max(-1).mean() for side in (after, before)]
    sure = [_logit_of_answer(side) for side in (after, before)]
    return Moved(
        float(js_divergence(after, before).mean()),
        completeness(after, before),
        float(highest[0] - highest[1]),
        sure[0] / sure[1] - 1 if sure[1] > 0 else 0.0,
    )


def _logit_of_answer(logits: np.ndarray) -> float:
    """Return the mean of log p - log(1 - p) of the answers, from logits and never from p."""
    ordered = np.sort(np.asarray(logits, dtype=np.float64), axis=-1)
    return float((ordered[..., -1] - logsumexp(ordered[..., :-1], axis=-1)).mean())


def relative_change(before: np.ndarray, after: np.ndarray) -> float | None:
    """Return ||after - before|| / ||before|| of weights; None where there is nothing before."""
    size = float(np.linalg.norm(before))
    return float(np.linalg.norm(after - before)) / size if size > 0 else None


def against_original(weights: float | None, parts: Mapping[str, Moved | None]) -> dict[str, Any]:
    """Return what was moved, and whether it was nothing, or the confidence alone.

    Parameters
    ----------
    weights : relative change of all weights
    parts : of retain, forget and val; None of a part without images
    """
    known = {name: part for name, part in parts.items() if part is not None}
    farthest = max((part.divergence for part in known.values()), default=0.0)
    forget = known.get("forget")
    paler = forget is not None and forget.is_less_sure
    still = (weights or 0.0) < WEIGHTS_STILL and farthest < OUTPUTS_STILL and not paler
    same = min((part.same_answers for part in known.values()), default=0.0)
    only_confidence = not still and same >= SAME_ANSWERS and paler
    reason = ""
    if still:
        reason = (
            f"It left the model as it is: its weights moved by {weights or 0.0:.2g} of their size "
            f"(below {WEIGHTS_STILL:g}), its answers by {farthest:.2g} bits (below "
            f"{OUTPUTS_STILL:g})."
        )
    elif only_confidence and forget is not None:
        reason = (
            f"It only lowers its confidence: it answers as the model before it on at least "
            f"{100 * same:.1f} % of the images of every set, and is less sure of the forgotten "
            f"ones: the highest probability changed by {100 * forget.confidence_change:.1f} "
            f"points, its logit confidence by {100 * forget.logit_change:.0f} %."
        )
    return {
        **{
            name: {part: change and getattr(change, name) for part, change in parts.items()}
            for name in ("divergence", "same_answers", "confidence_change", "logit_change")
        },
        "left_as_is": still,
        "only_confidence": only_confidence,
        "reason": reason,
    }


@dataclass(frozen=True)
class Alike:
    """Whether a model answers everything alike.

    share : share of images with the most frequent answer
    right_share : share of images for which that answer is right
    balanced_accuracy : mean over labels of the share of their images that are answered right
    """

    flag: bool
    share: float
    right_share: float
    balanced_accuracy: float
    reason: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def alike(logits: np.ndarray, labels: np.ndarray) -> Alike | None:
    """Return whether the model answers everything alike; None without images.

    It does where one answer is given to most images and is right for far fewer, or where accuracy
    is at chance once every label counts the same: of a majority of .9, one answer for all is right
    nine times in ten and no better than guessing. With several labels an answer is the answer to
    all of them.

    Parameters
    ----------
    logits : (n, C) with labels (n,), or (n, L) with labels (n, L) of zeros and ones
    """
    if not len(labels):
        return None
    answers = logits.argmax(1)[:, None] if labels.ndim == 1 else (logits > 0).astype(int)
    kinds, counts = np.unique(answers, axis=0, return_counts=True)
    share = float(counts.max() / len(answers))
    truth = labels.reshape(len(labels), -1)
    right = float((truth == kinds[counts.argmax()]).all(1).mean())
    true_kinds, kind = np.unique(truth, axis=0, return_inverse=True)
    is_right = (answers == truth).all(1)
    balanced = float((np.bincount(kind.ravel(), is_right) / np.bincount(kind.ravel())).mean())
    at_chance = len(true_kinds) > 1 and balanced <= 1 / len(true_kinds) + NEAR_CHANCE
    flag = (share >= ALIKE and (share - right >= ALIKE_ABOVE_LABELS or at_chance)) or (
        share >= NEARLY_ALL and share - right > NEARLY_ALL_ABOVE
    )
    reason = (
        f"It answers {100 * share:.1f} % of the test images alike, and that answer is right for "
        f"{100 * right:.1f} % of them; with every label counted the same, "
        f"{100 * balanced:.1f} % of the answers are right."
    )
    return Alike(flag, share, right, balanced, reason if flag else "")
