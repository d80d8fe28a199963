"""The page in a browser: nothing on its console, wide enough for a phone, printed to PDF."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dlfd_dist.report.html import write_report
from dlfd_dist.report.records import load_comparison
from tests.fakes.run_dirs import write_comparison

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="needs the Debian package chromium: apt-get install chromium"
)
MEASURE = """<script>addEventListener('load', () => {
  const wide = document.documentElement.scrollWidth, seen = document.documentElement.clientWidth;
  const heads = [...document.querySelectorAll('h2')];
  const top = text => heads.find(h => h.textContent == text).getBoundingClientRect().top;
  const table = document.querySelector('.exposure').getBoundingClientRect().bottom;
  const after = [...['What was done', 'How to verify'].map(top), table].map(Math.round);
  document.title = `measured ${wide} of ${seen}, heads at ${after}`;
});</script></body>"""


def chromium(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}", *arguments,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page")
    folder = write_comparison(path / "comparison", seeds=(0,), methods=("dlfd",))
    out = path / "report.html"
    write_report(load_comparison(folder), out, title="Two people asked to be forgotten")
    return out


@pytest.mark.xdist_group("page")
def test_what_was_done_and_how_to_verify_are_on_the_first_screen(page: Path, tmp_path: Path):
    framed = page.with_name("wide.html")
    text = page.read_text(encoding="utf-8")
    framed.write_text(text.replace("</body>", MEASURE), encoding="utf-8")
    shown = chromium(
        tmp_path, "--window-size=1280,900", "--virtual-time-budget=3000", "--dump-dom",
        framed.as_uri(),
    )  # fmt: skip
    found = re.search(r"<title>measured \d+ of \d+, heads at (\d+),(\d+),(\d+)", shown.stdout)
    assert found is not None
    done, verify, end_of_exposure = map(int, found.groups())
    assert done < verify
    assert done < 900
    assert verify < 900


@pytest.mark.xdist_group("page")
def test_the_page_reads_on_a_phone_prints_and_logs_nothing(page: Path, tmp_path: Path):
    pdf = tmp_path / "report.pdf"
    printed = chromium(tmp_path, f"--print-to-pdf={pdf}", page.as_uri())
    assert pdf.read_bytes().startswith(b"%PDF")
    # A window of Chromium is not narrower than 500 px; a frame is as narrow as a phone.
    framed = page.with_name("measured.html")
    text = page.read_text(encoding="utf-8")
    framed.write_text(text.replace("</body>", MEASURE), encoding="utf-8")
    frame = page.with_name("frame.html")
    frame.write_text(
        "<iframe style='width:390px;height:800px;border:0' src='measured.html' onload=\""
        'setTimeout(() => { document.title = this.contentDocument.title }, 50)"></iframe>',
        encoding="utf-8",
    )
    shown = chromium(
        tmp_path, "--allow-file-access-from-files", "--virtual-time-budget=3000", "--dump-dom",
        frame.as_uri(),
    )  # fmt: skip
    measured = re.search(r"measured (\d+) of (\d+)", shown.stdout)
    assert measured is not None
    wide, seen = map(int, measured.groups())
    assert wide <= seen <= 390  # a scroll bar may take its share
    assert "CONSOLE" not in printed.stderr + shown.stderr
