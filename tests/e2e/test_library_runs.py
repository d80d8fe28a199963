"""`import dlfd_dist as dlfd`: runs on a stranger's network and sets."""

from __future__ import annotations

import copy
import json
import logging
import os
import re
import shutil
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.utils.data import Dataset

import dlfd_dist as dlfd
from dlfd_dist.compose import compose_job, load_config
from dlfd_dist.data.loaders import resolve_data
from dlfd_dist.factories import code_digest
from dlfd_dist.jobs import run_job
from dlfd_dist.models import build_model, load_weights, save_weights
from dlfd_dist.run_dir import RunDir
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag
from launch.cli import main
from launch.verbs.certify import _measure
from tests.fakes.command_line import REPOSITORY
from tests.fakes.strangers import QUICK, WORDS, Faces, Net, build, splits
from tests.fakes.terminal import terminal

HERE = "tests.fakes.strangers"


def unlearned(out: Path, model: Any = None, sets: dict[str, Any] | None = None, **more: Any):
    settings = {**QUICK, **more.pop("settings", {})}
    sets = splits() if sets is None else sets
    return dlfd.unlearn(model or build(), **sets, out=out, settings=settings, **more)


def assert_equal_weights(one: nn.Module, other: nn.Module, tolerance: float = 1e-9) -> None:
    theirs = other.state_dict()
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(
            tensor.double(), theirs[name].double(), rtol=tolerance, atol=tolerance
        )


def test_a_call_leaves_a_run_directory_and_the_model_as_it_was(tmp_path: Path):
    model = build().half()
    before = copy.deepcopy(model.state_dict())
    generator, threads = torch.get_rng_state(), torch.get_num_threads()
    run = unlearned(tmp_path / "mine", model, method="finetune")
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.get_num_threads() == threads
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert type(run.model) is Net
    assert type(run.model.norm) is nn.BatchNorm2d
    assert run.model.answer.weight.dtype == torch.float16
    assert not torch.equal(run.model.answer.weight, before["answer.weight"])
    assert 0 <= run.result["mia"]["auc"] <= 1
    assert run.result["image_size"] == [12, 10]
    assert RunDir(run.path).read_result() == run.result
    assert "Unlearning report" in run.report().read_text(encoding="utf-8")
    request = RunDir(run.path).request.read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[1:5] for line in request[1:]] == [
        [f"person {who}", "identity", "matched", "4"] for who in (6, 7)
    ]


