"""U-LiRA and KLoM: known Gaussians, equal worlds, honest leaving-out, hand-computed histograms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import entropy, norm

from dlfd_dist.config import AuditConfig
from dlfd_dist.metrics import auc, klom, lira, rmia, rmia_scores
from dlfd_dist.metrics.told_apart import (
    LEVEL,
    Figure,
    Ranking,
    ToldApart,
    area,
    least_p,
    pair_aucs,
    paired_auc,
    told_apart,
)
from dlfd_dist.report.audit import judgement
from dlfd_dist.report.ensemble import Judge, World

POOLED = pytest.mark.parametrize("pooled", [False, True], ids=["per image", "pooled"])


def worlds(num_models: int, num_images: int, *, shift: float, seed: int = 0):
    rng = np.random.default_rng(seed)
    centre = rng.normal(0, 3, num_images)
    draw = [rng.normal(centre + by, 1, (num_models, num_images)) for by in (shift, 0)]
    return draw[0], draw[1]


def as_given(own: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An attack whose scores are the values."""
    return own, other


def by_lira(
    own: np.ndarray, other: np.ndarray, people: np.ndarray, *, pooled: bool = True, **given: int
) -> ToldApart:
    found = told_apart(
        lambda a, b: lira.log_ratios(a, b, pooled=pooled), own, other, people, **given
    )
    assert found is not None
    return found


# --- U-LiRA


@POOLED
def test_auc_of_two_known_gaussians_is_the_analytic_one(pooled):
    """Two normal worlds, a standard deviation apart: the likelihood ratio has AUC Phi(1/sqrt 2)."""
    own, other = worlds(150, 60, shift=1.0)
    found = by_lira(own, other, np.arange(60), pooled=pooled, num_bootstrap=30, num_swaps=30)
    assert found.auc.value == pytest.approx(norm.cdf(1 / math.sqrt(2)), abs=0.01)
    assert found.auc.interval[0] < norm.cdf(1 / math.sqrt(2)) < found.auc.interval[1]
    assert found.tpr_at_1pct is not None
    assert found.tpr_at_1pct.value == pytest.approx(norm.cdf(norm.ppf(0.01) + 1), abs=0.02)
    assert (found.auc.p, found.tpr_at_1pct.p) == (2 / 31, 2 / 31)


@POOLED
@pytest.mark.parametrize(
    ("num_models", "shared"),
    [(4, 0.0), (4, 1.0), (8, 1.0)],
    ids=["images alone-4", "whole models-4", "whole models-8"],
)
def test_equal_worlds_come_out_at_chance_on_average(pooled, num_models, shared):
    """Also where a model errs on all images alike, which gives few values in truth.

    Ranked over all models the AUC would then be 0.475 on average, with 8 models.
    """
    found = []
    for seed in range(60):
        pair = worlds(num_models, 25, shift=0.0, seed=seed)
        rng = np.random.default_rng([seed, 1])
        of_model = [world + rng.normal(0, shared, (num_models, 1)) for world in pair]
        found.append(
            by_lira(
                of_model[0],
                of_model[1],
                np.arange(25),
                pooled=pooled,
                num_bootstrap=9,
                num_swaps=41,
            ).auc
        )
    values = np.array([one.value for one in found])
    assert values.mean() == pytest.approx(0.5, abs=4 * values.std() / math.sqrt(60))
    # The least p is 2 of 42: 3 of 60 are expected; 9 or more have a chance of 0.3 %.
    assert sum(one.p < LEVEL for one in found) < 9
    assert sum(not one.interval[0] <= 0.5 <= one.interval[1] for one in found) < 9


def test_swapped_worlds_say_how_rare_a_figure_is():
    """Four pairs, each of an own value above the other: 2 of 16 ways of swapping are as extreme."""
    own, other = np.full((4, 1), 1.0), np.zeros((4, 1))
    found = told_apart(as_given, own, other, np.zeros(1, int))
    assert found is not None
    assert found.auc.value == 1.0
    assert found.auc.p == 2 / 16
    assert found.auc.chance == [0.0, 1.0]
    equal = told_apart(as_given, own, own, np.zeros(1, int), num_swaps=50)
    assert equal is not None
    assert (equal.auc.value, equal.auc.p, equal.auc.interval) == (0.5, 1.0, [0.0, 1.0])


