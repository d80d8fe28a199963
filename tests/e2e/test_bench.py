"""`dlfd bench`: what it tells of a run, what it advises, and what it leaves behind."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dlfd_dist.config import (
    DLFDConfig,
    DLFMConfig,
    JobConfig,
    MethodConfig,
    RuntimeConfig,
    TransportConfig,
)
from dlfd_dist.jobs import bench as measuring
from dlfd_dist.jobs.bench import PHASES, Bench, Iteration
from launch.verbs.bench import advice, table
from tests.fakes.command_line import Ended, Faces, tree

Dlfd = Callable[..., Ended]


def found(**shares: float) -> Bench:
    """A measurement of a step of one second; what is not named is forward."""
    seconds = dict.fromkeys(PHASES, 0.0) | shares
    seconds["forward"] += 1 - sum(seconds.values())
    iteration = Iteration(
        over_floor=1.02, seconds=0.1, flops=10**9, peak_flops=2e10, bytes=10**8, peak_bandwidth=1e10
    )
    return Bench("cpu", 32, 100, 5, 101, seconds, iteration, {"train": 100.0, "unlearn": 101.0})


def config(**method: Any) -> JobConfig:
    cfg = DLFDConfig(**{"probe_every": 1, **method})
    return replace(JobConfig(), method=cfg)


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is measured in two processes of its own, which take seconds to start."""
    monkeypatch.setattr(measuring, "step_memory", lambda _: {"train": 1.0, "unlearn": 1.0})


def test_the_figures_of_a_run_add_up_and_only_bench_json_stays(
    dlfd: Dlfd, faces: Faces, original: Path, tmp_path: Path
):
    folder = tmp_path / "bench"
    words = ["bench", "method=dlfd", *faces.forget, f"checkpoint={original}", "steps=1", "--json"]
    before = tree(original)
    ended = dlfd(*words, f"run.dir={folder}")
    assert ended.status == 0, ended.err
    values = ended.json
    assert values == json.loads((folder / "bench.json").read_text(encoding="utf-8"))
    assert [path.name for path in folder.iterdir()] == ["bench.json"]
    assert tree(original) == before
    assert set(values["seconds"]) == set(PHASES)
    for name in ("data", "forward", "backward", "transport", "update", "probe", "checkpoint"):
        assert values["seconds"][name] > 0, name
    assert sum(values["share"].values()) == pytest.approx(1)
    assert values["images_per_s"] == pytest.approx(8 / values["step_seconds"])
    # 24 retain images in batches of 8, each step probed, and before the first.
    assert (values["num_steps"], values["num_probes"], values["num_measured"]) == (3, 4, 1)
    iteration = values["iteration"]
    assert iteration["over_floor"] > 0
    # Half of a pass is forward; a product of matrices is faster than what is around it, too.
    assert 0 < iteration["flops"] / iteration["seconds"] < 2 * iteration["peak_flops"]
    # 8 images of 32 x 32 pixels in float32 are read and written several times, at the least.
    assert iteration["bytes"] > 10 * 8 * 3 * 32 * 32 * 4
    assert iteration["peak_bandwidth"] > 0
    assert values["roofline_share"] == max(values["peak_share"], values["bandwidth_share"])
    assert values["bound_by"] in ("arithmetic", "memory")
    assert values["memory_over_training"] > 0


def test_without_a_folder_nothing_is_written(
    dlfd: Dlfd, faces: Faces, original: Path, tmp_path: Path, no_memory, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = dlfd("bench", "method=finetune", *faces.forget, f"checkpoint={original}", "steps=1")
    assert ended.status == 0, ended.err
    assert list(tmp_path.iterdir()) == []
    assert "images/s" in ended.out
    assert "What to change:" in ended.out
    # No synthesis, no transport: there is no floor to be told of.
    assert "floor" not in ended.out


def test_a_dry_run_measures_nothing(dlfd: Dlfd, faces: Faces, original: Path, tmp_path: Path):
    words = ["bench", "method=dlfd", *faces.forget, f"checkpoint={original}", "--dry-run"]
    ended = dlfd(*words, "steps=3", f"run.dir={tmp_path / 'bench'}")
    assert ended.status == 0
    assert "3 steps are timed" in ended.out
    assert ended.out.rstrip().endswith(str(tmp_path / "bench" / "bench.json"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["steps=0"], ["steps=0", ">= 1"]),
        (["steps=few"], ["steps=few", "whole number"]),
        (["runtime.world_size=2"], ["one rank, not 2", "dlfd submit"]),
        (["checkpoint=nowhere"], ["nowhere"]),
    ],
)
def test_bad_input_is_told_in_one_sentence(
    words: list[str], says: list[str], dlfd: Dlfd, faces: Faces, original: Path
):
    # The later of two values counts.
    ended = dlfd("bench", "method=dlfd", *faces.forget, f"checkpoint={original}", *words)
    assert ended.status == 2
    for part in says:
        assert part in ended.sentence


