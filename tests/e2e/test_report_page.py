"""A drawn page: self-contained, with every figure, and silent about whom the request names."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from dlfd_dist.report.html import write_report
from tests.fakes.run_dirs import IDENTITIES

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


def test_page_without_tuning_says_so(page):
    assert "Not tuned: every method with its default settings" in page
    assert "Tuned settings" not in page


def test_files_are_written_beside_the_page(written):
    assert written[0].name == "my report.html"
    assert {p.parent.name for p in written[1:]} == {"my report_figures"}
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in written[1:])
    left = {p for p in written[0].parent.rglob("*") if p.is_file()}
    assert left == set(written)