def test_images_are_ranked_within_their_pair_of_models():
    own = np.array([[3.0, 4.0], [0.0, np.nan], [np.nan, np.nan]])
    other = np.array([[1.0, 2.0], [0.0, np.nan], [5.0, 1.0]])
    aucs, sizes = pair_aucs(own, other)
    assert (aucs.tolist(), sizes.tolist()) == ([1.0, 0.5], [2, 1])
    assert paired_auc(own, other) == pytest.approx((2 * 1.0 + 0.5) / 3)
    assert math.isnan(paired_auc(own[2:], other[2:]))


def test_the_interval_of_one_pair_says_nothing():
    found = told_apart(as_given, np.ones((1, 3)), np.zeros((1, 3)), np.arange(3), num_bootstrap=9)
    assert found is not None
    assert found.auc.interval == [0.0, 1.0]


def test_a_rate_below_the_share_of_equal_highest_scores_is_not_resolved():
    """RMIA of few strangers: a fifth of Retrained's images dominates all, as a third of the own."""
    own, other = np.zeros((4, 15)), np.zeros((4, 15))
    own[:, :5] = other[:, :3] = 1.0
    found = told_apart(as_given, own, other, np.arange(15), num_bootstrap=20)
    assert found is not None
    assert found.auc.value == pytest.approx(0.5 + (5 - 3) / 30)
    assert (found.tpr_at_1pct, found.tpr_at_01pct) == (None, None)
    own[0, 0] = 2.0  # a highest score of its own is a threshold
    found = told_apart(as_given, own, other, np.arange(15), num_bootstrap=20)
    assert found is not None
    assert found.tpr_at_1pct is not None
    assert found.tpr_at_1pct.value == pytest.approx(1 / 60)


def told(
    auc: float, p: float, p_of_rates: float | None = 0.5, num_models: int = 16
) -> dict[str, Any]:
    rate = None if p_of_rates is None else Figure(0.02, [0.0, 0.1], [0.0, 0.09], p_of_rates)
    figure = Figure(auc, [auc - 0.1, auc + 0.1], [0.4, 0.6], p)
    return ToldApart(figure, rate, rate, 100, num_models, 10).to_dict()


@pytest.mark.parametrize(
    ("images", "person", "said"),
    [
        (
            told(0.52, 0.7),
            told(0.55, 0.4),
            ["passes its own test", "AUC per person 0.550 (equal worlds 0.400 to 0.600, p = 0.4)"],
        ),
        (told(0.52, 0.7, None), told(0.5, 1.0), ["passes its own test"]),
        (told(0.62, 0.02), told(0.5, 0.3), ["passes its own test"]),  # one of four by chance
        (
            told(0.62, 0.008),
            told(0.5, 0.3),
            ["fails its own test by AUC, outside", "believe no figure"],
        ),
        (told(0.9, 0.008, num_models=8), told(0.9, 0.008), ["not tested: 8 models are too few"]),
        (
            told(0.6, 0.06, 0.008),
            told(0.66, 0.005),
            [
                "by AUC per person, TPR at 1 % FPR and TPR at 0.1 % FPR",
                "no further than it exceeds",
            ],
        ),
    ],
)
def test_the_audit_is_judged_by_every_figure_of_retrained_against_itself(images, person, said):
    control = {
        "role": "control", "ulira": images, "ulira_person": person, "rmia": told(0.5, 0.9),
        "num_models": images["num_models"],
    }  # fmt: skip
    (line,) = judgement({"worlds": {"control": control}})
    for words in said:
        assert words in line
    control["rmia"] = told(0.8, 0.005)
    (line,) = judgement({"worlds": {"control": control}})
    assert "passes" not in line


