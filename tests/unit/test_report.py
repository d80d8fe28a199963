"""The report: what is read back, the tables, the figures, the verdict and the page."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks.collapse import end_points
from dlfd_dist.config import METHOD_CONFIGS
from dlfd_dist.errors import RunDirError
from dlfd_dist.report import (
    csv_table,
    latex_table,
    load_comparison,
    load_run,
    load_with_references,
    markdown_table,
    read_comparison,
    summarise,
    text_table,
)
from dlfd_dist.report.figures import (
    loss_distributions,
    loss_edges,
    separation_curves,
    synthesis_spans,
    synthesis_switches,
    trade_off,
    training_curves,
    trajectories,
)
from dlfd_dist.report.gap_figure import gap_against_cost, gap_and_cost
from dlfd_dist.report.html import write_report
from dlfd_dist.report.intervals import independent_values, t_interval
from dlfd_dist.report.officer import guards, what_was_done
from dlfd_dist.report.paired import holm, paired_with_dlfd
from dlfd_dist.report.pictures import (
    can_embed,
    embed_features,
    feature_embeddings,
    synthesised_faces,
)
from dlfd_dist.report.plan import plan_figures, representatives
from dlfd_dist.report.records import METHOD_LABELS, of_label
from dlfd_dist.report.style import CLASS_COLORS, ROLE_STYLES, role_styles
from dlfd_dist.report.summary import METRICS, labels_in_order, with_gaps
from dlfd_dist.report.verdict import forgetting_interval, forgotten, judge
from dlfd_dist.run_dir import RunDir
from tests.fakes.run_dirs import IDENTITIES, SIZES, write_comparison, write_run

ALL_METHODS = ("dlfd", "dlfd_official", "finetune")
TUNING = {
    "trials": 8,
    "seed": 0,
    "pairs": [[4, 4], [5, 5]],
    "objective": "validation NoMUS",
    "methods": {
        "dlfd": {
            "settings": {"method.lr": 0.0123456, "method.epochs": 3},
            "value": 0.8125,
            "default_value": 0.79,
            "searched": {"method.lr": "0.0001 to 0.03 (log)", "method.epochs": "1, 2, 3, 4"},
            "failed": 1,
            "trials": [],
        },
        "ssd": {
            "settings": None, "value": None, "default_value": None, "searched": {}, "failed": 8,
            "trials": [],
        },
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def comparison(tmp_path_factory) -> Path:
    return write_comparison(tmp_path_factory.mktemp("a b's") / "compare", methods=ALL_METHODS)


@pytest.fixture(scope="module")
def records(comparison):
    return load_comparison(comparison)


@pytest.fixture(scope="module")
def rows(records):
    return summarise(records)


@pytest.fixture(scope="module")
def page(records, tmp_path_factory) -> str:
    out = tmp_path_factory.mktemp("page") / "report.html"
    write_report(records, out, title="Two people", missing=["Retrained, seed 3"])
    return out.read_text(encoding="utf-8")


def first(records, label):
    return of_label(records, label)[0]


def with_result(record, **changes):
    return dataclasses.replace(record, result={**record.result, **changes})


def with_attack(record, accuracy: float, **changes):
    """Return the record with another attack accuracy, its interval 0.01 to each side."""
    mia = {**record.mia, "accuracy": accuracy, "interval": [accuracy - 0.01, accuracy + 0.01]}
    return with_result(record, mia={**mia, **changes}, forgetting_score=abs(accuracy - 0.5))


def forgotten_too_hard(record):
    reason = "12.0 % of the forget losses lie in the highest 5.0 % of all losses."
    return with_result(record, over_forgetting={"flag": True, "tail_share": 0.12, "reason": reason})


@pytest.fixture(scope="module")
def crossed(tmp_path_factory):
    """Return the records of two train seeds, each unlearned with three seeds."""
    path = tmp_path_factory.mktemp("crossed") / "compare"
    return load_comparison(write_comparison(path, train_seeds=(0, 1), seeds=(5, 6, 7)))


# Reading


def test_run_is_read_back(comparison):
    run = load_run(comparison / "runs" / "dlfd-1")
    assert (run.label, run.seed, run.unlearned) == ("DLFD", 1, True)
    assert len(run.probes) == 9
    assert run.tensor("forget.loss").shape == (SIZES["forget"],)
    assert run.tensor("nothing.loss") is None
    assert run.synthesised()[0].shape == (8, 3, 48, 48)


def test_request_is_counted_and_not_kept(comparison):
    run = load_run(comparison / "runs" / "dlfd-0")
    assert dataclasses.astuple(run.request) == (3, 2, 1, 60, 0)
    assert not any(name in repr(run) for name in IDENTITIES)


def test_people_outside_training_do_not_count_as_forgotten(tmp_path):
    path = write_run(tmp_path / "run", "dlfd")
    lines = ["line,entry,kind,status,num_images", "1,a,identity,matched,4"]
    lines += ["2,b,identity,outside_train,0"]
    (path / "request.csv").write_text("\n".join(lines), encoding="utf-8")
    assert dataclasses.astuple(load_run(path).request) == (2, 1, 0, 4, 1)


@pytest.mark.parametrize(
    ("role", "label"),
    [
        ("original", "Original"),
        ("retrained", "Retrained"),
        ("finetune", "Fine-tune"),
        ("dlfd", "DLFD"),
        ("dlfd_official", "DLFD (authors' code)"),
    ],
)
def test_label_names_the_role(tmp_path, role, label):
    assert load_run(write_run(tmp_path / role, role)).label == label


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("result.json", "is not a finished run, it has no result.json"),
        ("config.yaml", "is not a run directory: it has no config.yaml"),
    ],
)
def test_unfinished_or_foreign_directory_is_refused(tmp_path, removed, message):
    path = write_run(tmp_path / "run", "dlfd")
    (path / removed).unlink()
    with pytest.raises(RunDirError, match=message):
        load_run(path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("result.json", "{", "result.json cannot be read"),
        ("config.yaml", "a: [", "config.yaml cannot be read"),
        ("config.yaml", "a: 1", "names no verb"),
    ],
)
def test_damaged_file_is_named(tmp_path, file, content, message):
    path = write_run(tmp_path / "run", "dlfd")
    (path / file).write_text(content, encoding="utf-8")
    with pytest.raises(RunDirError, match=message):
        load_run(path)


def test_damaged_samples_are_named(tmp_path):
    path = write_run(tmp_path / "run", "dlfd")
    (path / "samples.safetensors").write_bytes(b"nonsense")
    with pytest.raises(RunDirError, match=r"samples.safetensors cannot be read"):
        load_run(path).tensor("forget.loss")


def test_absent_tensor_is_named(tmp_path):
    run = load_run(write_run(tmp_path / "run", "original", nobody=True))
    with pytest.raises(RunDirError, match=r"has no 'forget.loss'"):
        loss_distributions([run])


def test_missing_directory_is_refused(tmp_path):
    with pytest.raises(RunDirError, match="there is no such directory"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(RunDirError, match=r"has no comparison.json"):
        read_comparison(tmp_path)


def test_unfinished_runs_of_a_comparison_are_named(tmp_path):
    path = write_comparison(tmp_path / "c", seeds=(0, 1), unfinished=("dlfd-1", "retrained-0"))
    found = read_comparison(path)
    assert len(found.records) == 6
    assert found.missing == ["Retrained, seed 0 (retrained-0)", "DLFD, seed 1 (dlfd-1)"]
    assert len(load_comparison(path)) == 6


def test_references_of_a_run_are_found(tmp_path):
    write_run(tmp_path / "original-0", "original")
    path = write_run(tmp_path / "dlfd-0", "dlfd")
    assert [r.label for r in load_with_references(path)] == ["Original", "DLFD"]


def test_every_method_has_a_label():
    assert METHOD_LABELS.keys() == METHOD_CONFIGS.keys()
    assert len(set(METHOD_LABELS.values())) == len(METHOD_LABELS)


@pytest.mark.parametrize(
    ("metric", "section", "name"),
    [
        ("mia_auc", "mia", "auc"),
        ("tail_share", "over_forgetting", "tail_share"),
        ("silhouette", "separation", "silhouette"),
    ],
)
def test_value_looks_into_the_sections_of_a_result(records, metric, section, name):
    run = first(records, "DLFD")
    assert run.value(metric) == run.result[section][name]
    assert with_result(run, **{section: None}).value(metric) is None


def test_train_seed_is_that_of_the_comparison_else_the_seed(records, crossed):
    assert all(run.train_seed == run.seed for run in records)
    seeds = {(run.train_seed, run.seed) for run in of_label(crossed, "DLFD")}
    assert seeds == {(t, s) for t in (0, 1) for s in (5, 6, 7)}


def test_missing_run_of_another_train_seed_is_named_with_it(tmp_path):
    path = write_comparison(
        tmp_path / "c", train_seeds=(0,), seeds=(5,), unfinished=("original-0-0", "dlfd-0-5")
    )
    assert read_comparison(path).missing == [
        "Original, seed 0 (original-0-0)",
        "DLFD, seed 5 on train seed 0 (dlfd-0-5)",
    ]


def test_tuning_is_read_back(tmp_path, comparison):
    assert read_comparison(write_comparison(tmp_path / "c", tuning=TUNING)).tuning == TUNING
    assert read_comparison(comparison).tuning is None


# Intervals and tests


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


# Tables


def test_rows_come_in_order(rows, records):
    wanted = ["Original", "Retrained", "Fine-tune", "DLFD (authors' code)", "DLFD"]
    assert [row["method"] for row in rows] == wanted
    other = dataclasses.replace(records[0], label="SCRUB")
    assert labels_in_order([*records, other])[3] == "SCRUB"


@pytest.mark.parametrize("metric", ["nomus", "test_accuracy", "wall_seconds", "gap_to_retrained"])
def test_interval_matches_scipy(rows, records, metric):
    values = [record.result[metric] for record in of_label(records, "DLFD")]
    row = rows[-1]
    wanted = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert row[metric] == pytest.approx(np.mean(values))
    assert row[f"{metric}_interval"] == pytest.approx(wanted)


def test_attack_metrics_come_from_the_attack(rows, records):
    runs = of_label(records, "DLFD")
    assert rows[-1]["mia_auc"] == pytest.approx(np.mean([run.mia["auc"] for run in runs]))
    assert rows[-1]["mia_paper"] == pytest.approx(np.mean([r.result["mia_paper"] for r in runs]))


def test_metric_that_no_run_has_stays_empty(rows):
    assert rows[1]["relearn_steps"] is None
    assert rows[1]["relearn_steps_interval"] is None


def test_null_values_are_left_out_of_the_mean(records):
    runs = of_label(records, "DLFD")
    runs = [with_result(runs[0], gap_to_retrained=None), *runs[1:]]
    (row,) = summarise(runs)
    wanted = np.mean([run.result["gap_to_retrained"] for run in runs[1:]])
    assert row["gap_to_retrained"] == pytest.approx(wanted)


def test_floor_needs_most_of_the_seeds(records):
    runs = of_label(records, "DLFD")
    rest = [with_attack(run, 0.52, floor=False, floor_reason="") for run in runs]
    assert summarise([*runs[:2], rest[2]])[0]["floor"]
    assert not summarise([runs[0], *rest[1:]])[0]["floor"]


def test_too_hard_needs_most_of_the_runs(records):
    runs = of_label(records, "DLFD")
    hard = [forgotten_too_hard(run) for run in runs]
    (row,) = summarise([*hard[:2], runs[2]])
    assert row["over_forgetting"]
    assert row["over_forgetting_reason"].startswith("12.0 %")
    assert row["tail_share"] == pytest.approx((0.12 + 0.12 + 0.04) / 3)
    for table in (text_table([row]), markdown_table([row])):
        assert "†§" in table
        assert "§ Forgotten too hard" in table
    (row,) = summarise([hard[0], *runs[1:]])
    assert not row["over_forgetting"]
    assert "§" not in text_table([row])


def test_an_attack_that_sees_little_is_marked_beside_its_auc(records):
    weak = with_attack(first(records, "DLFD"), 0.52, detectable_auc=0.71)
    (row,) = summarise([weak])
    assert row["low_power_reason"].startswith("With 60 forgotten and 60 unseen images an AUC below")
    for table in (text_table([row]), markdown_table([row])):
        assert f"{row['mia_auc']:.3f}‖" in table
        assert "‖ The sets are so small" in table
    assert r"\textsuperscript{$\Vert$}" in latex_table([row])
    strong = with_attack(weak, 0.52, detectable_auc=0.59)
    assert "‖" not in text_table(summarise([strong]))


def test_the_first_screen_says_what_was_done_by_which_code_and_names_nobody(records, tmp_path):
    runs = of_label(records, "DLFD")
    (row,) = summarise(runs)
    done = dict(what_was_done(row, runs))
    assert done["Request"].startswith("Forget 2 people and 1 single image (60 images).")
    assert done["Method"].startswith("DLFD, 3 runs. Delivered: Step 30")
    assert done["When"].startswith("Not recorded by the run")
    path = write_run(tmp_path / "run", "dlfd", test_read="after selection")
    code = {"version": "0.1.0", "revision": "ab" * 20, "diff_sha256": None}
    start = {"started": "2026-01-31T23:00:00Z", "code": code, "environment": {}}
    RunDir(path).record_start(start)
    changed = {**code, "diff_sha256": "cd" * 32}
    RunDir(path).record_start({**start, "started": "2026-02-01T08:00:00Z", "code": changed})
    run = load_run(path)
    done = dict(what_was_done(summarise([run])[0], [run]))
    assert done["Method"].endswith("The test set was measured after that.")
    assert done["When"] == (
        "Started 2026-01-31 23:00:00 UTC to 2026-02-01 08:00:00 UTC by dlfd-dist 0.1.0, revision "
        "abababababab; dlfd-dist 0.1.0, revision abababababab with uncommitted changes "
        "cdcdcdcdcdcd."
    )
    RunDir(path).environment.write_text("{", encoding="utf-8")
    with pytest.raises(RunDirError, match="environment.json cannot be read"):
        load_run(path)


def test_guards_are_told_in_words_beside_the_figures(records):
    weak = with_attack(first(records, "DLFD"), 0.52, detectable_auc=0.71)
    told = guards(summarise([weak])[0])
    assert "no better than guessing" in told["forgetting_score"][0]
    assert "would be missed" in told["forgetting_score"][1]
    assert told["test_accuracy"] == ["One seed: another may turn out differently."]
    assert guards(summarise(of_label(records, "Original"))[0])["forgetting_score"] == [
        "No guard fired."
    ]


def test_relearn_time_is_shown_where_measured_and_a_lower_bound_marked(records):
    runs = of_label(records, "DLFD")[:2]
    told = {"max_steps": 40, "losses": [], "lr": 0.02, "global_batch_size": 32}
    back = {"relearn_steps": 10, "relearn_steps_retrained": 20, "anamnesis_index": 0.5}
    never = dict.fromkeys(back)
    found = [with_result(run, relearn=told, **back) for run in runs]
    assert "relearn_steps" not in runs[0].result
    assert "Relearn" not in text_table(summarise(runs))
    table = text_table(summarise(found))
    assert re.search(r"Relearn steps +Anamnesis", table)
    assert "+" not in table.splitlines()[2]
    (row,) = summarise([found[0], with_result(runs[1], relearn=told, **never)])
    assert (row["relearn_steps"], row["relearn_steps_retrained"]) == (25, 20)
    assert "+ At least: not back" in text_table([row])


def test_results_without_the_newer_figures_still_give_a_row(records):
    old = ("over_forgetting", "separation", "validation")
    run = first(records, "DLFD")
    result = {name: value for name, value in run.result.items() if name not in old}
    (row,) = summarise([dataclasses.replace(run, result=result)])
    assert (row["over_forgetting"], row["tail_share"], row["silhouette"]) == (False, None, None)
    assert "DLFD" in text_table([row])


def test_one_seed_is_marked(records):
    (row,) = summarise([first(records, "DLFD")])
    assert row["one_seed"]
    assert row["nomus_interval"] is None
    text = text_table([row])
    assert "1*" in text
    assert "* One seed" in text
    assert "±" not in text


def test_text_table_is_aligned_and_explains_its_marks(rows):
    lines = text_table(rows).splitlines()
    assert re.split(r"\s{2,}", lines[0]) == [
        "Method", "Seeds", "NoMUS", "Test acc.", "Forgetting", "Attack AUC", "Gap",
    ]  # fmt: skip
    column = lines[0].index("Seeds")
    assert all(line[column] == "3" for line in lines[2:7])
    assert lines[6].startswith("DLFD ")
    assert "†" in lines[6]
    assert lines[7].startswith("† The attack is at its floor")
    assert "One seed" not in text_table(rows)


def test_runs_with_other_settings_in_one_row_are_marked(records):
    runs = of_label(records, "DLFD")
    changed = {**runs[1].config, "method": {**runs[1].config["method"], "lr": 0.1}}
    assert "DLFD‡" in text_table(summarise([runs[0], dataclasses.replace(runs[1], config=changed)]))
    assert "‡" not in text_table(summarise(runs))


def test_settings_that_a_run_does_not_read_do_not_make_a_row_mixed(records):
    """Original holds the unlearning settings of the comparison that trained it, and reads none."""
    runs = of_label(records, "Original")
    method = {**runs[1].config["method"], "lr": 0.5}
    other = dataclasses.replace(runs[1], config={**runs[1].config, "method": method})
    train = {**runs[1].config["train"], "lr": 0.5}
    trained_otherwise = dataclasses.replace(runs[1], config={**runs[1].config, "train": train})
    assert not summarise([runs[0], other])[0]["mixed_settings"]
    assert summarise([runs[0], trained_otherwise])[0]["mixed_settings"]


def test_markdown_table_escapes_what_would_break_it(records):
    (row,) = summarise([dataclasses.replace(first(records, "DLFD"), label="a|b")])
    lines = markdown_table([row]).splitlines()
    assert lines[1].startswith("| --- | ---:")
    assert "a\\|b" in lines[2]
    assert "1\\*" in lines[2]


@pytest.mark.parametrize(
    ("p_holm", "shown"), [(0.0124, "-0.021 ± 0.009, p 0.012"), (9e-4, "-0.021 ± 0.009, p < 0.001")]
)
def test_markdown_has_the_test_against_dlfd_where_there_is_one(rows, records, p_holm, shown):
    test = {"difference": -0.0214, "interval": [-0.0300, -0.0128], "p_holm": p_holm}
    lines = markdown_table([{**rows[2], "paired": {"nomus": test}}, rows[-1]]).splitlines()
    assert lines[0].endswith("| vs DLFD (NoMUS) |")
    assert lines[2].endswith(f"| {shown} |")
    assert lines[3].endswith("| – |")
    assert any(line.startswith("vs DLFD: ") for line in lines)
    both = markdown_table([{**rows[2], "paired": {"nomus": test, "gap_to_retrained": test}}])
    assert both.splitlines()[0].endswith("| vs DLFD (NoMUS) | vs DLFD (gap) |")
    assert both.splitlines()[2].endswith(f"| {shown} | {shown} |")
    assert "vs DLFD" not in markdown_table(summarise(of_label(records, "Fine-tune")))


@pytest.mark.parametrize("table", [markdown_table, latex_table])
def test_a_table_names_the_runs_that_are_not_in_it(rows, table):
    said = table(rows, None, ["scrub seed 1", "ssd seed 0"])
    assert "Not finished, and in no row: scrub seed 1, ssd seed 0." in said
    assert "Not finished" not in table(rows)


@pytest.mark.parametrize("table", [text_table, markdown_table, latex_table])
def test_tables_say_how_settings_were_chosen(rows, records, table):
    said = "Tuned: 8 trials per method on validation NoMUS, each judged on 2 of the seeds."
    assert said in table(rows, TUNING)
    assert "Not tuned: every method with its default settings" in table(rows)
    assert "tuned" not in table(summarise(of_label(records, "Original"))).lower()


def test_latex_table_is_a_booktabs_tabular(rows):
    text = latex_table(rows)
    body = text[text.index("\\midrule") : text.index("\\bottomrule")].splitlines()[1:]
    assert text.index("\\toprule") < text.index("\\midrule")
    assert [line.split(" & ")[0] for line in body] == [row["method"] for row in rows]
    (columns,) = re.findall(r"\\begin\{tabular\}\{(\w+)\}", text)
    assert {len(line.split(" & ")) for line in body} == {len(columns)}
    assert all(line.endswith(r" \\") for line in body)
    mean, interval = rows[0]["nomus"], rows[0]["nomus_interval"]
    assert rf"& {mean:.3f} $\pm$ {(interval[1] - interval[0]) / 2:.3f} &" in body[0]
    assert r"\textsuperscript{\dag{}}" in body[-1]
    assert r"\textsuperscript{\dag{}} The attack is at its floor" in text
    assert body[2].split(" & ")[-2].startswith("$-$0.")
    assert text.isascii()
    assert text.count("{") == text.count("}")


def test_latex_table_escapes_what_would_break_it(records):
    hostile = dataclasses.replace(first(records, "DLFD"), label="a_b & 5% #1 {c} ~^ \\x $y$")
    row = latex_table(summarise([hostile])).splitlines()[5]
    wanted = r"a\_b \& 5\% \#1 \{c\} \textasciitilde{}\textasciicircum{} \textbackslash{}x \$y\$"
    assert row.startswith(wanted + " & 1")


def test_csv_table_holds_the_tests(rows):
    table = list(csv.DictReader(io.StringIO(csv_table(rows))))
    test = rows[2]["paired"]["gap_to_retrained"]
    assert float(table[2]["gap_to_retrained_vs_dlfd"]) == test["difference"]
    assert float(table[2]["gap_to_retrained_vs_dlfd_hi"]) == test["interval"][1]
    assert float(table[2]["gap_to_retrained_vs_dlfd_p_holm"]) == test["p_holm"]
    assert table[-1]["gap_to_retrained_vs_dlfd_pairs"] == ""


def test_csv_table_keeps_full_precision(rows):
    table = list(csv.DictReader(io.StringIO(csv_table(rows))))
    assert len(table) == len(rows)
    assert float(table[-1]["nomus"]) == rows[-1]["nomus"]
    assert float(table[-1]["nomus_lo"]) == rows[-1]["nomus_interval"][0]
    assert table[-1]["seeds"] == "0 1 2"
    assert table[1]["relearn_steps"] == ""
    assert {f"{metric}_hi" for metric in METRICS} <= set(table[0])


def test_run_without_a_forget_set_gives_a_row(tmp_path):
    (row,) = summarise([load_run(write_run(tmp_path / "run", "original", nobody=True))])
    assert row["forgetting_score"] is None
    assert "–" in text_table([row])


# Figures


def drawn(fig) -> bool:
    """Whether the figure renders to something other than white."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="rgba", dpi=40)
    return np.ptp(np.frombuffer(buffer.getvalue(), np.uint8).reshape(-1, 4)[:, :3]) > 100


