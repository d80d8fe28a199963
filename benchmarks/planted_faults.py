"""Which single faults in the packages and batch scripts does the suite see?

    python -m benchmarks.planted_faults [--tree DIR] [--results FILE] [--jobs 2] [--only WORD]
    python -m benchmarks.planted_faults --before FILE --results FILE --write

Each fault of planted_faults.yaml is planted alone in a copy of the tree, and the part of the suite
that should see it is run with `-x`. The test that fails must fail twice, and pass in the unharmed
copy. FILE holds one JSON line a fault: the same command goes on where it was cut off. --tree plants
the same faults in another checkout, such as that of an older suite; --before names its FILE, and
--write stores the page of both in benchmarks/results. The exit status is 1 where fewer than 95 of
100 are found, or one that was found before is not.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import hashlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.results import FOLDER, hardware
from dlfd_dist.progress import duration

REPOSITORY = Path(__file__).parents[1]
LIST = Path(__file__).with_suffix(".yaml")
SERVER = Path(__file__).with_name("forked_pytest.py")
LEAST = 0.95
"""Share of the faults that must be found."""
PACKAGES = (
    *(f"dlfd_dist/{name}" for name in (
        "config", "data", "evidence", "jobs", "methods", "metrics", "models", "report", "runtime",
        "synthesis", "transport",
    )),
    "dlfd_dist", "launch",
    *(f"launch/{name}" for name in (
        "doctor", "execute", "plan", "results", "search", "verbs",
    )),
)  # fmt: skip
PER_PACKAGE = 2
MEANINGS = {
    "found": "a test fails",
    "missed": "every test of its part passes",
    "no test": "the tree has none of the tests that should see it",
    "absent": "the text is not in the tree",
    "needs SLURM": "only tests on a real SLURM could see it, and there is none",
    "unsound": "the test fails without the fault too or not each time with it, or an import breaks",
    "timeout": "its part did not end in time",
}


@dataclass(frozen=True)
class Place:
    """A text in a file, and what it becomes."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Fault:
    """One change of one text, and the tests that should fail by it."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    k: str = ""
    slurm: bool = False
    elsewhere: tuple[dict[str, str], ...] = ()
    """The same mistake in a tree of another shape: file, old and new."""

    @property
    def digest(self) -> str:
        """Of what one tree takes: where else the mistake may stand does not count."""
        values = {**asdict(self), "elsewhere": None}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def package(self) -> str:
        return str(Path(self.file).parent)

    def place(self, tree: Path) -> Place | None:
        """Return where a tree takes this fault: its text must occur exactly once."""
        for place in (Place(self.file, self.old, self.new), *(Place(**p) for p in self.elsewhere)):
            path = tree / place.file
            if path.is_file() and path.read_text(encoding="utf-8").count(place.old) == 1:
                return place
        return None

    def part(self, tree: Path, under: str = "tests") -> list[str]:
        """Return the test files of a tree, or of a folder of it, that should see it."""
        patterns = [
            p for p in self.tests if p.startswith(under) and not p.startswith("tests/slurm/")
        ]
        return [
            str(path.relative_to(tree)) for p in patterns for path in sorted(tree.glob(p))
        ]  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What became of a fault: a key of MEANINGS, and the first test that failed."""

    name: str
    digest: str
    outcome: str
    by: str = ""
    seconds: float = 0.0
    under: str = "tests"
    """The folder whose tests were run."""

    def is_final(self, under: str) -> bool:
        """Whether another try, with the tests of a folder, could not change it."""
        if self.outcome in ("unsound", "timeout"):
            return False
        return self.outcome == "found" or under.startswith(self.under)


def read_faults(path: Path = LIST) -> list[Fault]:
    """Return the faults; the list must reach every package and every batch script."""
    records = yaml.safe_load(path.read_text(encoding="utf-8"))
    lists = ("tests", "elsewhere")
    faults = [
        Fault(**{**one, **{name: tuple(one.get(name, ())) for name in lists}}) for one in records
    ]
    twice = [name for name, n in Counter(fault.name for fault in faults).items() if n > 1]
    assert not twice, f"two faults bear the name '{twice[0]}'"
    counts = Counter(fault.package for fault in faults)
    for package in PACKAGES:
        assert counts[package] >= PER_PACKAGE, f"{package} has {counts[package]} faults"
    reached = {fault.file for fault in faults}
    for pattern in ("slurm/lib/*.sh", "slurm/templates/*.sbatch"):
        for script in REPOSITORY.glob(pattern):
            name = str(script.relative_to(REPOSITORY))
            assert name in reached, f"no fault is planted in {name}"
    return faults


# --- copies of a tree


