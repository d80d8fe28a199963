"""The page in a browser: read by anybody, on any screen and on paper, without a network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dlfd_dist.report.html import write_report
from dlfd_dist.report.records import load_comparison
from tests.fakes.browser import WIDTHS, chromium, needs_browser, opened, violations
from tests.fakes.run_dirs import write_comparison

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [needs_browser, pytest.mark.xdist_group("page"), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


def written(folder: Path, methods: tuple[str, ...]) -> Path:
    runs = write_comparison(folder / "comparison", seeds=(0,), methods=methods)
    write_report(load_comparison(runs), folder / "r.html", title="Two people asked to be forgotten")
    return folder / "r.html"


@pytest.fixture(scope="module")
def page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page of one method."""
    page, faults = opened(browser, written(tmp_path_factory.mktemp("page"), ("dlfd",)))
    yield page
    assert faults == []


@pytest.fixture(scope="module")
def comparison(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page of several methods."""
    file = written(tmp_path_factory.mktemp("many"), ("dlfd", "scrub", "finetune"))
    page, faults = opened(browser, file)
    yield page
    assert faults == []


def test_what_was_done_and_how_to_verify_are_on_the_first_screen(page: Page):
    page.set_viewport_size({"width": 1280, "height": 900})
    heads = [page.get_by_role("heading", name=name) for name in ("What was done", "How to verify")]
    done, verify = (head.bounding_box() for head in heads)
    assert done is not None
    assert verify is not None
    assert done["y"] < verify["y"] < 900


@pytest.mark.parametrize("name", ["page", "comparison"])
def test_axe_finds_nothing(name: str, request: pytest.FixtureRequest):
    assert violations(request.getfixturevalue(name)) == {}


@pytest.mark.parametrize("name", ["page", "comparison"])
def test_nothing_runs_out_of_the_window(name: str, request: pytest.FixtureRequest):
    page = request.getfixturevalue(name)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_dark_is_dark_and_paper_is_white(page: Page):
    background = "getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="dark")
    assert max(map(int, re.findall(r"\d+", page.evaluate(background))[:3])) < 64
    page.emulate_media(color_scheme="dark", media="print")
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    page.emulate_media(color_scheme="light", media="null")


def test_it_prints_on_two_pages(page: Page):
    page.set_viewport_size({"width": 1400, "height": 900})
    pdf = page.pdf(format="A4")
    assert len(re.findall(rb"/Type\s*/Page[^s]", pdf)) <= 2


def test_the_keyboard_goes_through_the_page_from_top_to_bottom(comparison: Page):
    comparison.evaluate("document.activeElement.blur()")
    place = """() => { const at = document.activeElement, box = at.getBoundingClientRect();
      return [at.tagName, Math.round(box.top + scrollY)] }"""
    seen = []
    for _ in range(60):
        comparison.keyboard.press("Tab")
        tag, top = comparison.evaluate(place)
        if tag == "BODY":
            break
        seen.append((tag, top))
    assert {"INPUT", "BUTTON", "DIV", "SUMMARY"} <= {tag for tag, _ in seen}
    # Head cells of one row differ in height.
    assert all(after > before - 60 for (_, before), (_, after) in zip(seen, seen[1:], strict=False))


def shown(page: Page, column: int) -> list[str]:
    cells = page.locator("table.methods").first.locator(
        f"tbody tr:visible > :nth-child({column + 1})"
    )
    return [text.strip() for text in cells.all_inner_texts()]


def test_the_comparison_sorts_and_filters_without_a_network(comparison: Page):
    table = comparison.locator("table.methods").first
    methods = shown(comparison, 0)
    assert len(methods) == 5
    for order in ("ascending", "descending"):
        table.locator("thead button").nth(2).click()
        assert table.locator("thead th").nth(2).get_attribute("aria-sort") == order
        values = [float(re.match(r"[\d.]+", text)[0]) for text in shown(comparison, 2)]  # type: ignore[index]
        assert values == sorted(values, reverse=order == "descending")
        assert len(set(values)) > 1
    comparison.get_by_label("Show methods with").fill("scr")
    assert shown(comparison, 0) == [name for name in methods if "SCRUB" in name]
    assert comparison.locator("#shown").inner_text() == "1 of 5 methods"
    comparison.get_by_label("Show methods with").fill("")
    assert sorted(shown(comparison, 0)) == sorted(methods)