def legend_labels(fig) -> list[str]:
    return [text.get_text() for text in fig.legends[0].get_texts()]


@pytest.mark.parametrize("narrow", [False, True])
def test_loss_distributions_share_their_axes(records, narrow):
    fig = loss_distributions(representatives(records), narrow=narrow)
    titles = [ax.get_title(loc="left") for ax in fig.axes]
    assert titles == ["Original", "Retrained", "DLFD"]
    assert len({ax.get_xlim() for ax in fig.axes}) == len({ax.get_ylim() for ax in fig.axes}) == 1
    assert fig.axes[0].get_xscale() == "log"
    assert "forgotten images" in legend_labels(fig)
    assert drawn(fig)


def test_loss_axis_is_linear_when_losses_are_alike():
    rng = np.random.default_rng(0)
    assert not loss_edges(rng.uniform(0.5, 2, 100), 10)[1]
    edges, is_log = loss_edges(np.exp(rng.normal(0, 3, 100)), 10)
    assert is_log
    assert np.all(np.diff(edges) > 0)
    assert np.all(np.diff(loss_edges(np.zeros(10), 10)[0]) > 0)


def test_trajectories_mark_where_synthesis_acts(records):
    fig = trajectories(records)
    labels = legend_labels(fig)
    assert {"Fine-tune", "DLFD", "synthesis acts", "threshold 0.05", "delivered"} <= set(labels)
    assert "Original" not in labels
    assert [ax.get_xlabel() for ax in fig.axes] == ["unlearning step"] * 2
    assert fig.axes[0].patches
    assert drawn(fig)


