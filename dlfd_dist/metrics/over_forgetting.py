"""Forgotten too hard: forget losses pushed above those of images never seen (DLFD, figure 6).

The attack asks whether forgotten images are still recognised; this is the other side of it. An
image whose loss is abnormally high betrays that it was asked to be forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import hypergeom

from .mia import CHANCE, MIN_PER_SIDE

TAIL = 0.05
"""The tail: the losses above the 95th percentile of forget and unseen losses pooled."""

ALPHA = 0.025
"""Level of each of the two tests, tail and location, so that both together err in at most 5 %."""


@dataclass(frozen=True)
class OverForgetting:
    """Whether forget losses are abnormally high.

    flag : the tail holds too many forget losses, or the attack ranks forget below unseen images
    tail_share : share of the forget losses above the 95th percentile of the pooled losses
    expected_share : that share if forget and unseen losses were exchangeable
    p_value : exact chance of so many forget losses in the tail, or more, if exchangeable
    median_difference : median forget loss minus median unseen loss, in nats
    reason : one sentence for a person; empty without the flag
    """

    flag: bool
    tail_share: float
    expected_share: float
    p_value: float
    median_difference: float
    reason: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def over_forgetting(
    forget_losses: np.ndarray, unseen_losses: np.ndarray, *, auc_interval: Sequence[float]
) -> OverForgetting:
    """Test whether forget losses are higher than those of images never seen.

    Tail: given how many of the pooled losses lie in the tail, the number of forget losses among
    them is hypergeometric under exchangeability. Location: the whole interval of the attack's AUC
    lies below 0.5. Both take images as independent; where several are of one person the true level
    is higher, so read the figure beside that of Retrained, which forgot nobody.

    Parameters
    ----------
    forget_losses, unseen_losses : (n,), (m,), neither empty
    auc_interval : 95 % interval of the attack's AUC, forget images being the positives
    """
    n, m = len(forget_losses), len(unseen_losses)
    threshold = np.quantile(np.r_[forget_losses, unseen_losses], 1 - TAIL)
    found, others = (int((side > threshold).sum()) for side in (forget_losses, unseen_losses))
    in_tail = found + others
    share, expected = found / n, in_tail / (n + m)
    p_value = float(hypergeom.sf(found - 1, n + m, n, in_tail))
    ranked_below = min(n, m) >= MIN_PER_SIDE and auc_interval[1] < CHANCE
    reasons = []
    if p_value < ALPHA:
        reasons.append(
            f"{100 * share:.1f} % of the forget losses lie in the highest {100 * expected:.1f} % "
            f"of all losses (p = {p_value:.2g})"
        )
    if ranked_below:
        low, high = auc_interval
        reasons.append(
            "the attack ranks forgotten images below images never seen (95 % interval of its AUC "
            f"{low:.3f} to {high:.3f})"
        )
    difference = float(np.median(forget_losses) - np.median(unseen_losses))
    reason = " and ".join(reasons)
    reason = reason[:1].upper() + reason[1:] + "." if reason else ""
    return OverForgetting(bool(reason), share, expected, p_value, difference, reason)
