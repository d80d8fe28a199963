"""Whether forgotten people are treated as strangers are, by how strangers treat one another.

Forget images are told from strangers A, and so are other strangers B. Where the two AUCs cannot
differ by more than a margin, forgotten people are equivalent to B: two one-sided tests at 5 %, or
that a 90 % interval lies within the margin on both sides (Schuirmann 1987). A and B differ by
chance too, so that the AUC of B against A is what never having been seen looks like, and not 0.5.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .people import MIN_PEOPLE, as_numbers
from .sides import Samples

NUM_DRAWS = 299
"""Draws of people with replacement, of all three sides at once."""
EDGES = (0.05, 0.95)
"""Of the interval, for two one-sided tests at 5 %."""


@dataclass(frozen=True)
class Equivalence:
    """How much more forget images are told from strangers than other strangers are.

    holds : the interval of every signal of the attack lies within the margin, on both sides; None
        where fewer than 16 people a side cannot tell
    signal : the one whose interval reaches furthest
    difference : its AUC of forget against A less that of B against A; above 0 forget images look
        more like members, below 0 less
    interval : 90 %, over people of all three sides
    """

    holds: bool | None
    signal: str
    difference: float
    interval: list[float]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def equivalence(
    forget: Samples, judges: Samples, strangers: Samples, *, margin: float, seed: int = 0
) -> Equivalence:
    """Test forget images for equivalence to the judges, both against the strangers.

    An intersection-union test over the signals of the attack: all of them have to pass, so that no
    level is divided among them.

    Parameters
    ----------
    forget, judges, strangers : none of them empty; nobody is both a judge and a stranger
    margin : of the difference of two AUCs, above 0
    """
    people = [as_numbers(side.people) for side in (forget, judges, strangers)]
    against = {
        name: [_Against(side.signals[name], others) for side in (forget, judges)]
        for name, others in strangers.signals.items()
    }
    apart = np.array(
        [
            [of_forget(f, s) - of_judges(j, s) for of_forget, of_judges in against.values()]
            for f, j, s in _drawn(people, np.random.default_rng([seed, 4]))
        ]
    )
    edges = np.quantile(apart[1:], EDGES, axis=0).T
    furthest = int(np.abs(edges).max(1).argmax())
    name, difference, interval = list(against)[furthest], float(apart[0, furthest]), edges[furthest]
    few = min(int(numbers.max()) + 1 for numbers in people) < MIN_PEOPLE
    holds = None if few else bool(np.abs(interval).max() <= margin)
    return Equivalence(holds, name, difference, interval.tolist())


def _drawn(people: list[np.ndarray], rng: np.random.Generator) -> Iterator[list[np.ndarray]]:
    """Yield weights of the images of each side: of all people first, then of people drawn."""
    yield [np.ones(len(numbers)) for numbers in people]
    for _ in range(NUM_DRAWS):
        counts = (rng.multinomial(n := int(p.max()) + 1, np.full(n, 1 / n)) for p in people)
        yield [c[p].astype(float) for c, p in zip(counts, people, strict=True)]


class _Against:
    """The AUC of scores against others by the weights of both, sorted once; ties count half."""

    def __init__(self, scores: np.ndarray, others: np.ndarray):
        self.order = np.argsort(others, kind="stable")
        ordered = others[self.order]
        self.places = [np.searchsorted(ordered, scores, side) for side in ("left", "right")]

    def __call__(self, weights: np.ndarray, other_weights: np.ndarray) -> float:
        below = np.r_[0, np.cumsum(other_weights[self.order])] / other_weights.sum()
        share = (below[self.places[0]] + below[self.places[1]]) / 2
        return float(weights @ share / weights.sum())