def test_trajectories_without_synthesis_shade_nothing(records):
    fig = trajectories(of_label(records, "Fine-tune"))
    assert legend_labels(fig) == ["Fine-tune"]
    assert not fig.axes[0].patches


def test_synthesis_spans_and_switches(records):
    flags = [True, True, False, True, False]
    probes = [{"step": 10 * i, "synthesis": flag} for i, flag in enumerate(flags)]
    run = dataclasses.replace(records[0], probes=probes)
    assert synthesis_spans(run) == [(0, 20), (30, 40)]
    switches = [(probe["step"], is_on) for probe, is_on in synthesis_switches(run)]
    assert switches == [(20, False), (30, True), (40, False)]


def test_many_methods_are_drawn_as_means_and_few_with_their_runs(tmp_path):
    names = [name for name in METHOD_CONFIGS if not name.startswith("dlfd")]
    path = write_comparison(tmp_path / "c", methods=tuple(names), seeds=(0, 1))
    many = load_comparison(path)
    few = [run for run in many if run.label in ("NegGrad", "SCRUB")]
    assert len(trajectories(many).axes[1].lines) == len(names)
    assert len(trajectories(few).axes[1].lines) == 2 * (2 + 1)
    assert drawn(trajectories(many, narrow=True))


def test_separation_curves_show_the_numbers_of_the_probes(tmp_path):
    path = write_comparison(
        tmp_path / "c", methods=("neggrad", "dlfd"), seeds=(0,), separation=True
    )
    found = load_comparison(path)
    fig = separation_curves(found)
    titles = [ax.get_title(loc="left") for ax in fig.axes]
    assert titles == ["Silhouette", "Linear probe accuracy", "Between / within scatter"]
    assert legend_labels(fig) == ["NegGrad", "DLFD"]
    probes = first(found, "NegGrad").probes
    line = fig.axes[2].lines[0].get_xydata().tolist()
    assert line == [[probe["step"], probe["scatter_ratio"]] for probe in probes]
    assert drawn(fig)
    alone = of_label(found, "NegGrad")
    assert "separation" in [plan.name for plan in plan_figures(alone, summarise(alone))]


