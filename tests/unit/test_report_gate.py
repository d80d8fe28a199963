"""The gate: a table ranks nothing where the attack does not tell Original from Retrained."""

from __future__ import annotations

import csv
import dataclasses
import io

import numpy as np
import pytest
from scipy import stats

from dlfd_dist.compose import compose_job
from dlfd_dist.data.loaders import resolve_rows
from dlfd_dist.metrics import Samples, membership_attack
from dlfd_dist.report import csv_table, latex_table, markdown_table, summarise, text_table
from dlfd_dist.report.gate import gate_of
from dlfd_dist.report.html import write_report
from dlfd_dist.report.summary import findings_of
from dlfd_dist.report.verdict import judge
from tests.fakes.reports import first, with_attack, with_result

CLOSED = "Nothing can be ranked here"


def attacked(records, original: float, retrained: float, *, seeds=(0,), half=0.01, people=20):
    """Return runs whose attacks score so much, one pair and a DLFD run for each seed."""
    made = []
    for seed in seeds:
        for label, accuracy in (("Original", original), ("Retrained", retrained), ("DLFD", 0.5)):
            jitter = 0.001 * seed if label == "Original" else 0.0
            value = accuracy + jitter
            run = with_attack(
                first(records, label), value, interval=[value - half, value + half],
                num_member_people=people, num_nonmember_people=50,
            )  # fmt: skip
            made.append(dataclasses.replace(run, seed=seed, train_seed=seed))
    return made


def test_of_few_seeds_the_error_is_that_over_people(records):
    found = gate_of(attacked(records, 0.62, 0.55, half=0.02, seeds=(0, 1)))
    assert found is not None
    assert (found.is_open, found.over, found.sentence) == (True, "people", "")
    assert found.difference == pytest.approx(0.0705)
    half = np.hypot(0.02, 0.02)
    assert found.interval == pytest.approx([0.0705 - half, 0.0705 + half], abs=1e-6)
    closed = gate_of(attacked(records, 0.57, 0.55, half=0.02))
    assert closed is not None
    assert not closed.is_open
    assert closed.sentence.startswith(f"{CLOSED}: the attack scores +0.020 (95 % interval over")
    assert "no more than its error" in closed.sentence


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_demo_s_own_people_are_too_few_to_rank_however_well_they_are_told(records, seed):
    """ORL as `dlfd demo` plans it: its people are counted, and no attack on them opens the gate."""
    config = compose_job("train", ["experiment=demo", f"seed={seed}"])
    found = resolve_rows(config.data, config.drawn_forget)
    people = found.manifest.identities
    sides = [
        Samples.of(np.tile([score, 0.0], (len(rows), 1)), np.zeros(len(rows), int),
                   np.unique(people[rows], return_inverse=True)[1] + 100 * k)
        for k, (score, rows) in enumerate(((9.0, found.splits.forget), (1.0, found.splits.test)))
    ]  # fmt: skip
    told = membership_attack(*sides, num_permutations=19, num_repeats=1)
    assert (told.num_member_people, told.num_nonmember_people) == (6, 6)
    assert told.floor
    assert "on a side the attack cannot tell" in told.floor_reason
    runs = [
        with_attack(first(records, label), accuracy, num_member_people=6, num_nonmember_people=6)
        for label, accuracy in (("Original", told.accuracy), ("Retrained", 0.5), ("DLFD", 0.5))
    ]
    gate = gate_of(runs)
    assert gate is not None
    assert not gate.is_open
    assert gate.sentence.startswith(f"{CLOSED}: 6 people on a side cannot tell, it takes 16")
    assert text_table(summarise(runs), findings=findings_of(runs)).startswith(CLOSED)


def test_from_five_seeds_on_it_is_that_over_seeds(records):
    runs = attacked(records, 0.62, 0.55, half=0.3, seeds=range(5))
    found = gate_of(runs)
    assert found is not None
    differences = 0.07 + 0.001 * np.arange(5)
    wanted = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert (found.is_open, found.over) == (True, "seeds")
    assert found.interval == pytest.approx(list(wanted))
    assert not gate_of(runs[:12]).is_open


def test_few_people_cannot_tell_however_far_apart_the_attacks_are(records):
    found = gate_of(attacked(records, 0.9, 0.5, people=12, seeds=range(5)))
    assert found is not None
    assert not found.is_open
    assert found.people == 12
    assert f"{CLOSED}: 12 people on a side cannot tell" in found.sentence
    assert gate_of(attacked(records, 0.9, 0.5, people=16)).is_open
    assert gate_of(attacked(records, 0.9, 0.5, people=None)).is_open


def test_a_reference_that_is_missing_closes_the_gate_and_none_at_all_is_no_comparison(records):
    runs = attacked(records, 0.62, 0.55)
    assert not gate_of([run for run in runs if run.label != "Retrained"]).is_open
    assert gate_of([run for run in runs if run.label == "DLFD"]) is None
    assert gate_of([run for run in runs if run.label != "DLFD"]) is None
    other_evaluation = {"metrics": {"seed": 7}}
    measured = [
        dataclasses.replace(run, config={**run.config, **other_evaluation})
        if run.label == "Retrained"
        else run
        for run in runs
    ]
    assert not gate_of(measured).is_open


def test_every_table_and_the_page_begin_with_the_sentence(records, tmp_path, monkeypatch):
    monkeypatch.setattr("dlfd_dist.report.html.plan_figures", lambda *_: [])
    runs = attacked(records, 0.56, 0.55, half=0.1)
    rows, findings = summarise(runs), findings_of(runs)
    assert text_table(rows, None, findings).startswith(CLOSED)
    assert markdown_table(rows, findings=findings).startswith(f"**{CLOSED}")
    text = latex_table(rows, findings=findings)
    assert text.index(CLOSED) < text.index("\\begin{tabular}")
    assert text.count("{") == text.count("}")
    notes = {row["note"] for row in csv.DictReader(io.StringIO(csv_table(rows, findings)))}
    assert notes == {findings.gate.sentence}
    assert findings.to_dict()["gate"]["is_open"] is False
    page = tmp_path / "r.html"
    write_report(runs, page, title="T")
    html = page.read_text(encoding="utf-8")
    assert (
        html.index("<h2>Results</h2>") < html.index(f"<strong>{CLOSED}") < html.index("Seeds</th>")
    )
    judged = judge(rows, runs, findings.gate)
    assert judged.judgement == "It cannot be told whether anything was forgotten"
    assert judged.caveats[0] == findings.gate.sentence
    opened = attacked(records, 0.7, 0.5)
    rows, findings = summarise(opened), findings_of(opened)
    for table in (text_table, csv_table):
        assert CLOSED not in table(rows, findings=findings)


def test_a_run_without_attack_does_not_count(records):
    runs = attacked(records, 0.62, 0.55)
    nobody = [with_result(run, mia=None) for run in runs]
    assert gate_of(nobody) is None
