"""make release refuses what does not fit: versions, Pythons, syntax, the changelog's entry."""

from __future__ import annotations

import io
import runpy
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
release = runpy.run_path(str(ROOT / ".ci" / "release.py"))
needs_uv = pytest.mark.skipif(
    not Path(sys.executable).with_name("uv").exists(), reason="needs the Python package uv"
)
VERSION = "1.2.3"
METADATA = "\n".join(
    [
        "Metadata-Version: 2.4", "Name: dlfd-dist", f"Version: {VERSION}",
        "Requires-Python: >=3.10", "Description-Content-Type: text/markdown",
        *(f"Classifier: Programming Language :: Python :: {one}" for one in release["PYTHONS"]),
        "", "# dlfd-dist", "",
    ]
)  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "dlfd_dist").mkdir()
    (tmp_path / "dlfd_dist" / "__init__.py").write_text(f'__version__ = "{VERSION}"\n')
    (tmp_path / "pyproject.toml").write_text(f'[project]\nversion = "{VERSION}"\n')
    (tmp_path / "CHANGELOG.md").write_text(f"## [Unreleased]\n\n## [{VERSION}] - 2026-01-31\n")
    (tmp_path / "CITATION.cff").write_text(f"version: {VERSION}\n")
    return tmp_path


def distributed(root: Path, metadata: str = METADATA, code: str = "x = 1\n") -> Path:
    dist = root / "dist"
    dist.mkdir()
    with zipfile.ZipFile(dist / "dlfd_dist.whl", "w") as wheel:
        for name in release["CARRIED"]:
            wheel.writestr(name, "")
        wheel.writestr("dlfd_dist/code.py", code)
        wheel.writestr("dlfd_dist.dist-info/METADATA", metadata)
    with tarfile.open(dist / "dlfd_dist.tar.gz", "w:gz") as source:
        entry = tarfile.TarInfo("dlfd_dist/PKG-INFO")
        entry.size = len(metadata.encode())
        source.addfile(entry, io.BytesIO(metadata.encode()))
    return dist


def faults(root: Path, dist: Path) -> list[str]:
    return list(release["faults"](dist, root))


def test_what_fits_can_be_released(root: Path):
    assert faults(root, distributed(root)) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (VERSION, "1.2.4", "the version is 1.2.4"),
        (">=3.10", ">=3.11", "Python 3.10 is shut out"),
        (">=3.10", ">=3.9", "Python 3.9 is let in"),
        (">=3.10", ">=3.10,<3.13", "Python 3.13 is shut out"),
        ("Classifier: Programming Language :: Python :: 3.12\n", "", "no classifier"),
        ("text/markdown", "text/plain", "the README is not its description"),
        ("Name: dlfd-dist", "Name: -", "Metadata"),
    ],
)
def test_metadata_that_does_not_fit_is_named(old: str, new: str, fault: str, root: Path):
    assert old in METADATA
    found = faults(root, distributed(root, METADATA.replace(old, new)))
    assert len(found) >= 2  # of the wheel, and of the source distribution
    assert fault in found[0]


def test_newer_syntax_is_named_with_its_line(root: Path):
    code = "try:\n    pass\nexcept* ValueError:\n    pass\n"
    found = faults(root, distributed(root, code=code))
    assert len(found) == 1
    assert found[0].startswith("dlfd_dist/code.py:")


@needs_uv
@pytest.mark.parametrize(
    ("pins", "refused"),
    [
        ('other==2; python_version >= "3.11"\nother==1; python_version < "3.11"\n', []),
        ("other==2\n", ["3.10"]),
        ("other==3\n", ["3.10", "3.11", "3.12", "3.13"]),
    ],
)
def test_a_python_that_the_pins_do_not_fit_is_named(pins: str, refused: list[str], root: Path):
    index = root / "index"
    index.mkdir()
    for version, python in (("1", ">=3.8"), ("2", ">=3.11")):
        write_wheel(index, "other", version, f"Requires-Python: {python}\n")
    extras = "".join(f"Provides-Extra: {name}\n" for name in release["EXTRAS"])
    write_wheel(root, "dlfd_dist", VERSION, f"Requires-Dist: other\n{extras}")
    (root / "constraints.txt").write_text(pins)
    words = ("--no-index", "--no-cache", "--find-links", str(index))
    found = list(release["unresolved"](root, *words, root=root))
    assert [sentence.split()[1].rstrip(":") for sentence in found] == refused
    assert all("other" in sentence for sentence in found)


def write_wheel(folder: Path, name: str, version: str, metadata: str) -> None:
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        wheel.writestr(f"{info}/METADATA", head + metadata)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.mark.parametrize(
    "text", ["## [Unreleased]\n", f"## [{VERSION}]\n", f"## [{VERSION}] - 2026-01-31\n" * 2]
)
def test_a_changelog_without_its_entry_is_refused(text: str, root: Path):
    (root / "CHANGELOG.md").write_text(text)
    assert any("CHANGELOG.md" in fault for fault in faults(root, distributed(root)))


def test_a_file_with_another_version_is_named(root: Path):
    (root / "CITATION.cff").write_text("version: 1.0.0\n")
    assert faults(root, distributed(root)) == [f"CITATION.cff does not say {VERSION}."]


def test_a_folder_with_older_files_is_refused(root: Path):
    dist = distributed(root)
    shutil.copy(dist / "dlfd_dist.whl", dist / "older.whl")
    assert any("2 wheels" in fault for fault in faults(root, dist))


def test_the_changelog_has_the_entry_of_this_version():
    [version] = [
        line.split('"')[1]
        for line in (ROOT / "pyproject.toml").read_text().splitlines()
        if line.startswith("version = ")
    ]
    assert f"## [{version}] - " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
