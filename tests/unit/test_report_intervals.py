"""Intervals over seeds, crossed or not, and the gap that a table fills in."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy import stats

from benchmarks.collapse import end_points
from dlfd_dist.metrics import correct, js_divergence
from dlfd_dist.report import load_comparison, summarise, text_table
from dlfd_dist.report.gaps import with_gaps
from dlfd_dist.report.intervals import over_seeds, seeds_mean, t_interval
from dlfd_dist.report.records import of_label
from tests.fakes.reports import with_result
from tests.fakes.run_dirs import write_comparison


def test_collapse_benchmark_shows_the_first_and_the_last_probe(records):
    def probed(record, first, last):
        values = [{"step": i, "silhouette": v} for i, v in enumerate((first, -9.0, last))]
        return dataclasses.replace(record, probes=values)

    one, two, _ = of_label(records, "Fine-tune")
    runs = [probed(one, 0.3, 0.1), probed(two, 0.5, 0.1)]
    half = stats.t.ppf(0.975, 1) * 0.1
    assert end_points(runs, "silhouette") == f"0.400 ± {half:.3f} → 0.100 ± 0.000"
    assert end_points(runs, "scatter_ratio") == "– → –"


def test_runs_of_a_trained_model_count_together_in_the_mean():
    values = [(0, 5, 1.0), (0, 6, 3.0), (1, 5, 10.0), (2, 5, 5.0), (1, 6, 20.0)]
    assert seeds_mean(values) == pytest.approx(22 / 3)
    assert seeds_mean([(7, 0, 1.0), (7, 1, 3.0)]) == 2
    assert seeds_mean([]) is None


@pytest.mark.parametrize("num", [2, 3, 10])
def test_t_interval_is_scipys(num):
    values = np.random.default_rng(num).normal(size=num)
    wanted = stats.t.interval(0.95, num - 1, loc=values.mean(), scale=stats.sem(values))
    assert t_interval(values) == pytest.approx(wanted)
    assert t_interval(values[:1]) is None


def crossed_values(num_rows: int, num_columns: int, scales, seed: int = 0):
    """Return values of crossed seeds: of a training, of a seed and of both, about 0."""
    rng = np.random.default_rng(seed)
    rows, columns = rng.normal(size=(num_rows, 1)), rng.normal(size=(1, num_columns))
    rest = rng.normal(size=(num_rows, num_columns))
    return scales[0] * rows + scales[1] * columns + scales[2] * rest


def as_seeds(table: np.ndarray):
    return [(t, 100 + s, float(v)) for (t, s), v in np.ndenumerate(table)]


def test_crossed_seeds_take_the_variance_of_both_axes_by_the_analysis_of_variance():
    table = crossed_values(6, 5, (3.0, 2.0, 0.3))
    rows, columns, mean = table.mean(1), table.mean(0), table.mean()
    rest = table - rows[:, None] - columns + mean
    squares = 5 * rows.var(ddof=1), 6 * columns.var(ddof=1), (rest**2).sum() / 20
    variance = squares[0] + squares[1] - squares[2]
    freedom = variance**2 / (squares[0] ** 2 / 5 + squares[1] ** 2 / 4 + squares[2] ** 2 / 20)
    found = over_seeds(as_seeds(table))
    assert found.mean == pytest.approx(mean)
    assert found.error == pytest.approx(np.sqrt(variance / 30))
    assert found.freedom == pytest.approx(freedom)


def test_an_axis_that_does_not_matter_is_pooled_and_no_variance_is_no_error():
    table = crossed_values(8, 8, (4.0, 0.0, 1.0), seed=3)
    rows = table.mean(1)
    found = over_seeds(as_seeds(table))
    assert found.error == pytest.approx(rows.std(ddof=1) / np.sqrt(8))
    assert found.freedom == 7
    flat = over_seeds(as_seeds(np.full((5, 5), 0.25)))
    assert flat.interval() == [0.25, 0.25]


@pytest.mark.parametrize("scales", [(1, 1, 1), (1, 0.3, 0.5), (0.5, 1, 0.5), (0.2, 0.2, 1)])
def test_the_interval_of_five_crossed_seeds_covers_what_it_says(scales):
    """93 to 97 %, with 1.5 points for the error of 1,000 tables."""
    found = [over_seeds(as_seeds(crossed_values(5, 5, scales, seed))) for seed in range(1000)]
    covered = np.mean([low <= 0 <= high for low, high in (one.interval() for one in found)])
    assert 0.915 <= covered <= 0.985


def test_crossed_seeds_give_no_interval_below_five_of_either_axis(crossed):
    row = summarise(crossed)[-1]
    means = [
        np.mean([r.result["nomus"] for r in of_label(crossed, "DLFD") if r.train_seed == t])
        for t in (0, 1)
    ]
    assert row["nomus"] == pytest.approx(np.mean(means))
    assert row["nomus_interval"] is None
    assert (row["seeds"], row["train_seeds"], row["few_crossed"]) == ([5, 6, 7], [0, 1], True)
    assert "2 × 3◇" in text_table([row])
    assert "◇ Fewer than 5 of an axis of crossed seeds" in text_table([row])
    assert "Seeds a × b" in text_table([row])
    for shape in ((4, 9), (9, 4)):
        assert over_seeds(as_seeds(crossed_values(*shape, (1, 1, 1)))) is None
    # A training that lacks a seed is left out, where five are left.
    whole = as_seeds(crossed_values(6, 5, (1, 1, 1)))
    assert over_seeds(whole[:-1]) == over_seeds(whole[:-5])


def measured_with(record, seed: int, by: float):
    """Return the record as another evaluation seed might have measured it."""
    config = {**record.config, "metrics": {**record.config["metrics"], "seed": seed}}
    result = {**record.result, "nomus": record.result["nomus"] + by}
    return dataclasses.replace(record, config=config, result=result)


def test_evaluations_of_one_run_are_no_independent_values(crossed):
    runs = of_label(crossed, "DLFD")
    copies = [
        dataclasses.replace(run, train_seed=t, seed=s)
        for t in range(5)
        for s, run in enumerate([*runs, *runs][:5])
    ]
    both = [*copies, *(measured_with(run, 1, 0.02) for run in copies)]
    (row,), (once,) = summarise(both), summarise(copies)
    assert row["axes"] == ["train_seeds", "seeds", "metrics_seeds"]
    assert once["axes"] == ["train_seeds", "seeds"]
    assert not row["mixed_settings"]
    assert "5 × 5 × 2 ev." in text_table([row])
    half = [row["nomus_interval"][1] - row["nomus"], once["nomus_interval"][1] - once["nomus"]]
    assert half[0] == pytest.approx(half[1])
    assert row["nomus"] == pytest.approx(once["nomus"] + 0.01)


def test_one_axis_of_seeds_keeps_the_t_interval(records, rows):
    assert all(len(row["axes"]) == 1 for row in rows)
    assert not any(row["few_crossed"] for row in rows)
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
        apart = [run.mia["accuracy"] - retrained.mia["accuracy"]]
        for part in ("retain", "forget", "test"):
            labels = run.require(f"{part}.labels")
            own, other = (correct(r.require(f"{part}.logits"), labels) for r in (run, retrained))
            apart.append(np.mean(own - other))
        answers = [r.require("forget.logits") for r in (run, retrained)]
        apart.append(js_divergence(*answers).mean())
        assert run.result["gap_to_retrained"] == pytest.approx(np.mean(np.abs(apart)))
    row = next(row for row in summarise(runs) if row["method"] == "Retrained")
    assert row["gap_to_retrained_interval"] is None
    assert f"{row['gap_to_retrained']:.3f}◦" in text_table([row])
    assert "◦ Retrained against Retrained of the other train seeds" in text_table([row])


def test_retrained_of_one_seed_has_no_gap(crossed):
    runs = [run for run in crossed if run.train_seed == 0]
    (row,) = [row for row in summarise(runs) if row["method"] == "Retrained"]
    assert row["gap_to_retrained"] is None
    assert "◦" not in text_table([row])


def test_the_gap_stays_open_where_runs_were_measured_on_other_images_or_kept_no_logits(tmp_path):
    path = write_comparison(tmp_path / "c", seeds=(0, 1))
    runs = [with_result(run, gap_to_retrained=None) for run in load_comparison(path)]
    file = path / "runs" / "retrained-0" / "samples.safetensors"
    held = load_file(file)

    def gaps() -> list[bool]:
        """Return of Original's two runs whether the gap is known."""
        found = of_label(with_gaps(runs), "Original")
        return [run.result["gap_to_retrained"] is not None for run in found]

    assert gaps() == [True, True]
    save_file({**held, "forget.ids": held["forget.ids"] + 1}, file)
    assert gaps() == [False, True]
    save_file({name: held[name] for name in held if not name.endswith("logits")}, file)
    assert gaps() == [False, True]
