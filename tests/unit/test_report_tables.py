"""The rows of the report and its tables as text, Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from dlfd_dist.errors import RunDirError
from dlfd_dist.report import csv_table, latex_table, load_run, markdown_table, summarise, text_table
from dlfd_dist.report.officer import guards, what_was_done
from dlfd_dist.report.records import of_label
from dlfd_dist.report.summary import METRICS, labels_in_order
from dlfd_dist.run_dir import RunDir
from tests.fakes.reports import TUNING, first, forgotten_too_hard, with_attack, with_result
from tests.fakes.run_dirs import write_run


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
    assert row["low_power_reason"].startswith("With 20 forgotten and 30 unseen people an AUC below")
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
    assert done["Request"].startswith("Forget 2 people and 1 to 2 single images (33 to 64 images).")
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
    told = guards(summarise([weak])[0], None)
    assert "no better than guessing" in told["forgetting_score"][0]
    assert "would be missed" in told["forgetting_score"][1]
    assert told["test_accuracy"] == ["One seed: another may turn out differently."]
    assert guards(summarise(of_label(records, "Original"))[0], None)["forgetting_score"] == [
        "No guard fired."
    ]


@pytest.mark.parametrize(
    ("lost", "told"), [(0.02, []), (0.11, ["11 points below Original."]), (-0.1, [])]
)
def test_accuracy_that_was_lost_stands_beside_the_figure(lost: float, told: list[str], records):
    original, run = first(records, "Original"), first(records, "DLFD")
    run = with_result(run, test_accuracy=original.result["test_accuracy"] - lost)
    before, after = summarise([original, run])
    assert guards(after, before)["test_accuracy"][:-1] == told


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
        "Method", "Seeds", "NoMUS", "Test acc.", "Forgetting", "Attack acc.", "Attack",
        "AUC of the confidence", "Gap",
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


@pytest.mark.parametrize("table", [markdown_table, latex_table])
def test_a_table_names_the_runs_that_are_not_in_it(rows, table):
    said = table(rows, None, ["scrub seed 1", "ssd seed 0"])
    assert "Not finished, and in no row: scrub seed 1, ssd seed 0." in said
    assert "Not finished" not in table(rows)


@pytest.mark.parametrize("table", [text_table, markdown_table, latex_table])
def test_tables_say_how_settings_were_chosen(rows, records, table):
    said = (
        "Tuned: 8 trials per method on validation NoMUS, each judged on 2 of the seeds, on the "
        "people whom the comparison forgets."
    )
    assert said in table(rows, TUNING)
    assert "on other people than the comparison forgets." in table(rows, {**TUNING, "draws": [7]})
    assert "did better than leaving the model as it is" not in table(rows, TUNING)
    still = {**TUNING["methods"], "scrub": {**TUNING["methods"]["ssd"], "no_gain": True}}
    assert "No trial of SCRUB did better than leaving the model as it is" in table(
        rows, {**TUNING, "methods": still}
    )
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
    assert text.isascii()
    assert text.count("{") == text.count("}")


def test_latex_table_escapes_what_would_break_it(records):
    hostile = dataclasses.replace(first(records, "DLFD"), label="a_b & 5% #1 {c} ~^ \\x $y$")
    row = latex_table(summarise([hostile])).splitlines()[5]
    wanted = r"a\_b \& 5\% \#1 \{c\} \textasciitilde{}\textasciicircum{} \textbackslash{}x \$y\$"
    assert row.startswith(wanted + " & 1")


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
    assert "no strangers" not in markdown_table(told)
    met |= {"strangers": False, "probes": {"knn_auc": 0.8, "linear_auc": 0.94}}
    assert "no strangers, as a probe tells them from some (AUC 0.94)" in markdown_table(told)
    assert "was matched to" not in markdown_table(rows)


def test_tables_load_no_matplotlib():
    code = "import sys, dlfd_dist.report; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("table", [text_table, markdown_table, latex_table])
def test_tables_say_how_many_optimiser_steps_all_methods_took(rows, records, table):
    assert "ptimiser steps" not in table(rows)
    finetune, dlfd = (first(records, label) for label in ("Fine-tune", "DLFD"))
    config = {**finetune.config, "method": {**finetune.config["method"], "steps": 350}}
    ssd = {**dlfd.config, "method": {**dlfd.config["method"], "name": "ssd"}}
    changed = [
        dataclasses.replace(finetune, config=config),
        dataclasses.replace(dlfd, config=ssd, label="SSD"),
    ]
    text = table(summarise(changed))
    assert "350 optimiser steps in all: Fine-tune." in text
    assert "No optimiser steps: SSD." in text
    assert "unequally many" not in text


@pytest.mark.parametrize("table", [text_table, markdown_table, latex_table])
def test_tables_say_where_methods_took_unequally_many_steps(records, table):
    finetune, dlfd = (of_label(records, label) for label in ("Fine-tune", "DLFD"))
    runs = [with_result(run, num_steps=350) for run in finetune]
    for count in (350, 51):
        text = table(summarise([*runs, *(with_result(run, num_steps=count) for run in dlfd)]))
        assert ("unequally many optimiser steps" in text) is (count == 51)
        assert f"350 optimiser steps in all: Fine-tune{', DLFD' * (count == 350)}." in text
    assert "51 optimiser steps in all: DLFD." in text
    runs = [with_result(run, num_steps=50 + k) for k, run in enumerate(dlfd)]
    assert "50 to 52 optimiser steps in all: DLFD." in table(summarise(runs))


@pytest.mark.parametrize("table", [text_table, markdown_table, latex_table, csv_table])
def test_tables_name_the_attack_that_counted(records, table):
    runs = of_label(records, "DLFD")
    named = [
        with_attack(run, 0.6, attack=name)
        for run, name in zip(runs, ("correctness", "loss", "correctness"), strict=True)
    ]
    assert "correctness (2 of 3)" in table(summarise(named))
    assert "confidence" in table(summarise(runs))
    assert summarise(named)[0]["mia_accuracy"] == pytest.approx(0.6)
    older = [with_result(run, mia={**run.mia, "attack": None}) for run in runs]
    assert summarise(older)[0]["attack"] is None