def files_of(tree: Path) -> list[str]:
    """Return the files that git tracks or would; of a tree without git all that are no products."""
    if (tree / ".git").exists():
        words = ["git", "-C", str(tree), "ls-files", "-co", "--exclude-standard"]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        return [name for name in done.stdout.splitlines() if (tree / name).is_file()]
    kept = ("dlfd_dist", "launch", "configs", "slurm", "tests", "benchmarks", "docs")
    paths = [*tree.glob("*"), *(p for name in kept for p in (tree / name).rglob("*"))]
    return [
        str(p.relative_to(tree))
        for p in paths
        if p.is_file() and "__pycache__" not in p.parts and p.suffix != ".pyc"
    ]


@contextlib.contextmanager
def copies(tree: Path, number: int) -> Iterator[list[Path]]:
    """Yield copies of a tree, each a git repository of its own; they go with the block."""
    with tempfile.TemporaryDirectory(prefix="dlfd-faults-", ignore_cleanup_errors=True) as folder:
        made = [Path(folder) / f"copy{n}" for n in range(number)]
        names = files_of(tree)
        for copy in made:
            for name in names:
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(tree / name, copy / name)
            for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "Unharmed tree"]):
                identity = ["-c", "user.name=faults", "-c", "user.email=faults@localhost"]
                subprocess.run(["git", "-C", str(copy), *identity, *words], check=True)
        yield made


@contextlib.contextmanager
def planted(place: Place, copy: Path) -> Iterator[None]:
    """Plant a fault in a copy and take it out again."""
    path = copy / place.file
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(place.old, place.new), encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(text, encoding="utf-8")


# --- running tests


