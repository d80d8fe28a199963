"""Did a method act? What it moved of the model before it, in weights and in what it answers.

A method that moved nothing, one that only lowers its confidence and one that answers everything
alike can all look well in an attack; here each is told by what it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import softmax

from .similarity import completeness, js_divergence

WEIGHTS_STILL = 0.005
"""A smaller relative change of the weights moved nothing; training anew makes about 0.2 to 1."""
OUTPUTS_STILL = 0.005
"""A smaller mean divergence in bits does so too: that of a probability of .90 and one of .94."""
SAME_ANSWERS = 0.99
"""Share of images answered as before from which the answers count as the same."""
LESS_SURE = 0.02
"""Fall of the mean highest probability from which a model is less sure."""
ALIKE = 0.9
"""Share of images with the same answer from which a model answers everything alike."""
ALIKE_ABOVE_LABELS = 0.2
"""By so much must that share exceed the share of images for which that answer is right."""


@dataclass(frozen=True)
class Moved:
    """What a model says of some images beside what the model before it said.

    divergence : mean Jensen-Shannon divergence per image in bits, 0..1
    same_answers : share of images with the same answer
    confidence_change : mean change of the highest probability; below 0 where it is less sure
    """

    divergence: float
    same_answers: float
    confidence_change: float


def moved(after: np.ndarray, before: np.ndarray) -> Moved | None:
    """Return how far the answers moved; None without images.

    Parameters
    ----------
    after, before : (n, C) of one softmax, or (n, L, 2) with a pair per label (`label_pairs`)
    """
    if not len(after):
        return None
    highest = [softmax(side, axis=-1).max(-1).mean() for side in (after, before)]
    return Moved(
        float(js_divergence(after, before).mean()),
        completeness(after, before),
        float(highest[0] - highest[1]),
    )


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
    still = (weights or 0.0) < WEIGHTS_STILL and farthest < OUTPUTS_STILL
    same = min((part.same_answers for part in known.values()), default=0.0)
    forget = known.get("forget")
    paler = forget is not None and forget.confidence_change < -LESS_SURE
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
            f"{100 * same:.1f} % of the images of every set, and is "
            f"{-100 * forget.confidence_change:.1f} points less sure of the forgotten ones."
        )
    return {
        **{
            name: {part: found and getattr(found, name) for part, found in parts.items()}
            for name in ("divergence", "same_answers", "confidence_change")
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
    """

    flag: bool
    share: float
    right_share: float
    reason: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def alike(logits: np.ndarray, labels: np.ndarray) -> Alike | None:
    """Return whether the model answers everything alike; None without images.

    With several labels an answer is the answer to all of them.

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
    flag = share >= ALIKE and share - right >= ALIKE_ABOVE_LABELS
    reason = (
        f"It answers {100 * share:.1f} % of the test images alike, and that answer is right for "
        f"{100 * right:.1f} % of them."
    )
    return Alike(flag, share, right, reason if flag else "")
