"""Contrasts named before the runs: what is tested, and when rows are different, tied or neither."""

from __future__ import annotations

import csv
import dataclasses
import io

import numpy as np
import pytest
from scipy import stats

from dlfd_dist.metrics import Estimate
from dlfd_dist.report import latex_table, markdown_table, summarise, text_table
from dlfd_dist.report.contrasts import (
    BEST,
    FIGURES,
    best_other,
    contrasts_of,
    default_pairs,
    holm,
    sentences,
)
from dlfd_dist.report.records import of_label
from dlfd_dist.report.summary import findings_of
from dlfd_dist.report.tables import contrasts_csv
from tests.fakes.reports import with_result
from tests.fakes.run_dirs import moved_by

PAIR = [("DLFD", "Fine-tune")]


def of(found, metric: str, other: str = "Fine-tune"):
    return next(one for one in found if (one.metric, one.other) == (metric, other))


def shifted(records, by, metric: str = "nomus"):
    """Return DLFD's runs, and Fine-tune's as copies of them with a figure lower by so much."""
    runs = of_label(records, "DLFD")
    copies = [
        with_result(dataclasses.replace(run, label="Fine-tune"), **{metric: run.result[metric] - d})
        for run, d in zip(runs, by, strict=True)
    ]
    return [*runs, *copies]


def test_only_what_was_named_is_tested_and_adjusted_over_that_alone(records):
    found = contrasts_of(records, [*PAIR, ("DLFD", "Original")])
    assert {(one.subject, one.other) for one in found} == {*PAIR, ("DLFD", "Original")}
    own, other = (
        [run.result["nomus"] for run in of_label(records, name)] for name in ("DLFD", "Fine-tune")
    )
    test = of(found, "nomus")
    wanted = stats.ttest_rel(own, other)
    assert test.p == pytest.approx(wanted.pvalue)
    assert test.interval == pytest.approx(list(wanted.confidence_interval(0.95)))
    assert test.difference == pytest.approx(np.mean(own) - np.mean(other))
    assert test.num_values == 3
    raw = [of(found, "nomus", name).p for name in ("Fine-tune", "Original")]
    assert [of(found, "nomus", n).p_holm for n in ("Fine-tune", "Original")] == holm(raw)
    alone = of(contrasts_of(records, PAIR), "nomus")
    assert alone.p_holm == alone.p
    error = (test.interval[1] - test.difference) / stats.t.ppf(0.975, 2)
    assert test.detectable == pytest.approx(Estimate(0, error, 2).detectable(0.025), rel=1e-6)
    assert of(found, "nomus").detectable > of([alone], "nomus").detectable


@pytest.mark.parametrize(
    ("by", "margin", "verdict", "words"),
    [
        ((0.100, 0.101, 0.102), 0.03, "different", "different"),
        ((0.010, 0.011, 0.010), 0.03, "different", "different, by less than 0.03"),
        ((0.001, -0.001, 0.000), 0.03, "tied", "tied within 0.03"),
        ((0.001, -0.001, 0.000), 0.0001, "no difference established", "; one below 0.0"),
        ((0.300, -0.200, 0.010), 0.03, "no difference established", "is missed in a fifth"),
    ],
)
def test_tied_stands_only_after_two_one_sided_tests(records, by, margin, verdict, words):
    found = of(contrasts_of(shifted(records, by), PAIR, margin), "nomus")
    assert found.verdict == verdict
    assert words in found.sentence
    assert ("tied" in found.sentence) == (verdict == "tied")
    assert ("established; one below" in found.sentence) == (verdict.startswith("no "))


def test_the_gap_is_not_tested_against_its_other_end(records):
    found = contrasts_of(records, [("DLFD", "Retrained")])
    assert {one.metric for one in found} == FIGURES.keys() - {"gap_to_retrained"}


def test_original_is_held_against_every_run_unlearned_from_it(crossed):
    """Crossed seeds: two trainings are too few for a test, five by five are enough."""
    (found,) = [c for c in contrasts_of(crossed, [("DLFD", "Original")]) if c.metric == "nomus"]
    assert (found.num_values, found.verdict) == (6, "not tested")
    assert "crossed seeds need 5 of either axis" in found.sentence
    many = [
        dataclasses.replace(run, train_seed=t, seed=s if run.unlearned else t)
        for run in (of_label(crossed, "DLFD")[0], of_label(crossed, "Original")[0])
        for t in range(5)
        for s in range(5 if run.unlearned else 1)
    ]
    (found,) = [c for c in contrasts_of(many, [("DLFD", "Original")]) if c.metric == "nomus"]
    assert found.num_values == 25
    assert found.interval is not None


