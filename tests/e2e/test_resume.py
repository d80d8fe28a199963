"""A run that was killed or stopped, and started again, is the run that was never interrupted.

The loop is put to the test with real signals on three runs, every method in this process. ResNet18
is killed while it writes, as its checkpoints take a while; all else is done by the small backbone.
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
from tests.fakes.command_line import Child, Ended, Faces, steps_done
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

TIMES = ("seconds", "wall_seconds", "device_seconds", "peak_memory_mb", "slurm_usage")


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


@pytest.mark.xdist_group("resume")
@pytest.mark.parametrize("name", ["train", "dlfd"])
def test_a_run_killed_at_any_moment_goes_on_to_the_same_result(
    name: str, faces: Faces, original: Path, whole: Callable[[str], Path], tmp_path: Path
):
    """SIGKILL again and again, each time after one or two more steps and a moment."""
    rng = random.Random(f"{name} 7")
    run = tmp_path / "run"
    kills = 0
    while not RunDir(run).finished():
        reached = steps_done(run) + rng.randint(1, 2)
        child = Child(words_of(name, faces, original, run), tmp_path / "log")
        if child.reaches(lambda goal=reached: steps_done(run) >= goal):
            time.sleep(rng.uniform(0, 0.02))
            child.signal(signal.SIGKILL)
            kills += 1
        assert child.wait() in (0, -signal.SIGKILL), child.text
    assert kills >= 3
    assert_same_run(whole(name), run)


def test_a_run_killed_while_it_writes_a_checkpoint_goes_on_to_the_same_result(
    faces: Faces, tmp_path: Path, dlfd: Dlfd
):
    whole, run = tmp_path / "whole", tmp_path / "run"
    folder = RunDir(run).checkpoints

    def words(path: Path) -> list[str]:
        settings = ["model=resnet18", "train.max_steps=4", "run.checkpoint_every=1"]
        return ["train", *faces.forget, *settings, f"run.dir={path}"]

    assert dlfd(*words(whole)).status == 0
    for step in (1, 3):
        child = Child(words(run), tmp_path / "log")
        child.wait_for(lambda step=step: any(folder.glob(f".step_{step}.*.tmp/*.safetensors")))
        child.signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        assert steps_done(run) == step - 1
        assert list(folder.glob(".step_*.tmp"))
    assert dlfd(*words(run)).status == 0
    assert_same_run(whole, run)


@pytest.mark.xdist_group("resume")
def test_a_run_killed_while_it_makes_its_directory_goes_on(
    faces: Faces, original: Path, whole: Callable[[str], Path], tmp_path: Path, dlfd: Dlfd
):
    run = tmp_path / "run"
    run.mkdir()
    (run / ".run.json.1234.tmp").write_text('{"signa')
    assert dlfd(*words_of("finetune", faces, original, run)).status == 0
    assert_same_run(whole("finetune"), run)


@pytest.mark.xdist_group("resume")
def test_a_run_killed_after_its_last_step_goes_on_to_the_same_result(
    faces: Faces, original: Path, whole: Callable[[str], Path], tmp_path: Path, dlfd: Dlfd
):
    run = tmp_path / "run"
    child = Child(words_of("finetune", faces, original, run), tmp_path / "log")
    child.wait_for(lambda: RunDir(run).model.exists())
    child.signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not RunDir(run).finished()
    assert dlfd(*words_of("finetune", faces, original, run)).status == 0
    assert_same_run(whole("finetune"), run)


@pytest.mark.xdist_group("resume")
@pytest.mark.parametrize(
    ("name", "number"), [("train", signal.SIGTERM), ("dlfd", signal.SIGUSR2)],
    ids=["train-SIGTERM", "dlfd-SIGUSR2"],
)  # fmt: skip
def test_a_run_asked_to_stop_saves_and_goes_on(
    name: str, number: signal.Signals, faces: Faces, original: Path,
    whole: Callable[[str], Path], tmp_path: Path, dlfd: Dlfd,
):  # fmt: skip
    run = tmp_path / "run"
    # The last of these settings wins: no checkpoint is due, so the one there is from stopping.
    words = words_of(name, faces, original, run, "run.checkpoint_every=1000")
    child = Child(words, tmp_path / "log")
    child.wait_for(lambda: len(read_events(RunDir(run).metrics)) >= 3)
    child.signal(number)
    assert child.wait() == 75
    assert f"of {STEPS}; the same command goes on from there" in child.text
    assert "Traceback" not in child.text
    assert steps_done(run) >= 1
    assert not RunDir(run).finished()
    assert dlfd(*words).status == 0
    assert_same_run(whole(name), run)


def test_two_ranks_asked_to_stop_go_on_with_one_to_the_same_result(
    faces: Faces, original: Path, tmp_path: Path, dlfd: Dlfd
):
    """In float64 the order of sums over ranks shows nowhere.

    TERM comes to two ranks in test_local_campaign.py, and SIGKILL in test_compare.py.
    """
    whole, run = tmp_path / "whole", tmp_path / "run"
    settings = ["runtime.dtype=float64", "method.epochs=6"]
    words = words_of("dlfd", faces, original, run, *settings)
    stopped = Child([*words, "runtime.world_size=2"], tmp_path / "log")
    stopped.wait_for(lambda: steps_done(run) >= 2)
    stopped.signal(signal.SIGUSR2)
    assert stopped.wait() == 75, stopped.text
    assert "Traceback" not in stopped.text
    assert 2 <= steps_done(run) < 18
    assert dlfd(*words_of("dlfd", faces, original, whole, *settings)).status == 0
    assert dlfd(*words).status == 0
    assert_near_run(whole, run)


def assert_near_run(one: Path, other: Path) -> None:
    """Compare weights, kept images and figures of two runs to rounding of float64."""
    first, second = RunDir(one), RunDir(other)
    for name in ("checkpoints/final/model.safetensors", "synthesis/images.safetensors"):
        ours, theirs = load_file(one / name), load_file(other / name)
        assert ours.keys() == theirs.keys()
        for key, tensor in ours.items():
            torch.testing.assert_close(theirs[key], tensor, rtol=1e-6, atol=1e-9)
    events, others = _untimed(read_events(first.metrics)), _untimed(read_events(second.metrics))
    assert len(events) == len(others)
    for event, again in zip(events, others, strict=True):
        assert again.keys() == event.keys()
        for name, value in event.items():
            is_number = isinstance(value, float)
            assert again[name] == (pytest.approx(value, rel=1e-6) if is_number else value), name


PHASES = {
    # 24 retain images are 3 steps, 8 forget images 1, both together 4.
    "finetune": {"unlearn": 6},
    "neggrad": {"ascend": 2},
    "neggrad_plus": {"unlearn": 6},
    "cf_k": {"unlearn": 6},
    "eu_k": {"unlearn": 6},
    "unsir": {"impair": 6, "repair": 6},
    "bad_teacher": {"distill": 4},  # 7 of the retain images and 8 forget images, twice
    "scrub": {"max": 2, "min": 6},
    "salun": {"saliency": 2, "relabel": 2, "repair": 6},  # one epoch in batches of 4
    "ssd": {"importance": 4},
    "l1_sparse": {"unlearn": 6},
    "reset": {"unlearn": 6},
    "weight_distortion": {"unlearn": 6},
    "weight_dist_reg": {"unlearn": 6},
    "gli": {"unlearn": 6},
    "fcs": {"uniform": 2, "contrast": 2, "repair": 6},  # one epoch in batches of 4
    "ct": {"unlearn": 6},
    "msg": {"gradients": 2, "repair": 6},
    "amun": {"attack": 2, "unlearn": 8},  # one epoch in batches of 4
    "rewind": {"unlearn": 6},
    "dlfm": {"match": 6},
}
OWN = {
    "finetune": ["method.augment=true", "method.lr_scheduler=cosine", "data.augment=face"],
    "unsir": ["method.repair_epochs=2"],
    "salun": ["method.global_batch_size=4", "method.epochs=1", "method.optimizer=adam"],
    "ssd": ["method.selection=1"],
    "bad_teacher": ["model.head=mlp"],
    "scrub": ["method.select=rewind"],
    "fcs": ["method.global_batch_size=4", "method.epochs=1"],
    "amun": ["method.global_batch_size=4", "method.epochs=1"],
    "rewind": ["train.epochs=3", "train.keep_every=1"],
    "dlfm": ["method.probe_every=2"],
}
"""Settings that make every phase longer than a step, and use what else is to be kept."""


@pytest.fixture
def small_unlearning(
    tiny: Callable[..., JobConfig], trained: Callable[..., Path], tmp_path: Path
) -> Callable[..., JobConfig]:
    """Return a maker of unlearning runs of a model of two convolutions."""

    def make(name: str, run: str) -> JobConfig:
        own = OWN.get(name, [])
        read = ("model.head=", "train.epochs=", "train.keep_every=")
        checkpoint = trained(TWO_CONVS, *(word for word in own if word.startswith(read)))
        return tiny(
            "unlearn", TWO_CONVS, f"method={name}", "method.epochs=2", "method.lr=0.01",
            "method.clip_norm=1", "method.probe_every=2", "method.select=nomus", *own,
            "run.checkpoint_every=1000", f"checkpoint={checkpoint}", f"run.dir={tmp_path / run}",
        )  # fmt: skip

    return make


def run_in_pieces(config: JobConfig, steps: int) -> list[int]:
    """Start a run again and again, each time for some steps; return the step of every stop."""
    run, stops = RunDir(Path(config.run.dir or "")), []
    while not run.finished():
        try:
            run_job(config, Collectives(), StopAfter(steps))
        except StoppedEarly:
            stops.append(steps_done(run.path))
    return stops


@pytest.mark.parametrize("name", PHASES)
def test_a_method_stopped_after_every_step_goes_on_to_the_same_result(
    name: str, small_unlearning: Callable[..., JobConfig], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    run_job(small_unlearning(name, "whole"), Collectives(), StopFlag())
    events = read_events(RunDir(tmp_path / "whole").metrics)
    phases = [event["phase"] for event in events if event["event"] == "step"]
    assert {phase: phases.count(phase) for phase in phases} == PHASES[name]
    stops = run_in_pieces(small_unlearning(name, "cut"), 1)
    assert stops == list(range(1, len(phases) + 1))
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    if name in ("unsir", "salun", "msg"):
        # Without its tensors it goes on to another result: else this would prove nothing of them.
        monkeypatch.setattr(methods.get(name), "tensors", lambda self: {})
        assert run_in_pieces(small_unlearning(name, "without"), 2)
        runs = (read_events(RunDir(tmp_path / run).metrics) for run in ("whole", "without"))
        one, other = ([e["loss"] for e in run if e["event"] == "step"] for run in runs)
        assert one != other
