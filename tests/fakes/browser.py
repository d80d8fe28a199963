"""A real browser: Debian's Chromium, driven by Playwright, without a network."""

from __future__ import annotations

import functools
import importlib.util
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium")
PACKAGES = ("playwright", "axe_playwright_python")
LACKING = [
    *([] if CHROMIUM else ["the Debian package chromium"]),
    *(f"the Python package {name}" for name in PACKAGES if importlib.util.find_spec(name) is None),
]
needs_browser = pytest.mark.skipif(bool(LACKING), reason=f"needs {' and '.join(LACKING)}")
SCHEMES, WIDTHS = ("light", "dark"), (400, 1400)


@contextmanager
def chromium() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags, timeout=240_000)
        yield browser
        browser.close()


def opened(browser: Browser, file: Path) -> tuple[Page, list[str]]:
    """Open a file, and return with it what it says on its console and what it asks of a network."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(240_000)
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda one: faults.append(one.url) if "://" in one.url[:8] and not
            one.url.startswith("file:") else None)  # fmt: skip
    page.goto(file.as_uri())
    return page, faults


def violations(page: Page) -> dict[str, list[str]]:
    """Return what axe-core finds, light and dark, on a phone and on a wide screen."""
    found: dict[str, list[str]] = {}
    for scheme in SCHEMES:
        for width in WIDTHS:
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 900})
            for rule, places in found_by_axe(page).items():
                found[f"{rule}, {scheme}, {width} px"] = places
    return found


def found_by_axe(
    page: Page, *, rules: tuple[str, ...] = (), without: tuple[str, ...] = ()
) -> dict[str, list[str]]:
    """Return the places that break a rule of axe-core, by rule.

    rules : of these rules alone, if given
    without : selectors of what is not looked at
    """
    page.evaluate(_axe())
    options: dict[str, Any] = {"runOnly": list(rules)} if rules else {}
    where = {"include": [["html"]], "exclude": [[selector] for selector in without]}
    result: dict[str, Any] = page.evaluate("([w, o]) => axe.run(w, o)", [where, options])
    assert result["passes"]
    return {
        one["id"]: [node["html"][:200] for node in one["nodes"]] for one in result["violations"]
    }


@functools.cache
def _axe() -> str:
    source = resources.files("axe_playwright_python").joinpath("axe.min.js")
    return source.read_text(encoding="utf-8")


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on a free port of this machine; yield its address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass
