"""What sacct says that jobs have used, and what a GPU says, in result.json and in `dlfd status`."""

from __future__ import annotations

import json
import os
import sys
import types
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from dlfd_dist.runtime import accounting
from dlfd_dist.runtime.accounting import Usage, step_so_far
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.energy import EnergyMeter, added
from launch.execute import usage
from launch.execute.slurm import SchedulerError
from launch.execute.usage import read_usage, usage_of
from tests.fakes.campaigns import Campaigns, make_campaigns
from tests.fakes.slurm_on_path import FakeSlurm

LAB = """\
300001|COMPLETED|0||
300001.batch|COMPLETED|0|10796K|cpu=00:00:00,energy=0,fs/disk=29499,mem=10796K,pages=1,vmem=219476K
300001.0|COMPLETED|0|72060K|cpu=00:00:00,energy=0,fs/disk=1685846,mem=72060K,pages=0,vmem=75164K
300003|REQUEUED|0||
300003.batch|CANCELLED|0|10384K|cpu=00:00:00,energy=0,fs/disk=29499,mem=10384K,pages=0,vmem=219476K
300003.0|COMPLETED|0|1572K|cpu=00:00:00,energy=0,fs/disk=6977,mem=1572K,pages=0,vmem=2920K
300002_0|COMPLETED|0||
300002_0.batch|COMPLETED|0||energy=0
300002_0.0|COMPLETED|0||energy=0
300002_1|COMPLETED|0||
300002_1.batch|COMPLETED|0||energy=0
300002_1.0|COMPLETED|0||energy=0
300003|COMPLETED|0||
300003.batch|COMPLETED|0|10536K|cpu=00:00:00,energy=0,fs/disk=29499,mem=10536K,pages=0,vmem=219476K
300003.0|COMPLETED|0|1660K|cpu=00:00:00,energy=0,fs/disk=6977,mem=1660K,pages=0,vmem=2920K
"""
"""SLURM 22.05 on the lab: a job, an array of two, and a job that was requeued; nobody measures."""
MEASURED = """\
17|COMPLETED|48211||
17.batch|COMPLETED|24007|10796K|cpu=00:01:00,energy=24007,fs/disk=1000000
17.0|COMPLETED|48211|1.50G|cpu=1-00:00:01,energy=48211,fs/disk=2000000
18|RUNNING|900||
18.0|RUNNING|900||
19|FAILED|0||
19.batch|FAILED|300|1000K|cpu=00:00:05,energy=300
19.0|FAILED|200|2000K|cpu=00:00:07,energy=200
"""


def test_a_site_that_measures_no_energy_has_none_and_memory_is_that_of_the_largest_step():
    found = read_usage(LAB)
    assert found["300001"] == Usage(None, 72060 * 1024 / 1e6, 0.0, (29499 + 1685846) / 1e6)
    assert found["300002_0"] == found["300002_1"] == Usage()


def test_the_starts_of_a_requeued_job_are_added_up():
    found = read_usage(LAB)["300003"]
    assert found.max_rss_mb == 10536 * 1024 / 1e6
    assert found.disk_read_mb == pytest.approx(2 * (29499 + 6977) / 1e6)


def test_energy_is_that_of_the_job_and_not_counted_again_for_its_steps():
    found = read_usage(MEASURED)
    assert found["17"] == Usage(48211.0, 1.5 * 1024**3 / 1e6, 86461.0, 3.0)
    assert found["19"].energy_joules == 300.0
    assert "18" not in found  # it runs still


def test_an_ended_job_is_asked_for_once(tmp_path, monkeypatch: pytest.MonkeyPatch):
    calls: list[list[str]] = []

    def call(words: list[str]) -> str:
        calls.append(words)
        return MEASURED

    monkeypatch.setattr(usage, "call", call)
    (tmp_path / "jobs").mkdir()
    assert usage_of(tmp_path, ["17", "18"])["17"].energy_joules == 48211.0
    assert usage_of(tmp_path, ["17"]).keys() == {"17"}
    assert len(calls) == 1
    assert calls[0][calls[0].index("-j") + 1] == "17,18"
    usage_of(tmp_path, ["17", "18"])
    assert calls[1][calls[1].index("-j") + 1] == "18"