def test_what_takes_little_is_not_to_be_changed():
    assert advice(found(probe=0.1, data=0.05), config()) == []


@pytest.mark.parametrize(
    ("shares", "says"),
    [
        ({"probe": 0.5}, "method.probe_every=9"),
        ({"probe": 0.5}, "method.probe_images"),
        ({"data": 0.3}, "data.cache_dir"),
        ({"transport": 0.4}, "method.global_batch_size"),
        ({"checkpoint": 0.2}, "run.checkpoint_every=500"),
    ],
)
def test_what_takes_much_is_named_with_the_setting_that_changes_it(shares, says):
    advised = advice(found(**shares), config())
    assert len(advised) == 1
    assert says in advised[0]


def test_an_iteration_far_from_the_peak_is_told_of_larger_batches():
    measured = found()
    assert measured.iteration is not None
    slow = replace(measured, iteration=replace(measured.iteration, seconds=1.0))
    assert ["global_batch_size" in sentence for sentence in advice(slow, config())] == [True]
    assert "5% of the arithmetic and 1% of the memory traffic" in advice(slow, config())[0]


def test_an_iteration_at_the_peak_of_memory_traffic_is_not_told_of_larger_batches():
    measured = found()
    assert measured.iteration is not None
    busy = replace(measured.iteration, seconds=1.0, bytes=9 * 10**9)
    assert advice(replace(measured, iteration=busy), config()) == []


@pytest.mark.parametrize(
    ("flops", "moved", "bound_by", "share"),
    [(8 * 10**9, 10**8, "arithmetic", 0.8), (10**9, 6 * 10**8, "memory", 0.6)],
)
def test_the_roofline_is_the_peak_that_is_nearer(flops, moved, bound_by, share):
    measured = Iteration(
        over_floor=1, seconds=0.5, flops=flops, peak_flops=2e10, bytes=moved, peak_bandwidth=2e9
    )
    assert measured.bound_by == bound_by
    assert measured.roofline_share == pytest.approx(share)
    shown = table(replace(found(), iteration=measured), config(), [])
    row = next(line for line in shown.splitlines() if line.startswith("roofline"))
    assert row.split()[1] == bound_by
    assert f"{1 / share:.1f} times" in row


def test_the_authors_loop_is_not_told_to_probe_less():
    authors = replace(config(), method=DLFDConfig(name="dlfd_official", probe_every=1))
    assert advice(found(probe=0.6), authors) == []


def test_a_plain_method_is_not_told_of_a_setting_that_it_has_not():
    advised = advice(found(probe=0.5), replace(JobConfig(), method=MethodConfig(probe_every=1)))
    assert "probe_images" not in advised[0]


def test_on_cuda_float32_is_told_of_bfloat16_and_transport_of_the_device():
    cuda = replace(found(transport=0.5), device="cuda:0")
    advised = " ".join(advice(cuda, config()))
    assert "runtime.autocast=bfloat16" in advised
    assert "ot.lag=1" in advised
    lagged = replace(config(), ot=TransportConfig(lag=1))
    # method=dlfm has no iterations that could lag.
    for other in (lagged, replace(config(), method=DLFMConfig(probe_every=1))):
        advised = " ".join(advice(cuda, other))
        assert "ot.solver=entropic with ot.lag=0" in advised
        assert "ot.lag=1" not in advised
    already = replace(config(), runtime=RuntimeConfig(autocast="bfloat16"))
    assert "autocast" not in " ".join(advice(cuda, already))