class Tests:
    """Runs tests of a copy, each run in a fork of one process (benchmarks/forked_pytest.py)."""

    def __init__(self, copy: Path, timeout_s: float):
        self.copy, self.timeout_s = copy, timeout_s
        self.green: dict[str, bool] = {}
        env = {
            **os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1",
            # A fault may have the size and the second of what it replaces.
            "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER.read_text(encoding="utf-8"), str(copy)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=copy, env=env,
            start_new_session=True,
        )  # fmt: skip

    def run(self, files: Sequence[str], k: str = "") -> tuple[int | None, str, bool]:
        """Return the exit status, the first test that failed, and whether it was collected."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        words = ["-x", "-q", "-p", "no:cacheprovider", *(["-k", k] if k else []), *files]
        self.server.stdin.write(json.dumps([words, self.timeout_s]) + "\n")
        self.server.stdin.flush()
        answer = self.server.stdout.readline()
        if not answer:
            raise SystemExit("The process that runs the tests has ended.")
        status, node, collected = json.loads(answer)
        return status, node, collected

    def passes(self, node: str) -> bool:
        """Whether a test passes in the copy as it is, which must be unharmed."""
        if node not in self.green:
            self.green[node] = self.run([node])[0] == 0
        return self.green[node]

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            assert self.server.stdin is not None
            self.server.stdin.close()
        self.server.wait()


def judge(fault: Fault, tests: Tests, under: str) -> Outcome:
    """Plant a fault, run its part, and tell whether it was seen."""
    start = time.monotonic()

    def told(outcome: str, by: str = "") -> Outcome:
        seconds = round(time.monotonic() - start, 1)
        return Outcome(fault.name, fault.digest, outcome, by, seconds, under)

    place = fault.place(tests.copy)
    if place is None:
        return told("absent")
    part = fault.part(tests.copy, under)
    if not part:
        return told("needs SLURM" if fault.slurm else "no test")
    with planted(place, tests.copy):
        status, node, collected = tests.run(part, fault.k)
        # A test that fails now and then, by the clock say, would be taken for one that sees it.
        again = tests.run([node])[0] if status == 1 and collected else 0
    if status is None:
        return told("timeout")
    if status in (0, 5):
        return told("missed" if status == 0 else "no test")
    # A file that cannot be collected says that the fault is no mistake that anybody would commit.
    sound = again == 1 and tests.passes(node)
    return told("found" if sound else "unsound", node)


# --- all of them


@dataclass
class Campaign:
    """The faults of one tree: which are done, and the file that keeps them."""

    file: Path
    total: int
    done: dict[str, Outcome] = field(default_factory=dict)
    start: float = field(default_factory=time.monotonic)
    num_run: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, found: Outcome) -> None:
        with self.lock:
            self.done[found.digest] = found
            self.num_run += 1
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(found), sort_keys=True) + "\n")
            each = (time.monotonic() - self.start) / self.num_run
            eta = duration(each * (self.total - len(self.done)))
            print(
                f"{len(self.done)}/{self.total} eta={eta} {found.outcome}: {found.name}"
                + (f" ({found.by})" if found.by else ""), flush=True,
            )  # fmt: skip


def read_outcomes(file: Path) -> dict[str, Outcome]:
    """Return the last outcome of each fault by its digest."""
    if not file.is_file():
        return {}
    lines = file.read_text(encoding="utf-8").splitlines()
    return {one["digest"]: Outcome(**one) for one in map(json.loads, lines)}


def plant_all(
    faults: Sequence[Fault], tree: Path, file: Path, *, under: str, jobs: int, timeout_s: float
) -> dict[str, Outcome]:
    """Plant what is not in the file yet, quick parts first; return all outcomes by digest."""
    known = {d: one for d, one in read_outcomes(file).items() if one.is_final(under)}
    campaign = Campaign(
        file, len(faults), {f.digest: known[f.digest] for f in faults if f.digest in known}
    )
    left = [fault for fault in faults if fault.digest not in campaign.done]
    left.sort(key=lambda fault: not all(p.startswith("tests/unit") for p in fault.tests))
    if not left:
        return campaign.done
    with copies(tree, jobs) as made, contextlib.ExitStack() as stack:
        free: queue.Queue[Tests] = queue.Queue()
        servers: list[Tests] = []
        for copy in made:
            servers.append(Tests(copy, timeout_s))
            stack.callback(servers[-1].close)
            free.put(servers[-1])

        def work(fault: Fault) -> None:
            tests = free.get()
            try:
                campaign.add(judge(fault, tests, under))
            finally:
                free.put(tests)

        with ThreadPoolExecutor(jobs) as pool:
            waiting = [pool.submit(work, fault) for fault in left]
            try:
                for one in waiting:
                    one.result()
            except BaseException:
                # A run that is stopped ends its tests, else the pool would wait for them.
                pool.shutdown(wait=False, cancel_futures=True)
                for tests in servers:
                    tests.server.terminate()
                raise
    return campaign.done


# --- the page


def page(
    faults: Sequence[Fault], after: Mapping[str, Outcome], before: Mapping[str, Outcome] | None
) -> str:
    """Return the result as Markdown: counts, every fault, and what each word means."""
    columns = {"before": before, "after": after} if before is not None else {"outcome": after}
    lines = []
    for title, outcomes in columns.items():
        counts = Counter(outcomes[f.digest].outcome for f in faults if f.digest in outcomes)
        told = ", ".join(f"{n} {word}" for word, n in counts.most_common())
        lines.append(f"- {title}: {told} of {len(faults)} faults")
    if before is not None:
        lost = [f.name for f in faults if _found(f, before) and not _found(f, after)]
        new = [f.name for f in faults if _found(f, after) and not _found(f, before)]
        lines += [f"- found before and not after: {'; '.join(lost) or 'none'}"]
        lines += [f"- found after and not before: {'; '.join(new) or 'none'}"]
    lines += ["", f"| fault | file | {' | '.join(columns)} | seen by |"]
    lines += ["| --- | --- |" + " --- |" * len(columns) + " --- |"]
    for fault in faults:
        words = [outcomes[fault.digest].outcome if fault.digest in outcomes else "not planted"
                 for outcomes in columns.values()]  # fmt: skip
        by = after[fault.digest].by if fault.digest in after else ""
        cells = [fault.name, f"`{fault.file}`", *words, f"`{by}`" if by else ""]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += ["", *(f"- {word}: {meaning}" for word, meaning in MEANINGS.items())]
    return "\n".join(lines) + "\n"


def _found(fault: Fault, outcomes: Mapping[str, Outcome]) -> bool:
    return fault.digest in outcomes and outcomes[fault.digest].outcome == "found"


def write_page(text: str) -> Path:
    path = FOLDER / f"planted_faults_{hardware()}_{datetime.date.today().isoformat()}.md"
    command = "python -m benchmarks.planted_faults --before BEFORE.jsonl --results AFTER.jsonl"
    path.write_text(
        "# Single faults, planted one at a time: which does the suite see?\n\n"
        f"`{command} --write`\n\n{text}",
        encoding="utf-8",
    )
    return path


def options(arguments: Sequence[str] | None) -> Any:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tree", type=Path, default=REPOSITORY)
    parser.add_argument("--results", type=Path, default=Path("planted_faults.jsonl"))
    parser.add_argument("--before", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--timeout-s", type=float, default=600.0)
    parser.add_argument("--under", default="tests", help="run the tests of this folder alone")
    parser.add_argument("--only", default="", help="faults whose name, file or tests hold this")
    parser.add_argument("--write", action="store_true")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    given = options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    faults = [f for f in read_faults() if given.only in f"{f.name} {f.file} {' '.join(f.tests)}"]
    after = plant_all(
        faults, given.tree.resolve(), given.results,
        under=given.under, jobs=given.jobs, timeout_s=given.timeout_s,
    )  # fmt: skip
    before = read_outcomes(given.before) if given.before else None
    text = page(faults, after, before)
    print(text)
    if given.write:
        print(f"written: {write_page(text).relative_to(REPOSITORY)}")
    found = [_found(fault, after) for fault in faults]
    kept = all(_found(f, after) for f in faults if before and _found(f, before))
    return 0 if kept and sum(found) >= LEAST * len(found) else 1


if __name__ == "__main__":
    sys.exit(main())
