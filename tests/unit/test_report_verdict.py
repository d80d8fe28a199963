"""The sentences with which the report judges a method."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.stats import norm

from dlfd_dist.metrics import Estimate
from dlfd_dist.report import summarise
from dlfd_dist.report.records import of_label
from dlfd_dist.report.verdict import alone, forgetting_interval, forgotten, judge
from tests.fakes.reports import first, forgotten_too_hard, with_attack, with_result


def verdict_of(*records):
    return judge(summarise(records), records)


def test_verdict_names_counts_and_all_three_models(rows, records):
    verdict = judge(rows, records)
    assert verdict.tone == "good"
    asked = "DLFD was asked to forget 2 people and 1 to 2 single images (33 to 64 images)"
    assert asked in verdict.sentence
    score = 100 * rows[-1]["forgetting_score"]
    assert f"{score:.1f} percentage points away from a coin flip" in verdict.sentence
    assert f"Retrained {rows[1]['nomus']:.3f}" in verdict.sentence
    assert any("at its floor on DLFD" in caveat for caveat in verdict.caveats)


@pytest.mark.parametrize(
    ("before", "after", "tone", "words"),
    [
        (0.70, 0.52, "good", "clearly less"),
        (0.53, 0.52, "unclear", "within the uncertainty"),
        (0.60, 0.61, "bad", "as much as before"),
        (0.60, 0.35, "bad", "as much as before"),
    ],
)
def test_judgement_follows_the_intervals(records, before, after, tone, words):
    original = with_attack(first(records, "Original"), before)
    verdict = verdict_of(
        original, first(records, "Retrained"), with_attack(first(records, "DLFD"), after)
    )
    assert verdict.tone == tone
    assert words in verdict.judgement


def test_verdict_says_when_the_attack_fails_on_original(records):
    original = with_attack(first(records, "Original"), 0.51, floor=True, floor_reason="Few images.")
    verdict = verdict_of(original, first(records, "Retrained"), first(records, "DLFD"))
    assert verdict.tone == "unclear"
    assert any("cannot show" in c and c.endswith("Few images.") for c in verdict.caveats)


def test_where_the_attack_is_blind_the_answers_are_told_and_its_floor_is_no_success(records):
    original = with_attack(first(records, "Original"), 0.51, floor=True, floor_reason="Few images.")
    dlfd = with_attack(first(records, "DLFD"), 0.52, floor=True, floor_reason="Few people.")
    moved = {"same_answers": {"retain": 1.0, "forget": 0.9, "val": 1.0}}
    dlfd = with_result(dlfd, against_original={**dlfd.result["against_original"], **moved})
    verdict = verdict_of(original, first(records, "Retrained"), dlfd)
    assert any(
        c.startswith("DLFD answers 90.0 % of the images of the request as before")
        for c in verdict.caveats
    )
    assert not any("what forgetting should look like" in c for c in verdict.caveats)


def test_what_did_something_else_than_forgetting_is_told_by_its_answers_first(records):
    dlfd = with_attack(first(records, "DLFD"), 0.5, floor=True, floor_reason="Few people.")
    moved = {
        "left_as_is": True, "reason": "Nothing moved.",
        "same_answers": {"retain": 1.0, "forget": 1.0, "val": 1.0},
    }  # fmt: skip
    dlfd = with_result(dlfd, against_original={**dlfd.result["against_original"], **moved})
    verdict = verdict_of(first(records, "Original"), first(records, "Retrained"), dlfd)
    assert "the model answers 100.0 % of the images of the request as before" in verdict.sentence
    assert "coin flip" not in verdict.sentence
    assert not any("of the images of the request as before" in c for c in verdict.caveats)


def test_verdict_says_that_the_attack_was_taken_within_labels(records):
    runs = [with_attack(run, 0.52, within_labels=True) for run in records]
    for given, said in ((records, False), (runs, True)):
        caveats = verdict_of(*given).caveats
        assert any("taken within labels" in caveat for caveat in caveats) is said


def test_where_intervals_overlap_the_smallest_difference_that_is_found_is_named(records):
    labels = ("Original", "Retrained", "DLFD")
    alone = [with_attack(first(records, label), 0.52, floor=False) for label in labels]
    error = np.hypot(0.01, 0.01) / norm.ppf(0.975)
    wanted = error * (norm.ppf(0.975) + norm.ppf(0.8))
    said = [c for c in verdict_of(*alone).caveats if "overlap" in c]
    assert len(said) == 2
    assert all(f"below {wanted:.3f} is missed in a fifth of the cases" in c for c in said)
    seeds = []
    for label in labels:
        for k, run in enumerate(of_label(records, label)):
            accuracy = 0.52 + 0.01 * (k + 1) * (label == "DLFD")
            seeds.append(with_attack(run, accuracy, floor=False))
    found = Estimate(0.02, 0.01 / 3**0.5, 2).detectable()
    said = [c for c in verdict_of(*seeds).caveats if "overlap" in c]
    assert said
    assert all(f"below {found:.3f} is missed" in caveat for caveat in said)


def test_verdict_says_what_overlaps(records):
    trio = [first(records, name) for name in ("Original", "Retrained", "DLFD")]
    same = verdict_of(*(with_attack(run, 0.53) for run in trio)).caveats
    assert any("Original overlap" in caveat for caveat in same)
    assert any("Retrained overlap" in caveat for caveat in same)
    apart = [with_attack(run, value) for run, value in zip(trio, (0.7, 0.6, 0.53), strict=True)]
    assert not any("overlap" in caveat for caveat in verdict_of(*apart).caveats)


def test_verdict_marks_one_seed_and_a_lone_run(records):
    lone = with_result(first(records, "DLFD"), without_retrained=None)
    verdict = verdict_of(lone)
    assert verdict.judgement == "No Original to compare with"
    assert any("Only one seed was run of DLFD" in caveat for caveat in verdict.caveats)


def test_verdict_names_lost_accuracy(records):
    runs = [r for r in records if r.label in ("Original", "Retrained")]
    runs += [
        with_result(run, test_accuracy=0.5 + 0.001 * run.seed) for run in of_label(records, "DLFD")
    ]
    assert "percentage points below Retrained" in " ".join(verdict_of(*runs).caveats)


@pytest.mark.parametrize("retrained_too", [False, True])
def test_verdict_says_once_that_a_method_forgot_too_hard(records, retrained_too):
    retrained, run = first(records, "Retrained"), first(records, "DLFD")
    low = with_attack(run, 0.52, auc=0.4, auc_interval=[0.35, 0.45])
    runs = [forgotten_too_hard(retrained) if retrained_too else retrained, forgotten_too_hard(low)]
    (caveat,) = [c for c in verdict_of(*runs).caveats if "too hard" in c or "AUC" in c]
    assert caveat.startswith("DLFD forgot too hard")
    assert "12.0 % of the forget losses" in caveat
    assert ("Retrained shows it as well" in caveat) == retrained_too
    assert not any("too hard" in caveat for caveat in verdict_of(retrained, low).caveats)


def test_verdict_marks_runs_of_one_trained_model(records):
    runs = [dataclasses.replace(run, train_seed=0) for run in of_label(records, "DLFD")]
    assert any("All runs of DLFD unlearn one trained" in c for c in verdict_of(*runs).caveats)
    assert not any("one trained" in c for c in verdict_of(*of_label(records, "DLFD")).caveats)


def test_report_without_an_unlearned_model_says_so(records):
    verdict = verdict_of(first(records, "Original"), first(records, "Retrained"))
    assert verdict.judgement == "Nothing was unlearned"
    assert "Original, Retrained" in verdict.sentence


@pytest.mark.parametrize(
    ("interval", "wanted"),
    [([0.6, 0.7], [0.1, 0.2]), ([0.45, 0.52], [0.0, 0.05]), ([0.3, 0.4], [0.1, 0.2])],
)
def test_attack_interval_is_folded_at_a_coin_flip(records, interval, wanted):
    (row,) = summarise([with_attack(first(records, "DLFD"), 0.5, interval=interval)])
    assert forgetting_interval(row) == pytest.approx(wanted)


def test_request_of_images_only_is_counted_in_images(records):
    run = dataclasses.replace(first(records, "DLFD"), request=None)
    assert forgotten([run]) == "33 to 64 images"


@pytest.mark.parametrize(
    ("verdict", "judgement", "tone"),
    [
        ("gone", "Gone: ", "good"), ("not shown", "Not shown: ", "unclear"),
        ("still there", "Still there: ", "bad"),
    ],
)  # fmt: skip
def test_without_retrained_the_judgement_is_one_of_three(records, verdict, judgement, tone):
    run = first(records, "DLFD")
    told = {**run.result["without_retrained"], "verdict": verdict}
    pair = [first(records, "Original"), with_result(run, without_retrained=told)]
    found = verdict_of(*pair)
    assert found.judgement.startswith(judgement)
    assert found.tone == tone
    said = alone(summarise(pair), pair)
    assert said is not None
    assert said.verdict == verdict
    assert len(said.not_said) == 3
    assert dict(said.figures)["People"] == "20 forgotten, 30 unseen"
    assert alone(summarise(records), records) is None


def test_the_verdict_of_several_runs_is_gone_only_where_all_say_so(records):
    def verdicts(*told):
        runs = zip(of_label(records, "DLFD"), told, strict=True)
        told_runs = [
            with_result(run, without_retrained={**run.result["without_retrained"], "verdict": one})
            for run, one in runs
        ]
        return summarise(told_runs)[0]["without_retrained"]["verdict"]

    assert verdicts("gone", "gone", "gone") == "gone"
    assert verdicts("gone", "gone", "not shown") == "not shown"
    assert verdicts("gone", "gone", "still there") == "not shown"
    assert verdicts("gone", "still there", "still there") == "still there"


@pytest.mark.parametrize(
    ("before", "after", "of_retrained", "comes_back"),
    [(0.5, 0.99, 0.53, True), (0.5, 0.56, 0.53, False), (0.5, 0.54, None, False),
     (0.5, 0.56, None, True)],
)  # fmt: skip
def test_verdict_says_that_the_forgotten_come_back(
    records, before, after, of_retrained, comes_back
):
    """Retrained rises too, from .51, by what others' images teach of the forgotten."""
    dlfd = with_result(first(records, "DLFD"), forget_accuracy=before, resurfaced_accuracy=after)
    retrained = with_result(
        first(records, "Retrained"), forget_accuracy=0.51, resurfaced_accuracy=of_retrained
    )
    caveats = verdict_of(first(records, "Original"), retrained, dlfd).caveats
    assert any(c.startswith("The forgotten come back") for c in caveats) is comes_back
