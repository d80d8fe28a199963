"""Every code block of README and site is run, or says what it needs that is not here.

`dlfd` runs in this process, on drawn faces and with few steps. What would take minutes (a
comparison, a search, an audit, a demo) is composed, planned and checked by --dry-run.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from launch.cli import VERBS, main
from tests.fakes.code_blocks import Block, blocks_of, dlfd_words
from tests.fakes.command_line import Ended, write_faces
from tests.fakes.tiny import TINY_RUN

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = ("bash", "python", "text")
NEEDS = (
    "a cluster",
    "a network",
    "a data set that cannot be passed on",
    "a model and data sets of your own",
)
FEW_STEPS = (*TINY_RUN, "data.image_size=32", "runtime.world_size=1")
PLANNED = ("compare", "search", "audit", "demo", "submit", "bench")
"""Verbs that are only planned here; the tests of each run them."""
TUNED = "method: {name: dlfd, lr: 0.001}\nobjective: gap\n"
COMMAND = re.compile(r"^(?: {4,}|\t)(dlfd|sbatch|export|python|pip|import|from) ", re.MULTILINE)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what the pages speak of: faces, request.txt, runs and a key."""
    folder = tmp_path_factory.mktemp("pages")
    write_faces(folder / "faces")
    (folder / "request.txt").write_text("Person-01\nPerson-05\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        set_ = ["data.root=faces", "forget.request=request.txt", *FEW_STEPS]
        for run, on in (("original", "all"), ("retrained", "retain")):
            assert main(["train", *set_, f"train.on={on}", f"run.dir=runs/{run}"]) == 0
        words = ["checkpoint=runs/original", "reference=runs/retrained", "method=dlfd"]
        assert main(["unlearn", *set_, *words, "run.dir=runs/unlearned"]) == 0
        assert main(["keygen", "owner.pem"]) == 0
    (folder / "runs/search").mkdir()
    (folder / "runs/search/best.yaml").write_text(TUNED, encoding="utf-8")
    return folder


pytestmark = pytest.mark.xdist_group("pages")  # a block goes on from those above it
BLOCKS = [block for page in PAGES for block in blocks_of(page, ROOT)]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_stand_in_blocks_that_are_run(page: Path):
    text = page.read_text(encoding="utf-8")
    fenced = {line for block in blocks_of(page, ROOT) for line in block.text.splitlines()}
    loose = [line for line in text.splitlines() if COMMAND.match(line)]
    assert [line for line in loose if line.strip() not in fenced] == []


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_block_runs(
    block: Block, world: Path, dlfd: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
):
    assert block.language in LANGUAGES, f"{block.place}: '{block.language}' is no language of ours"
    assert block.needs is None or block.needs in NEEDS
    monkeypatch.chdir(world)
    if block.language == "python" and block.needs:
        compile(block.text, block.place, "exec")
    elif block.language == "python":
        exec(compile(block.text, block.place, "exec"), {})  # noqa: S102 - a page of our own
    elif block.language == "bash" and block.needs == "a network":
        subprocess.run(["bash", "-n", "-c", block.text], check=True)
    elif block.language == "bash":
        for words in dlfd_words(block, world / "record", ROOT):
            ended = run_words(dlfd, words, block.needs)
            assert ended.status == 0, f"{block.place}: dlfd {' '.join(words)}: {ended.err}"


def run_words(dlfd: Callable[..., Ended], words: list[str], needs: str | None) -> Ended:
    """Do a command with few steps, or plan it; what lacks its data or its cluster is looked up.

    A key and a certificate that an earlier block made are not made again.
    """
    assert words[0] in VERBS
    if words[0] in PLANNED and needs in (None, "a cluster"):
        # The models of these pages were trained with FEW_STEPS.
        return dlfd(*words, *(FEW_STEPS if words[0] == "bench" else ()), "--dry-run")
    if needs or words[0] == "doctor":
        return dlfd(words[0], "--help")
    made = {"keygen": words[-1], "certify": f"{words[1]}/certificate.json"}.get(words[0], "")
    if made and Path(made).exists():
        return dlfd(words[0], "--help")
    steps = FEW_STEPS if words[0] in ("train", "unlearn", "evaluate") else ()
    return dlfd(*words, *steps)
