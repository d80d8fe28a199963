"""launch/plan/campaign.py and shape.py: the DAG of a grid, its arrays, and packing or DDP."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from dlfd_dist.compose import split_cluster
from dlfd_dist.config import ClusterConfig, JobConfig, ModelConfig, TrainConfig
from dlfd_dist.data.loaders import RowReader
from dlfd_dist.errors import CheckpointError, ConfigError, RunDirError
from dlfd_dist.jobs.context import input_digests, run_identity
from dlfd_dist.models import build_model, save_weights
from dlfd_dist.runtime.env import job_info
from launch.execute.batches import Batch, make_batches
from launch.plan.campaign import plan_campaign
from launch.plan.runs import Plan, read_plan
from launch.plan.shape import LaunchSpec, asked_shape, choose_spec

GIVEN = [
    "data=synthetic", "data.image_size=32", "data.synthetic.num_identities=12",
    "forget.fraction=0.25", "cluster=slurm_lab",
]  # fmt: skip


def plan(verb: str, tmp_path: Path, *words: str) -> Plan:
    return plan_campaign(verb, [*GIVEN, f"run.dir={tmp_path}/campaign", *words])


def units(campaign: Plan) -> list[tuple[str, list[list[str]]]]:
    labels = {run.key: run.label for run in campaign.runs}
    return [
        (batch.name, [[labels[key] for key in unit] for unit in batch.units])
        for batch in make_batches(campaign.runs, campaign.cluster, 1)
    ]


def test_a_grid_is_trainings_then_what_starts_from_them(tmp_path: Path):
    campaign = plan("unlearn", tmp_path, "method=dlfd,scrub", "seed=0,1", "cluster.pack=1")
    assert units(campaign) == [
        ("01-001-train", [["retrained seed 0"], ["original seed 0"],
                          ["retrained seed 1"], ["original seed 1"]]),
        ("01-002-unlearn", [["dlfd seed 0"], ["scrub seed 0"]]),
        ("01-003-unlearn", [["dlfd seed 1"], ["scrub seed 1"]]),
    ]  # fmt: skip
    labels = {run.key: run.label for run in campaign.runs}
    for run in campaign.runs:
        seed = run.config.seed
        wanted = [f"original seed {seed}", f"retrained seed {seed}"] if run.role == "method" else []
        assert [labels[parent] for parent in run.parents] == wanted
        if run.parents:
            assert run.config.checkpoint == campaign.by_key[run.parents[0]].directory


@pytest.mark.parametrize(
    "words",
    [
        GIVEN,
        ["model.factory=tests.fakes.strangers:build", "data.factory=tests.fakes.strangers:splits",
         "cluster=slurm_lab"],
    ],
)  # fmt: skip
def test_the_planned_directory_of_a_training_is_the_directory_that_its_job_makes(
    words: list[str], tmp_path: Path
):
    campaign = plan_campaign("compare", [*words, "method=finetune", f"run.dir={tmp_path}/campaign"])
    read = RowReader()
    for run in campaign.runs:
        if run.trains:
            inputs = input_digests(run.config, read(run.config.data, run.config.drawn_forget))
            assert run.directory == str(run_identity(run.config, inputs)[1].path)
        else:
            assert run.config.checkpoint in {parent.directory for parent in campaign.runs}


def test_short_runs_are_packed_and_a_pack_of_models_holds_one_seed_only(tmp_path: Path):
    campaign = plan("compare", tmp_path, "method=dlfd,scrub", "seed=0,1")
    assert units(campaign) == [
        ("01-001-train", [["retrained seed 0", "original seed 0"],
                          ["retrained seed 1", "original seed 1"]]),
        ("01-002-unlearn", [["dlfd seed 0", "scrub seed 0"], ["dlfd seed 1", "scrub seed 1"]]),
    ]  # fmt: skip
    spec = campaign.runs[0].spec
    assert (spec.packed, spec.nodes, spec.tasks_per_node) == (True, 1, 2)
    assert "less than cluster.pack_min=20" in spec.why


@pytest.mark.parametrize("words", [["cluster.pack=1"], ["cluster.pack=2"], ["cluster.max_array=3"]])
@pytest.mark.parametrize("left_out", [[], ["original seed 2"], ["retrained seed 0", "ssd seed 4"]])
def test_over_many_seeds_a_task_waits_for_the_tasks_that_make_its_models(
    words, left_out, tmp_path: Path
):
    campaign = plan("compare", tmp_path, "method=ssd,finetune", "seed=range(0,7)", *words)
    runs = [run for run in campaign.runs if run.label not in left_out]
    batches = make_batches(runs, campaign.cluster, 1)
    todo = {run.key for run in runs}
    place = {
        key: (batch.name, number if batch.array else None)
        for batch in batches
        for number, unit in enumerate(batch.units)
        for key in unit
    }
    assert sorted(key for b in batches for unit in b.units for key in unit) == sorted(todo)
    assert any(batch.by_task for batch in batches)
    for batch in batches:
        awaited = {place[parent][0] for parent in batch.parents}
        for number, unit in enumerate(batch.units):
            needed = {p for key in unit for p in campaign.by_key[key].parents} & todo
            if batch.by_task and unit:
                # SLURM lets a task wait for its number in each of these arrays, and it is there.
                assert {place[parent] for parent in needed} == {(n, number) for n in awaited}
            else:
                assert needed <= set(batch.parents)


def test_numbers_that_an_array_leaves_out_are_left_out_of_its_option():
    made = [(), ("a",), ("b",), (), ("c",)]
    assert Batch("", tuple(made), LaunchSpec()).array == "1-2,4"
    assert Batch("", (("a",), ("b",)), LaunchSpec()).array == "0-1"
    assert Batch("", (("a",),), LaunchSpec()).array == ""


@pytest.mark.parametrize("seeds", [2, 5])
def test_tuned_runs_wait_for_the_end_of_the_trials_of_their_method(seeds: int, tmp_path: Path):
    words = [f"seed=range(0,{seeds})", "method=scrub,ssd", "compare.tune=2", "cluster.pack=1"]
    campaign = plan("compare", tmp_path, *words)
    batches = make_batches(campaign.runs, campaign.cluster, 1)
    labels = {run.key: run.label for run in campaign.runs}
    trials = [b for b in batches if b.title.startswith("scrub trial")]
    seen = [labels[k] for b in trials for u in b.units for k in u]
    assert [label for label in seen if "trial" in label] == [
        f"{method} trial {n} seed 0" for method in ("scrub", "ssd") for n in (0, 1)
    ]
    alone = {run.label for run in campaign.runs if run.tuning}
    assert alone == {"retrained seed 0 without draw 1000000", "original seed 0 on draw 1000000"}
    for run in (run for run in campaign.runs if run.role == "trial"):
        parents = [campaign.by_key[key].label for key in run.parents]
        assert parents == ["original seed 0", "retrained seed 0 without draw 1000000"]
    methods = batches[batches.index(trials[0]) + 1 :]
    seen = [labels[key] for batch in methods for unit in batch.units for key in unit]
    assert sorted(seen) == [f"{m} seed {s}" for m in ("scrub", "ssd") for s in range(seeds)]
    for batch in methods:
        (method,) = {labels[key].split()[0] for unit in batch.units for key in unit}
        assert [labels[key] for key in batch.after] == [
            *(f"{method} trial {n} seed 0" for n in (0, 1)), "original seed 0 on draw 1000000",
        ]  # fmt: skip
        assert {labels[key].split()[0] for key in batch.parents} == {"original", "retrained"}
        assert not any("draw" in labels[key] for key in batch.parents)


def test_other_trials_make_another_run(tmp_path: Path):
    words = ["seed=0", "method=scrub"]
    keys = [
        {run.key for run in plan("compare", tmp_path, *words, *more).runs if run.role == "method"}
        for more in ([], ["compare.tune=2"], ["compare.tune=3"], ["compare.tune=2"])
    ]
    assert len(set().union(*keys)) == 3
    assert keys[1] == keys[3]


def test_an_array_longer_than_the_site_allows_is_cut(tmp_path: Path):
    words = ["seed=range(0,5)", "cluster.pack=1", "cluster.max_array=2"]
    assert [len(found) for _, found in units(plan("train", tmp_path, *words))] == [2, 2, 1]


def test_the_plan_file_holds_the_campaign(tmp_path: Path):
    campaign = plan("compare", tmp_path, "method=finetune")
    (campaign.path / "plans").mkdir(parents=True)
    (campaign.path / "plans" / campaign.plan_name).write_text(campaign.text(), encoding="utf-8")
    read = read_plan(campaign.path, campaign.plan_name)
    assert [run.with_config(run.config) for run in read.runs] == campaign.runs
    assert (read.verb, read.cluster, read.words) == ("compare", campaign.cluster, campaign.words)
    assert read.text() == campaign.text()
    assert plan("compare", tmp_path, "method=finetune").plan_name == campaign.plan_name


@pytest.mark.parametrize("change", [{"later": {}}, {"runs": [{"key": "0"}]}, {"cluster": {"x": 1}}])
def test_a_plan_of_another_version_is_refused_in_one_sentence(tmp_path: Path, change):
    campaign = plan("train", tmp_path)
    (campaign.path / "plans").mkdir(parents=True)
    values = json.loads(campaign.text()) | change
    (campaign.path / "plans" / "old.json").write_text(json.dumps(values))
    with pytest.raises(RunDirError, match=r"old.json was written by another version of dlfd"):
        read_plan(campaign.path, "old.json")


def test_the_key_of_a_run_stays_when_a_method_or_the_shape_changes(tmp_path: Path):
    few = plan("compare", tmp_path, "method=finetune", "seed=0")
    many = plan("compare", tmp_path, "method=ssd,finetune", "seed=0,1", "cluster.nodes=2")
    assert {r.key: r.label for r in few.runs}.items() <= {r.key: r.label for r in many.runs}.items()
    assert len(many.by_key) == len(many.runs) == 8


def test_a_thousand_runs_are_planned_in_seconds(tmp_path: Path):
    words = ["method=dlfd,finetune,scrub,ssd", "seed=range(0,167)"]
    start = time.process_time()
    campaign = plan("compare", tmp_path, *words)
    batches = make_batches(campaign.runs, campaign.cluster, 1)
    assert time.process_time() - start < 5
    assert len(campaign.runs) == 167 * 6
    assert [len(batch.units) for batch in batches] == [167, 167]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare.tune=-1"], "compare.tune=-1 is not allowed"),
        (["cluster=slurm_labb"], "cluster=slurm_labb is not known.*Did you mean 'slurm_lab'"),
        (["cluster.node=2"], "'cluster.node' is not known. Did you mean 'cluster.nodes'"),
        (["cluster.pack=0"], "cluster.pack=0 is not allowed"),
        (["cluster.gpus=gpu"], "cluster.gpus=gpu is not allowed: it must be one of none, gres"),
        (["cluster.ranks=64"], "runtime.world_size=64 is larger than train.global_batch_size"),
        (["method.lr=-1"], "method.lr=-1.* is not allowed"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_written(words, message, tmp_path: Path):
    with pytest.raises(ConfigError, match=message):
        plan("compare", tmp_path, *words)
    assert not list(tmp_path.iterdir())


def test_a_method_that_the_model_does_not_allow_is_refused_before_the_model_is_there(tmp_path):
    with pytest.raises(ConfigError, match="method.k=99 is larger than the model: it has 10 blocks"):
        plan("compare", tmp_path, "method=eu_k", "method.k=99")
    with pytest.raises(ConfigError, match="data.image_size"):
        plan("train", tmp_path, "model=vit_b_16", "data.image_size=30")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("verb", "words"), [("evaluate", []), ("unlearn", ["method=finetune"])])
def test_a_checkpoint_of_other_classes_or_architecture_is_refused(verb, words, tmp_path: Path):
    model = build_model(ModelConfig(), image_size=32, num_outputs=3, seed=0)
    file = tmp_path / "three.safetensors"
    save_weights(model, file)
    words = [f"checkpoint={file}", "forget.fraction=0.25", *words]
    with pytest.raises(CheckpointError, match="it has 3 outputs and the data . classes"):
        plan(verb, tmp_path, *words)
    with pytest.raises(CheckpointError, match="is of another architecture"):
        plan(verb, tmp_path, *words, "model=vit_b_16")
    assert list(tmp_path.iterdir()) == [file]


# --- jobs and their restarts


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, (None, 0)),
        ({"SLURM_JOB_ID": "7"}, ("7", 0)),
        ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "2"}, ("7", 2)),
        ({"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1"}, ("7_1", 0)),
        ({"TORCHELASTIC_RESTART_COUNT": "1"}, (None, 1)),
        # Torchrun in a job begins at 0 in every start of the job.
        ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "2", "TORCHELASTIC_RESTART_COUNT": "0"},
         ("7", 2)),
        # A campaign also counts the starts under earlier jobs.
        ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "0", "DLFD_STARTS_BEFORE": "3"}, ("7", 3)),
        ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "5", "DLFD_STARTS_BEFORE": "0"}, ("7", 0)),
    ],
)  # fmt: skip
def test_a_job_and_its_restarts_are_read_from_whoever_counts_them(env, expected):
    found = job_info(env)
    assert (found.job_id, found.run_restarts) == expected


# --- shapes


@pytest.mark.parametrize(
    ("words", "shape"),
    [
        ([], None),
        (["ranks=8"], (1, 8)),
        (["ranks=16"], (2, 8)),
        (["ranks=16", "nodes=4"], (4, 4)),
        (["ranks=6", "tasks_per_node=3"], (2, 3)),
        (["nodes=2"], (2, 1)),
        (["nodes=2", "tasks_per_node=2"], (2, 2)),
    ],
)
def test_ranks_become_nodes_and_tasks(words, shape):
    cluster, rest = split_cluster([f"cluster.{word}" for word in words])
    assert (asked_shape(cluster), rest) == (shape, [])


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        (ClusterConfig(ranks=9), "ranks=9 is not 2 nodes x 8 tasks"),
        (ClusterConfig(ranks=5, nodes=2), "ranks=5 is not 2 nodes x 3 tasks"),
        (ClusterConfig(tasks_per_node=9), "tasks_per_node=9 is more than the 8"),
    ],
)
def test_ranks_that_do_not_fit_are_refused(cluster, message):
    with pytest.raises(ConfigError, match=message):
        asked_shape(cluster)


@pytest.mark.parametrize(
    ("cluster", "minutes", "num_runs", "spec", "why"),
    [
        (ClusterConfig(), 1, 4, LaunchSpec(1, 4, True), "packed: a run takes about 1.0 min"),
        (ClusterConfig(), 1, 40, LaunchSpec(1, 8, True), "packed"),
        (ClusterConfig(), 1, 1, LaunchSpec(), "one rank"),
        (ClusterConfig(), 90, 4, LaunchSpec(1, 4), "DDP on 4 ranks: .* too long for one"),
        (ClusterConfig(nodes=2), 1, 4, LaunchSpec(2, 1), "this many ranks were asked for"),
        (ClusterConfig(ranks=4), 1, 4, LaunchSpec(1, 4), "asked for$"),
        (
            ClusterConfig(nodes=2, tasks_per_node=4),
            1,
            4,
            LaunchSpec(2, 4),
            "asked for, and a batch of 32 has 4.0 images for each$",
        ),
        (ClusterConfig(pack="3"), 90, 4, LaunchSpec(1, 3, True), "cluster.pack=3"),
        (ClusterConfig(pack="1"), 1, 4, LaunchSpec(), "one rank: cluster.pack=1"),
    ],
)
def test_the_planner_packs_short_runs_and_spreads_long_ones(cluster, minutes, num_runs, spec, why):
    found = choose_spec(cluster, JobConfig(), minutes=minutes, num_runs=num_runs)
    assert found == spec
    assert re.search(why, found.why)


@pytest.mark.parametrize(
    ("max_tasks", "num_runs", "spec", "why"),
    [
        (8, 5, LaunchSpec(1, 5, True), "packed: .* 90.0 min .*, and more ranks do not pay"),
        (8, 1, LaunchSpec(), "one rank"),
        (1, 5, LaunchSpec(), "one rank"),
    ],
)
def test_long_runs_that_more_ranks_do_not_help_are_packed(max_tasks, num_runs, spec, why):
    # So small a batch is not shared (IMAGES_PER_RANK).
    config = JobConfig(train=TrainConfig(global_batch_size=8))
    cluster = ClusterConfig(max_tasks_per_node=max_tasks)
    found = choose_spec(cluster, config, minutes=90, num_runs=num_runs)
    assert found == spec
    assert re.search(why, found.why)
