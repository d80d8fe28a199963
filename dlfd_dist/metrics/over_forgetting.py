"""Forgotten too hard: forget losses pushed above those of images never seen (DLFD, figure 6).

The attack asks whether forgotten images are still recognised; this is the other side of it. An
image whose loss is abnormally high betrays that it was asked to be forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .mia import CHANCE, few_people
from .people import MIN_PEOPLE, permuted_people
from .sides import Samples, Sides

TAIL = 0.05
"""The tail: the losses above the 95th percentile of forget and unseen losses pooled."""

ALPHA = 0.025
"""Level of each of the two tests, tail and location, so that both together err in at most 5 %."""


@dataclass(frozen=True)
class OverForgetting:
    """Whether forget losses are abnormally high.

    flag : the tail holds too many forget losses, or the attack ranks forget below unseen images;
        None where fewer than 16 people a side cannot tell
    tail_share : share of the forget losses above the 95th percentile of the pooled losses
    expected_share : that share if forget and unseen losses were exchangeable
    p_value : chance of so much more of the forget losses in the tail, if people were exchangeable
    median_difference : median forget loss minus median unseen loss, in nats
    reason : one sentence for a person; empty where the flag is False
    """

    flag: bool | None
    tail_share: float
    expected_share: float
    p_value: float
    median_difference: float
    reason: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def over_forgetting(
    forget: Samples,
    unseen: Samples,
    *,
    auc_interval: Sequence[float],
    seed: int = 0,
    num_permutations: int = 999,
) -> OverForgetting:
    """Test whether forget losses are higher than those of images never seen.

    Tail: the difference of the shares in the tail against permutations of people between the sides
    (within labels where those differ); where everybody has one image, the exact hypergeometric
    test. Location: the whole interval of the attack's AUC, over people, lies below 0.5.

    Parameters
    ----------
    forget, unseen : with the signal "loss"; neither empty
    auc_interval : 95 % interval of the attack's AUC, forget images being the positives
    """
    sides = Sides.of(forget, unseen)
    losses = -np.r_[forget.signals["loss"], unseen.signals["loss"]]
    in_tail = losses > np.quantile(losses, 1 - TAIL)
    share, expected = float(in_tail[sides.is_member].mean()), float(in_tail.mean())
    p_value = _tail_p_value(in_tail, sides, seed, num_permutations)
    difference = float(np.median(losses[sides.is_member]) - np.median(losses[~sides.is_member]))
    people = sides.num_people
    if min(people) < MIN_PEOPLE:
        reason = few_people(people, "nobody can tell whether they were forgotten too hard")
        return OverForgetting(None, share, expected, p_value, difference, reason)
    reasons = []
    if p_value < ALPHA:
        reasons.append(
            f"{100 * share:.1f} % of the forget losses lie in the highest {100 * expected:.1f} % "
            f"of all losses (p = {p_value:.2g} over people)"
        )
    if auc_interval[1] < CHANCE:
        low, high = auc_interval
        reasons.append(
            "the attack ranks forgotten images below images never seen (95 % interval of its AUC "
            f"over people {low:.3f} to {high:.3f})"
        )
    reason = " and ".join(reasons)
    reason = reason[:1].upper() + reason[1:] + "." if reason else ""
    return OverForgetting(bool(reason), share, expected, p_value, difference, reason)


def _tail_p_value(in_tail: np.ndarray, sides: Sides, seed: int, num_permutations: int) -> float:
    from scipy.stats import hypergeom

    sizes = np.bincount(sides.people)
    if sizes.max() == 1 and not sides.within_labels:
        n, hits = int(sides.is_member.sum()), int(in_tail[sides.is_member].sum())
        return float(hypergeom.sf(hits - 1, len(in_tail), n, int(in_tail.sum())))
    counts = np.bincount(sides.people, in_tail)
    is_member, kinds = sides.member_of_person, sides.kind_of_person
    rng = np.random.default_rng([seed, 2])

    def excess(drawn: np.ndarray) -> float:
        shares = (
            counts[drawn].sum() / sizes[drawn].sum(),
            counts[~drawn].sum() / sizes[~drawn].sum(),
        )
        return float(shares[0] - shares[1])

    own = excess(is_member)
    as_high = sum(
        excess(permuted_people(is_member, kinds, rng)) >= own - 1e-12
        for _ in range(num_permutations)
    )
    return (1 + as_high) / (1 + num_permutations)
