"""The site: built strictly, without a broken link, and without anything to fetch while reading."""

from __future__ import annotations

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from dlfd_dist.methods import methods
from docs.generate.links import relink
from docs.generate.pictures import PICTURES, drawn
from tests.fakes.browser import WIDTHS, chromium, found_by_axe, needs_browser, served

ROOT = Path(__file__).parents[2]
# The build takes 12 s of a core, and a machine that others use may give it a tenth of one.
pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("site")]
FETCHED = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "srcset"}
"""Element: the attribute that a browser fetches by itself."""
SCHEMES: dict[str, tuple[str, ...]] = {"default": (), "slate": ("color-contrast",)}
"""Light and dark, as the theme calls them, and the rules that a page is held against in each."""
CHOOSE = """scheme => {
  const still = "<style>* { transition: none !important }</style>";
  document.documentElement.insertAdjacentHTML("beforeend", still);
  document.body.setAttribute("data-md-color-scheme", scheme) }"""
FRAME = (".md-header", ".md-tabs", ".md-sidebar--primary", ".md-footer")


class Page(HTMLParser):
    """What a page names: places within it, links, and what a browser fetches."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self.places: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.places |= {values[key] for key in ("id", "name") if key in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if values.get(FETCHED.get(tag, "")) and values.get("rel") != "canonical":
            self.fetched.append(values[FETCHED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    """Return the built pages by path."""
    folder = tmp_path_factory.mktemp("site")
    words = ["-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    ended = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return {path: Page(path) for path in sorted(folder.rglob("*.html"))}


def test_every_link_leads_to_a_file_and_a_place(site: dict[Path, Page]):
    broken = []
    for page in site.values():
        for link in page.links + page.fetched:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or page.path.name == "404.html":
                continue
            target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
            if target.is_dir():
                target /= "index.html"
            place = unquote(parts.fragment)
            there = target in site and (not place or place in site[target].places)
            if not (there or (target.is_file() and target.suffix != ".html")):
                broken.append(f"{page.path.name}: {link}")
    assert broken == []


def test_nothing_is_fetched_from_elsewhere(site: dict[Path, Page]):
    fetched = {link for page in site.values() for link in page.fetched}
    assert fetched
    assert [link for link in fetched if urlsplit(link).netloc or urlsplit(link).scheme] == []


def looked_at(site: dict[Path, Page]) -> list[Path]:
    """Return a page of every folder, and those of the API and the tutorials; nightly, all pages."""
    if os.environ.get("DLFD_ALL_PAGES"):
        return list(site)
    firsts = {path.parent: path for path in reversed(site)}.values()
    also = ("index", "api")
    return [p for p in site if p in firsts or p.stem in also or "tutorial" in p.stem]


@needs_browser
def test_axe_finds_nothing_on_the_site(site: dict[Path, Page]):
    """A page is looked at on a phone, light with all rules and dark for pale text.

    The start page is looked at with the frame that all pages share, and on a wide screen too.
    """
    start = min(site, key=lambda path: (len(path.parts), path.name != "index.html"))
    found = {}
    pages = looked_at(site)
    assert start in pages
    with chromium() as browser, served(start.parent) as address:
        page = browser.new_page(reduced_motion="reduce")
        page.set_default_timeout(240_000)
        # Every page would read the index anew, which costs more than looking at the page.
        page.route("**/search_index.json", lambda route: route.abort())
        for path in pages:
            place = path.relative_to(start.parent).as_posix()
            for width in WIDTHS if path == start else WIDTHS[:1]:
                page.set_viewport_size({"width": width, "height": 900})
                page.goto(f"{address}/{place}")
                for scheme, rules in SCHEMES.items():
                    page.evaluate(CHOOSE, scheme)
                    without = () if path == start else FRAME
                    for rule, elements in found_by_axe(page, rules=rules, without=without).items():
                        found[f"{place}, {scheme}, {width} px: {rule}"] = elements
    assert found == {}


def test_every_method_has_a_page_with_its_picture(site: dict[Path, Page]):
    pages = {page.path.stem: page for page in site.values() if page.path.parent.name == "methods"}
    assert sorted(pages) == sorted(methods.names())
    assert all(f"{name}.svg" in page.fetched for name, page in pages.items())


def test_stored_pictures_are_those_of_the_stored_numbers():
    for name, text in drawn().items():
        assert (PICTURES / name).read_text(encoding="utf-8") == text, (
            f"docs/pictures/{name} is old: run python -m docs.generate.pictures"
        )


@pytest.mark.parametrize(
    ("source", "text", "shown"),
    [
        ("docs/security.md", "[a](../SECURITY.md)", "[a](operations/reporting.md)"),
        ("README.md", "[a](docs/slurm.md#x)", "[a](slurm.md#x)"),
        ("README.md", "![a](docs/p.svg)", "![a](p.svg)"),
        ("README.md", '<img src="docs/p.svg">', '<img src="p.svg">'),
        ("README.md", "[the tests](tests)", "the tests"),
        ("README.md", "[a](not-there.md)", "[a](not-there.md)"),
        ("README.md", "[a](https://example.org)", "[a](https://example.org)"),
    ],
)
def test_links_out_of_the_folder_lead_to_pages(source: str, text: str, shown: str):
    page = source.removeprefix("docs/") if source.startswith("docs/") else "index.md"
    assert relink(text, source, page) == shown
