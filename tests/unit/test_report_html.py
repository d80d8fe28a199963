"""The page: its tests, marks and settings, escaped, without images that may not be shown."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace

import pytest
from matplotlib.figure import Figure

from dlfd_dist.errors import RunDirError
from dlfd_dist.report import read_comparison
from dlfd_dist.report.html import write_report
from dlfd_dist.report.plan import plan_figures
from tests.fakes.reports import TUNING, first, with_result
from tests.fakes.run_dirs import write_comparison


@pytest.fixture
def blank_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the figures of a page empty: their titles, captions and files stay."""

    def plans(*data):
        return [replace(plan, draw=lambda _narrow: Figure((1, 1))) for plan in plan_figures(*data)]

    monkeypatch.setattr("dlfd_dist.report.html.plan_figures", plans)


def test_page_shows_the_tests_the_marks_and_the_chosen_settings(tmp_path, monkeypatch):
    monkeypatch.setattr("dlfd_dist.report.html.plan_figures", lambda *_: [])
    path = write_comparison(tmp_path / "c", methods=("neggrad", "dlfd"), tuning=TUNING)
    found = read_comparison(path)
    out = tmp_path / "r.html"
    write_report(found.records, out, title="T", tuning=found.tuning)
    text = out.read_text(encoding="utf-8")
    for shown in (
        "Contrasts named before the runs",
        "DLFD against Original, NoMUS: ",
        "Gap to Retrained, taken apart",
        "Did it act?",
        "<sup>§</sup> Forgotten too hard",
        "Tuned: 8 trials per method on validation NoMUS, each judged on 2 of the seeds, ",
        "<code>method.lr=0.0123</code>",
        "0.0001 to 0.03 (log)",
        '<td class="num">0.812</td><td class="num">0.790</td><td class="num">0.780</td>',
        '<td class="num">2</td><td class="num">1</td>',
        "no trial finished",
    ):
        assert shown in text
    assert len(re.findall(r"<sup>§</sup></td>", text)) == 1


@pytest.mark.usefixtures("blank_figures")
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
    assert text.count("<script") == text.count("<script>\n// Sorts and filters") == 1
    assert text.count("&lt;script&gt;") >= 4


@pytest.mark.usefixtures("blank_figures")
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


def test_report_loads_neither_torch_nor_hydra():
    code = "import sys, dlfd_dist.report.html; print({'torch', 'hydra'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