def test_runs_without_seeds_in_common_are_not_tested(records):
    runs = [r for r in records if r.label != "DLFD" or r.seed == 0]
    found = of(contrasts_of(runs, PAIR), "nomus")
    assert (found.verdict, found.p) == ("not tested", None)
    assert "1 seed in common" in found.sentence
    assert contrasts_of([], PAIR)[0].num_values == 0


def test_contrasts_that_one_seed_leaves_untested_are_one_sentence(records):
    runs = [r for r in records if r.seed == 0]
    made = contrasts_of(runs, [("DLFD", other) for other in ("Original", "Retrained", "Fine-tune")])
    assert len(made) == 11
    assert sentences(made) == [
        "DLFD against Original, Fine-tune, Retrained: not tested in any of 11 contrasts, 1 seed in "
        "common, and a test needs 2."
    ]
    assert sentences(made[:1]) == [made[0].sentence]


def test_default_contrasts_are_dlfd_against_the_references_and_the_best_other():
    labels = ["Original", "Retrained", "Fine-tune", "SCRUB", "DLFD"]
    wanted = [("DLFD", other) for other in ("Original", "Retrained", "Fine-tune", BEST)]
    assert default_pairs(labels) == wanted
    assert default_pairs(["Original", "Fine-tune", "SSD"]) == [
        ("SSD", "Original"), ("SSD", "Fine-tune"),
    ]  # fmt: skip
    assert default_pairs(["Original", "Fine-tune"]) == []


def test_the_best_other_is_chosen_on_validation_and_by_no_test_figure(records):
    def named(label, val: float, test: float, **changes):
        validation = {"accuracy": val, "mia_auc": 0.5, "nomus": val, "forgetting_score": 0.0}
        return [
            with_result(
                dataclasses.replace(run, label=label), val_accuracy=val, validation=validation,
                nomus=test, gap_to_retrained=1 - test, **changes,
            )
            for run in of_label(records, "Fine-tune")
        ]  # fmt: skip

    # Retrained's validation accuracy is 0.70.
    runs = [*records, *named("SCRUB", 0.70, 0.1), *named("SSD", 0.60, 0.9)]
    assert best_other(runs, {"DLFD", "Fine-tune", "DLFD (authors' code)"}) == "SCRUB"
    still = named("SCRUB", 0.70, 0.1, against_original=moved_by(0, 0, left_as_is=True))
    runs = [*records, *still, *named("SSD", 0.60, 0.9)]
    assert best_other(runs, {"DLFD", "Fine-tune", "DLFD (authors' code)"}) == "SSD"
    pairs = [*PAIR, ("DLFD", BEST)]
    assert {c.other for c in contrasts_of(runs, pairs)} >= {"Fine-tune"}
    without = [r for r in records if r.label not in ("Retrained", "DLFD (authors' code)")]
    found = [*without, *named("SCRUB", 0.70, 0.1), *named("SSD", 0.90, 0.0)]
    assert best_other(found, {"DLFD", "Fine-tune"}) == "SSD"
    assert best_other(without, {"DLFD", "Fine-tune"}) is None


def test_tables_hold_the_contrasts_and_no_column_of_tests(records):
    rows, findings = summarise(records), findings_of(records)
    sentence = findings.contrasts[0].sentence
    for table in (text_table(rows, None, findings), markdown_table(rows, findings=findings)):
        assert sentence in table
        assert "Contrasts, named before the runs" in table
        assert "vs DLFD" not in table
    text = latex_table(rows, findings=findings)
    assert text.isascii()
    assert text.count("{") == text.count("}")
    assert "tied" not in text_table(rows).lower()
    table = list(csv.DictReader(io.StringIO(contrasts_csv(findings))))
    assert len(table) == len(findings.contrasts)
    assert float(table[0]["p_holm"]) == findings.contrasts[0].p_holm
    assert float(table[0]["lo"]) == findings.contrasts[0].interval[0]


@pytest.mark.parametrize(
    ("raw", "adjusted"),
    [
        # 4 * .005, 3 * .01, 2 * .03, and .04 may not fall below .06.
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.4, 0.6], [0.8, 0.8]),
        ([0.7, 0.9], [1.0, 1.0]),
        ([0.03], [0.03]),
        ([], []),
    ],
)
def test_holm_by_hand(raw, adjusted):
    assert holm(raw) == pytest.approx(adjusted)