def test_separation_is_left_out_where_no_probe_recorded_it(records):
    alone = of_label(records, "Fine-tune")
    names = [plan.name for plan in plan_figures(alone, summarise(alone))]
    assert "trajectory" in names
    assert "separation" not in names


def test_trade_off_places_each_method(rows, records):
    fig = trade_off(rows, records)
    (ax,) = fig.axes
    assert legend_labels(fig) == [*(row["method"] for row in rows), "equal NoMUS"]
    points = [c.lines[0].get_xydata()[0] for c in ax.containers]
    wanted = [(row["forgetting_score"], row["test_accuracy"]) for row in rows]
    assert np.allclose(points, wanted)
    assert drawn(fig)


def test_trade_off_of_single_seeds_has_no_bars(records):
    fig = trade_off(summarise(representatives(records)))
    assert drawn(fig)
    assert len(fig.axes[0].containers) == 3


def test_gap_against_cost_places_each_method_by_its_share_of_retraining(rows):
    fig = gap_against_cost(rows)
    (ax,) = fig.axes
    whole = next(row["device_seconds"] for row in rows if row["method"] == "Retrained")
    unlearned = [row for row in rows if row["unlearned"]]
    points = [c.lines[0].get_xydata()[0] for c in ax.containers]
    wanted = [(100 * r["device_seconds"] / whole, r["gap_to_retrained"]) for r in unlearned]
    assert np.allclose(points, wanted)
    said = ["Retrained", "doing nothing (Original)", "Retrained with another seed"]
    assert legend_labels(fig)[-3:] == said
    assert [line.get_ydata()[0] for line in ax.lines if line.get_ls() == ":"] == [
        rows[1]["gap_to_retrained"]
    ]
    assert ax.get_ylim()[0] == 0
    assert drawn(fig)
    assert drawn(gap_against_cost(rows, narrow=True))


