"""provenance.py: the digest of uncommitted changes is that of every change to what runs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dlfd_dist import provenance


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one committed file of what runs and one of what does not."""
    for name in ("dlfd_dist/code.py", "docs/text.md"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("a\n")
    identity = ["-c", "user.name=a", "-c", "user.email=a@localhost"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "First"]):
        subprocess.run(["git", "-C", str(tmp_path), *identity, *words], check=True)
    monkeypatch.setattr(provenance, "root", lambda: tmp_path)
    return tmp_path


def digest() -> str | None:
    return provenance.current()[0].diff_sha256


def test_code_without_changes_has_a_revision_and_no_digest(checkout: Path):
    code, diff = provenance.current()
    assert code.revision is not None
    assert len(code.revision) == 40
    assert (code.diff_sha256, diff) == (None, "")


def test_the_digest_is_that_of_every_change_to_what_runs(checkout: Path):
    digests = [digest()]
    changes = (
        ("dlfd_dist/code.py", "b\n"), ("launch/new.py", "a\n"), ("launch/new.py", "b\n"),
        ("launch/other.py", "b\n"),
    )  # fmt: skip
    for name, text in changes:
        (checkout / name).parent.mkdir(exist_ok=True)
        (checkout / name).write_text(text)
        digests.append(digest())
    assert len(set(digests)) == len(changes) + 1
    (checkout / "docs/text.md").write_text("b\n")
    assert digest() == digests[-1]


def test_without_git_there_is_no_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(provenance, "root", lambda: tmp_path)
    code, diff = provenance.current()
    assert (code.revision, code.diff_sha256, diff) == (None, None, "")
