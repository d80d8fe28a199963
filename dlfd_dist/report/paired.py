"""Every method against DLFD, run by run on the same seeds: paired t-tests, Holm-adjusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import ttest_1samp

from .intervals import independent_values, over_evaluations, t_interval
from .records import DLFD, RunRecord, of_label

PAIRED_METRICS = ("nomus", "gap_to_retrained")

Paired = dict[str, dict[str, Any] | None]
"""per metric: difference, interval, p, p_holm and num_pairs; None where it cannot be tested"""


def paired_with_dlfd(records: Sequence[RunRecord]) -> dict[str, Paired]:
    """Return the tests of every unlearning method but DLFD, by label.

    A pair is two runs of one (train_seed, seed); differences are the method minus DLFD, averaged
    within a train seed first where there are several, and `num_pairs` counts what is then left.
    The p values of one metric are adjusted over the methods.
    """
    labels = dict.fromkeys(r.label for r in records if r.unlearned and r.label != DLFD)
    tests: dict[str, Paired] = {label: {} for label in labels}
    for metric in PAIRED_METRICS:
        dlfd = _by_seeds(of_label(records, DLFD), metric)
        for label in labels:
            tests[label][metric] = _test(_by_seeds(of_label(records, label), metric), dlfd)
        found = [test for paired in tests.values() if (test := paired[metric]) is not None]
        for test, p in zip(found, holm([test["p"] for test in found]), strict=True):
            test["p_holm"] = p
    return tests


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number, in their order.

    The k-th smallest of m is multiplied by m - k + 1, and none is below a smaller one's.
    Source: Holm 1979.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values)
    factors = len(order) - np.arange(len(order))
    adjusted = np.empty(len(order))
    adjusted[order] = np.maximum.accumulate(factors * np.asarray(p_values)[order]).clip(max=1)
    return adjusted.tolist()


def _by_seeds(records: Sequence[RunRecord], metric: str) -> dict[tuple[int, int], float]:
    found = ((r.train_seed, r.seed, r.value(metric)) for r in records)
    return over_evaluations((t, s, value) for t, s, value in found if value is not None)


def _test(
    method: dict[tuple[int, int], float], dlfd: dict[tuple[int, int], float]
) -> dict[str, Any] | None:
    pairs = sorted(method.keys() & dlfd.keys())
    differences = independent_values((seeds[0], method[seeds] - dlfd[seeds]) for seeds in pairs)
    interval = t_interval(differences)
    if interval is None:
        return None
    test: Any = ttest_1samp(differences, 0.0)
    # Where nothing differs t is 0 / 0.
    p = float(test.pvalue) if differences.any() else 1.0
    return {
        "difference": float(differences.mean()),
        "interval": interval,
        "p": p,
        "num_pairs": len(differences),
    }
