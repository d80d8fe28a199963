"""A command reads its data once, hashes a checkpoint once and makes its model once."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dlfd_dist import digests
from dlfd_dist.__main__ import main as rank_main
from dlfd_dist.compose import compose_job
from dlfd_dist.config import JobConfig
from dlfd_dist.data.loaders import Batches, DataReader, resolve_data
from dlfd_dist.digests import file_digest, known_files, remember_files
from dlfd_dist.errors import CheckpointError
from dlfd_dist.jobs.agreement import RanksDifferError, check_agreement
from dlfd_dist.jobs.context import make_job, prepare
from dlfd_dist.models import Classifier
from dlfd_dist.runtime.collectives import Collectives
from launch.cli import main
from launch.execute import worker
from launch.execute.task import data_reader
from launch.verbs.task import main as run_task
from tests.fakes.campaigns import make_campaigns
from tests.fakes.command_line import write_faces

Count = Callable[[], Counter]


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_faces(tmp_path_factory.mktemp("data") / "faces")


@pytest.fixture(scope="module")
def words(faces: Path) -> list[str]:
    return [
        f"data.root={faces}", "data.image_size=32", "data.leaks=false",
        "forget.fraction=0.25", "forget.seed=0",
        "model=small", "metrics.num_bootstrap=20", "train.max_steps=1", "method.max_steps=1",
        "train.global_batch_size=8", "method.global_batch_size=8", "runtime.threads_per_rank=1",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def models(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Original and Retrained, as settings of an unlearning run."""
    folder = tmp_path_factory.mktemp("models")
    for on in ("all", "retain"):
        assert main(["train", *words, f"train.on={on}", f"run.dir={folder / on}"]) == 0
    return [f"checkpoint={folder / 'all'}", f"reference={folder / 'retain'}"]


