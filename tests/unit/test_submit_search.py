"""launch/search/submit: what is queued for a search; nothing runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dlfd_dist.errors import ConfigError
from launch.execute.batches import make_batches
from launch.execute.submission import Submission
from launch.search.node import Step
from launch.search.plan import make_plan, read_search
from launch.search.search import run_search
from launch.verbs.submit import plan_of

GIVEN = [
    "data=synthetic", "data.image_size=32", "data.synthetic.num_identities=12", "cluster=slurm_lab",
    "forget.fraction=0.25", "method=dlfd", "search.num_samples=5", "search.replicate=1",
    "search.replicate_seeds=2", "search.objective=nomus",
]  # fmt: skip


@pytest.fixture
def given(tiny, tmp_path: Path) -> list[str]:
    from dlfd_dist.models import build_model, save_weights

    config = tiny("train")
    model = build_model(config.model, image_size=32, num_outputs=8, seed=0)
    save_weights(model, tmp_path / "model.safetensors")
    return [
        *GIVEN, f"checkpoint={tmp_path}/model.safetensors", f"run.dir={tmp_path}/search",
    ]  # fmt: skip


def test_a_search_with_ray_is_one_job_on_all_nodes(given: list[str]):
    campaign = plan_of("search", [*given, "cluster.nodes=2", "cluster.tasks_per_node=3"])
    (batch,) = make_batches(campaign.runs, campaign.cluster, 1)
    submission = Submission(campaign, 1, {}, {})
    text = submission.job(batch).executor().text()
    assert "#SBATCH --nodes=2\n" in text
    assert "--ntasks=2 --ntasks-per-node=1 --cpus-per-task=3" in text
    assert "lib/ray.sh" in text
    assert text.rstrip().endswith('requeue_or_exit "$(ray_status $?)"')


def test_the_plan_of_a_search_says_whether_gpus_are_used(given: list[str], monkeypatch, capsys):
    words = [word for word in given if not word.startswith("cluster=")]

    def said(*more: str, there: int) -> str:
        monkeypatch.setattr("torch.cuda.device_count", lambda: there)
        assert run_search([*words, *more], resume=False, dry_run=True, as_json=False) == 0
        return capsys.readouterr().out

    assert "# GPUs: none is used, for torch sees none here; trials run on CPUs" in said(there=0)
    assert "# GPUs: 1 for each rank of a trial, of 2 here" in said(there=2)
    half = said("search.gpus_per_trial=0.5", there=2)
    assert "# GPUs: 0.5 for each rank of a trial, of 2 here" in half
    assert "# GPUs: none is used of 2 here" in said("runtime.device=cpu", there=2)
    for gpus, where in (("none", "cores"), ("gres", "GPUs")):
        campaign = plan_of("search", [*given, f"cluster.gpus={gpus}"])
        assert campaign.runs[0].spec.why == f"Ray on 1 node, trials on their {where}"


@pytest.mark.parametrize("search", ["asha", "pbt", "random"])
def test_a_job_finds_its_search_in_the_plan_file_and_reads_no_command_line(
    given: list[str], search: str
):
    words = [*given, f"search={search}"]
    values = json.loads(plan_of("search", words).text())["for_finisher"]["search"]
    plan = make_plan([word for word in words if not word.startswith("cluster=")])
    assert read_search(values) == plan


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cluster.nodes=2", "cluster.tasks_per_node=1", "search.workers_per_trial=3"],
         "needs 3 cores .* there are 2"),
        (["cluster.nodes=2", "cluster.tasks_per_node=1", "search.cpus_per_trial=2"],
         "a node has 1"),
    ],
)  # fmt: skip
def test_a_search_that_the_cluster_cannot_run_is_refused(given: list[str], words, said: str):
    with pytest.raises(ConfigError, match=said):
        plan_of("search", [*given, *words])


@pytest.mark.parametrize(("node", "number"), [("0", 10), ("1", 9)])
def test_every_port_of_ray_lies_in_the_block_of_its_job_below_those_of_linux(node, number):
    environment = {
        "SLURM_NODEID": node, "SLURM_NNODES": "2", "MASTER_ADDR": "127.0.0.1",
        "CUDA_VISIBLE_DEVICES": "0,1", "SLURM_CPUS_PER_TASK": "4",
    }  # fmt: skip
    for job in range(0, 5000, 7):
        step = Step.of({**environment, "SLURM_JOB_ID": str(job)})
        ports = [int(w.rpartition("=")[2]) for w in step.ray_start() if "port=" in w]
        # One that is not named has Ray's default, 10001 of the client server: a port of a block.
        assert any(word.startswith("--ray-client-server-port=") for word in step.ray_start())
        assert len(set(ports)) == len(ports) == number
        assert step.first_port <= min(ports) <= max(ports) < step.first_port + 300 < 32768
    assert "--num-gpus=2" in step.ray_start()


def test_a_node_leaves_no_process_behind_not_even_an_orphan(tmp_path: Path):
    orphan = f"(trap '' TERM; echo $BASHPID > {tmp_path}/pid; exec sleep 300) & wait -n; exit"
    code = (
        "import subprocess, time; from pathlib import Path; "
        "from launch.search.node import leaves_nothing\n"
        "with leaves_nothing():\n"
        f"    shell = subprocess.Popen(['bash', '-c', {orphan!r}])\n"
        f"    while not Path('{tmp_path}/pid').exists(): time.sleep(.01)\n"
        "    shell.kill(); shell.wait()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    pid = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(pid)
