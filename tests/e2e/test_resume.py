"""A run that was killed or stopped, and started again, is the run that was never interrupted.

The loop is put to the test with real signals on three runs, every method in this process.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dlfd_dist.config import JobConfig
from dlfd_dist.jobs import run_job
from dlfd_dist.methods import methods
from dlfd_dist.run_dir import RunDir, read_events
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag, StoppedEarly
from tests.fakes.command_line import Child, Ended, Faces, Process, command, steps_done
from tests.fakes.small_model import TWO_CONVS
from tests.fakes.stops import StopAfter

Dlfd = Callable[..., Ended]

VERBS = {
    "train": ["train", "train.on=retain", "train.epochs=4", "data.augment=face"],
    "dlfd": [
        "unlearn", "method=dlfd", "method.epochs=4", "method.probe_every=2", "method.select=nomus",
        "method.dynamic=false", "synthesis.save=12",
    ],
    "finetune": [
        "unlearn", "method=finetune", "method.epochs=4", "method.augment=true",
        "method.lr_scheduler=cosine", "data.augment=face", "method.probe_every=2",
    ],
}  # fmt: skip
STEPS = 12
"""24 retain images in batches of 8, four epochs."""

TIMES = ("seconds", "wall_seconds", "device_seconds", "peak_memory_mb")


def words_of(name: str, faces: Faces, original: Path, run: Path, *more: str) -> list[str]:
    verb, *settings = VERBS[name]
    words = [verb, *faces.forget, *settings, "run.checkpoint_every=1", f"run.dir={run}", *more]
    return words if name == "train" else [*words, f"checkpoint={original}"]


@pytest.fixture(scope="module")
def wholes() -> dict[str, Path]:
    return {}


@pytest.fixture
def whole(
    wholes: dict[str, Path],
    faces: Faces,
    original: Path,
    tmp_path_factory: pytest.TempPathFactory,
    dlfd: Dlfd,
) -> Callable[[str], Path]:
    """Return a maker of uninterrupted runs; each is made once."""

    def make(name: str) -> Path:
        if name not in wholes:
            path = tmp_path_factory.mktemp("whole") / name
            assert dlfd(*words_of(name, faces, original, path)).status == 0
            wholes[name] = path
        return wholes[name]

    return make


def assert_same_run(one: Path, other: Path) -> None:
    """Compare weights byte by byte, events and result but for their times, and kept images."""
    first, second = RunDir(one), RunDir(other)
    assert first.model.read_bytes() == second.model.read_bytes()
    assert _untimed(read_events(first.metrics)) == _untimed(read_events(second.metrics))
    assert _untimed([first.read_result()]) == _untimed([second.read_result()])
    for name in ("samples.safetensors", "synthesis/images.safetensors"):
        if (one / name).exists():
            ours, theirs = load_file(one / name), load_file(other / name)
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    left = [p.name for p in other.rglob("*") if p.name.endswith(".tmp") or p.match("step_*")]
    assert not left


def _untimed(events: list[dict]) -> list[dict]:
    return [{k: v for k, v in event.items() if k not in TIMES} for event in events]


@pytest.mark.parametrize("name", VERBS)
def test_a_run_killed_at_any_moment_goes_on_to_the_same_result(
    name: str, faces: Faces, original: Path, whole: Callable[[str], Path], tmp_path: Path
):
    """SIGKILL again and again, each time after one to three more steps and a moment."""
    rng = random.Random(f"{name} 7")
    run = tmp_path / "run"
    kills = 0
    while not RunDir(run).finished():
        reached = steps_done(run) + rng.randint(1, 3)
        child = Child(words_of(name, faces, original, run), tmp_path / "log")
        if child.wait_for(lambda goal=reached: steps_done(run) >= goal):
            time.sleep(rng.uniform(0, 0.2))
            child.signal(signal.SIGKILL)
            kills += 1
        assert child.wait() in (0, -signal.SIGKILL), (tmp_path / "log").read_text()
    assert kills >= 3
    assert_same_run(whole(name), run)


@pytest.mark.parametrize("step", [1, 4])
def test_a_run_killed_while_it_writes_a_checkpoint_goes_on_to_the_same_result(
    step: int,
    faces: Faces,
    original: Path,
    whole: Callable[[str], Path],
    tmp_path: Path,
    dlfd: Dlfd,
):
    run = tmp_path / "run"
    child = Child(words_of("dlfd", faces, original, run), tmp_path / "log")
    folder = RunDir(run).checkpoints
    assert child.wait_for(lambda: any(folder.glob(f".step_{step}.*.tmp/*.safetensors")))
    child.signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert steps_done(run) == step - 1
    assert list(folder.glob(".step_*.tmp"))
    assert dlfd(*words_of("dlfd", faces, original, run)).status == 0
    assert_same_run(whole("dlfd"), run)


def test_a_run_killed_while_it_makes_its_directory_goes_on(
    faces: Faces, original: Path, whole: Callable[[str], Path], tmp_path: Path, dlfd: Dlfd
):
    run = tmp_path / "run"
    run.mkdir()
    (run / ".run.json.1234.tmp").write_text('{"signa')
    assert dlfd(*words_of("finetune", faces, original, run)).status == 0
    assert_same_run(whole("finetune"), run)


def test_a_run_killed_after_its_last_step_goes_on_to_the_same_result(
    faces: Faces, original: Path, whole: Callable[[str], Path], tmp_path: Path, dlfd: Dlfd
):
    run = tmp_path / "run"
    child = Child(words_of("finetune", faces, original, run), tmp_path / "log")
    assert child.wait_for(lambda: RunDir(run).model.exists())
    child.signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not RunDir(run).finished()
    assert dlfd(*words_of("finetune", faces, original, run)).status == 0
    assert_same_run(whole("finetune"), run)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2], ids=lambda n: n.name)
@pytest.mark.parametrize("name", VERBS)
def test_a_run_asked_to_stop_saves_and_goes_on(
    name: str, number: signal.Signals, faces: Faces, original: Path,
    whole: Callable[[str], Path], tmp_path: Path, dlfd: Dlfd,
):  # fmt: skip
    run = tmp_path / "run"
    # The last of these settings wins: no checkpoint is due, so the one there is from stopping.
    words = words_of(name, faces, original, run, "run.checkpoint_every=1000")
    child = Child(words, tmp_path / "log")
    assert child.wait_for(lambda: len(read_events(RunDir(run).metrics)) >= 3)
    child.signal(number)
    assert child.wait() == 75
    said = (tmp_path / "log").read_text()
    assert f"of {STEPS}; the same command goes on from there" in said
    assert "Traceback" not in said
    assert steps_done(run) >= 1
    assert not RunDir(run).finished()
    assert dlfd(*words).status == 0
    assert_same_run(whole(name), run)


def test_two_ranks_stopped_and_killed_go_on_to_the_same_result(
    faces: Faces, original: Path, tmp_path: Path
):
    """SIGTERM, then SIGKILL of everything, then to the end; against two ranks left in peace."""
    whole, run = tmp_path / "whole", tmp_path / "run"

    def start(path: Path) -> Process:
        words = words_of("dlfd", faces, original, path, "method.epochs=2", "runtime.world_size=2")
        return Process(command(*words), tmp_path / "log")

    undisturbed = start(whole)
    assert undisturbed.wait() == 0, undisturbed.text
    stopped = start(run)
    stopped.wait_for(lambda: steps_done(run) >= 2)
    stopped.signal(signal.SIGTERM)
    assert stopped.wait() == 75, stopped.text
    assert "Traceback" not in stopped.text
    first = steps_done(run)
    assert 2 <= first < 6
    killed = start(run)
    killed.wait_for(lambda: steps_done(run) >= first + 1)
    killed.kill_all()
    assert not RunDir(run).finished()
    last = start(run)
    assert last.wait() == 0, last.text
    assert_same_run(whole, run)


def test_two_ranks_stopped_by_usr2_go_on_with_one(
    faces: Faces, original: Path, whole: Callable[[str], Path], tmp_path: Path, dlfd: Dlfd
):
    run = tmp_path / "run"
    words = words_of("finetune", faces, original, run)
    process = Process(command(*words, "runtime.world_size=2"), tmp_path / "log")
    process.wait_for(lambda: steps_done(run) >= 2)
    process.signal(signal.SIGUSR2)
    assert process.wait() == 75, process.text
    assert "Traceback" not in process.text
    assert steps_done(run) >= 2
    assert dlfd(*words).status == 0
    one, other = (load_file(RunDir(path).model) for path in (whole("finetune"), run))
    for name, tensor in one.items():
        # Sums over ranks are taken in another order: rounding of float32 over a few small steps.
        torch.testing.assert_close(other[name], tensor, rtol=1e-3, atol=1e-4)
    steps = [e["step"] for e in read_events(RunDir(run).metrics) if e["event"] == "step"]
    assert steps == list(range(1, STEPS + 1))


PHASES = {
    # 24 retain images are 3 steps, 8 forget images 1, both together 4.
    "neggrad": {"ascend": 2},
    "neggrad_plus": {"unlearn": 6},
    "cf_k": {"unlearn": 6},
    "eu_k": {"unlearn": 6},
    "unsir": {"impair": 6, "repair": 6},
    "bad_teacher": {"distill": 4},  # 7 of the retain images and 8 forget images, twice
    "scrub": {"max": 2, "min": 6},
    "salun": {"saliency": 2, "relabel": 4, "repair": 12},  # in batches of 4
    "ssd": {"importance": 4},
    "l1_sparse": {"unlearn": 6},
    "dlfm": {"match": 6},
}
OWN = {
    "unsir": ["method.repair_epochs=2"],
    "salun": ["method.global_batch_size=4", "method.optimizer=adam"],
    "ssd": ["method.selection=1"],
    "bad_teacher": ["model.head=mlp"],
    "scrub": ["method.select=rewind", "train_mode=sync_bn"],
    "dlfm": ["method.probe_every=2"],
}
"""Settings that make every phase longer than a step, and use what else is to be kept."""


@pytest.fixture
def small_unlearning(tiny: Callable[..., JobConfig], tmp_path: Path) -> Callable[..., JobConfig]:
    """Return a maker of unlearning runs of a small model, trained when it is first asked for."""

    def make(name: str, run: str) -> JobConfig:
        own = OWN.get(name, [])
        head = [word for word in own if word.startswith("model.head")]
        checkpoint = tmp_path / "original"
        run_job(tiny("train", TWO_CONVS, *head, f"run.dir={checkpoint}"), Collectives(), StopFlag())
        return tiny(
            "unlearn", TWO_CONVS, f"method={name}", "method.epochs=2", "method.lr=0.01",
            "method.clip_norm=1", "method.probe_every=2", "method.select=nomus", *own,
            "run.checkpoint_every=1000", f"checkpoint={checkpoint}", f"run.dir={tmp_path / run}",
        )  # fmt: skip

    return make


def stop_after_every_step(config: JobConfig) -> list[int]:
    """Start a run again and again, each time for one step; return the step of every stop."""
    run, stops = RunDir(Path(config.run.dir or "")), []
    while not run.finished():
        try:
            run_job(config, Collectives(), StopAfter(1))
        except StoppedEarly:
            stops.append(steps_done(run.path))
    return stops


@pytest.mark.parametrize("name", PHASES)
def test_a_method_stopped_after_every_step_goes_on_to_the_same_result(
    name: str, small_unlearning: Callable[..., JobConfig], tmp_path: Path
):
    run_job(small_unlearning(name, "whole"), Collectives(), StopFlag())
    events = read_events(RunDir(tmp_path / "whole").metrics)
    phases = [event["phase"] for event in events if event["event"] == "step"]
    assert {phase: phases.count(phase) for phase in phases} == PHASES[name]
    stops = stop_after_every_step(small_unlearning(name, "cut"))
    assert stops == list(range(1, len(phases) + 1))
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("name", ["unsir", "salun"])
def test_without_its_tensors_a_method_goes_on_to_another_result(
    name: str, small_unlearning: Callable[..., JobConfig], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    """Else the test above would prove nothing of them."""
    run_job(small_unlearning(name, "whole"), Collectives(), StopFlag())
    monkeypatch.setattr(methods.get(name), "tensors", lambda self: {})
    stop_after_every_step(small_unlearning(name, "cut"))
    one, other = (RunDir(tmp_path / run).model.read_bytes() for run in ("whole", "cut"))
    assert one != other