def test_a_call_tells_its_progress_where_it_is_asked_and_leaves_logging_alone(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    logger = logging.getLogger("dlfd_dist")
    monkeypatch.setattr(logger, "handlers", [])
    before = (logger.level, logger.propagate)
    unlearned(tmp_path / "told", method="finetune", progress=True)
    said = capsys.readouterr()
    assert said.out == ""
    assert re.search(r"step=\d+/\d+ .*eta=\d+s", said.err)
    assert (logger.handlers, logger.level, logger.propagate) == ([], *before)
    unlearned(tmp_path / "mine", method="finetune", seed=1)
    assert capsys.readouterr().err == ""
    with terminal(monkeypatch, "stderr") as shown:
        unlearned(tmp_path / "drawn", method="finetune", seed=2)
        assert "step/s" in shown()
        unlearned(tmp_path / "silent", method="finetune", seed=3, progress=False)
        assert shown() == ""


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield the folder of a program whose modules no other process finds."""
    folder = tmp_path / "program"
    folder.mkdir()
    shutil.copy(REPOSITORY / "tests" / "fakes" / "strangers.py", folder / "mynets.py")
    monkeypatch.syspath_prepend(folder)
    yield folder
    sys.modules.pop("mynets", None)


def compared(out: Path) -> Path:
    settings = {**QUICK, "train.epochs": 1, "train.global_batch_size": 8}
    return dlfd.compare(
        "mynets:build", "mynets:splits", method="finetune", out=out, settings=settings
    )


def test_the_runs_of_a_comparison_import_what_lies_beside_the_program(beside: Path, tmp_path: Path):
    path = os.environ.get("PYTHONPATH")
    rows = json.loads((compared(tmp_path / "out") / "summary.json").read_text("utf-8"))["rows"]
    assert {row["method"] for row in rows} == {"Original", "Retrained", "Fine-tune"}
    assert os.environ.get("PYTHONPATH") == path


def test_what_the_processes_cannot_import_is_the_cause_that_is_raised(
    beside: Path, tmp_path: Path, capsys
):
    (beside / "launch").mkdir()
    (beside / "launch" / "__init__.py").touch()
    with pytest.raises(dlfd.DlfdError, match="No model was trained.*there is no module mynets"):
        compared(tmp_path / "out")
    assert "do not look for mynets in" in capsys.readouterr().err


def test_the_same_call_returns_the_finished_run(tmp_path: Path):
    first = unlearned(tmp_path / "mine", method="finetune")
    sets = splits()
    again = unlearned(tmp_path / "mine", sets=sets, method="finetune")
    assert again.result == first.result
    # Each is looked at once and eight of them twice; the first is asked for its size and
    # whether it has a name, and two are tried. None is trained on.
    assert sets["retain"].reads <= len(sets["retain"]) + 8 + 2 + 2
    with pytest.raises(dlfd.DlfdError, match="holds another run"):
        unlearned(tmp_path / "mine", sets=splits(5), method="finetune")


@pytest.mark.parametrize("method", ["dlfd", "scrub"])
def test_the_command_line_gives_the_same_weights(tmp_path: Path, method: str):
    run = unlearned(tmp_path / "api", method=method)
    given = load_config(RunDir(run.path).config)
    config = compose_job(
        "unlearn",
        [
            f"method={method}", *WORDS, f"model.factory={HERE}:build", "model.args={channels: 1}",
            f"data.factory={HERE}:splits", "data.args.num_retain=6", f"run.dir={tmp_path / 'cli'}",
            f"checkpoint={given.checkpoint}",
        ],
    )  # fmt: skip
    result = run_job(config, Collectives(), StopFlag())
    model = build_model(config.model, image_size=12, num_outputs=2, seed=0)
    load_weights(model, tmp_path / "cli")
    assert_equal_weights(model.module, run.model)
    assert result["mia"] == run.result["mia"]
    held = json.loads(dlfd.certify(tmp_path / "cli").read_text(encoding="utf-8"))
    with pytest.raises(dlfd.DlfdError, match="names code .model.factory=.*does not import"):
        _measure(RunDir(tmp_path / "cli"), None)
    told = held["sections"]["config"]
    assert told["model"]["factory"] == f"{HERE}:build"
    assert "channels" not in str(told["model"]["args"])
    assert told["named_code"] == {
        f"{name}_code": f"sha256:{code_digest(HERE)}" for name in ("model", "data")
    }


def test_our_own_model_and_data_through_the_library_give_the_same_weights(tmp_path: Path, tiny):
    # In batches of all images, whose order, by their numbers in the set, then plays no part.
    whole = {"method.global_batch_size": 64, "method.epochs": 3}
    words = ["method=dlfd", *WORDS, "seed=3", "method.global_batch_size=64", "method.epochs=3"]
    config = tiny("unlearn", *words, f"run.dir={tmp_path / 'ours'}", "checkpoint=none")
    data = resolve_data(config.data, config.drawn_forget)
    weights = tmp_path / "original.safetensors"
    model = build_model(config.model, image_size=32, num_outputs=2, seed=1)
    save_weights(model, weights)
    config = tiny("unlearn", *words, f"run.dir={tmp_path / 'ours'}", f"checkpoint={weights}")
    run_job(config, Collectives(), StopFlag())
    sets = {
        name: [
            (torch.from_numpy(data.images[i].copy()), int(data.manifest.labels[i]),
             str(data.manifest.identities[i]))
            for i in ids
        ]
        for name, ids in data.splits.parts().items()
    }  # fmt: skip
    settings = {
        **QUICK, **whole, "data.mean": config.data.mean, "data.std": config.data.std,
    }  # fmt: skip
    run = dlfd.unlearn(
        model.module, **sets, out=tmp_path / "theirs", settings=settings, seed=3, method="dlfd"
    )
    ours = build_model(config.model, image_size=32, num_outputs=2, seed=0)
    load_weights(ours, tmp_path / "ours")
    assert_equal_weights(ours.module, run.model)


class Breaking(Faces):
    """A set whose disk breaks at a read."""

    broken_at = 10**9

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        if self.reads >= self.broken_at:
            raise OSError("the disk is gone")
        return super().__getitem__(index)


def test_a_run_that_broke_goes_on_exactly(tmp_path: Path):
    settings = {"method.max_steps": 4, "run.checkpoint_every": 1, "method.probe_every": None}

    class Drops(Net):
        """Draws from torch's generator where it is trained, which the run has to put back."""

        def embed(self, images: Tensor) -> Tensor:
            return nn.functional.dropout(super().embed(images), 0.3, self.training)

    def model() -> Net:
        net = Drops()
        net.load_state_dict(build().state_dict())
        return net

    whole = unlearned(tmp_path / "whole", model(), method="finetune", settings=settings)
    sets = splits()
    sets["retain"] = Breaking(range(6))
    sets["retain"].broken_at = 24 + 8 + 2 + 2 + 2 * 8  # looked at, tried, and two of four steps
    with pytest.raises(dlfd.DlfdError, match=r"retain/\d+: .* \(the disk is gone\)"):
        unlearned(tmp_path / "broken", model(), sets, method="finetune", settings=settings)
    assert (tmp_path / "broken" / "checkpoints" / "latest").exists()
    torch.manual_seed(99)
    gone_on = unlearned(tmp_path / "broken", model(), method="finetune", settings=settings)
    assert_equal_weights(whole.model, gone_on.model, 0.0)


class Many(Dataset[Any]):
    """A set of any size that counts how often it is read and how many images are alive."""

    alive = most_alive = 0

    def __init__(self, start: int, count: int):
        self.start, self.targets = start, [(start + i) % 2 for i in range(count)]
        self.reads = 0

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.reads += 1
        image = torch.full((1, 4, 4), (self.start + index) % 9973 / 9973)
        image += self.targets[index]
        if index % 16 == 0:
            Many.alive += 16
            Many.most_alive = max(Many.most_alive, Many.alive)
            weakref.finalize(image, Many._dropped)
        return image, self.targets[index]

    @staticmethod
    def _dropped() -> None:
        Many.alive -= 16


def test_a_set_of_200_000_images_is_neither_copied_nor_read_before_it_is_used(tmp_path: Path):
    retain = Many(0, 200_000)
    sets = {"retain": retain, "forget": Many(200_000, 40), "val": Many(200_040, 40),
            "test": Many(200_080, 40)}  # fmt: skip
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    from dlfd_dist.jobs import context

    seen = {}
    original = context.input_digests

    def noted(*args: Any) -> dict[str, str]:
        seen["before"] = retain.reads
        return original(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(context, "input_digests", noted)
        run = unlearned(
            tmp_path / "many", model, sets, method="finetune",
            settings={"metrics.eval_batch_size": 500, "method.max_steps": 2},
        )  # fmt: skip
    assert seen["before"] <= 2_000 + 2 * 8 + 1
    # All for the accuracy, a thousand for what moved and for each place on the line, the batches.
    assert retain.reads <= seen["before"] + 200_000 + 4 * 1_000 + 100
    assert Many.most_alive <= 3 * 500
    assert run.result["num_images"]["retain"] == 200_000
    inputs = yaml.safe_load(RunDir(run.path).identity.read_text(encoding="utf-8"))["inputs"]
    assert inputs["images"].startswith("sampled:")


@pytest.mark.parametrize(
    ("shape", "kind", "labels", "more"),
    [
        ((1, 12, 10), "uint16", 0, {"pixel_range": (0, 4095)}),
        ((5, 9, 9), "", 0, {}),
        ((3, 8, 8), "uint8", 2, {"settings": {"data.mean": [0.5], "data.std": [0.5]}}),
        ((2, 8, 10), "int32", 0, {"pixel_range": ([0, 1], [4000, 4001])}),
    ],
    ids=["grey of 12 bits", "five channels", "two labels", "own range per channel"],
)
def test_images_of_any_size_and_depth(tmp_path: Path, shape, kind, labels, more):
    sets = splits(shape=shape, kind=kind, labels=labels)
    settings = {"synthesis.save": 4, "synthesis.pgd_radius": None, "synthesis.steps": 3,
                **more.pop("settings", {})}  # fmt: skip
    run = unlearned(tmp_path / "run", build(shape[0]), sets, settings=settings, **more)
    assert run.result["num_images"]["forget"] == 8
    assert (RunDir(run.path).synthesis / "contact_sheet.png").is_file()
    if labels:
        assert len(run.result["accuracy_per_label"]["test"]) == labels


def test_people_are_forgotten_by_name(tmp_path: Path):
    sets = {"train": Faces(range(8)), "val": Faces(range(8, 11)), "test": Faces(range(11, 14))}
    named = dlfd.unlearn(
        build(), **sets, forget=["person 6", "person 7"], out=tmp_path / "named",
        method="finetune", settings=QUICK,
    )  # fmt: skip
    apart = unlearned(tmp_path / "apart", method="finetune")
    assert named.result["num_images"] == apart.result["num_images"]
    assert_equal_weights(named.model, apart.model)


def test_an_evaluation_measures_the_model_and_the_gap(tmp_path: Path):
    model = build()
    run = dlfd.evaluate(
        model, **splits(), reference=model, out=tmp_path / "run",
        settings={"metrics.num_bootstrap": 5, "runtime.dtype": "float64"},
    )  # fmt: skip
    assert run.result["gap_to_retrained"] == 0
    assert_equal_weights(run.model, model, 0.0)
    with torch.no_grad():
        test = splits()["test"]
        images = torch.stack([test[i][0] for i in range(len(test))])
        right = model.eval()(images).argmax(1).numpy() == [test[i][1] for i in range(len(test))]
    assert run.result["test_accuracy"] == pytest.approx(float(np.mean(right)))


def test_blocks_are_named_where_a_method_needs_them(tmp_path: Path):
    run = unlearned(
        tmp_path / "run", method="cf_k",
        settings={"method.k": 2, "method.blocks": ["stem", "trunk", "answer"]},
    )  # fmt: skip
    before, after = build().double().state_dict(), run.model.state_dict()
    moved = {n.split(".")[0] for n in before if not torch.equal(before[n], after[n].double())}
    assert {"trunk", "answer"} <= moved
    assert "stem" not in moved


def test_what_would_be_submitted_is_shown_and_nothing_is_written(tmp_path: Path, capsys):
    torch.save(build().state_dict(), tmp_path / "w.pth")
    dlfd.submit(
        "unlearn", f"{HERE}:build", f"{HERE}:splits", cluster="slurm_generic", method="finetune",
        out=tmp_path / "campaign", dry_run=True,
        settings={**QUICK, "checkpoint": str(tmp_path / "w.pth"), "cluster.gpus": "per_task"},
    )  # fmt: skip
    assert "#SBATCH --gpus-per-task=1" in capsys.readouterr().out
    assert not (tmp_path / "campaign").exists()


def test_a_run_of_an_object_is_not_exported_by_a_name_and_tells_that_its_people_are_few(
    tmp_path: Path, capsys, caplog
):
    run = unlearned(tmp_path / "mine", method="dlfd")
    assert "probes cannot see the forgetting of 2 people" in caplog.text
    assert main(["export", str(run.path), "--to", "torch-export"]) == 2
    assert "was an object of a Python program" in capsys.readouterr().err
