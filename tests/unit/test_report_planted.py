"""Planted methods that forget nothing are recognised by table and page."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dlfd_dist.metrics import against_original, alike, moved
from dlfd_dist.report import csv_table, latex_table, markdown_table, summarise, text_table
from dlfd_dist.report.html import write_report
from dlfd_dist.report.officer import guards
from dlfd_dist.report.records import of_label
from dlfd_dist.report.verdict import judge
from tests.fakes.reports import first, with_result

LABELS = np.arange(60) % 3
BEFORE = 4 * np.eye(3)[LABELS] + np.random.default_rng(0).normal(0, 1, (60, 3))
SATURATED = 30 * np.eye(3)[LABELS]
"""Logits as on CK+48, whose probabilities are all 1."""
MOSTLY = (np.arange(60) >= 54).astype(int)
"""Labels of which nine in ten are one."""
ALWAYS = np.tile([6.0, 0, 0], (60, 1))
LEFT = ("left_as_is", "Left the model as it is", "∅")
PALER = ("only_confidence", "Only lowers its confidence", "↓")
SAME = ("alike", "Answers everything alike", "≡")
PLANTED = {
    "left_as_is": (1e-5, BEFORE, BEFORE, LABELS, *LEFT),
    "only_confidence": (0.02, BEFORE, BEFORE / 5, LABELS, *PALER),
    "only_confidence, saturated": (0.02, SATURATED, SATURATED / 6, LABELS, *PALER),
    "alike": (0.3, BEFORE, ALWAYS, LABELS, *SAME),
    "alike, of a majority": (0.3, BEFORE, ALWAYS, MOSTLY, *SAME),
}
"""What a method left behind: weights moved, logits before and after, labels; flag, words, mark."""
FLAGS = ("left_as_is", "only_confidence", "alike")


def planted(run, name: str):
    """Return a run as the planted method would have left it."""
    weights, before, after, labels, *_ = PLANTED[name]
    parts = dict.fromkeys(("retain", "forget", "val"), moved(after, before))
    told = {**run.result["against_original"], **against_original(weights, parts)}
    answers = alike(after, labels)
    assert answers is not None
    return with_result(run, against_original=told, alike=answers.to_dict())


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_method_is_recognised_by_table_and_page(records, name, tmp_path, monkeypatch):
    monkeypatch.setattr("dlfd_dist.report.html.plan_figures", lambda *_: [])
    flag, words, mark = PLANTED[name][4:]
    others = [run for run in records if run.label in ("Original", "Retrained")]
    runs = [*others, *(planted(run, name) for run in of_label(records, "DLFD"))]
    rows = summarise(runs)
    assert [row[flag] for row in rows] == [False, False, True]
    assert sum(rows[-1][other] for other in FLAGS) == 1
    for table in (text_table(rows), markdown_table(rows)):
        assert f"DLFD{mark}" in table
        assert f"{mark} {words}" in table
    assert f"{words}" in latex_table(rows)
    assert latex_table(rows).isascii()
    assert csv_table(rows).splitlines()[-1].count("True") >= 1
    page = tmp_path / "r.html"
    write_report(runs, page, title="T")
    html = page.read_text(encoding="utf-8")
    assert f"DLFD<sup>{mark}</sup>" in html
    assert f"<sup>{mark}</sup> {words}" in html
    verdict = judge(rows, runs)
    assert verdict.tone == "bad"
    assert verdict.caveats[0] == rows[-1][f"{flag}_reason"] != ""
    told = guards(rows[-1], None)
    assert any(words in text for text in (*told["forgetting_score"], *told["test_accuracy"]))


def test_a_flag_needs_most_of_the_runs_and_older_results_have_none(records):
    runs = of_label(records, "DLFD")
    one = [planted(runs[0], "left_as_is"), *runs[1:]]
    assert not summarise(one)[0]["left_as_is"]
    names = ("against_original", "alike", "without_retrained", "salun_mia")
    result = {k: v for k, v in first(records, "DLFD").result.items() if k not in names}
    (row,) = summarise([dataclasses.replace(runs[0], result=result)])
    assert not any(row[flag] for flag in FLAGS)
    assert row["weight_change"] is None
    assert row["without_retrained"] is None


def test_parts_of_a_single_run_have_their_interval_over_people(records):
    runs = [first(records, name) for name in ("Original", "Retrained")]
    runs[0] = with_result(runs[0], gap_to_retrained=None)
    row = summarise(runs)[0]
    assert row["gap_forget"] > 0
    low, high = row["gap_forget_interval"]
    assert low < row["gap_forget"] < high
    assert row["gap_to_retrained_interval"] is None
    assert row["salun_gap"] is not None
    parts = [row[f"gap_{name}"] for name in ("retain", "forget", "test", "attack", "js")]
    assert row["gap_to_retrained"] == pytest.approx(np.mean(np.abs(parts)))