def test_gap_against_cost_needs_the_cost_of_retraining(rows):
    assert gap_and_cost(rows)
    assert not gap_and_cost([row for row in rows if row["method"] != "Retrained"])


@pytest.mark.parametrize(
    ("kind", "labelled", "said"),
    [
        ("val_split", True, "DLFM was matched to 3 validation people set apart"),
        ("manifest", False, "DLFM was matched to 3 strangers from outside the data set, without"),
        ("synthesised", True, "DLFM was matched to images that DLFD synthesises"),
    ],
)
def test_the_table_says_whom_a_method_was_matched_to(kind, labelled, said, rows):
    people = 0 if kind == "synthesised" else 3
    met = {"kind": kind, "labelled": labelled, "people": people, "images": 8}
    told = [{**rows[-1], "method": "DLFM", "reference_people": met}]
    assert said in markdown_table(told)
    assert "was matched to" not in markdown_table(rows)


def test_training_curves_show_the_trained_models(records):
    fig = training_curves(records)
    assert legend_labels(fig) == ["Original", "Retrained"]
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["Training loss", "Validation accuracy"]
    assert drawn(fig)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_embeddings_show_both_models_and_ring_the_forgotten(records, method):
    pair = first(records, "Original"), first(records, "DLFD")
    embedding = embed_features(*pair, method)
    sizes = {part: len(points) for part, points in embedding.points[1].items()}
    assert sizes == {part: SIZES[part] for part in ("retain", "test", "forget")}
    fig = feature_embeddings(embedding)
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["Original", "DLFD"]
    assert {"smile", "forgotten", "never seen"} <= set(legend_labels(fig))
    assert drawn(fig)