def test_a_method_is_told_by_what_equal_worlds_give():
    one = {"role": "method", "ulira": told(0.7, 0.005), "rmia": told(0.32, 0.01)}
    lines = judgement({"worlds": {"dlfm": one}})
    assert any(
        "DLFM: told from models that never saw" in line and "0.700" in line for line in lines
    )
    assert any("DLFM: forgotten too hard" in line and "0.320" in line for line in lines)
    one = {"role": "method", "ulira": told(0.57, 0.2), "rmia": told(0.45, 0.2)}
    lines = judgement({"worlds": {"dlfm": one}})
    assert any("DLFM: not told from Retrained by 16 models" in line for line in lines)
    assert any("DLFM: not told by RMIA" in line for line in lines)
    assert not any("too hard" in line for line in lines)
    one["rmia"] = told(0.58, 0.01)
    assert "DLFM: told by RMIA" in judgement({"worlds": {"dlfm": one}})[-1]
    one |= {"ulira": told(1.0, 0.06, num_models=6), "rmia": told(1.0, 0.06, num_models=6)}
    for line in judgement({"worlds": {"dlfm": one}})[1:]:
        assert "DLFM: 6 models are too few" in line


@POOLED
def test_a_score_does_not_depend_on_the_pair_under_test(pooled):
    """Models 2 of both worlds are replaced: their own fit, so the score of one value, stays."""
    own, other = worlds(5, 4, shift=0.5)
    before = lira.log_ratios(own, other, pooled=pooled)[0]
    changed = other.copy()
    changed[2] += 100
    after = lira.log_ratios(own, changed, pooled=pooled)[0]
    np.testing.assert_allclose(after[2], before[2], rtol=1e-9)
    assert not np.isclose(after[3], before[3]).any()


def test_ratio_is_that_of_gaussians_fitted_by_hand():
    own, other = worlds(6, 2, shift=1.0)
    left = np.arange(6) != 1
    fits = [(w[left].mean(0), w[left].std(0, ddof=1)) for w in (own, other)]
    wanted = norm.logpdf(own[1], *fits[0]) - norm.logpdf(own[1], *fits[1])
    np.testing.assert_allclose(lira.log_ratios(own, other, pooled=False)[0][1], wanted)


def test_models_that_do_not_forget_an_image_do_not_count():
    own, other = worlds(6, 3, shift=1.0)
    own[4:, 0] = other[4:, 0] = np.nan
    own[2:, 1] = np.nan
    scores = lira.log_ratios(own, other, pooled=False)
    assert (~np.isnan(scores[0])).sum(0).tolist() == [4, 0, 6]
    alone = lira.log_ratios(own[:4, :1], other[:4, :1], pooled=False)
    np.testing.assert_allclose(scores[0][:4, 0], alone[0][:, 0])
    np.testing.assert_allclose(scores[1][:4, 0], alone[1][:, 0])


def test_ranking_agrees_with_the_rank_sum_and_weighs_as_repetition_does():
    rng = np.random.default_rng(0)
    own, other = rng.integers(0, 6, (2, 5, 4)).astype(float)
    assert area(*Ranking(own, other).roc()) == pytest.approx(auc(own.ravel(), other.ravel()))
    times = rng.integers(0, 3, (5, 4))
    repeated = [np.repeat(world.ravel(), times.ravel()) for world in (own, other)]
    weighed = area(*Ranking(own, other).roc(times))
    assert weighed == pytest.approx(auc(*repeated))


def test_a_persons_score_is_the_sum_over_their_images():
    scores = np.array([[1.0, 2.0, np.nan], [np.nan, np.nan, 5.0]])
    found = lira.by_person(scores, np.array([1, 1, 0]), 3)
    wanted = [[np.nan, 3.0, np.nan], [5.0, np.nan, np.nan]]
    np.testing.assert_array_equal(found, wanted)


def test_without_three_models_that_forget_an_image_nothing_is_said():
    own, other = worlds(2, 3, shift=1.0)
    attack = lambda a, b: lira.log_ratios(a, b, pooled=True)  # noqa: E731
    assert told_apart(attack, own, other, np.arange(3)) is None


