"""The page: self-contained, escaped, and silent about the people of the request."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from dlfd_dist.errors import RunDirError
from dlfd_dist.report import read_comparison
from dlfd_dist.report.html import write_report
from dlfd_dist.report.plan import plan_figures
from tests.fakes.reports import TUNING, first, with_result
from tests.fakes.run_dirs import IDENTITIES, write_comparison

# All of them look at one page, whose figures take ten seconds to draw.
pytestmark = pytest.mark.xdist_group("report page")


@pytest.fixture(scope="module")
def written(records, tmp_path_factory) -> list[Path]:
    """Return the files of a report with all its figures, the page first."""
    out = tmp_path_factory.mktemp("page") / "deep" / "my report.html"
    return write_report(records, out, title="Two people", missing=["Retrained, seed 3"])


@pytest.fixture(scope="module")
def page(written) -> str:
    return written[0].read_text(encoding="utf-8")


@pytest.fixture
def blank_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the figures of a page empty: their titles, captions and files stay."""

    def plans(*data):
        return [replace(plan, draw=lambda _narrow: Figure()) for plan in plan_figures(*data)]

    monkeypatch.setattr("dlfd_dist.report.html.plan_figures", plans)


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
    assert not {"link", "iframe"} & set(found.tags)
    # Ours, which sorts and filters where there is something to sort.
    assert found.tags.count("script") == page.count("<script>") == ("table.methods" in page)
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
        "Inputs of every run: data <code>A</code>, request <code>A</code>",
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


def test_page_without_tuning_says_so(page):
    assert "Not tuned: every method with its default settings" in page
    assert "Tuned settings" not in page


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


def test_files_are_written_beside_the_page(written):
    assert written[0].name == "my report.html"
    assert {p.parent.name for p in written[1:]} == {"my report_figures"}
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in written[1:])
    left = {p for p in written[0].parent.rglob("*") if p.is_file()}
    assert left == set(written)


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
