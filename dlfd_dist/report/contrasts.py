"""The comparisons that were named before the runs, and no others: different, tied, or neither.

`holm` adjusts over the contrasts of a figure. A difference that is not established comes with the
smallest that would have been found, and "tied" stands only after two one-sided tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any, TypeVar

import numpy as np

from ..metrics import Estimate
from ..objectives import gap_on_val, on_val
from ..plain import counted
from .intervals import MIN_CROSSED, is_crossed, over_evaluations, over_seeds
from .records import DLFD, FINE_TUNE, ORIGINAL, RETRAINED, RunRecord, of_label

BEST = "best other"
"""The best of the methods that no contrast names, by validation."""
MARGIN = 0.03
LEVEL = 0.05
DIFFERENT, TIED, OPEN, UNTESTED = "different", "tied", "no difference established", "not tested"
FIGURES = {
    "gap_to_retrained": "gap to Retrained",
    "nomus": "NoMUS",
    "mia_accuracy": "attack accuracy",
    "test_accuracy": "test accuracy",
}

Pairs = Sequence[tuple[str, str]]
T = TypeVar("T")


@dataclass(frozen=True)
class Contrast:
    """One figure of two rows on the same seeds: subject minus other.

    detectable : smallest true difference found four times in five at the level of the adjustment
    p_holm, p_tied : adjusted over the contrasts of the figure; p_tied of two one-sided tests that
        the difference lies within +-margin
    reason : why it could not be tested; empty where it was
    """

    subject: str
    other: str
    metric: str
    margin: float
    verdict: str = UNTESTED
    reason: str = ""
    num_values: int = 0
    difference: float | None = None
    interval: list[float] | None = None
    p: float | None = None
    p_holm: float | None = None
    p_tied: float | None = None
    detectable: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def sentence(self) -> str:
        """The contrast in words, such as `DLFD against Original, NoMUS: +0.021 ...`."""
        head = f"{self.subject} against {self.other}, {FIGURES[self.metric]}: "
        if self.difference is None or self.interval is None:
            return f"{head}{UNTESTED}, {self.reason}"
        low, high = self.interval
        text = f"{head}{self.difference:+.3f} [{low:+.3f}, {high:+.3f}], {_p(self.p_holm)}: "
        if self.verdict == DIFFERENT:
            within = self.p_tied is not None and self.p_tied < LEVEL
            return text + DIFFERENT + (f", by less than {self.margin:g}" if within else "")
        if self.verdict == TIED:
            return text + f"{TIED} within {self.margin:g} ({_p(self.p_tied)})"
        return text + f"{OPEN}; one below {self.detectable:.3f} is missed in a fifth of the cases"


def sentences(contrasts: Sequence[Contrast]) -> list[str]:
    """Return contrasts in words: each that was tested, and those of one reason why not together."""
    tested = [contrast.sentence for contrast in contrasts if contrast.difference is not None]
    untested: dict[tuple[str, str], list[Contrast]] = {}
    for contrast in contrasts:
        if contrast.difference is None:
            untested.setdefault((contrast.subject, contrast.reason), []).append(contrast)
    return [*tested, *map(_together, untested.values())]


def _together(untested: Sequence[Contrast]) -> str:
    first, *more = untested
    if not more:
        return first.sentence
    others = ", ".join(dict.fromkeys(contrast.other for contrast in untested))
    return (
        f"{first.subject} against {others}: {UNTESTED} in any of {len(untested)} contrasts, "
        f"{first.reason}"
    )


def _p(value: float | None) -> str:
    return "p < 0.001" if value is not None and value < 0.001 else f"p {value:.3f}"


def default_pairs(labels: Sequence[str]) -> list[tuple[str, str]]:
    """Return the contrasts that are tested unless others are named, of rows that are there.

    DLFD, or where it is not there the last method, against Original, Retrained, Fine-tune and the
    best other.

    Parameters
    ----------
    labels : of the rows in their order
    """
    references = (ORIGINAL, RETRAINED, FINE_TUNE)
    methods = [label for label in labels if label not in references]
    if not methods:
        return []
    subject = DLFD if DLFD in methods else methods[-1]
    others = [label for label in references if label in labels]
    return [(subject, other) for other in (*others, *([BEST] if len(methods) > 1 else []))]


def contrasts_of(
    records: Sequence[RunRecord], pairs: Pairs, margin: float = MARGIN
) -> list[Contrast]:
    """Return every figure of every contrast, tested on the seeds that both rows have.

    A pair is two runs of one train seed and seed; where all forget the same people Original and
    Retrained have one run per train seed, which is held against every run unlearned from it. The
    gap is not tested against Retrained, which is its other end.
    """
    named = [(subject, _resolved(records, pairs, subject, other)) for subject, other in pairs]
    made = []
    for metric in FIGURES:
        estimated = [
            _contrast(records, subject, other, metric, margin)
            for subject, other in dict.fromkeys(named)
            if other is not None and not (metric == "gap_to_retrained" and other == RETRAINED)
        ]
        made += _adjusted(estimated)
    return made


def _resolved(records: Sequence[RunRecord], pairs: Pairs, subject: str, other: str) -> str | None:
    named = {subject, *(name for pair in pairs for name in pair)}
    return best_other(records, named) if other == BEST else other


def best_other(records: Sequence[RunRecord], named: set[str]) -> str | None:
    """Return the best method that no contrast names, by validation; None where there is none.

    The smallest mean gap to Retrained on validation, or where no Retrained has one the highest
    validation NoMUS. A method that left the model as it is no candidate.
    """
    retrained = {(r.train_seed, r.seed): _on_val(r) for r in of_label(records, RETRAINED)}
    scores: dict[str, list[tuple[float | None, float]]] = {}
    for record in records:
        own = _on_val(record)
        reference = _partner(retrained, (record.train_seed, record.seed), trained=True)
        acted = not (record.result.get("against_original") or {}).get("left_as_is")
        if own is None or not record.unlearned or record.label in named or not acted:
            continue
        gap = None if reference is None else gap_on_val(own, reference)
        scores.setdefault(record.label, []).append((gap, own["nomus"]))

    def cost(label: str) -> float:
        gaps = [gap for gap, _ in scores[label] if gap is not None]
        by_gap = all(gap is not None for own in scores.values() for gap, _ in own)
        return fmean(gaps) if by_gap else -fmean(nomus for _, nomus in scores[label])

    return min(scores, key=cost, default=None)


def _on_val(record: RunRecord) -> dict[str, Any] | None:
    """Return what a run tells of retain, forget and val; None where it was not measured."""
    validation = record.result.get("validation")
    return on_val(record.result) if validation else None


def _contrast(
    records: Sequence[RunRecord], subject: str, other: str, metric: str, margin: float
) -> tuple[Contrast, Estimate | None]:
    differences = _differences(records, subject, other, metric)
    bare = Contrast(subject, other, metric, margin, num_values=len(differences))
    estimate = over_seeds(differences)
    if estimate is None:
        return replace(bare, reason=_why_untested(differences)), None
    tested = replace(bare, difference=estimate.mean, interval=estimate.interval(), p=estimate.p)
    return tested, estimate


def paired(records: Sequence[RunRecord], subject: str, other: str, metric: str) -> Estimate | None:
    """Return the mean difference of two rows over the seeds of both; None of too few seeds."""
    return over_seeds(_differences(records, subject, other, metric))


def _differences(
    records: Sequence[RunRecord], subject: str, other: str, metric: str
) -> list[tuple[int, int, float]]:
    """Return train seed, seed and the difference of subject to other, for the seeds of both."""
    own, reference = (_by_seeds(of_label(records, name), metric) for name in (subject, other))
    return [
        (*seeds, value - partner)
        for seeds, value in own.items()
        if (partner := _partner(reference, seeds, trained=other in (ORIGINAL, RETRAINED)))
        is not None
    ]


def _partner(
    values: Mapping[tuple[int, int], T], seeds: tuple[int, int], *, trained: bool
) -> T | None:
    """Return what belongs to a run's train seed and seed.

    trained : of a trained model, which has one run per train seed where all forget the same people
    """
    of_training = {train_seed: value for (train_seed, _), value in values.items()}
    if seeds in values or not trained or len(of_training) < len(values):
        return values.get(seeds)
    return of_training.get(seeds[0])


def _by_seeds(records: Sequence[RunRecord], metric: str) -> dict[tuple[int, int], float]:
    values = ((r.train_seed, r.seed, r.value(metric)) for r in records)
    return over_evaluations((t, s, value) for t, s, value in values if value is not None)


def _why_untested(differences: Sequence[tuple[int, int, float]]) -> str:
    if is_crossed((train_seed, seed) for train_seed, seed, _ in differences):
        return f"crossed seeds need {MIN_CROSSED} of either axis."
    return f"{counted(len(differences), 'seed')} in common, and a test needs 2."


def _adjusted(estimated: Sequence[tuple[Contrast, Estimate | None]]) -> list[Contrast]:
    """Return the contrasts of one figure with their adjusted p values and verdicts."""
    tested = [(contrast, estimate) for contrast, estimate in estimated if estimate is not None]
    p_holm = holm([estimate.p for _, estimate in tested])
    p_tied = holm([estimate.p_equivalent(contrast.margin) for contrast, estimate in tested])
    judged = [contrast for contrast, estimate in estimated if estimate is None]
    for (contrast, estimate), p, tied in zip(tested, p_holm, p_tied, strict=True):
        verdict = DIFFERENT if p < LEVEL else TIED if tied < LEVEL else OPEN
        # At the first and strictest step of the adjustment.
        least = estimate.detectable(LEVEL / len(tested))
        judged.append(replace(contrast, p_holm=p, p_tied=tied, verdict=verdict, detectable=least))
    order = [(contrast.subject, contrast.other) for contrast, _ in estimated]
    return sorted(judged, key=lambda contrast: order.index((contrast.subject, contrast.other)))


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


def settings_of(contrasts: Mapping[str, Any] | None, labels: Sequence[str]) -> tuple[Pairs, float]:
    """Return pairs and margin as comparison.json holds them, the defaults where it holds none."""
    if contrasts is None:
        return default_pairs(labels), MARGIN
    return [(pair[0], pair[1]) for pair in contrasts["pairs"]], contrasts["margin"]
