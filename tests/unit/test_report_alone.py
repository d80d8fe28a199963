"""The page of an owner without Retrained, through the template that is delivered."""

from __future__ import annotations

import pytest

from dlfd_dist.metrics.without_retrained import NOT_SAID
from dlfd_dist.report.html import write_report
from tests.fakes.reports import first, with_result

HEAD = "<h2>Without Retrained</h2>"


@pytest.fixture
def page_of(tmp_path, monkeypatch):
    monkeypatch.setattr("dlfd_dist.report.html.plan_figures", lambda *_: [])

    def page(*records) -> str:
        write_report(records, tmp_path / "r.html", title="T")
        return (tmp_path / "r.html").read_text(encoding="utf-8")

    return page


@pytest.mark.parametrize("verdict", ["gone", "not shown", "still there"])
def test_the_page_without_retrained_has_verdict_figures_and_what_is_not_said(
    records, page_of, verdict
):
    run = first(records, "DLFD")
    told = {**run.result["without_retrained"], "verdict": verdict, "reason": "So it is."}
    html = page_of(first(records, "Original"), with_result(run, without_retrained=told))
    section = html[html.index(HEAD) : html.index("<h2>Results</h2>")]
    assert f"<strong>{verdict}</strong>. So it is." in section
    for title in ("Accuracy of the attack", "AUC of the attack", "People"):
        assert f"<dt>{title}</dt>" in section
    assert "20 forgotten, 30 unseen" in section
    assert "0.0200 bits" in section
    assert "before unlearning it was 0.1000 bits" in section
    assert all(text in section for text in NOT_SAID)
    assert "Attack that counted</th>" in html
    assert "Attack AUC (of the confidence)</th>" in html
    assert '<td class="num">confidence<sup></sup></td>' in html


def test_with_retrained_the_page_has_no_such_section(records, page_of):
    runs = [first(records, name) for name in ("Original", "Retrained", "DLFD")]
    assert HEAD not in page_of(*runs)
