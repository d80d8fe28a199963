"""What a forge reads of the repository: citation, issue forms, CI, containers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dlfd_dist import __version__

ROOT = Path(__file__).parents[2]
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml"))
IMAGES = sorted((ROOT / "containers").iterdir())


def test_citation_names_this_version_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == __version__
    (paper,) = citation["references"]
    assert "arxiv.org/abs/2409.14747" in paper["url"]
    assert [author["family-names"] for author in paper["authors"]] == ["Choi", "Na"]


def test_there_is_a_form_for_a_bug_a_figure_and_a_method():
    assert [path.stem for path in FORMS] == ["bug", "figure", "method"]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_form_has_what_a_forge_asks_for(path: Path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= set(form)
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert all(field["attributes"]["label"] for field in fields)
    ids = [field["id"] for field in fields]
    assert len(ids) == len(set(ids))
    assert any(field.get("validations", {}).get("required") for field in fields)


def test_the_forge_runs_the_same_script_on_every_python():
    job = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))["jobs"]["test"]
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert job["strategy"]["matrix"]["python"] == ["3.10", "3.11", "3.12", "3.13"]


def test_dockerfiles_have_no_fault_that_hadolint_knows():
    lint = Path(sys.executable).with_name("hadolint")
    files = [str(path) for path in IMAGES if path.suffix == ".Dockerfile"]
    assert len(files) == 2
    ended = subprocess.run([lint, "--no-color", *files], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_image_installs_the_pinned_versions_and_ends_in_dlfd(path: Path):
    text = path.read_text(encoding="utf-8")
    installs = [line for line in text.splitlines() if "pip install" in line]
    assert installs
    assert all("-c constraints.txt" in line for line in installs)
    assert 'ENTRYPOINT ["dlfd"]' in text or 'exec dlfd "$@"' in text