def test_embedding_is_the_same_each_time(records):
    pair = first(records, "Original"), first(records, "DLFD")
    one, two = (embed_features(*pair).points[1]["forget"] for _ in range(2))
    assert np.array_equal(one, two)


def test_embedding_needs_a_forget_set(tmp_path, records):
    nobody = load_run(write_run(tmp_path / "run", "original", nobody=True))
    assert not can_embed(nobody, first(records, "DLFD"))
    assert not can_embed(first(records, "Original"), nobody)


def test_faces_come_in_pairs_with_their_difference(records):
    fig = synthesised_faces(first(records, "DLFD"))
    names = [ax.get_ylabel() for ax in fig.axes if ax.get_ylabel()]
    assert names == ["original", "synthesised", "difference"]
    assert len(fig.axes) == 3 * 8 + 1
    assert "Synthetic" in fig.get_suptitle()
    assert drawn(fig)
    assert len(synthesised_faces(first(records, "DLFD"), narrow=True).axes) == 3 * 4 + 1


def test_faces_that_may_not_be_shown_are_refused(records):
    run = with_result(first(records, "DLFD"), may_show=False, synthetic=False)
    with pytest.raises(ValueError, match="no images that may be shown"):
        synthesised_faces(run)


def test_every_label_has_a_colour_of_its_own():
    assert set(METHOD_LABELS.values()) <= set(ROLE_STYLES)
    styles = role_styles([*ROLE_STYLES, "a new method", "another"])
    assert len({color for color, _ in styles.values()}) == len(styles)
    assert len({marker for _, marker in styles.values()}) == len(styles)
    assert len(set(CLASS_COLORS)) == len(CLASS_COLORS)


