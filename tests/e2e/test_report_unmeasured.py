"""Figures that a run may not have: every sentence, table and figure goes without them."""

from __future__ import annotations

import pytest

from dlfd_dist.jobs.evaluation import ATTACK_FIGURES
from dlfd_dist.report import csv_table, latex_table, summarise, text_table
from dlfd_dist.report.figures import trade_off
from dlfd_dist.report.html import _context, render
from dlfd_dist.report.summary import findings_of
from dlfd_dist.report.verdict import judge
from tests.fakes.reports import first, with_attack, with_result

ABOUT_THE_FORGOTTEN = (
    *ATTACK_FIGURES, "forget_accuracy", "over_forgetting", "validation", "membership_probes",
    "without_retrained", "gap_to_retrained", "against_retrained", "forget_labels",
)  # fmt: skip
"""What result.json leaves null where nobody was to be forgotten."""
OPTIONAL = (
    *ABOUT_THE_FORGOTTEN, "retain_accuracy", "val_accuracy", "test_accuracy", "alike", "separation",
    "against_original", "groups", "leaks", "relearn_steps", "selected_step", "selection",
    "wall_seconds", "device_seconds", "peak_memory_mb",
)  # fmt: skip


def without(record, *names):
    return with_result(record, **dict.fromkeys(names))


def page_of(*records):
    rows, findings = summarise(records), findings_of(records)
    assert all((csv_table(rows, findings), latex_table(rows), text_table(rows, None, findings)))
    context = _context(records, rows, None, findings)
    return render({**context, "title": "Faces", "missing": [], "figures": []})


def test_report_says_that_original_was_not_attacked(records):
    original = without(first(records, "Original"), *ABOUT_THE_FORGOTTEN)
    alone = without(first(records, "DLFD"), "without_retrained")
    for trio in ((original, alone), (original, first(records, "Retrained"), alone)):
        verdict = judge(summarise(trio), trio)
        assert verdict.tone == "unclear"
        assert any(c.startswith("Original was not attacked") for c in verdict.caveats)
        assert not any("and Original overlap" in caveat for caveat in verdict.caveats)
    assert (
        "Original was not attacked, so there is"
        in judge(summarise([original, alone]), [original, alone]).judgement
    )
    assert "Original was not attacked" in page_of(original, alone)


def test_no_difference_to_a_retrained_model_that_was_not_attacked_is_told(records):
    retrained = without(first(records, "Retrained"), *ABOUT_THE_FORGOTTEN)
    trio = [first(records, "Original"), retrained, first(records, "DLFD")]
    assert not any("and Retrained overlap" in c for c in judge(summarise(trio), trio).caveats)


@pytest.mark.parametrize("name", OPTIONAL)
def test_every_optional_figure_may_be_missing(records, name):
    trio = [first(records, label) for label in ("Original", "Retrained", "DLFD")]
    for place in range(len(trio)):
        changed = [without(r, name) if n == place else r for n, r in enumerate(trio)]
        assert "Faces" in page_of(*changed)
        judge(summarise(changed[::2]), changed[::2])


def test_a_figure_that_was_not_measured_is_not_that_of_another_model(records):
    trio = [first(records, label) for label in ("Original", "DLFD")]
    trio[1] = without(trio[1], "test_accuracy")
    assert "test accuracy is not measured (Original " in judge(summarise(trio), trio).sentence


def test_trade_off_leaves_out_a_run_that_was_not_attacked(records):
    originals = [r for r in records if r.label == "Original"]
    shown = [without(originals[0], *ABOUT_THE_FORGOTTEN), *originals[1:], first(records, "DLFD")]
    (axes,) = trade_off(summarise(shown), shown).axes
    assert len([line for line in axes.lines if line.get_markersize() == 3.5]) == len(shown) - 1


def test_gate_and_verdict_hold_with_an_attack(records):
    trio = [first(records, label) for label in ("Original", "Retrained", "DLFD")]
    trio[0] = with_attack(trio[0], 0.8)
    assert not any("not attacked" in caveat for caveat in judge(summarise(trio), trio).caveats)