@pytest.fixture
def unlearn(words: list[str], models: list[str]) -> list[str]:
    return [*words, *models, "method=finetune"]


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin as a new process does; files are as good as old."""
    monkeypatch.setattr(digests, "_known", {})
    monkeypatch.setattr(digests, "SETTLED_S", -1.0)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """Count manifests read, checkpoints hashed, and models made with values up to a batch."""
    counts: Counter = Counter()
    data_reader.cache_clear()
    open_file, make, shard = Path.open, Classifier.__init__, Batches.shard
    read = digests._read

    def counting_open(self: Path, mode: str = "r", *args, **kwargs):
        counts["manifest"] += self.name == "metadata.csv"
        return open_file(self, mode, *args, **kwargs)

    def counting_read(path: Path) -> str:
        counts["hash"] += 1
        return read(path)

    def counting_make(self: Classifier, *args, **kwargs) -> None:
        make(self, *args, **kwargs)
        with_values = not next(self.parameters()).is_meta
        counts["model"] += with_values and not counts["batch"]

    def counting_shard(self: Batches, *args, **kwargs):
        counts["batch"] += 1
        return shard(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", counting_open)
    monkeypatch.setattr(digests, "_read", counting_read)
    monkeypatch.setattr(Classifier, "__init__", counting_make)
    monkeypatch.setattr(Batches, "shard", counting_shard)
    return counts


def facts(counts: Counter) -> tuple[int, int, int]:
    return counts["manifest"], counts["hash"], counts["model"]


# --- a command on one rank


def test_unlearn_reads_its_data_and_hashes_each_checkpoint_once(unlearn, tmp_path, counted):
    assert main(["unlearn", *unlearn, f"run.dir={tmp_path / 'run'}"]) == 0
    # The third hash is that of the delivered model, the second model the folded one of probes.
    assert facts(counted) == (1, 3, 2)


def test_train_reads_its_data_once_and_makes_one_model(words, tmp_path, counted):
    assert main(["train", *words, f"run.dir={tmp_path / 'run'}"]) == 0
    assert facts(counted) == (1, 1, 1)


def test_evaluate_reads_its_data_once_and_hashes_one_checkpoint(words, models, tmp_path, counted):
    assert main(["evaluate", *words, models[0], f"run.dir={tmp_path / 'run'}"]) == 0
    assert facts(counted) == (1, 1, 1)


def test_a_dry_run_hashes_each_checkpoint_once(unlearn, counted):
    assert main(["unlearn", *unlearn, "--dry-run"]) == 0
    assert facts(counted) == (1, 2, 0)


# --- ranks, workers and tasks in processes of their own


def claimed(unlearn: list[str], path: Path) -> Path:
    """Claim a directory as the launcher of several ranks does; return what a rank is given."""
    config = compose_job("unlearn", [*unlearn, f"run.dir={path}"])
    prepare(config, 1).claim()
    digests._known.clear()
    return path / "config.yaml"


def test_a_rank_takes_over_the_digests_of_its_launcher(unlearn, tmp_path, counted):
    config = claimed(unlearn, tmp_path / "run")
    counted.clear()
    assert rank_main([str(config)]) == 0
    assert facts(counted) == (1, 1, 2)  # the delivered model; the model and the folded one


def test_a_rank_hashes_a_checkpoint_that_was_just_written(unlearn, tmp_path, counted, monkeypatch):
    monkeypatch.setattr(digests, "SETTLED_S", 3600.0)
    config = claimed(unlearn, tmp_path / "run")
    assert not (tmp_path / "run" / "prepared.json").exists()
    counted.clear()
    assert rank_main([str(config)]) == 0
    assert counted["hash"] == 3


def test_a_checkpoint_replaced_after_the_launch_is_noticed(unlearn, tmp_path, capfd):
    copies = [_copy(word, tmp_path) for word in unlearn]
    config = claimed(copies, tmp_path / "run")
    file = tmp_path / "all" / "checkpoints" / "final" / "model.safetensors"
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    capfd.readouterr()
    assert rank_main([str(config)]) == 2
    assert "holds another run" in capfd.readouterr().err


def _copy(word: str, folder: Path) -> str:
    name, _, path = word.partition("=")
    if name not in ("checkpoint", "reference"):
        return word
    shutil.copytree(path, folder / Path(path).name)
    return f"{name}={folder / Path(path).name}"


def test_a_damaged_record_only_costs_the_reading(unlearn, tmp_path, counted):
    config = claimed(unlearn, tmp_path / "run")
    for text in ("{", "[]", '{"checkpoint": 1}', '{"checkpoint": {"sha256": "00"}}'):
        (tmp_path / "run" / "prepared.json").write_text(text)
        digests._known.clear()
        counted.clear()
        assert rank_main([str(config)]) == 0
        assert not digests._known or "00" not in digests._known.values()
        for file in ("result.json",):
            (tmp_path / "run" / file).unlink()
    assert counted["hash"] == 3


def test_a_worker_reads_the_data_that_its_runs_share_once(unlearn, tmp_path, counted):
    configs = [claimed([*unlearn, f"seed={n}"], tmp_path / f"run{n}") for n in (0, 1)]
    data_reader.cache_clear()
    counted.clear()
    for config in configs:
        assert worker._run(config) == 0
    assert facts(counted)[:2] == (1, 2)  # the delivered models
    results = [json.loads(c.with_name("result.json").read_text()) for c in configs]
    assert results[0]["signature"] != results[1]["signature"]


def test_a_task_of_a_campaign_reads_its_data_once(unlearn, tmp_path, counted, monkeypatch, capfd):
    campaigns = make_campaigns(tmp_path, monkeypatch, capfd)
    given = [*unlearn, "cluster=slurm_lab", "cluster.pack=1", f"run.dir={campaigns.path}"]
    said = campaigns.run("submit", "unlearn", *given)
    assert said.status == 0, said.err
    (job,) = campaigns.path.glob("jobs/*unlearn*.json")
    digests._known.clear()
    counted.clear()
    assert run_task([str(campaigns.path), job.stem, "0"]) == 0
    assert facts(counted) == (1, 3, 2)


# --- digests


def test_a_digest_is_taken_once_and_again_when_the_file_changed(tmp_path, counted):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"first")
    first = file_digest(file)
    assert file_digest(file) == first
    assert counted["hash"] == 1
    file.write_bytes(b"other")
    assert file_digest(file) != first


def test_a_replaced_file_of_equal_size_and_times_has_another_digest(tmp_path):
    file, other = tmp_path / "file", tmp_path / "other"
    file.write_bytes(b"first")
    first, status = file_digest(file), file.stat()
    other.write_bytes(b"other")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(other, file)
    assert file_digest(file) != first


def test_a_file_that_was_just_written_is_read_each_time(tmp_path, counted, monkeypatch):
    monkeypatch.setattr(digests, "SETTLED_S", 2.0)
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"content")
    assert file_digest(file) == file_digest(file)
    assert counted["hash"] == 2
    assert known_files({"checkpoint": file}) == {}


def test_what_another_process_knew_counts_for_the_same_state_only(tmp_path, counted):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"content")
    digest = file_digest(file)
    known = json.loads(json.dumps(known_files({"checkpoint": file})))
    digests._known.clear()
    remember_files(known)
    assert file_digest(file) == digest
    assert counted["hash"] == 1
    file.write_bytes(b"CONTENT")
    assert file_digest(file) != digest


def test_weights_replaced_between_preparing_and_loading_are_refused(unlearn, models, tmp_path):
    copies = [_copy(word, tmp_path) for word in unlearn]
    config = compose_job("unlearn", [*copies, f"run.dir={tmp_path / 'run'}"])
    job = make_job(prepare(config, 1), Collectives())
    job.model(config.checkpoint)
    name = "checkpoints/final/model.safetensors"
    shutil.copyfile(tmp_path / "retain" / name, tmp_path / "all" / name)
    with pytest.raises(CheckpointError, match="was replaced after this run was prepared"):
        job.model(config.checkpoint)


def test_weights_written_again_with_the_same_content_are_taken(unlearn, tmp_path):
    copies = [_copy(word, tmp_path) for word in unlearn]
    config = compose_job("unlearn", [*copies, f"run.dir={tmp_path / 'run'}"])
    job = make_job(prepare(config, 1), Collectives())
    file = tmp_path / "all" / "checkpoints" / "final" / "model.safetensors"
    file.write_bytes(file.read_bytes())
    job.model(config.checkpoint)


# --- data


def test_a_reader_reads_a_set_once_for_several_requests(words, counted):
    configs = [compose_job("train", [*words, f"forget.seed={n}"]) for n in (0, 1)]
    reader = DataReader()
    read = [reader.data(config.data, config.drawn_forget) for config in configs]
    assert reader.rows(configs[0].data, configs[0].drawn_forget).splits is read[0].splits
    assert counted["manifest"] == 1
    for config, data in zip(configs, read, strict=True):
        alone = resolve_data(config.data, config.drawn_forget)
        assert data.digests() == alone.digests()
        np.testing.assert_array_equal(data.images, alone.images)


def test_a_reader_tells_settings_of_the_data_apart(words):
    small, large = (compose_job("train", [*words, f"data.image_size={size}"]) for size in (32, 40))
    reader = DataReader()
    assert [_edge(reader, config) for config in (small, large)] == [32, 40]


def _edge(reader: DataReader, config: JobConfig) -> int:
    return reader.data(config.data, config.drawn_forget).images.shape[-1]


# --- ranks that differ


class TwoRanks(Collectives):
    """The first of two ranks; the other gathers what it is said to."""

    def __init__(self, other: dict[str, str]):
        super().__init__(0, 2)
        self.other, self.asked = other, False

    def gather_numpy(self, rows: np.ndarray, total: int) -> np.ndarray:
        if self.asked:
            self.rows = rows
            raise _AskedError
        self.asked = True
        with pytest.raises(_AskedError):
            check_agreement(self.other, "abc", self)
        return np.concatenate([rows, self.rows])


class _AskedError(Exception):
    """Ends the check of the other rank where it would wait for the first."""


INPUTS = {"data": "d1", "request": "r1", "checkpoint": "c1"}


def test_ranks_with_the_same_inputs_go_on():
    check_agreement(INPUTS, "abc", TwoRanks(dict(INPUTS)))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"checkpoint": "c2"}, "another checkpoint"),
        ({"data": "d2", "request": "r2"}, "other data and another forget request"),
        ({"removed": "m1"}, "other removed images"),
        ({"lineage": "l1"}, "another configuration"),
    ],
)
def test_a_rank_that_reads_something_else_is_named(other, said):
    with pytest.raises(RanksDifferError, match=f"Rank 1 reads {said} than rank 0") as raised:
        check_agreement(INPUTS, "abc", TwoRanks({**INPUTS, **other}))
    assert raised.value.on_all_ranks
    assert raised.value.exit_status == 2
