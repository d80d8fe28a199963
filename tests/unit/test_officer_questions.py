"""Five questions of an officer who is no engineer, and where the page answers each: on the first
screen and on paper, in words, with nobody named."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import pytest

from dlfd_dist.report import read_comparison
from dlfd_dist.report.html import write_report
from tests.fakes.run_dirs import IDENTITIES, write_comparison


@dataclass(frozen=True)
class Question:
    """What is asked, the part of the page that answers, and how the answer reads."""

    asked: str
    place: str
    """A regular expression whose first group is the part of the page."""
    answer: str
    """A regular expression."""


DONE = r"<dt>{}</dt><dd>(.*?)</dd>"
QUESTIONS = (
    Question("Who asked?", DONE.format("Request"), r"Forget \d+ people.* The request has .* lines"),
    Question("What was done?", DONE.format("Method"), r"^DLFD, \w+ runs?\. Delivered: .*\.$"),
    Question(
        "Did it work?", r'<p class="judgement">(.*?)</ul>',
        r"stand out clearly less than before .*attack .* away from a coin flip \(Original [\d.]+, "
        r"Retrained [\d.]+\), while test accuracy is [\d.]+ %",
    ),
    Question(
        "How sure is that?", r'<ul class="caveats">(.*?)</ul>',
        r"a stronger attack may still find traces.*does not prove that there is none.*one seed",
    ),
    Question(
        "Who can check it?", r"<h2>How to verify</h2>(.*?)</section>",
        r"anybody with its directory can check it\..*salt.*dlfd verify RUN_DIR --public-key "
        r"KEY\.pub\.pem --recompute.*measures the delivered model again",
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("officer")
    found = read_comparison(write_comparison(folder / "c", seeds=(0,), methods=("dlfd",)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dlfd_dist.report.html.plan_figures", lambda *_: [])
        out, *_ = write_report(found.records, folder / "page.html", title="Two people")
    return out.read_text(encoding="utf-8")


def words(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.asked)
def test_the_page_answers(question: Question, page: str):
    found = re.search(question.place, page, re.DOTALL)
    assert found is not None
    assert re.search(question.answer, words(found[1]), re.DOTALL), words(found[1])
    assert not [name for name in IDENTITIES if str(name) in found[1]]
    # Before all that is left out on paper, and behind nothing that has to be opened.
    before = page[: found.start()]
    assert 'class="screen"' not in before.partition("<body>")[2]
    assert "<details" not in before


def test_every_figure_of_the_first_screen_has_its_guard_in_words(page: str):
    tiles = page.split('<div class="tile">')[1:]
    assert len(tiles) == 3
    assert all(re.search(r'<div class="guard">[^<]+\.</div>', tile) for tile in tiles)


def test_every_abbreviation_of_the_page_is_explained_on_it(page: str):
    explained = words(page[page.index("<h2>How to read the numbers</h2>") :])
    for term in ("NoMUS", "MIA", "AUC", "TPR", "FPR"):
        assert term not in words(page) or term in explained
