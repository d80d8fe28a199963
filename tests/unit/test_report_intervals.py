"""Intervals over seeds and the paired tests against DLFD."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from benchmarks.collapse import end_points
from dlfd_dist.report import summarise, text_table
from dlfd_dist.report.intervals import independent_values, t_interval
from dlfd_dist.report.paired import holm, paired_with_dlfd
from dlfd_dist.report.records import of_label
from dlfd_dist.report.summary import with_gaps
from tests.fakes.reports import with_result


def test_collapse_benchmark_shows_the_first_and_the_last_probe(records):
    def probed(record, first, last):
        values = [{"step": i, "silhouette": v} for i, v in enumerate((first, -9.0, last))]
        return dataclasses.replace(record, probes=values)

    one, two, _ = of_label(records, "Fine-tune")
    runs = [probed(one, 0.3, 0.1), probed(two, 0.5, 0.1)]
    half = stats.t.ppf(0.975, 1) * 0.1
    assert end_points(runs, "silhouette") == f"0.400 ± {half:.3f} → 0.100 ± 0.000"
    assert end_points(runs, "scatter_ratio") == "– → –"


def test_values_of_one_trained_model_count_as_one():
    values = [(0, 1.0), (0, 3.0), (1, 10.0), (2, 5.0), (1, 20.0)]
    assert independent_values(values).tolist() == [2.0, 15.0, 5.0]
    assert independent_values([(7, 1.0), (7, 3.0)]).tolist() == [1.0, 3.0]
    assert independent_values([]).tolist() == []


@pytest.mark.parametrize("num", [2, 3, 10])
def test_t_interval_is_scipys(num):
    values = np.random.default_rng(num).normal(size=num)
    wanted = stats.t.interval(0.95, num - 1, loc=values.mean(), scale=stats.sem(values))
    assert t_interval(values) == pytest.approx(wanted)
    assert t_interval(values[:1]) is None


def test_crossed_runs_give_an_interval_over_train_seeds(crossed):
    row = summarise(crossed)[-1]
    means = [
        np.mean([r.result["nomus"] for r in of_label(crossed, "DLFD") if r.train_seed == t])
        for t in (0, 1)
    ]
    wanted = stats.t.interval(0.95, 1, loc=np.mean(means), scale=stats.sem(means))
    assert row["nomus"] == pytest.approx(np.mean(means))
    assert row["nomus_interval"] == pytest.approx(wanted)
    assert (row["seeds"], row["train_seeds"], row["one_training"]) == ([5, 6, 7], [0, 1], False)
    assert "2 × 3 " in text_table([row])
    assert "Seeds a × b" in text_table([row])


def measured_with(record, seed: int, by: float):
    """Return the record as another evaluation seed might have measured it."""
    config = {**record.config, "metrics": {**record.config["metrics"], "seed": seed}}
    result = {**record.result, "nomus": record.result["nomus"] + by}
    return dataclasses.replace(record, config=config, result=result)


def test_several_axes_of_seeds_give_a_hierarchical_interval_and_say_which(crossed):
    runs = of_label(crossed, "DLFD")
    both = [*runs, *(measured_with(run, 1, 0.02) for run in runs)]
    third = [dataclasses.replace(run, train_seed=2) for run in both if run.train_seed == 0]
    (row,) = summarise([*both, *third])
    assert row["axes"] == ["train_seeds", "seeds", "metrics_seeds"]
    assert not row["mixed_settings"]
    low, high = row["nomus_bootstrap_interval"]
    assert low < row["nomus"] < high
    table = text_table([row])
    assert f"{row['nomus']:.3f} [{low:.3f}, {high:.3f}]" in table
    assert "3 × 3 × 2 ev." in table
    assert "bootstrap over train seeds and seeds of unlearning and evaluation seeds" in table
    # Twice the evaluations are no more independent values: interval and mean are over trainings.
    (once,) = summarise([r for r in [*both, *third] if r.metrics_seed == 0])
    assert once["axes"] == ["train_seeds", "seeds"]
    half = [row["nomus_interval"][1] - row["nomus"], once["nomus_interval"][1] - once["nomus"]]
    assert half[0] == pytest.approx(half[1])
    assert row["nomus"] == pytest.approx(once["nomus"] + 0.01)


def test_one_axis_of_seeds_keeps_the_t_interval(records, rows):
    assert all(len(row["axes"]) == 1 for row in rows)
    assert rows[-1]["nomus_bootstrap_interval"] is None
    assert "bootstrap" not in text_table(rows)
    (row,) = summarise([*of_label(records, "DLFD")[:1]])
    assert row["axes"] == []


def test_one_trained_model_gives_an_interval_over_runs_and_a_mark(crossed):
    runs = [run for run in of_label(crossed, "DLFD") if run.train_seed == 0]
    (row,) = summarise(runs)
    values = [run.result["nomus"] for run in runs]
    wanted = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert row["nomus_interval"] == pytest.approx(wanted)
    assert "1 × 3¶" in text_table([row])
    assert "¶ One trained model" in text_table([row])
    assert "¶" not in text_table(summarise(of_label(crossed, "DLFD")))


def test_gap_is_to_the_retrained_of_the_same_train_seed_and_its_own_to_the_others(crossed):
    runs = [with_result(run, gap_to_retrained=None) for run in crossed]
    for run in with_gaps(runs):
        itself = run.label == "Retrained"
        (retrained,) = [
            r for r in of_label(crossed, "Retrained") if (r.train_seed == run.train_seed) != itself
        ]
        names = ("retain_accuracy", "forget_accuracy", "test_accuracy", "mia_accuracy")
        wanted = np.mean([abs(run.value(name) - retrained.value(name)) for name in names])
        assert run.result["gap_to_retrained"] == pytest.approx(wanted)
    row = next(row for row in summarise(runs) if row["method"] == "Retrained")
    assert row["gap_to_retrained_interval"] is None
    assert f"{row['gap_to_retrained']:.3f}◦" in text_table([row])
    assert "◦ Retrained against Retrained of the other train seeds" in text_table([row])


def test_retrained_of_one_seed_has_no_gap(crossed):
    runs = [run for run in crossed if run.train_seed == 0]
    (row,) = [row for row in summarise(runs) if row["method"] == "Retrained"]
    assert row["gap_to_retrained"] is None
    assert "◦" not in text_table([row])


@pytest.mark.parametrize("metric", ["nomus", "gap_to_retrained"])
def test_test_against_dlfd_is_scipys_paired_t_test(rows, records, metric):
    method, dlfd = (
        [run.result[metric] for run in of_label(records, name)] for name in ("Fine-tune", "DLFD")
    )
    found = rows[2]["paired"][metric]
    wanted = stats.ttest_rel(method, dlfd)
    assert found["difference"] == pytest.approx(np.mean(method) - np.mean(dlfd))
    assert found["p"] == pytest.approx(wanted.pvalue)
    assert found["interval"] == pytest.approx(list(wanted.confidence_interval(0.95)))
    assert found["num_pairs"] == 3
    others = [rows[i]["paired"][metric]["p"] for i in (2, 3)]
    assert [rows[i]["paired"][metric]["p_holm"] for i in (2, 3)] == holm(others)


def test_references_and_dlfd_itself_are_not_tested(rows):
    assert [row["paired"] is None for row in rows] == [True, True, False, False, True]


def test_crossed_runs_are_paired_by_both_seeds_and_tested_over_train_seeds(crossed):
    def nomus(label):
        runs = {(r.train_seed, r.seed): r.result["nomus"] for r in of_label(crossed, label)}
        return np.array([[runs[t, s] for s in (5, 6, 7)] for t in (0, 1)])

    differences = (nomus("Fine-tune") - nomus("DLFD")).mean(1)
    found = paired_with_dlfd(list(reversed(crossed)))["Fine-tune"]["nomus"]
    assert found["num_pairs"] == 2
    assert found["p"] == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)


def test_only_runs_of_the_same_seeds_are_paired(records):
    runs = of_label(records, "Fine-tune") + of_label(records, "DLFD")[1:]
    found = paired_with_dlfd(runs)["Fine-tune"]["nomus"]
    pairs = [
        [run.result["nomus"] for run in of_label(records, name)[1:]]
        for name in ("Fine-tune", "DLFD")
    ]
    assert found["num_pairs"] == 2
    assert found["p"] == pytest.approx(stats.ttest_rel(*pairs).pvalue)


def test_too_few_pairs_are_not_tested(records):
    finetune, dlfd = of_label(records, "Fine-tune"), of_label(records, "DLFD")
    assert summarise([*finetune, dlfd[0]])[0]["paired"] is None
    assert summarise(finetune)[0]["paired"] is None
    no_gap = [with_result(run, gap_to_retrained=None) for run in dlfd]
    found = summarise([*finetune, *no_gap])[0]["paired"]
    assert found["gap_to_retrained"] is None
    assert found["nomus"]["num_pairs"] == 3


def test_runs_that_do_not_differ_have_p_1(records):
    dlfd = of_label(records, "DLFD")
    same = [dataclasses.replace(run, label="Fine-tune") for run in dlfd]
    found = paired_with_dlfd([*same, *dlfd])["Fine-tune"]["nomus"]
    assert (found["difference"], found["interval"], found["p"]) == (0.0, [0.0, 0.0], 1.0)


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
