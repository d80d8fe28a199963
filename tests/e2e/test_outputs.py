"""What leaves a run directory names nobody, lets nobody be guessed, and is mere text."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import html
import io
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dlfd_dist.compose import compose_job
from dlfd_dist.config import signature
from dlfd_dist.data.loaders import resolve_data
from dlfd_dist.evidence.coarse import EXACT, share_step
from dlfd_dist.plain import cell, from_cell, letters, visible
from dlfd_dist.run_dir import RunDir
from launch.cli import main
from launch.execute.places import job_folder
from tests.fakes.hostile import LABELS, PEOPLE, text_files, write_hostile
from tests.fakes.tiny import TINY_RUN

FORGOTTEN = 2
"""Who of PEOPLE is forgotten; all of them are tried."""
SINGLE = 3
"""How many images of the first of PEOPLE are forgotten beside; as many have a twin that stays."""
COUNTED = re.compile(
    r"(?<!to )(?<![\d.])\b(\d+) (?:(?:single|forgotten) )?(?:images?|pairs?|lines?)\b"
)
"""A number of images, exactly."""


@dataclass(frozen=True)
class Made:
    """A finished run of hostile names, and all that was printed on the way."""

    run: RunDir
    console: str
    data: list[str]
    paths: list[str]

    def outputs(self) -> Iterator[tuple[str, str]]:
        """Yield name and text of everything that leaves the run directory."""
        yield "console and table", self.console
        yield "page", (self.run.path / "report.html").read_text(encoding="utf-8")
        yield "model card", (self.run.path / "README.md").read_text(encoding="utf-8")
        yield "certificate", (self.run.path / "certificate.json").read_text(encoding="utf-8")
        for path in sorted(self.run.logs.iterdir()):
            yield path.name, path.read_text(encoding="utf-8")
        for path in sorted((self.run.path / "report_figures").iterdir()):
            yield "name of a figure", path.name
        for path in tracked(self.run):
            yield f"{path.name} of a tracker", path.read_bytes().decode(errors="replace")


def tracked(run: RunDir) -> list[Path]:
    """Return the files that trackers wrote, but for pictures, which a test of pages looks at."""
    folders = (run.trackers, run.path.parent / "mlflow-artifacts")
    found = [path for folder in folders for path in folder.rglob("*") if path.suffix != ".png"]
    return sorted(p for p in [*found, run.path.parent / "mlflow.db"] if p.is_file())


def asked(person: str, single: list[str]) -> str:
    """Return a request; that its second line is known and outside of training is said."""
    return "\n".join([person, PEOPLE[-1], *single, ""])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("hostile")
    root = folder / "data"
    write_hostile(root)
    with (root / "metadata.csv").open(encoding="utf-8", newline="") as file:
        paths = [row["image_path"] for row in csv.DictReader(file)]
    single = paths[:SINGLE]
    for path, twin in zip(single, paths[5 * 4 :], strict=False):
        shutil.copy(root / path, root / twin)
    request = folder / "request.txt"
    request.write_text(asked(PEOPLE[FORGOTTEN], single), encoding="utf-8")
    data = [
        "data=manifest", f"data.root={root}", "data.label=label", "data.image_size=32",
        f"forget.request={request}", *TINY_RUN,
    ]  # fmt: skip
    run = RunDir(folder / "run")
    original = f"run.dir={folder / 'original'}"
    out = io.StringIO()
    before = os.getcwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            words = [*data, f"checkpoint={folder / 'original'}", "method=finetune"]
            assert main(["train", *data, "train.on=all", original]) == 0, out.getvalue()
            told = "trackers=[csv,mlflow,tensorboard,wandb]"
            assert main(["unlearn", *words, told, f"run.dir={run.path}"]) == 0, out.getvalue()
            assert main(["report", str(run.path)]) == 0, out.getvalue()
            card = ["--out", str(run.path / "README.md")]
            assert main(["report", str(run.path), *card]) == 0, out.getvalue()
            assert main(["certify", str(run.path)]) == 0, out.getvalue()
    finally:
        os.chdir(before)
    return Made(run, out.getvalue(), words, paths)


def written(name: str) -> set[str]:
    """Return the ways in which a name may stand in a page, in JSON and on a terminal."""
    return {name, html.escape(name), json.dumps(name)[1:-1], visible(name), repr(name)[1:-1]}


def test_no_output_names_anybody(made: Made):
    names = [*(name for name in PEOPLE if len(name) > 2), *made.paths]
    for where, text in made.outputs():
        found = [name for name in names if any(way in text for way in written(name))]
        assert not found, f"{where} names {found}"


def test_every_tracker_is_among_the_outputs(made: Made):
    names = {path.suffix for path in tracked(made.run)}
    assert {".csv", ".wandb", ".db", ".html"} <= names
    assert any("tfevents" in path.name for path in tracked(made.run))


def test_nobody_can_be_guessed_from_an_output(made: Made, tmp_path: Path):
    """Whoever has page and data tries every person; the true one must look like all others."""
    stored = json.loads(made.run.identity.read_text())
    guesses: dict[str, set[str]] = {}
    for person in PEOPLE[:-4]:
        request = tmp_path / "guess.txt"
        request.write_text(asked(person, made.paths[:SINGLE]), encoding="utf-8")
        config = compose_job("unlearn", [*made.data, f"forget.request={request}"])
        rows = resolve_data(config.data, config.drawn_forget)
        inputs = {**stored["inputs"], **rows.digests()}
        table = rows.request.to_csv().encode()
        guesses[person] = {
            inputs["request"], inputs["data"], signature(config, inputs),
            *(hashlib.sha256(text).hexdigest() for text in (table, person.encode())),
        }  # fmt: skip
    # The guesses are right: the run directory itself, which is private, has the true one.
    assert stored["inputs"]["request"] in guesses[PEOPLE[FORGOTTEN]]
    assert stored["signature"] in guesses[PEOPLE[FORGOTTEN]]
    for where, text in made.outputs():
        found = [person for person, ways in guesses.items() if any(w[:8] in text for w in ways)]
        assert not found, f"{where} betrays {found}"


def test_no_output_counts_the_images_of_the_request(made: Made):
    """Seven images, three of them twins: a person would be known by a number of their own."""
    for where, text in made.outputs():
        plain = re.sub(
            r"<[^>]+>", " ", re.sub(r"<style>.*?</style>|data:image[^\"]*", "", text, flags=re.S)
        )
        counted = [match.group() for match in COUNTED.finditer(re.sub(r"\s+", " ", plain))]
        assert not counted, f"{where} counts {counted}"
    page = (made.run.path / "report.html").read_text()
    assert "5 to 8 forgotten" in page
    assert "1 person and 3 to 4 single images (5 to 8 images)" in page
    assert "3 to 4 pairs" in page
    assert "3 to 4 pairs" in made.console


def test_the_page_counts_the_images_of_each_person_in_bands(made: Made):
    assert main(["report", str(made.run.path), str(made.run.path.parent / "original")]) == 0
    page = (made.run.path / "report.html").read_text()
    table = page[page.index("Exposure of each person") :]
    images = re.findall(r'<th scope="row">Person \d+</th><td class="num">([^<]*)<', table)
    assert images == ["3 to 4", "3 to 4"]


def test_the_certificate_counts_in_bands(made: Made):
    sections = json.loads((made.run.path / "certificate.json").read_text())["sections"]
    assert sections["split"]["parts"]["forget"]["images"] == "5 to 8"
    request = sections["request"]
    assert request["people"] == 1
    assert (request["single_images"], request["outside_training"]) == ("3 to 4", "1 to 2")
    assert [line["kind"] for line in request["lines"]] == ["identity"] * 2
    leaks = sections["leak_audit"]
    assert leaks["found"]["pairs"] == leaks["found"]["forget_retain"] == "3 to 4"
    assert leaks["found"]["counts"]["exact"] == {"retain-forget": "3 to 4"}
    assert leaks["warning"].startswith("3 to 4 pairs")
    assert not [held for held in leaves(leaks) if type(held) is int]


def test_no_figure_of_the_certificate_tells_a_number_of_images(made: Made):
    """6 of 7 is 0.857142...: by a share of full precision the seven were known."""
    figures = json.loads((made.run.path / "certificate.json").read_text())["sections"]["metrics"]
    step = share_step({"forget": 5, "retain": 25})
    kept = {name: held for name, held in flat(figures["figures"]) if isinstance(held, float)}
    fine = {
        name for name, held in kept.items()
        if not EXACT & set(name.split(".")) and abs(round(held / step) * step - held) > 1e-9
    }  # fmt: skip
    assert "forget_accuracy" in kept
    assert not fine


def flat(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else None
    )
    if items is None:
        yield where, value
        return
    for name, held in items:
        yield from flat(held, f"{where}.{name}".strip("."))


def leaves(value: Any) -> Iterator[Any]:
    return (held for _, held in flat(value))


def test_names_are_text_in_every_file_of_a_run(made: Made):
    for path, text in text_files(made.run.path):
        assert "\x1b" not in text or path.name in ("request.csv", "config.yaml"), path
        if path.suffix == ".html":
            assert "<script>alert" not in text
            assert LABELS[0] not in text
            assert "49" not in text[text.index("<h1>") :][:200]
    assert not list(made.run.path.parent.rglob("ran"))


def test_no_terminal_is_steered(made: Made, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert not any(char in made.console for char in "\x1b\x07\u202e")
    request = tmp_path / "request.txt"
    request.write_text("\x1b[2Jnobody\u202e\rknown\n", encoding="utf-8")
    assert main(["unlearn", *made.data, f"forget.request={request}"]) == 2
    said = capsys.readouterr().err
    assert r"\x1b[2Jnobody\u202e" in said
    assert "\x1b" not in said


@pytest.mark.parametrize("person", PEOPLE)
def test_a_spreadsheet_computes_nothing(person: str, made: Made):
    assert from_cell(cell(person)) == person
    rows = list(csv.reader(io.StringIO(made.run.request.read_text(encoding="utf-8"))))
    assert rows[1][1] == cell(PEOPLE[FORGOTTEN])
    assert not cell(person).startswith(("=", "+", "-", "@"))


def test_a_name_in_another_spelling_is_the_same_name():
    for way in ("Zoë Ash", "Zoe\u0308 Ash", "ＺＯË ａｓｈ", "zoë-ASH", "Zo\u00ad\u00eb Ash"):
        assert letters(way) == "zoeash"


def test_a_directory_of_shell_is_quoted_in_a_script(tmp_path: Path, capsys):
    name = tmp_path / "$(touch ran)`touch ran`;'x"
    words = ["data=synthetic", "forget.fraction=0.25", "cluster=slurm_lab", f'run.dir="{name}"']
    assert main(["submit", "train", *words, "--dry-run", "--json"]) == 0
    for job in json.loads(capsys.readouterr().out)["jobs"]:
        line = next(line for line in job["sbatch"].splitlines() if line.startswith("srun"))
        assert shlex.split(line)[-1] == str(job_folder(name))
    assert not list(tmp_path.rglob("ran"))
