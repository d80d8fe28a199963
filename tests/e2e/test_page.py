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
  document.title = `measured ${wide} of ${seen}`;
});</script></body>"""


def chromium(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}", *arguments,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    folder = write_comparison(tmp_path / "comparison", seeds=(0,), methods=("dlfd",))
    out = tmp_path / "report.html"
    write_report(load_comparison(folder), out, title="Two people asked to be forgotten")
    return out


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