def test_labels_with_dollar_signs_are_drawn_as_they_are(records):
    run = dataclasses.replace(first(records, "Original"), label="cost $x_{ method")
    assert drawn(loss_distributions([run]))


def test_figures_without_ingredients_are_left_out(tmp_path):
    run = load_run(write_run(tmp_path / "run", "original", nobody=True))
    assert [plan.name for plan in plan_figures([run], summarise([run]))] == ["training"]


def test_representatives_are_of_one_seed(records):
    fewer = [r for r in records if (r.label, r.seed) != ("Retrained", 0)]
    chosen = [(r.label, r.seed) for r in representatives(fewer)]
    assert chosen == [("Original", 1), ("Retrained", 1), ("DLFD", 1)]


# Verdict


def verdict_of(*records):
    return judge(summarise(records), records)


def test_verdict_names_counts_and_all_three_models(rows, records):
    verdict = judge(rows, records)
    assert verdict.tone == "good"
    assert "DLFD was asked to forget 2 people and 1 single image (60 images)" in verdict.sentence
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
    verdict = verdict_of(original, with_attack(first(records, "DLFD"), after))
    assert verdict.tone == tone
    assert words in verdict.judgement


def test_verdict_says_when_the_attack_fails_on_original(records):
    original = with_attack(first(records, "Original"), 0.51, floor=True, floor_reason="Few images.")
    verdict = verdict_of(original, first(records, "DLFD"))
    assert verdict.tone == "unclear"
    assert any("cannot show" in c and c.endswith("Few images.") for c in verdict.caveats)


def test_verdict_says_what_overlaps(records):
    trio = [first(records, name) for name in ("Original", "Retrained", "DLFD")]
    same = verdict_of(*(with_attack(run, 0.53) for run in trio)).caveats
    assert any("Original overlap" in caveat for caveat in same)
    assert any("Retrained overlap" in caveat for caveat in same)
    apart = [with_attack(run, value) for run, value in zip(trio, (0.7, 0.6, 0.53), strict=True)]
    assert not any("overlap" in caveat for caveat in verdict_of(*apart).caveats)


