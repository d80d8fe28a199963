"""U-LiRA and KLoM: known Gaussians, equal worlds, honest leaving-out, hand-computed histograms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import entropy, norm

from dlfd_dist.metrics import auc, klom, lira, rmia, rmia_scores
from dlfd_dist.report.audit import judgement

POOLED = pytest.mark.parametrize("pooled", [False, True], ids=["per image", "pooled"])


def worlds(num_models: int, num_images: int, *, shift: float, seed: int = 0):
    rng = np.random.default_rng(seed)
    centre = rng.normal(0, 3, num_images)
    draw = [rng.normal(centre + by, 1, (num_models, num_images)) for by in (shift, 0)]
    return draw[0], draw[1]


# --- U-LiRA


@POOLED
def test_auc_of_two_known_gaussians_is_the_analytic_one(pooled):
    """Two normal worlds, a standard deviation apart: the likelihood ratio has AUC Phi(1/sqrt 2)."""
    own, other = worlds(400, 30, shift=1.0)
    found = lira.ulira(*lira.log_ratios(own, other, pooled=pooled), np.arange(30), num_bootstrap=50)
    assert found is not None
    assert found.auc == pytest.approx(norm.cdf(1 / math.sqrt(2)), abs=0.01)
    assert found.tpr_at_1pct == pytest.approx(norm.cdf(norm.ppf(0.01) + 1), abs=0.02)
    assert not found.at_chance


@POOLED
@pytest.mark.parametrize("num_models", [4, 8])
def test_equal_worlds_come_out_at_chance_on_average(pooled, num_models):
    """The bias that leaving out one value alone would bring is 0.03 at 4 models."""
    aucs, covered = [], 0
    for seed in range(60):
        pair = worlds(num_models, 25, shift=0.0, seed=seed)
        scores = lira.log_ratios(*pair, pooled=pooled)
        found = lira.ulira(*scores, np.arange(25), num_bootstrap=40)
        assert found is not None
        aucs.append(found.auc)
        covered += found.at_chance
    assert np.mean(aucs) == pytest.approx(0.5, abs=4 * np.std(aucs) / math.sqrt(60))
    assert covered >= 54


def test_a_rate_below_the_share_of_equal_highest_scores_is_not_resolved():
    """RMIA of few strangers: a fifth of Retrained's images dominates all, as a third of the own."""
    own, other = np.zeros((4, 15)), np.zeros((4, 15))
    own[:, :5] = other[:, :3] = 1.0
    found = lira.ulira(own, other, np.arange(15), num_bootstrap=20)
    assert found is not None
    assert found.auc == pytest.approx(0.5 + (5 - 3) / 30)
    assert (found.tpr_at_1pct, found.tpr_at_01pct_interval) == (None, None)
    own[0, 0] = 2.0  # a highest score of its own is a threshold
    found = lira.ulira(own, other, np.arange(15), num_bootstrap=20)
    assert found is not None
    assert found.tpr_at_1pct == pytest.approx(1 / 60)


def told(auc: tuple, tpr: tuple | None = (0.02, 0.0, 0.1)) -> dict[str, Any]:
    found = {"auc": auc[0], "auc_interval": list(auc[1:]), "at_chance": auc[1] <= 0.5 <= auc[2]}
    for name in ("tpr_at_1pct", "tpr_at_01pct"):
        found |= {name: tpr and tpr[0], f"{name}_interval": tpr and list(tpr[1:])}
    return found


@pytest.mark.parametrize(
    ("images", "person", "said"),
    [
        (
            told((0.52, 0.4, 0.6)),
            told((0.55, 0.4, 0.7)),
            ["passes its own test", "AUC per person 0.55"],
        ),
        (told((0.52, 0.4, 0.6), None), told((0.5, 0.4, 0.7)), ["passes its own test"]),
        (
            told((0.62, 0.51, 0.7)),
            told((0.5, 0.4, 0.7)),
            ["fails its own test by AUC, where", "believe no figure"],
        ),
        (
            told((0.6, 0.49, 0.7), (0.1, 0.02, 0.2)),
            told((0.66, 0.505, 0.79)),
            [
                "by AUC per person, TPR at 1 % FPR and TPR at 0.1 % FPR",
                "no further than it exceeds",
            ],
        ),
    ],
)
def test_the_audit_is_judged_by_every_figure_of_retrained_against_itself(images, person, said):
    worlds_ = {"control": {"role": "control", "ulira": images, "ulira_person": person}}
    (line,) = judgement({"worlds": worlds_})
    for words in said:
        assert words in line


def test_a_method_below_strangers_has_forgotten_too_hard():
    one = {"role": "method", "ulira": told((0.7, 0.6, 0.8)), "rmia": told((0.32, 0.22, 0.43))}
    lines = judgement({"worlds": {"dlfm": one}})
    assert any("DLFM: forgotten too hard" in line and "0.320" in line for line in lines)
    one["rmia"] = told((0.45, 0.4, 0.52))
    assert not any("too hard" in line for line in judgement({"worlds": {"dlfm": one}}))


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
    assert lira.area(*lira.Ranking(own, other).roc()) == pytest.approx(
        auc(own.ravel(), other.ravel())
    )
    times = rng.integers(0, 3, (5, 4))
    repeated = [np.repeat(world.ravel(), times.ravel()) for world in (own, other)]
    weighed = lira.area(*lira.Ranking(own, other).roc(times))
    assert weighed == pytest.approx(auc(*repeated))


def test_a_persons_score_is_the_sum_over_their_images():
    scores = np.array([[1.0, 2.0, np.nan], [np.nan, np.nan, 5.0]])
    found = lira.by_person(scores, np.array([1, 1, 0]))
    np.testing.assert_array_equal(found, [[np.nan, 3.0], [5.0, np.nan]])


def test_without_three_models_that_forget_an_image_nothing_is_said():
    scores = lira.log_ratios(*worlds(2, 3, shift=1.0), pooled=True)
    assert lira.ulira(*scores, np.arange(3)) is None


def test_people_without_scores_are_never_drawn():
    """Validation people stand in the same data; theirs are the highest numbers."""
    own, other = worlds(6, 8, shift=1.0)
    scores = lira.log_ratios(own, other, pooled=False)
    alone = lira.ulira(*scores, np.arange(8) // 2, num_bootstrap=30)
    more = [np.c_[one, np.full((6, 3), np.nan)] for one in scores]
    people = np.r_[np.arange(8) // 2, 7, 8, 9]
    assert lira.ulira(more[0], more[1], people, num_bootstrap=30) == alone


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
        aucs[shift] = [lira.area(*lira.Ranking(*pair).roc()) for pair in pairs]
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