def test_people_without_scores_are_never_drawn():
    """Validation people stand in the same data; theirs are the highest numbers."""
    own, other = worlds(6, 8, shift=1.0)
    alone = by_lira(own, other, np.arange(8) // 2, num_bootstrap=30)
    more = [np.c_[one, np.full((6, 3), np.nan)] for one in (own, other)]
    people = np.r_[np.arange(8) // 2, 7, 8, 9]
    assert by_lira(more[0], more[1], people, num_bootstrap=30) == alone


@pytest.mark.parametrize("num_models", [3, 6, 7])
def test_no_worlds_are_rarer_than_their_pairs_allow(num_models):
    own, other = worlds(num_models, 10, shift=50.0)
    found = by_lira(own, other, np.arange(10), num_bootstrap=9)
    assert (found.auc.value, found.auc.p) == (1.0, least_p(num_models))
    assert (found.auc.p < LEVEL) == (num_models == 7)


def test_p_does_not_depend_on_the_bootstrap():
    own, other = worlds(12, 5, shift=0.3)
    one, more = (
        by_lira(own, other, np.arange(5), num_bootstrap=num, num_swaps=60) for num in (5, 50)
    )
    assert (one.auc.p, one.auc.chance) == (more.auc.p, more.auc.chance)


def judge(of_method: np.ndarray, of_retrained: np.ndarray, forgotten: np.ndarray) -> Judge:
    """Two people of two images each, and two of val."""
    rng, empty = np.random.default_rng(5), np.zeros_like(forgotten)
    held = {
        "original": World("original", rng.normal(2, 1, forgotten.shape), empty, {}),
        "unlearned": World("method", of_method, forgotten, {}),
        "retrained": World("retrained", of_retrained, forgotten, {}),
    }
    people = np.array(["a", "a", "b", "b", "v", "w"])
    return Judge(held, people, np.array([4, 5]), AuditConfig(num_bootstrap=9))


def test_swapping_a_pair_swaps_its_scores_and_no_mask():
    """The method was not asked of a validation image, and one of its models is missing."""
    rng, forgotten = np.random.default_rng(0), np.zeros((8, 6), bool)
    forgotten[:, :2] = True
    own, other = rng.normal(1, 1, (8, 6)), rng.normal(0, 1, (8, 6))
    own[:, 5] = np.nan
    own[3] = np.nan
    both = np.isnan(own) | np.isnan(other)
    shown = judge(own, other, forgotten)
    pair = [np.where(both, np.nan, world) for world in (own, other)]
    only = np.arange(8)[:, None] == 2
    swapped = np.where(only, pair[1], pair[0]), np.where(only, pair[0], pair[1])
    for attack in (shown._ratios, shown._ratios_of_people, shown._dominance):
        before, after = attack(pair[0], pair[1]), attack(*swapped)
        np.testing.assert_allclose(after[0][2], before[1][2])
        np.testing.assert_allclose(after[1][2], before[0][2])
        for world in (*before, *after):
            assert np.isnan(world[3]).all()
            np.testing.assert_array_equal(np.isnan(world), np.isnan(before[0]))
    # As much is told of the worlds as of the same without what was not asked of either.
    whole = shown.world("unlearned").figures
    without = judge(pair[0], pair[1], forgotten).world("unlearned").figures
    assert whole == without


# --- RMIA


def shadows(num_models: int, *, shift: float, seed: int = 0):
    """Images 0..19 are forgotten by half of the shadows each; 20..59 are of val."""
    rng = np.random.default_rng(seed)
    centre, half = rng.normal(0, 3, 60), num_models // 2
    forgotten = np.zeros((num_models, 60), bool)
    forgotten[:half, :10] = forgotten[half:, 10:20] = True
    worlds = [centre + rng.normal(0, 1, forgotten.shape) for _ in range(3)]
    worlds[0] += shift * forgotten
    worlds[2][:, :20] += 3.0
    return worlds[0], worlds[1], worlds[2], forgotten, np.arange(20, 60)


def test_rmia_of_shadows_takes_as_references_all_others_that_forget_the_image():
    own, retrained, original, forgotten, val = shadows(6, shift=1.0)
    found = rmia.shadow_scores(own, retrained, original, forgotten, val)
    assert (~np.isnan(found[0]) == forgotten).all()
    beside = [1, 2]
    every = [m for m in range(6) if m]
    references = np.concatenate([expit(w[beside, :10]) for w in (original, retrained)])
    strangers = np.concatenate([expit(w[every][:, val]) for w in (original, retrained)])
    for scores, target in zip(found, (own, retrained), strict=True):
        wanted = rmia_scores(expit(target[0, :10]), references, expit(target[0, val]), strangers)
        np.testing.assert_allclose(scores[0, :10], wanted)


def test_rmia_of_shadows_tells_a_world_that_leaks_and_not_an_equal_one():
    aucs = {}
    for shift in (0.0, 2.0):
        pairs = [rmia.shadow_scores(*shadows(8, shift=shift, seed=s)) for s in range(20)]
        aucs[shift] = [area(*Ranking(*pair).roc()) for pair in pairs]
    spread = np.std(aucs[0.0]) / math.sqrt(20)
    assert np.mean(aucs[0.0]) == pytest.approx(0.5, abs=4 * spread)
    assert min(aucs[2.0]) > max(0.6, max(aucs[0.0]))


def test_rmia_says_nothing_where_no_other_shadow_forgets_the_image_or_none_is_there():
    own, retrained, original, forgotten, val = shadows(2, shift=1.0)
    assert np.isnan(rmia.shadow_scores(own, retrained, original, forgotten, val)[0]).all()
    own, retrained, original, forgotten, val = shadows(6, shift=1.0)
    original[1:3] = np.nan
    found = rmia.shadow_scores(own, retrained, original, forgotten, val)
    assert (np.isnan(found[0][0]) == np.isnan(found[1][0])).all()
    assert np.isnan(found[0][0]).all()
    assert not np.isnan(found[0][3:, 10:20]).any()


def test_rmia_compares_with_strangers_of_both_models_alone():
    """A method matched to half of val has no values of it: these are strangers to neither."""
    own, retrained, original, forgotten, val = shadows(6, shift=1.0)
    own[:, val[:20]] = np.nan
    found = rmia.shadow_scores(own, retrained, original, forgotten, val)
    wanted = rmia.shadow_scores(own, retrained, original, forgotten, val[20:])
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)
    own[:, val] = np.nan
    assert np.isnan(rmia.shadow_scores(own, retrained, original, forgotten, val)[0]).all()


# --- KLoM


def test_klom_of_a_histogram_computed_by_hand():
    """Retrained: half in bin 1, half in bin 11; unlearned: a quarter and three quarters."""
    retrained = np.array([0.0, 0.0, 10.5, 10.5, 20.0])[:, None]
    unlearned = np.array([0.5, 10.2, 10.5, 10.9, 20.0])[:, None]
    wanted = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert klom.klom(retrained, unlearned)[0] == pytest.approx(wanted)


def test_klom_counts_an_empty_bin_of_the_unlearned_as_1e_5():
    retrained = np.array([0.0, 10.5, 20.0])[:, None]
    unlearned = np.array([10.5, 10.5, 20.0])[:, None]
    assert klom.klom(retrained, unlearned)[0] == pytest.approx(entropy([0.5, 0.5], [1e-5, 1.0]))


def test_klom_clips_margins_at_100_and_leaves_out_what_has_too_few():
    retrained = np.array([[0.0, 1.0], [1e6, np.nan], [50.0, np.nan]])
    unlearned = np.array([[0.0, 1.0], [300.0, 2.0], [52.0, 3.0]])
    found = klom.klom(retrained, unlearned)
    assert found[0] == pytest.approx(0.0, abs=1e-9)
    assert np.isnan(found[1])


def test_klom_summary_has_mean_and_95th_percentile_with_intervals_over_people():
    values = np.r_[np.linspace(0, 1, 101), np.nan]
    found = klom.summary(values, np.arange(102) // 2, num_bootstrap=100)
    assert found is not None
    assert found["mean"] == pytest.approx(0.5)
    assert found["p95"] == pytest.approx(0.95)
    assert found["num_images"] == 101
    for name in ("mean", "p95"):
        low, high = found[f"{name}_interval"]  # type: ignore[misc]
        assert low < found[name] < high  # type: ignore[operator]
    assert klom.summary(np.array([np.nan]), np.array([0])) is None