def test_verdict_marks_one_seed_and_a_lone_run(records):
    verdict = verdict_of(first(records, "DLFD"))
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
    assert forgotten([run]) == "60 images"


# Page


class Resources(HTMLParser):
    """Collects what a page would load and the tags it is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.urls: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.urls += [value for name, value in attrs if name in ("src", "srcset", "href")]


def test_page_needs_nothing_from_outside(page):
    found = Resources(page)
    assert found.urls
    assert all(url.startswith("data:image/png;base64,") for url in found.urls)
    assert not {"script", "link", "iframe"} & set(found.tags)
    assert "url(" not in page
    assert "@import" not in page


def test_page_has_every_figure_for_both_widths(page):
    found = Resources(page)
    assert found.tags.count("img") == found.tags.count("source") == 8


def test_page_never_names_the_forgotten(page):
    names = [*IDENTITIES, "Zenobia", "people-who-left", "/home/someone"]
    assert not any(name in page for name in names)


def test_page_states_definitions_limits_credit_and_missing_runs(page):
    for text in (
        "not a privacy guarantee",
        "Retrained, seed 3",
        "Faces drawn by dlfd-dist",
        "All images of this report are synthetic",
        "method.forget_threshold",
        "(test accuracy + 1 − 2 × forgetting score) / 2",
        "ab12ab12ab12ab12",
    ):
        assert text in page


def test_page_shows_the_tests_the_marks_and_the_chosen_settings(tmp_path, monkeypatch):
    monkeypatch.setattr("dlfd_dist.report.html.plan_figures", lambda *_: [])
    path = write_comparison(tmp_path / "c", methods=("neggrad", "dlfd"), tuning=TUNING)
    found = read_comparison(path)
    out = tmp_path / "r.html"
    write_report(found.records, out, title="T", tuning=found.tuning)
    text = out.read_text(encoding="utf-8")
    for shown in (
        "vs DLFD (NoMUS)",
        "vs DLFD (gap)",
        "<sup>§</sup> Forgotten too hard",
        "Tuned: 8 trials per method on validation NoMUS, each judged on 2 of the seeds.",
        "<code>method.lr=0.0123</code>",
        "0.0001 to 0.03 (log)",
        '<td class="num">0.812</td><td class="num">0.790</td><td class="num">1</td>',
        "no trial finished",
    ):
        assert shown in text
    assert len(re.findall(r"<sup>§</sup></td>", text)) == 1


def test_page_without_tuning_says_so(page):
    assert "Not tuned: every method with its default settings" in page
    assert "Tuned settings" not in page


def test_page_escapes_hostile_names(tmp_path):
    hostile = "<script>alert('x')</script>"
    path = write_comparison(
        tmp_path / "c", seeds=(0,), title=hostile, credit=hostile, label_names=[hostile, "b", "c"]
    )
    found = read_comparison(path)
    (out, *_) = write_report(
        found.records, tmp_path / "r.html", title=found.title, missing=[hostile]
    )
    text = out.read_text(encoding="utf-8")
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 4


def test_files_are_written_beside_the_page(records, tmp_path):
    paths = write_report(representatives(records), tmp_path / "deep" / "my report.html", title="T")
    assert paths[0].name == "my report.html"
    assert {p.parent.name for p in paths[1:]} == {"my report_figures"}
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in paths[1:])
    left = {p for p in paths[0].parent.rglob("*") if p.is_file()}
    assert left == set(paths)


def test_images_disappear_when_they_may_not_be_shown(records, tmp_path):
    out = tmp_path / "r.html"
    run = first(records, "DLFD")
    assert "faces.png" in {path.name for path in write_report([run], out, title="T")}
    hidden = with_result(run, may_show=False, synthetic=False)
    assert "faces.png" not in {path.name for path in write_report([hidden], out, title="T")}
    assert not (tmp_path / "r_figures" / "faces.png").exists()
    assert "Images are not shown" in out.read_text(encoding="utf-8")


def test_report_of_no_run_is_refused(tmp_path):
    with pytest.raises(RunDirError, match="no finished run"):
        write_report([], tmp_path / "r.html", title="T")


def test_comparison_json_may_name_runs_by_absolute_path(tmp_path):
    run = write_run(tmp_path / "elsewhere", "dlfd")
    entry = {"role": "method", "method": "dlfd", "seed": 0, "run_dir": str(run)}
    content = json.dumps({"title": "T", "runs": [entry]})
    (tmp_path / "comparison.json").write_text(content, encoding="utf-8")
    assert load_comparison(tmp_path)[0].path == run


def test_report_loads_neither_torch_nor_hydra():
    code = "import sys, dlfd_dist.report.html; print({'torch', 'hydra'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_tables_load_no_matplotlib():
    code = "import sys, dlfd_dist.report; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