def test_a_site_without_accounting_has_no_usage(tmp_path, monkeypatch: pytest.MonkeyPatch):
    def call(words: list[str]) -> str:
        raise SchedulerError("sacct refused: Slurm accounting storage is disabled.")

    monkeypatch.setattr(usage, "call", call)
    assert usage_of(tmp_path, ["17"]) == {}


class _Nvml(types.ModuleType):
    """Stands in for pynvml: a GPU whose counter the test sets."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.millijoules: int | None = 5000

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        assert handle == "GPU-abc"
        if self.millijoules is None:
            raise self.NVMLError
        return self.millijoules


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> _Nvml:
    module = _Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", module)
    properties = types.SimpleNamespace(uuid="abc")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    return module


def test_a_meter_counts_what_its_device_used_since_it_was_made(nvml: _Nvml):
    meter = EnergyMeter(torch.device("cuda"))
    nvml.millijoules = 12500
    assert meter.joules() == 7.5
    assert meter.of_all_ranks(Collectives()) == 7.5
    nvml.millijoules = None
    assert meter.joules() is None
    assert meter.of_all_ranks(Collectives()) is None


def test_nobody_measures_a_cpu_nor_a_device_whose_library_is_missing(
    monkeypatch: pytest.MonkeyPatch,
):
    assert EnergyMeter(torch.device("cpu")).of_all_ranks(Collectives()) is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert EnergyMeter(torch.device("cuda")).joules() is None


@pytest.mark.parametrize(("before", "now", "both"), [(1.0, 2.0, 3.0), (None, 2.0, None)])
def test_a_start_that_was_not_measured_leaves_no_sum(before, now, both):
    assert added(before, now) == both


STEP = {"SLURM_JOB_ID": "17", "SLURM_STEP_ID": "0"}


@pytest.fixture
def sstat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """A SLURM whose sstat knows step 17.0 alone."""
    slurm = FakeSlurm(tmp_path / "slurm", monkeypatch)
    answer = "48211|1.50G|cpu=1-00:00:01,energy=48211,fs/disk=2000000"
    slurm.command("sstat", f"""[ "$4" = 17.0 ] && echo '{answer}'""")
    return slurm


def step(**changes: str) -> Usage | None:
    return step_so_far({"PATH": os.environ["PATH"], **STEP, **changes})


def test_a_run_asks_what_its_step_used_until_now(sstat: FakeSlurm):
    assert step() == Usage(48211.0, 1.5 * 1024**3 / 1e6, 86401.0, 2.0)
    sstat.answers("sstat", "0||")
    assert step() == Usage()


def test_where_sstat_says_nothing_a_run_ends_all_the_same(sstat: FakeSlurm, monkeypatch):
    assert step_so_far({"PATH": os.environ["PATH"]}) is None
    assert step(SLURM_STEP_ID="1") is None
    sstat.answers("sstat")
    assert step() is None
    sstat.command("sstat", r"printf '\351\n' | tee /dev/stderr")
    assert step() is None
    monkeypatch.setattr(accounting, "TIMEOUT_S", 0.1)
    sstat.command("sstat", "exec sleep 60")
    assert step() is None
    (sstat.bin / "sstat").unlink()
    assert step() is None


@pytest.fixture
def campaigns(tmp_path, monkeypatch: pytest.MonkeyPatch, capfd) -> Campaigns:
    return make_campaigns(tmp_path, monkeypatch, capfd)


def test_status_tells_what_a_campaign_used(campaigns: Campaigns):
    assert campaigns.submit("train", "seed=0,1").status == 0
    assert campaigns.run("status", campaigns.path, "--json").json["usage"] == asdict(Usage())
    folder = campaigns.start("seed=0")
    campaigns.end("seed=0", 0)
    result = {"device_seconds": 3600.0, "energy_joules": 1.8e6}
    (folder / "result.json").write_text(json.dumps(result))
    campaigns.slurm.set("101_0", "COMPLETED", energy=3600000)
    found = campaigns.run("status", campaigns.path, "--json").json
    assert found["usage"]["energy_joules"] == 3.6e6
    assert found["device_energy_joules"] == 1.8e6
    first, second = found["runs"]
    assert (first["usage"]["energy_joules"], first["energy_joules"]) == (3.6e6, 1.8e6)
    assert (second["usage"]["energy_joules"], second["energy_joules"]) == (None, None)
    shown = campaigns.run("status", campaigns.path).out
    assert "used: 1.00 kWh by the nodes, 0.50 kWh by the devices" in shown
